"""The parts of a T5 layer other than attention, each reading its own sites.

Names, shapes and logical axes of the weights are those of T5X's minimal T5, so
that its checkpoints load without a mapping.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.partitioning import param_with_axes, with_sharding_constraint
from jaxtyping import Array, Float, Int

from prompt_subspace import trees
from prompt_subspace.backbone import sites
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.deltas.base import check_names

FAN_IN = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')

ACTIVATIONS = {
  'relu': jax.nn.relu,
  'gelu': functools.partial(jax.nn.gelu, approximate=True),
  'silu': jax.nn.silu,
  'linear': lambda x: x,
}


class Projection(nn.Module):
  """A linear map without bias: x W (+ offset, + low-rank term)."""

  in_dim: int
  out_dim: int
  axes: tuple[str, str]
  dtype: str
  weight_dtype: str
  init: Callable = FAN_IN

  def setup(self):
    self.kernel = param_with_axes(
      'kernel',
      self.init,
      (self.in_dim, self.out_dim),
      jnp.dtype(self.weight_dtype),
      axes=self.axes,
    )

  def __call__(self, x: Float[Array, 'B L I']) -> Float[Array, 'B L O']:
    """Returns x (W + offset) + (x a) b."""
    x = x.astype(self.dtype)
    y = jnp.matmul(x, sites.weight(self, 'kernel', self.kernel, self.dtype))
    factors = sites.lora(self, self.dtype)
    if factors is None:
      return y
    return y + jnp.matmul(jnp.matmul(x, factors[0]), factors[1])

  def matrix(self) -> Float[Array, '*B I O']:
    """Returns the matrix that `__call__` multiplies by: W + offset + a b."""
    w = sites.weight(self, 'kernel', self.kernel, self.dtype)
    factors = sites.lora(self, self.dtype)
    return w if factors is None else w + jnp.matmul(*factors)


class Dropout(nn.Module):
  """Dropout whose mask is the example's own, the same for all positions.

  The mask hangs on the key, the example's number and the place along the last
  axis alone: not on what stands beside an example in its batch, and not on how
  far the inputs are padded, which is the length of that axis where attention
  weights are dropped.
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B *H L F'], examples: Int[Array, ' B'] | None
  ) -> Float[Array, 'B *H L F']:
    """Drops features of x, and scales the others by 1 / (1 - rate).

    Args:
      x: hidden states, or attention weights with an axis for the heads.
      examples: numbers of the examples; None drops nothing.
    """
    if examples is None or not self.rate:
      return x
    keys = self.make_rng('dropout')
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):  # as T5X's are
      keys = jax.random.wrap_key_data(keys)
    keys = _folded(keys, examples)
    for heads in x.shape[1:-2]:
      keys = _folded(keys, jnp.arange(heads))

    def draw(key):  # each number hangs on its place alone
      return jax.random.bernoulli(key, 1 - self.rate, x.shape[-1:])

    for _ in range(keys.ndim):
      draw = jax.vmap(draw)
    kept = jnp.expand_dims(draw(keys), -2)
    return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def _folded(keys: Array, numbers: Int[Array, ' N']) -> Array:
  """Folds numbers into keys [...]: keys [..., N]."""
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  for _ in range(keys.ndim):
    fold = jax.vmap(fold, (0, None))
  return fold(keys, numbers)


class RMSNorm(nn.Module):
  """T5's layer norm: x / sqrt(mean(x^2) + epsilon) * scale."""

  dim: int
  dtype: str
  weight_dtype: str
  epsilon: float

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D']) -> Float[Array, 'B L D']:
    """Normalises the last axis in float32."""
    scale = param_with_axes(
      'scale',
      nn.initializers.ones,
      (self.dim,),
      jnp.dtype(self.weight_dtype),
      axes=('embed',),
    )
    x = trees.precise(x)
    power = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = (x * jax.lax.rsqrt(power + self.epsilon)).astype(self.dtype)
    # [D] -> [1, D] for all examples, [B, D] -> [B, 1, D] for one each
    return y * sites.weight(self, 'scale', scale, self.dtype)[..., None, :]


