"""The tables of a study of the unified subspace, as grids of cells."""

import math
from collections.abc import Sequence
from typing import Any

from prompt_subspace.report import tables
from prompt_subspace.report.unified_found import STAGES, TUNED, Found
from prompt_subspace.unified import analysis
from prompt_subspace.unified.analysis import Average, Recovery

# how `analysis` counts, for people
WAYS = {
  'paper': 'E_sub / E_ori, %',
  'above': 'above majority, %',
  'pooled': 'above majority, pooled, %',
}
# what a line of a table is of, for people
NAMES = {'stage': 'codes of', 'maps': 'maps', 'size': 'size'}
Grid = list[list[Any]]


def text(value: Average | None, digits: int = 1) -> str:
  """'71.3 ± 0.4', '71.3' for one seed, '-' for None."""
  if value is None:
    return tables.MISSING
  # z: never -0.0
  mean = f'{value.mean:z.{digits}f}'
  if value.deviation is None:
    return mean
  return f'{mean} ± {value.deviation:.{digits}f}'


def _mean(value: Average | None) -> str:
  """Without deviation: of what does not come by chance."""
  return text(value and value._replace(deviation=None))


def several(found: Found) -> list[str]:
  """Of maps and sizes, what there are several of."""
  return [n for n in ('maps', 'size') if len(found.values(n)) > 1]


# -- averages


def recovery_grid(lines: Sequence[Recovery], names: Sequence[str]) -> Grid:
  """Scores and the three ways to count, a line each.

  Args:
    lines: of `analysis.recover`.
    names: heads of what the lines are of.
  """
  header = [*names, 'runs', 'majority', 'original', 'in the space']
  header += [WAYS['paper'], 'constant answer, %', WAYS['pooled']]
  return [[*header, WAYS['above'], 'counted']] + [
    [
      *(STAGES.get(v, str(v)) for v in line.of),
      line.score.runs if line.score else 0,
      _mean(line.majority),
      *map(text, (line.original, line.score, line.paper)),
      _mean(line.constant),
      *map(text, (line.pooled, line.above)),
      line.above.runs if line.above else 0,
    ]
    for line in lines
  ]


def average_grid(found: Found) -> Grid:
  """A line for each stage."""
  lines = found.recover(found.rows, ('stage',))
  return recovery_grid(lines, [NAMES['stage']])


def along_grid(found: Found, column: str) -> Grid:
  """Sizes, by kind of maps, or kinds of maps, where each of them was used."""
  rows = analysis.shared(found.rows, column)
  by = ['stage', column]
  if column == 'size' and 'maps' in several(found):
    by.insert(1, 'maps')
  lines = sorted(
    found.recover(rows, by), key=lambda x: [_key(found, v) for v in x.of]
  )
  return recovery_grid(lines, [NAMES[n] for n in by])


def _key(found: Found, value) -> tuple:
  """Stages and kinds in their order, numbers by size."""
  if isinstance(value, int):
    return 1, value
  order = [*STAGES, *found.values('maps')]
  return 0, order.index(value)


def type_grid(found: Found) -> Grid:
  """A line for each stage and type that uses the codes."""
  lines = found.recover(found.rows, ('stage', 'type'))
  places = [*STAGES, *found.types]
  lines.sort(key=lambda x: [places.index(v) for v in x.of])
  return recovery_grid(lines, [NAMES['stage'], 'type'])


def group_grid(found: Found) -> Grid:
  """A line for each stage, group and task."""
  lines = found.recover(found.rows, ('stage', 'group', 'task'))
  return recovery_grid(lines, [NAMES['stage'], 'group', 'task'])


# -- tables 1 to 4 of the paper


def pairs(found: Found, stage: str) -> list[tuple[str, str]]:
  """(source, type) of a stage that occur, in the order of the types."""
  seen = {(r['source'], r['type']) for r in found.of(stage)}
  return [(s, t) for s in found.types for t in found.types if (s, t) in seen]


