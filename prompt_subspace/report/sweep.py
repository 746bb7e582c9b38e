"""The report of a sweep: the table of its results.csv."""

import pathlib

from prompt_subspace.report import tables
from prompt_subspace.training import results


def report(folder: pathlib.Path) -> str:
  """Returns the table of a finished or running sweep; writes table.md.

  Args:
    folder: that the sweep wrote, with results.csv.
  """
  folder = pathlib.Path(folder)
  summary = tables.summarise(results.read_csv(folder / 'results.csv'))
  grid = tables.lay_out(summary)
  markdown = tables.as_markdown(grid) + '\n'
  (folder / 'table.md').write_text(markdown, encoding='utf-8')
  return tables.as_text(grid)
