"""The tables of a study of the unified subspace, as files."""

from collections.abc import Callable, Mapping
from typing import Any

from prompt_subspace.report import tables
from prompt_subspace.report import unified_tables as grids
from prompt_subspace.report.unified_found import Found
from prompt_subspace.report.unified_tables import Grid
from prompt_subspace.training import results
from prompt_subspace.unified import analysis
from prompt_subspace.unified.analysis import Recovery

AVERAGES = {
  'stage': str,
  'maps': str,
  'size': int,
  'runs': int,
  'seeds': int,
  'score': float,
  'original': float,
  'majority': float,
  'paper': float,
  'paper_deviation': float,
  'constant': float,
  'above': float,
  'above_deviation': float,
  'above_runs': int,
  'pooled': float,
  'pooled_deviation': float,
}


def write(found: Found) -> None:
  """Writes recovery.md, transfer.md and averages.csv."""
  parts = {
    'recovery': _recovery_parts(found),
    'transfer': _transfer_parts(found),
  }
  for name, own in parts.items():
    shown = '\n\n'.join(
      f'{title}\n\n{tables.as_markdown(grids.as_texts(grid))}'
      for title, grid in own.items()
      if len(grid) > 1
    )
    path = found.folder / f'{name}.md'
    path.write_text(f'{shown}\n', encoding='utf-8')
  by = ('stage', 'maps', 'size')
  rows = [_average_row(x) for x in found.recover(found.rows, by)]
  results.write_csv(found.folder / 'averages.csv', rows, AVERAGES)


def _recovery_parts(found: Found) -> Mapping[str, Grid]:
  without = grids.left_out(found)
  note = f' (without {without})' if without else ''
  return {
    'Averages': grids.average_grid(found),
    **(
      {'By size': grids.along_grid(found, 'size')}
      if _has(found, 'size')
      else {}
    ),
    **(
      {'By maps': grids.along_grid(found, 'maps')}
      if _has(found, 'maps')
      else {}
    ),
    f'Optimisation, {grids.WAYS["paper"]}': grids.task_grid(
      found, 'inside', 'paper'
    ),
    f'Optimisation, {grids.WAYS["above"]}{note}': grids.task_grid(
      found, 'inside', 'above'
    ),
    'Original solutions, test score': grids.original_grid(found),
  }


def _has(found: Found, column: str) -> bool:
  return column in grids.several(found)


def _transfer_parts(found: Found) -> Mapping[str, Grid]:
  titles: dict[str, Callable[[str], Grid]] = {
    'Source x type': lambda way: grids.matrix_grid(found, way),
    'By task': lambda way: grids.task_grid(found, 'transfer', way),
  }
  return {
    f'{title}, {grids.WAYS[way]}': grid(way)
    for title, grid in titles.items()
    for way in analysis.WAYS
  }


def _average_row(line: Recovery) -> dict[str, Any]:
  out: dict[str, Any] = dict(
    zip(('stage', 'maps', 'size'), line.of, strict=True)
  )
  out |= {'runs': 0, 'seeds': 0, 'above_runs': 0}
  if line.score:
    out |= {'runs': line.score.runs, 'seeds': line.score.seeds}
  if line.above:
    out['above_runs'] = line.above.runs
  for name in ('score', 'original', 'majority', 'constant', *analysis.WAYS):
    value = getattr(line, name)
    out[name] = value and value.mean
    if name in analysis.WAYS:
      out[f'{name}_deviation'] = value and value.deviation
  return out
