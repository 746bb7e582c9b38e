"""The runs of a study of the unified subspace, by stage.

Stage 0 tunes every type on every task; stage 1 finds maps from one space of
codes to their solutions; stage 2 tunes codes for tasks that stage 1 did not
see. (Stage 3, transfer, trains nothing: see `transfer`.)
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_subspace.bank import store
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.templates import Template
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.training import algorithm, cells, stage
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.spec import Settings
from prompt_subspace.training.stage import Stage
from prompt_subspace.unified import evaluate, joint, spaces
from prompt_subspace.unified.joint import Joint
from prompt_subspace.unified.spaces import Side


class Group(NamedTuple):
  """Tasks that share a space.

  Attributes:
    train: the space is found on these.
    unseen: codes are tuned for these in it.
  """

  train: tuple[str, ...]
  unseen: tuple[str, ...]


class Space(NamedTuple):
  """Which space: of a group, with a kind of maps, a size and a seed."""

  group: str
  maps: str
  size: int
  seed: int

  @property
  def id(self) -> str:
    """Names it, in files."""
    return f'{plain(self.group)}-{plain(self.maps)}-z{self.size}-s{self.seed}'


class Study(NamedTuple):
  """A study of the unified subspace, planned.

  Attributes:
    base: stage 0: the types are its library.
    rates: of stage 0, by type.
    joint: settings of stage 1.
    joint_rate: of the maps.
    how: the pipeline of stage 1.
    inside: settings of stage 2.
    inside_rates: of the codes.
    spread: standard deviation of a code at the start of stage 2.
    choose_by: of stage 3, see `transfer`.
    groups: name -> tasks.
    sizes: Z of the spaces.
    maps: name -> reparam of each type.
    types: names, in the order of the tables.
    seeds: each with origins, maps, batches and solutions of its own.
    held: seed -> the types, with maps' kinds left open, see `sides`.
    data: task -> arrays.
    unions: group -> the training examples of its tasks in one.
    templates: task -> how it reads.
    majority: score of the constant answer by task.
    engines: compiled functions of stages 1 and 2, shared by spaces of a shape.
  """

  base: Stage
  rates: Mapping[str, tuple[float, ...]]
  joint: Settings
  joint_rate: float
  how: Joint
  inside: Settings
  inside_rates: tuple[float, ...]
  spread: float
  choose_by: str
  groups: Mapping[str, Group]
  sizes: tuple[int, ...]
  maps: Mapping[str, Mapping[str, Reparam]]
  types: tuple[str, ...]
  seeds: tuple[int, ...]
  held: Mapping[int, Mapping[str, Side]]
  data: Mapping[str, TaskArrays]
  unions: Mapping[str, TaskArrays]
  templates: Mapping[str, Template]
  majority: Mapping[str, float]
  engines: dict

  @property
  def folder(self):
    """Of the results."""
    return self.base.folder

  @property
  def spaces(self) -> list[Space]:
    """All spaces of the study."""
    return [
      Space(group, maps, size, seed)
      for group in self.groups
      for maps in self.maps
      for size in self.sizes
      for seed in self.seeds
    ]


def plain(name: str) -> str:
  """Returns a name without what a file name should not hold."""
  return re.sub(r'[^\w.-]', '_', name)


def sides(study: Study, space: Space) -> dict[str, Side]:
  """Returns the types with the maps of a space."""
  kinds = study.maps[space.maps]
  return {
    n: Side(study.held[space.seed][n].start, kinds[n]) for n in study.types
  }


# -- stage 0


def original_tasks(study: Study) -> list[str]:
  """Returns the tasks whose solutions are needed: unseen ones to compare with,
  and, for the whole pipeline, those that a space is found on.
  """
  whole = study.how.pipeline == 'whole'
  return list(
    dict.fromkeys(
      name
      for group in study.groups.values()
      for name in (*(group.train if whole else ()), *group.unseen)
    )
  )


def original_cells(study: Study, task: str, kind: str, seed: int) -> list[Cell]:
  """A type tuned on a task, once for each rate."""
  start = study.held[seed][kind].start
  return [
    Cell(
      id=f'original-{plain(task)}-{kind}-s{seed}-r{rate:g}',
      task=task,
      data=study.data[task],
      method=kind,
      seed=seed,
      rate=rate,
      start=functools.partial(start.back, start.flat),
      template=study.templates[task],
      facts=_facts(study, 'original', task),
    )
    for rate in study.rates[kind]
  ]


def _facts(study: Study, name: str, task: str | None, space=None) -> dict:
  return {
    'stage': name,
    'group': space and space.group,
    'maps': space and space.maps,
    'size': space and space.size,
    'majority': None if task is None else study.majority[task],
  }


def best(study: Study, tried: Sequence[Cell]) -> Cell:
  """Returns the finished run with the best validation score."""
  rows = cells.read(study.folder, [c.id for c in tried])
  return tried[evaluate.best([r['validation'] for r in rows])]


# -- stage 1


def joint_cell(study: Study, space: Space, where: Stage | None) -> Cell:
  """The maps of a space.

  Args:
    study: the study.
    space: the space.
    where: of `joint_stage`; None gives a cell that can be named, not run.
  """
  union = study.unions[space.group]
  return Cell(
    id=f'maps-{space.id}',
    task=union.name,
    data=union,
    method='joint',
    seed=space.seed,
    rate=study.joint_rate,
    start=functools.partial(
      stage.initial, where, 'joint', union, space.seed, space.id
    ),
    facts=_facts(study, 'maps', None, space),
  )


def solutions(study: Study, space: Space) -> dict[str, np.ndarray]:
  """Returns the displacements [T, M] of each type on the tasks of a space."""
  out = {}
  for kind, side in sides(study, space).items():
    found = []
    for task in study.groups[space.group].train:
      cell = best(study, original_cells(study, task, kind, space.seed))
      phi = store.read(study.base.bank / cell.id).phi
      found.append(spaces.displacement(side, phi))
    out[kind] = np.stack(found)
  return out


def joint_stage(study: Study, space: Space) -> Stage:
  """The stage of a space's maps; the originals that it needs are there."""
  held = sides(study, space)
  tasks = len(study.groups[space.group].train)
  whole = study.how.pipeline == 'whole'
  method = joint.shared(
    held,
    space.size,
    space.seed,
    tasks,
    study.how,
    solutions(study, space) if whole else None,
  )
  return study.base._replace(
    library={'joint': method},
    optimizer=joint.optimizer(study.base.optimizer, study.how),
    # whether a delta leaves the encoder alone differs by type
    settings=study.joint._replace(cache_encoder=False),
    keep=('joint',),
    algorithm=joint.algorithm(spaces.kinds(held), study.how),
    # as in stage 2: what differs by seed is a constant, not compiled
    engines=study.engines.setdefault(
      ('joint', space.maps, space.size, tasks), {}
    ),
  )


