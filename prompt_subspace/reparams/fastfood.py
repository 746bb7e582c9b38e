"""Fastfood: a random linear map that is stored and applied in O(M).

P = H G Pi H B in blocks of n: random signs B, a Walsh-Hadamard transform, a
random permutation Pi, Gaussian factors G, and the transform again. Each block
takes the whole code, padded with zeros to n; blocks are stacked until there are
M rows.

Source: Le, Sarlos and Smola 2013, "Fastfood: Approximating Kernel Expansions in
Loglinear Time"; Aghajanyan et al. 2021 (as the map of a subspace); Yi et al.
2022 (UDT), section 5.3 (with G trained).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from prompt_subspace.deltas.base import positive
from prompt_subspace.reparams.base import (
  SCALE,
  Reparam,
  check,
  check_sizes,
  entry_scale,
)
from prompt_subspace.reparams.trilinear import apply, hadamard

__all__ = ['fastfood', 'hadamard']

# blocks smaller than this cost more in overhead than they save in arithmetic
LEAST = 128
# blocks that are drawn at once: 8 MiB of 64-bit numbers
DRAWN = 2**20
# Gaussian draws are rounded to this, so that another libm cannot change them
GRAIN = 2.0**-16


def fastfood(
  trainable: bool = True,
  block: int | None = None,
  scale: float | None = SCALE,
) -> Reparam:
  """expand(c) = scale / sqrt(n) H G Pi H B c, block by block.

  Args:
    trainable: whether training may change G.
    block: n, a power of 2 that is not below Z; None takes the smallest from
      128 on.
    scale: of entries; None: 1 / sqrt(M).

  Returns:
    The map. Its basis is `signs` [K, Z], `order` and `inverse` [K, n],
    integers of as few bytes as will do, and `gauss` [K, n], float32, for
    K = ceil(M / n) blocks.
    Draws come from the raw numbers of a counter-based generator (Philox), by
    arithmetic that is ours, so that a seed gives the same map with every
    version of every library.

  Raises:
    ValueError: a block that is no power of 2 or, when the basis is drawn, below
      Z; a scale that is not above 0.
  """
  check(scale)
  if block is not None:
    _check_power('block', block)

  def init(key, size, z):
    check_sizes(size, z)
    n = block or max(LEAST, 1 << (z - 1).bit_length())
    if z > n:
      raise ValueError(
        f'block: expected a power of 2 that is not below z = {z}, found {n}. '
        'Leave it out to have one chosen.'
      )
    return _draw(key, size, z, n)

  def expand(basis, code):
    size = basis['size'].shape[0]
    # scaled here, where there are Z numbers and not M
    factor = entry_scale(scale, size) / basis['gauss'].shape[1] ** 0.5
    fixed = basis['signs'], basis['order'], basis['inverse']
    return apply('flat', factor * code, basis['gauss'], fixed, size)

  def trained(basis):
    return {'gauss': basis['gauss']} if trainable else {}

  settings = {'trainable': trainable, 'block': block, 'scale': scale}
  return Reparam('fastfood', init, expand, None, trained, settings)


def _draw(key: Array, size: int, z: int, n: int) -> dict:
  """Draws the basis, so many blocks at once."""
  seed = np.asarray(jax.random.key_data(key)).astype(np.uint64)
  blocks = -(-size // n)
  each = max(1, DRAWN // n)
  kind = np.min_scalar_type(n - 1)
  held = {
    'signs': np.empty((blocks, z), np.int8),
    'order': np.empty((blocks, n), kind),
    'inverse': np.empty((blocks, n), kind),
    'gauss': np.empty((blocks, n), np.float32),
  }
  for first in range(0, blocks, each):
    part = slice(first, min(first + each, blocks))
    count = part.stop - first
    raw = _raw(seed, first, 3 * count * n).reshape(3, count, n)
    order = np.argsort(raw[0], axis=-1, kind='stable')
    held['order'][part] = order
    held['inverse'][part] = np.argsort(order, axis=-1, kind='stable')
    # one bit that the Gaussian draws leave over
    held['signs'][part] = 1 - 2 * (raw[1, :, :z] & 1).astype(np.int8)
    held['gauss'][part] = _gaussian(raw[1], raw[2])
  out = {name: jnp.asarray(x) for name, x in held.items()}
  # carries M, which the shapes of the others do not tell
  return {**out, 'size': jnp.zeros((size, 0), jnp.float32)}


def _raw(seed: np.ndarray, stream: int, count: int) -> np.ndarray:
  """Returns random 64-bit numbers of a stream."""
  key = int(seed[-1]) | int(seed[0]) << 32
  counter = np.array([0, 0, 0, stream], np.uint64)
  return np.random.Philox(key=key, counter=counter).random_raw(count)


def _gaussian(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns N(0, 1) numbers by Box and Muller, on a grid of `GRAIN`."""
  # 52 bits each, in (0, 1); the lowest bits are left to the signs
  u, v = (((x >> np.uint64(12)) + 0.5) * 2.0**-52 for x in (first, second))
  drawn = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
  return (np.round(drawn / GRAIN) * GRAIN).astype(np.float32)


def _check_power(argument: str, n: int) -> None:
  positive(argument, n)
  if n & (n - 1):
    raise ValueError(f'{argument}: expected a power of 2, found {n}.')
