"""The report of few-shot runs by cross-validation: scores, and what was chosen.

Table 3 of Jiang et al. 2022 (IPT) in kind.
"""

import collections
import pathlib

from prompt_subspace.report import tables
from prompt_subspace.training import crossed, results


def report(folder: pathlib.Path) -> str:
  """Returns the tables of a finished or running study; writes table.md.

  Args:
    folder: that `training.crossed` wrote.
  """
  folder = pathlib.Path(folder)
  rows = results.read_csv(folder / 'results.csv')
  # each seed has made its own choice: what was chosen divides nothing
  rows = [{**row, 'rate': 0.0} for row in rows]
  grid = tables.lay_out(tables.summarise(rows))
  chosen = choices(results.read_csv(folder / 'settings.csv', crossed.SETTINGS))
  both = (grid, chosen)
  text = '\n\n'.join(tables.as_markdown(g) for g in both) + '\n'
  (folder / 'table.md').write_text(text, encoding='utf-8')
  return '\n\n'.join(tables.as_text(g) for g in both)


def choices(lines) -> tables.Grid:
  """A line for each setting: how often cross-validation has chosen it."""
  keys = ('method', 'variant', 'rate', 'steps')
  tried = collections.Counter(tuple(x[k] for k in keys) for x in lines)
  taken = collections.Counter(
    tuple(x[k] for k in keys) for x in lines if x['chosen']
  )
  return [
    [*keys, 'chosen'],
    *(
      [key[0], key[1], f'{key[2]:g}', str(key[3]), f'{taken[key]} of {count}']
      for key, count in tried.items()
    ),
  ]
