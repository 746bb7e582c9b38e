"""The Fastfood map as a JAX primitive that knows its own transposes.

Plain autodiff would turn the permutation's gather into a scatter, several
times slower, and keep what each block made: as much memory again as the
output. So the sum <flat, expand(code, gauss)>, linear in each of the three, is
what is programmed. Any two of them give the third, by a loop over chunks of
blocks whose memory does not grow with their number; the derivatives of one
such view are the other two, to every order and in both modes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

ROLES = ('code', 'gauss', 'flat')
CHUNK = 2**19  # numbers a chunk makes: some MiB, as large as caches are
LARGEST = 128  # Hadamard matrix that is multiplied by as a whole


def hadamard(x: Float[Array, '... N']) -> Float[Array, '... N']:
  """The fast Walsh-Hadamard transform of the last axis: x H.

  H [N, N] has the entries (-1)^popcount(i & j) (Sylvester's order, as
  `scipy.linalg.hadamard`); it is symmetric, and H H = N. Up to N = 128 it is
  one matmul, and beyond that one for each factor of N.

  Raises:
    ValueError: the axis is not a power of two.
  """
  n = x.shape[-1] if x.ndim else 0
  if n < 1 or n & (n - 1):
    raise ValueError(
      f'hadamard: expected a last axis of 1, 2, 4, 8 or so, found the shape '
      f'{x.shape}. Pad it with zeros.'
    )
  if n <= LARGEST:
    return _dot(x, matrix(n))
  # H of N is the Kronecker product of those of its factors
  y = x.reshape(*x.shape[:-1], n // LARGEST, LARGEST)
  y = _dot(y, matrix(LARGEST))
  return jnp.swapaxes(hadamard(jnp.swapaxes(y, -1, -2)), -1, -2).reshape(
    x.shape
  )


def matrix(n: int) -> np.ndarray:
  """Returns Sylvester's Hadamard matrix [n, n] of a power of two."""
  h = np.ones((1, 1), np.float32)
  while len(h) < n:
    h = np.block([[h, h], [h, -h]])
  return h


def apply(out: str, one: Array, other: Array, fixed: tuple, size: int) -> Array:
  """Returns the view `out` of the trilinear sum.

  Args:
    out: of code, gauss, flat.
    one, other: the two others, in this order.
    fixed: signs [K, Z], permutation [K, N] and its inverse, whole numbers.
    size: M.
  """
  dtype = jnp.result_type(one, other)
  return _view.bind(
    one.astype(dtype), other.astype(dtype), *fixed, out=out, size=size
  )


def _dot(x: Array, h: np.ndarray) -> Array:
  # a GPU would round to 10 bits
  return jnp.matmul(x, h.astype(x.dtype), precision=lax.Precision.HIGHEST)


def _up(x: Array, n: int) -> Array:
  """[c, Z] -> [c, N]: padded with zeros, then transformed."""
  if n <= LARGEST:
    return _dot(x, matrix(n)[: x.shape[-1]])
  return hadamard(jnp.pad(x, ((0, 0), (0, n - x.shape[-1]))))


def _down(x: Array, z: int) -> Array:
  """[c, N] -> [c, Z]: the transpose of `_up`."""
  n = x.shape[-1]
  return _dot(x, matrix(n)[:, :z]) if n <= LARGEST else hadamard(x)[:, :z]


def _gather(x: Array, index: Array) -> Array:
  """Returns x[i, index[i]] for every row i."""
  rows, n = x.shape
  flat = (
    index.astype(jnp.int32) + n * jnp.arange(rows, dtype=jnp.int32)[:, None]
  )
  return x.ravel().at[flat].get(mode='promise_in_bounds')


def _impl(one, other, signs, perm, inverse, *, out, size):
  """Loops over whole chunks, then does what is left; see `apply`."""
  blocks, z = signs.shape
  n = perm.shape[1]
  step = min(max(1, CHUNK // n), blocks)
  # the last block may be cut, so that it is not part of a whole chunk
  whole = size // n // step
  given = dict(zip([r for r in ROLES if r != out], (one, other), strict=True))
  shape = {'code': (z,), 'gauss': (blocks, n), 'flat': (size,)}[out]
  state = jnp.zeros(shape, one.dtype)

  def chunk(state, start, count, length):
    def rows(x):
      return lax.dynamic_slice_in_dim(x, start, count)

    sign = rows(signs).astype(one.dtype)
    index = (rows(perm), rows(inverse))
    flat = None
    if out != 'flat':
      flat = lax.dynamic_slice_in_dim(given['flat'], start * n, length)
      flat = jnp.pad(flat, (0, count * n - length)).reshape(count, n)
      flat = hadamard(flat)
    if out == 'code':
      middle = _gather(rows(given['gauss']) * flat, index[1])
      return state + (_down(middle, z) * sign).sum(0)
    middle = _gather(_up(sign * given['code'], n), index[0])
    if out == 'gauss':
      return lax.dynamic_update_slice(state, middle * flat, (start, 0))
    made = hadamard(middle * rows(given['gauss'])).ravel()[:length]
    return lax.dynamic_update_slice(state, made, (start * n,))

  if whole:
    state = lax.fori_loop(
      0, whole, lambda i, s: chunk(s, i * step, step, step * n), state
    )
  if left := blocks - whole * step:
    start = whole * step
    state = chunk(state, start, left, size - start * n)
  return state


def _abstract(one, other, signs, perm, inverse, *, out, size):
  del other, inverse
  shapes = {'code': signs.shape[1:], 'gauss': perm.shape, 'flat': (size,)}
  return one.update(shape=shapes[out], weak_type=False)


def _jvp(primals, tangents, *, out, size):
  one, other, *fixed = primals
  bind = partial(_view.bind, out=out, size=size)
  value = bind(one, other, *fixed)
  terms = []
  if type(tangents[0]) is not ad.Zero:
    terms.append(bind(tangents[0], other, *fixed))
  if type(tangents[1]) is not ad.Zero:
    terms.append(bind(one, tangents[1], *fixed))
  if not terms:
    return value, ad.Zero.from_primal_value(value)
  return value, terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _transpose(ct, one, other, *fixed, out, size):
  given = [r for r in ROLES if r != out]
  values = dict(zip(given, (one, other), strict=True))
  (asked,) = (r for r in given if ad.is_undefined_primal(values[r]))
  if type(ct) is ad.Zero:
    grad = ad.Zero(values[asked].aval)
  else:
    values[out] = ct
    rest = [values[r] for r in ROLES if r != asked]
    grad = _view.bind(*rest, *fixed, out=asked, size=size)
  return [grad if r == asked else None for r in given] + [None] * len(fixed)


def _batch(args, dims, *, out, size):
  """One after the other: memory stays that of one, also in the transpose."""
  moving = [i for i, d in enumerate(dims) if d is not None]
  moved = [jnp.moveaxis(args[i], dims[i], 0) for i in moving]

  def single(parts):
    full = list(args)
    for i, part in zip(moving, parts, strict=True):
      full[i] = part
    return _view.bind(*full, out=out, size=size)

  return lax.map(single, moved), 0


_view = Primitive('fastfood')
_view.def_impl(jax.jit(_impl, static_argnames=('out', 'size')))
_view.def_abstract_eval(_abstract)
mlir.register_lowering(_view, mlir.lower_fun(_impl, multiple_results=False))
ad.primitive_jvps[_view] = _jvp
ad.primitive_transposes[_view] = _transpose
batching.primitive_batchers[_view] = _batch
