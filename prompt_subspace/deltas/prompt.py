"""Soft prompt: trained vectors before the embedded tokens.

Source: Lester, Al-Rfou and Constant 2021, "The Power of Scale for
Parameter-Efficient Prompt Tuning"; initialisations as in Vu et al. 2022
(SPoT), section 2.1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  Method,
  Setting,
  check_names,
  positive,
)

STARTS = ('uniform', 'vocabulary', 'labels', 'text', 'stored')


def prompt(
  length: int = 100,
  start: str = 'vocabulary',
  decoder_length: int = 0,
  common: int = 5000,
  text: str = '',
  stored: Float[np.ndarray, 'P D'] | None = None,
) -> Method:
  """A prompt [P, D] before the encoder's input, and maybe the decoder's.

  Args:
    length: P, prompt vectors of the encoder.
    start: where the vectors come from.
      `uniform`: U(-0.5, 0.5);
      `vocabulary`: embeddings of distinct tokens drawn from the `common`
        first (most frequent) pieces;
      `labels`: one row for each label text, the mean of its tokens'
        embeddings, the rest as `vocabulary`;
      `text`: the embeddings of the tokens of `text`, the rest as
        `vocabulary`;
      `stored`: the array `stored`, for instance a trained prompt or a
        weighted average of several.
    decoder_length: prompt vectors of the decoder; drawn as `vocabulary`, or
      `uniform` if that is the start.
    common: how many of the first pieces count as common.
    text: for start = `text`.
    stored: for start = `stored`.

  Returns:
    The method; phi = {'encoder': [P, D]} (and {'decoder': [P', D]}).

  Raises:
    ValueError: an argument does not fit, when the method is made or, for what
      depends on backbone and task, at `init`.
  """
  check_names('start', (start,), STARTS)
  positive('length', length)
  if decoder_length:
    positive('decoder_length', decoder_length)
  if start == 'text' and not text.strip():
    raise ValueError("text: start='text' needs a text, found none.")
  if start == 'stored' and stored is None:
    raise ValueError("stored: start='stored' needs an array, found None.")

  def init(key, setting):
    keys = jax.random.split(key)
    if start == 'uniform':
      first = _uniform(keys[0], length, setting)
    elif start == 'stored':
      first = _stored(stored, length, setting)
    else:
      rows = _given_rows(start, text, setting)
      if len(rows) > length:
        raise ValueError(
          f'length: expected at least {len(rows)} prompt vectors for '
          f'start={start!r}, found {length}. Raise the length.'
        )
      drawn = _vocabulary(keys[0], length - len(rows), common, setting)
      first = jnp.concatenate([*[r[None] for r in rows], drawn])
    phi = {'encoder': first}
    if decoder_length:
      draw = _uniform if start == 'uniform' else _common
      phi['decoder'] = draw(keys[1], decoder_length, setting, common)
    return phi

  def expand(phi, batch=None):
    del batch
    return {stack: {'prompt': vectors} for stack, vectors in phi.items()}

  settings = {
    'length': length,
    'start': start,
    'decoder_length': decoder_length,
    'common': common,
    'text': text,
  }
  if stored is not None:
    settings['stored'] = trees.fingerprint({'stored': stored})
  starting = ('start', 'common', 'text', 'stored')
  return Method('prompt', init, expand, settings=settings, starting=starting)


def _uniform(key, length, setting, common=None):
  del common
  shape = (length, setting.config.emb_dim)
  return jax.random.uniform(key, shape, jnp.float32, -0.5, 0.5)


def _common(key, length, setting, common):
  return _vocabulary(key, length, common, setting)


def _vocabulary(key, length, common, setting: Setting) -> Float[Array, 'P D']:
  """Embeddings of distinct pieces among the first `common`.

  Sentencepiece orders pieces by frequency; 0, 1, 2 are padding, end and
  unknown.
  """
  limit = setting.vocab_limit or setting.embedding.shape[0]
  pool = min(common, limit) - 3
  if length > pool:
    raise ValueError(
      f'length: expected at most {max(pool, 0)} prompt vectors drawn from the '
      f'{min(common, limit)} first pieces (common={common}; the vocabulary has '
      f'{limit}), found {length}. Lower it, raise common, or use '
      "start='uniform'."
    )
  ids = 3 + jax.random.choice(key, pool, (length,), replace=False)
  return setting.embedding[ids].astype(jnp.float32)


def _given_rows(start, text, setting):
  """Rows that come before the drawn ones: labels or the words of a text."""
  if start == 'labels':
    if not setting.labels:
      raise ValueError(
        "start: 'labels' needs a task with label texts, found none. Use "
        "start='vocabulary' for this task."
      )
    groups = setting.labels
  elif start == 'text':
    if setting.encode is None:
      raise ValueError("start: 'text' needs a vocabulary, found none.")
    groups = [(i,) for i in setting.encode(text)]
  else:
    return []
  if not all(groups):
    raise ValueError(
      f'labels: expected at least one token in every label text, found token '
      f'ids {groups}. Give every label a text.'
    )
  table = setting.embedding
  return [
    jnp.mean(table[np.asarray(g)].astype(jnp.float32), axis=0) for g in groups
  ]


def _stored(array, length, setting):
  expected = (length, setting.config.emb_dim)
  if tuple(np.shape(array)) != expected:
    raise ValueError(
      f'stored: expected a prompt of shape {expected}, found '
      f'{tuple(np.shape(array))}. Set length to its first axis; the second '
      'must be the width of the backbone.'
    )
  return jnp.asarray(array, jnp.float32)
