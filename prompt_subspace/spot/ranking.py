"""Ranks source prompts for a target by the similarity of task embeddings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_subspace.bank import similarity, store
from prompt_subspace.deltas.base import check_names


class Source(NamedTuple):
  """A source prompt.

  Attributes:
    entry: its name in the bank.
    task: what it was tuned on.
    seed: of its run.
  """

  entry: str
  task: str
  seed: int


class Ranked(NamedTuple):
  """Source prompts of one target and seed, the most similar first.

  Attributes:
    sources: the ranked source prompts.
    similarities: of their embeddings to the target's.
  """

  sources: tuple[Source, ...]
  similarities: tuple[float, ...]


class Vectors(NamedTuple):
  """What tells tasks apart: of one entry of a bank.

  Attributes:
    phi: its best checkpoint.
    embedding: its task embedding, where it has one.
  """

  phi: Float[np.ndarray, 'P D']
  embedding: Float[np.ndarray, 'P D'] | None


def vectors(bank: epath.PathLike, names: Sequence[str]) -> dict[str, Vectors]:
  """Reads entries of a bank."""
  out = {}
  for name in names:
    entry = store.read(epath.Path(bank) / name)
    embedding = entry.embedding
    if embedding is not None:
      embedding = similarity.vectors(embedding)
    out[name] = Vectors(similarity.vectors(entry.phi), embedding)
  return out


def comparable(held: Sequence[Vectors]) -> list[Float[np.ndarray, 'P D']]:
  """Returns the embeddings; of all the best checkpoints, if one has none.

  An embedding and a best checkpoint tell different things.
  """
  if any(v.embedding is None for v in held):
    return [v.phi for v in held]
  return [v.embedding for v in held]


def candidates(
  sources: Sequence[Source], target: str, seed: int, pairing: str
) -> list[Source]:
  """Returns the source prompts that a target may start from.

  Args:
    sources: all there are.
    target: its own task is left out.
    seed: of the target's run.
    pairing: `seed`: the source runs of the same seed, one for each task;
      `all`: every run of every source, as in the paper (48 = 16 x 3).
  """
  check_names('pairing', (pairing,), ('seed', 'all'))
  return [
    s
    for s in sources
    if s.task != target and (pairing == 'all' or s.seed == seed)
  ]


def rank(
  target: Vectors,
  sources: Sequence[Source],
  found: Mapping[str, Vectors],
  metric: str = 'average',
) -> Ranked:
  """Orders source prompts by the similarity of their embeddings to a target's.

  Args:
    target: its vectors.
    sources: at least one.
    found: entry -> vectors.
    metric: of `bank.similarity.SIMILARITIES`.
  """
  check_names('similarity', (metric,), tuple(similarity.SIMILARITIES))
  own, *others = comparable([target, *(found[s.entry] for s in sources)])
  compare = similarity.SIMILARITIES[metric]
  scores = np.asarray(compare(own, np.stack(others)), np.float64)
  # of equals, the first in the order of the sources
  places = np.argsort(-scores, kind='stable')
  return Ranked(
    tuple(sources[i] for i in places), tuple(float(scores[i]) for i in places)
  )
