"""MAML, FoMAML, Reptile and multi-task learning as objectives.

Qin et al. 2023 (MPT), section 3. L(phi, B) is the task loss on a batch; each
episode has a support batch S and a query batch Q of one task. Every function
here turns the task's objective into one over episodes, which the same training
as for every other objective advances.

- MAML (Finn et al. 2017): L(phi_k, Q) with phi_k the result of k inner steps on
  S, differentiated through them exactly.
- FoMAML: the same, the inner gradients taken as constants; so its gradient is
  that of L at phi_k.
- Reptile (Nichol et al. 2018): the gradient is phi - phi_k, the inner steps
  are on the task's own batches.
- MTL: L(phi, S and Q together).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import check_names, positive
from prompt_subspace.objectives import Objective

MODES = ('forward over reverse', 'reverse over reverse')


def maml(
  objective: Objective,
  inner: optax.GradientTransformation,
  steps: int = 1,
  mode: str = 'forward over reverse',
) -> Objective:
  """Second-order MAML; the mean over the episodes of a batch.

  Args:
    objective: the task loss (phi, batch, key) -> (loss, metrics).
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

  Returns:
    An objective on batches {'support': b, 'query': b} whose leaves have
    leading axes [episodes, examples]. Support leaves may have one more axis in
    the second place, [episodes, steps, examples], a batch for each inner step.
    Metrics: `weight`, the number of episodes; `support_loss` before the inner
    steps, and `displacement`, |phi_k - phi|.

  Raises:
    ValueError: an unknown mode, or no steps.
  """
  check_names('mode', (mode,), MODES)
  gradient = _gradient(objective, mode == MODES[0])
  return _adapted(objective, gradient, inner, steps)


def fomaml(
  objective: Objective, inner: optax.GradientTransformation, steps: int = 1
) -> Objective:
  """First-order MAML: `maml` with inner gradients that are constants."""

  def gradient(phi, batch, key):
    return jax.lax.stop_gradient(_plain_gradient(objective, phi, batch, key))

  return _adapted(objective, gradient, inner, steps)


def reptile(
  objective: Objective, inner: optax.GradientTransformation, steps: int = 1
) -> Objective:
  """Reptile: its gradient is phi - phi_k, the mean over episodes.

  The value is 1/2 |phi - phi_k|^2 with phi_k a constant, whose gradient that
  is. Batches have only `support`; see `maml` for their axes and the metrics.
  """
  positive('steps', steps)

  def gradient(phi, batch, key):
    return _plain_gradient(objective, phi, batch, key)

  def one(phi, batch, key):
    first, last = _inner(gradient, inner, steps, phi, batch['support'], key)
    constant = jax.lax.stop_gradient(last)
    loss = 0.5 * optax.tree.norm(
      jax.tree.map(jnp.subtract, phi, constant), squared=True
    )
    return loss, _metrics(first, phi, constant)

  return _over_episodes(one)


def multitask(objective: Objective) -> Objective:
  """Plain training on support and query together, task by task.

  The loss is the mean over episodes, so that every task weighs the same.
  """

  def one(phi, batch, key):
    both = jax.tree.map(
      lambda *xs: jnp.concatenate(xs), batch['support'], batch['query']
    )
    return objective(phi, both, key)[0], {}

  return _over_episodes(one)


def _adapted(objective, gradient, inner, steps) -> Objective:
  """The query loss after inner steps along a gradient."""
  positive('steps', steps)

  def one(phi, batch, key):
    keys = jax.random.split(key)
    first, last = _inner(gradient, inner, steps, phi, batch['support'], keys[0])
    loss = objective(last, batch['query'], keys[1])[0]
    return loss, _metrics(first, phi, last)

  return _over_episodes(one)


def _over_episodes(one: Callable) -> Objective:
  """The mean of an episode's loss and metrics over those of a batch."""

  def run(phi, batch, key):
    count = jax.tree.leaves(batch)[0].shape[0]
    keys = jax.random.split(key, count)
    loss, metrics = jax.vmap(one, in_axes=(None, 0, 0))(phi, batch, keys)
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
  each = jax.tree.leaves(support)[0].ndim > 2

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


def _plain_gradient(objective, phi, batch, key):
  run = jax.value_and_grad(objective, has_aux=True)
  (loss, _), grads = run(phi, batch, key)
  return loss, grads


def _gradient(objective: Objective, forward_over_reverse: bool) -> Callable:
  """Returns (phi, batch, key) -> (loss, gradient), to be differentiated."""

  def plain(phi, batch, key):
    return _plain_gradient(objective, phi, batch, key)

  if not forward_over_reverse:
    return plain
  mixed = jax.custom_vjp(plain)

  def forward(phi, batch, key):
    return plain(phi, batch, key), (phi, batch, key)

  def backward(kept, cotangents):
    phi, batch, key = kept
    of_loss, direction = cotangents
    (_, grads), (_, curved) = jax.jvp(
      lambda p: plain(p, batch, key), (phi,), (direction,)
    )
    pulled = jax.tree.map(lambda h, g: h + of_loss * g, curved, grads)
    return pulled, None, None

  mixed.defvjp(forward, backward)
  return mixed
