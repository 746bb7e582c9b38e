"""The report of a sweep: the gains of several studies against one setting.

Of Qin et al. 2023, in kind: figure 3 and table 3 (shots), table 4 (number of
source tasks), table 5 (backbones), appendix A.5 (sensitivity). A sweep is a
folder with sweep.json, {"name": "shots", "values": [16, 32], "folders":
["shots=16", "shots=32"]}, and in it a finished study for each value.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from prompt_subspace.meta import analysis
from prompt_subspace.report import figures, meta_tables, page, plots, tables
from prompt_subspace.report.meta_tables import Found, label
from prompt_subspace.report.page import Headline, Page, Picture, Section, Table
from prompt_subspace.training import results

FIELDS = ('name', 'values', 'folders')
SWEEP = {'name': str, 'value': str, **meta_tables.ARG}
WIDE = 8  # values that differ by this factor are on a logarithmic axis


class Sweep(NamedTuple):
  """Studies that differ in one setting.

  Attributes:
    folder: of the sweep.
    name: of the setting.
    values: of the setting, numbers or others.
    studies: one per value.
    record: what the results depend on.
  """

  folder: pathlib.Path
  name: str
  values: tuple[Any, ...]
  studies: tuple[Found, ...]
  record: Mapping[str, Any]

  @property
  def algorithms(self) -> list[str]:
    """Those of any of the studies."""
    gains = [g for s in self.studies for g in s.gains]
    names = {g.algorithm: g for g in gains}
    return [g.algorithm for g in meta_tables.in_order(names.values())]

  def of(self, algorithm: str) -> list[analysis.Gain | None]:
    """What the algorithm gains at each value; None where it did not run."""
    gains = [{g.algorithm: g for g in s.gains} for s in self.studies]
    return [by_name.get(algorithm) for by_name in gains]


def sweep(folder: pathlib.Path) -> str:
  """Returns the table of ARG; writes sweep.csv, sweep.md and report.html.

  Args:
    folder: with sweep.json and the studies.

  Raises:
    ValueError: sweep.json is not as described above, or a study is not there.
  """
  found = read(pathlib.Path(folder))
  rows = [
    {'name': found.name, 'value': str(value), **meta_tables.arg_row(gain)}
    for value, study in zip(found.values, found.studies, strict=True)
    for gain in study.gains
  ]
  results.write_csv(found.folder / 'sweep.csv', rows, SWEEP)
  grid = arg_grid(found)
  note = differing(found)
  text = (
    f'Average relative gain over plain tuning\n\n{tables.as_markdown(grid)}\n'
  )
  (found.folder / 'sweep.md').write_text(
    text + f'\n{note}\n' * bool(note), encoding='utf-8'
  )
  path = found.folder / 'report.html'
  page.write(path, _page(found, grid, note))
  parts = [tables.as_text(grid), note, f'report     {path}']
  return '\n\n'.join(part for part in parts if part)


def read(folder: pathlib.Path) -> Sweep:
  """Reads a sweep and its studies, by value where values are numbers."""
  path = folder / 'sweep.json'
  record = json.loads(path.read_text(encoding='utf-8'))
  if set(FIELDS) - set(record):
    raise ValueError(
      f'{path}: expected the fields {", ".join(FIELDS)}, found '
      f'{", ".join(record) or "none"}.'
    )
  name, values, folders = (record[f] for f in FIELDS)
  if not values or len(values) != len(folders):
    raise ValueError(
      f'{path}: expected a folder for each of one or more values, found '
      f'{len(values)} values and {len(folders)} folders.'
    )
  for study in folders:
    if not (folder / study / 'chosen.csv').exists():
      raise ValueError(
        f'{path}: expected a finished study in {study}, found no chosen.csv '
        'there. Run it, or leave it out.'
      )
  pairs = list(zip(values, folders, strict=True))
  if _numeric(values):
    pairs.sort(key=lambda pair: pair[0])
  studies = tuple(meta_tables.read(folder / study) for _, study in pairs)
  path = folder / 'record.json'
  about = json.loads(path.read_text('utf-8')) if path.exists() else {}
  return Sweep(folder, name, tuple(v for v, _ in pairs), studies, about)


def _numeric(values: Sequence[Any]) -> bool:
  return all(
    isinstance(v, int | float) and not isinstance(v, bool) for v in values
  )


def arg_grid(found: Sweep) -> tables.Grid:
  """ARG: a line per algorithm, a column per value."""
  grid = [[f'ARG % by {found.name}', *map(str, found.values)]]
  for algorithm in found.algorithms:
    gains = found.of(algorithm)
    if algorithm != analysis.BASE:
      relative = [g.relative if g else None for g in gains]
      grid.append([label(algorithm), *map(_shown, relative)])
  return grid


def _other_grid(found: Sweep, points: bool) -> tables.Grid:
  """Scores, or gains in points, as `arg_grid` has them."""
  grid = [[found.name, *map(str, found.values)]]
  for algorithm in found.algorithms:
    if points and algorithm == analysis.BASE:
      continue
    averages = [
      None if g is None else g.points if points else g.score
      for g in found.of(algorithm)
    ]
    grid.append([label(algorithm), *map(_shown, averages)])
  return grid


def _shown(found: analysis.Average | None) -> str:
  return meta_tables.spread_text(found[:2]) if found else tables.MISSING


def differing(found: Sweep) -> str:
  """Says where ARGs are over different targets; '' where all are the same."""
  lines = []
  for algorithm in found.algorithms:
    gains = found.of(algorithm)
    kept = [
      set(g.relative.targets) if g and g.relative else None for g in gains
    ]
    sets = [k for k in kept if k is not None]
    if any(k != sets[0] for k in sets):
      counts = [
        f'{len(k)} at {value}'
        for k, value in zip(kept, found.values, strict=True)
        if k is not None
      ]
      lines.append(f'{label(algorithm)}: {", ".join(counts)}')
  if not lines:
    return ''
  return (
    'Not all averages are over the same targets, so they compare with care: '
    f'{"; ".join(lines)}.'
  )


@figures.styled
def draw(found: Sweep) -> Figure | None:
  """ARG against the value; None where no study has one.

  Lines over an axis for numbers, groups of bars for other values.
  """
  series = {}
  for algorithm in found.algorithms:
    relative = [g.relative if g else None for g in found.of(algorithm)]
    if any(relative):
      means = [a.mean if a else math.nan for a in relative]
      spreads = [a.deviation if a else None for a in relative]
      known = any(s is not None for s in spreads)
      series[label(algorithm)] = (means, spreads if known else None)
  if not series:
    return None
  title, ylabel = f'ARG and {found.name}', 'average relative gain, %'
  if not _numeric(found.values):
    names = [*map(str, found.values)]
    return plots.bars(names, series, ylabel, title, skip=1)
  low, high = found.values[0], found.values[-1]
  figure = plots.curves(
    {name: (found.values, *spreads) for name, spreads in series.items()},
    found.name,
    ylabel,
    title,
    reference={'PT': 0.0},
    log_x=low > 0 and high >= WIDE * low,
    skip=1,
  )
  (axes,) = figure.axes
  axes.set_xticks(found.values, [f'{v:g}' for v in found.values])
  axes.minorticks_off()
  return figure


def _page(found: Sweep, grid: tables.Grid, note: str) -> Page:
  figure = draw(found)
  content: list[Any] = [Table('Average relative gain over plain tuning', grid)]
  caption = 'Mean over targets, and deviation over splits.'
  if figure is not None:
    data = plots.encode(figure)
    plots.save(figure, found.folder / 'pictures' / 'sweep.png')
    content.append(Picture(data, caption, caption))
  content += [
    Table('Gain in points', _other_grid(found, points=True)),
    Table('Test score', _other_grid(found, points=False)),
  ]
  pairs = zip(found.values, found.studies, strict=True)
  places = [[found.name, 'study'], *([str(v), s.folder.name] for v, s in pairs)]
  return Page(
    f'Meta-learned prompts and {found.name}',
    f'{len(found.values)} studies that differ in {found.name}.',
    _headline(found),
    [
      Section(f'What {found.name} changes', note, content),
      Section('Studies', '', [Table('Each has its own report', places)]),
    ],
    found.record,
  )


def _headline(found: Sweep) -> list[Headline]:
  """Where each algorithm is best."""
  out = []
  for algorithm in found.algorithms:
    pairs = [
      (gain.relative.mean, value)
      for gain, value in zip(found.of(algorithm), found.values, strict=True)
      if gain and gain.relative
    ]
    if pairs:
      mean, value = max(pairs, key=lambda pair: pair[0])
      out.append(
        Headline(
          f'best of {label(algorithm)}',
          f'{mean:+.1f} %',
          f'ARG, at {found.name} {value}',
        )
      )
  return out