def task_grid(found: Found, stage: str, way: str) -> Grid:
  """Tables 1 (inside) and 2 (transfer): tasks x types, or pairs of types.

  The last line has the averages, each over the runs above it.
  """
  across = pairs(found, stage)
  rows = found.of(stage)
  by = ('group', 'task', *several(found))
  whole = {x.of: x for x in found.recover(rows, by)}
  cells = {x.of: x for x in found.recover(rows, (*by, 'source', 'type'))}
  foot = {x.of: x for x in found.recover(rows, ('source', 'type'))}
  (everything,) = found.recover(rows) or [None]
  heads = [s if s == t else f'{s} → {t}' for s, t in across]
  grid = [['group', 'task', *several(found), *heads, 'average']]
  for of, line in whole.items():
    own = [_way(cells.get((*of, *pair)), way) for pair in across]
    grid.append([*map(str, of), *own, _way(line, way)])
  last = [_way(foot[pair], way) for pair in across]
  blank = [''] * (len(by) - 1)
  return [*grid, ['average', *blank, *last, _way(everything, way)]]


def _way(line: Recovery | None, way: str) -> str:
  return tables.MISSING if line is None else text(getattr(line, way))


def matrix_grid(found: Found, way: str) -> Grid:
  """Table 5: source x type, over all tasks, spaces and seeds."""
  lines = found.recover(found.of(*TUNED), ('source', 'type'))
  by = {x.of: x for x in lines}
  return [['tuned with', *(f'used by {t}' for t in found.types)]] + [
    [source, *(_way(by.get((source, t)), way) for t in found.types)]
    for source in found.types
  ]


# -- every result


def every_grid(found: Found) -> Grid:
  """A line for each task, space and pair of types, over seeds."""
  by = ('stage', 'group', 'task', 'maps', 'size', 'source', 'type')
  header = [NAMES['stage'], *by[1:], 'majority', 'original', 'score']
  return [[*header, WAYS['paper'], WAYS['above']]] + [
    [
      STAGES[x.of[0]],
      *x.of[1:],
      _mean(x.majority),
      *map(text, (x.original, x.score, x.paper, x.above)),
    ]
    for x in found.recover(found.rows, by)
  ]


def original_grid(found: Found) -> Grid:
  """Tables 10 and 11: test scores of the types' own solutions."""
  runs = analysis.originals(found.cells)
  tasks = list(dict.fromkeys(task for task, _ in runs))
  kinds = [t for t in found.types if any(kind == t for _, kind in runs)]
  majority = {
    r['task']: r['majority'] for own in runs.values() for r in own.values()
  }
  grid = [['task', 'majority', *kinds]]
  for task in tasks:
    scores = [
      analysis.average(
        ((), seed, row['test']) for seed, row in runs.get((task, t), {}).items()
      )
      for t in kinds
    ]
    level = majority[task]
    shown = tables.MISSING if analysis.missing(level) else f'{level:.1f}'
    grid.append([task, shown, *map(text, scores)])
  return grid


# -- texts and files


def left_out(found: Found) -> str:
  """Whose recovery above majority is not counted, and why; '' for none."""
  tasks: dict[str, dict[str, str]] = {}
  alone = set(unsolved(found))
  for (task, kind), why in found.why.items():
    if task not in alone:
      tasks.setdefault(task, {})[kind] = why
  out = []
  for task, own in tasks.items():
    one = set(own.values()) if set(own) == set(found.types) else ()
    each = [f'{kind} {why}' for kind, why in own.items()]
    out.append(f'{task} ({", ".join(one if len(one) == 1 else each)})')
  return '; '.join(out)


def unsolved(found: Found) -> list[str]:
  """Tasks without an original solution: the short pipeline needs none."""
  known = {r['task'] for r in found.rows if not analysis.missing(r['original'])}
  return [t for t in found.values('task') if t not in known]


def without_score(found: Found) -> int:
  """How many results lack a test score."""
  return sum(analysis.missing(r['test']) for r in found.rows)


def as_texts(grid: Grid) -> tables.Grid:
  """The grid with numbers as texts, for `tables`."""

  def shown(cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
      return tables.MISSING
    return f'{cell:.1f}' if isinstance(cell, float) else str(cell)

  return [[shown(c) for c in line] for line in grid]
