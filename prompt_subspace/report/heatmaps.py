"""Heatmaps: a matrix as coloured cells, as it is or clustered."""

from collections.abc import Sequence

import numpy as np
import seaborn
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster import hierarchy
from scipy.spatial import distance

from prompt_subspace.report import figures

# most names between which a clustered matrix has room for numbers
NUMBERED = 16


@figures.styled
def heatmap(
  values: Float[np.ndarray, 'R C'],
  rows: Sequence[str],
  columns: Sequence[str],
  title: str,
  label: str,
  center: float | None = None,
  fmt: str = '.0f',
  limits: tuple[float, float] | None = None,
) -> Figure:
  """One coloured cell per row and column, with its number in it.

  Args:
    values: NaN where there is none; such a cell is grey and has no number.
    rows: R names, from the top.
    columns: C names, from the left.
    title: above the picture.
    label: of the colours, with the unit.
    center: the value without colour: red is below, and blue above. Without
      it, the darker the higher.
    fmt: of the numbers.
    limits: lowest and highest value that colours tell apart, for values with
      outliers; by default the range of the values.

  Raises:
    ValueError: values that are not [R, C], or empty, or infinite; limits in
      the wrong order.
  """
  values = np.asarray(values, np.float64)
  _check_values(values, len(rows), len(columns), limits)
  missing = np.isnan(values)
  texts = [_number(value, fmt) for value in values.flat]
  longest = max(map(len, texts))
  # inches: what the names, the colour bar, and a cell take
  names, bar = 0.09 * max(map(len, rows)), 1.5
  cell = min(0.9, (figures.WIDTH - bar - names) / len(columns))
  figure = figures.blank(
    title,
    height=1.2 + 0.06 * max(map(len, columns)) + 0.36 * len(rows),
    width=max(5.0, min(figures.WIDTH, bar + names + cell * len(columns))),
  )
  axes = figure.subplots()
  limits = limits or _range(values[~missing])
  _draw(
    axes,
    values,
    limits,
    label,
    bar_aspect=max(8, 2 * len(rows)),
    cmap='Blues' if center is None else _two_sided(center, *limits),
    cbar=not missing.all(),
    xticklabels=list(columns),
    yticklabels=list(rows),
  )
  # a digit is 0.6 of its size wide, and an inch has 72 points
  size = float(np.clip(0.85 * cell * 72 / longest / 0.6, 4, 9.5))
  _write_numbers(axes, values, fmt, size)
  # as in a table, where long ones are read from the top, too
  axes.xaxis.tick_top()
  axes.tick_params(length=0)
  if max(map(len, columns)) * 0.085 > cell:
    turned = {'rotation': 40, 'ha': 'left', 'rotation_mode': 'anchor'}
    axes.set_xticks(axes.get_xticks(), list(columns), **turned)
  if missing.any():
    figure.legend(
      handles=[Patch(color=figures.EMPTY, label='no value')],
      loc='outside lower right',
    )
  return figure


