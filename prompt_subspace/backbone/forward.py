"""The backbone as pure functions of (weights, delta, batch).

A batch is a mapping with `inputs` [B, L] and `targets` [B, T], padded with 0.
It may hold `encoded` [B, S, D], the encoder's output computed before; then the
encoder is not run. `examples` [B] are their numbers, which dropout hangs on,
where the batch is a part of a larger one; by default 0, 1, 2, ...
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_subspace import objectives
from prompt_subspace.backbone import sites
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.t5 import T5


def layer_counts(config: T5Config) -> dict[str, int]:
  """Returns the number of layers of each stack."""
  return {
    'encoder': config.num_encoder_layers,
    'decoder': config.num_decoder_layers,
  }


def variables(config: T5Config, weights: Mapping, delta: Mapping) -> dict:
  """Returns the Flax variables; the delta is stacked if the layers are.

  Raises:
    ValueError: a leaf of the delta has no site in the backbone.
  """
  if config.scan_layers:
    delta = sites.stack_layers(dict(delta), layer_counts(config))
  sites.check(delta, weights)
  return {'params': weights, sites.COLLECTION: delta}


def _dropout(key: Array | None, examples: Array | None) -> dict:
  if key is None:
    return {'enable_dropout': False}
  return {
    'enable_dropout': True,
    'examples': examples,
    'rngs': {'dropout': key},
  }


def encode(
  config: T5Config,
  weights: Mapping,
  delta: Mapping,
  inputs: Int[Array, 'B L'],
  key: Array | None = None,
  examples: Int[Array, ' B'] | None = None,
) -> Float[Array, 'B P_L D']:
  """Returns the encoder's output; with a key, dropout is on."""
  return T5(config).apply(
    variables(config, weights, delta),
    inputs,
    method=T5.encode,
    **_dropout(key, examples),
  )


def logits(
  config: T5Config,
  weights: Mapping,
  delta: Mapping,
  batch: Mapping[str, Array],
  key: Array | None = None,
) -> Float[Array, 'B T V']:
  """Returns the logits of every target token, given those before it."""
  keys = (None, None) if key is None else jax.random.split(key)
  encoded = batch.get('encoded')
  if encoded is None:
    encoded = encode(
      config, weights, delta, batch['inputs'], keys[0], batch.get('examples')
    )
  return T5(config).apply(
    variables(config, weights, delta),
    encoded,
    batch['inputs'],
    objectives.shift_right(batch['targets']),
    method=T5.decode,
    **_dropout(keys[1], batch.get('examples')),
  )


def choice_scores(
  config: T5Config,
  weights: Mapping,
  delta: Mapping,
  batch: Mapping[str, Array],
  choices: Int[Array, '*B C T'],
) -> Float[Array, 'B C']:
  """Returns log p(choice | input) for every choice.

  score = sum over the choice's tokens (with its end token) of log p(token)

  The input is encoded once. All choices are packed into one decoder sequence
  of C x T tokens, kept apart by segment ids, so that they share the attention
  to the input.

  Args:
    config: of the backbone.
    weights: of the backbone.
    delta: read at the sites.
    batch: `inputs` [B, L], and maybe `encoded`.
    choices: [C, T] for all examples or [B, C, T]; a choice without tokens is
      an unused slot and scores -inf.
  """
  inputs = batch['inputs']
  encoded = batch.get('encoded')
  if encoded is None:
    encoded = encode(config, weights, delta, inputs)
  count, length = choices.shape[-2:]
  choices = jnp.broadcast_to(choices, (inputs.shape[0], count, length))
  shifted = jnp.pad(choices[..., :-1], ((0, 0), (0, 0), (1, 0)))

  def pack(x):
    return x.reshape(inputs.shape[0], count * length)

  segments = jnp.repeat(jnp.arange(1, count + 1), length)
  scores = T5(config).apply(
    variables(config, weights, delta),
    encoded,
    inputs,
    pack(shifted),
    decoder_segment_ids=jnp.broadcast_to(segments, pack(choices).shape),
    decoder_positions=jnp.tile(jnp.arange(length), count),
    method=T5.decode,
    enable_dropout=False,
  )
  each = objectives.token_log_likelihood(scores, pack(choices))
  total = jnp.sum(each.reshape(choices.shape), axis=-1)
  return jnp.where(jnp.any(choices > 0, axis=-1), total, -jnp.inf)
