"""The pictures of a study of the unified subspace."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from prompt_subspace.report import (
  plots,
  surfaces,
  unified_tables,
  unified_training,
)
from prompt_subspace.report.page import Picture
from prompt_subspace.report.unified_found import STAGES, TUNED, Found
from prompt_subspace.report.unified_landscapes import ABOVE, PAPER, Landscape
from prompt_subspace.unified import analysis
from prompt_subspace.unified.analysis import Average, Recovery

# recovery beyond these is cut in bars: an original near majority makes any
LIMITS = (-50.0, 150.0)
TASKS = 16  # in one picture of bars

Drawn = Iterator[tuple[str, Figure, str]]


def draw(found: Found, planes: Sequence[Landscape]) -> dict[str, Picture]:
  """Draws everything that there is data for; writes pictures/NAME.png.

  Returns:
    name -> picture. That of a landscape is landscape_NAME.
  """
  drawn = itertools.chain(
    _scores(found),
    _kinds(found),
    _sizes(found),
    _matrices(found),
    _maps(found),
    *map(_landscape, planes),
  )
  out = {}
  for name, figure, caption in drawn:
    data = plots.encode(figure)
    plots.save(figure, found.folder / 'pictures' / f'{name}.png')
    out[name] = Picture(data, caption, caption)
  return out


def _numbers(
  values: Sequence[Average | None],
) -> tuple[list[float], list[float] | None]:
  """Means, and deviations where one is known."""
  means = [math.nan if v is None else v.mean for v in values]
  spreads = [math.nan if v is None else v.deviation for v in values]
  spreads = [math.nan if s is None else s for s in spreads]
  return means, None if np.isnan(spreads).all() else spreads


def _scores(found: Found) -> Drawn:
  """Absolute scores by task, beside original and majority."""
  rows = found.of(*TUNED)
  lines = {x.of: x for x in found.recover(rows, ('stage', 'task'))}
  pictures = math.ceil(len(found.unseen) / TASKS)
  if not pictures:
    return
  for i, part in enumerate(np.array_split(found.unseen, pictures), 1):
    tasks = part.tolist()
    by = {s: [lines.get((s, t)) for t in tasks] for s in TUNED}
    first = [a or b for a, b in zip(*by.values(), strict=True)]
    levels = _numbers([x.majority for x in first])[0]
    series = {'original': _numbers([x.original for x in first])}
    for stage, own in by.items():
      if any(own):
        scores = [x.score if x else None for x in own]
        series[STAGES[stage]] = _numbers(scores)
    many = pictures > 1
    yield (
      f'scores{f"_{i}" * many}',
      plots.bars(
        tasks,
        series,
        'test score',
        f'Scores by task{f" ({i} of {pictures})" * many}',
        baseline=None if np.isnan(levels).all() else levels,
        baseline_label='majority',
      ),
      'Means over types, sizes and kinds of maps. Error bars: deviation over '
      'seeds. What is above the dashed line is what can be recovered.',
    )


def _kinds(found: Found) -> Drawn:
  """Dense, Fastfood and Kronecker maps side by side."""
  if len(found.values('maps')) < 2:
    return
  rows = analysis.shared(found.of(*TUNED), 'maps')
  lines = {x.of: x for x in found.recover(rows, ('maps', 'stage'))}
  kinds = [k for k in found.values('maps') if any(of[0] == k for of in lines)]
  for way in ('paper', 'pooled'):
    series = {
      STAGES[s]: _numbers([_of(lines.get((k, s)), way) for k in kinds])
      for s in TUNED
    }
    if _drawable(series):
      yield (
        f'kinds_{way}',
        plots.bars(
          kinds,
          series,
          f'recovery, {unified_tables.WAYS[way]}',
          'Kinds of maps',
          limits=LIMITS,
          skip=1,
        ),
        'Over the tasks, sizes and seeds that all kinds have. Error bars: '
        'deviation over seeds.',
      )


def _of(line: Recovery | None, way: str) -> Average | None:
  return line and getattr(line, way)


def _drawable(series) -> bool:
  return any(not np.isnan(v[-2]).all() for v in series.values())


def _sizes(found: Found) -> Drawn:
  """Recovery against the size of the subspace."""
  if len(found.values('size')) < 2:
    return
  rows = analysis.shared(found.of(*TUNED), 'size')
  lines = {x.of: x for x in found.recover(rows, ('stage', 'maps', 'size'))}
  kinds, sizes = found.values('maps'), found.values('size')
  for way in ('paper', 'pooled'):
    curves = {}
    for kind, stage in itertools.product(kinds, TUNED):
      own = [_of(lines.get((stage, kind, z)), way) for z in sizes]
      label = STAGES[stage] + (f', {kind}' if len(kinds) > 1 else '')
      curves[label] = (sizes, *_numbers(own))
    if not _drawable(curves):
      continue
    figure = plots.curves(
      {n: v for n, v in curves.items() if _drawable({n: v})},
      'size of the subspace',
      f'recovery, {unified_tables.WAYS[way]}',
      'Recovery by size',
      reference={'original': 100.0},
      log_x=True,
      skip=1,
    )
    (axes,) = figure.axes
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    yield (
      f'sizes_{way}',
      figure,
      'Over the tasks and seeds that all sizes have. Bands: deviation over '
      'seeds.',
    )


def _matrices(found: Found) -> Drawn:
  """Table 5: source x type."""
  for way in analysis.WAYS:
    values = analysis.matrix(found.rows, found.types, way, why=found.why)
    if np.isnan(values).all():
      continue
    yield (
      f'transfer_{way}',
      plots.heatmap(
        values,
        [f'tuned with {t}' for t in found.types],
        [f'→ {t}' for t in found.types],
        f'Transfer: {unified_tables.WAYS[way].removesuffix(", %")}',
        'recovery, %',
        limits=_wide(values),
      ),
      'On the diagonal, codes that were tuned with the type itself; elsewhere, '
      'transfer without training. Means over tasks, spaces and seeds.',
    )


def _wide(values: np.ndarray) -> tuple[float, float]:
  """50 to 100 or more: a range of a few percent would look like a contrast."""
  return min(50.0, float(np.nanmin(values))), max(
    100.0, float(np.nanmax(values))
  )


def _maps(found: Found) -> Drawn:
  """How the training of the maps went."""
  names = unified_training.watched(found)
  for start, ylabel, title in (
    ('loss', 'task loss, nats', 'Task loss of the maps'),
    ('distance', 'distance', 'Distance from the solutions'),
  ):
    lines = {}
    for name in names:
      steps, mean, deviation = unified_training.curve(found, name)
      if name.startswith(f'{start} ') and len(steps) > 1:
        lines[name.removeprefix(f'{start} ')] = (steps, mean, deviation)
    if lines:
      yield (
        f'maps_{start}',
        plots.curves(lines, 'updates of the maps', ylabel, title),
        'By type. Bands: deviation over spaces.',
      )


def _landscape(plane: Landscape) -> Drawn:
  """Figure 2: the plane through the solutions of three types."""
  if PAPER not in plane.views or np.isnan(plane.views[PAPER]).all():
    return
  yield (
    f'landscape_{plane.name}',
    surfaces.contours(
      plane.x,
      plane.y,
      plane.views[PAPER],
      plane.marks,
      plane.title,
      PAPER,
      # above majority, a value is another, but no other than its neighbours
      other=(ABOVE, 100 * plane.majority / plane.original, 100.0)
      if ABOVE in plane.views
      else None,
    ),
    'The plane through the codes that the three types found, in units of its '
    f'axes. Scores on {plane.examples} validation examples.',
  )
