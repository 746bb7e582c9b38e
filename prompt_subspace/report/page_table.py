"""A table of a page: which cells are numbers, which is best, and its HTML.

The script of the page sorts it by the numbers that the cells carry.
"""

import math
import numbers
import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

Cell = str | float | None

MISSING = '–'
# rows from which a table has a filter
LONG = 13
# 71.3, −2, 1,024, 1e-05, 12 %, 71.3 ± 0.4, 71.3 ± 0.4 (2)
_NUMBER = re.compile(
  r'(?P<value>[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?)'
  r' ?%?(?: ± \S+)?(?: \(\d+\))?'
)


class Table(NamedTuple):
  """A table that can be sorted by each column.

  Attributes:
    caption: what it shows, with the unit.
    grid: lines of cells, the names of the columns first; the first cell of a
      line is its name. A grid of texts as of `tables.lay_out` will do: a text
      such as '71.3 ± 0.4' counts as its number. None, NaN, '' and '-' are
      missing.
    digits: after the point, of numbers that are no texts and no integers.
    best: 'row' or 'column', whose highest numbers are marked; None for none.
    foot: lines at the end that stay there, such as averages.
  """

  caption: str
  grid: Sequence[Sequence[Cell]]
  digits: int = 1
  best: str | None = None
  foot: int = 0


def render(table: Table) -> str:
  """The table as an HTML figure.

  Raises:
    ValueError: lines of different lengths, an unknown `best`, or a foot longer
      than the table.
  """
  _check(table)
  header, *lines = [[_shown(c, table.digits) for c in ln] for ln in table.grid]
  # a column of numbers holds nothing else, apart from gaps
  numeric = [
    any(c.number is not None for c in column)
    and all(c.number is not None or not c.text for c in column)
    for column in zip(*lines, strict=True)
  ] or [False] * len(header)
  body = len(lines) - table.foot
  best = _best(lines[:body], numeric, table.best)
  heads = ''.join(
    f'<th scope="col" class="{"n" if n else "text"}">{escape(cell.text)}</th>'
    for cell, n in zip(header, numeric, strict=True)
  )
  rows = [_row(i, line, numeric, best) for i, line in enumerate(lines)]
  long = ' data-filter' if body >= LONG else ''
  foot = f'\n<tfoot>\n{"".join(rows[body:])}</tfoot>' if table.foot else ''
  caption = escape(table.caption)
  return (
    f'<figure class="tabular"{long}>\n<figcaption>{caption}</figcaption>\n'
    # it can be scrolled, and so must be reached by the keyboard
    f'<div class="scroll" role="region" aria-label="{caption}" tabindex="0">\n'
    f'<table aria-label="{caption}">\n<thead>\n<tr>{heads}</tr>\n</thead>\n'
    f'<tbody>\n{"".join(rows[:body])}</tbody>{foot}\n</table>\n</div>\n'
    '</figure>'
  )


class _Shown(NamedTuple):
  """A cell: its text, and its number, exact and as the text says it."""

  text: str
  number: float | None = None
  rounded: float | None = None


def _shown(cell: Cell, digits: int) -> _Shown:
  if isinstance(cell, bool):
    return _Shown('yes' if cell else 'no')
  if isinstance(cell, numbers.Integral):
    return _Shown(f'{cell}'.replace('-', '−'), float(cell), float(cell))
  if isinstance(cell, numbers.Real):
    if math.isnan(cell):
      return _Shown('')
    # z: never -0.0
    text = f'{float(cell):z.{digits}f}'
    return _Shown(text.replace('-', '−'), float(cell), float(text))
  text = '' if cell is None else str(cell).strip()
  if found := _NUMBER.fullmatch(text):
    number = float(found['value'].replace(',', '').replace('−', '-'))
    return _Shown(text, number, number)
  return _Shown('' if text in ('-', MISSING) else text)


def _check(table: Table) -> None:
  """Raises ValueError for a table that cannot be laid out."""
  where = f'table {table.caption!r}'
  widths = sorted({len(line) for line in table.grid})
  if len(widths) != 1 or not widths[0]:
    raise ValueError(
      f'{where}: expected lines of one length, the names of the columns '
      f'first, found the lengths {widths}.'
    )
  if table.best not in (None, 'row', 'column'):
    raise ValueError(
      f"{where}: expected 'row', 'column' or None as best, found "
      f'{table.best!r}.'
    )
  if not 0 <= table.foot < len(table.grid):
    raise ValueError(
      f'{where}: expected a foot of 0 to {len(table.grid) - 1} lines, found '
      f'{table.foot}.'
    )


def _best(
  lines: Sequence[Sequence[_Shown]],
  numeric: Sequence[bool],
  along: str | None,
) -> set[tuple[int, int]]:
  """Places of the highest numbers, as shown, among two or more of a kind."""
  places: dict[int, dict[tuple[int, int], float]] = {}
  for i, line in enumerate(lines):
    for j, cell in enumerate(line):
      if along and j and numeric[j] and cell.rounded is not None:
        of_kind = places.setdefault(i if along == 'row' else j, {})
        of_kind[i, j] = cell.rounded
  return {
    place
    for found in places.values()
    if len(found) > 1
    for place, number in found.items()
    if number == max(found.values())
  }


def _row(
  i: int,
  line: Sequence[_Shown],
  numeric: Sequence[bool],
  best: set[tuple[int, int]],
) -> str:
  cells = (
    _cell(cell, j == 0, numeric[j], (i, j) in best)
    for j, cell in enumerate(line)
  )
  return f'<tr>{"".join(cells)}</tr>\n'


def _cell(cell: _Shown, first: bool, numeric: bool, best: bool) -> str:
  kinds = ['n' if numeric else 'text']
  text, value = escape(cell.text), ''
  if not cell.text:
    kinds.append('none')
    text = MISSING
  elif numeric:
    # as JavaScript writes it
    number = repr(cell.number).replace('inf', 'Infinity')
    value = f' data-value="{number}"'
  if best:
    kinds.append('best')
    text = f'<strong>{text}</strong>'
  start = 'th scope="row"' if first else 'td'
  return f'<{start} class="{" ".join(kinds)}"{value}>{text}</{start[:2]}>'
