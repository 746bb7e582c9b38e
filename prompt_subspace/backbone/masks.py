"""Masks of attention: what may see what. True where a key is visible."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def grow(
  mask: Bool[Array, '... Q K'], count: int, keys: bool
) -> Bool[Array, '... Q2 K2']:
  """Adds `count` positions that all may see (keys) or that see all."""
  if not count:
    return mask
  widths = [(0, 0)] * (mask.ndim - 2)
  widths += [(0, 0), (count, 0)] if keys else [(count, 0), (0, 0)]
  return jnp.pad(mask, widths, constant_values=True)


def causal(length: int) -> Bool[Array, '1 1 T T']:
  """Every position sees itself and what is before it."""
  steps = jnp.arange(length)
  return (steps[:, None] >= steps[None, :])[None, None]


def same_segment(
  queries: Int[Array, 'B Q'], keys: Int[Array, 'B K']
) -> Bool[Array, 'B 1 Q K']:
  """Packed examples see only themselves."""
  return (queries[:, None, :, None] == keys[:, None, None, :]).astype(bool)
