"""T5 1.0 and 1.1 as a Flax module whose sites read a delta.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a
Unified Text-to-Text Transformer"; parameter tree and call signature of T5X's
minimal T5. Without the collection `"delta"` this is plain T5.
"""

import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from prompt_subspace.backbone import sites
from prompt_subspace.backbone.attention import Attention
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.layers import (
  Embedder,
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
  deterministic: bool

  @nn.compact
  def __call__(self, x, mask, bias, prefix_bias):
    """Returns (output, None), the form that a scan over layers needs."""
    cfg, fixed = self.config, self.deterministic
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    y = _norm(cfg, 'pre_attention_layer_norm')(x)
    y = Attention(cfg, name='attention')(
      y, y, mask, bias, prefix_bias=prefix_bias, deterministic=fixed
    )
    x = x + drop(y, deterministic=fixed)
    y = _norm(cfg, 'pre_mlp_layer_norm')(x)
    y = FeedForward(cfg, name='mlp')(y, fixed)
    return x + drop(y, deterministic=fixed), None


class DecoderLayer(nn.Module):
  """Self-attention, attention to the encoder's output, and feed-forward."""

  config: T5Config
  deterministic: bool

  @nn.compact
  def __call__(
    self, x, encoded, mask, cross_mask, bias, prefix_bias, cache_index
  ):
    """Returns (output, None), the form that a scan over layers needs."""
    cfg, fixed = self.config, self.deterministic
    drop = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    y = _norm(cfg, 'pre_self_attention_layer_norm')(x)
    y = Attention(cfg, name='self_attention')(
      y,
      y,
      mask,
      bias,
      prefix_bias=prefix_bias,
      cache_index=cache_index,
      deterministic=fixed,
    )
    x = x + drop(y, deterministic=fixed)
    y = _norm(cfg, 'pre_cross_attention_layer_norm')(x)
    y = Attention(cfg, name='encoder_decoder_attention')(
      y, encoded, cross_mask, None, deterministic=fixed, foldable=True
    )
    x = x + drop(y, deterministic=fixed)
    y = _norm(cfg, 'pre_mlp_layer_norm')(x)
    y = FeedForward(cfg, name='mlp')(y, fixed)
    return x + drop(y, deterministic=fixed), None


def _run_layers(layer, config, count, deterministic, x, *shared):
  """Applies `count` layers, one by one or as one scanned layer."""
  if config.remat:
    layer = nn.remat(layer, prevent_cse=not config.scan_layers)
  if not config.scan_layers:
    for i in range(count):
      x, _ = layer(config, deterministic, name=f'layers_{i}')(x, *shared)
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
  return scanned(config, deterministic, name='layers')(x, *shared)[0]


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
  def __call__(self, tokens, mask, deterministic):
    """Returns [B, P + L, D]; the prompt's positions come first.

    The mask is [B, 1, 1, L], or [B, 1, L, L] for packed inputs.
    """
    cfg = self.config
    x = sites.prepend(self, self.embedder(tokens))
    x = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
    )
    grow = x.shape[1] - tokens.shape[1]
    relative = RelativeBias(cfg, True, name='relpos_bias')
    positions = jnp.arange(x.shape[1])
    bias = relative(positions, positions)
    prefix_bias = _prefix_bias(self, 'attention', relative, positions)
    if mask.shape[-2] > 1:
      _refuse_packing('encoder', grow, prefix_bias)
    mask = _grow(mask, grow, keys=True)
    x = _run_layers(
      EncoderLayer,
      cfg,
      cfg.num_encoder_layers,
      deterministic,
      x,
      mask,
      bias,
      prefix_bias,
    )
    x = _norm(cfg, 'encoder_norm')(x)
    return nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      x, deterministic=deterministic
    )


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
    deterministic,
    decode,
    prefill,
  ):
    """Returns float32 logits [B, T, V].

    `positions` is None if targets are packed at positions of their own.
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
    y = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      y, deterministic=deterministic
    )
    index = None
    if decode:
      index, mask, queries, keys = self._cache_view(y, tokens)
    else:
      tail = jnp.arange(tokens.shape[1]) if positions is None else positions
      queries = keys = jnp.concatenate([jnp.arange(grow), tail + grow])
      mask = _grow(_grow(mask, grow, keys=True), grow, keys=False)
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
      deterministic,
      y,
      encoded,
      mask,
      cross_mask,
      bias,
      prefix_bias,
      index,
    )
    y = _norm(cfg, 'decoder_norm')(y[:, grow:])
    y = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))(
      y, deterministic=deterministic
    )
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


def _grow(mask, count, keys):
  """Adds `count` positions that all may see (keys) or that see all."""
  if not count:
    return mask
  widths = [(0, 0)] * (mask.ndim - 2)
  widths += [(0, 0), (count, 0)] if keys else [(count, 0), (0, 0)]
  return jnp.pad(mask, widths, constant_values=True)


def _refuse_packing(stack, grow, prefix_bias):
  """Packed examples would see each other's prompt, at wrong distances."""
  if grow or prefix_bias is not None:
    found = 'a prompt' if grow else 'a prefix with prefix_positions'
    raise ValueError(
      f'{stack}_segment_ids: expected no packing where the delta has {found} '
      f'in the {stack}, found segment ids. Give every example its own row.'
    )


