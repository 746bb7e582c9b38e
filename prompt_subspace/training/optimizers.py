"""Optimisers by name: functions from a learning rate to an optax transform.

The rate is an argument and not a setting, so that it can differ between rows.
Any function of that form works, optax's own among them.
"""

from collections.abc import Callable

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


OPTIMIZERS: dict[str, Optimizer] = {
  'adafactor': adafactor,
  'adam': adam,
  'sgd': sgd,
}
