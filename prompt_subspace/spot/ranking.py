"""Ranks source prompts for a target by the similarity of task embeddings."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

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


def embeddings(
  bank: epath.PathLike, names: Sequence[str]
) -> dict[str, np.ndarray]:
  """Returns the task embeddings [P, D] of entries; else their best phi."""
  out = {}
  for name in names:
    entry = store.read(epath.Path(bank) / name)
    phi = entry.phi if entry.embedding is None else entry.embedding
    out[name] = similarity.vectors(phi)
  return out


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
  target: np.ndarray,
  sources: Sequence[Source],
  found: Mapping[str, np.ndarray],
  metric: str = 'average',
) -> Ranked:
  """Orders source prompts by the similarity of their embeddings to a target's.

  Args:
    target: its embedding [P, D].
    sources: at least one.
    found: entry -> embedding [P, D].
    metric: of `bank.similarity.SIMILARITIES`.
  """
  check_names('similarity', (metric,), tuple(similarity.SIMILARITIES))
  bank = np.stack([found[s.entry] for s in sources])
  scores = np.asarray(similarity.SIMILARITIES[metric](target, bank), np.float64)
  # of equals, the first in the order of the sources
  places = np.argsort(-scores, kind='stable')
  return Ranked(
    tuple(sources[i] for i in places), tuple(float(scores[i]) for i in places)
  )
