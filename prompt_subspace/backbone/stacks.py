"""Encoder and decoder of T5: layers, relative bias, prompts before tokens.

Source: Raffel et al. 2020, section 2.1; parameter tree of T5X's minimal T5.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning

from prompt_subspace.backbone import masks, sites
from prompt_subspace.backbone.attention import Attention
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.layers import (
  Dropout,
  FeedForward,
  Projection,
  RelativeBias,
  RMSNorm,
)


def _norm(config: T5Config, name: str) -> RMSNorm:
  return RMSNorm(
    config.emb_dim,
    config.dtype,
    config.weight_dtype,
    config.norm_epsilon,
    name=name,
  )


class EncoderLayer(nn.Module):
  """Self-attention and feed-forward, each normed before and added back."""

  config: T5Config

  @nn.compact
  def __call__(self, x, mask, bias, prefix_bias, examples):
    """Returns (output, None), the form that a scan over layers needs."""
    cfg = self.config
    drop = Dropout(cfg.dropout_rate)
    y = _norm(cfg, 'pre_attention_layer_norm')(x)
    y = Attention(cfg, name='attention')(
      y, y, mask, bias, prefix_bias=prefix_bias, examples=examples
    )
    x = x + drop(y, examples)
    y = _norm(cfg, 'pre_mlp_layer_norm')(x)
    y = FeedForward(cfg, name='mlp')(y, examples)
    return x + drop(y, examples), None


class DecoderLayer(nn.Module):
  """Self-attention, attention to the encoder's output, and feed-forward."""

  config: T5Config

  @nn.compact
  def __call__(
    self,
    x,
    encoded,
    mask,
    cross_mask,
    bias,
    prefix_bias,
    cache_index,
    examples,
  ):
    """Returns (output, None), the form that a scan over layers needs."""
    cfg = self.config
    drop = Dropout(cfg.dropout_rate)
    y = _norm(cfg, 'pre_self_attention_layer_norm')(x)
    y = Attention(cfg, name='self_attention')(
      y,
      y,
      mask,
      bias,
      prefix_bias=prefix_bias,
      cache_index=cache_index,
      examples=examples,
    )
    x = x + drop(y, examples)
    y = _norm(cfg, 'pre_cross_attention_layer_norm')(x)
    y = Attention(cfg, name='encoder_decoder_attention')(
      y, encoded, cross_mask, None, examples=examples, foldable=True
    )
    x = x + drop(y, examples)
    y = _norm(cfg, 'pre_mlp_layer_norm')(x)
    y = FeedForward(cfg, name='mlp')(y, examples)
    return x + drop(y, examples), None


def _run_layers(layer, config, count, x, *shared):
  """Applies `count` layers, one by one or as one scanned layer."""
  if config.remat:
    layer = nn.remat(layer, prevent_cse=not config.scan_layers)
  if not config.scan_layers:
    for i in range(count):
      x, _ = layer(config, name=f'layers_{i}')(x, *shared)
    return x
  scanned = partitioning.scan_with_axes(
    layer,
    variable_axes={'params': 0, sites.COLLECTION: 0, 'cache': 0},
    split_rngs={'params': True, 'dropout': True},
    in_axes=(nn.broadcast,) * len(shared),
    length=count,
    axis_name='layers',
    axes_collections=('params',),
  )
  return scanned(config, name='layers')(x, *shared)[0]


def _prefix_bias(module, attention, bias, query_positions):
  """Bias of prefix keys that take the positions before the sequence."""
  if not module.config.prefix_positions:
    return None
  for layer in module.variables.get(sites.COLLECTION, {}).values():
    keys = getattr(layer, 'get', lambda *_: {})(attention, {})
    if 'prefix_key' in keys:
      length = keys['prefix_key'].shape[-2]
      return bias(query_positions, jnp.arange(-length, 0))
  return None


