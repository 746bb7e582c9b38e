"""The landscapes of a study of the unified subspace, as grids of values."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from prompt_subspace.report.page_surface import Surface
from prompt_subspace.training import results
from prompt_subspace.unified import analysis, columns, landscape

PAPER, ABOVE = 'mean share of originals, %', 'share above majority, %'


class Landscape(NamedTuple):
  """A plane of codes, with what each type scores there.

  Attributes:
    name: of its file.
    title: what it is of, for people.
    x: coordinates of the columns.
    y: coordinates of the lines.
    scores: type -> [Y, X], in percent.
    marks: type -> where its solution is.
    views: name -> values [Y, X] in percent: the mean of the types' scores by
      that of their originals, and the same above the majority score where the
      originals are a margin above it.
    original: mean score of the types' own solutions.
    majority: score of the best constant answer.
    examples: of the validation split.
    lacks: why there is no value above majority; '' where there is.
  """

  name: str
  title: str
  x: Float[np.ndarray, ' X']
  y: Float[np.ndarray, ' Y']
  scores: Mapping[str, Float[np.ndarray, 'Y X']]
  marks: Mapping[str, tuple[float, float]]
  views: Mapping[str, Float[np.ndarray, 'Y X']]
  original: float
  majority: float
  examples: int
  lacks: str


def read(folder: pathlib.Path) -> tuple[list[Landscape], dict[str, str]]:
  """Returns the landscapes of a study, and of those left out name -> why."""
  path = folder / 'landscapes.csv'
  rows = results.read_csv(path, columns.LANDSCAPES) if path.exists() else []
  planes: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    planes.setdefault(row['name'], []).append(row)
  kept, without = [], {}
  for name, lines in planes.items():
    points = folder / lines[0]['file']
    known = landscape.read(points) if points.exists() else []
    if why := _lacks(known, [r['type'] for r in lines]):
      without[name] = why
    else:
      kept.append(_landscape(lines, known))
  return kept, without


def _lacks(points: Sequence[Mapping[str, Any]], types: Sequence[str]) -> str:
  """Why the points are no whole grid for each type; '' if they are."""
  if not points:
    return 'no points'
  every = {(p['x'], p['y']) for p in points}
  across, down = (len({p[i] for p in every}) for i in (0, 1))
  whole = across * down
  for kind in types:
    own = len({(p['x'], p['y']) for p in points if p['type'] == kind})
    if own < whole:
      return f'{own} of {whole} points of {kind}'
  if min(across, down) < 2:
    return f'a grid of {across} by {down} points'
  return ''


def _landscape(lines, points) -> Landscape:
  x, y = (np.unique([p[n] for p in points]) for n in ('x', 'y'))
  types = [r['type'] for r in lines]

  def grid(values: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    out = np.full((len(y), len(x)), np.nan)
    for p in values:
      at = np.searchsorted(y, p['y']), np.searchsorted(x, p['x'])
      out[at] = p[column]
    return out

  scores = {
    t: grid([p for p in points if p['type'] == t], 'score') for t in types
  }
  best = float(np.mean([_number(r['original']) for r in lines]))
  majority = lines[0]['majority']
  views, lacks = {}, ''
  for name, level in ((PAPER, 0.0), (ABOVE, majority)):
    # the score of a solution may be missing, too
    room = best - _number(level)
    if not room >= (analysis.MARGIN if name == ABOVE else 1e-9):
      lacks = _reason(level, room)
      continue
    # as in the paper, the mean of the originals is what all types are shares of
    of_all = dict.fromkeys(types, best)
    found = landscape.values(points, of_all, level)
    views[name] = 100 * grid(found, 'value')
  first = lines[0]
  return Landscape(
    first['name'],
    f'{first["task"]}, {first["maps"]} maps of {first["size"]} dimensions, '
    f'seed {first["seed"]}',
    x,
    y,
    scores,
    {r['type']: (r['x'], r['y']) for r in lines},
    views,
    best,
    _number(majority),
    first['examples'],
    lacks,
  )


def _number(value: float | None) -> float:
  return np.nan if value is None else value


def _reason(level: float | None, room: float) -> str:
  if analysis.missing(level):
    return 'there is no majority score'
  if np.isnan(room):
    return 'an original has no score'
  return f'the originals are {room:+.1f} points over majority on average'


def surface(plane: Landscape) -> Surface:
  """The landscape to be looked at point by point."""
  return Surface(
    f'{plane.title}: each cell is a code',
    plane.x.tolist(),
    plane.y.tolist(),
    {**plane.views, **{f'{t}, score': v for t, v in plane.scores.items()}},
    plane.marks,
    ('u', 'v'),
  )