def _same_segment(queries, keys):
  return (queries[:, None, :, None] == keys[:, None, None, :]).astype(bool)


class T5(nn.Module):
  """The whole backbone, with the call signature that T5X expects.

  Token 0 is padding. Segment ids tell packed examples apart; given only for
  the decoder, they separate several targets of one input.
  """

  config: T5Config

  def setup(self):
    self.token_embedder = Embedder(self.config)
    self.encoder = Encoder(self.config, self.token_embedder)
    self.decoder = Decoder(self.config, self.token_embedder)

  def encode(
    self,
    encoder_input_tokens: Int[Array, 'B L'],
    encoder_segment_ids: Int[Array, 'B L'] | None = None,
    enable_dropout: bool = True,
  ) -> Float[Array, 'B P_L D']:
    """Returns the encoder's output, the prompt's positions first."""
    mask = (encoder_input_tokens > 0)[:, None, None, :]
    if encoder_segment_ids is not None:
      mask = mask & _same_segment(encoder_segment_ids, encoder_segment_ids)
    return self.encoder(encoder_input_tokens, mask, not enable_dropout)

  def decode(
    self,
    encoded: Float[Array, 'B P_L D'],
    encoder_input_tokens: Int[Array, 'B L'],
    decoder_input_tokens: Int[Array, 'B T'],
    decoder_target_tokens: Int[Array, 'B T'] | None = None,
    encoder_segment_ids: Int[Array, 'B L'] | None = None,
    decoder_segment_ids: Int[Array, 'B T'] | None = None,
    decoder_positions: Int[Array, ' T'] | None = None,
    enable_dropout: bool = True,
    decode: bool = False,
    max_decode_length: int | None = None,
    prefill: bool = False,
  ) -> Float[Array, 'B T V']:
    """Returns the logits of the next token at every target position.

    Args:
      encoded: output of `encode`.
      encoder_input_tokens: what was encoded, for the padding mask.
      decoder_input_tokens: targets shifted right; in decoding the new tokens.
      decoder_target_tokens: unused: padding follows the targets, and the
        causal mask hides it.
      encoder_segment_ids: packed inputs.
      decoder_segment_ids: packed targets.
      decoder_positions: positions for the relative bias, the same for all
        examples; by default 0, 1, 2, ... (a [B, T] array, as T5X passes it,
        is not needed: the bias depends on differences only).
      enable_dropout: whether dropout is on.
      decode: use the cache; a first call with tokens as long as the longest
        output (and with `prefill`, if there is a decoder prompt) makes it.
      max_decode_length: unused: the cache knows its length.
      prefill: in decoding, put the decoder's prompt before these tokens.
    """
    del decoder_target_tokens, max_decode_length
    cross_mask = (encoder_input_tokens > 0)[:, None, None, :]
    if encoder_segment_ids is not None:
      if decode:
        raise ValueError(
          'encoder_segment_ids: expected None in decoding, found an array. '
          'Unpack the inputs before decoding.'
        )
      if decoder_segment_ids is None:
        raise ValueError(
          'decoder_segment_ids: expected an array beside encoder_segment_ids, '
          'found None. Packed inputs need packed targets.'
        )
      cross_mask = cross_mask & _same_segment(
        decoder_segment_ids, encoder_segment_ids
      )
    cross_mask = _grow(
      cross_mask, encoded.shape[1] - encoder_input_tokens.shape[1], keys=True
    )
    mask = None
    if not decode:
      steps = jnp.arange(decoder_input_tokens.shape[1])
      mask = (steps[:, None] >= steps[None, :])[None, None]
      if decoder_segment_ids is not None:
        same = _same_segment(decoder_segment_ids, decoder_segment_ids)
        mask = mask & same
    packed = decoder_segment_ids is not None
    known = decoder_positions is not None and decoder_positions.ndim == 1
    if encoder_segment_ids is not None or (packed and not known):
      decoder_positions = None
    elif not known:
      decoder_positions = jnp.arange(decoder_input_tokens.shape[1])
    return self.decoder(
      encoded,
      decoder_input_tokens,
      mask,
      cross_mask,
      decoder_positions,
      not enable_dropout,
      decode,
      prefill,
    )

  def __call__(
    self,
    encoder_input_tokens: Int[Array, 'B L'],
    decoder_input_tokens: Int[Array, 'B T'],
    decoder_target_tokens: Int[Array, 'B T'] | None = None,
    encoder_segment_ids: Int[Array, 'B L'] | None = None,
    decoder_segment_ids: Int[Array, 'B T'] | None = None,
    encoder_positions: Int[Array, 'B L'] | None = None,
    decoder_positions: Int[Array, 'B T'] | None = None,
    *,
    enable_dropout: bool = True,
    decode: bool = False,
  ) -> Float[Array, 'B T V']:
    """Encodes the inputs and returns the logits of the targets."""
    del encoder_positions
    encoded = self.encode(
      encoder_input_tokens, encoder_segment_ids, enable_dropout
    )
    return self.decode(
      encoded,
      encoder_input_tokens,
      decoder_input_tokens,
      decoder_target_tokens,
      encoder_segment_ids,
      decoder_segment_ids,
      decoder_positions,
      enable_dropout,
      decode,
    )
