"""Tables: many runs become one score per method and task, for people to read.

`summarise` reduces the rows of results.csv (`report.results`) to one cell per
method and task; `lay_out` makes a grid of texts from that; `as_text` and
`as_markdown` render any such grid.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_subspace.training.results import Row

Grid = list[list[str]]

MISSING = '-'


class Cell(NamedTuple):
  """Test scores of one method on one task, at one rate.

  Attributes:
    mean: of the test scores over seeds, in percent.
    deviation: their sample standard deviation sqrt(sum (x - mean)^2 / (n - 1)),
      None for a single seed.
    seeds: n, how many runs it is taken over.
    rate: the learning rate, chosen by validation score.
  """

  mean: float
  deviation: float | None
  seeds: int
  rate: float


class Summary(NamedTuple):
  """One cell per (method, task) that has results; names in order of the rows.

  `majority` holds the score of the most frequent class, for the tasks that
  have one.
  """

  methods: tuple[str, ...]
  tasks: tuple[str, ...]
  cells: dict[tuple[str, str], Cell]
  majority: dict[str, float]


def summarise(rows: Sequence[Row]) -> Summary:
  """Reduces runs to one cell per method and task, at its best rate.

  The rate of a cell is the one with the highest mean validation score over
  seeds; test scores play no part in the choice. Only runs with both scores
  count (a row stopped by a NaN has none), and a rate at which more seeds came
  through goes before one at which fewer did, so that a rate which works for
  one seed in three is not taken for its luck. Of equals, the smaller rate.

  Args:
    rows: at least the columns task, method, seed, rate, validation, test and
      majority.

  Raises:
    ValueError: two rows of one task, method, seed and rate, or two majority
      scores of one task.
  """
  runs: dict[tuple[str, str], dict[float, dict[int, Row]]] = {}
  majority: dict[str, float] = {}
  for row in rows:
    rates = runs.setdefault((row['method'], row['task']), {})
    seeds = rates.setdefault(row['rate'], {})
    if row['seed'] in seeds:
      raise ValueError(
        f'rows: {row["method"]} on {row["task"]} with seed {row["seed"]} and '
        f'rate {row["rate"]:g} occurs twice; give each run once.'
      )
    seeds[row['seed']] = row
    if not _missing(row['majority']):
      known = majority.setdefault(row['task'], row['majority'])
      if not math.isclose(known, row['majority'], abs_tol=1e-6):
        raise ValueError(
          f'rows: the majority score of {row["task"]} is both {known:g} and '
          f'{row["majority"]:g}, so its rows come from different test data; '
          'summarise them apart.'
        )
  cells = {key: _best_cell(rates) for key, rates in runs.items()}
  return Summary(
    methods=tuple(dict.fromkeys(method for method, _ in runs)),
    tasks=tuple(dict.fromkeys(task for _, task in runs)),
    cells={key: cell for key, cell in cells.items() if cell is not None},
    majority=majority,
  )


def lay_out(summary: Summary, tasks_across: bool = False) -> Grid:
  """A grid of texts with a header: test score per task and method, percent.

  One line per task, with the columns task, majority, then a method each; the
  last line has the averages. This stays readable for many tasks. With
  `tasks_across` the grid is turned over: one line per method, the first being
  the majority class, and the averages in the last column.

  A cell is 'mean ± deviation', only 'mean' for a single seed, with ' (n)' where
  it has n seeds and another cell has more. An average is taken only where no
  task is missing: averages over different tasks cannot be compared.
  """
  most = max((cell.seeds for cell in summary.cells.values()), default=0)
  lines = [['task', *summary.tasks, 'average']]
  majority = [summary.majority.get(task) for task in summary.tasks]
  lines.append(
    ['majority', *[_number(score) for score in majority], _average(majority)]
  )
  for method in summary.methods:
    cells = [summary.cells.get((method, task)) for task in summary.tasks]
    means = [None if cell is None else cell.mean for cell in cells]
    lines.append(
      [method, *[_cell_text(cell, most) for cell in cells], _average(means)]
    )
  if tasks_across:
    return [['method', *lines[0][1:]], *lines[1:]]
  return [list(line) for line in zip(*lines, strict=True)]


def as_text(grid: Grid) -> str:
  """The grid with aligned columns and a rule under the header, for a terminal.

  The first column is aligned to the left, the others to the right.
  """
  widths = _widths(grid)
  lines = [_aligned(line, widths, '  ').rstrip() for line in grid]
  rule = '  '.join('-' * width for width in widths)
  return '\n'.join([lines[0], rule, *lines[1:]])


def as_markdown(grid: Grid) -> str:
  """The grid as a Markdown table that is readable as it stands."""
  grid = [[text.replace('|', '\\|') for text in line] for line in grid]
  widths = [max(width, 3) for width in _widths(grid)]
  rule = ['-' * widths[0], *['-' * (width - 1) + ':' for width in widths[1:]]]
  lines = [_aligned(line, widths, ' | ') for line in [grid[0], rule, *grid[1:]]]
  return '\n'.join(f'| {line} |' for line in lines)


def _best_cell(rates: Mapping[float, Mapping[int, Row]]) -> Cell | None:
  """The cell at the rate that validation prefers, None without any result."""
  candidates = []
  for rate, seeds in rates.items():
    finished = [
      (row['validation'], row['test'])
      for row in seeds.values()
      if not _missing(row['validation']) and not _missing(row['test'])
    ]
    if finished:
      validation = statistics.fmean(score for score, _ in finished)
      tests = [score for _, score in finished]
      candidates.append((len(tests), validation, -rate, tests))
  if not candidates:
    return None
  seeds, _, negative_rate, tests = max(candidates, key=lambda one: one[:3])
  return Cell(
    mean=statistics.fmean(tests),
    deviation=statistics.stdev(tests) if seeds > 1 else None,
    seeds=seeds,
    rate=-negative_rate,
  )


def _missing(score: float | None) -> bool:
  return score is None or math.isnan(score)


def _number(score: float | None) -> str:
  return MISSING if _missing(score) else f'{score:.1f}'


def _average(scores: Sequence[float | None]) -> str:
  if not scores or any(_missing(score) for score in scores):
    return MISSING
  return _number(statistics.fmean(scores))


def _cell_text(cell: Cell | None, most_seeds: int) -> str:
  if cell is None:
    return MISSING
  text = _number(cell.mean)
  if cell.deviation is not None:
    text += f' ± {_number(cell.deviation)}'
  return text if cell.seeds == most_seeds else f'{text} ({cell.seeds})'


def _widths(grid: Grid) -> list[int]:
  return [max(map(len, column)) for column in zip(*grid, strict=True)]


def _aligned(line: Sequence[str], widths: Sequence[int], between: str) -> str:
  rest = zip(line[1:], widths[1:], strict=True)
  return between.join(
    [line[0].ljust(widths[0]), *[text.rjust(width) for text, width in rest]]
  )