@figures.styled
def clustered(
  similarity: Float[np.ndarray, 'N N'],
  names: Sequence[str],
  title: str,
  groups: Sequence[str] | None = None,
  label: str = 'similarity',
) -> Figure:
  """A similarity matrix in the order of a clustering, with its tree.

  Average linkage on the distances 1 - similarity; leaves are turned so that
  neighbours are as similar as the tree allows. Colours span what occurs
  between different names: the diagonal would take most of the scale. (The
  clustermap of seaborn draws into pyplot's figure, and the same tree twice.)

  Args:
    similarity: symmetric, at most 1 off the diagonal. The diagonal is shown,
      but plays no part in the clustering.
    names: N of them, 2 or more; some 60 are readable.
    title: above the picture.
    groups: of each name, up to 10 different ones. They become a strip of
      colours, which shows whether the clusters agree with them.
    label: of the colours.

  Raises:
    ValueError: similarity is not [N, N], finite, symmetric, and at most 1; or
      groups do not fit.
  """
  similarity = np.asarray(similarity, np.float64)
  _check_similarity(similarity, len(names))
  kinds = list(dict.fromkeys(groups or ()))
  if groups is not None:
    _check_groups(groups, kinds, len(names))
  apart = distance.squareform(1 - similarity, checks=False)
  # rounding may leave a similarity of 1 + 1e-16
  apart = np.maximum(apart, 0)
  links = hierarchy.linkage(apart, 'average', optimal_ordering=True)
  # inches: what the names and the cells take
  longest = 0.08 * max(map(len, names))
  side = float(np.clip(0.5 * len(names), 2.5, 6))
  figure = figures.blank(
    title,
    height=1.0 + side + longest + 0.3 * bool(kinds),
    width=min(figures.WIDTH, 2.6 + side + longest),
  )
  figure.get_layout_engine().set(w_pad=0.03)
  tree, *strip, cells = figure.subplots(
    1, 2 + bool(kinds), width_ratios=[0.9, *[0.14] * bool(kinds), side]
  )
  leaves = _draw_tree(tree, links)
  ordered = [names[i] for i in leaves]
  similarity = similarity[np.ix_(leaves, leaves)]
  _draw(
    cells,
    similarity,
    _range(1 - apart),
    label,
    bar_aspect=max(12, side / 0.2),
    cmap='Blues',
    xticklabels=ordered,
    yticklabels=ordered,
  )
  size = float(np.clip(0.85 * side * 72 / len(names), 5.5, 9.5))
  if len(names) <= NUMBERED:
    _write_numbers(cells, similarity, '.2f', min(size, 8.5))
  # the tree touches the cells only if the names are on the other side
  cells.yaxis.tick_right()
  cells.tick_params(length=0, labelsize=size)
  cells.tick_params(axis='y', rotation=0)
  cells.tick_params(axis='x', rotation=90)
  if kinds:
    _draw_strip(figure, *strip, [groups[i] for i in leaves], kinds)
  return figure


def _draw(
  axes: Axes,
  values: np.ndarray,
  limits: tuple[float, float],
  label: str,
  bar_aspect: float,
  **options,
) -> None:
  """The cells, the names on both sides, and the bar of colours."""
  low, high = limits
  below, above = bool((values < low).any()), bool((values > high).any())
  sides = {0: 'neither', 1: 'min', 2: 'max', 3: 'both'}[below + 2 * above]
  bar = {'label': label, 'extend': sides, 'aspect': bar_aspect, 'pad': 0.02}
  seaborn.heatmap(
    values,
    ax=axes,
    mask=np.isnan(values),
    vmin=low,
    vmax=high,
    cbar_kws=bar | {'extendfrac': 0.03},
    linewidths=0.8 if len(values) <= 30 else 0,
    **options,
  )
  axes.set_facecolor(figures.EMPTY)
  axes.tick_params(length=0, rotation=0)


def _two_sided(center: float, low: float, high: float) -> ListedColormap:
  """Colours from low to high: none at the centre, equal strength on its sides.

  seaborn has the same, by a way that matplotlib is about to drop.
  """
  reach = max(high - center, center - low)
  levels = (np.linspace(low, high, 256) - center) / (2 * reach) + 0.5
  return ListedColormap(colormaps['vlag_r'](levels))


def _write_numbers(
  axes: Axes, values: np.ndarray, fmt: str, size: float
) -> None:
  """A number in each cell, black or white, whichever contrasts more."""
  mesh = axes.collections[0]
  for (row, column), value in np.ndenumerate(values):
    if np.isnan(value):
      continue
    back = seaborn.utils.relative_luminance(mesh.cmap(mesh.norm(value)))
    axes.text(
      column + 0.5,
      row + 0.5,
      _number(value, fmt),
      # WCAG: both contrast alike at a luminance of 0.18
      color='white' if back < 0.18 else 'black',
      ha='center',
      va='center',
      size=size,
    )


