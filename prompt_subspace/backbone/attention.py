"""Multi-head attention with a cache, prefix keys and folded projections.

T5 does not scale the logits by 1/sqrt(K); the scale is in the initialisation
(Raffel et al. 2020).

Folding: for keys k = e W_k and values v = e W_v of a long encoder output e and
few queries q, the products are regrouped, (q W_k^T) e^T and (p e) W_v, so that
keys and values are never formed. The result is the same up to rounding.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.partitioning import with_sharding_constraint
from jaxtyping import Array, Bool, Float, Int

from prompt_subspace import trees
from prompt_subspace.backbone import sites
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.layers import FAN_IN, Dropout, Projection

MASKED = -1e10


def folding_pays(queries: int, keys: int, config: T5Config) -> bool:
  """Whether folding needs fewer multiplications than forming keys, values."""
  joined, width = config.joined_dim, config.emb_dim
  plain = keys * width * joined + queries * keys * joined
  folded = queries * width * joined + queries * keys * config.num_heads * width
  return folded < plain


class Attention(nn.Module):
  """Attention of queries over keys and values made from `inputs_kv`."""

  config: T5Config

  @nn.compact
  def __call__(
    self,
    inputs_q: Float[Array, 'B Q D'],
    inputs_kv: Float[Array, 'B S D'],
    mask: Bool[Array, '#B 1 #Q S'] | None,
    bias: Float[Array, '*B H Q S'] | None,
    *,
    examples: Int[Array, ' B'] | None = None,
    prefix_bias: Float[Array, '*B H Q P'] | None = None,
    cache_index: Int[Array, ''] | None = None,
    foldable: bool = False,
  ) -> Float[Array, 'B Q D']:
    """Attends, then applies the adapter that may sit behind the output.

    Args:
      inputs_q: what the queries are made from.
      inputs_kv: what the keys and values are made from.
      mask: True where a query may see a key.
      bias: added to the logits (relative positions).
      examples: numbers of the examples, for dropout; None is no dropout.
      prefix_bias: added to the logits of the prefix keys; 0 by default.
      cache_index: position of the first query in the decoding cache; None
        outside of decoding.
      foldable: whether folding may be used (cross-attention).

    Returns:
      The output of the sublayer, before the residual sum.
    """
    cfg = self.config
    heads = cfg.num_heads

    def project(name, init=FAN_IN):
      axes = ('embed', 'joined_kv')
      return Projection(
        cfg.emb_dim,
        cfg.joined_dim,
        axes,
        cfg.dtype,
        cfg.weight_dtype,
        init,
        name=name,
      )

    def split(x):
      x = x.reshape(*x.shape[:-1], heads, cfg.head_dim)
      return with_sharding_constraint(x, ('batch', 'length', 'heads', 'kv'))

    def query_init(key, shape, dtype):
      return FAN_IN(key, shape, dtype) / np.sqrt(cfg.head_dim).astype(dtype)

    query = split(project('query', query_init)(inputs_q))
    key_map, value_map = project('key'), project('value')
    fold = foldable and self._fold(query, inputs_kv, key_map, value_map)
    if fold:
      scores, mix = _folded(inputs_kv, key_map.matrix(), value_map.matrix())
    else:
      key, value = split(key_map(inputs_kv)), split(value_map(inputs_kv))
      if cache_index is not None:
        key, value = self._cached(key, value, cache_index)
      scores, mix = _plain(key, value)

    logits = trees.precise(scores(query))
    if bias is not None:
      logits = logits + trees.precise(bias)
    if mask is not None:
      logits = jnp.where(mask, logits, MASKED)
    prefix = sites.prefix(self, heads, cfg.dtype)
    out = self._attend(query, logits, mix, prefix, prefix_bias, examples)
    out = out.reshape(*out.shape[:2], cfg.joined_dim)
    y = Projection(
      cfg.joined_dim,
      cfg.emb_dim,
      ('joined_kv', 'embed'),
      cfg.dtype,
      cfg.weight_dtype,
      name='out',
    )(out)
    return sites.adapt(self, y)

  def _fold(self, query, inputs_kv, *maps) -> bool:
    if any(m.matrix().ndim > 2 for m in maps):  # a matrix for each example
      return False
    if self.config.fold_cross_attention is not None:
      return self.config.fold_cross_attention
    return folding_pays(query.shape[1], inputs_kv.shape[1], self.config)

  def _cached(self, key, value, index):
    """Writes keys and values at `index`; returns all that the cache holds.

    The first call, without a cache, makes one as long as its input.
    """
    ready = self.has_variable('cache', 'cached_key')
    keys = self.variable('cache', 'cached_key', jnp.zeros_like, key)
    values = self.variable('cache', 'cached_value', jnp.zeros_like, value)
    if not ready:
      return key, value
    start = (0, index, 0, 0)
    keys.value = jax.lax.dynamic_update_slice(keys.value, key, start)
    values.value = jax.lax.dynamic_update_slice(values.value, value, start)
    return keys.value, values.value

  def _attend(self, query, logits, mix, prefix, prefix_bias, examples):
    dropout = Dropout(self.config.dropout_rate)
    length = 0
    if prefix is not None:
      keys = jnp.broadcast_to(prefix[0], (query.shape[0], *prefix[0].shape[1:]))
      extra = trees.precise(_scores(query, keys))
      if prefix_bias is not None:
        extra = extra + trees.precise(prefix_bias)
      length = extra.shape[-1]
      logits = jnp.concatenate([extra, logits], axis=-1)
    weights = jax.nn.softmax(logits, axis=-1).astype(self.config.dtype)
    weights = dropout(weights, examples)
    out = mix(weights[..., length:])
    if prefix is not None:
      values = jnp.broadcast_to(
        prefix[1], (query.shape[0], *prefix[1].shape[1:])
      )
      out = out + _mix(weights[..., :length], values)
    return out


def _scores(query, key):
  return jnp.einsum('bqhk,bshk->bhqs', query, key)


def _mix(weights, value):
  return jnp.einsum('bhqs,bshk->bqhk', weights, value)


def _plain(key, value):
  return (lambda q: _scores(q, key)), (lambda p: _mix(p, value))


def _folded(encoded, key_matrix, value_matrix):
  def scores(query):
    heads = query.shape[-2]
    by_head = key_matrix.reshape(key_matrix.shape[0], heads, -1)
    wide = jnp.einsum('bqhk,dhk->bqhd', query, by_head)
    return jnp.einsum('bqhd,bsd->bhqs', wide, encoded)

  def mix(weights):
    heads = weights.shape[1]
    by_head = value_matrix.reshape(value_matrix.shape[0], heads, -1)
    wide = jnp.einsum('bhqs,bsd->bqhd', weights, encoded)
    return jnp.einsum('bqhd,dhk->bqhk', wide, by_head)

  return scores, mix
