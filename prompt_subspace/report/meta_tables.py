"""The tables of a meta-learning study, from the files that it wrote."""

import json
import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from prompt_subspace.meta import analysis, columns
from prompt_subspace.report import tables
from prompt_subspace.training import results

# in the order of reports; others follow
LABELS = {
  'pt': 'PT',
  'mtl': 'MTL',
  'maml': 'MAML',
  'fomaml': 'FoMAML',
  'reptile': 'Reptile',
  'ft': 'FT',
}
ARG = {
  'algorithm': str,
  'score': float,
  'score_deviation': float,
  'arg': float,
  'arg_deviation': float,
  'arg_low': float,
  'arg_high': float,
  'points': float,
  'points_deviation': float,
  'points_low': float,
  'points_high': float,
  'targets': int,
  'left_out': str,
}


class Found(NamedTuple):
  """The files of a study, read, and what they say of its targets."""

  folder: pathlib.Path
  cells: list[dict[str, Any]]
  chosen: list[dict[str, Any]]
  curves: list[dict[str, Any]]
  diagnostics: list[dict[str, Any]]
  record: dict[str, Any]
  targets: list[analysis.Target]
  gains: list[analysis.Gain]

  @property
  def algorithms(self) -> list[str]:
    """Those that tuned targets, in the order of `LABELS`."""
    return [g.algorithm for g in self.gains]

  @property
  def names(self) -> list[str]:
    """The targets."""
    return list(dict.fromkeys(t.target for t in self.targets))

  @property
  def splits(self) -> int:
    """How many few-shot splits there are of a target."""
    return len({r['seed'] for r in self.chosen})


def read(folder: pathlib.Path) -> Found:
  """Reads what a study wrote.

  Raises:
    ValueError: chosen.csv has no rows.
  """
  record = folder / 'record.json'
  diagnostics = folder / 'diagnostics.csv'
  chosen = results.read_csv(folder / 'chosen.csv', columns.CHOSEN)
  if not chosen:
    raise ValueError(
      f'{folder / "chosen.csv"}: expected a row per target, split and '
      'algorithm, found none. Let the study finish first.'
    )
  targets = analysis.of_targets(chosen)
  return Found(
    folder,
    results.read_csv(folder / 'results.csv', columns.CELLS),
    chosen,
    results.read_csv(folder / 'curves.csv', columns.CURVES),
    results.read_csv(diagnostics, columns.DIAGNOSTICS)
    if diagnostics.exists()
    else [],
    json.loads(record.read_text(encoding='utf-8')) if record.exists() else {},
    targets,
    in_order(analysis.gains(targets)),
  )


def label(algorithm: str) -> str:
  """The algorithm as people write it."""
  return LABELS.get(algorithm, algorithm)


def in_order(lines: Iterable[Any]) -> list[Any]:
  """Lines with an attribute `algorithm`, in the order of `LABELS`."""
  order = list(LABELS)
  return sorted(
    lines,
    key=lambda x: order.index(x.algorithm) if x.algorithm in order else 99,
  )


def spread_text(value: analysis.Spread) -> str:
  """'71.3 ± 0.4', '71.3' without a deviation, '-' for NaN."""
  mean, deviation = value
  if math.isnan(mean):
    return tables.MISSING
  # z: never -0.0
  return f'{mean:z.1f}' + ('' if deviation is None else f' ± {deviation:.1f}')


def arg_grid(found: Found) -> tables.Grid:
  """Tables 2 and 3 of the paper: what each algorithm gives on average."""
  total = len(found.names)
  grid = [
    ['algorithm', 'score', 'ARG %', '95% interval', 'targets']
    + ['gain in points', '95% interval']
  ]
  for g in found.gains:
    # averages over different targets cannot be compared
    whole = g.score and len(g.score.targets) == total
    counted = f'{len(g.relative.targets)} of {total}' if g.relative else '-'
    grid.append(
      [
        label(g.algorithm),
        spread_text(g.score[:2]) if whole else tables.MISSING,
        *_average(g.relative),
        counted,
        *_average(g.points),
      ]
    )
  if any(g.points for g in found.gains):
    return grid
  return [line[:2] for line in grid]


