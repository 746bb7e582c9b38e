"""What a transfer study found: gains, pairs, correlations.

Vu et al. 2022, section 3. Scores are percent. With `base` the score of a
target tuned from scratch and `new` that with transfer, the gain is new - base
and the relative error reduction 100 (new - base) / (100 - base).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from prompt_subspace.evaluation import intervals

Row = Mapping[str, Any]


class Gain(NamedTuple):
  """What a policy gains on average over targets.

  Every number is the mean over seeds of the mean over targets, and its sample
  standard deviation over seeds (None for one seed).

  Attributes:
    policy: its name.
    metric: the similarity that it ranks by, '' where it uses none.
    score: test score.
    gain: test score minus that from scratch.
    interval: of the gain, as of `intervals.bootstrap`; None for one target, or
      where targets have other seeds.
    reduction: relative error reduction.
    share: gain / gain of the oracle; None without an oracle, or where the
      oracle gains nothing.
  """

  policy: str
  metric: str
  score: tuple[float, float | None]
  gain: tuple[float, float | None]
  interval: tuple[float, float] | None
  reduction: tuple[float, float | None]
  share: float | None


class Points(NamedTuple):
  """Similarity against relative error reduction for one target.

  Attributes:
    target: its name.
    sources: what each point is.
    similarity: of the source's embedding to the target's, mean over seeds.
    reduction: relative error reduction in percent, mean over seeds.
    r: Pearson's correlation; NaN where it is undefined.
    p: its two-sided p-value.
  """

  target: str
  sources: tuple[str, ...]
  similarity: Float[np.ndarray, ' n']
  reduction: Float[np.ndarray, ' n']
  r: float
  p: float


# points: an oracle that gains less gains nothing that a share could be of
LEAST = 0.05


def reduction(new: float, base: float) -> float:
  """Returns 100 (new - base) / (100 - base); NaN where base is 100."""
  return 100 * (new - base) / (100 - base) if base < 100 else float('nan')


def gains(outcomes: Sequence[Row]) -> list[Gain]:
  """Returns one line per policy and metric, from scratch first.

  Args:
    outcomes: the rows of policies.csv.
  """
  groups: dict[tuple[str, str], list[Row]] = {}
  for row in outcomes:
    key = (row['policy'], row['metric'] or '')
    groups.setdefault(key, []).append(row)
  first = next(iter(groups.values()), [])
  plain = [{**r, 'test': r['scratch']} for r in first]
  oracle = groups.get(('oracle', ''))
  most = _mean(_by_seed(oracle, _gain))[0] if oracle else float('nan')
  out = [_line('scratch', '', plain)._replace(interval=None)] if plain else []
  for (policy, metric), rows in groups.items():
    line = _line(policy, metric, rows)
    share = line.gain[0] / most if most >= LEAST else None
    out.append(line._replace(share=share))
  return out


def _line(policy: str, metric: str, rows: Sequence[Row]) -> Gain:
  return Gain(
    policy,
    metric,
    _mean(_by_seed(rows, lambda r: r['test'])),
    _mean(_by_seed(rows, _gain)),
    _interval(rows),
    _mean(_by_seed(rows, lambda r: reduction(r['test'], r['scratch']))),
    None,
  )


def _interval(rows: Sequence[Row]) -> tuple[float, float] | None:
  by_target: dict[str, list[float]] = {}
  for row in rows:
    by_target.setdefault(row['target'], []).append(_gain(row))
  grid = list(by_target.values())
  if len(grid) < 2 or len({len(line) for line in grid}) > 1:
    return None
  values = np.array(grid, np.float64)
  return intervals.bootstrap(values) if np.isfinite(values).all() else None


def _gain(row: Row) -> float:
  return row['test'] - row['scratch']


def _by_seed(rows: Sequence[Row], value) -> list[float]:
  seeds: dict[int, list[float]] = {}
  for row in rows:
    seeds.setdefault(row['seed'], []).append(value(row))
  return [statistics.fmean(v) for v in seeds.values()]


def _mean(values: Sequence[float]) -> tuple[float, float | None]:
  spread = statistics.stdev(values) if len(values) > 1 else None
  return statistics.fmean(values), spread


class Pairs(NamedTuple):
  """Source tasks against targets, mean over runs; NaN where there is none.

  Attributes:
    sources: source tasks.
    targets: targets.
    reduction: relative error reduction in percent [sources, targets].
    gain: gain in points [sources, targets].
  """

  sources: tuple[str, ...]
  targets: tuple[str, ...]
  reduction: Float[np.ndarray, 'S T']
  gain: Float[np.ndarray, 'S T']


def pairs(cells: Sequence[Row], similarities: Sequence[Row]) -> Pairs:
  """Returns what each source task does for each target (figure 3).

  Args:
    cells: the rows of results.csv.
    similarities: the rows of similarities.csv; they name the tasks of source
      prompts, which a bank may have brought.
  """
  task_of = {r['source']: r['source_task'] for r in similarities}
  task_of |= {r['cell']: r['task'] for r in cells if r['stage'] == 'source'}
  base = _scratch(cells)
  found: dict[tuple[str, str], list[tuple[float, float]]] = {}
  for row in cells:
    if row['stage'] != 'transfer':
      continue
    source = task_of.get(row['source'], row['source'])
    scratch = base[row['task'], row['seed']]
    pair = (reduction(row['test'], scratch), row['test'] - scratch)
    found.setdefault((source, row['task']), []).append(pair)
  sources = tuple(dict.fromkeys(s for s, _ in found))
  targets = tuple(dict.fromkeys(t for t, _ in base))
  grid = np.full((2, len(sources), len(targets)), np.nan)
  for (source, target), values in found.items():
    place = sources.index(source), targets.index(target)
    grid[(slice(None), *place)] = np.mean(values, axis=0)
  return Pairs(sources, targets, grid[0], grid[1])


def _scratch(cells: Sequence[Row]) -> dict[tuple[str, int], float]:
  return {
    (r['task'], r['seed']): r['test'] for r in cells if r['stage'] == 'scratch'
  }


def correlations(
  cells: Sequence[Row], similarities: Sequence[Row], metric: str
) -> list[Points]:
  """Returns similarity against transfer for each target (figure 5).

  A point is a source task (mean over seeds), as far as it was tried.

  Args:
    cells: the rows of results.csv.
    similarities: the rows of similarities.csv.
    metric: which similarity.
  """
  base = _scratch(cells)
  done = {
    (r['task'], r['seed'], r['source']): r['test']
    for r in cells
    if r['stage'] == 'transfer'
  }
  points: dict[str, dict[str, list[tuple[float, float]]]] = {}
  for row in similarities:
    key = (row['target'], row['seed'], row['source'])
    if row['metric'] != metric or key not in done:
      continue
    value = reduction(done[key], base[row['target'], row['seed']])
    by_source = points.setdefault(row['target'], {})
    by_source.setdefault(row['source_task'], []).append(
      (row['similarity'], value)
    )
  out = []
  for target, by_source in points.items():
    means = np.array([np.mean(v, axis=0) for v in by_source.values()])
    x, y = means.T
    r, p = float('nan'), float('nan')
    if len(x) > 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
      r, p = map(float, stats.pearsonr(x, y))
    out.append(Points(target, tuple(by_source), x, y, r, p))
  return out


class Speed(NamedTuple):
  """What a stage took.

  Attributes:
    stage: source, scratch, transfer, ...
    cells: how many.
    seconds: together.
    per_hour: cells per hour.
    padding: mean share of padding in what was trained on.
  """

  stage: str
  cells: int
  seconds: float
  per_hour: float
  padding: float


def speeds(cells: Sequence[Row]) -> list[Speed]:
  """Returns a line per stage."""
  groups: dict[str, list[Row]] = {}
  for row in cells:
    groups.setdefault(row['stage'], []).append(row)
  out = []
  for name, rows in groups.items():
    seconds = math.fsum(r['seconds'] for r in rows)
    out.append(
      Speed(
        name,
        len(rows),
        seconds,
        3600 * len(rows) / seconds if seconds else float('nan'),
        statistics.fmean(r['padding'] for r in rows),
      )
    )
  return out
