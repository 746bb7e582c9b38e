"""Strategies: how the prompt of an input is made, as delta methods.

A strategy makes k vectors t = G(x) [B, k, D] from an input's tokens:

- random: a trained table with a row for each vocabulary entry; t is the rows of
  the first k tokens;
- pretrained: the same, started from a table that a text classifier learned;
- encoder: the table is frozen, and a small trained encoder maps the rows of the
  first share of the tokens to k vectors.

On prompt tuning, t is the prompt. On prefix tuning it is added to the task's
prefix, at the input of the network that makes the keys and values of all
layers, or of the first layer alone.

Source: Jiang et al. 2022 (IPT), section 3.
"""

import fractions
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from prompt_subspace import trees
from prompt_subspace.deltas import prefix as prefixes
from prompt_subspace.deltas.base import Method, check_names, positive, unbound
from prompt_subspace.instance import classifier, encoders

BASES = ('prompt', 'prefix')
LAYERS = ('all', 'first')


def random(
  length: int = 20,
  base: str = 'prompt',
  scale: float = 1.0,
  hard: str = '',
  hidden: int = 24,
  layers: str = 'all',
) -> Method:
  """Random IPT: rows of a trained table, drawn N(0, scale^2).

  Args:
    length: k, vectors of an input; shorter inputs are filled up with the row
      of the padding.
    base: `prompt` or `prefix`.
    scale: standard deviation of the table; 1 is about that of the bundled
      backbone's own.
    hard: a text, such as the name of a category, whose embedded tokens stand
      before the prompt, or on prefix tuning before the input (table 5).
    hidden: of the prefix, see `deltas.prefix`.
    layers: of the prefix, `all` or the `first` of each stack.

  Returns:
    The method; phi has `table` [V, D] and, on prefix tuning, `prefix`.

  Raises:
    ValueError: an argument is out of range.
  """

  def table(key, setting):
    return scale * jax.random.normal(key, setting.embedding.shape)

  settings = {'scale': scale}
  return _rows(
    'ipt_random', table, settings, length, base, hard, hidden, layers
  )


def pretrained(
  source: str | None = None,
  length: int = 20,
  base: str = 'prompt',
  hard: str = '',
  hidden: int = 24,
  layers: str = 'all',
) -> Method:
  """Pretrained IPT: as `random`, started from a classifier's table.

  Args:
    source: a folder that `instance.classifier` wrote; None: the backbone's own
      token table.
    length: k; and the others as of `random`.
    base: `prompt` or `prefix`.
    hard: a text before the prompt or input.
    hidden: of the prefix.
    layers: of the prefix.

  Raises:
    ValueError: an argument is out of range; at `init`, a table of another
      vocabulary or width.
  """

  def table(key, setting):
    del key
    return jnp.asarray(_table(source, setting), jnp.float32)

  settings = {'source': source}
  return _rows(
    'ipt_pretrained', table, settings, length, base, hard, hidden, layers
  )


def encoder(
  kind: str = 'cnn',
  source: str | None = None,
  length: int = 20,
  base: str = 'prompt',
  share: float = 0.3,
  budget: float = 0.005,
  hard: str = '',
  hidden: int = 24,
  layers: str = 'all',
) -> Method:
  """Encoder IPT: a small trained encoder on a frozen table.

  Args:
    kind: `cnn`, `mlp` or `lstm`.
    source: of the table, see `pretrained`. It is not trained.
    length: k, vectors of an input.
    base: `prompt` or `prefix`.
    share: sequence utilisation rate: of n tokens the first max(1, ceil(share
      n)) are read.
    budget: parameters of the encoder as a share of the backbone's; its width
      follows.
    hard: a text before the prompt or input.
    hidden: of the prefix.
    layers: of the prefix.

  Returns:
    The method; phi has `encoder` and, on prefix tuning, `prefix`.

  Raises:
    ValueError: an argument is out of range; when it is bound, a budget that no
      width fits, or a table of another vocabulary or width.
  """
  check_names('kind', (kind,), tuple(encoders.ENCODERS))
  for name, value in (('share', share), ('budget', budget)):
    if not 0 < value <= 1:
      raise ValueError(
        f'{name}: expected a share above 0 and up to 1, found {value!r}.'
      )

  def bind(setting):
    table = jnp.asarray(_table(source, setting), jnp.float32)
    dim = table.shape[1]
    whole = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(setting.weights))
    width = encoders.width_for(kind, int(budget * whole), length, dim)
    module = encoders.ENCODERS[kind](width, length)

    def init(key, setting):
      del setting
      start = module.init(
        key, jnp.zeros((1, 4, dim)), jnp.ones((1,), jnp.int32)
      )
      return {'encoder': start['params']}

    def vectors(phi, tokens, constants):
      read = jnp.asarray(_share_of(tokens.shape[1], share))[_lengths(tokens)]
      rows = jnp.take(constants['table'], tokens, axis=0)
      return module.apply({'params': phi['encoder']}, rows, read)

    made = _on_base(init, vectors, length, base, hidden, layers)
    return made._replace(
      name='ipt_encoder',
      settings=settings
      | {'table': trees.fingerprint({'table': table}), 'width': width},
      constants={'table': table, 'hard': _hard(hard, setting)},
      # the fingerprint tells the table apart, the width the encoder
      starting=('source', 'budget'),
    )

  settings = {
    'kind': kind,
    'source': source,
    'share': share,
    'budget': budget,
    **_shared(length, base, hard, hidden, layers),
  }
  return unbound('ipt_encoder', bind, settings, reads_batch=True)


