"""Runs a study of the unified subspace, stage by stage; writes its tables."""

import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_subspace import trees
from prompt_subspace.bank import store
from prompt_subspace.evaluation import predict
from prompt_subspace.training import cells, job, results, stage
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.progress import Progress
from prompt_subspace.training.stage import Stage
from prompt_subspace.unified import (
  columns,
  evaluate,
  joint,
  landscape,
  plan,
  transfer,
)
from prompt_subspace.unified.landscape import Look
from prompt_subspace.unified.plan import Space, Study


def describe(
  study: Study,
  look: Look,
  overlaps: Sequence[str] = (),
  notes: Sequence[str] = (),
) -> str:
  """The plan for people.

  Args:
    study: what is planned.
    look: which landscapes are drawn.
    overlaps: as `data.overlap.told` says them.
    notes: as of `crossfit_places.notes`.
  """
  lines = [stage.describe_backbone(study.base)]
  lines += [
    stage.describe_task(n, a, study.base.settings)
    for n, a in study.data.items()
  ]
  some = next(iter(study.held.values()))
  lines += [f'type       {n}: {s.size:,} parameters' for n, s in some.items()]
  for name, group in study.groups.items():
    lines.append(
      f'group      {name}: {", ".join(group.train)}; unseen '
      f'{", ".join(group.unseen)}'
    )
  lines += [f'overlap    {text}' for text in overlaps]
  every = known_cells(study)
  left = sum(not cells.is_done(study.folder, c.id) for c in every)
  steps = (study.base.settings.steps, study.joint.steps, study.inside.steps)
  return '\n'.join(
    [
      *lines,
      f'spaces     {len(study.spaces)}: sizes {list(study.sizes)}, maps '
      f'{", ".join(study.maps)}, seeds {list(study.seeds)}; '
      f'{study.how.pipeline} pipeline',
      'steps      {} for originals, {} for maps, {} for codes'.format(*steps),
      *_planes(study, look),
      f'runs       {len(every)}, {left} to do; results in {study.folder}',
      *(f'note       {text}' for text in notes),
    ]
  )


def _planes(study: Study, look: Look) -> list[str]:
  """Says which landscapes there will be, where any are asked for."""
  if not look.maps:
    return []
  found = [
    (space, task)
    for space in study.spaces
    if look.wants(*space[1:])
    for task in study.groups[space.group].unseen
    if look.tasks is None or task in look.tasks
  ]
  if not found:
    asked = {n: getattr(look, n) for n in ('sizes', 'seeds', 'tasks')}
    return [
      'landscapes NONE: of these spaces and unseen tasks none is among those '
      f'of landscape.Look, {asked}'
    ]
  points = len(look.points) * len(look.types or study.types[:3])
  return [f'landscapes {len(found)} of {points:,} evaluations']


def known_cells(study: Study) -> list[Cell]:
  """Returns all cells of the study, by name: those of spaces cannot run."""
  out = _originals(study)
  for space in study.spaces:
    out.append(plan.joint_cell(study, space, None))
    out += _inside(study, space, None)
  return out


def _originals(study: Study) -> list[Cell]:
  return [
    cell
    for kind, task, seed in itertools.product(
      study.types, plan.original_tasks(study), study.seeds
    )
    for cell in plan.original_cells(study, task, kind, seed)
  ]


def _inside(study: Study, space: Space, where: Stage | None) -> list[Cell]:
  return [
    cell
    for kind, task in itertools.product(
      study.types, study.groups[space.group].unseen
    )
    for cell in plan.inside_cells(study, space, where, task, kind)
  ]


def run(study: Study, identity: Mapping[str, Any], look: Look) -> None:
  """Makes what is missing, stage by stage; then writes the tables.

  Args:
    study: what is planned.
    identity: what decides its numbers.
    look: which landscapes are drawn.
  """
  job.claim(study.folder, identity)
  made: list[Cell] = []

  def finish(where, wanted, title):
    made.extend(wanted)
    after = functools.partial(_collect, study, made, others=True)
    cells.run(where, wanted, after, title)

  finish(study.base, _originals(study), 'originals ')
  drawn = []
  for number, space in enumerate(study.spaces, start=1):
    title = f'space {number}/{len(study.spaces)} '
    where = plan.joint_stage(study, space)
    cell = plan.joint_cell(study, space, where)
    finish(where, [cell], title)
    found = store.read(where.bank / cell.id).phi
    inside = plan.inside_stage(
      study, space, joint.bases_of(where.library['joint'].constants, found)
    )
    finish(inside, _inside(study, space, inside), title)
    _recover(study, space, where.library['joint'], inside, found, title)
    drawn += _landscapes(study, space, inside, look)
  _collect(study, made)
  rows = [r for s in study.spaces for r in _stored(study, s)]
  results.write_csv(study.folder / 'recovery.csv', rows, columns.RECOVERY)
  path = study.folder / 'landscapes.csv'
  results.write_csv(path, drawn, columns.LANDSCAPES)


def _collect(study: Study, made: Sequence[Cell], others: bool = False) -> None:
  """Writes results.csv of the cells so far."""
  done = cells.finished(study.folder, made, others)
  rows = [
    {'cell': name, **row}
    for name, row in zip(done, cells.read(study.folder, done), strict=True)
  ]
  results.write_csv(study.folder / 'results.csv', rows, columns.CELLS)


