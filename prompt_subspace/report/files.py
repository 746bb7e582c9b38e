"""Files of a report: written whole or not at all."""

import os
import uuid
from pathlib import Path


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
  """Writes the file beside its place and renames it when complete.

  An older file stays as it is until then, and if anything fails.

  Args:
    path: its folder is made where it is missing.
    data: all of the file.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f'.{path.name}-{uuid.uuid4().hex}')
  try:
    draft.write_bytes(data)
    os.replace(draft, path)
  finally:
    draft.unlink(missing_ok=True)
