"""Adapter: a trained bottleneck behind each sublayer.

Source: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP";
SiLU and no biases as in Yi et al. 2022 (UDT), appendix B.
"""

import jax
import jax.numpy as jnp

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  Method,
  attention_sites,
  check_names,
  check_where,
  positive,
  stacks,
)

SUBLAYERS = ('self', 'cross', 'mlp')


def adapter(
  rank: int = 12,
  sublayers: tuple[str, ...] = SUBLAYERS,
  where: tuple[str, ...] = ('encoder', 'decoder'),
) -> Method:
  """y + SiLU(y W_down) W_up on the output y of every selected sublayer.

  `W_down` is drawn with standard deviation 1 / sqrt(D), `W_up` starts at 0,
  so that training starts from the plain backbone.

  Args:
    rank: R, width of the bottleneck.
    sublayers: of `self`, `cross`, `mlp`.
    where: of `encoder`, `decoder`.

  Returns:
    The method; phi has `adapter_down` [D, R] and `adapter_up` [R, D] at each
    site.

  Raises:
    ValueError: an unknown name, or nothing selected.
  """
  positive('rank', rank)
  check_where(where)
  check_names('sublayers', sublayers, SUBLAYERS)
  if not sublayers:
    raise ValueError(
      f'sublayers: expected at least one of {SUBLAYERS}, found none.'
    )

  def init(key, setting):
    width = setting.config.emb_dim
    phi = {}
    for i, site in enumerate(_sites(setting.config)):
      draw = jax.random.normal(jax.random.fold_in(key, i), (width, rank))
      phi[f'{site}/adapter_down'] = draw / width**0.5
      phi[f'{site}/adapter_up'] = jnp.zeros((rank, width), jnp.float32)
    return trees.unflatten(phi)

  def _sites(config):
    kinds = tuple(s for s in sublayers if s != 'mlp')
    found = attention_sites(config, kinds, where) if kinds else []
    if 'mlp' in sublayers:
      found += [
        f'{stack}/layers_{i}/mlp'
        for stack, layers in stacks(config).items()
        if stack in where
        for i in range(layers)
      ]
    return found

  def expand(phi, batch=None):
    del batch
    return phi

  settings = {
    'rank': rank,
    'sublayers': list(sublayers),
    'where': list(where),
  }
  return Method('adapter', init, expand, settings=settings)
