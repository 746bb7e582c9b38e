"""A linear map that is a sum of Kronecker products: dense, with few numbers.

With the code as a matrix C [z1, z2], (A (x) B) vec(C) = vec(A C B^T), so that
the map P = sum_r A_r (x) B_r of Z M numbers is never formed: it has
terms (m1 z1 + m2 z2) of them, where m1 m2 >= M and z1 z2 = Z.

Source: Zhang et al. 2021, "Beyond Fully-Connected Layers with Quaternions"
(sums of Kronecker products), for projections of codes.
"""

import math

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


def factors(z: int) -> tuple[int, int]:
  """Returns (z1, z2), z1 z2 = z, as equal as they can be, z1 <= z2."""
  first = next(d for d in range(math.isqrt(z), 0, -1) if z % d == 0)
  return first, z // first


def kronecker(terms: int = 1, scale: float | None = SCALE) -> Reparam:
  """expand(c) = the first M entries of sum_r A_r C B_r^T, row by row.

  Args:
    terms: products in the sum.
    scale: of entries; None: 1 / sqrt(M).

  Returns:
    The map; its basis is `left` [terms, m1, z1] and `right` [terms, m2, z2],
    all trained. A prime Z has z1 = 1: prefer products such as 4, 16, 100.

  Raises:
    ValueError: fewer terms than 1, or a scale that is not above 0.
  """
  positive('terms', terms)
  check(scale)

  def init(key, size, z):
    check_sizes(size, z)
    z1, z2 = factors(z)
    m1 = math.isqrt(size - 1) + 1
    m2 = -(-size // m1)
    # of the product of two draws, and of the sum of such products
    each = (entry_scale(scale, size) / terms**0.5) ** 0.5
    left, right = jax.random.split(key)
    return {
      'left': each * jax.random.normal(left, (terms, m1, z1)),
      'right': each * jax.random.normal(right, (terms, m2, z2)),
      # carries M, which the shapes of the others do not tell
      'size': jnp.zeros((size, 0), jnp.float32),
    }

  def expand(basis, code):
    left, right = basis['left'], basis['right']
    matrix = code.reshape(left.shape[2], right.shape[2])
    whole = jnp.einsum('rai,ij,rbj->ab', left, matrix, right)
    return whole.ravel()[: basis['size'].shape[0]]

  def trained(basis):
    return {n: basis[n] for n in ('left', 'right')}

  settings = {'terms': terms, 'scale': scale}
  return Reparam('kronecker', init, expand, None, trained, settings)
