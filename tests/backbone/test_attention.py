"""Attention: folded projections, and where prefix keys stand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.backbone import attention, forward, layers
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone.t5 import T5
from tests import tiny


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


def test_prefix_positions_matter_only_with_a_prefix():
  config = tiny.CONFIG.replace(prefix_positions=True)

  def difference(name):
    args = tiny.frozen(), tiny.phi(name), tiny.batch()
    one = tiny.logits(name, tiny.CONFIG, *args)
    return np.abs(tiny.logits(name, config, *args) - one).max()

  assert difference(tiny.PLAIN) == 0
  assert difference('lora') == 0
  assert difference('prefix') > 1e-3


@pytest.mark.parametrize('positions', [False, True])
def test_a_prefix_is_what_tokens_before_the_sequence_would_be(positions):
  # keys and values made from two vectors, as a prefix and as tokens; without
  # positions their relative bias is 0
  params = tiny.frozen()['encoder']['layers_0']['attention']
  table = {'params': tiny.frozen()['encoder']['relpos_bias']}
  x = tiny.noise(jax.ShapeDtypeStruct((2, 6, 16), jnp.float32), scale=1.0)

  def bias(queries, keys):
    relative = layers.RelativeBias(tiny.CONFIG, bidirectional=True)
    return relative.apply(table, jnp.asarray(queries), jnp.asarray(keys))

  def attend(queries, keys, delta, **biases):
    return attention.Attention(tiny.CONFIG).apply(
      {'params': params, 'delta': delta},
      queries,
      keys,
      None,
      **biases,
    )

  @jax.jit
  def both(x):
    here, before = np.arange(4), np.arange(-2, 0)
    ahead = bias(here, before)
    ahead = ahead if positions else jnp.zeros_like(ahead)
    around = jnp.concatenate([ahead, bias(here, here)], axis=-1)
    tokens = attend(x[:, 2:], x, {}, bias=around)
    delta = {
      f'prefix_{kind}': x[:, :2] @ params[kind]['kernel']
      for kind in ('key', 'value')
    }
    own = {'prefix_bias': ahead} if positions else {}
    prefix = attend(x[:, 2:], x[:, 2:], delta, bias=bias(here, here), **own)
    return tokens, prefix

  tokens, prefix = both(x)
  np.testing.assert_allclose(prefix, tokens, atol=1e-5)


def test_prefix_positions_are_those_before_the_tokens_of_a_stack():
  # in stacks of one layer, a prefix made from embedded tokens is those tokens
  config = tiny.CONFIG.replace(
    num_encoder_layers=1, num_decoder_layers=1, prefix_positions=True
  )
  weights, data = tiny.frozen(config), tiny.batch()
  tokens = jnp.asarray([17, 30, 5])
  table = weights['token_embedder']['embedding']

  def prefix(stack, name):
    layer = weights[stack]['layers_0']
    norm = layers.RMSNorm(16, 'float32', 'float32', 1e-6)
    normed = norm.apply({'params': layer[f'pre_{name}_layer_norm']}, table)
    pair = {
      f'prefix_{kind}': normed[tokens] @ layer[name][kind]['kernel']
      for kind in ('key', 'value')
    }
    return {stack: {'layers_0': {name: pair}}}

  def before(x):
    return jnp.concatenate([jnp.tile(tokens, (x.shape[0], 1)), x], axis=1)

  @jax.jit
  def run(data):
    model = T5(config)
    inputs, targets = data['inputs'], data['targets']
    delta = prefix('encoder', 'attention')
    encoded = forward.encode(config, weights, delta, inputs)
    longer = forward.encode(config, weights, {}, before(inputs))
    delta = prefix('decoder', 'self_attention')
    pairs = [(encoded, longer[:, 3:])]
    outputs = [
      model.apply(
        {'params': weights, 'delta': own},
        encoded,
        inputs,
        decoded,
        enable_dropout=False,
        method=T5.decode,
      )
      for own, decoded in ((delta, targets), ({}, before(targets)))
    ]
    return [*pairs, (outputs[0], outputs[1][:, 3:])]

  for found, expected in run(data):
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_scanned_layers_take_prefix_positions_too():
  changes = {'prefix_positions': True}
  args = tiny.phi('prefix'), tiny.batch()
  configuration = tiny.CONFIG.replace(**changes)
  scanned = configuration.replace(scan_layers=True)
  one = tiny.logits('prefix', configuration, tiny.frozen(), *args)
  two = tiny.logits('prefix', scanned, tiny.frozen(scanned), *args)
  np.testing.assert_allclose(two, one, atol=2e-5)
