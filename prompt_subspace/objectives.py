"""Objectives: pure functions (phi, batch, key) -> (loss, metrics)."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_subspace import trees

Batch = Mapping[str, Array]
Metrics = dict[str, Array]
Objective = Callable[[Any, Batch, Array], tuple[Array, Metrics]]


def shift_right(targets: Int[Array, 'B T']) -> Int[Array, 'B T']:
  """Returns the decoder's input: a start token 0, then all but the last."""
  return jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))


def token_log_likelihood(
  logits: Float[Array, '*S V'], targets: Int[Array, '*S']
) -> Float[Array, '*S']:
  """Returns log softmax(logits)[target] in float32; 0 where target is 0."""
  logits = trees.precise(logits)
  chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
  value = chosen - jax.nn.logsumexp(logits, axis=-1)
  return jnp.where(targets > 0, value, 0.0)


def cross_entropy(
  logits: Float[Array, 'B T V'], targets: Int[Array, 'B T']
) -> tuple[Float[Array, ''], Float[Array, '']]:
  """Returns the mean loss in nats over tokens that are not padding (0).

  loss = - sum log p(target) / number of target tokens

  Returns:
    (loss, number of target tokens); the loss of no tokens is 0.
  """
  weight = jnp.sum(targets > 0).astype(jnp.float32)
  total = -jnp.sum(token_log_likelihood(logits, targets))
  return total / jnp.maximum(weight, 1.0), weight


def task_loss(
  forward: Callable[[Any, Batch, Array], Array],
  expand: Callable[[Any, Batch], Any],
) -> Objective:
  """Returns the objective of plain tuning: token cross-entropy.

  Args:
    forward: (delta, batch, key) -> logits [B, T, V].
    expand: the method's map (phi, batch) -> delta.

  Returns:
    An objective; its metrics hold `weight`, the number of target tokens, by
    which microbatches are averaged.
  """

  def objective(phi, batch, key):
    logits = forward(expand(phi, batch), batch, key)
    loss, weight = cross_entropy(logits, batch['targets'])
    return loss, {'weight': weight}

  return objective
