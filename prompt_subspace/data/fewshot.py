"""Few-shot splits: some examples per class, or in all, kept as index files.

The split is drawn from the training split, train and validation disjoint, as
in Gao et al. 2021 (LM-BFF, section 3). Its file holds row numbers and the
checksum of the rows' texts: it stays valid for another vocabulary and is
refused for other rows.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prompt_subspace.data.arrays import Arrays, TaskArrays, assemble
from prompt_subspace.data.orders import order


class FewShot(NamedTuple):
  """Which rows of a task's training split a few-shot run uses.

  Attributes:
    task: its name.
    k: examples per class (classification) or per set (otherwise) to train on.
    held: likewise, to validate on.
    seed: of the draw.
    rows: checksum of the training split's texts, `record['rows']['train']`.
    train: sorted row numbers.
    validation: sorted row numbers, none of them in train.
  """

  task: str
  k: int
  held: int
  seed: int
  rows: str
  train: tuple[int, ...]
  validation: tuple[int, ...]


def draw(
  task: TaskArrays, k: int, seed: int, held: int | None = None
) -> FewShot:
  """Draws training and validation examples, as many of each class if any.

  The draw depends on the task's name, the seed and the rows alone, not on the
  machine or the vocabulary.

  Args:
    task: prepared arrays with a training split.
    k: to train on, per class for classification, in all otherwise.
    seed: 0, 1, ...
    held: to validate on, likewise; None: as many. The training examples are
      the same whatever it is.

  Raises:
    ValueError: fewer than k + held examples of a class (or in all).
  """
  held = k if held is None else held
  for name, count in (('shots', k), ('held', held)):
    if not isinstance(count, int) or count < 1:
      raise ValueError(
        f'{name}: expected a whole number >= 1 of examples, found {count!r}.'
      )
  labels = task.splits['train'].labels
  if task.kind == 'classification':
    groups = {text: labels == i for i, text in enumerate(task.label_texts)}
  else:
    groups = {'all': np.ones(len(labels), bool)}
  train, validation = [], []
  for name, members in groups.items():
    rows = np.flatnonzero(members)
    if len(rows) < k + held:
      raise ValueError(
        f'shots: task {task.name!r} has {len(rows)} training examples of '
        f'{name!r}, expected at least {k + held} ({k} to train, {held} to '
        f'validate); use {len(rows) // 2} of each, or less.'
      )
    rows = rows[order(len(rows), 'fewshot', task.name, seed, name)]
    train += rows[:k].tolist()
    validation += rows[k : k + held].tolist()
  return FewShot(
    task.name,
    k,
    held,
    seed,
    task.record['rows']['train'],
    tuple(sorted(train)),
    tuple(sorted(validation)),
  )


def apply(task: TaskArrays, split: FewShot) -> TaskArrays:
  """The task with the few-shot train and validation; the test stays.

  Raises:
    ValueError: the split was drawn from another task or other rows.
  """
  _check_match(task, split)
  train = task.splits['train']
  few = {
    'train': subset(train, np.array(split.train)),
    'validation': subset(train, np.array(split.validation)),
  }
  splits = task.splits | few
  request = task.record['request'] | {'fewshot': json.loads(_as_json(split))}
  return assemble(request, splits, {'rows': task.record['rows']})


def folds(task: TaskArrays, count: int) -> list[TaskArrays]:
  """The task for cross-validation: each fold once held out of the rest.

  The training split is cut into folds of about as many examples of each class
  (of the whole, where there are no classes); a fold is the validation split of
  one of the tasks, the others are its training split. The validation and test
  splits of the task itself are in none of them.

  Args:
    task: usually few-shot, see `apply`.
    count: of folds, F. They depend on the task's name and rows alone.

  Raises:
    ValueError: fewer than two folds, or a class with fewer examples than folds.
  """
  if count < 2:
    raise ValueError(f'folds: expected 2 or more, found {count}.')
  train = task.splits['train']
  groups = {'all': np.ones(len(train.labels), bool)}
  if task.kind == 'classification':
    groups = {x: train.labels == i for i, x in enumerate(task.label_texts)}
  owner, dealt = np.zeros(len(train.labels), int), 0
  for name, members in groups.items():
    rows = np.flatnonzero(members)
    if len(rows) < count:
      raise ValueError(
        f'folds: task {task.name!r} has {len(rows)} training examples of '
        f'{name!r}, expected at least one for each of {count} folds; use fewer '
        'folds or more shots.'
      )
    rows = rows[order(len(rows), 'folds', task.name, name)]
    # each class goes on where the one before ended, or the first folds would
    # be the largest
    owner[rows] = (dealt + np.arange(len(rows))) % count
    dealt += len(rows)
  return [
    assemble(
      task.record['request'] | {'fold': [i, count]},
      {
        'train': subset(train, np.flatnonzero(owner != i)),
        'validation': subset(train, np.flatnonzero(owner == i)),
      },
      {'rows': task.record['rows']},
    )
    for i in range(count)
  ]


def subset(arrays: Arrays, indices: Int[np.ndarray, ' K']) -> Arrays:
  """The rows of a split at these indices, in this order."""
  choices = arrays.choices
  if choices is not None and choices.ndim == 3:
    choices = choices[indices]
  return Arrays(
    arrays.inputs[indices],
    arrays.targets[indices],
    arrays.labels[indices],
    choices,
    [arrays.references[i] for i in indices],
  )


def save(split: FewShot, path: str | pathlib.Path) -> None:
  """Writes a split as JSON, whole or not at all."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(_as_json(split), encoding='utf-8')
  os.replace(draft, path)


