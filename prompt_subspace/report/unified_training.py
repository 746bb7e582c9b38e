"""How the maps of a unified subspace were trained, and what a study took."""

import math
import statistics

from prompt_subspace.report import tables
from prompt_subspace.report.unified_found import Found
from prompt_subspace.report.unified_tables import Grid
from prompt_subspace.unified import analysis

WATCHED = ('loss', 'distance')


def watched(found: Found) -> list[str]:
  """What was seen while maps were trained: loss and distance by type."""
  seen = [
    name
    for history in found.histories.values()
    for point in history
    for name in point
    if name not in ('step', 'validation')
  ]
  order = ['loss', *(f'{n} {t}' for n in WATCHED for t in found.types)]
  return [n for n in order if n in set(seen)]


def maps_grid(found: Found) -> Grid:
  """A line for each space: where the training of its maps ended."""
  names = watched(found)
  spaces = {r['cell']: r for r in found.cells if r['stage'] == 'maps'}
  grid = [['group', 'maps', 'size', 'seed', 'steps', 'seconds', *names]]
  for cell, row in spaces.items():
    history = found.histories.get(cell)
    if history:
      last = [history[-1].get(n) for n in names]
      of = [row[n] for n in ('group', 'maps', 'size', 'seed', 'steps')]
      shown = [tables.MISSING if v is None else f'{v:.3g}' for v in last]
      grid.append([*of, round(row['seconds'] or 0), *shown])
  return grid


def curve(
  found: Found, name: str
) -> tuple[list[int], list[float], list[float] | None]:
  """Steps, mean and deviation over spaces of something watched.

  Only steps that all spaces have are counted: means over others differ for
  that alone.
  """
  lines = [
    {p['step']: p[name] for p in h if not analysis.missing(p.get(name))}
    for h in found.histories.values()
    if any(name in p for p in h)
  ]
  if not lines:
    return [], [], None
  steps = sorted(set.intersection(*map(set, lines)))
  mean = [statistics.fmean(x[s] for x in lines) for s in steps]
  if len(lines) < 2:
    return steps, mean, None
  return steps, mean, [statistics.stdev(x[s] for x in lines) for s in steps]


def speed_grid(found: Found) -> Grid:
  """Runs, time and padding by stage and method."""
  names = {'original': 'originals', 'maps': 'maps', 'inside': 'codes'}
  groups: dict[tuple[str, str], list] = {}
  for row in found.cells:
    groups.setdefault((row['stage'], row['method']), []).append(row)
  grid = [['runs of', 'type', 'runs', 'seconds', 'padding %']]
  for (stage, method), rows in groups.items():
    padding = [r['padding'] for r in rows if not analysis.missing(r['padding'])]
    grid.append(
      [
        names.get(stage, stage),
        'all' if stage == 'maps' else method,
        len(rows),
        round(math.fsum(r['seconds'] or 0.0 for r in rows)),
        100 * statistics.fmean(padding) if padding else None,
      ]
    )
  return grid
