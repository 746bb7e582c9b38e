"""Scores of transfer studies against the size of their backbones.

Figure 1 of Vu et al. 2022 in kind, from the folders of several studies:

  python -m prompt_subspace.report.spot_sizes --out sizes.png runs/a runs/b
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from prompt_subspace.report import plots, spot_tables, tables
from prompt_subspace.spot import analysis


def sizes(
  folders: Sequence[str | pathlib.Path],
) -> dict[str, dict[int, tuple[float, float | None]]]:
  """Returns {policy: {parameters of the backbone: (score, deviation)}}.

  Args:
    folders: of studies with the same targets, each on another backbone.

  Raises:
    ValueError: other targets than in the first study, two studies on
      backbones of one size, or a study without record.
  """
  out: dict[str, dict] = {}
  first = None
  for folder in folders:
    found = spot_tables.read(pathlib.Path(folder))
    if 'parameters' not in found.record:
      raise ValueError(
        f'{folder}: expected record.json with the size of the backbone, found '
        f'{sorted(found.record) or "none"}. Run the study by its gin file.'
      )
    targets = sorted({r['target'] for r in found.outcomes})
    first = first or targets
    if targets != first:
      raise ValueError(
        f'{folder}: expected the targets {first}, found {targets}. Averages '
        'over different targets cannot be compared.'
      )
    size = found.record['parameters']
    for gain in analysis.gains(found.outcomes):
      if gain.metric not in ('', found.metric):
        continue
      line = out.setdefault(gain.policy, {})
      if size in line:
        raise ValueError(
          f'{folder}: expected a backbone of another size, found a second one '
          f'of {size:,} parameters.'
        )
      line[size] = gain.score
  return out


def draw(found: dict[str, dict[int, tuple[float, float | None]]]):
  """Returns the picture: a line per policy, parameters on a log axis."""
  lines = {}
  for policy, by_size in found.items():
    x = sorted(by_size)
    spread = [by_size[n][1] for n in x]
    lines[policy] = (
      x,
      [by_size[n][0] for n in x],
      None if None in spread else spread,
    )
  return plots.curves(
    lines,
    'parameters of the backbone',
    'test score, mean over targets',
    'Transfer and the size of the backbone',
    log_x=True,
  )


def main(argv: Sequence[str]) -> int:
  """Reads the command line, prints the table and writes the picture."""
  parser = argparse.ArgumentParser(
    prog='python -m prompt_subspace.report.spot_sizes',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('folders', nargs='+')
  parser.add_argument('--out', default='sizes.png')
  known = parser.parse_args(argv)
  try:
    found = sizes(known.folders)
    plots.save(draw(found), known.out)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  columns = sorted({n for line in found.values() for n in line})
  grid = [['policy', *(f'{n:,}' for n in columns)]]
  for policy, line in found.items():
    cells = [f'{line[n][0]:.1f}' if n in line else '-' for n in columns]
    grid.append([policy, *cells])
  print(tables.as_text(grid))
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
