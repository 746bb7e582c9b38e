"""The tasks of a study by name: whole, or as few-shot splits.

A name is looked up with `data.crossfit_places`. Splits are numbered 0, 1, ...:
of CrossFit's few-shot sets split i is that of its i-th seed, of whole tasks the
split drawn by seed i.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_subspace.data import fewshot
from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.crossfit_places import Found
from prompt_subspace.data.templates import Template
from prompt_subspace.training import stage
from prompt_subspace.training.stage import Stage


class Suite(NamedTuple):
  """Tasks, prepared.

  Attributes:
    whole: task -> its arrays; of CrossFit's few-shot sets those of each seed.
    templates: task -> how it reads.
    folder: of the stored few-shot splits.
  """

  whole: Mapping[str, tuple[TaskArrays, ...]]
  templates: Mapping[str, Template]
  folder: pathlib.Path

  def splits(
    self, names: Sequence[str], numbers: Sequence[int], shots: int | None
  ) -> dict[tuple[str, int], TaskArrays]:
    """Returns (task, number) -> that few-shot split of the task.

    Args:
      names: of tasks.
      numbers: of the splits, 0, 1, ...
      shots: k examples per class, and 2 k in all where there are no classes,
        to train on and as many to validate on (Ye et al. 2021, section 4.2);
        None takes all. CrossFit's sets are as they were built.

    Raises:
      ValueError: too few examples, or a set that CrossFit does not have.
    """
    built = {n: self.whole[n] for n in names if len(self.whole[n]) > 1}
    for name, sets in built.items():
      if wrong := [i for i in numbers if not 0 <= i < len(sets)]:
        raise ValueError(
          f'splits: expected numbers from 0 to {len(sets) - 1} for the '
          f'few-shot sets of {name!r}, found {wrong}.'
        )
    drawn = {n: self.whole[n][0] for n in names if n not in built}
    counts = {n: _count(task, shots) for n, task in drawn.items()}
    found = fewshot.splits(drawn, counts, numbers, self.folder)
    return {
      (n, i): built[n][i] if n in built else found[n, i]
      for n in names
      for i in numbers
    }


def _count(task: TaskArrays, shots: int | None) -> int | None:
  if shots is None or task.kind == 'classification':
    return shots
  return 2 * shots


def prepare(
  where: Stage,
  found: Mapping[str, Found],
  data_dir: str | None,
  cache: str | None,
  max_input: int,
  max_target: int,
) -> Suite:
  """Prepares tasks, each set of CrossFit as a task of its own.

  Args:
    where: a stage of the study.
    found: as of `crossfit_places.places`.
    data_dir: the same.
    cache: as `max_input` and `max_target`, see `stage.prepare`.
  """
  whole, templates = {}, {}
  for name, place in found.items():
    tasks = {n: task_names.find(n, data_dir) for n in place.names}
    templates[name] = next(iter(tasks.values())).template
    arrays = stage.prepare(where, tasks, cache, max_input, max_target)
    whole[name] = tuple(arrays.values())
  return Suite(whole, templates, where.folder / 'splits')
