"""Ranks source prompts for a target by the similarity of task embeddings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from prompt_subspace.bank import retrieve, similarity, store
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


def entries(
  bank: epath.PathLike, names: Sequence[str]
) -> dict[str, store.Entry]:
  """Reads entries of a bank."""
  return {name: store.read(epath.Path(bank) / name) for name in names}


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
  target: store.Entry,
  sources: Sequence[Source],
  found: Mapping[str, store.Entry],
  metric: str = 'average',
) -> Ranked:
  """Orders source prompts by the similarity of their embeddings to a target's.

  Args:
    target: its own entry.
    sources: at least one.
    found: name -> entry.
    metric: of `bank.similarity.SIMILARITIES`.
  """
  check_names('similarity', (metric,), tuple(similarity.SIMILARITIES))
  asked = [target, *(found[s.entry] for s in sources)]
  own, *others = retrieve.comparable(asked)
  compare = similarity.SIMILARITIES[metric]
  scores = np.asarray(compare(own, np.stack(others)), np.float64)
  # of equals, the first in the order of the sources
  places = np.argsort(-scores, kind='stable')
  return Ranked(
    tuple(sources[i] for i in places), tuple(float(scores[i]) for i in places)
  )