# -- stage 2


def _watch_code(loss, split, constants):
  """Where a code is at each evaluation: transfer chooses among these."""
  del loss, split, constants

  def look(phi, batch, key):
    del batch, key
    return {f'code/{i}': x for i, x in enumerate(phi['code'])}

  return look


INSIDE = algorithm.TUNING._replace(name='tuning of codes', probe=_watch_code)


def inside_stage(study: Study, space: Space, bases: spaces.Bases) -> Stage:
  """The stage of codes in a space with known maps."""
  return study.base._replace(
    library={
      n: spaces.method(s, bases[n], space.size, study.spread)
      for n, s in sides(study, space).items()
    },
    settings=study.inside,
    keep=(),
    algorithm=INSIDE,
    # spaces of one shape share their compiled functions
    engines=study.engines.setdefault(('inside', space.maps, space.size), {}),
  )


def inside_cells(
  study: Study, space: Space, where: Stage | None, task: str, kind: str
) -> list[Cell]:
  """Codes of a task, tuned with a type, once for each rate.

  Args:
    where: of `inside_stage`; None gives cells that can be named, not run.
  """
  data = study.data[task]

  def start():
    return stage.initial(where, kind, data, space.seed, f'{space.id}-{task}')

  return [
    Cell(
      id=f'inside-{space.id}-{plain(task)}-{kind}-r{rate:g}',
      task=task,
      data=data,
      method=kind,
      seed=space.seed,
      rate=rate,
      start=start,
      template=study.templates[task],
      facts=_facts(study, 'inside', task, space),
      parents=(study.base.bank / f'maps-{space.id}',),
    )
    for rate in study.inside_rates
  ]


def path(study: Study, tried: Sequence[Cell]) -> list[dict]:
  """Returns the codes of runs at every evaluation.

  Returns:
    For each: `code` [Z], its `cell`, `step`, and `validation` score.
  """
  out = []
  for cell in tried:
    for point in cells.record(study.folder, cell.id)['history']:
      code = [point[f'code/{i}'] for i in range(cell.facts['size'])]
      out.append(
        {
          'code': np.array(code, np.float32),
          'cell': cell.id,
          'step': int(point['step']),
          'validation': point['validation'],
        }
      )
  return out
