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
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import positive
from prompt_subspace.reparams.base import (
  SCALE,
  Reparam,
  check,
  check_sizes,
  entry_scale,
)
from prompt_subspace.reparams.permute import permute

# blocks smaller than this cost more in overhead than they save in arithmetic
LEAST = 128
# of the blocks that are expanded at once: 4 MiB of float32
CHUNK = 2**20
# Gaussian draws are rounded to this, so that another libm cannot change them
GRAIN = 2.0**-16


def hadamard_matrix(n: int) -> Float[np.ndarray, 'n n']:
  """Returns the Walsh-Hadamard matrix in Sylvester's order; n a power of 2."""
  index = np.arange(n)
  bits = index[:, None] & index[None, :]
  parity = np.zeros_like(bits)
  while bits.any():
    parity ^= bits & 1
    bits >>= 1
  return (1 - 2 * parity).astype(np.float32)


def hadamard(x: Float[Array, '*B n']) -> Float[Array, '*B n']:
  """Returns the Walsh-Hadamard transform x H of the last axis.

  H is symmetric and H H = n I. An axis of n = a b is transformed as a matrix,
  H_n = H_a (x) H_b, by two products with small matrices: on today's hardware
  that is faster than log2(n) passes of additions.

  Raises:
    ValueError: n is not a power of 2.
  """
  n = x.shape[-1]
  _check_power('x', n)
  if n <= LEAST:
    return x @ jnp.asarray(hadamard_matrix(n), x.dtype)
  first, second = n // LEAST, LEAST
  parts = x.reshape(*x.shape[:-1], first, second)
  parts = hadamard(parts)
  return hadamard(parts.swapaxes(-1, -2)).swapaxes(-1, -2).reshape(x.shape)


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
    The map. Its basis is `signs`, `order` and `inverse` [chunks, blocks, n],
    integers of as few bytes as will do, and `gauss`, float32 of that shape.
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
    signs, gauss = basis['signs'], basis['gauss']
    n = signs.shape[-1]
    padded = jnp.pad(code, (0, n - code.shape[0]))
    size = basis['size'].shape[0]
    factor = entry_scale(scale, size) / n**0.5

    def one(part):
      signs, order, inverse, gauss = part
      inner = permute(hadamard(padded * signs), order, inverse)
      return hadamard(gauss * inner * factor)

    parts = signs, basis['order'], basis['inverse'], gauss
    if signs.shape[0] == 1:
      return one(jax.tree.map(lambda x: x[0], parts)).ravel()[:size]
    return jax.lax.map(one, parts).ravel()[:size]

  def trained(basis):
    return {'gauss': basis['gauss']} if trainable else {}

  settings = {'trainable': trainable, 'block': block, 'scale': scale}
  return Reparam('fastfood', init, expand, None, trained, settings)


def _draw(key: Array, size: int, z: int, n: int) -> dict:
  """Draws the basis; blocks are chunked so that chunks are of one size."""
  del z
  seed = np.asarray(jax.random.key_data(key)).astype(np.uint64)
  blocks = -(-size // n)
  chunks = _chunks(blocks, -(-blocks * n // CHUNK))
  each = -(-blocks // chunks)
  shape = chunks, each, n
  kind = np.uint8 if n <= 2**8 else np.uint16
  held = {
    'signs': np.empty(shape, np.int8),
    'order': np.empty(shape, kind),
    'inverse': np.empty(shape, kind),
    'gauss': np.empty(shape, np.float32),
  }
  for number in range(chunks):
    raw = _raw(seed, number, 3 * each * n).reshape(3, each, n)
    order = np.argsort(raw[0], axis=-1, kind='stable')
    held['order'][number] = order
    held['inverse'][number] = np.argsort(order, axis=-1, kind='stable')
    # one bit that the permutation does not need
    held['signs'][number] = 1 - 2 * (raw[1] & 1).astype(np.int8)
    held['gauss'][number] = _gaussian(raw[1], raw[2])
  out = {name: jnp.asarray(x) for name, x in held.items()}
  # carries M, which the shapes of the others do not tell
  return {**out, 'size': jnp.zeros((size, 0), jnp.float32)}


def _chunks(blocks: int, least: int) -> int:
  """Returns in how many chunks blocks come: without a rest, if that can be.

  A rest would be expanded and cut off, which takes a copy of the whole.
  """
  whole = (c for c in range(least, 2 * least + 1) if blocks % c == 0)
  return next(whole, least)


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
