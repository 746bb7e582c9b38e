"""What each leaf of a delta does, by other means that must agree."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas, objectives, trees
from prompt_subspace.backbone import attention, forward, layers, sites
from prompt_subspace.backbone.t5 import T5
from tests import tiny


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_every_delta_changes_the_logits(name):
  args = tiny.CONFIG, tiny.frozen()
  plain = tiny.logits(tiny.PLAIN, *args, {}, tiny.batch())
  found = tiny.logits(name, *args, tiny.phi(name), tiny.batch())
  assert np.abs(found - plain).max() > 1e-2


def assert_equal_logits(config, delta, other, inputs=None):
  """Compares a delta with other weights, or with tokens before the inputs."""
  data = tiny.batch()
  weights = tiny.frozen(config)

  @jax.jit
  def both(delta, other, data):
    ours = forward.logits(config, weights, delta, data)
    more = data if inputs is None else {**data, 'inputs': inputs}
    return ours, forward.logits(config, other, {}, more)

  ours, theirs = both(delta, other, data)
  # the delta is no small thing
  plain = tiny.logits(tiny.PLAIN, config, weights, {}, data)
  assert np.abs(ours - plain).max() > 0.1
  np.testing.assert_allclose(ours, theirs, atol=3e-5)


@pytest.mark.parametrize('config', [tiny.CONFIG, tiny.TIED])
def test_offsets_are_added_to_their_weights(config):
  offset = tiny.phi('full', config=config)
  moved = jax.tree.map(jnp.add, tiny.frozen(config), offset)
  assert_equal_logits(config, offset, moved)


def test_lora_is_a_product_added_to_its_weight():
  # the table of contracts has a scale of 1.6 by default
  delta = trees.flatten(
    tiny.expand('lora, everywhere', tiny.phi('lora, everywhere'))
  )
  moved = trees.flatten(tiny.frozen())
  for path in [p for p in moved if p.endswith('kernel')]:
    site = path.removesuffix('/kernel')
    if f'{site}/lora_a' in delta:
      moved[path] += delta[f'{site}/lora_a'] @ delta[f'{site}/lora_b']
  own = trees.flatten(tiny.phi('lora, everywhere'))
  for path, b in own.items():
    if path.endswith('lora_b'):
      np.testing.assert_allclose(delta[path], 1.6 * b, rtol=1e-6)
  assert_equal_logits(
    tiny.CONFIG, trees.unflatten(delta), trees.unflatten(moved)
  )


def test_an_encoder_prompt_of_embeddings_is_tokens_before_the_input():
  tokens = jnp.asarray([17, 30, 5])
  table = tiny.frozen()['token_embedder']['embedding']
  inputs = tiny.batch()['inputs']
  before = jnp.broadcast_to(tokens, (inputs.shape[0], 3))
  assert_equal_logits(
    tiny.CONFIG,
    {'encoder': {'prompt': table[tokens]}},
    tiny.frozen(),
    jnp.concatenate([before, inputs], axis=1),
  )


def test_a_decoder_prompt_of_embeddings_is_tokens_before_the_targets():
  tokens = jnp.asarray([17, 30])
  table = tiny.frozen()['token_embedder']['embedding']
  data = tiny.batch()

  @jax.jit
  def both(data):
    delta = {'decoder': {'prompt': table[tokens]}}
    ours = forward.logits(tiny.CONFIG, tiny.frozen(), delta, data)
    shifted = objectives.shift_right(data['targets'])
    before = jnp.broadcast_to(tokens, (shifted.shape[0], 2))
    theirs = T5(tiny.CONFIG).apply(
      {'params': tiny.frozen()},
      data['inputs'],
      jnp.concatenate([before, shifted], axis=1),
      enable_dropout=False,
    )
    return ours, theirs[:, 2:]

  np.testing.assert_allclose(*both(data), atol=2e-5)


def test_an_adapter_is_its_formula():
  config = tiny.CONFIG
  params = tiny.frozen()['encoder']['layers_0']
  shape = jax.ShapeDtypeStruct((2, 4, 16), jnp.float32)
  x = tiny.noise(shape, scale=1.0)
  own = tiny.phi('adapter')['encoder']['layers_0']

  def run(name, delta):
    variables = {'params': params[name], 'delta': delta}
    if name == 'mlp':
      return layers.FeedForward(config).apply(variables, x, None)
    return attention.Attention(config).apply(variables, x, x, None, None)

  for name in ('mlp', 'attention'):
    y = np.asarray(run(name, {}), np.float64)
    inner = y @ np.asarray(own[name]['adapter_down'], np.float64)
    silu = inner / (1 + np.exp(-inner))
    expected = y + silu @ np.asarray(own[name]['adapter_up'], np.float64)
    np.testing.assert_allclose(run(name, own[name]), expected, atol=1e-5)


def test_scan_refuses_a_delta_in_some_layers_only():
  config = tiny.CONFIG.replace(scan_layers=True)
  delta = tiny.expand('lora', tiny.phi('lora'))
  del delta['encoder']['layers_1']
  with pytest.raises(ValueError, match='scan_layers=False'):
    forward.logits(config, tiny.frozen(config), delta, tiny.batch())


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

  @jax.jit
  def encode(delta):
    return forward.encode(tiny.CONFIG, tiny.frozen(), delta, inputs)

  np.testing.assert_array_equal(encode(delta), encode({}))
