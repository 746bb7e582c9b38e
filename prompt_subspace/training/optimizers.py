"""Optimisers by name: functions from a learning rate to an optax transform.

The rate is an argument and not a setting, so that it can differ between rows.
Any function of that form works, optax's own among them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import positive

Rate = float | Float[Array, '']
Optimizer = Callable[[Rate], optax.GradientTransformation]


def adafactor(
  rate: Rate, weight_decay: float = 1e-5, decay: float = 0.8
) -> optax.GradientTransformation:
  """Adafactor as prompt tuning uses it: no parameter scaling, no momentum.

  Source: Shazeer and Stern 2018; settings of Lester et al. 2021 and Vu et al.
  2022 (SPoT), section 2.1: constant rate 0.3, weight decay 1e-5. As in T5X the
  decay is not multiplied by the rate: p <- (1 - decay) p - update.
  """
  return optax.adafactor(
    rate,
    decay_rate=decay,
    multiply_by_parameter_scale=False,
    weight_decay_rate=weight_decay,
  )


def adam(
  rate: Rate, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
  """Adam (Kingma and Ba 2015)."""
  return optax.adam(rate, b1=b1, b2=b2)


def sgd(rate: Rate, momentum: float = 0.0) -> optax.GradientTransformation:
  """Stochastic gradient descent."""
  return optax.sgd(rate, momentum=momentum or None)


def warmed_up(
  rate: Rate, steps: int = 2000, optimizer: Optimizer = adam
) -> optax.GradientTransformation:
  """Any optimiser, its first updates smaller: u_n <- u_n min(1, n / steps).

  n counts from 1. What an optimiser adds beside the gradient, such as weight
  decay, grows with it. Jiang et al. 2022 (IPT) have 2,000 such updates.

  Raises:
    ValueError: steps is not at least 1.
  """
  positive('warmed_up.steps', steps)
  share = lambda n: jnp.minimum(1.0, (n + 1) / steps)  # noqa: E731
  return optax.chain(optimizer(rate), optax.scale_by_schedule(share))


def behaviour(optimizer: Optimizer) -> list[float]:
  """Returns how far an optimiser goes on a fixed small problem, to 3 digits.

  The name of a function does not tell which settings a configuration has
  bound to it; this does, as far as they matter in the first 20 steps. The first
  three gradients are a hundred times the others, which tells how long they are
  remembered; large numbers without any tell what is decayed. One that works on
  a certain tree alone cannot be told so, and gives nothing.
  """
  phi = {
    'matrix': jnp.linspace(-1.0, 2.0, 6).reshape(2, 3),
    'one': jnp.ones(1),
    'still': jnp.full(1, 1e6),
  }
  tx = optimizer(0.1)

  def step(carry, number):
    phi, state = carry
    size = jnp.where(number < 3, 1.0, 0.01)
    grads = jax.tree.map(lambda p: size * jnp.sin(3 * p + number), phi)
    grads['still'] = jnp.zeros(1)
    updates, state = tx.update(grads, state, phi)
    return (optax.apply_updates(phi, updates), state), None

  try:
    (last, _), _ = jax.lax.scan(step, (phi, tx.init(phi)), jnp.arange(20.0))
  except (KeyError, TypeError, ValueError):
    return []
  moved = jax.tree.map(jnp.subtract, last, phi)
  return [
    float(f'{value:.3g}')
    for leaf in jax.tree.leaves(moved)
    for value in leaf.ravel().tolist()
  ]


OPTIMIZERS: dict[str, Optimizer] = {
  'adafactor': adafactor,
  'adam': adam,
  'sgd': sgd,
  'warmed_up': warmed_up,
}
