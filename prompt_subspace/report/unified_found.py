"""The files of a study of the unified subspace, read."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from prompt_subspace.training import results
from prompt_subspace.unified import analysis, columns
from prompt_subspace.unified.analysis import Pair, Recovery

STAGES = {
  'approximation': 'tasks of the space',
  'inside': 'optimisation',
  'transfer': 'transfer',
}
TUNED = ('inside', 'transfer')


class Found(NamedTuple):
  """The files of a study, read.

  Attributes:
    folder: of the study.
    cells: of results.csv.
    rows: of recovery.csv.
    whole: whether the study has finished; before, rows are of the spaces that
      are done.
    record: record.json, {} where there is none.
    histories: cell -> what was seen while the maps of a space were trained.
    why: `analysis.weak` of all rows.
  """

  folder: pathlib.Path
  cells: list[dict[str, Any]]
  rows: list[dict[str, Any]]
  whole: bool
  record: dict[str, Any]
  histories: dict[str, list[dict[str, Any]]]
  why: dict[Pair, str]

  def values(self, column: str) -> list[Any]:
    """The different values of a column, as they come; numbers rise."""
    found = list(dict.fromkeys(r[column] for r in self.rows))
    return sorted(found) if column in ('size', 'seed') else found

  @property
  def types(self) -> list[str]:
    """Names, in the order of the study."""
    return self.values('type')

  @property
  def unseen(self) -> list[str]:
    """The tasks that codes were tuned for."""
    own = [r['task'] for r in self.rows if r['stage'] in TUNED]
    return list(dict.fromkeys(own))

  def of(self, *stages: str) -> list[dict[str, Any]]:
    """The rows of some stages."""
    return [r for r in self.rows if r['stage'] in stages]

  def recover(self, rows, by: Sequence[str] = ()) -> list[Recovery]:
    """`analysis.recover`, with the same solutions left out everywhere."""
    return analysis.recover(rows, by, why=self.why)


def read(folder: pathlib.Path) -> Found:
  """Reads what a study wrote.

  Raises:
    ValueError: there is no recovery.csv with rows, nor are there the files of
      spaces that are done.
  """
  record, path = folder / 'record.json', folder / 'recovery.csv'
  parts = (
    [path] if path.exists() else sorted((folder / 'recovery').glob('*.csv'))
  )
  rows = [r for p in parts for r in results.read_csv(p, columns.RECOVERY)]
  if not rows:
    raise ValueError(
      f'{path}: expected a row per space, task and pair of types, found none. '
      'Let the study finish its first space.'
    )
  order = list(STAGES)
  rows.sort(key=lambda r: order.index(r['stage']))
  cells = results.read_csv(folder / 'results.csv', columns.CELLS)
  return Found(
    folder,
    cells,
    rows,
    path.exists(),
    json.loads(record.read_text(encoding='utf-8')) if record.exists() else {},
    _histories(folder),
    analysis.weak(rows),
  )


def _histories(folder: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
  out = {}
  for path in sorted((folder / 'rows').glob('maps-*.json')):
    stored = json.loads(path.read_text(encoding='utf-8'))
    out[path.stem] = stored.get('history', [])
  return out
