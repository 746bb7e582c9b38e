"""The backbone: its weights, and what must not change what it computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, layers, sites
from prompt_subspace.backbone.t5 import T5
from tests import tiny

# T5X's minimal T5: last names of a weight -> logical axes
AXES = {
  'token_embedder/embedding': ('vocab', 'embed'),
  'relpos_bias/rel_embedding': ('heads', 'relpos_buckets'),
  'scale': ('embed',),
  'query/kernel': ('embed', 'joined_kv'),
  'key/kernel': ('embed', 'joined_kv'),
  'value/kernel': ('embed', 'joined_kv'),
  'out/kernel': ('joined_kv', 'embed'),
  'wi/kernel': ('embed', 'mlp'),
  'wi_0/kernel': ('embed', 'mlp'),
  'wi_1/kernel': ('embed', 'mlp'),
  'wo/kernel': ('mlp', 'embed'),
  'logits_dense/kernel': ('embed', 'vocab'),
}

BOTH = [tiny.PLAIN, tiny.EVERYTHING]


def shapes_and_axes(config):
  """{path: shape} and {path: logical axes} of a backbone, unallocated."""
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  model = T5(config)
  found = jax.eval_shape(
    lambda key, x: model.init(key, x, x, x, enable_dropout=False),
    jax.random.key(0),
    tokens,
  )
  shapes = {p: x.shape for p, x in trees.flatten(found['params']).items()}
  axes = traverse_util.flatten_dict(found['params_axes'], sep='/')
  return shapes, {
    path.removesuffix('_axes'): tuple(x.names) for path, x in axes.items()
  }


def expected_axes(path):
  (axes,) = [a for end, a in AXES.items() if path.endswith(end)]
  return axes


def test_xxl_has_the_weights_and_axes_of_t5x():
  config = configs.sized('xxl', weight_dtype='bfloat16')
  shapes, axes = shapes_and_axes(config)
  assert len(shapes) == 558
  assert sum(int(np.prod(s)) for s in shapes.values()) == 11_135_332_352
  assert axes == {path: expected_axes(path) for path in shapes}
  size = {
    'vocab': 32128,
    'embed': 4096,
    'heads': 64,
    'relpos_buckets': 32,
    'joined_kv': 4096,
    'mlp': 10240,
  }
  for path, shape in shapes.items():
    assert shape == tuple(size[a] for a in axes[path]), path


def test_t5_1_0_has_one_inner_matrix_and_no_head():
  shapes, axes = shapes_and_axes(tiny.TIED)
  assert axes == {path: expected_axes(path) for path in shapes}
  assert 'decoder/logits_dense/kernel' not in shapes
  assert shapes['encoder/layers_1/mlp/wi/kernel'] == (16, 20)
  assert shapes['decoder/layers_0/self_attention/query/kernel'] == (16, 12)


def test_scanned_layers_stack_weights_and_axes():
  plain, _ = shapes_and_axes(tiny.CONFIG)
  shapes, axes = shapes_and_axes(tiny.CONFIG.replace(scan_layers=True))
  stacked = {}
  for path, shape in plain.items():
    one = path.replace('layers_0', 'layers').replace('layers_1', 'layers')
    stacked[one] = (2, *shape) if '/layers/' in one else shape
  assert shapes == stacked
  for path in shapes:
    more = ('layers',) if '/layers/' in path else ()
    assert axes[path] == (*more, *expected_axes(path))


@pytest.mark.parametrize('name', BOTH)
def test_longer_padding_changes_nothing(name):
  short, long = tiny.batch(), tiny.batch(pad=(5, 4))
  own = tiny.phi(name)
  one = tiny.logits(name, tiny.CONFIG, tiny.frozen(), own, short)
  two = tiny.logits(name, tiny.CONFIG, tiny.frozen(), own, long)
  real = np.asarray(short['targets']) > 0
  np.testing.assert_allclose(two[:, : one.shape[1]][real], one[real], atol=2e-5)
  losses = [
    objectives.cross_entropy(x, b['targets'])[0]
    for x, b in ((one, short), (two, long))
  ]
  np.testing.assert_allclose(*losses, rtol=1e-5)


def assert_same_gradients(name, changes, key=None, config=tiny.CONFIG):
  own, data = tiny.phi(name), tiny.batch()
  one = tiny.loss_and_grad(name, config, tiny.frozen(config), own, data, key)
  config = config.replace(**changes)
  two = tiny.loss_and_grad(name, config, tiny.frozen(config), own, data, key)
  np.testing.assert_allclose(one[0], two[0], rtol=1e-5)
  grads = two[1]
  if name == tiny.PLAIN:
    grads = sites.unstack_layers(grads, forward.layer_counts(config))
  assert jax.tree.structure(grads) == jax.tree.structure(one[1])
  for path, expected in trees.flatten(one[1]).items():
    assert np.abs(expected).max() > 0, path
    np.testing.assert_allclose(
      trees.flatten(grads)[path], expected, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize('name', BOTH)
def test_scan_with_remat_gives_the_same_gradients(name):
  assert_same_gradients(name, {'scan_layers': True, 'remat': True})


@pytest.mark.parametrize('setting', ['scan_layers', 'remat'])
def test_scan_or_remat_alone_gives_the_same_gradients(setting):
  assert_same_gradients(tiny.EVERYTHING, {setting: True})


def test_remat_repeats_the_same_dropout():
  config = tiny.CONFIG.replace(num_encoder_layers=1, num_decoder_layers=1)
  assert_same_gradients(tiny.PLAIN, {'remat': True}, tiny.key(3), config)


def test_dropout_is_decided_by_the_key():
  name = 'prefix'
  args = name, tiny.CONFIG, tiny.frozen(), tiny.phi(name), tiny.batch()
  off = tiny.logits(*args)
  keys = [tiny.key(i) for i in (0, 0, 1)]
  one, same, other = [tiny.logits(*args, key) for key in keys]
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - off).max() > 1e-2
  assert np.abs(one - other).max() > 1e-2


@pytest.mark.parametrize('name', ['prompt, decoder too', 'prefix'])
def test_dropout_of_an_example_does_not_depend_on_what_is_beside_it(name):
  """Nor on padding, though attention weights are as many as there are keys."""
  key, own, data = jax.random.key(2), tiny.phi(name), tiny.batch()
  args = name, tiny.CONFIG, tiny.frozen(), own
  whole = tiny.logits(*args, data, key)
  wide = tiny.logits(*args, tiny.batch(pad=(6, 0)), key)
  part = {n: x[1:] for n, x in data.items()} | {'examples': jnp.arange(1, 3)}
  np.testing.assert_allclose(wide, whole, atol=2e-5)
  np.testing.assert_allclose(
    tiny.logits(*args, part, key), whole[1:], atol=2e-5
  )
  # each has a mask of its own: the same example three times is three others
  same = {n: jnp.repeat(x[:1], 3, axis=0) for n, x in data.items()}
  one, two, three = tiny.logits(*args, same, key)
  assert np.abs(one - two).max() > 1e-2 < np.abs(two - three).max()


def test_dropout_drops_its_rate_and_keeps_the_mean():
  x = jnp.ones((64, 3, 5, 40))
  drop = layers.Dropout(0.25)
  kept = drop.apply({}, x, jnp.arange(64), rngs={'dropout': jax.random.key(0)})
  assert set(np.unique(kept)) == {0, np.float32(4 / 3)}
  # 7,680 draws: three standard deviations
  assert abs(float((kept == 0).mean()) - 0.25) < 3 * (0.1875 / 7680) ** 0.5
  # one mask for all positions, others for heads and examples
  np.testing.assert_array_equal(kept, jnp.repeat(kept[:, :, :1], 5, axis=2))
  assert len({bytes(np.asarray(m)) for m in kept.reshape(192, 200)}) == 192


def test_dropout_rate_zero_with_a_key_is_no_dropout():
  config = tiny.CONFIG.replace(dropout_rate=0.0)
  args = tiny.PLAIN, config, tiny.frozen(), {}, tiny.batch()
  off, on = tiny.logits(*args), tiny.logits(*args, tiny.key())
  np.testing.assert_allclose(on, off, atol=1e-6)


def pack(rows, width):
  """One row of all tokens, and the number of the example of each."""
  tokens = np.zeros((1, width), np.int32)
  segments = np.zeros((1, width), np.int32)
  start = 0
  for number, row in enumerate(rows, start=1):
    row = np.asarray(row)
    row = row[row > 0]
    tokens[0, start : start + len(row)] = row
    segments[0, start : start + len(row)] = number
    start += len(row)
  return jnp.asarray(tokens), jnp.asarray(segments)


@functools.partial(jax.jit, static_argnames=('name', 'config'))
def packed_logits(name, config, own, inputs, targets):
  # the first token of each example is its own start
  first = jnp.diff(targets[1], prepend=0) != 0
  return T5(config).apply(
    forward.variables(config, tiny.frozen(), tiny.expand(name, own)),
    inputs[0],
    jnp.where(first, 0, objectives.shift_right(targets[0])),
    targets[0],
    encoder_segment_ids=inputs[1],
    decoder_segment_ids=targets[1],
    enable_dropout=False,
  )


def apply_packed(name, config=tiny.CONFIG, own=None):
  data = tiny.batch()
  own = tiny.phi(name) if own is None else own
  inputs, targets = pack(data['inputs'], 16), pack(data['targets'], 14)
  logits = packed_logits(name, config, own, inputs, targets)
  return np.asarray(logits)[np.asarray(targets[0]) > 0]


@pytest.mark.parametrize('name', [tiny.PLAIN, 'prefix', 'adapter'])
def test_packed_examples_equal_separate_ones(name):
  data = tiny.batch()
  separate = tiny.logits(name, tiny.CONFIG, tiny.frozen(), tiny.phi(name), data)
  real = np.asarray(data['targets']) > 0
  np.testing.assert_allclose(
    apply_packed(name), np.asarray(separate)[real], atol=2e-5
  )


def test_packing_is_refused_where_examples_would_mix():
  with pytest.raises(ValueError, match='encoder_segment_ids.*a prompt'):
    apply_packed('prompt')
  own = {'decoder': tiny.phi('prompt, decoder too')['decoder']}
  with pytest.raises(ValueError, match='decoder_segment_ids.*a prompt'):
    apply_packed('prompt, decoder too', own=own)
  config = tiny.CONFIG.replace(prefix_positions=True)
  with pytest.raises(ValueError, match='segment_ids.*prefix_positions'):
    apply_packed('prefix', config=config)
  tokens = jnp.ones((1, 3), jnp.int32)
  with pytest.raises(ValueError, match='decoder_segment_ids'):
    T5(tiny.CONFIG).apply(
      {'params': tiny.frozen()},
      tokens,
      tokens,
      encoder_segment_ids=tokens,
      enable_dropout=False,
    )


@pytest.mark.parametrize('name', [tiny.PLAIN, 'full'])
@pytest.mark.parametrize('column', ['inputs', 'targets'])
def test_a_token_outside_of_the_vocabulary_gives_nan(name, column):
  data = tiny.batch()
  bad = {**data, column: data[column].at[1, 0].set(tiny.CONFIG.vocab_size)}
  found = tiny.logits(name, tiny.CONFIG, tiny.frozen(), tiny.phi(name), bad)
  loss, _ = objectives.cross_entropy(found, bad['targets'])
  assert np.isnan(loss)
  # and only in its own example
  assert np.isfinite(found[0]).all() and np.isfinite(found[2]).all()
