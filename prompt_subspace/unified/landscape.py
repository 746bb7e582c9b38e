"""The landscape of a task: a plane of codes through three types' solutions.

Yi et al. 2022 (UDT), figure 2: origin I_A, the first axis u = I_P - I_A, the
second v what of I_L - I_A is orthogonal to u; a grid from -4 to 4 by 0.4 on
both, 441 codes, each evaluated with every type. The value of a code is the mean
over types of its score by the score of the type's own solution.
"""

import csv
import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from prompt_subspace.training import hosts
from prompt_subspace.training.progress import Progress

# codes that are evaluated in one call, and stored when it ends
BLOCK = 63


class Plane(NamedTuple):
  """A plane of codes.

  Attributes:
    origin: [Z].
    u: first axis.
    v: second axis, orthogonal to u.
    marks: where the three solutions are, in units of u and v: [3, 2].
  """

  origin: Float[np.ndarray, ' Z']
  u: Float[np.ndarray, ' Z']
  v: Float[np.ndarray, ' Z']
  marks: Float[np.ndarray, '3 2']


def plane(solutions: Sequence[Float[np.ndarray, ' Z']]) -> Plane:
  """Returns the plane through three codes, by Gram-Schmidt.

  Raises:
    ValueError: not three codes, or they lie on a line.
  """
  if len(solutions) != 3:
    raise ValueError(
      f'solutions: expected the codes of three types, which span a plane, '
      f'found {len(solutions)}.'
    )
  a, b, c = (np.asarray(x, np.float64) for x in solutions)
  u, w = b - a, c - a
  along = np.dot(w, u) / max(np.dot(u, u), 1e-30)
  v = w - along * u
  lengths = [np.linalg.norm(x) for x in (u, w, v)]
  if min(lengths) <= 1e-6 * max(*lengths, 1e-30):
    raise ValueError(
      'solutions: expected three codes that are not on a line, found '
      f'displacements of length {lengths[0]:.3g} and {lengths[1]:.3g}, of '
      f'which {lengths[2]:.3g} is orthogonal. Take codes of other runs.'
    )
  marks = np.array([[0.0, 0.0], [1.0, 0.0], [along, 1.0]])
  return Plane(a, u, v, marks)


def grid(reach: float = 4.0, step: float = 0.4) -> Float[np.ndarray, 'N 2']:
  """Returns the points of a square grid, row by row: (x, y) in axis units.

  Args:
    reach: from -reach to reach on both axes.
    step: between points.

  Raises:
    ValueError: no positive numbers, or a reach that is no multiple of step.
  """
  count = round(reach / step) if step > 0 else 0
  if count < 1 or not np.isclose(count * step, reach):
    raise ValueError(
      f'grid: expected a reach that is a multiple of the step, found {reach} '
      f'and {step}.'
    )
  axis = step * np.arange(-count, count + 1)
  x, y = np.meshgrid(axis, axis)
  return np.stack([x.ravel(), y.ravel()], axis=1)


def codes(where: Plane, points: Float[np.ndarray, 'N 2']):
  """Returns the codes [N, Z] of points of a plane."""
  found = where.origin + points[:, :1] * where.u + points[:, 1:] * where.v
  return found.astype(np.float32)


def evaluate(
  path: pathlib.Path,
  where: Plane,
  points: Float[np.ndarray, 'N 2'],
  score: Callable[[str, np.ndarray], Sequence[float]],
  types: Sequence[str],
) -> list[dict]:
  """Scores all points with all types; what is in the file is not done again.

  Args:
    path: a csv file with x, y, type, score, to which each block is added.
    where: the plane.
    points: in units of its axes.
    score: (type, codes [n, Z]) -> scores in percent.
    types: names.

  Returns:
    The rows of the file.

  Raises:
    ValueError: the file is of other points.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  known = read(path) if path.exists() else []
  planned = [(t, i) for t in types for i in range(len(points))]
  _check(path, known, planned, points)
  if len(known) == len(planned):
    return known
  held = codes(where, points)
  title = f'[landscape] {path.stem}'
  with Progress(len(planned), title, start=len(known)) as bar:
    while len(known) < len(planned):
      kind, first = planned[len(known)]
      last = min(first + BLOCK, len(points))
      found = score(kind, held[first:last])
      rows = [
        {'x': float(x), 'y': float(y), 'type': kind, 'score': float(value)}
        for (x, y), value in zip(points[first:last], found, strict=True)
      ]
      _add(path, rows)
      known += rows
      bar.update(len(known), 0, {})
  return known


def read(path: pathlib.Path) -> list[dict]:
  """Reads the complete lines of a landscape."""
  text = path.read_text(encoding='utf-8')
  lines = text[: text.rfind('\n') + 1].splitlines()
  return [
    {k: v if k == 'type' else float(v) for k, v in row.items()}
    for row in csv.DictReader(lines)
  ]


def values(
  rows: Sequence[dict], best: dict[str, float], majority: float = 0.0
) -> list[dict]:
  """Returns per point the mean over types of (score - m) / (best - m).

  Args:
    rows: of `read`.
    best: score of each type's own solution.
    majority: m; 0 is the paper's value.
  """
  found: dict[tuple[float, float], list[float]] = {}
  for row in rows:
    share = (row['score'] - majority) / (best[row['type']] - majority)
    found.setdefault((row['x'], row['y']), []).append(share)
  return [
    {'x': x, 'y': y, 'value': float(np.mean(v))} for (x, y), v in found.items()
  ]


def _check(path, known, planned, points) -> None:
  for row, (kind, i) in zip(known, planned, strict=False):
    same = row['type'] == kind and np.allclose((row['x'], row['y']), points[i])
    if not same:
      raise ValueError(
        f'{path}: expected the points of this grid, found {row}. Remove the '
        'file, or name another folder.'
      )


def _add(path: pathlib.Path, rows: Sequence[dict]) -> None:
  if not hosts.leads():
    return
  if path.exists():
    # a process that was killed may have left half a line
    text = path.read_text(encoding='utf-8')
    path.write_text(text[: text.rfind('\n') + 1], encoding='utf-8')
  new = not path.exists() or not path.stat().st_size
  with path.open('a', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, ['x', 'y', 'type', 'score'])
    if new:
      writer.writeheader()
    writer.writerows(rows)


class Look(NamedTuple):
  """Which landscapes a study draws.

  Attributes:
    maps: kinds of maps; none draws nothing.
    sizes: Z; None all.
    seeds: None all.
    tasks: unseen tasks; None all.
    types: three of them, A, P, L of the paper; None the first three.
    reach: of the grid, in units of the axes.
    step: between points.
    examples: of the validation split.
  """

  maps: Sequence[str] = ()
  sizes: Sequence[int] | None = None
  seeds: Sequence[int] | None = (0,)
  tasks: Sequence[str] | None = None
  types: Sequence[str] | None = None
  reach: float = 4.0
  step: float = 0.4
  examples: int = 200

  def wants(self, maps: str, size: int, seed: int) -> bool:
    """Whether a space is one of them."""
    return maps in self.maps and all(
      known is None or value in known
      for value, known in ((size, self.sizes), (seed, self.seeds))
    )

  @property
  def points(self) -> Float[np.ndarray, 'N 2']:
    """Of the grid."""
    return grid(self.reach, self.step)
