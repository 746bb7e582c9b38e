"""Figures: how every picture of a report looks, and how it is written.

Nothing touches pyplot, so that nothing stays open and no window appears.
Figures are at most 9 inches wide, which makes 1800 pixels: all texts are
readable where a page shows them at half of that. Equal figures give equal
bytes.
"""

import functools
import io
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import seaborn
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from prompt_subspace.report import files

WIDTH = 9.0  # inches
DPI = 200
INK, FAINT, EMPTY = '#222222', '#8a8a8a', '#d9d9d9'
# told apart by the colour-blind, too
COLOURS = seaborn.color_palette('colorblind').as_hex()

_STYLE = {
  'axes.axisbelow': True,
  'axes.edgecolor': FAINT,
  'axes.grid.axis': 'y',
  'axes.labelcolor': INK,
  'axes.labelsize': 10,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlelocation': 'left',
  'axes.titlesize': 10,
  'figure.constrained_layout.h_pad': 0.08,
  'figure.constrained_layout.w_pad': 0.08,
  'font.size': 9.5,
  'grid.color': '#e6e6e6',
  'legend.frameon': False,
  # ids in SVG files are random without it
  'svg.hashsalt': 'report',
  'text.color': INK,
  # names are texts: a task may be called a$b$c
  'text.parse_math': False,
  'xtick.color': FAINT,
  'xtick.labelcolor': INK,
  'ytick.color': FAINT,
  'ytick.labelcolor': INK,
}


def styled(draw: Callable) -> Callable:
  """Runs a function in our style, whatever the user's own settings are."""

  @functools.wraps(draw)
  def run(*args, **kwargs):
    with matplotlib.style.context(['default', _STYLE]):
      return draw(*args, **kwargs)

  return run


def blank(title: str, height: float, width: float = WIDTH) -> Figure:
  """An empty figure with its title; sizes in inches."""
  figure = Figure(figsize=(width, height), layout='constrained')
  # seaborn measures texts, for which a figure needs something to draw on
  FigureCanvasAgg(figure)
  figure.suptitle(title, x=0.012, ha='left', size=12, weight='bold')
  return figure


@styled
def encode(figure: Figure, form: str = 'png') -> bytes:
  """The figure as the bytes of a PNG or SVG file.

  Raises:
    ValueError: another form than 'png' or 'svg'.
  """
  if form not in ('png', 'svg'):
    raise ValueError(f"form: expected 'png' or 'svg', found {form!r}.")
  buffer = io.BytesIO()
  # an SVG file has the time in it, unless told otherwise
  metadata = {'Date': None} if form == 'svg' else None
  figure.savefig(buffer, format=form, dpi=DPI, metadata=metadata)
  # a second layout starts from the first, and would move things a little
  figure.set_layout_engine('none')
  return buffer.getvalue()


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
  """Writes the figure, whole or not at all, and empties it.

  Args:
    figure: not to be used afterwards: its memory is free.
    path: ends in .png or .svg; its folder is made where it is missing.

  Raises:
    ValueError: the name ends in something else.
  """
  path = Path(path)
  form = path.suffix.lower().removeprefix('.')
  if form not in ('png', 'svg'):
    raise ValueError(
      f'path: expected a name that ends in .png or .svg, found {path.name!r}.'
    )
  files.write_whole(path, encode(figure, form))
  figure.clear()
