"""A sweep: the same meta-learning study under several settings.

For what a study holds fixed: shots (figure 3 of Qin et al. 2023), how many
sources (table 4), and the algorithms' own numbers (appendix A.5).
"""

import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from prompt_subspace.training import job
from prompt_subspace.training.job import Job


def sweep(
  study: Callable[..., Job],
  name: str,
  variants: Mapping[str, Mapping[str, Any]],
  out: str,
) -> Job:
  """Plans a study for each variant.

  Args:
    study: `study.learn`, with everything that the variants share.
    name: of what differs, for axes and folders, such as 'shots'.
    variants: value of it -> the arguments of `study` that it stands for, such
      as {'16': {'shots': 16, 'source_shots': 16}}. Values that are numbers
      are shown in their order.
    out: folder of the studies' folders.

  Returns:
    The job. Running it runs the studies one after the other, each in
    `out/NAME=VALUE` as it would alone, and writes sweep.json.

  Raises:
    ValueError: no variants, a value or a name that cannot be a folder, or what
      a study says; the message names the variant.
  """
  if not variants:
    raise ValueError('variants: expected at least one, found none.')
  for text in (name, *variants):
    if not re.fullmatch(r'[\w.+-]+', text):
      raise ValueError(
        f'variants: expected names of letters, digits, and any of . + - _, '
        f'found {text!r}.'
      )
  folder = pathlib.Path(out)
  folders = {value: f'{name}={value}' for value in variants}
  jobs = {}
  for value, arguments in variants.items():
    try:
      jobs[value] = study(out=str(folder / folders[value]), **arguments)
    except ValueError as error:
      raise ValueError(f'{name} {value}: {error}') from error

  def run():
    for value, each in jobs.items():
      print(f'{name} {value}', flush=True)
      each.run()
    listed = {
      'name': name,
      'values': [_number(v) for v in variants],
      'folders': list(folders.values()),
    }
    job.write_json(folder / 'sweep.json', listed)

  plans = [f'{name} {v}\n{each.plan}' for v, each in jobs.items()]
  return Job(
    folder=folder,
    plan='\n\n'.join(plans),
    record={name: {v: dict(each.record) for v, each in jobs.items()}},
    run=run,
  )


def _number(value: str) -> int | float | str:
  """The number that a value is, if it is one."""
  for kind in (int, float):
    try:
      return kind(value)
    except ValueError:
      pass
  return value
