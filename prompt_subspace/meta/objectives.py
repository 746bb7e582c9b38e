"""MAML, FoMAML and Reptile as objectives, in little memory.

Qin et al. 2023 (MPT), section 3. L(phi, B) is the task loss on a batch; each
episode has a support batch S and a query batch Q of one task. Every function
here turns the task's objective into one over episodes, which the same training
as for every other objective advances.

- MAML (Finn et al. 2017): L(phi_k, Q) with phi_k the result of k inner steps on
  S, differentiated through them exactly.
- FoMAML: the same value; its gradient is that of L at phi_k.
- Reptile (Nichol et al. 2018): the gradient is phi - phi_k, the inner steps
  are on the task's own batches.

What a second-order step keeps between its parts is of phi's size. No inner
step keeps its activations, as the Hessian-vector product computes them again;
nor does the query loss, which leaves its gradient behind; and within each of
them, batches go through the backbone a few examples at a time.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import check_names, positive
from prompt_subspace.objectives import Objective
from prompt_subspace.training import rows
from prompt_subspace.training.algorithm import Split

MODES = ('forward over reverse', 'reverse over reverse')


def maml(
  objective: Objective,
  inner: optax.GradientTransformation,
  steps: int = 1,
  mode: str = 'forward over reverse',
  *,
  split: Split | None = None,
) -> Objective:
  """Second-order MAML; the mean over the episodes of a batch.

  Args:
    objective: the task loss (phi, batch, key) -> (loss, metrics). Its metrics
      hold `weight`, by which microbatches are averaged.
    inner: of the inner steps, for instance optax.sgd(3e-5). One that takes the
      root of a second moment needs an epsilon inside it to be differentiable
      (optax.adam(..., eps_root=1e-8)).
    steps: k, inner steps. What is kept for the outer gradient grows by k copies
      of phi and of the inner optimiser's state alone: the rest is computed
      again.
    mode: how the Hessian-vector products of the inner gradients are computed.
      The Hessian is symmetric, so that the pull-back of v through the gradient
      is H v, a derivative of the gradient along v: `forward over reverse`
      computes that, and keeps less than `reverse over reverse`, the transpose
      of the gradient's own program. Both are exact.
    split: examples of a batch -> how many of them are in flight at once, a
      divisor of their number, for instance training.rows.microbatch_size; None
      runs batches whole. It changes memory, and what the key draws, alone.

  Returns:
    An objective on batches {'support': b, 'query': b} whose leaves have
    leading axes [episodes, examples]. Support leaves may have one more axis in
    the second place, [episodes, steps, examples], a batch for each inner step.
    Metrics: `weight`, the number of episodes; `support_loss` before the inner
    steps, and `displacement`, |phi_k - phi|.

  Raises:
    ValueError: an unknown mode, or no steps; in the call, a split that does not
      divide a batch.
  """
  check_names('mode', (mode,), MODES)
  gradient = _gradient(objective, split)
  if mode == MODES[0]:
    gradient = _by_rule(_forward_over_reverse, gradient)

  def adapt(phi, support, key):
    return _inner(gradient, inner, steps, phi, support, key)

  return _adapted(objective, adapt, steps, split)


def fomaml(
  objective: Objective,
  inner: optax.GradientTransformation,
  steps: int = 1,
  *,
  split: Split | None = None,
) -> Objective:
  """First-order MAML: `maml` with phi_k - phi taken as a constant."""
  gradient = _gradient(objective, split)

  def adapt(phi, support, key):
    still = jax.lax.stop_gradient(phi)
    first, last = _inner(gradient, inner, steps, still, support, key)
    # phi_k to the last bit, with the derivative of phi
    return first, jax.tree.map(lambda x, p, s: x + (p - s), last, phi, still)

  return _adapted(objective, adapt, steps, split)


def reptile(
  objective: Objective,
  inner: optax.GradientTransformation,
  steps: int = 1,
  *,
  split: Split | None = None,
) -> Objective:
  """Reptile: its gradient is phi - phi_k, the mean over episodes.

  The value is 1/2 |phi - phi_k|^2 with phi_k a constant, whose gradient that
  is. Batches have only `support`; see `maml` for the rest.
  """
  positive('steps', steps)
  gradient = _gradient(objective, split)

  def one(phi, batch, key):
    still = jax.lax.stop_gradient(phi)
    first, last = _inner(gradient, inner, steps, still, batch['support'], key)
    way = jax.tree.map(jnp.subtract, phi, last)
    loss = 0.5 * optax.tree.norm(way, squared=True)
    return loss, _metrics(first, phi, last)

  return _over_episodes(one)


def _adapted(objective, adapt, steps, split) -> Objective:
  """The query loss at phi_k; adapt: (phi, support, key) -> (loss, phi_k)."""
  positive('steps', steps)
  query_loss = _by_rule(_holding_gradient, _gradient(objective, split))

  def one(phi, batch, key):
    keys = jax.random.split(key)
    first, last = adapt(phi, batch['support'], keys[0])
    loss = query_loss(last, batch['query'], keys[1])
    return loss, _metrics(first, phi, last)

  return _over_episodes(one)


def _over_episodes(one: Callable) -> Objective:
  """The mean of an episode's loss and metrics over those of a batch."""

  def run(phi, batch, key):
    count = jax.tree.leaves(batch)[0].shape[0]
    loss, metrics = rows.map_rows(
      lambda episode: one(phi, *episode),
      (batch, jax.random.split(key, count)),
    )
    means = {name: jnp.mean(x) for name, x in metrics.items()}
    weight = jnp.asarray(count, jnp.float32)
    return jnp.mean(loss), {**means, 'weight': weight}

  return run


