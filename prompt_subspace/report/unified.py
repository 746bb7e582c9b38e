"""The report of a study of the unified subspace: tables, pictures, one page.

Of Yi et al. 2022, in kind: tables 1 and 3 (optimisation in the subspace), 2 and
4 (transfer), 5 (types against types), 10 and 11 (originals), and figure 2
(landscapes).
"""

import pathlib
from collections.abc import Mapping, Sequence

from prompt_subspace.report import (
  page,
  tables,
  unified_files,
  unified_found,
  unified_landscapes,
  unified_pictures,
  unified_tables,
  unified_training,
)
from prompt_subspace.report.page import (
  Content,
  Details,
  Headline,
  Page,
  Picture,
  Section,
  Table,
)
from prompt_subspace.report.unified_found import TUNED, Found
from prompt_subspace.report.unified_landscapes import ABOVE, Landscape
from prompt_subspace.report.unified_tables import WAYS
from prompt_subspace.unified import analysis
from prompt_subspace.unified.analysis import Average, Recovery


def report(folder: pathlib.Path) -> str:
  """Returns the tables; writes them, pictures and report.html.

  Writes recovery.md, transfer.md, averages.csv, pictures/ and report.html.

  Args:
    folder: that the study wrote; it may be unfinished.

  Raises:
    ValueError: no space of the study is finished.
  """
  found = unified_found.read(pathlib.Path(folder))
  unified_files.write(found)
  planes, without = unified_landscapes.read(found.folder)
  pictures = unified_pictures.draw(found, planes)
  path = found.folder / 'report.html'
  page.write(path, _page(found, planes, without, pictures))
  grids = [unified_tables.average_grid(found)]
  grids += [
    unified_tables.along_grid(found, n) for n in unified_tables.several(found)
  ]
  grids += [unified_tables.matrix_grid(found, w) for w in ('paper', 'pooled')]
  for grid, way in zip(grids[-2:], ('paper', 'pooled'), strict=True):
    grid[0][0] = WAYS[way]
  parts = [
    *(tables.as_text(unified_tables.as_texts(g)) for g in grids if len(g) > 1),
    _not_counted(found),
    _not_drawn(without),
    f'report     {path}',
  ]
  return '\n\n'.join(part for part in parts if part)


def _page(
  found: Found,
  planes: Sequence[Landscape],
  without: Mapping[str, str],
  pictures: Mapping[str, Picture],
) -> Page:
  """Puts the page together."""

  def some(*starts: str) -> list[Picture]:
    return [p for n, p in pictures.items() if n.startswith(starts)]

  sections = [
    Section(
      'What is recovered',
      _explain(found),
      [
        Table('Averages', unified_tables.average_grid(found)),
        *some('scores'),
        Table('By type', unified_tables.type_grid(found)),
        Table('By group and task', unified_tables.group_grid(found)),
      ],
    ),
    _tasks('Optimisation in the subspace', found, 'inside'),
    Section(
      'Types against types',
      'A line is the type that a code was tuned with, a column the type that '
      'uses it.',
      [*some('transfer'), *_matrices(found)],
    ),
    _tasks('Transfer, task by task', found, 'transfer'),
  ]
  sections += [
    _along(found, column, title, some(f'{start}_'))
    for column, title, start in (
      ('size', 'Sizes of the subspace', 'sizes'),
      ('maps', 'Kinds of maps', 'kinds'),
    )
    if column in unified_tables.several(found)
  ]
  if planes or without:
    sections.append(_landscapes(planes, without, pictures))
  sections += [
    Section(
      'Original solutions',
      'Each type tuned by itself: test scores, of the rate with the best '
      'validation score.',
      [Table('Test score', unified_tables.original_grid(found), best='row')],
    ),
    *_maps(found, some('maps_')),
    Section(
      'Every result',
      '',
      [
        Details(
          'Scores by task, space and pair of types',
          [Table('Test scores', unified_tables.every_grid(found))],
        ),
        Table('Runs', unified_training.speed_grid(found)),
      ],
    ),
  ]
  return Page(
    'A unified subspace',
    _lead(found),
    _headline(found),
    sections,
    found.record,
  )


def _tasks(title: str, found: Found, stage: str) -> Section:
  text = (
    'Mean ± deviation over seeds, in percent. A missing number is one whose '
    'original is too near majority.'
  )
  return Section(
    title,
    text,
    [
      Table(WAYS[w], unified_tables.task_grid(found, stage, w), foot=1)
      for w in ('paper', 'above')
      if found.of(stage)
    ],
  )


def _matrices(found: Found) -> list[Table]:
  return [
    Table(WAYS[w], unified_tables.matrix_grid(found, w)) for w in analysis.WAYS
  ]


def _along(
  found: Found, column: str, title: str, pictures: Sequence[Picture]
) -> Section:
  grid = unified_tables.along_grid(found, column)
  if len(grid) == 1:
    text = 'There is nothing that all of them were used on, yet.'
    return Section(title, text)
  of = {'size': 'sizes', 'maps': 'kinds'}[column]
  text = f'Over the tasks, types and seeds that all {of} have.'
  return Section(title, text, [*pictures, Table('Recovery', grid)])