def _average(found: analysis.Average | None) -> list[str]:
  if found is None:
    return [tables.MISSING] * 2
  interval = found.interval
  shown = f'[{interval[0]:z.1f}, {interval[1]:z.1f}]' if interval else '-'
  return [spread_text(found[:2]), shown]


def score_grid(found: Found) -> tables.Grid:
  """Test scores: a line per target, a column per algorithm; averages below."""
  majority: dict[str, list[float]] = {}
  for row in found.cells:
    if row['stage'] == 'downstream' and row['majority'] is not None:
      majority.setdefault(row['task'], []).append(row['majority'])
  base = {t: statistics.fmean(scores) for t, scores in majority.items()}
  by_pair = {(t.target, t.algorithm): t for t in found.targets}
  metrics = {t.target: t.metric for t in found.targets}
  grid = [
    ['target', 'metric', 'majority', *(label(a) for a in found.algorithms)]
  ]
  for name, metric in metrics.items():
    cells = [_spread(by_pair[name, a].scores) for a in found.algorithms]
    grid.append([name, metric, spread_text((base.get(name, math.nan), None))])
    grid[-1] += cells
  known = len(base) == len(metrics)
  mean = statistics.fmean(base.values()) if known else math.nan
  averages = [arg_line[1].split(' ± ')[0] for arg_line in arg_grid(found)[1:]]
  return [*grid, ['average', '', spread_text((mean, None)), *averages]]


def _spread(values) -> str:
  """Mean and deviation over the splits that have a number, as a text."""
  kept = [x for x in values if not math.isnan(x)]
  if not kept:
    return tables.MISSING
  text = spread_text(analysis.spread(kept))
  return text if len(kept) == len(values) else f'{text} ({len(kept)})'


def gain_grid(found: Found, points: bool = False) -> tables.Grid:
  """Relative gains in percent, or gains in points, by target.

  A relative gain is '-' where it is undefined on a split. The last line has the
  averages, each over the targets that have a gain.
  """
  compared = [g for g in found.gains if g.algorithm != analysis.BASE]
  by_pair = {
    (t.target, t.algorithm): t.points if points else t.relative
    for t in found.targets
  }
  grid = [['target', *(label(g.algorithm) for g in compared)]]
  for name in found.names:
    gains = [by_pair[name, g.algorithm] for g in compared]
    grid.append([name, *(spread_text(analysis.spread(x)) for x in gains)])
  means = [g.points if points else g.relative for g in compared]
  cells = [spread_text(m[:2]) if m else tables.MISSING for m in means]
  return [*grid, ['average', *cells]]


def mark(grid: tables.Grid, first: int, best: str, other: str) -> tables.Grid:
  """The grid with the highest numbers of each line in another form.

  Args:
    grid: its last line, of averages, is marked too.
    first: column from which on numbers are compared.
    best: format of the highest, as their texts say: '**{}**'.
    other: format of all other cells in these columns.
  """
  out = [[*grid[0][:first], *(other.format(c) for c in grid[0][first:])]]
  for line in grid[1:]:
    heads = [cell.split(' ')[0] for cell in line[first:]]
    numbers = [float(h) if h != tables.MISSING else -math.inf for h in heads]
    # neither one number alone nor equal ones are the best of any
    known = {x for x in numbers if x > -math.inf}
    highest = max(known) if len(known) > 1 else None
    forms = [best if x == highest else other for x in numbers]
    cells = zip(forms, line[first:], strict=True)
    out.append([*line[:first], *(form.format(cell) for form, cell in cells)])
  return out


def left_out(found: Found) -> str:
  """Which targets have no relative gain and why; '' for none."""
  if analysis.BASE not in found.algorithms:
    return f'all, as the study has no plain tuning ({analysis.BASE})'
  reasons: dict[str, dict[str, list[str]]] = {}
  compared = [g for g in found.gains if g.algorithm != analysis.BASE]
  for g in compared:
    for target, why in g.left_out.items():
      by_target = reasons.setdefault(why, {})
      by_target.setdefault(target, []).append(label(g.algorithm))
  parts = []
  for why, by_target in reasons.items():
    names = [
      target if len(who) == len(compared) else f'{target} ({", ".join(who)})'
      for target, who in by_target.items()
    ]
    parts.append(f'{", ".join(names)}, as {why}')
  return '; '.join(parts)


