"""LoRA: a trained low-rank term at chosen projections.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

import jax
import jax.numpy as jnp

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  Method,
  attention_sites,
  check_names,
  check_where,
  flat_weights,
  positive,
  stacks,
)

PROJECTIONS = ('query', 'key', 'value', 'out', 'mlp')


def lora(
  rank: int = 8,
  scale: float = 1.6,
  projections: tuple[str, ...] = ('query', 'value'),
  attentions: tuple[str, ...] = ('self', 'cross'),
  where: tuple[str, ...] = ('encoder', 'decoder'),
) -> Method:
  """x W + scale (x a) b at every selected projection.

  `a` is drawn with standard deviation 1 / sqrt(fan-in), `b` starts at 0, so
  that training starts from the plain backbone.

  Args:
    rank: R.
    scale: factor of the low-rank term (alpha / R in Hu et al.).
    projections: of `query`, `key`, `value`, `out` (of the attentions), `mlp`
      (all matrices of the feed-forward blocks).
    attentions: of `self`, `cross`.
    where: of `encoder`, `decoder`.

  Returns:
    The method; phi has `lora_a` [I, R] and `lora_b` [R, O] at each site.

  Raises:
    ValueError: an unknown name, or nothing selected.
  """
  positive('rank', rank)
  check_where(where)
  check_names('projections', projections, PROJECTIONS)
  if not projections:
    raise ValueError(
      f'projections: expected at least one of {PROJECTIONS}, found none.'
    )

  def init(key, setting):
    weights = flat_weights(setting)
    phi = {}
    for i, site in enumerate(_sites(setting.config)):
      fan_in, fan_out = weights[f'{site}/kernel'].shape
      draw = jax.random.normal(jax.random.fold_in(key, i), (fan_in, rank))
      phi[f'{site}/lora_a'] = draw / fan_in**0.5
      phi[f'{site}/lora_b'] = jnp.zeros((rank, fan_out), jnp.float32)
    return trees.unflatten(phi)

  def _sites(config):
    heads = [p for p in projections if p != 'mlp']
    found = []
    if heads:
      for attention in attention_sites(config, attentions, where):
        found += [f'{attention}/{p}' for p in heads]
    if 'mlp' in projections:
      gates = len(config.mlp_activations)
      inner = ['wi'] if gates == 1 else [f'wi_{i}' for i in range(gates)]
      for stack, layers in stacks(config).items():
        if stack in where:
          for i in range(layers):
            found += [f'{stack}/layers_{i}/mlp/{n}' for n in (*inner, 'wo')]
    return found

  def expand(phi, batch=None):
    del batch
    flat = trees.flatten(phi)
    return trees.unflatten(
      {p: scale * x if p.endswith('lora_b') else x for p, x in flat.items()}
    )

  settings = {
    'rank': rank,
    'scale': scale,
    'projections': list(projections),
    'attentions': list(attentions),
    'where': list(where),
  }
  return Method('lora', init, expand, settings=settings)
