"""Batches as T5X has them, turned into those of our objectives.

A batch of T5X is flat: `encoder_input_tokens` and others with a row for each
example. Objectives over episodes (`meta.objectives`) want the examples of a
task together; `data.seqio_streams.episodes` puts them side by side.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import positive
from prompt_subspace.training.algorithm import Algorithm

# The weight of the whole batch that a microbatch is a part of.
WHOLE = 'whole_batch_weight'
# Which of several tasks an example is of, [B, 1]; see `seqio_streams.episodes`.
TASK = 'task_number'


def examples(batch: Mapping[str, Array]) -> dict[str, Array]:
  """Returns `inputs` [B, L] and `targets` [B, T] of a batch of T5X.

  And `task` [B, 1], its number, where the stream of data tells it.

  Raises:
    ValueError: several examples are packed into a row: a delta for each of
      them is not defined, and a prompt would stand before the first alone.
  """
  if 'encoder_segment_ids' in batch:
    raise ValueError(
      'pack: expected False, found packed examples. Bind '
      'utils.DatasetConfig.pack = False for train and train_eval.'
    )
  names = {
    'inputs': 'encoder_input_tokens',
    'targets': 'decoder_target_tokens',
    'task': TASK,
  }
  return {n: batch[known] for n, known in names.items() if known in batch}


def episode_size(algorithm: Algorithm, shots: int) -> int:
  """Returns the examples of an episode: k support batches, one for the query.

  Args:
    algorithm: one of `meta.algorithms`, or of `unified.stages`.
    shots: examples of a support batch, and of the query batch.
  """
  positive('shots', shots)
  return shots * (_supports(algorithm) + algorithm.query)


def _supports(algorithm: Algorithm) -> int:
  """One for each inner step; what has none looks at one."""
  return algorithm.settings.get('inner_steps', 1)


def episodes(
  batch: Mapping[str, Array], algorithm: Algorithm, shots: int
) -> dict[str, dict[str, Array]]:
  """Divides examples into episodes, in their order.

  Args:
    batch: of examples; those of an episode stand side by side.
    algorithm: see `episode_size`.
    shots: see `episode_size`.

  Returns:
    {'support': leaves [E, k, shots, ...], 'query': leaves [E, shots, ...]};
    no query where the algorithm has none.

  Raises:
    ValueError: the batch is not a whole number of episodes.
  """
  size, count = episode_size(algorithm, shots), len(batch['targets'])
  if count % size:
    raise ValueError(
      f'batch_size: expected whole episodes of {size} examples (inner_steps '
      f'support batches of {shots}'
      f'{" and a query batch" * algorithm.query}) in every microbatch, '
      f'found {count} examples. Set BATCH_SIZE to a multiple.'
    )
  steps = _supports(algorithm)

  def side(x, first, last):
    return x.reshape(count // size, -1, shots, *x.shape[1:])[:, first:last]

  out = {'support': jax.tree.map(lambda x: side(x, 0, steps), dict(batch))}
  if algorithm.query:
    out['query'] = jax.tree.map(
      lambda x: side(x, steps, steps + 1)[:, 0], dict(batch)
    )
  return out


def weight(
  batch: Mapping[str, Array], algorithm: Algorithm, shots: int
) -> Float[Array, '']:
  """Returns what a batch weighs: its target tokens, or its episodes."""
  targets = batch['decoder_target_tokens']
  if algorithm.episodes:
    return jnp.asarray(len(targets) / episode_size(algorithm, shots))
  return jnp.maximum(jnp.sum(targets > 0).astype(jnp.float32), 1.0)


def with_weight(
  batch: Mapping[str, Array], algorithm: Algorithm, shots: int
) -> dict[str, Array]:
  """Adds the weight of the whole batch to each row of it.

  T5X adds up the gradients of microbatches. With loss * weight / whole weight
  in each of them, the sum is the gradient of the mean over the whole batch.
  """
  whole = weight(batch, algorithm, shots)
  count = len(batch['decoder_target_tokens'])
  return {**batch, WHOLE: jnp.broadcast_to(whole, (count,))}
