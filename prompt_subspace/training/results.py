"""results.csv: one row per run, written whole and read back with types.

A row is a dict with the keys of `COLUMNS`: a task, a method, a seed and a rate,
and what came of them.
"""

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prompt_subspace.training import hosts

Row = Mapping[str, Any]

# The columns of results.csv, in order. Scores are percent, padding is a share.
COLUMNS: dict[str, type] = {
  'task': str,
  'method': str,
  'seed': int,
  'rate': float,
  'steps': int,
  'best_step': int,
  'validation': float,
  'test': float,
  'majority': float,
  'seconds': float,
  'trained_parameters': int,
  'padding': float,
}


def write_csv(
  path: str | os.PathLike[str],
  rows: Iterable[Row],
  columns: Mapping[str, type] = COLUMNS,
) -> None:
  """Writes the rows with a header, whole or not at all.

  The file is written beside `path` and then renamed, so that no reader sees
  half a table and no killed run leaves one. None becomes an empty cell; floats
  are written so that reading gives the same number. Of several processes the
  first writes.

  Args:
    path: the file; its folder is made where it is missing.
    rows: one dict each, with exactly the keys of `columns`.
    columns: name -> type, in the order of the file.

  Raises:
    ValueError: a row lacks a column, has another one, or a value is not of its
      column's type.
  """
  path = Path(path)
  lines = [
    _to_cells(row, columns, f'row {i}') for i, row in enumerate(rows, start=1)
  ]
  if not hosts.leads():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with open(unfinished, 'w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(columns)
      writer.writerows(lines)
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  finally:
    unfinished.unlink(missing_ok=True)


def read_csv(
  path: str | os.PathLike[str], columns: Mapping[str, type] = COLUMNS
) -> list[dict[str, Any]]:
  """Reads what `write_csv` wrote, with types; an empty cell becomes None.

  Raises:
    ValueError: other columns than `columns`, or a cell that is not of its
      column's type, with file and line.
  """
  with open(path, encoding='utf-8', newline='') as file:
    reader = csv.reader(file)
    header = next(reader, [])
    if header != list(columns):
      raise ValueError(
        f'{path}:1: expected the columns {", ".join(columns)}; found '
        f'{", ".join(header) or "none"}. It is not a table of this kind.'
      )
    rows = []
    for cells in reader:
      where = f'{path}:{reader.line_num}'
      if len(cells) != len(columns):
        raise ValueError(
          f'{where}: expected {len(columns)} cells, found {len(cells)}.'
        )
      rows.append(
        {
          name: _typed(cell if cell else None, kind, f'{where}: {name}')
          for (name, kind), cell in zip(columns.items(), cells, strict=True)
        }
      )
    return rows


def _to_cells(row: Row, columns: Mapping[str, type], where: str) -> list[str]:
  """The row as texts, in the order of the columns."""
  if set(row) != set(columns):
    absent = [name for name in columns if name not in row]
    unknown = [name for name in row if name not in columns]
    raise ValueError(
      f'{where}: expected exactly the columns {", ".join(columns)}; '
      f'absent: {absent}, unknown: {unknown}.'
    )
  values = [
    _typed(row[name], kind, f'{where}: {name}')
    for name, kind in columns.items()
  ]
  return ['' if value is None else str(value) for value in values]


def _typed(value: Any, kind: Callable[[Any], Any], where: str) -> Any:
  """`value` as a plain Python value of this type; None stays None."""
  if value is None:
    return None
  try:
    typed = kind(value)
  except (TypeError, ValueError):
    typed = None
  # int() would drop a fraction without a word.
  fraction = kind is int and not isinstance(value, str) and typed != value
  if typed is None or fraction:
    raise ValueError(
      f'{where}: expected {kind.__name__}, found {value!r}.'
    ) from None
  return typed