def curve_grid(found: Sequence[analysis.Curve]) -> list[list]:
  """How fast each algorithm's start is tuned."""
  reached = analysis.steps_to_base(found)
  grid = [['algorithm', 'best', 'at step', "at PT's best by"]]
  for c in found:
    if c.steps:
      best = int(c.mean.argmax())
      step = reached.get(c.algorithm)
      by = 'never' if reached and step is None else step
      grid.append([label(c.algorithm), float(c.mean[best]), c.steps[best], by])
  return grid if reached else [line[:-1] for line in grid]


def rate_grid(found: Found) -> list[list]:
  """How often each rate had the best validation score."""
  counts = analysis.best_rates(found.chosen, found.cells)
  rates = sorted({rate for by_rate in counts.values() for rate in by_rate})
  return [['algorithm', *(f'{rate:g}' for rate in rates)]] + [
    [label(a), *(counts[a].get(rate) for rate in rates)]
    for a in found.algorithms
  ]


def diagnostic_grid(found: Found) -> list[list]:
  """What inner steps do, by inner rate."""
  header = ['inner rate', 'steps', 'displacement', '% of the norm']
  header += ['query loss before', 'after', 'cosine']
  return [header] + [
    [
      f'{r["inner_rate"]:g}',
      r['inner_steps'],
      *_short(r['displacement'], 1),
      *_short(r['relative'], 100),
      r['loss_before'],
      r['loss_after'],
      r['cosine'],
    ]
    for r in found.diagnostics
  ]


def upstream_grid(found: Found) -> list[list]:
  """How each algorithm ended: its objective, and what it reports beside."""
  header = ['algorithm', 'seed', 'steps', 'rate', *columns.WATCHED]
  return [header] + [
    [
      label(r['algorithm']),
      r['learned'],
      r['steps'],
      f'{r["rate"]:g}',
      *(r[name] for name in columns.WATCHED),
    ]
    for r in found.cells
    if r['stage'] == 'upstream'
  ]


def _short(number: float | None, times: float) -> list[str]:
  return [tables.MISSING if number is None else f'{times * number:.3g}']


def speed_grid(found: Found) -> list[list]:
  """Runs, time and padding by stage and algorithm."""
  header = ['stage', 'algorithm', 'runs', 'seconds', 'runs per hour']
  return [[*header, 'padding %']] + [
    [
      s.stage,
      label(s.algorithm),
      s.runs,
      round(s.seconds),
      None if math.isnan(s.per_hour) else round(s.per_hour),
      100 * s.padding,
    ]
    for s in analysis.speeds(found.cells)
  ]


def arg_row(gain: analysis.Gain) -> dict[str, Any]:
  """The line of arg.csv of an algorithm."""
  score = gain.score[:2] if gain.score else (None, None)
  relative, points = _four(gain.relative), _four(gain.points)
  counted = len(gain.relative.targets) if gain.relative else 0
  reasons = '; '.join(f'{t}: {why}' for t, why in gain.left_out.items())
  values = [gain.algorithm, *score, *relative, *points, counted, reasons]
  return dict(zip(ARG, values, strict=True))


def _four(found: analysis.Average | None) -> list[float | None]:
  if found is None:
    return [None] * 4
  return [*found[:2], *(found.interval or (None, None))]


def write(found: Found) -> None:
  """Writes scores.md, gains.md and arg.csv."""
  scores = mark(score_grid(found), 2, '**{}**', '{}')
  parts = {'scores': tables.as_markdown(scores) + '\n'}
  if any(g.points for g in found.gains):
    relative, points = (
      tables.as_markdown(mark(gain_grid(found, p), 1, '**{}**', '{}'))
      for p in (False, True)
    )
    without = left_out(found)
    parts['gains'] = (
      f'Relative gain over plain tuning, %\n\n{relative}\n'
      + f'\nWithout relative gain: {without}.\n' * bool(without)
      + f'\nGain in points\n\n{points}\n'
    )
  for name, text in parts.items():
    (found.folder / f'{name}.md').write_text(text, encoding='utf-8')
  rows = [arg_row(g) for g in found.gains]
  results.write_csv(found.folder / 'arg.csv', rows, ARG)
