"""Permutations whose transpose is a gather, as a primitive of JAX.

The transpose of a gather is a scatter, which is slow on a CPU; that of a
permutation is the gather by its inverse. JAX cannot know that, and neither of
its ways to tell it serves here: a `custom_vjp` has no forward mode, which exact
second-order MAML needs, and `linear_call` cannot be batched.
"""

import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int


def permute(
  x: Float[Array, '*B A n'],
  order: Int[Array, 'A n'],
  inverse: Int[Array, 'A n'],
) -> Float[Array, '*B A n']:
  """Returns y with y[..., a, i] = x[..., a, order[a, i]].

  Args:
    x: values; axes before the last two are a batch.
    order: a permutation of 0 .. n - 1 in each row.
    inverse: inverse[a, order[a, i]] = i.
  """
  return _permute.bind(x, order, inverse)


def _gather(x, order, inverse):
  del inverse
  rows, n = order.shape
  # over one flat axis it takes half of the time that it takes over two
  first = n * jnp.arange(rows, dtype=jnp.int32)[:, None]
  index = (order.astype(jnp.int32) + first).ravel()
  flat = x.reshape(*x.shape[:-2], rows * n)
  taken = flat.at[..., index].get(mode='promise_in_bounds', unique_indices=True)
  return taken.reshape(x.shape)


def _tangent(primals, tangents):
  x, order, inverse = primals
  moved = tangents[0]
  out = permute(x, order, inverse)
  if isinstance(moved, ad.Zero):
    return out, ad.Zero.from_primal_value(out)
  return out, permute(moved, order, inverse)


def _transpose(cotangent, x, order, inverse):
  del x
  if isinstance(cotangent, ad.Zero):
    return None, None, None
  return permute(cotangent, inverse, order), None, None


def _batch(arguments, axes):
  x, order, inverse = arguments
  if axes[1] is not None or axes[2] is not None:
    raise NotImplementedError(
      'permute: expected one basis for a whole batch of codes. Run one basis '
      'after another, by lax.map.'
    )
  return permute(jnp.moveaxis(x, axes[0], 0), order, inverse), 0


_permute = Primitive('permute')
_permute.def_impl(_gather)
_permute.def_abstract_eval(lambda x, order, inverse: x)
mlir.register_lowering(
  _permute, mlir.lower_fun(_gather, multiple_results=False)
)
ad.primitive_jvps[_permute] = _tangent
ad.primitive_transposes[_permute] = _transpose
batching.primitive_batchers[_permute] = _batch
