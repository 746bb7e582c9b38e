"""The tables of a transfer study, from the files that it wrote."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from prompt_subspace.report import tables
from prompt_subspace.spot import analysis, work
from prompt_subspace.training import results

Points = Mapping[str, Sequence[analysis.Points]]


class Found(NamedTuple):
  """The files of a study, read."""

  folder: pathlib.Path
  cells: list[dict[str, Any]]
  similarities: list[dict[str, Any]]
  outcomes: list[dict[str, Any]]
  record: dict[str, Any]

  @property
  def bank(self) -> epath.Path:
    """Of the source prompts; a folder that was moved has its own."""
    own = epath.Path(self.folder) / 'bank'
    given = epath.Path(self.record.get('bank') or own)
    return given if given.exists() else own

  @property
  def metric(self) -> str:
    """The similarity that the study ranks by first."""
    return self.similarities[0]['metric']


def read(folder: pathlib.Path) -> Found:
  """Reads what a study wrote."""
  record = folder / 'record.json'
  return Found(
    folder,
    results.read_csv(folder / 'results.csv', work.CELLS),
    results.read_csv(folder / 'similarities.csv', work.SIMILARITIES),
    results.read_csv(folder / 'policies.csv', work.OUTCOMES),
    json.loads(record.read_text(encoding='utf-8')) if record.exists() else {},
  )


def policy_grid(gains: Sequence[analysis.Gain]) -> tables.Grid:
  """Table 3 of the paper: what each policy gives, averaged over targets."""
  known = any(g.interval for g in gains)
  header = ['policy', 'similarity', 'score', 'gain']
  header += ['95 % interval'] * known + ['error reduction %']
  share = any(g.share is not None for g in gains)
  grid = [header + ["share of the oracle's gain %"] * share]
  for g in gains:
    line = [g.policy, g.metric or '-', _spread(g.score)]
    if g.policy == 'scratch':
      line += ['-'] * (2 + known)
    else:
      line += [_spread(g.gain)]
      line += [_range(g.interval)] * known
      line += [_spread(g.reduction)]
    part = '-' if g.share is None else f'{100 * g.share:.0f}'
    grid.append(line + [part] * share)
  return grid


def _spread(value: tuple[float, float | None]) -> str:
  mean, deviation = value
  return f'{mean:.1f}' + ('' if deviation is None else f' ± {deviation:.1f}')


def _range(interval: tuple[float, float] | None) -> str:
  return '-' if interval is None else '{:.1f} to {:.1f}'.format(*interval)


def target_grid(found: Found) -> tables.Grid:
  """Test scores by target: majority, baselines, and every policy."""
  columns: dict[str, dict[str, list[float]]] = {}
  for row in found.cells:
    if row['stage'] in ('scratch', 'full', 'multitask'):
      name = f'{row["stage"]} tuning' * (row['stage'] != 'scratch')
      name = name or 'scratch'
      by_target = columns.setdefault(name, {})
      by_target.setdefault(row['task'], []).append(row['test'])
  for row in found.outcomes:
    if row['metric'] in (None, '', found.metric):
      by_target = columns.setdefault(row['policy'], {})
      by_target.setdefault(row['target'], []).append(row['test'])
  majority = {
    r['task']: r['majority'] for r in found.cells if r['stage'] == 'scratch'
  }
  grid = [['target', 'majority', *columns]]
  for target, score in majority.items():
    cells = [_scores(c.get(target, [])) for c in columns.values()]
    grid.append([target, f'{score:.1f}', *cells])
  means = [
    # of all targets or none: those that a study still lacks are no zeros
    f'{np.mean([np.mean(c[t]) for t in majority]):.1f}'
    if set(majority) <= set(c)
    else '-'
    for c in columns.values()
  ]
  return [
    *grid,
    ['average', f'{np.mean(list(majority.values())):.1f}', *means],
  ]


def _scores(values: Sequence[float]) -> str:
  if not values:
    return '-'
  spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
  return _spread((float(np.mean(values)), spread))


def write(
  found: Found, grid: tables.Grid, pairs: analysis.Pairs, points: Points
) -> None:
  """Writes policies.md, targets.md, pairs.csv and correlations.csv."""
  for name, shown in (('policies', grid), ('targets', target_grid(found))):
    text = tables.as_markdown(shown) + '\n'
    (found.folder / f'{name}.md').write_text(text, encoding='utf-8')
  results.write_csv(
    found.folder / 'pairs.csv',
    [
      {
        'source': s,
        'target': t,
        'gain': float(pairs.gain[i, j]),
        'error_reduction': float(pairs.reduction[i, j]),
      }
      for i, s in enumerate(pairs.sources)
      for j, t in enumerate(pairs.targets)
      if not math.isnan(pairs.gain[i, j])
    ],
    {'source': str, 'target': str, 'gain': float, 'error_reduction': float},
  )
  results.write_csv(
    found.folder / 'correlations.csv',
    [
      {'metric': m, 'target': p.target, 'n': len(p.sources), 'r': p.r, 'p': p.p}
      for m, each in points.items()
      for p in each
    ],
    {'metric': str, 'target': str, 'n': int, 'r': float, 'p': float},
  )


def correlation_grid(points: Points) -> list[list]:
  """Pearson's r and p for each target and similarity."""
  grid = [['target', *(f'{m}: {x}' for m in points for x in ('r', 'p'))]]
  by_target: dict[str, list] = {}
  for each in points.values():
    for p in each:
      by_target.setdefault(p.target, [p.target]).extend([p.r, p.p])
  return grid + [v for v in by_target.values() if len(v) == len(grid[0])]


def speed_grid(found: Found) -> list[list]:
  """Runs, time and padding of each stage."""
  header = ['stage', 'runs', 'seconds', 'runs per hour', 'padding %']
  return [header] + [
    [s.stage, s.cells, round(s.seconds), round(s.per_hour), 100 * s.padding]
    for s in analysis.speeds(found.cells)
  ]