def _metrics(first, phi, last) -> dict[str, Float[Array, '']]:
  moved = optax.tree.norm(jax.tree.map(jnp.subtract, last, phi))
  out = {'support_loss': first, 'displacement': moved}
  return jax.tree.map(jax.lax.stop_gradient, out)


def _inner(
  gradient: Callable,
  inner: optax.GradientTransformation,
  steps: int,
  phi: Any,
  support: Mapping[str, Array],
  key: Array,
):
  """Returns the support loss before the steps, and phi after them.

  A support batch [examples, ...] serves all steps; [steps, examples, ...] has
  one for each.
  """
  each = support['targets'].ndim > 2

  # computed again in the backward pass: only phi and the state are kept
  @jax.checkpoint
  def step(carry, number):
    phi, state = carry
    batch = jax.tree.map(lambda x: x[number], support) if each else support
    loss, grads = gradient(phi, batch, jax.random.fold_in(key, number))
    updates, state = inner.update(grads, state, phi)
    return (optax.apply_updates(phi, updates), state), loss

  carry = (phi, inner.init(phi))
  (phi, _), losses = jax.lax.scan(step, carry, jnp.arange(steps))
  return losses[0], phi


def _gradient(objective: Objective, split: Split | None) -> Callable:
  """Returns (phi, batch, key) -> (loss, gradient), by microbatches."""

  def run(phi, batch, key):
    size = None if split is None else split(batch)
    loss, _, grads = rows.value_and_grad(objective, phi, batch, key, size)
    return loss, grads

  return run


def _by_rule(rule: Callable, gradient: Callable) -> Callable:
  """Gives a gradient function one of the derivatives below.

  The frozen weights become arguments: a derivative of one's own may not refer
  to traced arrays around it where it is used within a loop.
  """

  def run(phi, batch, key):
    pure, weights = jax.closure_convert(gradient, phi, batch, key)
    return rule(pure, phi, (batch, key, *weights))

  return run


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _forward_over_reverse(gradient, phi, others):
  """(loss, gradient), pulled back by their derivative along the cotangent."""
  return gradient(phi, *others)


def _run(gradient, phi, others):
  return gradient(phi, *others), (phi, others)


def _curve(gradient, kept, cotangents):
  phi, others = kept
  of_loss, direction = cotangents
  (_, grads), (_, curved) = jax.jvp(
    lambda p: gradient(p, *others), (phi,), (direction,)
  )
  return jax.tree.map(lambda h, g: h + of_loss * g, curved, grads), None


_forward_over_reverse.defvjp(_run, _curve)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _holding_gradient(gradient, phi, others):
  """The loss, which keeps its gradient alone.

  Computed beside the loss, it is all that the backward pass needs: the
  activations are gone by the time that the inner steps have theirs.
  """
  return gradient(phi, *others)[0]


def _hold(gradient, phi, others):
  return gradient(phi, *others)


def _scale(gradient, grads, of_loss):
  return jax.tree.map(lambda g: of_loss * g, grads), None


_holding_gradient.defvjp(_hold, _scale)
