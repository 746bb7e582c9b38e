"""What a meta-learning study found: gains over plain tuning, speed, rates.

Qin et al. 2023 (MPT), section 5.3, after Ye et al. 2021. With `base` the score
of a target by plain tuning (in the paper prompt tuning), in percent, and
`score` that of another algorithm on the same few-shot split, the relative gain
is 100 (score - base) / base percent, and score - base the gain in points. ARG,
the average relative gain, is the mean of the former over targets.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from prompt_subspace.evaluation import intervals

Row = Mapping[str, Any]
Spread = tuple[float, float | None]

BASE = 'pt'  # what gains are over
# metrics of `evaluation.metrics` that go below 0: a share of them says nothing
SIGNED = ('matthews', 'pearson', 'spearman')


class Target(NamedTuple):
  """An algorithm on a target, by split; NaN where there is no number.

  Attributes:
    algorithm: its name.
    target: its name.
    metric: of its scores; of several, joined by commas, they are the mean.
    splits: the S seeds of the algorithm.
    scores: test scores.
    relative: relative gains in percent.
    points: gains in points.
  """

  algorithm: str
  target: str
  metric: str
  splits: tuple[int, ...]
  scores: Float[np.ndarray, ' S']
  relative: Float[np.ndarray, ' S']
  points: Float[np.ndarray, ' S']


class Average(NamedTuple):
  """A mean over targets.

  Attributes:
    mean: over splits of the mean over targets.
    deviation: sample standard deviation over splits; None for one.
    interval: of the mean, as of `intervals.bootstrap`; None for one target,
      which tells nothing of others.
    targets: that it is over.
  """

  mean: float
  deviation: float | None
  interval: tuple[float, float] | None
  targets: tuple[str, ...]


class Gain(NamedTuple):
  """What an algorithm reaches on average over targets.

  Attributes:
    algorithm: its name.
    score: test score in percent; None where no target has all splits.
    relative: ARG in percent; None for plain tuning itself, and where it is
      defined for no target.
    points: gain in points.
    left_out: of ARG, target -> why.
  """

  algorithm: str
  score: Average | None
  relative: Average | None
  points: Average | None
  left_out: dict[str, str]


class Curve(NamedTuple):
  """How an algorithm's validation score goes while targets are tuned.

  Attributes:
    algorithm: its name.
    steps: of the evaluations.
    mean: over targets of the mean over splits, in percent.
    deviation: over splits of the mean over targets; None for one split.
    targets: that it is over, the same for all algorithms.
  """

  algorithm: str
  steps: tuple[int, ...]
  mean: Float[np.ndarray, ' E']
  deviation: Float[np.ndarray, ' E'] | None
  targets: tuple[str, ...]


class Speed(NamedTuple):
  """What the runs of a stage and an algorithm took.

  Attributes:
    stage: upstream or downstream.
    algorithm: its name.
    runs: how many.
    seconds: together.
    per_hour: runs per hour.
    padding: mean share of padding in what was trained on.
  """

  stage: str
  algorithm: str
  runs: int
  seconds: float
  per_hour: float
  padding: float


def relative_gain(score: float, base: float, metric: str) -> float:
  """Returns 100 (score - base) / base; NaN where that has no meaning.

  It has none for a `base` of 0 or less, nor for a metric that can be negative
  (`SIGNED`), alone or among others.
  """
  if _signed(metric) or not base > 0:
    return math.nan
  return 100 * (score - base) / base


def _signed(metric: str) -> list[str]:
  return [name for name in metric.split(', ') if name in SIGNED]


def of_targets(chosen: Sequence[Row]) -> list[Target]:
  """Returns every algorithm on every target of the study.

  Where an initialisation was learned several times, the score on a split is the
  mean over these.

  Args:
    chosen: the rows of chosen.csv.
  """
  metrics = {r['target']: r['metric'] for r in chosen}
  found: dict[str, dict[tuple[str, int], list[float]]] = {}
  splits: dict[str, set[int]] = {}
  for row in chosen:
    splits.setdefault(row['algorithm'], set()).add(row['seed'])
    own = found.setdefault(row['algorithm'], {})
    if not _missing(row['test']):
      own.setdefault((row['target'], row['seed']), []).append(row['test'])
  scores = {
    algorithm: {key: statistics.fmean(tests) for key, tests in own.items()}
    for algorithm, own in found.items()
  }
  base = scores.get(BASE, {})
  out = []
  for algorithm, own in scores.items():
    seeds = tuple(sorted(splits[algorithm]))
    for target, metric in metrics.items():
      new = [own.get((target, s), math.nan) for s in seeds]
      old = [base.get((target, s), math.nan) for s in seeds]
      pairs = list(zip(new, old, strict=True))
      relative = [relative_gain(x, y, metric) for x, y in pairs]
      points = [x - y for x, y in pairs]
      numbers = map(np.array, (new, relative, points))
      out.append(Target(algorithm, target, metric, seeds, *numbers))
  return out


def gains(targets: Sequence[Target]) -> list[Gain]:
  """Returns the averages over targets, a line per algorithm.

  An average is over the targets that have a number on every split of the
  algorithm, so that all splits are averaged over the same targets.

  Args:
    targets: as of `of_targets`.
  """
  groups: dict[str, list[Target]] = {}
  for each in targets:
    groups.setdefault(each.algorithm, []).append(each)
  out = []
  for algorithm, own in groups.items():
    score = average({t.target: t.scores for t in own})
    if algorithm == BASE:
      out.append(Gain(algorithm, score, None, None, {}))
      continue
    relative = average({t.target: t.relative for t in own})
    points = average({t.target: t.points for t in own})
    left_out = {t.target: _why(t) for t in own if np.isnan(t.relative).any()}
    out.append(Gain(algorithm, score, relative, points, left_out))
  return out


def _why(target: Target) -> str:
  """Why a relative gain is undefined."""
  if signed := _signed(target.metric):
    return f'{signed[0]} can be negative'
  if np.isnan(target.points).any():
    return 'a score is missing on a split, its own or that of plain tuning'
  return 'plain tuning scores 0 on a split'


def average(values: Mapping[str, Float[np.ndarray, ' S']]) -> Average | None:
  """Returns the average over the targets without a NaN; None for no target."""
  kept = {t: v for t, v in values.items() if not np.isnan(v).any()}
  if not kept:
    return None
  grid = np.stack(list(kept.values()))
  interval = intervals.bootstrap(grid) if len(grid) > 1 else None
  return Average(*spread(grid.mean(axis=0)), interval, tuple(kept))


def spread(values: Float[np.ndarray, ' S']) -> Spread:
  """Returns mean and sample standard deviation, None for one value."""
  values = np.asarray(values, np.float64)
  deviation = float(values.std(ddof=1)) if len(values) > 1 else None
  return float(values.mean()), deviation


def curves(rows: Sequence[Row]) -> list[Curve]:
  """Returns the mean validation score at each step, a curve per algorithm.

  Only targets that every algorithm has are counted, and only steps at which
  each of them has a score.

  Args:
    rows: of curves.csv.
  """
  # algorithm -> step -> target -> seed -> scores
  found: dict[str, dict[int, dict[str, dict[int, list[float]]]]] = {}
  tried: dict[str, set[str]] = {}
  for row in rows:
    tried.setdefault(row['algorithm'], set()).add(row['target'])
    steps = found.setdefault(row['algorithm'], {})
    if not _missing(row['validation']):
      by_target = steps.setdefault(row['step'], {})
      by_seed = by_target.setdefault(row['target'], {})
      by_seed.setdefault(row['seed'], []).append(row['validation'])
  shared = set.intersection(*tried.values()) if tried else set()
  if not shared:
    return []
  out, names = [], tuple(sorted(shared))
  for algorithm, steps in found.items():
    kept = [s for s in sorted(steps) if shared <= set(steps[s])]
    points = [_point([steps[s][t] for t in names]) for s in kept]
    mean = np.array([m for m, _ in points])
    spreads = [d for _, d in points]
    deviation = None if None in spreads else np.array(spreads)
    out.append(Curve(algorithm, tuple(kept), mean, deviation, names))
  return out


def _point(targets: Sequence[Mapping[int, Sequence[float]]]) -> Spread:
  """Mean over targets and splits; deviation over the splits that all have."""
  scores = [
    {seed: statistics.fmean(found) for seed, found in each.items()}
    for each in targets
  ]
  mean = statistics.fmean(statistics.fmean(s.values()) for s in scores)
  splits = sorted(set.intersection(*map(set, scores)))
  by_split = [statistics.fmean(s[seed] for s in scores) for seed in splits]
  return mean, statistics.stdev(by_split) if len(by_split) > 1 else None


def steps_to_base(found: Sequence[Curve]) -> dict[str, int | None]:
  """Returns the step at which each curve first reaches the best of PT's.

  None for never; an empty mapping where PT has no curve.
  """
  base = next((c for c in found if c.algorithm == BASE and c.steps), None)
  if base is None:
    return {}
  best = base.mean.max()
  return {
    c.algorithm: next(
      (s for s, y in zip(c.steps, c.mean, strict=True) if y >= best), None
    )
    for c in found
  }


def best_rates(
  chosen: Sequence[Row], cells: Sequence[Row]
) -> dict[str, dict[float, int]]:
  """Returns algorithm -> rate tried downstream -> how often it was the best.

  Args:
    chosen: the rows of chosen.csv.
    cells: the rows of results.csv.
  """
  out: dict[str, dict[float, int]] = {}
  for row in cells:
    if row['stage'] == 'downstream' and row['rate'] is not None:
      out.setdefault(row['algorithm'], {})[row['rate']] = 0
  for row in chosen:
    counts = out.setdefault(row['algorithm'], {})
    counts[row['rate']] = counts.get(row['rate'], 0) + 1
  return {name: dict(sorted(counts.items())) for name, counts in out.items()}


def speeds(cells: Sequence[Row]) -> list[Speed]:
  """Returns a line per stage and algorithm of results.csv."""
  groups: dict[tuple[str, str], list[Row]] = {}
  for row in cells:
    groups.setdefault((row['stage'], row['algorithm']), []).append(row)
  out = []
  for (stage, algorithm), rows in groups.items():
    seconds = math.fsum(r['seconds'] or 0.0 for r in rows)
    padding = [r['padding'] for r in rows if not _missing(r['padding'])]
    out.append(
      Speed(
        stage,
        algorithm,
        len(rows),
        seconds,
        3600 * len(rows) / seconds if seconds else math.nan,
        statistics.fmean(padding) if padding else math.nan,
      )
    )
  return out


def _missing(number: float | None) -> bool:
  return number is None or math.isnan(number)
