"""Prefix: trained keys and values before those of an attention.

Source: Li and Liang 2021, "Prefix-Tuning". With an MLP, the keys and values of
all layers of a stack are made from one table, as in Yi et al. 2022 (UDT),
appendix B.
"""

import jax
import jax.numpy as jnp

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  ATTENTIONS,
  Method,
  attention_sites,
  check_where,
  positive,
)


def prefix(
  length: int = 20,
  hidden: int | None = 24,
  attentions: tuple[str, ...] = ('self',),
  where: tuple[str, ...] = ('encoder', 'decoder'),
  scale: float = 0.02,
) -> Method:
  """Keys and values [P, H K] at each of the n selected attentions of a stack.

  With an MLP: tanh(table W_down) W_up, reshaped to n pairs of keys, values.

  Args:
    length: P, prefix keys at each attention.
    hidden: d, width of the MLP; None trains keys and values directly (flat).
    attentions: of `self`, `cross`.
    where: of `encoder`, `decoder`; `decoder` alone leaves the encoder
      untouched, so that its output can be computed once per example.
    scale: standard deviation of the flat draw. The MLP's matrices have
      standard deviation 1 / sqrt(fan-in), its table 1.

  Returns:
    The method; for each stack phi holds `table` [P, D], `down` [D, d] and
    `up` [d, n, 2, H K], or, flat, `pairs` [n, 2, P, H K].

  Raises:
    ValueError: an argument is out of range or selects no attention.
  """
  positive('length', length)
  check_where(where)
  if hidden is not None:
    positive('hidden', hidden)

  def init(key, setting):
    config = setting.config
    sites = attention_sites(config, attentions, where)
    joined = config.num_heads * config.head_dim
    phi = {}
    for number, stack in enumerate(ATTENTIONS):
      count = sum(site.startswith(f'{stack}/') for site in sites)
      if not count:
        continue
      keys = jax.random.split(jax.random.fold_in(key, number), 3)
      if hidden is None:
        shape = (count, 2, length, joined)
        phi[stack] = {'pairs': scale * jax.random.normal(keys[0], shape)}
        continue
      width = config.emb_dim
      shape = (hidden, count, 2, joined)
      phi[stack] = {
        'table': jax.random.normal(keys[0], (length, width)),
        'down': jax.random.normal(keys[1], (width, hidden)) / width**0.5,
        'up': jax.random.normal(keys[2], shape) / hidden**0.5,
      }
    return phi

  def expand(phi, batch=None):
    del batch
    delta = {}
    for stack, part in phi.items():
      kinds = [name for k, name in ATTENTIONS[stack].items() if k in attentions]
      for i, (key, value) in enumerate(_pairs(part)):
        site = f'{stack}/layers_{i // len(kinds)}/{kinds[i % len(kinds)]}'
        delta[f'{site}/prefix_key'] = key
        delta[f'{site}/prefix_value'] = value
    return trees.unflatten(delta)

  settings = {
    'length': length,
    'hidden': hidden,
    'attentions': list(attentions),
    'where': list(where),
    'scale': scale,
  }
  starting = ('scale',)
  return Method('prefix', init, expand, settings=settings, starting=starting)


def _pairs(part):
  """Returns keys and values [n, 2, P, H K] from the trained arrays."""
  if 'pairs' in part:
    return part['pairs']
  hidden = jnp.tanh(part['table'] @ part['down'])
  return jnp.einsum('ph,hnkj->nkpj', hidden, part['up'])
