"""Which stored deltas are most like this one?

Task embeddings are compared where both sides have one, else the best
checkpoints. Deltas of different backbones live in different spaces: they are
compared only on request, and only if their shapes agree.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from prompt_subspace import trees
from prompt_subspace.bank import similarity, store
from prompt_subspace.deltas.base import check_names


class Found(NamedTuple):
  """An entry and how similar it is.

  Attributes:
    entry: its name.
    task: what it was trained on.
    similarity: to the query.
    checkpoint: what was compared, `embedding` or `phi` (the best checkpoint).
  """

  entry: str
  task: str
  similarity: float
  checkpoint: str


class Ranking(NamedTuple):
  """The answer to a query.

  Attributes:
    found: the most similar first; of equals, in the order of their names.
    left_out: reason -> entries that were not compared.
  """

  found: list[Found]
  left_out: dict[str, int]


def backbone_of(card: Mapping[str, Any]) -> str | None:
  """Returns what tells backbones apart: fingerprint, else its name as given."""
  return card['fingerprint'] or card['backbone'] or None


def comparable(entries: Sequence[store.Entry]) -> list[np.ndarray]:
  """Returns the vectors [P, D] of entries that are to be compared.

  Their embeddings; if one has none, the best checkpoints of all: an embedding
  and a best checkpoint tell different things.
  """
  embedded = all(e.embedding is not None for e in entries)
  return [
    similarity.vectors(e.embedding if embedded else e.phi) for e in entries
  ]


def similar(
  bank: epath.PathLike,
  query: str | store.Entry,
  metric: str = 'average',
  foreign: bool = False,
) -> Ranking:
  """Ranks the entries of a bank by their similarity to a query.

  Entries are read some at a time, so that the bank need not fit in memory.

  Args:
    bank: folder of entries.
    query: name of an entry, which is not compared with itself, or an entry
      from elsewhere. One whose backbone is not known is taken to be of the
      bank's, if that has one alone.
    metric: of `similarity.SIMILARITIES`.
    foreign: whether entries of other backbones are compared, too.

  Raises:
    ValueError: an unknown metric or entry, a query of unknown backbone in a
      bank of several, or nothing to compare it with.
  """
  check_names('metric', (metric,), tuple(similarity.SIMILARITIES))
  cards = store.cards(bank)
  if isinstance(query, str):
    check_names('entry', (query,), tuple(cards))
    del cards[query]
    query = store.read(epath.Path(bank) / query)
  left_out = Counter()
  alike = {
    name: card
    for name, card in cards.items()
    if card['method'] == query.card['method']
  }
  left_out['of another method'] = len(cards) - len(alike)
  kept = alike if foreign else _same_backbone(query, alike)
  left_out['of another backbone'] = len(alike) - len(kept)
  alike, kept = kept, _same_space(query, kept)
  left_out['of another space'] = len(alike) - len(kept)
  found, other_shapes = _score(bank, query, kept, metric)
  left_out['of another shape'] = other_shapes
  left_out = {reason: count for reason, count in left_out.items() if count}
  if not found:
    raise ValueError(
      f'{query.name}: expected entries to compare with, found none in {bank}; '
      f'left out: {left_out or "nothing"}. Its arrays: '
      + trees.describe(query.phi).replace('\n', ', ')
    )
  return Ranking(sorted(found, key=_order), left_out)


def _order(found: Found):
  return (-found.similarity, found.entry)


def _same_backbone(query: store.Entry, cards: Mapping[str, dict]) -> dict:
  wanted = backbone_of(query.card)
  if wanted is None:
    known = sorted({str(backbone_of(card)) for card in cards.values()})
    if len(known) > 1:
      raise ValueError(
        f'{query.name}: expected to know its backbone, found none given and '
        f'entries of {len(known)}: {[k[:16] for k in known]}. Add it to the '
        'bank with its backbone, or compare with all of them (foreign=True, '
        '--foreign).'
      )
    return dict(cards)
  return {n: card for n, card in cards.items() if backbone_of(card) == wanted}


def _same_space(query: store.Entry, cards: Mapping[str, dict]) -> dict:
  """Those whose numbers mean the same: codes of one subspace, encoders of one
  frozen table."""

  def space(card):
    settings = card.get('settings', {})
    return settings.get('fingerprint'), settings.get('table')

  own = space(query.card)
  return {n: card for n, card in cards.items() if space(card) == own}


def _score(bank, query, cards, metric) -> tuple[list[Found], int]:
  """Returns what was compared, and the number of entries of other shapes."""
  held = {'phi': query.phi, 'embedding': query.embedding}
  vectors = {k: similarity.vectors(x) for k, x in held.items() if x is not None}
  size = max(1, similarity.CHUNK_BYTES // vectors['phi'].nbytes)
  waiting: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
  found, other_shapes = [], 0

  def compare(kind):
    batch = waiting.pop(kind)
    scores = similarity.SIMILARITIES[metric](
      vectors[kind], np.stack(list(batch.values()))
    )
    for name, score in zip(batch, scores, strict=True):
      found.append(Found(name, cards[name]['task'], float(score), kind))

  for name in cards:
    entry = store.read(epath.Path(bank) / name)
    both = entry.embedding is not None and query.embedding is not None
    kind = 'embedding' if both else 'phi'
    phi = getattr(entry, kind)
    if _shapes(phi) != _shapes(held[kind]):
      other_shapes += 1
      continue
    waiting[kind][name] = similarity.vectors(phi)
    if len(waiting[kind]) == size:
      compare(kind)
  for kind in list(waiting):
    compare(kind)
  return found, other_shapes


def _shapes(phi) -> dict[str, tuple[int, ...]]:
  return {path: np.shape(x) for path, x in trees.flatten(phi).items()}