METHODS = {
  'ipt_random': random,
  'ipt_pretrained': pretrained,
  'ipt_encoder': encoder,
}


def make(name: str, **settings) -> Method:
  """Returns the strategy of a name, with the settings of a card.

  Raises:
    ValueError: the name is unknown.
  """
  check_names('method', (name,), tuple(METHODS))
  found = {
    k: v
    for k, v in settings.items()
    if k not in ('table', 'start_table', 'width')
  }
  return METHODS[name](**found)


def _shared(length, base, hard, hidden, layers) -> dict[str, Any]:
  positive('length', length)
  positive('hidden', hidden)
  check_names('base', (base,), BASES)
  check_names('layers', (layers,), LAYERS)
  return {
    'length': length,
    'base': base,
    'hard': hard,
    'hidden': hidden,
    'layers': layers,
  }


def _rows(name, table_of, settings, length, base, hard, hidden, layers):
  """A strategy whose vectors are rows of a trained table."""

  def bind(setting):
    def init(key, setting):
      return {'table': table_of(key, setting)}

    def vectors(phi, tokens, constants):
      del constants
      short = jnp.pad(tokens[:, :length], ((0, 0), (0, length)))[:, :length]
      return jnp.take(phi['table'], short, axis=0)

    start = {}
    if settings.get('source'):  # what is at that place may be another one later
      start = {
        'start_table': trees.fingerprint({'table': table_of(None, setting)})
      }
    made = _on_base(init, vectors, length, base, hidden, layers)
    return made._replace(
      name=name,
      settings=known | start,
      constants={'hard': _hard(hard, setting)},
      starting=('scale', 'source', 'start_table'),
    )

  known = settings | _shared(length, base, hard, hidden, layers)
  return unbound(name, bind, known, reads_batch=True)


def _on_base(init_own, vectors, length, base, hidden, layers) -> Method:
  """Puts the vectors of an input before it, or into a prefix."""
  task = prefixes(length=length, hidden=hidden)

  def init(key, setting):
    phi = init_own(jax.random.fold_in(key, 0), setting)
    if base == 'prefix':
      phi['prefix'] = task.init(jax.random.fold_in(key, 1), setting)
    return phi

  def expand(phi, batch, constants):
    made = vectors(phi, batch['inputs'], constants)
    hard = constants['hard']
    words = jnp.broadcast_to(hard, (made.shape[0], *hard.shape))
    if base == 'prompt':
      return {'encoder': {'prompt': jnp.concatenate([words, made], axis=1)}}
    own = functools.partial(_moved, task, phi['prefix'])
    delta = jax.vmap(own)(made)
    if layers == 'first':
      delta = _first(delta, task.expand(phi['prefix']))
    if len(hard):
      delta['encoder'] = {**delta['encoder'], 'prompt': words}
    return delta

  return Method('ipt', init, expand, reads_batch=True)


def _moved(task: Method, phi: Mapping, t: Float[Array, 'k D']) -> dict:
  """The prefix of one input: its vectors are added to the table's."""
  return task.expand(
    {n: {**part, 'table': part['table'] + t} for n, part in phi.items()}
  )


def _first(own: Mapping, shared: Mapping) -> dict:
  """Takes the first layer of each stack from one delta, the others from
  another."""
  flat = trees.flatten(shared)
  mine = {p: x for p, x in trees.flatten(own).items() if '/layers_0/' in p}
  return trees.unflatten({**flat, **mine})


def _share_of(longest: int, share: float) -> np.ndarray:
  """Tokens read of an input of 0, 1, ... longest: ceil(share n), at least 1.

  Exact: in floating point, 0.3 of 50 is a little more than 15.
  """
  exact = fractions.Fraction(str(share))
  return np.array([max(1, math.ceil(exact * n)) for n in range(longest + 1)])


def _lengths(tokens: Int[Array, 'B L']) -> Int[Array, ' B']:
  return (tokens > 0).sum(axis=1)


def _hard(text: str, setting) -> Float[Array, 'h D']:
  """The embedded tokens of a text; none of no text."""
  table = jnp.asarray(setting.embedding, jnp.float32)
  if not text:
    return table[:0]
  if setting.encode is None:
    raise ValueError('hard: a text needs a vocabulary, found none.')
  return table[np.asarray(setting.encode(text))]


def _table(source: str | None, setting) -> Array:
  """The table of a classifier, or of the backbone."""
  own = setting.embedding
  if source is None:
    return own
  found = classifier.read_table(source)
  if found.shape != own.shape:
    raise ValueError(
      f'source: expected a table of {own.shape}, one row for each token of the '
      f'backbone, found {found.shape} in {source}. Train the classifier with '
      'this backbone.'
    )
  return found