def load(path: str | pathlib.Path, task: TaskArrays) -> FewShot:
  """Reads a split back for the task that it was drawn from.

  Raises:
    ValueError: naming the file: not a split, drawn from another task or from
      other rows, or with row numbers that it cannot have.
  """
  path = pathlib.Path(path)
  try:
    fields = json.loads(path.read_text(encoding='utf-8'))
    split = FewShot(**fields)
    split = split._replace(
      train=tuple(split.train), validation=tuple(split.validation)
    )
    _check_match(task, split)
  except (OSError, TypeError, ValueError) as error:
    raise ValueError(
      f'{path}: {error} Draw the split again with fewshot.draw.'
    ) from error
  return split


def stored(
  task: TaskArrays,
  k: int,
  seed: int,
  folder: str | pathlib.Path,
  held: int | None = None,
) -> TaskArrays:
  """The task with its split of this folder, or a newly drawn one.

  Writes nothing, see `keep`. The arguments are those of `draw`.
  """
  file = _file(folder, task.name, k, k if held is None else held, seed)
  split = load(file, task) if file.exists() else draw(task, k, seed, held)
  return apply(task, split)


def splits(
  tasks: Mapping[str, TaskArrays],
  shots: Mapping[str, int | None],
  seeds: Iterable[int],
  folder: str | pathlib.Path,
  held: int | None = None,
) -> dict[tuple[str, int], TaskArrays]:
  """The splits of several tasks, see `stored`.

  Args:
    tasks: name -> its arrays.
    shots: name -> k, None for the task as it is.
    seeds: of the draws.
    folder: of the stored splits.
    held: as of `draw`.

  Returns:
    (name, seed) -> the task with that split.

  Raises:
    ValueError: tasks with too few examples; names them all.
  """
  out: dict[tuple[str, int], TaskArrays] = {}
  wrong: list[str] = []
  seeds = [int(seed) for seed in seeds]
  for name, task in tasks.items():
    k = shots[name]
    try:
      for seed in seeds:
        out[name, seed] = (
          task if k is None else stored(task, k, seed, folder, held)
        )
    except ValueError as error:
      wrong.append(str(error))
  if wrong:
    raise ValueError('\n'.join(wrong))
  return out


def keep(task: TaskArrays, folder: str | pathlib.Path) -> None:
  """Writes the split that a task was made few-shot with, if it was.

  A file that is there stays: it is what `stored` has read.
  """
  fields = task.record['request'].get('fewshot')
  if fields is None:
    return
  split = FewShot(**fields)
  file = _file(folder, split.task, split.k, split.held, split.seed)
  if not file.exists():
    save(split, file)


def _file(folder: str | pathlib.Path, task: str, k: int, held: int, seed: int):
  name = re.sub(r'[^\w.-]', '_', task)
  counts = f'k{k}' if held == k else f'k{k}-v{held}'
  return pathlib.Path(folder) / f'{name}-{counts}-s{seed}.json'


def _as_json(split: FewShot) -> str:
  return json.dumps(split._asdict(), indent=1)


def _check_match(task: TaskArrays, split: FewShot) -> None:
  """Raises unless the split can have been drawn from these arrays."""
  if split.task != task.name:
    raise ValueError(
      f'the split was drawn from {split.task!r}, expected {task.name!r}.'
    )
  if split.rows != task.record['rows']['train']:
    raise ValueError(
      f'the split was drawn from other rows of {task.name!r}: expected '
      f'checksum {task.record["rows"]["train"]}, found {split.rows}.'
    )
  rows = [*split.train, *split.validation]
  count = len(task.splits['train'].labels)
  if len(set(rows)) < len(rows) or not all(0 <= i < count for i in rows):
    raise ValueError(
      f'expected different row numbers below {count} in train and validation.'
    )
