"""A tiny backbone and perturbed deltas of every method, for many tests.

`VARIANTS` is the table of the contract tests: a new method gets a row here,
and every promise is then asked of it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prompt_subspace import deltas, objectives, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, weights
from prompt_subspace.deltas.base import Setting

# H * K is not D, and no two widths are equal, so that mix-ups show
CONFIG = configs.T5Config(
  vocab_size=60,
  emb_dim=16,
  num_heads=2,
  head_dim=6,
  mlp_dim=20,
  num_encoder_layers=2,
  num_decoder_layers=2,
)
TIED = CONFIG.replace(mlp_activations=('relu',), logits_via_embedding=True)

VARIANTS = {
  'prompt': deltas.prompt(length=3, start='uniform'),
  'prompt, decoder too': deltas.prompt(
    length=3, start='uniform', decoder_length=2
  ),
  'prefix': deltas.prefix(length=4, hidden=5),
  'prefix, flat, cross too': deltas.prefix(
    length=3, hidden=None, attentions=('self', 'cross')
  ),
  'lora': deltas.lora(rank=2),
  'lora, everywhere': deltas.lora(
    rank=2, projections=('query', 'key', 'value', 'out', 'mlp')
  ),
  'adapter': deltas.adapter(rank=3),
  'full': deltas.full(),
}


def _together(*names: str) -> deltas.Method:
  """All sites in use at once: what holds here holds for each method."""

  def init(key, setting):
    return {name: VARIANTS[name].init(key, setting) for name in names}

  def expand(phi, batch=None):
    parts = [VARIANTS[name].expand(phi[name], batch) for name in names]
    return trees.merge(*parts)

  return deltas.Method('together', init, expand)


EVERYTHING = 'everything at once'
TABLE = {
  **VARIANTS,
  EVERYTHING: _together(
    'prompt, decoder too',
    'prefix, flat, cross too',
    'lora, everywhere',
    'adapter',
    'full',
  ),
}
# with the backbone as it is, for tests that hold without a delta too
PLAIN = 'plain'


@functools.cache
def frozen(config: configs.T5Config = CONFIG, seed: int = 0) -> dict:
  """Random weights, norms included, with layers as the config wants them."""
  random = np.random.default_rng(seed)

  def draw(path, shape):
    noise = random.standard_normal(shape).astype(np.float32)
    if path.endswith('scale'):
      return 1 + 0.2 * noise
    if path.endswith('embedding'):
      return noise
    # T5's logits are not scaled by 1 / sqrt(K), so its queries are small
    fan_in = shape[0] * (config.head_dim if 'query' in path else 1)
    return noise / fan_in**0.5

  shapes = trees.flatten(weights.expected(config))
  drawn = {path: draw(path, x.shape) for path, x in shapes.items()}
  tree = trees.unflatten(drawn)
  # real arrays, even where the first call is inside a compiled function
  with jax.ensure_compile_time_eval():
    return weights.assemble('tiny', config, tree, None).weights


def setting(config: configs.T5Config = CONFIG, **fields) -> Setting:
  """What the initialisations read, with layers named one by one."""
  plain = config.replace(scan_layers=False, remat=False)
  return Setting(config, frozen(plain), **fields)


def noise(shapes, seed: int = 0, scale: float = 0.3):
  """A tree of the given shapes in which nothing is zero."""
  random = np.random.default_rng(seed)

  def draw(x):
    return jnp.asarray(scale * random.standard_normal(x.shape), jnp.float32)

  return jax.tree.map(draw, shapes)


def phi(name: str, seed: int = 0, config: configs.T5Config = CONFIG):
  """A phi of a variant as if trained; an empty one for the plain backbone."""
  if name == PLAIN:
    return {}
  init, known = TABLE[name].init, setting(config)
  start = jax.eval_shape(lambda key: init(key, known), jax.random.key(seed))
  # an offset of every weight adds up to more than the other deltas do
  return noise(start, seed, 0.05 if name in ('full', EVERYTHING) else 0.3)


def key(seed: int = 0) -> jax.Array:
  """A random key of the kind that compiles fastest."""
  return jax.random.key(seed, impl='unsafe_rbg')


def expand(name: str, phi, batch=None) -> dict:
  """The delta of a variant's phi."""
  return {} if name == PLAIN else TABLE[name].expand(phi, batch)


def batch(seed: int = 0, inputs=(7, 4, 1), targets=(5, 2, 4), pad=(0, 0)):
  """Examples of the given lengths, padded `pad` positions more than needed."""
  random = np.random.default_rng(seed)

  def tokens(lengths, more):
    rows = np.zeros((len(lengths), max(lengths) + more), np.int32)
    for row, n in zip(rows, lengths, strict=True):
      row[: n - 1] = random.integers(2, CONFIG.vocab_size, n - 1)
      row[n - 1] = 1
    return jnp.asarray(rows)

  return {'inputs': tokens(inputs, pad[0]), 'targets': tokens(targets, pad[1])}


@functools.partial(jax.jit, static_argnames=('name', 'config'))
def logits(name: str, config: configs.T5Config, weights, phi, batch, key=None):
  """Compiled logits of the backbone with a variant's delta."""
  return forward.logits(config, weights, expand(name, phi, batch), batch, key)


@functools.partial(jax.jit, static_argnames=('name', 'config'))
def loss_and_grad(name: str, config, weights, phi, batch, key=None):
  """Compiled loss and gradient: of phi, or, plain, of the weights."""

  def loss(trained):
    now, own = (trained, phi) if name == PLAIN else (weights, trained)
    found = forward.logits(config, now, expand(name, own, batch), batch, key)
    return objectives.cross_entropy(found, batch['targets'])[0]

  return jax.value_and_grad(loss)(weights if name == PLAIN else phi)
