"""Optimisers by name: functions from a learning rate to an optax transform.

The rate is an argument and not a setting, so that it can differ between rows.
Any function of that form works, optax's own among them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

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


def behaviour(optimizer: Optimizer) -> list[float]:
  """Returns what an optimiser makes of a fixed small problem, to 3 digits.

  The name of a function does not tell which settings a configuration has
  bound to it; this does, as far as they matter in the first 20 steps.
  """
  phi = {'matrix': jnp.linspace(-1.0, 2.0, 6).reshape(2, 3), 'one': jnp.ones(1)}
  tx = optimizer(0.1)

  def step(carry, number):
    phi, state = carry
    grads = jax.tree.map(lambda p: jnp.sin(3 * p + number), phi)
    updates, state = tx.update(grads, state, phi)
    return (optax.apply_updates(phi, updates), state), None

  (phi, _), _ = jax.lax.scan(step, (phi, tx.init(phi)), jnp.arange(20.0))
  return [
    float(f'{value:.3g}')
    for leaf in jax.tree.leaves(phi)
    for value in leaf.ravel().tolist()
  ]


OPTIMIZERS: dict[str, Optimizer] = {
  'adafactor': adafactor,
  'adam': adam,
  'sgd': sgd,
}
