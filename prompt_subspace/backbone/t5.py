"""T5 1.0 and 1.1 as a Flax module whose sites read a delta.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a
Unified Text-to-Text Transformer"; parameter tree and call signature of T5X's
minimal T5. Without the collection `"delta"` this is plain T5.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from prompt_subspace.backbone import masks
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.layers import Embedder
from prompt_subspace.backbone.stacks import Decoder, Encoder


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
    examples: Int[Array, ' B'] | None = None,
  ) -> Float[Array, 'B P_L D']:
    """Returns the encoder's output, the prompt's positions first.

    Args:
      encoder_input_tokens: the inputs.
      encoder_segment_ids: packed inputs.
      enable_dropout: whether dropout is on.
      examples: numbers of the examples, which their dropout hangs on; by
        default 0, 1, 2, ...
    """
    mask = (encoder_input_tokens > 0)[:, None, None, :]
    if encoder_segment_ids is not None:
      mask = mask & masks.same_segment(encoder_segment_ids, encoder_segment_ids)
    numbers = _numbers(encoder_input_tokens, enable_dropout, examples)
    return self.encoder(encoder_input_tokens, mask, numbers)

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
    examples: Int[Array, ' B'] | None = None,
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
      examples: numbers of the examples, as of `encode`.
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
      cross_mask = cross_mask & masks.same_segment(
        decoder_segment_ids, encoder_segment_ids
      )
    cross_mask = masks.grow(
      cross_mask, encoded.shape[1] - encoder_input_tokens.shape[1], keys=True
    )
    mask = None
    if not decode:
      mask = masks.causal(decoder_input_tokens.shape[1])
      if decoder_segment_ids is not None:
        same = masks.same_segment(decoder_segment_ids, decoder_segment_ids)
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
      _numbers(decoder_input_tokens, enable_dropout, examples),
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


def _numbers(tokens, enable_dropout, examples):
  """Numbers of the examples, which are None without dropout."""
  if not enable_dropout:
    return None
  return jnp.arange(len(tokens)) if examples is None else examples