class Embedder(nn.Module):
  """The token table, used for the input and, in T5 1.0, as the output head."""

  config: T5Config

  def setup(self):
    cfg = self.config
    self.embedding = param_with_axes(
      'embedding',
      nn.initializers.normal(stddev=1.0),
      (cfg.vocab_size, cfg.emb_dim),
      jnp.dtype(cfg.weight_dtype),
      axes=('vocab', 'embed'),
    )

  def __call__(self, tokens: Int[Array, 'B L']) -> Float[Array, 'B L D']:
    """Looks the tokens up; an offset is looked up beside the table."""
    x = jnp.take(self.embedding, tokens, axis=0)
    offset = sites.leaf(self, 'embedding')
    if offset is None:
      return x.astype(self.config.dtype)
    if offset.ndim == 3:
      rows = jnp.take_along_axis(offset, tokens[..., None], axis=1)
    else:
      rows = jnp.take(offset, tokens, axis=0)
    return (trees.precise(x) + rows).astype(self.config.dtype)

  def attend(self, y: Float[Array, 'B L D']) -> Float[Array, 'B L V']:
    """Returns float32 logits y E^T / sqrt(D)."""
    y = trees.precise(y)
    table = sites.weight(self, 'embedding', self.embedding, y.dtype)
    y = y / np.sqrt(self.config.emb_dim)
    return jnp.matmul(y, jnp.swapaxes(table, -1, -2))


class FeedForward(nn.Module):
  """T5's feed-forward block: (product of activations of x W_i) W_o."""

  config: T5Config

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], examples: Int[Array, ' B'] | None
  ) -> Float[Array, 'B L D']:
    """Applies the block, and the adapter that may sit behind it.

    Args:
      x: hidden states.
      examples: their numbers, for dropout; None is no dropout.
    """
    cfg = self.config
    check_names('mlp_activations', cfg.mlp_activations, tuple(ACTIVATIONS))
    names = (
      ['wi']
      if len(cfg.mlp_activations) == 1
      else [f'wi_{i}' for i in range(len(cfg.mlp_activations))]
    )
    parts = [
      ACTIVATIONS[activation](
        Projection(
          cfg.emb_dim,
          cfg.mlp_dim,
          ('embed', 'mlp'),
          cfg.dtype,
          cfg.weight_dtype,
          name=name,
        )(x)
      )
      for name, activation in zip(names, cfg.mlp_activations, strict=True)
    ]
    hidden = functools.reduce(operator.mul, parts)
    hidden = Dropout(cfg.dropout_rate)(hidden, examples)
    hidden = with_sharding_constraint(hidden, ('batch', 'length', 'mlp'))
    y = Projection(
      cfg.mlp_dim,
      cfg.emb_dim,
      ('mlp', 'embed'),
      cfg.dtype,
      cfg.weight_dtype,
      name='wo',
    )(hidden)
    return sites.adapt(self, y)


def distance_buckets(
  bidirectional: bool, buckets: int, max_distance: int
) -> np.ndarray:
  """Tabulates T5's bucket of every clipped distance (Shaw/Raffel et al.).

  Half of the buckets hold one distance each, the rest grow logarithmically up
  to `max_distance`; with `bidirectional`, keys after the query take the upper
  half of the table.

  Returns:
    int32 [2 * max_distance + 1]: bucket of key position - query position,
    shifted by max_distance.
  """
  relative = np.arange(-max_distance, max_distance + 1)
  n = -relative
  base = np.zeros_like(n)
  if bidirectional:
    buckets //= 2
    base += (n < 0) * buckets
    n = np.abs(n)
  else:
    n = np.maximum(n, 0)
  exact = buckets // 2
  # the small term decides ties at powers of two as T5X does
  ratio = n.astype(np.float32) / exact + np.finfo(np.float32).eps
  with np.errstate(divide='ignore'):
    large = exact + (
      np.log(ratio) / np.log(max_distance / exact) * (buckets - exact)
    ).astype(np.int32)
  large = np.minimum(large, buckets - 1)
  return (base + np.where(n < exact, n, large)).astype(np.int32)


class RelativeBias(nn.Module):
  """T5's relative position bias, added to the attention logits."""

  config: T5Config
  bidirectional: bool

  @nn.compact
  def __call__(
    self, query_positions: Int[Array, ' Q'], key_positions: Int[Array, ' K']
  ) -> Float[Array, '*B H Q K']:
    """Returns the bias of each head for each pair of positions."""
    cfg = self.config
    table = param_with_axes(
      'rel_embedding',
      nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform'),
      (cfg.num_heads, cfg.relpos_buckets),
      jnp.dtype(cfg.weight_dtype),
      axes=('heads', 'relpos_buckets'),
    )
    table = sites.weight(self, 'rel_embedding', table, cfg.dtype)
    limit = cfg.relpos_max_distance
    known = distance_buckets(self.bidirectional, cfg.relpos_buckets, limit)
    relative = key_positions[None, :] - query_positions[:, None]
    bucket = jnp.asarray(known)[jnp.clip(relative, -limit, limit) + limit]
    # a product with a one-hot matrix has a fast gradient on every device
    hot = jax.nn.one_hot(bucket.reshape(-1), cfg.relpos_buckets, axis=0)
    bias = jnp.matmul(table, hot.astype(table.dtype))
    return bias.reshape(*bias.shape[:-1], *bucket.shape)