class Encoder(nn.Module):
  """The encoder: prompt and embedded tokens in, hidden states out."""

  config: T5Config
  embedder: nn.Module

  @nn.compact
  def __call__(self, tokens, mask, examples):
    """Returns [B, P + L, D]; the prompt's positions come first.

    The mask is [B, 1, 1, L], or [B, 1, L, L] for packed inputs; without
    numbers of the examples there is no dropout.
    """
    cfg = self.config
    x = sites.prepend(self, self.embedder(tokens))
    x = Dropout(cfg.dropout_rate)(x, examples)
    grow = x.shape[1] - tokens.shape[1]
    relative = RelativeBias(cfg, True, name='relpos_bias')
    positions = jnp.arange(x.shape[1])
    bias = relative(positions, positions)
    prefix_bias = _prefix_bias(self, 'attention', relative, positions)
    if mask.shape[-2] > 1:
      _refuse_packing('encoder', grow, prefix_bias)
    mask = masks.grow(mask, grow, keys=True)
    x = _run_layers(
      EncoderLayer,
      cfg,
      cfg.num_encoder_layers,
      x,
      mask,
      bias,
      prefix_bias,
      examples,
    )
    x = _norm(cfg, 'encoder_norm')(x)
    return Dropout(cfg.dropout_rate)(x, examples)


class Decoder(nn.Module):
  """The decoder: embedded tokens and encoder output in, logits out."""

  config: T5Config
  embedder: nn.Module

  @nn.compact
  def __call__(
    self,
    encoded,
    tokens,
    mask,
    cross_mask,
    positions,
    examples,
    decode,
    prefill,
  ):
    """Returns float32 logits [B, T, V].

    `positions` is None if targets are packed at positions of their own,
    `examples` if there is no dropout.
    """
    cfg = self.config
    y = self.embedder(tokens)
    if not decode or prefill:
      y = sites.prepend(self, y)
    elif sites.leaf(self, 'prompt') is not None and not self.has_variable(
      'cache', 'cache_index'
    ):
      raise ValueError(
        'prefill: expected True where the decoding cache is made, because the '
        'delta has a decoder prompt, found False. Give it there and with the '
        'first token.'
      )
    grow = y.shape[1] - tokens.shape[1]
    y = Dropout(cfg.dropout_rate)(y, examples)
    index = None
    if decode:
      index, mask, queries, keys = self._cache_view(y, tokens)
    else:
      tail = jnp.arange(tokens.shape[1]) if positions is None else positions
      queries = keys = jnp.concatenate([jnp.arange(grow), tail + grow])
      mask = masks.grow(masks.grow(mask, grow, keys=True), grow, keys=False)
      # tokens see the whole prompt; the prompt sees its own past only
      steps = jnp.arange(y.shape[1])
      mask = mask & ((steps[:, None] >= grow) | (steps[:, None] >= steps))
    relative = RelativeBias(cfg, False, name='relpos_bias')
    bias = relative(queries, keys)
    prefix_bias = _prefix_bias(self, 'self_attention', relative, queries)
    if positions is None and not decode:
      _refuse_packing('decoder', grow, prefix_bias)
    y = _run_layers(
      DecoderLayer,
      cfg,
      cfg.num_decoder_layers,
      y,
      encoded,
      mask,
      cross_mask,
      bias,
      prefix_bias,
      index,
      examples,
    )
    y = _norm(cfg, 'decoder_norm')(y[:, grow:])
    y = Dropout(cfg.dropout_rate)(y, examples)
    if cfg.logits_via_embedding:
      return self.embedder.attend(y)
    return Projection(
      cfg.emb_dim,
      cfg.vocab_size,
      ('embed', 'vocab'),
      str(jnp.promote_types(cfg.dtype, 'float32')),
      cfg.weight_dtype,
      name='logits_dense',
    )(y)

  def _cache_view(self, y, tokens):
    """Index, mask and positions of the queries in the decoding cache."""
    ready = self.has_variable('cache', 'cache_index')
    index = self.variable(
      'cache', 'cache_index', lambda: jnp.zeros((), jnp.int32)
    )
    length = self.variable(
      'cache', 'cache_length', lambda: jnp.zeros((y.shape[1],), jnp.int8)
    ).value.shape[0]
    start = index.value
    keys = jnp.arange(length)
    queries = start + jnp.arange(y.shape[1])
    if ready:
      index.value = start + y.shape[1]
    mask = (keys[None, :] <= queries[:, None])[None, None]
    return start, mask, queries, keys


def _refuse_packing(stack, grow, prefix_bias):
  """Packed examples would see each other's prompt, at wrong distances."""
  if grow or prefix_bias is not None:
    found = 'a prompt' if grow else 'a prefix with prefix_positions'
    raise ValueError(
      f'{stack}_segment_ids: expected no packing where the delta has {found} '
      f'in the {stack}, found segment ids. Give every example its own row.'
    )
