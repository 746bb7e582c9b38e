"""Folders of TSV or JSONL files: one file per split, errors with their line.

TSV: the first line names the columns; fields are separated by tabs and nothing
is quoted (as with `csv.QUOTE_NONE`), so that a quotation mark is data. JSONL:
one object a line. Both are UTF-8.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence

from prompt_subspace.data.templates import Example, Template

SPLITS = ('train', 'validation', 'test')
ENDINGS = ('.tsv', '.jsonl')


def examples(
  folder: str | pathlib.Path, split: str, template: Template
) -> list[Example]:
  """Every row of a split as text.

  Args:
    folder: holds `<split>.tsv` or `<split>.jsonl`.
    split: 'train', 'validation', 'test' or any other file name's stem.
    template: says which columns are read and how.

  Returns:
    the examples in the order of the file; at least one.

  Raises:
    ValueError: beginning with `file:line:`, for a missing file or column, a
      line that is not UTF-8 or has another number of fields, no rows at all,
      and everything that `Template.render` refuses.
  """
  path = split_path(folder, split)
  rendered = []
  for line, row in read(path, template.columns):
    try:
      rendered.append(template.render(row))
    except ValueError as error:
      raise ValueError(f'{path}:{line}: {error}') from error
  return rendered


def read(
  path: pathlib.Path, columns: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
  """(line number, row) for each row of one file.

  Args:
    path: a .tsv or .jsonl file.
    columns: those that the rows must have. A JSONL value is read as text:
      numbers as written, true and false so spelled, null as empty.

  Raises:
    ValueError: see `examples`.
  """
  rows = (_read_tsv if path.suffix == '.tsv' else _read_jsonl)(path, columns)
  if not rows:
    raise ValueError(f'{path}:1: no examples; expected at least one row.')
  return rows


def split_path(folder: str | pathlib.Path, split: str) -> pathlib.Path:
  """The one file of a split, `<split>.tsv` or `<split>.jsonl`."""
  folder = pathlib.Path(folder)
  paths = [folder / f'{split}{ending}' for ending in ENDINGS]
  found = [path for path in paths if path.is_file()]
  if len(found) == 1:
    return found[0]
  if found:
    raise ValueError(f'{found[0]} and {found[1]}: keep one of the two.')
  present = sorted(p.name for p in folder.glob('*') if p.suffix in ENDINGS)
  raise ValueError(
    f'split {split!r} is missing: expected {paths[0]} or {paths[1].name}, '
    f'found {", ".join(present) or "no such files in this folder"}.'
  )


def present(folder: str | pathlib.Path) -> list[str]:
  """Returns those of `SPLITS` that a folder has a file of."""
  folder = pathlib.Path(folder)
  return [
    split
    for split in SPLITS
    if any((folder / f'{split}{ending}').is_file() for ending in ENDINGS)
  ]


def checksum(paths: Iterable[pathlib.Path]) -> str:
  """sha256 in hex over the names and bytes of files."""
  whole = hashlib.sha256()
  for path in paths:
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    whole.update(f'{path.name} {content}\n'.encode())
  return whole.hexdigest()


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """(number from 1, text) of each line, without its ending."""
  lines = []
  # Bytes are split first, so that a bad byte is reported with its line.
  for number, line in enumerate(path.read_bytes().split(b'\n'), start=1):
    try:
      # A byte order mark, as spreadsheets write it, is no part of a name.
      text = line.decode('utf-8-sig' if number == 1 else 'utf-8')
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{path}:{number}: not UTF-8 at byte {error.start} of the line '
        f'({error.reason}); save the file as UTF-8.'
      ) from error
    lines.append((number, text.removesuffix('\r')))
  if not lines[-1][1]:
    lines.pop()  # what follows the last line's end
  return lines


def _read_tsv(
  path: pathlib.Path, columns: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
  lines = _lines(path)
  names = lines[0][1].split('\t') if lines else []
  if len(set(names)) < len(names):
    raise ValueError(f'{path}:1: two columns have one name, found {names}.')
  for column in columns:
    if column not in names:
      raise ValueError(
        f'{path}:1: column {column!r} is missing; the first line names the '
        f'columns, found {", ".join(names) or "an empty file"}.'
      )
  rows = []
  for number, text in lines[1:]:
    fields = text.split('\t')
    if len(fields) != len(names):
      raise ValueError(
        f'{path}:{number}: expected {len(names)} fields separated by tabs '
        f'({", ".join(names)}), found {len(fields)}.'
      )
    rows.append((number, dict(zip(names, fields, strict=True))))
  return rows


def _read_jsonl(
  path: pathlib.Path, columns: Sequence[str]
) -> list[tuple[int, dict[str, str]]]:
  rows = []
  for number, text in _lines(path):
    try:
      record = json.loads(text)
    except ValueError as error:
      raise ValueError(f'{path}:{number}: not JSON ({error}).') from error
    if not isinstance(record, dict):
      raise ValueError(
        f'{path}:{number}: expected an object of column -> value, found '
        f'{text[:40]!r}.'
      )
    for column in columns:
      if column not in record:
        raise ValueError(
          f'{path}:{number}: column {column!r} is missing; the object has '
          f'{", ".join(record) or "no keys"}.'
        )
      if isinstance(record[column], (dict, list)):
        raise ValueError(
          f'{path}:{number}: column {column!r}: expected a text or a number, '
          f'found {json.dumps(record[column])[:40]}.'
        )
    rows.append((number, {c: as_text(record[c]) for c in columns}))
  return rows


def as_text(value: str | float | bool | None) -> str:
  """Returns a JSON value as a text: numbers as written, null as empty."""
  if isinstance(value, str):
    return value
  return '' if value is None else json.dumps(value)
