"""Mixtures: examples-proportional with a size limit, and plain unions.

Raffel et al. 2020 (T5), section 3.5.2: task i is drawn at the rate
min(n_i, K) / sum_j min(n_j, K), so that no task outweighs the others by more
than its limit K. SPoT (Vu et al. 2022) uses K = 2^19.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from prompt_subspace.data.arrays import Arrays, TaskArrays, assemble
from prompt_subspace.data.orders import order


def rates(counts: Sequence[int], limit: int) -> Float[np.ndarray, ' tasks']:
  """min(n_i, K) / sum_j min(n_j, K).

  Args:
    counts: n_i, training examples of each task.
    limit: K, in examples.

  Raises:
    ValueError: no tasks, an empty one, or a limit below 1.
  """
  if limit < 1:
    raise ValueError(f'limit: expected 1 or more examples, found {limit}.')
  if not counts or min(counts) < 1:
    raise ValueError(
      f'counts: expected the size of each task, at least 1, found '
      f'{list(counts)}.'
    )
  capped = np.minimum(counts, limit)
  return capped / capped.sum()


def plan(
  counts: Sequence[int], limit: int, seed: int, size: int
) -> Int[np.ndarray, 'size 2']:
  """Which example stands where in a mixture of `size` examples.

  The tasks get their shares exactly: size * rate, rounded so that the shares
  add up to size (largest remainders first). A task's examples are taken in
  random orders, each once before any is taken again; then all are shuffled.

  Args:
    counts: see `rates`.
    limit: K.
    seed: of the orders.
    size: of the mixture, in examples.

  Returns:
    rows of (number of the task, number of its example).
  """
  wanted = size * rates(counts, limit)
  shares = np.floor(wanted).astype(int)
  rest = np.argsort(shares - wanted, kind='stable')[: size - shares.sum()]
  shares[rest] += 1
  pieces = []
  for i, (count, share) in enumerate(zip(counts, shares, strict=True)):
    rounds = [
      order(count, 'mixture', seed, i, r) for r in range(-(-share // count))
    ]
    examples = np.concatenate([np.zeros(0, int), *rounds])[:share]
    pieces.append(np.stack([np.full(share, i), examples], axis=1))
  return np.concatenate(pieces)[order(size, 'mixture', seed)]


def mix(
  tasks: Sequence[TaskArrays],
  limit: int,
  seed: int,
  size: int | None = None,
  name: str = 'mixture',
  held_out: int = 0,
) -> TaskArrays:
  """A training split drawn from the training splits of several tasks.

  Args:
    tasks: prepared with one vocabulary.
    limit: K, in examples; see `rates`.
    seed: of the draw.
    size: examples in the mixture; by default sum_i min(n_i, K), at which every
      task gives min(n_i, K) different examples.
    name: of the mixture.
    held_out: how many examples of each task's validation split, the first
      ones, make up that of the mixture; 0: it has none.

  Returns:
    TaskArrays of kind generation with the splits 'train' and, maybe,
    'validation': text in, text out, without labels and choices, scored by
    exact match. Its record lists `rates` and `shares`.

  Raises:
    ValueError: no tasks, two of one name, or different vocabularies.
  """
  _check_tasks(tasks)
  parts = [task.splits['train'] for task in tasks]
  counts = [len(part.labels) for part in parts]
  share_of = rates(counts, limit).tolist()
  if size is None:
    size = int(np.minimum(counts, limit).sum())
  if size < 1:
    raise ValueError(f'size: expected 1 or more examples, found {size}.')
  which = plan(counts, limit, seed, size)
  splits = {'train': _take(parts, which)}
  if held_out:
    others = [task.splits['validation'] for task in tasks]
    first = [
      (i, j)
      for i, part in enumerate(others)
      for j in range(min(held_out, len(part.labels)))
    ]
    splits['validation'] = _take(others, np.array(first))
  names = [task.name for task in tasks]
  shares = np.bincount(which[:, 0], minlength=len(tasks)).tolist()
  request = _request(tasks, name) | {
    'mixture': {task.name: task.record['key'] for task in tasks},
    'limit': limit,
    'seed': seed,
    'size': size,
    **({'held_out': held_out} if held_out else {}),
  }
  facts = {
    'rates': dict(zip(names, share_of, strict=True)),
    'shares': dict(zip(names, shares, strict=True)),
  }
  return assemble(request, splits, facts)


def join(
  tasks: Sequence[TaskArrays],
  splits: Sequence[str] = ('train', 'validation'),
  name: str = 'union',
) -> TaskArrays:
  """The union of several tasks, each example once, in order.

  Args:
    tasks: prepared with one vocabulary.
    splits: of each task, that become training examples.
    name: of the union.

  Returns:
    TaskArrays of kind generation with the one split 'train': of each task in
    turn, its splits in turn. Its record lists how many examples stand where,
    as `parts`: [[task, split, count], ...].

  Raises:
    ValueError: no tasks, two of one name, different vocabularies, or a task
      without one of the splits.
  """
  _check_tasks(tasks)
  for task in tasks:
    if absent := [s for s in splits if s not in task.splits]:
      raise ValueError(
        f'tasks: expected {task.name!r} to have the splits {list(splits)}, '
        f'found only {sorted(task.splits)}; {absent} is missing.'
      )
  places = [(task, split) for task in tasks for split in splits]
  parts = [task.splits[split] for task, split in places]
  counts = [len(part.labels) for part in parts]
  which = np.stack(
    [
      np.repeat(np.arange(len(parts)), counts),
      np.concatenate([np.arange(n) for n in counts]),
    ],
    axis=1,
  )
  request = _request(tasks, name) | {
    'union': {task.name: task.record['checksum'] for task in tasks},
    'splits': list(splits),
  }
  names = [[task.name, split] for task, split in places]
  facts = {'parts': [[*n, c] for n, c in zip(names, counts, strict=True)]}
  return assemble(request, {'train': _take(parts, which)}, facts)


def _request(tasks: Sequence[TaskArrays], name: str) -> dict:
  """What the request of a mixture says: text in, text out."""
  return {f: tasks[0].record['request'][f] for f in _SHARED} | {
    'task': name,
    'kind': 'generation',
    'metrics': ['exact_match'],
    'label_texts': None,
  }


# What the requests of the tasks of one mixture must agree on.
_SHARED = ('vocabulary', 'extra_ids')


def _check_tasks(tasks: Sequence[TaskArrays]) -> None:
  names = [task.name for task in tasks]
  if len(set(names)) < len(names) or not names:
    raise ValueError(
      f'tasks: expected one or more tasks of different names, found {names}.'
    )
  for task in tasks:
    for field in _SHARED:
      expected = tasks[0].record['request'][field]
      found = task.record['request'][field]
      if found != expected:
        raise ValueError(
          f'tasks: {task.name!r} was prepared with {field} {found}, '
          f'{names[0]!r} with {expected}; prepare both with one vocabulary.'
        )


def _take(parts: Sequence[Arrays], which: Int[np.ndarray, 'n 2']) -> Arrays:
  """Row (i, j) of which: example j of part i, as text in and text out."""
  return Arrays(
    _gather([part.inputs for part in parts], which),
    _gather([part.targets for part in parts], which),
    np.full(len(which), -1, np.int32),
    None,
    [parts[i].references[j] for i, j in which],
  )


def _gather(
  parts: Sequence[Int[np.ndarray, 'n l']], which: Int[np.ndarray, 'size 2']
) -> Int[np.ndarray, 'size L']:
  """Row (i, j) of which: row j of part i, padded to the widest part used."""
  width = max(part.shape[1] for part in parts)
  gathered = np.zeros((len(which), width), np.int32)
  for i, part in enumerate(parts):
    places = np.flatnonzero(which[:, 0] == i)
    gathered[places, : part.shape[1]] = part[which[places, 1]]
  return gathered
