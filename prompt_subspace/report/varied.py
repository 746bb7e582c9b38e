"""The report of a sweep over one number of its methods: score against it.

Figure 5 of Jiang et al. 2022 (IPT) in kind: prompt length, utilisation rate. A
sweep is one of `training.tune` whose library has a method for each value, such
as `cnn 5` and `cnn 10` (`deltas.variants`): these are points of the line `cnn`.
"""

import json
import math
import pathlib
from collections.abc import Mapping

from prompt_subspace.deltas import variants
from prompt_subspace.report import figures, plots, tables
from prompt_subspace.training import results

WIDE = 8  # values that differ by this factor are on a logarithmic axis
Lines = dict[str, dict[float, str]]


def report(folder: pathlib.Path, setting: str) -> str:
  """Returns a table for each task; writes varied.md and pictures/TASK.png.

  Args:
    folder: that the sweep wrote, finished or running.
    setting: of the methods, such as 'length'; a method that has none is a
      level line.

  Raises:
    ValueError: no method has the setting, or two of one line have one value.
  """
  folder = pathlib.Path(folder)
  summary = tables.summarise(results.read_csv(folder / 'results.csv'))
  record = json.loads((folder / 'identity.json').read_text(encoding='utf-8'))
  lines, level = group(
    {m: record['methods'][m] for m in summary.methods}, setting
  )
  texts, markdown = [], []
  for task in summary.tasks:
    grid = lay_out(summary, task, lines, level, setting)
    texts.append(tables.as_text(grid))
    markdown.append(tables.as_markdown(grid))
    path = folder / 'pictures' / f'{task}.png'
    figures.save(draw(summary, task, lines, level, setting), path)
  text = '\n\n'.join(markdown) + '\n'
  (folder / 'varied.md').write_text(text, encoding='utf-8')
  return '\n\n'.join([*texts, f'pictures   {folder / "pictures"}'])


def group(
  settings: Mapping[str, Mapping], setting: str
) -> tuple[Lines, list[str]]:
  """Returns {line: {value: method}}, by value, and the methods without one."""
  lines: Lines = {}
  level = []
  for method, own in settings.items():
    if setting not in own:
      level.append(method)
      continue
    line = lines.setdefault(variants.line(method), {})
    if own[setting] in line:
      raise ValueError(
        f'methods: {line[own[setting]]!r} and {method!r} are of one line and '
        f'have the same {setting}, {own[setting]}. Name their lines '
        'differently.'
      )
    line[own[setting]] = method
  if not lines:
    known = sorted({s for own in settings.values() for s in own})
    raise ValueError(
      f'setting: expected one of {known}, which the methods have, found '
      f'{setting!r}.'
    )
  return {n: dict(sorted(line.items())) for n, line in lines.items()}, level


def _values(lines: Lines) -> list[float]:
  return sorted({v for line in lines.values() for v in line})


def lay_out(summary, task, lines: Lines, level, setting) -> tables.Grid:
  """A line for each method, a column for each value of the setting."""
  values = _values(lines)
  grid = [[f'{task} by {setting}', *(f'{v:g}' for v in values)]]
  for name, line in lines.items():
    cells = [summary.cells.get((line.get(v), task)) for v in values]
    grid.append([name, *map(_text, cells)])
  for name in level:
    text = _text(summary.cells.get((name, task)))
    grid.append([name, *[text] * len(values)])
  if task in summary.majority:
    text = f'{summary.majority[task]:.1f}'
    grid.append(['majority', *[text] * len(values)])
  return grid


def _text(cell: tables.Cell | None) -> str:
  if cell is None:
    return tables.MISSING
  spread = '' if cell.deviation is None else f' ± {cell.deviation:.1f}'
  return f'{cell.mean:.1f}{spread}'


@figures.styled
def draw(summary, task, lines: Lines, level, setting) -> figures.Figure:
  """Test score against the setting, one line for each method."""
  series = {}
  for name, line in lines.items():
    cells = [summary.cells.get((method, task)) for method in line.values()]
    means = [c.mean if c else math.nan for c in cells]
    spreads = [c.deviation if c else None for c in cells]
    known = any(s is not None for s in spreads)
    series[name] = (list(line), means, spreads if known else None)
  reference = {
    name: summary.cells[name, task].mean
    for name in level
    if (name, task) in summary.cells
  }
  if task in summary.majority:
    reference['majority'] = summary.majority[task]
  values = _values(lines)
  figure = plots.curves(
    series,
    setting,
    'test score, %',
    f'{task} and {setting}',
    reference=reference,
    log_x=values[0] > 0 and values[-1] >= WIDE * values[0],
  )
  (axes,) = figure.axes
  turned = 60 if len(values) > 6 else 0
  axes.set_xticks(values, [f'{v:g}' for v in values], rotation=turned)
  axes.minorticks_off()
  return figure
