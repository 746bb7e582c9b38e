"""Runs a meta-learning study: upstream, diagnostics, downstream, tables."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_subspace import trees
from prompt_subspace.data import fewshot
from prompt_subspace.meta import columns, plan
from prompt_subspace.meta.plan import FULL, Study
from prompt_subspace.training import cells, job, results, stage
from prompt_subspace.training.cells import Cell


def describe(
  study: Study, notes: Sequence[str] = (), overlaps: Sequence[str] = ()
) -> str:
  """The plan for people.

  Args:
    study: what is planned.
    notes: what else there is to know: tasks of one origin or without data.
    overlaps: as `data.overlap.told` says them.
  """
  where, suite = study.prompt.where, study.suite
  first = suite.whole[study.targets[0]][0]
  phi = stage.shapes(where, study.method, first)
  lines = [stage.describe_backbone(where)]
  lines += [
    stage.describe_task(n, a[0], where.settings) for n, a in suite.whole.items()
  ]
  size = len(next(iter(study.unions.values())).splits['train'].labels)
  lines += [
    f'method     {study.method}: {trees.size(phi):,} trained parameters',
    f'sources    {len(study.sources)}: {", ".join(study.sources)}; '
    f'{size:,} examples',
    f'targets    {len(study.targets)}: {", ".join(study.targets)}',
  ]
  for name, how in study.upstream.items():
    settings = how.where.settings
    lines.append(
      f'upstream   {name}: {settings.steps} steps of {settings.batch_size}, '
      f'rate {how.rate:g}'
    )
  every = known_cells(study)
  left = sum(not cells.is_done(study.folder, c.id) for c in every)
  lines += [
    f'downstream {", ".join(study.algorithms)}; {len(study.splits)} splits, '
    f'rates {", ".join(f"{r:g}" for r in study.prompt.rates)}',
    f'runs       {len(every)}, {left} to do; results in {study.folder}',
  ]
  lines += [f'overlap    {text}' for text in overlaps]
  return '\n'.join([*lines, *(f'note       {n}' for n in notes)])


def known_cells(study: Study) -> list[Cell]:
  """Returns all cells of the study."""
  up = [c for a in study.upstream for c in plan.upstream_cells(study, a)]
  return up + plan.downstream_cells(study, study.algorithms)


def run(
  study: Study, identity: Mapping[str, Any], sources: Sequence = (), look=None
) -> None:
  """Makes what is missing, stage by stage; then writes the tables.

  Args:
    study: what is planned.
    identity: what decides its numbers.
    sources: the sources' few-shot arrays, whose splits are kept.
    look: folder -> None, writes diagnostics; None does without.
  """
  job.claim(study.folder, identity)
  for arrays in sources:
    fewshot.keep(arrays, study.folder / 'splits')
  made: list[Cell] = []

  def finish(where, wanted, title):
    made.extend(wanted)
    after = functools.partial(_collect, study, made, others=True)
    cells.run(where, wanted, after, title)

  for name, how in study.upstream.items():
    finish(how.where, plan.upstream_cells(study, name), f'{name} ')
  if look is not None:
    look(study.folder)
  tuned = [a for a in study.algorithms if a != FULL]
  finish(study.prompt.where, plan.downstream_cells(study, tuned), 'targets ')
  if FULL in study.algorithms:
    finish(study.full.where, plan.downstream_cells(study, [FULL]), 'full ')
  _collect(study, made)
  chosen = _chosen(study)
  results.write_csv(study.folder / 'chosen.csv', chosen, columns.CHOSEN)
  curves = [line for row in chosen for line in _curve(study, row)]
  results.write_csv(study.folder / 'curves.csv', curves, columns.CURVES)


def _collect(study: Study, made: Sequence[Cell], others: bool = False) -> None:
  """Writes results.csv of the cells so far."""
  rows = []
  for name in cells.finished(study.folder, made, others):
    stored = cells.record(study.folder, name)
    last = stored['history'][-1]
    watched = {n: last.get(n) for n in columns.WATCHED}
    rows.append({'cell': name, **stored['row'], **watched})
  results.write_csv(study.folder / 'results.csv', rows, columns.CELLS)


def _chosen(study: Study) -> list[dict[str, Any]]:
  """Returns the run of the best rate, by target, split and algorithm."""
  out = []
  for target in study.targets:
    metrics = study.suite.whole[target][0].metrics
    for split in study.splits:
      for algorithm in study.algorithms:
        for tried in plan.candidates(study, target, split, algorithm):
          ids = [c.id for c in tried]
          rows = cells.read(study.folder, ids)
          best = max(
            range(len(rows)), key=lambda i, r=rows: _worth(r[i]['validation'])
          )
          row = rows[best]
          out.append(
            {
              'target': target,
              'metric': ', '.join(metrics),
              'cell': ids[best],
              **{
                n: row[n]
                for n in columns.CHOSEN
                if n not in ('target', 'metric', 'cell')
              },
            }
          )
  return out


def _worth(validation: float) -> float:
  """Undefined is worse than everything; of equals, the first counts."""
  return -math.inf if math.isnan(validation) else validation


def _curve(study: Study, row: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns how a chosen run went."""
  same = {n: row[n] for n in ('target', 'algorithm', 'learned', 'seed')}
  return [
    {**same, **{n: point[n] for n in ('step', 'loss', 'validation')}}
    for point in cells.record(study.folder, row['cell'])['history']
  ]
