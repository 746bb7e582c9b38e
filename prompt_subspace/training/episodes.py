"""Episodes: which task, and which of its examples, at each outer step.

Qin et al. 2023 (MPT), section 3: an outer step samples a source task, its
support batches for the inner steps and its query batch. They are drawn from the
union of the source tasks (`data.mixtures.join`), whose record says where each
task's training and validation examples stand. What learns from many tasks
without such a division has support batches alone.

What a row sees at a step depends on its key and the step alone, as for every
other row. Tasks come in shuffled rounds, so that each is seen once before any
is seen again; so do the examples of a task.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prompt_subspace.data import batches
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.orders import order
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import rows
from prompt_subspace.training.spec import RowSpec, Settings


class Part(NamedTuple):
  """Where a task stands in a union.

  Attributes:
    task: its name.
    support: numbers of the examples for inner steps.
    query: numbers of the examples for the outer loss.
  """

  task: str
  support: Int[np.ndarray, ' n']
  query: Int[np.ndarray, ' m']


def parts(union: TaskArrays, together: bool = False) -> list[Part]:
  """Returns where the tasks of a union stand.

  Args:
    union: of `mixtures.join`, with 'train' and 'validation' of each task.
    together: support is all that a task has; Reptile has no query set.

  Raises:
    ValueError: it is not such a union.
  """
  listed = union.record.get('parts')
  if not listed:
    raise ValueError(
      f'tasks: expected a union of tasks (mixtures.join), found '
      f'{union.name!r}, which is one task.'
    )
  found: dict[str, dict[str, np.ndarray]] = {}
  first = 0
  for task, split, count in listed:
    found.setdefault(task, {})[split] = np.arange(first, first + count)
    first += count
  out = []
  for task, splits in found.items():
    if together:
      every = np.concatenate(list(splits.values()))
      out.append(Part(task, every, every[:0]))
      continue
    if set(splits) != {'train', 'validation'}:
      raise ValueError(
        f'tasks: expected train and validation examples of {task!r}, the '
        f'support and query of its episodes, found only {sorted(splits)}.'
      )
    out.append(Part(task, splits['train'], splits['validation']))
  return out


def owners(union: TaskArrays) -> Int[np.ndarray, ' N']:
  """Returns for each example of a union the number of its task."""
  out = np.zeros(len(union.splits['train'].labels), np.int32)
  for number, part in enumerate(parts(union, together=True)):
    out[part.support] = number
  return out


def plan(
  spec: RowSpec,
  union: TaskArrays,
  settings: Settings,
  tasks: int = 1,
  steps: int = 1,
  query: bool = True,
) -> batches.Plan:
  """Plans the episodes of a row.

  Args:
    spec: the row.
    union: its data.
    settings: steps, and the batch size of support and of query.
    tasks: episodes of an outer step, E; of different tasks if there are so
      many.
    steps: inner steps, k, each with a batch of its own.
    query: whether episodes have a query batch; without it, support comes from
      all examples of a task.

  Returns:
    A plan whose indices are {'support': [S, E, k, B], 'query': [S, E, B]}.
  """
  key = rows.row_key(spec.seed, spec.id)
  members = parts(union, together=not query)
  rounds = functools.partial(_rounds, len(members), names=('tasks', *key))
  which = _distinct(rounds, len(members), settings.steps, tasks)
  sides = {'support': steps * settings.batch_size}
  if query:
    sides['query'] = settings.batch_size
  indices = {}
  for side, size in sides.items():
    flat = np.zeros((len(which), size), np.int32)
    for number, part in enumerate(members):
      at = np.flatnonzero(which == number)
      own = getattr(part, side)
      names = side, *key, part.task
      taken = _rounds(len(own), len(at) * size, names)
      flat[at] = own[taken].reshape(-1, size)
    indices[side] = flat.reshape(settings.steps, tasks, -1)
  lengths = algorithms.lengths(union.splits['train'].inputs)
  longest = np.max(
    [lengths[x].reshape(settings.steps, -1).max(1) for x in indices.values()],
    axis=0,
  )
  edges = batches.choose_edges(longest, settings.buckets, settings.widths)
  shape = settings.steps, tasks, steps, settings.batch_size
  indices['support'] = indices['support'].reshape(shape)
  widths = np.asarray(edges)[np.searchsorted(edges, longest)]
  return batches.Plan(indices, widths.astype(np.int32))


def _distinct(
  rounds: Callable[[int], Int[np.ndarray, ' n']],
  count: int,
  steps: int,
  each: int,
) -> Int[np.ndarray, ' m']:
  """Takes numbers below `count` in rounds, none twice in a step.

  What a step has already had waits for the next.
  """
  if each > count:
    return rounds(steps * each)
  flow, waiting, out = iter(rounds(steps * each + count)), [], []
  for _ in range(steps):
    step, waiting = waiting[:each], waiting[each:]
    while len(step) < each:
      number = next(flow)
      (waiting if number in step else step).append(number)
    out += step
  return np.array(out, np.int64)


def _rounds(count: int, needed: int, names) -> Int[np.ndarray, ' needed']:
  """So many numbers below `count`, in shuffled rounds."""
  found: Sequence = [
    order(count, *names, n) for n in range(-(-needed // count))
  ]
  return np.concatenate([np.zeros(0, np.int64), *found])[:needed]
