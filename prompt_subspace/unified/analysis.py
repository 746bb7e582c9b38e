"""What a study of the unified subspace found: recovered shares of solutions.

Yi et al. 2022 (UDT), section 5.1. With E_sub the test score, in percent, of a
type whose phi comes from a code of the subspace, E_ori that of the type's own
solution, and m that of the best constant answer (majority), three ways to count
what is recovered:

  paper   mean over runs of 100 E_sub / E_ori
  above   mean over runs of 100 (E_sub - m) / (E_ori - m)
  pooled  100 sum over runs (E_sub - m) / sum over runs (E_ori - m)

The paper's gives a constant answer 100 m / E_ori percent, which is no recovery;
the others give it 0. The ratio of one run means little where E_ori is near m:
`above` is over solutions that are a margin above m with every seed, and says
which are not; `pooled` is over all, and there only the sum must be.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Row = Mapping[str, Any]
Pair = tuple[str, str]  # task and type

# two standard errors of a score of 75 % on 300 examples
MARGIN = 5.0
WAYS = ('paper', 'above', 'pooled')
# what a run is of, apart from its seed
KEY = ('stage', 'group', 'maps', 'size', 'task', 'source', 'type')


class Average(NamedTuple):
  """A mean over runs.

  Attributes:
    mean: over what was run of its means over seeds.
    deviation: sample standard deviation over seeds of the mean over what was
      run with all of them; None for one seed.
    runs: how many were counted, over all seeds.
    seeds: how many.
  """

  mean: float
  deviation: float | None
  runs: int
  seeds: int


class Recovery(NamedTuple):
  """What runs of a kind recover.

  Attributes:
    of: values of the columns that they have in common.
    score: E_sub in percent.
    original: E_ori.
    majority: m; None where no task has one.
    paper: see the module; None where it is defined for no run.
    constant: what the best constant answer gets by the paper's way,
      100 m / E_ori, over the same runs.
    above: the same.
    pooled: the same; None also where E_ori is less than the margin above m on
      average.
  """

  of: tuple
  score: Average | None
  original: Average | None
  majority: Average | None
  paper: Average | None
  constant: Average | None
  above: Average | None
  pooled: Average | None


def missing(number: float | None) -> bool:
  """Whether there is no number."""
  return number is None or math.isnan(number)


def relative(row: Row) -> float:
  """Returns 100 E_sub / E_ori; NaN where that is undefined (E_ori <= 0)."""
  if missing(row['test']) or missing(row['original']) or row['original'] <= 0:
    return math.nan
  return 100 * row['test'] / row['original']


def headroom(row: Row) -> float:
  """Returns E_ori - m in points; NaN where one of them is missing."""
  if missing(row['original']) or missing(row['majority']):
    return math.nan
  return row['original'] - row['majority']


def weak(rows: Sequence[Row], margin: float = MARGIN) -> dict[Pair, str]:
  """Returns solutions without a recovery above majority: (task, type) -> why.

  Why is the least E_ori - m of a seed, or what is missing.

  All seeds of a solution count or none, so that deviations over seeds are of
  the same tasks.

  Args:
    rows: of recovery.csv.
    margin: the least E_ori - m, in points, that every seed must have.
  """
  least: dict[Pair, float] = {}
  for row in rows:
    pair = row['task'], row['type']
    # NaN stays, whatever comes first
    least[pair] = float(np.minimum(least.get(pair, np.inf), headroom(row)))
  known = {r['task']: r['majority'] for r in rows}
  out = {}
  for pair, points in least.items():
    if math.isnan(points):
      lost = missing(known[pair[0]])
      out[pair] = f'{"no majority" if lost else "no original"} score'
    elif points < margin or points <= 0:
      out[pair] = f'{points:+.1f} points'
  return out


def average(
  runs: Iterable[tuple[tuple, int, float]],
) -> Average | None:
  """Returns the average of (what, seed, number); NaN is left out.

  Where a seed lacks a part, the mean still has every part equally, and the
  deviation is over the parts that all seeds have: means of different parts
  differ for that alone.
  """
  found: dict[tuple, dict[int, float]] = {}
  for what, seed, number in runs:
    if not missing(number):
      found.setdefault(what, {})[seed] = number
  if not found:
    return None
  seeds = sorted({s for own in found.values() for s in own})
  whole = [own for own in found.values() if len(own) == len(seeds)]
  by_seed = [statistics.fmean(own[s] for own in whole) for s in seeds if whole]
  return Average(
    statistics.fmean(statistics.fmean(own.values()) for own in found.values()),
    statistics.stdev(by_seed) if len(by_seed) > 1 else None,
    sum(map(len, found.values())),
    len(seeds),
  )


def recover(
  rows: Sequence[Row],
  by: Sequence[str] = (),
  margin: float = MARGIN,
  why: Mapping[Pair, str] | None = None,
) -> list[Recovery]:
  """Returns what is recovered, a line for each combination of some columns.

  Args:
    rows: of recovery.csv.
    by: columns; none gives one line of all rows.
    margin: of `weak`.
    why: of `weak`, where that is to be of more rows than these.

  Returns:
    Lines in the order in which the combinations occur.
  """
  why = weak(rows, margin) if why is None else why
  groups: dict[tuple, list[Row]] = {}
  for row in rows:
    groups.setdefault(tuple(row[n] for n in by), []).append(row)
  return [_line(of, own, margin, why) for of, own in groups.items()]


def _line(of, rows: Sequence[Row], margin: float, why) -> Recovery:
  def mean(number: Callable[[Row], float]) -> Average | None:
    return average(
      (tuple(r[n] for n in KEY), r['seed'], number(r)) for r in rows
    )

  def above(row: Row) -> float:
    if (row['task'], row['type']) in why or missing(row['test']):
      return math.nan
    return 100 * (row['test'] - row['majority']) / headroom(row)

  def constant(row: Row) -> float:
    if math.isnan(relative(row)) or missing(row['majority']):
      return math.nan
    return 100 * row['majority'] / row['original']

  return Recovery(
    of,
    *(mean(lambda r, n=n: r[n]) for n in ('test', 'original', 'majority')),
    mean(relative),
    mean(constant),
    mean(above),
    pooled(rows, margin),
  )


def pooled(rows: Sequence[Row], margin: float = MARGIN) -> Average | None:
  """Returns 100 sum (E_sub - m) / sum (E_ori - m) over runs that have all.

  The deviation is of the ratios by seed. None where E_ori - m is below the
  margin on average; a deviation of None also where it is so for a seed.
  """
  kept = [
    r for r in rows if not missing(headroom(r)) and not missing(r['test'])
  ]
  by_seed: dict[int, list[Row]] = {}
  for row in kept:
    by_seed.setdefault(row['seed'], []).append(row)
  mean = _ratio(kept, margin)
  if mean is None:
    return None
  parts = [_ratio(own, margin) for own in by_seed.values()]
  alone = len(parts) < 2 or None in parts
  deviation = None if alone else statistics.stdev(parts)
  return Average(mean, deviation, len(kept), len(parts))


def _ratio(rows: Sequence[Row], margin: float) -> float | None:
  if not rows:
    return None
  whole = statistics.fmean(map(headroom, rows))
  if whole < margin or whole <= 0:
    return None
  part = statistics.fmean(r['test'] - r['majority'] for r in rows)
  return 100 * part / whole


def shared(rows: Sequence[Row], column: str) -> list[Row]:
  """Returns the rows that occur, but for a column, with each of its values.

  What is left can be compared along the column: sizes or kinds of maps that
  were used on other tasks, or with fewer seeds, differ for that alone.
  """
  rest = [n for n in (*KEY, 'seed') if n != column]
  every = {r[column] for r in rows}
  seen: dict[tuple, set] = {}
  for row in rows:
    if not missing(row['test']):
      seen.setdefault(tuple(row[n] for n in rest), set()).add(row[column])
  return [r for r in rows if seen.get(tuple(r[n] for n in rest)) == every]


def matrix(
  rows: Sequence[Row],
  types: Sequence[str],
  way: str,
  margin: float = MARGIN,
  why: Mapping[Pair, str] | None = None,
) -> Float[np.ndarray, 'S T']:
  """Returns the mean recovery by source (lines) and type (columns).

  Table 5 of the paper: on the diagonal codes that were tuned with the type
  itself, elsewhere transfer. NaN where there is none.

  Args:
    rows: of recovery.csv.
    types: names, in order.
    way: one of `WAYS`.
    margin: of `weak`.
    why: as in `recover`.
  """
  out = np.full((len(types), len(types)), math.nan)
  tuned = [r for r in rows if r['stage'] in ('inside', 'transfer')]
  for line in recover(tuned, ('source', 'type'), margin, why):
    source, kind = line.of
    if (found := getattr(line, way)) is not None:
      out[types.index(source), types.index(kind)] = found.mean
  return out


def originals(cells: Sequence[Row]) -> dict[Pair, dict[int, Row]]:
  """Returns the runs of the original solutions: (task, type) -> seed -> row.

  Of several rates the one with the best validation score counts, as in
  recovery.csv.

  Args:
    cells: the rows of results.csv.
  """
  out: dict[Pair, dict[int, Row]] = {}
  for row in cells:
    if row['stage'] != 'original':
      continue
    own = out.setdefault((row['task'], row['method']), {})
    best = own.get(row['seed'])
    if best is None or _worth(row) > _worth(best):
      own[row['seed']] = row
  return out


def _worth(row: Row) -> float:
  number = row['validation']
  return -math.inf if missing(number) else number
