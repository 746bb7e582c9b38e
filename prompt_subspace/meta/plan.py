"""The cells of a meta-learning study: what is learned, and what it is tuned to.

Upstream, each algorithm learns an initialisation from the source tasks;
downstream, every target is tuned from it, on each split and at each rate.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from etils import epath

from prompt_subspace.bank import store
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.meta.suite import Suite
from prompt_subspace.training import stage
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage

# tuning without anything learned upstream: of the method, and of all weights
PLAIN, FULL = 'pt', 'ft'
# the name of the method that tunes all weights
FULL_METHOD = 'full'


class Learning(NamedTuple):
  """How an algorithm learns upstream.

  Attributes:
    where: its stage.
    rate: outer learning rate.
  """

  where: Stage
  rate: float


class Tuning(NamedTuple):
  """How targets are tuned.

  Attributes:
    where: its stage.
    rates: tried on every target and split; validation chooses.
  """

  where: Stage
  rates: tuple[float, ...]


class Study(NamedTuple):
  """A meta-learning study, planned.

  Attributes:
    upstream: algorithm -> how it learns.
    prompt: how targets are tuned by the method.
    full: how all weights are tuned, None without it.
    method: name of what is learned and tuned.
    algorithms: in the order of the tables; `pt` and `ft` among them.
    learned: seeds of the upstream runs.
    splits: numbers of the few-shot splits of the targets.
    sources: tasks that are learned from.
    targets: tasks that are tuned.
    suite: the tasks.
    data: (target, split) -> its few-shot arrays.
    unions: seed of an upstream run -> what it learns from.
    majority: score of the constant answer by target.
  """

  upstream: Mapping[str, Learning]
  prompt: Tuning
  full: Tuning | None
  method: str
  algorithms: tuple[str, ...]
  learned: tuple[int, ...]
  splits: tuple[int, ...]
  sources: tuple[str, ...]
  targets: tuple[str, ...]
  suite: Suite
  data: Mapping[tuple[str, int], TaskArrays]
  unions: Mapping[int, TaskArrays]
  majority: Mapping[str, float]

  @property
  def folder(self):
    """Of the results."""
    return self.prompt.where.folder


def upstream_cell(study: Study, algorithm: str, seed: int) -> Cell:
  """An algorithm that learns an initialisation."""
  how, union = study.upstream[algorithm], study.unions[seed]
  return Cell(
    id=f'{algorithm}-s{seed}',
    task=union.name,
    data=union,
    method=study.method,
    seed=seed,
    rate=how.rate,
    # all algorithms begin at the same point
    start=functools.partial(
      stage.initial, how.where, study.method, union, seed, 'initial'
    ),
    facts={
      'stage': 'upstream',
      'algorithm': algorithm,
      'learned': seed,
      'majority': None,
    },
  )


def upstream_cells(study: Study, algorithm: str) -> list[Cell]:
  """An algorithm with every seed."""
  return [upstream_cell(study, algorithm, seed) for seed in study.learned]


def candidates(
  study: Study, target: str, split: int, algorithm: str
) -> list[list[Cell]]:
  """The runs of a target and a split: for each seed upstream, one per rate."""
  data = study.data[target, split]
  plain = re.sub(r'[^\w.-]', '_', target)
  learned: Sequence[int | None] = study.learned
  how, method = study.prompt, study.method
  if algorithm not in study.upstream:
    learned = [None]
  if algorithm == FULL:
    how, method = study.full, FULL_METHOD
  out = []
  for seed in learned:
    parents: tuple[epath.Path, ...] = ()
    if seed is None:
      start = functools.partial(
        stage.initial, how.where, method, data, split, 'initial'
      )
    else:
      place = study.upstream[algorithm].where.bank
      parents = (place / upstream_cell(study, algorithm, seed).id,)
      start = functools.partial(_stored, parents[0])
    name = f'{algorithm}-{plain}-s{split}' + (f'-u{seed}' if parents else '')
    out.append(
      [
        Cell(
          id=f'{name}-r{rate:g}',
          task=target,
          data=data,
          method=method,
          seed=split,
          rate=rate,
          start=start,
          template=study.suite.templates[target],
          facts={
            'stage': 'downstream',
            'algorithm': algorithm,
            'learned': seed,
            'majority': study.majority[target],
          },
          parents=parents,
        )
        for rate in how.rates
      ]
    )
  return out


def _stored(place: epath.Path):
  """What an algorithm learned, from its bank."""
  return store.read(place).phi


def downstream_cells(study: Study, algorithms: Sequence[str]) -> list[Cell]:
  """All runs of these algorithms on targets."""
  return [
    cell
    for target in study.targets
    for split in study.splits
    for algorithm in algorithms
    for cells in candidates(study, target, split, algorithm)
    for cell in cells
  ]