def _maps(found: Found, pictures: Sequence[Picture]) -> list[Section]:
  grid = unified_training.maps_grid(found)
  if len(grid) == 1:
    return []
  text = (
    'Where their training ended: the loss, and by type the task loss and the '
    'distance from the solution.'
  )
  return [Section('Maps', text, [*pictures, Table('At the end', grid)])]


def _landscapes(
  planes: Sequence[Landscape],
  without: Mapping[str, str],
  pictures: Mapping[str, Picture],
) -> Section:
  content: list[Content] = []
  for plane in planes:
    if plane.lacks:
      content.append(f'{plane.title}: no value above majority, {plane.lacks}.')
    picture = pictures.get(f'landscape_{plane.name}')
    content += [picture] if picture else []
    content.append(unified_landscapes.surface(plane))
  left = _not_drawn(without)
  text = (
    'A plane through the codes of three types: the first is at (0, 0), the '
    'second at (1, 0), and the third at v = 1. The value of a code is the mean '
    'over types of its validation score as a share of the mean score of their '
    f'originals; “{ABOVE}” has the majority score taken from both.'
  )
  return Section('Landscapes', text + (f'\n\n{left}' if left else ''), content)


def _not_drawn(without: Mapping[str, str]) -> str:
  if not without:
    return ''
  own = '; '.join(f'{name} ({why})' for name, why in without.items())
  return f'Landscapes left out, as they are not complete: {own}.'


def _not_counted(found: Found) -> str:
  parts = []
  if without := unified_tables.left_out(found):
    parts.append(
      f'Not counted in “{WAYS["above"]}”, by the least that an original is '
      f'over majority: {without}.'
    )
  if alone := unified_tables.unsolved(found):
    parts.append(
      'Without solutions of their own, and so without recovery: '
      f'{", ".join(alone)}.'
    )
  if lost := unified_tables.without_score(found):
    parts.append(f'Without a test score, and not counted: {lost} results.')
  return ' '.join(parts)


def _whole(found: Found, stage: str) -> Recovery | None:
  lines = found.recover(found.of(stage))
  return lines[0] if lines else None


def _lead(found: Found) -> str:
  seeds, sizes = found.values('seed'), found.values('size')
  parts = [
    f'{", ".join(found.types)} in one subspace of '
    f'{", ".join(map(str, sizes))} dimensions, used on {len(found.unseen)} '
    f'unseen {"task" if len(found.unseen) == 1 else "tasks"}, {len(seeds)} '
    f'{"seed" if len(seeds) == 1 else "seeds"}.'
  ]
  if not found.whole:
    parts.append('The study has not finished: these are its spaces so far.')
  lines = {s: _whole(found, s) for s in TUNED}
  parts += [
    f'{what} recovers {_percent(line.paper)} of the original scores, and '
    f'{_percent(line.pooled)} of what they are above majority.'
    for what, line in zip(
      ('A code tuned in it', 'One that another type found'),
      lines.values(),
      strict=True,
    )
    if line and line.paper
  ]
  return ' '.join(parts)


def _percent(value: Average | None) -> str:
  return 'an undefined share' if value is None else f'{value.mean:.1f} %'


def _headline(found: Found) -> list[Headline]:
  out = []
  for stage, name in zip(TUNED, ('optimisation', 'transfer'), strict=True):
    line = _whole(found, stage)
    if line and line.paper:
      constant = (
        line.constant and f'a constant answer: {line.constant.mean:.1f}'
      )
      out.append(
        Headline(
          f'{name}, of the score',
          f'{line.paper.mean:.1f} %',
          _note(line.paper, constant or ''),
        )
      )
    if line and line.pooled:
      above = line.above and f'mean of ratios: {line.above.mean:.1f}'
      out.append(
        Headline(
          f'{name}, above majority',
          f'{line.pooled.mean:.1f} %',
          _note(line.pooled, above or ''),
        )
      )
  return out


def _note(value: Average, more: str) -> str:
  parts = []
  if value.deviation is not None:
    parts.append(f'± {value.deviation:.1f} over {value.seeds} seeds')
  return '; '.join([*parts, more] if more else parts)


def _explain(found: Found) -> str:
  """What the numbers are, and what is missing among them."""
  without = _not_counted(found)
  return (
    'Test scores are in percent; codes were chosen by validation score. E_sub '
    'is the score of a type whose parameters come from a code, E_ori that of '
    "the type's own solution, m that of the best constant answer (majority). "
    'Of three ways to count, the paper has the first: the mean of E_sub / '
    'E_ori, of which a constant answer gets the share beside it. Above '
    'majority, (E_sub − m) / (E_ori − m), a constant answer gets nothing: '
    'pooled, as the sum of E_sub − m over all runs by the sum of E_ori − m, '
    'and as the mean of the ratios of single runs over solutions that are '
    f'{analysis.MARGIN:g} points or more above majority with every seed: '
    'nearer to it, a ratio says nothing. Mean ± deviation over seeds.\n\n'
    'With T5 base, the paper has by the first way 84.9 % in optimisation and '
    '82.6 % in transfer for single tasks, 88.7 and 84.7 % for many (tables 1 '
    'to 4).' + (f'\n\n{without}' if without else '')
  )
