"""SeqIO mixtures by the names of tasks, and streams of episodes, for T5X.

T5X takes its data from SeqIO's registries. `mixture` fills them from the names
in a gin file; `episodes` orders the examples of many tasks so that those of an
episode stand side by side. Both import SeqIO and TensorFlow when called.
"""

import functools
import time
import zlib
from collections.abc import Callable, Sequence

from prompt_subspace import vocabulary as vocabularies
from prompt_subspace.data import seqio_tasks, tasks
from prompt_subspace.vocabulary import Vocabulary


def mixture(
  name: str,
  sources: Sequence[str],
  vocabulary: str,
  data_dir: str | None = None,
  limit: int = 2**19,
  register: Callable | None = None,
  tfds_data_dir: str | None = None,
) -> str:
  """Registers a mixture and its tasks; the second time it only checks.

  Examples are drawn at the rate min(n_i, K) / sum_j min(n_j, K) (Raffel et al.
  2020, section 3.5.2; K = 2^19 in Vu et al. 2022).

  Args:
    name: of the mixture.
    sources: names of tasks, see `tasks.find`.
    vocabulary: the sentencepiece model of the backbone, or `bytes`.
    data_dir: folder of task folders, for tasks that are split files.
    limit: K.
    register: (vocabulary, tfds_data_dir) -> None, what fills SeqIO's registry
      with more tasks, for instance `tasks.spot.register`.
    tfds_data_dir: for `register`.

  Returns:
    The name, so that a gin file can bind this where T5X asks for one.

  Raises:
    ValueError: see `tasks.find`; no sources, or the name stands for others.
  """
  import seqio

  if not sources or isinstance(sources, str):
    raise ValueError(
      f'sources: expected a list of task names, found {sources!r}.'
    )
  made = vocabularies.find(vocabulary)
  if register is not None:
    _once(register, str(vocabulary), tfds_data_dir)
  members = [_member(source, made, data_dir) for source in sources]
  if name in seqio.MixtureRegistry.names():
    known = [t.name for t in seqio.MixtureRegistry.get(name).tasks]
    if sorted(known) != sorted(members):
      raise ValueError(
        f'name: {name!r} is registered with the tasks {known}, found '
        f'{members}. Give the mixture another name.'
      )
    return name
  rate = functools.partial(_rate, limit=limit)
  seqio.MixtureRegistry.add(name, [(member, rate) for member in members])
  return name


@functools.cache
def _once(register: Callable, vocabulary: str, tfds_data_dir: str | None):
  register(vocabularies.find(vocabulary), tfds_data_dir)


def _new_seed() -> int:
  """The time, the same on all hosts: those of a shard need the same data."""
  import numpy as np
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.int32(time.time())))


def _rate(task, limit: int) -> float:
  """Tasks of unknown size count as large."""
  return float(min(task.num_input_examples('train') or limit, limit))


def _member(source: str, vocabulary: Vocabulary, data_dir: str | None) -> str:
  """Returns the name in SeqIO's registry, under which it now is."""
  import seqio

  if source in seqio.TaskRegistry.names():
    return source
  found = tasks.find(source, data_dir)
  if found.folder is None:
    return source
  name = f'{source}__files'.replace('-', '_')
  if name not in seqio.TaskRegistry.names():
    splits = tasks.splits(found) or ('train',)
    seqio_tasks.seqio_task(
      name, found.folder, found.template, vocabulary, splits
    )
  return name


def episodes(
  cfg,
  shard_id: int,
  num_shards: int,
  feature_converter_cls: Callable,
  num_epochs: int | None = None,
  continue_from_last_checkpoint: bool = False,
  size: int = 16,
  tasks: int | None = None,
):
  """Returns batches whose examples come in runs of `size` from one task.

  Tasks are drawn uniformly (Qin et al. 2023, section 3). Deviation: support and
  query come from one split, side by side in one shuffled order, where
  `training.episodes` takes the query from the validation split. In a task with
  hardly more examples than an episode, they share some. Each example has the
  number of its task, in the order of their names, as `task_number`. Bind it as
  `get_dataset_fn` of T5X's training; its arguments are T5X's, but for

  Args:
    size: examples of an episode, see `training.features.episode_size`.
    tasks: how many there must be, where something is trained for each; None
      takes any number.

  Raises:
    ValueError: a batch is no whole number of episodes on every shard; another
      number of tasks.
  """
  import seqio
  import tensorflow as tf

  del num_epochs, continue_from_last_checkpoint
  if cfg.batch_size % (num_shards * size):
    raise ValueError(
      f'batch_size: expected a multiple of {num_shards} shards x episodes of '
      f'{size} examples, found {cfg.batch_size}.'
    )
  provider = seqio.get_mixture_or_task(cfg.mixture_or_task_name)
  members = getattr(provider, 'tasks', [provider])
  members = sorted(members, key=lambda task: task.name)
  if tasks not in (None, len(members)):
    raise ValueError(
      f'tasks: expected {tasks} sources, found {len(members)}: '
      f'{[t.name for t in members]}. Set TASKS to their number.'
    )
  seed = _new_seed() if cfg.seed is None else cfg.seed
  streams = []
  for number, task in enumerate(members):
    stream = task.get_dataset(
      sequence_length=cfg.task_feature_lengths,
      split=cfg.split,
      shuffle=cfg.shuffle,
      num_epochs=None,
      seed=seed,
      use_cached=cfg.use_cached,
    )
    # a task may have fewer examples than a shard or an episode: every shard
    # sees all of them, in an order of its own
    stream = stream.shuffle(
      1024, seed=zlib.crc32(f'{task.name} {shard_id} {seed}'.encode())
    )
    converted = feature_converter_cls(pack=False)(
      stream, cfg.task_feature_lengths
    )
    told = converted.map(lambda x, n=number: {**x, 'task_number': [n]})
    streams.append(told.batch(size, drop_remainder=True))
  joined = tf.data.Dataset.sample_from_datasets(
    streams, seed=seed + shard_id, rerandomize_each_iteration=True
  )
  return joined.unbatch().batch(
    cfg.batch_size // num_shards, drop_remainder=True
  )
