"""The pictures of a meta-learning study."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from prompt_subspace.meta import analysis
from prompt_subspace.report import meta_tables, plots
from prompt_subspace.report.meta_tables import Found
from prompt_subspace.report.page import Picture

BARS = 60  # in one picture; more are too thin to be told apart
LIMIT = 100.0  # percent: bars of relative gains are cut there
NAME = 24  # letters of a target's name below its bars
PAPER_RATE = 3e-5  # of inner steps, Qin et al. 2023, section 5.3

Drawn = Iterator[tuple[str, Figure, str]]


def draw(found: Found) -> dict[str, Picture]:
  """Draws everything that there is data for; writes pictures/NAME.png.

  Returns:
    name -> picture. Bars by target are several pictures, relative_1,
    relative_2, where there are many targets.
  """
  parts = (_averages, _relative, _scores, _curves, _diagnostics)
  out = {}
  for name, figure, caption in itertools.chain(*(p(found) for p in parts)):
    data = plots.encode(figure)
    plots.save(figure, found.folder / 'pictures' / f'{name}.png')
    out[name] = Picture(data, caption, caption)
  return out


def _averages(found: Found) -> Drawn:
  """ARG and gain in points, with their intervals."""
  lines = [g for g in found.gains if g.points]
  caption = (
    'Over plain tuning. Error bars: 95 % interval over targets and splits.'
  )
  for name, ylabel, title in (
    ('arg', 'average relative gain, %', 'Average relative gain'),
    ('points', 'average gain, points', 'Average gain in points'),
  ):
    averages = [g.relative if name == 'arg' else g.points for g in lines]
    if any(averages):
      yield (
        name,
        plots.bars(
          [meta_tables.label(g.algorithm) for g in lines],
          {'mean, 95 % interval': _with_interval(averages)},
          ylabel,
          title,
        ),
        caption,
      )


def _with_interval(
  averages: Sequence[analysis.Average | None],
) -> tuple[list[float], list[list[float]] | None]:
  """Means, and how far the intervals go below and above."""
  means = [a.mean if a else math.nan for a in averages]
  below, above = [], []
  for a in averages:
    low, high = a.interval if a and a.interval else (math.nan, math.nan)
    below.append(a.mean - low if a else math.nan)
    above.append(high - a.mean if a else math.nan)
  return means, None if np.isnan(below).all() else [below, above]


def _relative(found: Found) -> Drawn:
  """Figures 4 to 13 of the paper: relative gain of every target."""
  names = [a for a in found.algorithms if a != analysis.BASE]
  values = {
    (t.algorithm, t.target): analysis.spread(t.relative) for t in found.targets
  }
  shown = [t for t in found.names if any(_known(values[a, t]) for a in names)]
  for end, series, groups, title in _groups(names, shown, values):
    yield (
      f'relative{end}',
      plots.bars(
        _short(groups),
        series,
        'relative gain, %',
        f'Relative gain by target{title}',
        limits=(-LIMIT, LIMIT),
        skip=1,
      ),
      'Over plain tuning. Error bars: deviation over splits. Bars beyond '
      f'{LIMIT:.0f} % are cut, and say how far they go.',
    )


def _scores(found: Found) -> Drawn:
  """Figures 14 to 23 of the paper: absolute scores of every target."""
  values = {(t.algorithm, t.target): _seen(t.scores) for t in found.targets}
  majority = {
    line[0]: math.nan if line[2] == '-' else float(line[2])
    for line in meta_tables.score_grid(found)[1:-1]
  }
  for end, series, groups, title in _groups(
    found.algorithms, found.names, values
  ):
    levels = [majority[t] for t in groups]
    yield (
      f'scores{end}',
      plots.bars(
        _short(groups),
        series,
        'test score',
        f'Scores by target{title}',
        baseline=None if np.isnan(levels).all() else levels,
        baseline_label='majority',
      ),
      'Error bars: deviation over splits.',
    )


def _known(value: analysis.Spread) -> bool:
  return not math.isnan(value[0])


def _seen(scores: np.ndarray) -> analysis.Spread:
  kept = scores[~np.isnan(scores)]
  return analysis.spread(kept) if len(kept) else (math.nan, None)


def _groups(
  algorithms: Sequence[str],
  targets: Sequence[str],
  values: dict[tuple[str, str], analysis.Spread],
) -> Iterator[tuple[str, dict, list[str], str]]:
  """Yields end of the name, series, targets and end of the title by picture.

  Targets are spread evenly over as few pictures as hold all bars.
  """
  if not algorithms or not targets:
    return
  pictures = math.ceil(len(targets) * len(algorithms) / BARS)
  for i, part in enumerate(np.array_split(np.array(targets), pictures), 1):
    series = {}
    for a in algorithms:
      means, spreads = zip(*(values[a, t] for t in part), strict=True)
      known = any(s is not None for s in spreads)
      series[meta_tables.label(a)] = (means, spreads if known else None)
    many = pictures > 1
    end, title = f'_{i}' * many, f' ({i} of {pictures})' * many
    yield end, series, part.tolist(), title


def _short(names: Sequence[str]) -> list[str]:
  """Long names without their middle, where that leaves them different."""
  half = NAME // 2
  short = [n if len(n) <= NAME else f'{n[:half]}…{n[-half:]}' for n in names]
  return short if len(set(short)) == len(names) else list(names)


def _curves(found: Found) -> Drawn:
  lines = {
    meta_tables.label(c.algorithm): (c.steps, c.mean, c.deviation)
    for c in meta_tables.in_order(analysis.curves(found.curves))
    if len(c.steps) > 1
  }
  if lines:
    yield (
      'curves',
      plots.curves(
        lines,
        'updates on the target',
        'validation score, mean over targets',
        'How fast targets are tuned',
      ),
      'Of the best rate of each target and split. Bands: deviation over '
      'splits.',
    )


def _any(lines: dict[str, tuple]) -> bool:
  return not all(np.isnan(y).all() for _, y, _ in lines.values())


def _diagnostics(found: Found) -> Drawn:
  """What inner steps do, against the inner rate."""
  groups: dict[str, list] = {}
  for row in sorted(found.diagnostics, key=lambda r: r['inner_rate']):
    count = row['inner_steps']
    name = f'{count} inner step' + 's' * (count != 1)
    groups.setdefault(name, []).append(row)
  if not groups:
    return
  said = {'upright': {'rate of the paper': PAPER_RATE}, 'log_x': True}
  xlabel = 'inner rate'

  def lines(column, times=1.0):
    return {
      name: (
        [r['inner_rate'] for r in rows],
        [math.nan if r[column] is None else times * r[column] for r in rows],
        None,
      )
      for name, rows in groups.items()
    }

  moved = lines('relative', 100)
  if _any(moved):
    yield (
      'displacement',
      plots.curves(
        moved,
        xlabel,
        'displacement, % of the norm',
        'How far inner steps move the prompt',
        log_y=True,
        **said,
      ),
      'Both axes are logarithmic.',
    )
  before = [r['loss_before'] for r in found.diagnostics]
  yield (
    'query_loss',
    plots.curves(
      lines('loss_after'),
      xlabel,
      'query loss, nats',
      'What inner steps do to the query loss',
      reference={'before inner steps': float(np.mean(before))},
      log_y=True,
      **said,
    ),
    'Below the dashed line, inner steps on the support batch help.',
  )
  cosine = lines('cosine')
  if _any(cosine):
    yield (
      'cosine',
      plots.curves(
        cosine,
        xlabel,
        'cosine of the two gradients',
        'Do MAML and FoMAML differ?',
        **said,
      ),
      'At 1, the second-order term of MAML changes no direction.',
    )
