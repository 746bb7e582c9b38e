"""The cells of a transfer study: what is tuned, on what, from where."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from prompt_subspace.bank import store
from prompt_subspace.data import mixtures as task_mixtures
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.tasks import Task
from prompt_subspace.deltas.base import Method
from prompt_subspace.spot import policies
from prompt_subspace.spot.ranking import Ranked, Source
from prompt_subspace.training import stage
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage


class Study(NamedTuple):
  """A transfer study, planned.

  Attributes:
    source: stage of what is tuned on sources; its bank holds the prompts.
    target: stage of what is tuned on targets.
    wide: stage of full tuning, on sources and targets; None without it.
    method: name of what is tuned and transferred.
    scratch: how a target's phi starts without transfer.
    rates: learning rates by stage: source, target, full.
    seeds: one run each.
    found: tasks by name.
    data: (target, seed) -> what a run is trained and scored on.
    pool: (source, seed) -> likewise; a task may be both, and a source with all
      its data is a target with a few examples.
    majority: score of the constant answer by task.
    members: mixture -> its tasks.
    limit: K of mixtures.
    held_out: validation examples of a task in a mixture's validation split.
  """

  source: Stage
  target: Stage
  wide: Stage | None
  method: str
  scratch: Method
  rates: Mapping[str, float]
  seeds: tuple[int, ...]
  found: Mapping[str, Task]
  data: dict[tuple[str, int], TaskArrays]
  pool: dict[tuple[str, int], TaskArrays]
  majority: Mapping[str, float]
  members: Mapping[str, tuple[str, ...]]
  limit: int
  held_out: int

  @property
  def mixed(self) -> epath.Path:
    """Folder of what is tuned on mixtures with a target's own data."""
    return epath.Path(self.source.folder) / 'mixed'


def _plain(name: str) -> str:
  return re.sub(r'[^\w.-]', '_', name)


