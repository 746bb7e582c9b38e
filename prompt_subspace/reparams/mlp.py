"""A map of two layers: what a subspace gains from being curved."""

import jax
import jax.numpy as jnp

from prompt_subspace.deltas.base import positive
from prompt_subspace.reparams.base import (
  SCALE,
  Reparam,
  check,
  check_sizes,
  entry_scale,
)


def mlp(hidden: int = 64, scale: float | None = SCALE) -> Reparam:
  """expand(c) = tanh(c V) U, without biases: a code of 0 is the origin.

  Args:
    hidden: H, width of the layer between.
    scale: of entries, for small codes; None: 1 / sqrt(M).

  Returns:
    The map; its basis is `first` [Z, H] and `second` [H, M], all trained.

  Raises:
    ValueError: a width below 1, or a scale that is not above 0.
  """
  positive('hidden', hidden)
  check(scale)

  def init(key, size, z):
    check_sizes(size, z)
    first, second = jax.random.split(key)
    return {
      'first': hidden**-0.5 * jax.random.normal(first, (z, hidden)),
      'second': entry_scale(scale, size)
      * jax.random.normal(second, (hidden, size)),
    }

  def expand(basis, code):
    return jnp.tanh(code @ basis['first']) @ basis['second']

  settings = {'hidden': hidden, 'scale': scale}
  return Reparam('mlp', init, expand, None, dict, settings)
