"""Generation: greedy and beam search with a key-value cache.

Both run one compiled `lax.while_loop` that ends when all sequences have.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_subspace.backbone import forward, sites
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.deltas.base import positive

EOS = 1
NEVER = -1e9


def _stepper(config, weights, delta, encoded, inputs, length):
  """Returns (an empty cache, step(cache, tokens, first) -> logits, cache)."""
  tied = forward.variables(config, weights, delta)

  def step(cache, tokens, first=False):
    logits, new = T5(config).apply(
      {**tied, **cache},
      encoded,
      inputs,
      tokens,
      enable_dropout=False,
      decode=True,
      prefill=first,
      method=T5.decode,
      mutable=['cache'],
    )
    return logits[:, -1], new

  # a first call without a cache makes one; only its shapes are needed
  whole = jnp.zeros((inputs.shape[0], length), jnp.int32)
  shapes = jax.eval_shape(lambda: step({}, whole, True)[1])
  cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  return cache, step


def greedy(
  config: T5Config,
  weights: Mapping,
  delta: Mapping,
  inputs: Int[Array, 'B L'],
  length: int,
  encoded: Float[Array, 'B S D'] | None = None,
) -> Int[Array, 'B T']:
  """Generates the most likely token at each step.

  Args:
    config: of the backbone.
    weights: of the backbone.
    delta: read at the sites.
    inputs: encoder tokens.
    length: T, the longest output, with its end token.
    encoded: the encoder's output, if it is known.

  Returns:
    Tokens, 0 after the end token 1.

  Raises:
    ValueError: the length is not positive.
  """
  positive('length', length)
  if encoded is None:
    encoded = forward.encode(config, weights, delta, inputs)
  cache, step = _stepper(config, weights, delta, encoded, inputs, length)
  batch = inputs.shape[0]

  def choose(logits, tokens, done, i):
    token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    token = jnp.where(done, 0, token)
    return tokens.at[:, i].set(token), done | (token == EOS), token[:, None]

  def body(carry):
    i, cache, tokens, done, last = carry
    logits, cache = step(cache, last)
    return i + 1, cache, *choose(logits, tokens, done, i)

  def going(carry):
    return (carry[0] < length) & ~jnp.all(carry[3])

  logits, cache = step(cache, jnp.zeros((batch, 1), jnp.int32), True)
  empty = jnp.zeros((batch, length), jnp.int32)
  start = choose(logits, empty, jnp.zeros((batch,), bool), 0)
  out = jax.lax.while_loop(going, body, (jnp.asarray(1), cache, *start))
  return out[2]


def beam(
  config: T5Config,
  weights: Mapping,
  delta: Mapping,
  inputs: Int[Array, 'B L'],
  length: int,
  beams: int = 4,
  alpha: float = 0.6,
  encoded: Float[Array, 'B S D'] | None = None,
) -> tuple[Int[Array, 'B T'], Float[Array, ' B']]:
  """Generates by beam search with a length penalty.

  score = log p(sequence) / ((5 + length) / 6)^alpha

  A sequence ends only if it is among the K best continuations of its step, so
  that one beam is greedy search.

  Source: Wu et al. 2016, "Google's Neural Machine Translation System", eq. 14.

  Args:
    config: of the backbone.
    weights: of the backbone.
    delta: read at the sites.
    inputs: encoder tokens.
    length: T, the longest output, with its end token.
    beams: K, sequences kept per example.
    alpha: strength of the length penalty; 0 is none.
    encoded: the encoder's output, if it is known.

  Returns:
    (best tokens, their scores); 0 after the end token 1.

  Raises:
    ValueError: length or beams are not positive, or alpha is negative.
  """
  positive('length', length)
  positive('beams', beams)
  if alpha < 0:
    raise ValueError(f'alpha: expected a number >= 0, found {alpha}.')
  if encoded is None:
    encoded = forward.encode(config, weights, delta, inputs)
  batch, width = inputs.shape[0], beams
  wide = sites.repeat(dict(delta), width)
  cache, step = _stepper(
    config,
    weights,
    wide,
    jnp.repeat(encoded, width, axis=0),
    jnp.repeat(inputs, width, axis=0),
    length,
  )

  def penalty(n):
    return ((5.0 + n) / 6.0) ** alpha

  def reorder(cache, parent):
    flat = (parent + width * jnp.arange(batch)[:, None]).reshape(-1)
    axis = 1 if config.scan_layers else 0

    def move(x):
      return jnp.take(x, flat, axis=axis) if x.ndim >= 4 else x

    return jax.tree.map(move, cache)

  def advance(logits, i, cache, live, log_p, ended, best):
    logits = jax.nn.log_softmax(logits.astype(jnp.float32))
    vocab = logits.shape[-1]
    total = log_p[..., None] + logits.reshape(batch, width, vocab)
    # 2K candidates: even if K of them end, K go on
    top, index = jax.lax.top_k(total.reshape(batch, -1), 2 * width)
    parent, token = index // vocab, (index % vocab).astype(jnp.int32)
    grown = jnp.take_along_axis(live, parent[..., None], axis=1)
    grown = grown.at[:, :, i].set(token)
    over = token == EOS
    ends = (over | (i + 1 == length)) & (jnp.arange(2 * width) < width)
    final = jnp.where(ends, top / penalty(i + 1), NEVER)
    pool = jnp.concatenate([best, final], axis=1)
    best, keep = jax.lax.top_k(pool, width)
    both = jnp.concatenate([ended, grown], axis=1)
    ended = jnp.take_along_axis(both, keep[..., None], axis=1)
    log_p, keep = jax.lax.top_k(jnp.where(over, NEVER, top), width)
    live = jnp.take_along_axis(grown, keep[..., None], axis=1)
    cache = reorder(cache, jnp.take_along_axis(parent, keep, axis=1))
    return i + 1, cache, live, log_p, ended, best

  def body(carry):
    i, cache, live, *rest = carry
    last = jax.lax.dynamic_index_in_dim(live, i - 1, 2, keepdims=False)
    logits, cache = step(cache, last.reshape(-1, 1))
    return advance(logits, i, cache, live, *rest)

  def going(carry):
    i, _, _, log_p, _, best = carry
    # the best a live sequence can still reach, at the largest penalty
    hope = log_p[:, 0] / penalty(length)
    return (i < length) & jnp.any(hope > best[:, 0])

  logits, cache = step(cache, jnp.zeros((batch * width, 1), jnp.int32), True)
  empty = jnp.zeros((batch, width, length), jnp.int32)
  first = jnp.where(jnp.arange(width) == 0, 0.0, NEVER)
  log_p = jnp.broadcast_to(first, (batch, width))
  best = jnp.full((batch, width), NEVER)
  start = advance(logits, 0, cache, empty, log_p, empty, best)
  out = jax.lax.while_loop(going, body, start)
  return out[4][:, 0], out[5][:, 0]