def mark(*parts: Any) -> str:
  """Returns a short name for a combination."""
  text = json.dumps(parts, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def _cell(study: Study, kind: str, task: str, seed: int, **fields) -> Cell:
  """A cell on a task's own data; `fields` override what is usual."""
  template = study.found[task].template if task in study.found else None
  facts = {
    'stage': kind,
    'source': '',
    'majority': study.majority.get(task, float('nan')),
    **fields.pop('facts', {}),
  }
  usual = {
    'id': f'{kind}-{_plain(task)}-s{seed}',
    'task': task,
    'data': study.data.get((task, seed)),
    'method': study.method,
    'seed': seed,
    'rate': study.rates['target'],
    'template': template,
  }
  return Cell(**usual | fields, facts=facts)


def source_cells(study: Study, sources: Sequence[str]) -> list[Cell]:
  """One run for each source (task or mixture) and seed."""
  out = []
  for task in sources:
    for seed in study.seeds:
      cell = _cell(
        study,
        'source',
        task,
        seed,
        data=study.pool[task, seed],
        rate=study.rates['source'],
        start=None,
      )
      start = functools.partial(
        stage.initial, study.source, study.method, cell.data, seed, cell.id
      )
      out.append(cell._replace(start=start))
  return out


def as_source(cell: Cell) -> Source:
  """Returns the source prompt that a source cell makes."""
  return Source(cell.id, cell.task, cell.seed)


def scratch_cells(study: Study, targets: Sequence[str]) -> list[Cell]:
  """Every target without transfer: the baseline, and its embedding."""
  library = {**study.target.library, study.method: study.scratch}
  where = study.target._replace(library=library)
  out = []
  for task in targets:
    for seed in study.seeds:
      cell = _cell(study, 'scratch', task, seed, start=None)
      start = functools.partial(
        stage.initial, where, study.method, cell.data, seed, cell.id
      )
      out.append(cell._replace(start=start))
  return out


def weighted(
  bank: epath.Path, names: Sequence[str], shares: Sequence[float]
) -> Any:
  """Returns sum_i share_i phi_i of entries of a bank."""
  phis = [store.read(bank / name).phi for name in names]
  return jax.tree.map(
    lambda *xs: sum(
      np.asarray(x, np.float32) * np.float32(a)
      for x, a in zip(xs, shares, strict=True)
    ),
    *phis,
  )


def transfer_cell(study: Study, target: str, seed: int, source: Source) -> Cell:
  """A target that starts from one source prompt."""
  return _cell(
    study,
    'transfer',
    target,
    seed,
    id=f'transfer-{_plain(target)}-s{seed}-from-{source.entry}',
    start=functools.partial(
      weighted, study.source.bank, (source.entry,), (1.0,)
    ),
    facts={'source': source.entry},
    parents=(study.source.bank / source.entry,),
  )


def average_cell(
  study: Study, target: str, seed: int, ranked: Ranked, k: int
) -> Cell:
  """A target that starts from the weighted average of the k first."""
  names = tuple(s.entry for s in ranked.sources[:k])
  shares = policies.weights(ranked.similarities[:k])
  # written with six digits, so that rounding elsewhere gives the same name
  name = mark(names, [f'{x:.6f}' for x in shares])
  return _cell(
    study,
    'average',
    target,
    seed,
    id=f'average-{_plain(target)}-s{seed}-{name}',
    start=functools.partial(
      weighted, study.source.bank, names, shares.tolist()
    ),
    facts={'source': f'{k} first'},
    parents=tuple(study.source.bank / n for n in names),
  )


def mixture_cells(
  study: Study, target: str, seed: int, ranked: Ranked, k: int
) -> tuple[Cell, Cell]:
  """A prompt tuned on the data of the k first and the target's, and the
  target that starts from it."""
  tasks = sorted({s.task for s in ranked.sources[:k]})
  name = f'{_plain(target)}-s{seed}-{mark(tasks)}'
  data = task_mixtures.mix(
    [*(study.pool[t, seed] for t in tasks), study.data[target, seed]],
    study.limit,
    seed,
    name=f'{target} with {", ".join(tasks)}',
    held_out=study.held_out,
  )
  first = _cell(
    study,
    'mixture',
    data.name,
    seed,
    id=f'mixture-{name}',
    data=data,
    rate=study.rates['source'],
    start=functools.partial(
      stage.initial, study.source, study.method, data, seed, f'mixture-{name}'
    ),
    facts={'source': ' '.join(tasks)},
  )
  second = _cell(
    study,
    'mixed',
    target,
    seed,
    id=f'mixed-{name}',
    start=functools.partial(weighted, study.mixed, (first.id,), (1.0,)),
    facts={'source': first.id},
    parents=(study.mixed / first.id,),
  )
  return first, second


def full_cells(study: Study, targets: Sequence[str]) -> list[Cell]:
  """Full tuning of every target from the backbone."""
  out = []
  for task in targets:
    for seed in study.seeds:
      cell = _cell(
        study,
        'full',
        task,
        seed,
        method='full',
        rate=study.rates['full'],
        start=None,
      )
      start = functools.partial(
        stage.initial, study.wide, 'full', cell.data, seed, cell.id
      )
      out.append(cell._replace(start=start))
  return out


def multitask_cells(
  study: Study, sources: Sequence[str], targets: Sequence[str]
) -> tuple[list[Cell], list[Cell]]:
  """Full tuning on the mixture of all sources, then on every target."""
  tasks = sorted({t for s in sources for t in study.members.get(s, (s,))})
  first, second = [], []
  for seed in study.seeds:
    data = task_mixtures.mix(
      # a source that is also a target has no more examples than the target
      [(study.pool | study.data)[t, seed] for t in tasks],
      study.limit,
      seed,
      name='all sources',
      held_out=study.held_out,
    )
    name = f'multitask-{mark(tasks)}-s{seed}'
    start = functools.partial(
      stage.initial, study.wide, 'full', data, seed, name
    )
    full = {'method': 'full', 'rate': study.rates['full']}
    first.append(
      _cell(
        study,
        'multitask-source',
        data.name,
        seed,
        id=name,
        data=data,
        start=start,
        facts={'source': ' '.join(tasks)},
        **full,
      )
    )
    second += [
      _cell(
        study,
        'multitask',
        target,
        seed,
        id=f'multitask-{_plain(target)}-{mark(tasks)}-s{seed}',
        start=functools.partial(weighted, study.wide.bank, (name,), (1.0,)),
        facts={'source': name},
        parents=(study.wide.bank / name,),
        **full,
      )
      for target in targets
    ]
  return first, second