# -- recovery: what is known of a space is kept in a file of its own


def _place(study: Study, space: Space):
  return study.folder / 'recovery' / f'{space.id}.csv'


def _stored(study: Study, space: Space) -> list[dict[str, Any]]:
  return results.read_csv(_place(study, space), columns.RECOVERY)


def _recover(study, space, method, inside: Stage, phi, title: str) -> None:
  """Writes what codes reach in a space, line by line; what is there stays."""
  path = _place(study, space)
  rows = _stored(study, space) if path.exists() else []
  have = {(r['stage'], r['task'], r['source'], r['type']) for r in rows}
  left = [
    use
    for use in _uses(study, space)
    if (_stage(study, space, *use), *use) not in have
  ]
  if not left:
    return
  codes = joint.codes_of(plan.sides(study, space), method, phi, study.how)
  train = study.groups[space.group].train
  with Progress(len(left), f'[{title}codes] {space.id}') as bar:
    for number, (task, source, kind) in enumerate(left, start=1):
      if task in train:
        code = codes[kind][train.index(task)]
        tried = [{'code': code, 'cell': f'maps-{space.id}', 'step': 0}]
      else:
        cells_of = plan.inside_cells(study, space, inside, task, source)
        tried = plan.path(study, cells_of)
      rows.append(_row(study, space, inside, task, source, kind, tried))
      results.write_csv(path, rows, columns.RECOVERY)
      bar.update(number, 0, {})


def _uses(study: Study, space: Space) -> list[tuple[str, str, str]]:
  """Which codes are used: (task, type that found it, type that uses it)."""
  group, types = study.groups[space.group], study.types
  own = [(task, kind, kind) for kind in types for task in group.train]
  return [*own, *itertools.product(group.unseen, types, types)]


def _stage(study: Study, space: Space, task: str, source: str, kind: str):
  """What a line of recovery.csv is about."""
  if task in study.groups[space.group].train:
    return 'approximation'
  return 'inside' if kind == source else 'transfer'


def _row(study, space, inside: Stage, task, source, kind, tried):
  """One line of recovery.csv."""
  name = _stage(study, space, task, source, kind)
  data = study.data[task]
  if name == 'inside':
    # known from the run itself
    own = plan.best(study, plan.inside_cells(study, space, inside, task, kind))
    row = cells.read(study.folder, [own.id])[0]
    found = {n: row[n] for n in ('validation', 'test')}
    found |= {'cell': own.id, 'step': row['best_step']}
  else:
    found = transfer.transfer(inside, kind, tried, data, study.choose_by)
  original = None
  if task in plan.original_tasks(study):
    cell = plan.best(study, plan.original_cells(study, task, kind, space.seed))
    original = cells.read(study.folder, [cell.id])[0]['test']
  return {
    'stage': name,
    'group': space.group,
    'maps': space.maps,
    'size': space.size,
    'seed': space.seed,
    'task': task,
    'source': source,
    'type': kind,
    'original': original,
    'majority': study.majority[task],
    **found,
  }


# -- landscapes


def _landscapes(study: Study, space: Space, inside: Stage, look: Look):
  """Evaluates the planes that are asked for; returns their lines."""
  if not look.wants(space.maps, space.size, space.seed):
    return []
  out = []
  types = look.types or study.types[:3]
  for task in study.groups[space.group].unseen:
    if look.tasks is not None and task not in look.tasks:
      continue
    own = {
      kind: plan.best(
        study, plan.inside_cells(study, space, inside, task, kind)
      )
      for kind in types
    }
    codes = [_best_code(study, own[kind]) for kind in types]
    where = landscape.plane(codes)
    name = f'{space.id}-{plan.plain(task)}'
    path = study.folder / 'landscapes' / f'{name}.csv'

    def score(kind, points, task=task):
      found = evaluate.scores(
        inside, kind, points, study.data[task], 'validation', look.examples
      )
      return evaluate.values(found)

    began, known = time.monotonic(), path.exists()
    points = landscape.evaluate(path, where, look.points, score, types)
    if not known:
      seconds = time.monotonic() - began
      print(f'{name}: {len(points):,} evaluations in {seconds:.0f} s')
    for kind, (x, y) in zip(types, where.marks, strict=True):
      original = plan.best(
        study, plan.original_cells(study, task, kind, space.seed)
      )
      row = cells.read(study.folder, [original.id])[0]
      out.append(
        {
          'name': name,
          **space._asdict(),
          'task': task,
          'type': kind,
          'x': float(x),
          'y': float(y),
          'original': row['validation'],
          'majority': predict.majority(
            study.data[task], 'validation', look.examples
          )['score'],
          'examples': look.examples,
          'file': f'landscapes/{name}.csv',
        }
      )
  return out


def _best_code(study: Study, cell: Cell):
  """The code of a run at its best step."""
  row = cells.read(study.folder, [cell.id])[0]
  return next(
    p['code'] for p in plan.path(study, [cell]) if p['step'] == row['best_step']
  )


def sizes(study: Study) -> dict[str, int]:
  """Returns the parameters of each type, for the record."""
  some = next(iter(study.held.values()))
  return {n: side.size for n, side in some.items()} | {
    'backbone': trees.size(study.base.backbone.weights)
  }
