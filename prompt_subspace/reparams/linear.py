"""Dense linear maps, up and maybe down.

Source: Li et al. 2018 (random and fixed); Yi et al. 2022 (UDT), section 3.1
(trained, with a down-projection), where nothing has a bias.
"""

import jax
import jax.numpy as jnp

from prompt_subspace.reparams.base import (
  SCALE,
  Reparam,
  check,
  check_sizes,
  entry_scale,
)

DOWN = 0.02  # standard deviation of the down-projection at the start


def linear(
  down: bool = True, bias: bool = False, scale: float | None = SCALE
) -> Reparam:
  """expand(c) = c U; compress(x) = tanh(x D) E.

  Args:
    down: whether there is a down-projection.
    bias: tanh(x D + d) E + e instead, as in the paper's released code.
    scale: standard deviation of U at the start; None: 1 / sqrt(M).

  Returns:
    The map; its basis is `up` [Z, M] and, with `down`, `down` [M, Z] and `mix`
    [Z, Z], drawn with deviation 0.02, and, with `bias`, `down_bias` and
    `mix_bias` [Z], 0 at the start. All of it may be trained.

  Raises:
    ValueError: a bias without a down-projection, or a scale that is not above
      0.
  """
  check(scale)
  if bias and not down:
    raise ValueError(
      'bias: expected it with down=True, whose projection it belongs to.'
    )

  def init(key, size, z):
    check_sizes(size, z)
    keys = jax.random.split(key, 3)
    basis = {
      'up': entry_scale(scale, size) * jax.random.normal(keys[0], (z, size))
    }
    if down:
      basis['down'] = DOWN * jax.random.normal(keys[1], (size, z))
      basis['mix'] = DOWN * jax.random.normal(keys[2], (z, z))
    if bias:
      basis |= {n: jnp.zeros((z,)) for n in ('down_bias', 'mix_bias')}
    return basis

  def compress(basis, flat):
    hidden = flat @ basis['down'] + basis.get('down_bias', 0.0)
    return jnp.tanh(hidden) @ basis['mix'] + basis.get('mix_bias', 0.0)

  return Reparam(
    'linear',
    init,
    lambda basis, code: code @ basis['up'],
    compress if down else None,
    dict,
    {'down': down, 'bias': bias, 'scale': scale},
  )
