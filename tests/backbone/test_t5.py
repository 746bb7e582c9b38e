"""The backbone: its weights, and what must not change what it computes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from prompt_subspace import deltas, objectives, trees
from prompt_subspace.backbone import attention, forward, layers, sites
from prompt_subspace.backbone import config as configs
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


def test_unknown_activations_and_sizes_are_named():
  with pytest.raises(ValueError, match='mlp_activations.*swish'):
    shapes_and_axes(tiny.CONFIG.replace(mlp_activations=('swish',)))
  with pytest.raises(ValueError, match='size: expected one of.*mini.*huge'):
    configs.sized('huge')


@pytest.mark.parametrize('limits', [(32, 128), (32, 20), (8, 16)])
@pytest.mark.parametrize('bidirectional', [True, False])
def test_distance_buckets_equal_the_formula_in_whole_numbers(
  limits, bidirectional
):
  buckets, furthest = limits
  table = layers.distance_buckets(bidirectional, buckets, furthest)
  half = buckets // 2 if bidirectional else buckets
  exact = half // 2
  for relative in range(-furthest, furthest + 1):
    n = abs(relative) if bidirectional else max(-relative, 0)
    bucket = n
    if n >= exact:
      # floor(log(n/e) / log(m/e) * b) >= k  <=>  (n/e)^b >= (m/e)^k
      b = half - exact
      above = [k for k in range(b) if n**b * exact**k >= furthest**k * exact**b]
      bucket = exact + max(above)
    if bidirectional and relative > 0:
      bucket += half
    assert table[relative + furthest] == bucket, relative


@pytest.mark.parametrize('name', tiny.ALL)
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


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_every_delta_changes_the_logits(name):
  args = tiny.CONFIG, tiny.frozen()
  plain = tiny.logits(tiny.PLAIN, *args, {}, tiny.batch())
  found = tiny.logits(name, *args, tiny.phi(name), tiny.batch())
  assert np.abs(found - plain).max() > 1e-2


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


@pytest.mark.parametrize('name', tiny.ALL)
def test_scan_with_remat_gives_the_same_gradients(name):
  assert_same_gradients(name, {'scan_layers': True, 'remat': True})


@pytest.mark.parametrize('name', [tiny.PLAIN, 'lora'])
@pytest.mark.parametrize('setting', ['scan_layers', 'remat'])
def test_scan_or_remat_alone_gives_the_same_gradients(name, setting):
  assert_same_gradients(name, {setting: True})


def test_remat_repeats_the_same_dropout():
  config = tiny.CONFIG.replace(num_encoder_layers=1, num_decoder_layers=1)
  assert_same_gradients(tiny.PLAIN, {'remat': True}, tiny.key(3), config)


def test_scan_refuses_a_delta_in_some_layers_only():
  config = tiny.CONFIG.replace(scan_layers=True)
  delta = tiny.expand('lora', tiny.phi('lora'))
  del delta['encoder']['layers_1']
  with pytest.raises(ValueError, match='scan_layers=False'):
    forward.logits(config, tiny.frozen(config), delta, tiny.batch())


@pytest.mark.parametrize(
  'name', [tiny.PLAIN, 'lora', 'prefix, flat, cross too']
)
def test_folded_cross_attention_equals_the_plain_one(name):
  found = [
    tiny.logits(
      name,
      tiny.CONFIG.replace(fold_cross_attention=fold),
      tiny.frozen(),
      tiny.phi(name),
      tiny.batch(),
    )
    for fold in (False, True, None)
  ]
  np.testing.assert_allclose(found[1], found[0], atol=2e-5)
  np.testing.assert_allclose(found[2], found[0], atol=2e-5)


def test_folding_pays_for_few_queries_on_many_keys():
  config = configs.sized('small')
  assert attention.folding_pays(8, 228, config)
  assert not attention.folding_pays(228, 228, config)


@pytest.mark.parametrize('name', tiny.ALL)
def test_bfloat16_backbone_keeps_float32_phi_and_gradients(name):
  half = {'dtype': 'bfloat16', 'weight_dtype': 'bfloat16'}
  config = tiny.CONFIG.replace(**half)
  weights, own, data = tiny.frozen(config), tiny.phi(name), tiny.batch()
  assert {x.dtype for x in jax.tree.leaves(weights)} == {jnp.dtype('bfloat16')}
  loss, grads = tiny.loss_and_grad.eval_shape(name, config, weights, own, data)
  assert loss.dtype == jnp.float32
  kind = 'bfloat16' if name == tiny.PLAIN else 'float32'
  assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(kind)}


@pytest.mark.parametrize('name', [tiny.PLAIN, 'prefix', 'full'])
def test_bfloat16_backbone_is_near_the_float32_one(name):
  config = tiny.CONFIG.replace(dtype='bfloat16', weight_dtype='bfloat16')
  args = tiny.phi(name), tiny.batch()
  one = tiny.logits(name, tiny.CONFIG, tiny.frozen(), *args)
  two = tiny.logits(name, config, tiny.frozen(config), *args)
  # 8 bits of mantissa, through about 30 roundings in a row
  assert 0 < np.abs(two - one).max() < 30 * 2**-8 * np.abs(one).max()


def test_small_offsets_on_bfloat16_weights_are_not_lost():
  # 1 + 2^-10 is 1 in bfloat16: added there, the offset would vanish
  table = jnp.ones((60, 16), jnp.bfloat16)
  offset = jnp.full((60, 16), 2.0**-10)
  config = tiny.CONFIG.replace(weight_dtype='bfloat16')
  found = layers.Embedder(config).apply(
    {'params': {'embedding': table}, 'delta': {'embedding': offset}},
    jnp.asarray([[5]]),
  )
  np.testing.assert_array_equal(found, np.full((1, 1, 16), 1 + 2.0**-10))


@pytest.mark.parametrize('name', [tiny.PLAIN, 'prefix'])
def test_dropout_is_decided_by_the_key(name):
  args = name, tiny.CONFIG, tiny.frozen(), tiny.phi(name), tiny.batch()
  off = tiny.logits(*args)
  keys = [tiny.key(i) for i in (0, 0, 1)]
  one, same, other = [tiny.logits(*args, key) for key in keys]
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - off).max() > 1e-2
  assert np.abs(one - other).max() > 1e-2


def test_dropout_rate_zero_with_a_key_is_no_dropout():
  config = tiny.CONFIG.replace(dropout_rate=0.0)
  args = tiny.PLAIN, config, tiny.frozen(), {}, tiny.batch()
  off, on = tiny.logits(*args), tiny.logits(*args, tiny.key())
  np.testing.assert_allclose(on, off, atol=1e-6)


def test_prefix_positions_matter_only_with_a_prefix():
  config = tiny.CONFIG.replace(prefix_positions=True)

  def difference(name):
    args = tiny.frozen(), tiny.phi(name), tiny.batch()
    one = tiny.logits(name, tiny.CONFIG, *args)
    return np.abs(tiny.logits(name, config, *args) - one).max()

  assert difference(tiny.PLAIN) == 0
  assert difference('lora') == 0
  assert difference('prefix') > 1e-3


def test_prefix_positions_are_those_before_the_sequence():
  # A prefix made from a token's own keys and values at positions before the
  # sequence is what the token itself would be there.
  config = tiny.CONFIG.replace(prefix_positions=True)
  params = tiny.frozen()['encoder']['layers_0']['attention']
  table = {'params': tiny.frozen()['encoder']['relpos_bias']}
  x = tiny.noise(jax.ShapeDtypeStruct((2, 6, 16), jnp.float32), scale=1.0)
  delta = {
    f'prefix_{kind}': x[:, :2] @ params[kind]['kernel']
    for kind in ('key', 'value')
  }

  @tiny.jit
  def attend(x, delta, length):
    bias_of = layers.RelativeBias(config, True)
    here = jnp.arange(x.shape[1])
    before = jnp.arange(length.shape[0]) - length.shape[0]
    return attention.Attention(config).apply(
      {'params': params, 'delta': delta},
      x,
      x,
      None,
      bias_of.apply(table, here, here),
      prefix_bias=bias_of.apply(table, here, before),
      deterministic=True,
    )

  whole = attend(x, {}, jnp.zeros(0))
  found = attend(x[:, 2:], delta, jnp.zeros(2))
  np.testing.assert_allclose(found, whole[:, 2:], atol=1e-5)


def test_scanned_layers_take_prefix_positions_too():
  changes = {'prefix_positions': True}
  args = tiny.phi('prefix'), tiny.batch()
  configuration = tiny.CONFIG.replace(**changes)
  scanned = configuration.replace(scan_layers=True)
  one = tiny.logits('prefix', configuration, tiny.frozen(), *args)
  two = tiny.logits('prefix', scanned, tiny.frozen(scanned), *args)
  np.testing.assert_allclose(two, one, atol=2e-5)


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


@functools.partial(tiny.jit, static_argnames=('name', 'config'))
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


@pytest.mark.parametrize(
  'path',
  [
    'encoder/layers_7/attention/query/lora_a',
    'encoder/layers_0/self_attention/query/lora_a',
    'encoder/layers_0/mlp/prefix_key',
    'decoder/layers_0/self_attention/query/adapter_up',
    'token_embedder/prompt',
    'encoder/layers_0/attention/query/offset',
  ],
)
@pytest.mark.parametrize('scan', [False, True])
def test_a_leaf_that_no_module_reads_is_an_error(path, scan):
  config = tiny.CONFIG.replace(scan_layers=scan)
  leaves = {path: jnp.zeros((2, 2))}
  if scan and 'layers_0' in path:
    leaves[path.replace('layers_0', 'layers_1')] = jnp.zeros((2, 2))
  with pytest.raises(ValueError, match='delta: expected leaves at sites'):
    forward.variables(config, tiny.frozen(config), trees.unflatten(leaves))


def test_layers_stack_and_unstack():
  counts = forward.layer_counts(tiny.CONFIG)
  tree = tiny.frozen()
  stacked = sites.stack_layers(tree, counts)
  assert 'layers_0' not in stacked['encoder']
  back = sites.unstack_layers(stacked, counts)
  jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_only_leaves_with_an_own_axis_are_repeated():
  delta = {
    'encoder': {
      'prompt': jnp.arange(12.0).reshape(2, 3, 2),
      'encoder_norm': {'scale': jnp.asarray([[1.0, 2.0], [3.0, 4.0]])},
    },
    'decoder': {
      'prompt': jnp.ones((3, 2)),
      'decoder_norm': {'scale': jnp.asarray([5.0, 6.0])},
    },
  }
  found = sites.repeat(delta, 2)
  for i, j in itertools.product(range(2), range(2)):
    np.testing.assert_array_equal(
      found['encoder']['prompt'][2 * i + j], delta['encoder']['prompt'][i]
    )
    np.testing.assert_array_equal(
      found['encoder']['encoder_norm']['scale'][2 * i + j],
      delta['encoder']['encoder_norm']['scale'][i],
    )
  assert found['decoder']['prompt'].shape == (3, 2)
  assert found['decoder']['decoder_norm']['scale'].shape == (2,)


def test_decoder_only_deltas_leave_the_encoder_alone():
  method = deltas.prefix(length=2, hidden=None, where=('decoder',))
  delta = method.expand(method.init(tiny.key(), tiny.setting()))
  inputs = tiny.batch()['inputs']

  @tiny.jit
  def encode(delta):
    return forward.encode(tiny.CONFIG, tiny.frozen(), delta, inputs)

  np.testing.assert_array_equal(encode(delta), encode({}))
