"""Files and folders that appear whole or not at all, on any file system.

A folder is written under a hidden name and moved to its place when complete.
Object stores move no folders, only files one by one: there the files are
written in place, the last of them, which makes the folder valid, after all
others, and after the older one of its name is removed.
"""

import contextlib
import errno
import re
import uuid
from collections.abc import Collection, Mapping

from etils import epath

# what is hidden beside a folder while it is written: the new one, the older one
DRAFT, OLD = '-draft', '-old'


def write_folder(
  folder: epath.PathLike,
  files: Mapping[str, bytes],
  known: Collection[str],
  replace: bool = False,
) -> None:
  """Writes a folder.

  Several processes may write the same folder at once: then one of them is
  there in the end, whole.

  Args:
    folder: its parents are made where they are missing.
    files: name -> content; the last one is what makes the folder valid.
    known: all names that such a folder may hold. One that holds others is
      never replaced.
    replace: whether an older folder gives way; else it is an error.

  Raises:
    ValueError: something is there that is not to be replaced.
  """
  folder = epath.Path(folder)
  _check_place(folder, known, replace)
  if moves_folders(folder):
    _write_beside(folder, files, known, replace)
  else:
    _write_in_place(folder, files, known)


def write_file(
  path: epath.PathLike, content: bytes, replace: bool = False
) -> None:
  """Writes a file; its folder is made where it is missing.

  Raises:
    ValueError: there is one, and it is not to be replaced.
  """
  path = epath.Path(path)
  if path.is_dir() or (path.exists() and not replace):
    raise ValueError(
      f'{path}: expected a new name, found one that exists. Choose another '
      'name, or replace it (replace=True, --replace).'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  if not moves_folders(path):  # an object appears whole
    path.write_bytes(content)
    return
  draft = hidden(path, DRAFT)
  try:
    draft.write_bytes(content)
    draft.replace(path)
  finally:
    draft.unlink(missing_ok=True)


def moves_folders(path: epath.Path) -> bool:
  """Whether a folder can be moved in one step."""
  return '://' not in str(path)


def hidden(path: epath.Path, kind: str) -> epath.Path:
  """Returns a hidden name beside a path that no other process uses."""
  return path.parent / f'.{path.name}-{uuid.uuid4().hex}{kind}'


def replaced(name: str) -> str | None:
  """Returns what a hidden folder was, if it was about to be replaced."""
  found = re.fullmatch(rf'\.(.+)-[0-9a-f]{{32}}{OLD}', name)
  return found and found[1]


def _check_place(folder, known, replace) -> None:
  if not folder.exists():
    return
  try:
    found = sorted(p.name for p in folder.iterdir())
  except FileNotFoundError:  # another process has just moved it away
    return
  except NotADirectoryError:
    found = ['a file']
  strange = [name for name in found if name not in known]
  if strange or (found and not replace):
    raise ValueError(
      f'{folder}: expected a new name, found one that holds '
      f'{(strange or found)[:3]}. Choose another name'
      + ('.' if strange else ', or replace it (replace=True, --replace).')
    )


def _write_beside(folder, files, known, replace) -> None:
  draft, aside = hidden(folder, DRAFT), []
  draft.mkdir(parents=True)
  try:
    for name, content in files.items():
      (draft / name).write_bytes(content)
    while not _moved(draft, folder):
      # there is an older one, or another process was faster
      _check_place(folder, known, replace)
      aside.append(hidden(folder, OLD))
      with contextlib.suppress(FileNotFoundError):
        folder.rename(aside[-1])
  finally:
    draft.rmtree(missing_ok=True)
  for old in aside:
    old.rmtree(missing_ok=True)


def _moved(draft: epath.Path, folder: epath.Path) -> bool:
  """Moves a folder; returns False if another is in the way."""
  try:
    draft.rename(folder)
  except FileExistsError:
    return False
  except OSError as error:
    if error.errno == errno.ENOTEMPTY:
      return False
    raise
  return True


def _write_in_place(folder, files, known) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  *_, seal = files
  for name in (seal, *sorted(set(known) - {seal})):
    (folder / name).unlink(missing_ok=True)
  for name, content in files.items():
    (folder / name).write_bytes(content)