def _draw_tree(axes: Axes, links: np.ndarray) -> list[int]:
  """The tree with its root at the left; returns its leaves from the top."""
  drawn = hierarchy.dendrogram(links, no_plot=True)
  branches = [
    np.stack([heights, places], axis=1)
    for heights, places in zip(drawn['dcoord'], drawn['icoord'], strict=True)
  ]
  axes.add_collection(
    LineCollection(branches, colors=figures.FAINT, linewidths=1)
  )
  axes.set_xlim(1.02 * links[:, 2].max() or 1, 0)
  # a leaf is 10 high for SciPy, and the first is to be at the top
  axes.set_ylim(10 * len(drawn['leaves']), 0)
  axes.set_axis_off()
  return drawn['leaves']


def _draw_strip(
  figure: Figure, axes: Axes, groups: Sequence[str], kinds: Sequence[str]
) -> None:
  """The colours of the groups from the top, and below what they mean."""
  colours = figures.COLOURS[: len(kinds)]
  axes.pcolormesh(
    [[kinds.index(group)] for group in groups],
    cmap=ListedColormap(colours),
    vmin=0,
    vmax=len(kinds),
  )
  axes.set_ylim(len(groups), 0)
  axes.set_axis_off()
  handles = map(lambda c, k: Patch(color=c, label=k), colours, kinds)
  columns = min(len(kinds), 5)
  figure.legend(
    handles=list(handles), loc='outside lower center', ncols=columns
  )


def _check_groups(
  groups: Sequence[str], kinds: Sequence[str], count: int
) -> None:
  """Raises ValueError for groups that do not fit the names."""
  most = len(figures.COLOURS)
  if len(groups) != count or len(kinds) > most:
    raise ValueError(
      f'groups: expected one for each of the {count} names, and at most {most} '
      f'different ones, found {len(groups)} with {len(kinds)} different.'
    )


def _check_values(
  values: np.ndarray,
  rows: int,
  columns: int,
  limits: tuple[float, float] | None,
) -> None:
  """Raises ValueError for what makes no heatmap."""
  if values.shape != (rows, columns) or not values.size:
    raise ValueError(
      f'values: expected the shape {(rows, columns)} of {rows} rows and '
      f'{columns} columns, at least one of each, found {values.shape}.'
    )
  if np.isinf(values).any():
    raise ValueError('values: expected finite numbers or NaN, found infinity.')
  if limits is not None and not limits[0] < limits[1]:
    raise ValueError(f'limits: expected the lower one first, found {limits}.')


def _check_similarity(similarity: np.ndarray, count: int) -> None:
  """Raises ValueError for what cannot be clustered."""
  if similarity.shape != (count, count) or count < 2:
    raise ValueError(
      f'similarity: expected the shape {(count, count)} of {count} names, and '
      f'at least 2 names, found {similarity.shape}.'
    )
  if not np.isfinite(similarity).all():
    raise ValueError(
      'similarity: expected finite numbers, found NaN or infinity; leave out '
      'the names without a similarity.'
    )
  if not np.allclose(similarity, similarity.T, rtol=0, atol=1e-6):
    gap = np.abs(similarity - similarity.T).max()
    raise ValueError(
      'similarity: expected a symmetric matrix, found two sides that differ by '
      f'{gap:.3g}; average it with its transpose if both sides are meant.'
    )
  highest = similarity[~np.eye(count, dtype=bool)].max()
  if highest > 1 + 1e-6:
    raise ValueError(
      'similarity: expected at most 1 between two names, found '
      f'{highest:.3g}; scale it, for 1 - similarity is the distance.'
    )


def _range(values: np.ndarray) -> tuple[float, float]:
  """Lowest and highest value; a range of no width is widened."""
  if not values.size:
    return 0.0, 1.0
  low, high = float(values.min()), float(values.max())
  return (low, high) if high > low else (low - 0.5, high + 0.5)


def _number(value: float, fmt: str) -> str:
  """The number with a true minus sign, and never '-0'."""
  text = format(value, fmt)
  if text.startswith('-') and not text.strip('-0.'):
    text = text[1:]
  return text.replace('-', '−')
