"""Instance-wise prompts: what every strategy promises, on each base."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import decode, forward
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.instance import encoders, methods
from prompt_subspace.meta import objectives as meta_objectives
from prompt_subspace.training import engine as engines
from prompt_subspace.training import rows
from tests import tiny

CONFIG = tiny.CONFIG.replace(num_decoder_layers=1, dropout_rate=0.0)
K = 3
SMALL = {'length': K, 'hidden': 5}
# a tiny backbone's 0.5 % would not make an encoder
WIDE = {'share': 0.7, 'budget': 0.2, **SMALL}
TABLE = {
  'random': methods.random(**SMALL),
  'pretrained': methods.pretrained(**SMALL),
  'cnn': methods.encoder('cnn', **WIDE),
  'mlp': methods.encoder('mlp', **WIDE),
  'lstm': methods.encoder('lstm', **WIDE),
  'random, prefix': methods.random(base='prefix', **SMALL),
  'cnn, prefix': methods.encoder('cnn', base='prefix', **WIDE),
  'mlp, first layer': methods.encoder(
    'mlp', base='prefix', layers='first', **WIDE
  ),
}


@functools.cache
def bound(name):
  return deltas.bound(TABLE[name], tiny.setting(CONFIG))


@functools.cache
def phi(name, seed=0):
  """A phi as if trained: nothing in it is zero."""
  method = bound(name)
  start = jax.eval_shape(
    lambda key: method.init(key, tiny.setting(CONFIG)), jax.random.key(0)
  )
  return tiny.noise(start, seed, 0.5)


def delta(name, batch):
  method = bound(name)
  return method.delta(phi(name), batch, method.constants)


@functools.partial(jax.jit, static_argnames='name')
def logits(name, phi, batch):
  method = bound(name)
  made = method.delta(phi, batch, method.constants)
  return forward.logits(CONFIG, tiny.frozen(CONFIG), made, batch)


def pick(batch, i):
  return jax.tree.map(lambda x: x[i : i + 1], batch)


@pytest.mark.parametrize('name', TABLE)
def test_each_input_has_a_delta_of_its_own(name):
  batch = tiny.batch()
  flat = trees.flatten(delta(name, batch))
  own = {p: x for p, x in flat.items() if x.ndim == 3}
  assert own
  for path, x in own.items():
    differ = [np.abs(x[i] - x[j]).max() for i, j in ((0, 1), (1, 2))]
    assert min(differ) > 1e-3, path
  if 'prefix' not in name and 'layer' not in name:
    assert flat['encoder/prompt'].shape == (3, K, 16)
  if name == 'mlp, first layer':
    assert {p.split('/')[1] for p in own} == {'layers_0'}
    assert len(flat) > len(own)


@pytest.mark.parametrize('name', TABLE)
def test_a_batch_is_what_its_examples_are(name):
  batch = tiny.batch()
  together = logits(name, phi(name), batch)
  for i in range(3):
    alone = logits(name, phi(name), pick(batch, i))
    np.testing.assert_allclose(together[i], alone[0], atol=2e-5)


@pytest.mark.parametrize('name', TABLE)
def test_padding_changes_nothing(name):
  short, long = tiny.batch(), tiny.batch(pad=(6, 0))
  np.testing.assert_allclose(
    logits(name, phi(name), short), logits(name, phi(name), long), atol=2e-5
  )


@pytest.mark.parametrize('name', TABLE)
def test_the_gradient_is_of_phi_alone_and_all_of_it(name):
  method, batch = bound(name), tiny.batch()
  frozen = Frozen(tiny.frozen(CONFIG), method.constants)
  before = jax.tree.map(np.array, frozen)
  step = rows.make_step(
    lambda f: engines.task_loss(CONFIG, method, f), optax.sgd
  )
  state = rows.start([phi(name), phi(name, 1)], optax.sgd)
  both = jax.tree.map(lambda x: jnp.stack([x, x]), batch)
  keys = jnp.stack([jax.random.key(i) for i in range(2)])
  state, metrics = step(state, frozen, both, jnp.full(2, 0.1), keys, 0)
  jax.tree.map(np.testing.assert_array_equal, before, frozen)
  found = rows.to_rows(state.phi)
  assert jax.tree.structure(found[0]) == jax.tree.structure(phi(name))
  for (path, x), y in zip(
    trees.flatten(found[0]).items(),
    trees.flatten(phi(name)).values(),
    strict=True,
  ):
    assert np.any(x != np.asarray(y)), path
  # a row among others is what it is alone
  alone = rows.start([phi(name, 1)], optax.sgd)
  one = jax.tree.map(lambda x: x[None], batch)
  alone, single = step(alone, frozen, one, jnp.full(1, 0.1), keys[1:], 0)
  np.testing.assert_allclose(metrics['loss'][1], single['loss'][0], rtol=1e-5)


@pytest.mark.parametrize('name', TABLE)
def test_generation_with_the_cache_is_generation_without(name):
  """Greedy tokens are the argmax of logits that are computed whole."""
  batch = tiny.batch()
  made, frozen = delta(name, batch), tiny.frozen(CONFIG)
  tokens = np.asarray(decode.greedy(CONFIG, frozen, made, batch['inputs'], 4))
  again = {**batch, 'targets': jnp.asarray(tokens)}
  whole = np.asarray(forward.logits(CONFIG, frozen, made, again))
  for i, row in enumerate(tokens):
    for j, token in enumerate(row):
      assert token == whole[i, j].argmax()
      if token == 1:
        break
  plain = np.asarray(decode.greedy(CONFIG, frozen, {}, batch['inputs'], 4))
  assert not np.array_equal(tokens, plain)
  beams, _ = decode.beam(CONFIG, frozen, made, batch['inputs'], 4, 1)
  np.testing.assert_array_equal(np.asarray(beams), tokens)


def test_maml_of_an_encoder():
  method = bound('mlp')
  loss = engines.task_loss(
    CONFIG, method, Frozen(tiny.frozen(CONFIG), method.constants)
  )
  objective = meta_objectives.maml(loss, optax.sgd(0.5), 1)
  batch = {
    'support': jax.tree.map(lambda x: x[None, None], tiny.batch(1)),
    'query': jax.tree.map(lambda x: x[None], tiny.batch(2)),
  }
  key = jax.random.key(0)
  value, grads = jax.jit(
    jax.value_and_grad(lambda p: objective(p, batch, key)[0])
  )(phi('mlp'))
  assert np.isfinite(value)
  assert all(np.any(np.asarray(x)) for x in jax.tree.leaves(grads))


def test_rows_of_the_table_are_those_of_the_first_tokens():
  tokens = jnp.asarray([[5, 9, 1, 0, 0], [7, 1, 0, 0, 0]])
  made = delta('random', {'inputs': tokens})['encoder']['prompt']
  table = phi('random')['table']
  np.testing.assert_array_equal(made[0], table[jnp.asarray([5, 9, 1])])
  # filled up with the row of the padding
  np.testing.assert_array_equal(made[1], table[jnp.asarray([7, 1, 0])])
  short = delta('random', {'inputs': tokens[1:, :2]})['encoder']['prompt']
  np.testing.assert_array_equal(short[0], made[1])


@pytest.mark.parametrize('share, read', [(0.3, 15), (0.5, 25), (0.01, 1)])
def test_the_share_that_is_read_is_exact(share, read):
  # in float32, 0.3 of 50 is above 15
  assert np.ceil(np.float32(0.3) * np.float32(50)) == 16
  method = methods.encoder('mlp', share=share, budget=0.2, **SMALL)
  method = deltas.bound(method, tiny.setting(CONFIG))
  start = method.init(jax.random.key(0), tiny.setting(CONFIG))
  same = np.full(50, 7, np.int32)
  behind, within = same.copy(), same.copy()
  behind[read:], within[read - 1 :] = 9, 9
  batch = {'inputs': jnp.asarray([same, behind, within])}
  found = method.delta(start, batch, method.constants)['encoder']['prompt']
  np.testing.assert_array_equal(found[0], found[1])
  assert np.abs(found[0] - found[2]).max() > 1e-4


def test_an_encoder_reads_the_first_share_alone():
  method = deltas.bound(
    methods.encoder('mlp', share=0.5, budget=0.2, **SMALL),
    tiny.setting(CONFIG),
  )
  made = functools.partial(method.delta, phi('mlp'))

  def run(row):
    batch = {'inputs': jnp.asarray([row])}
    return np.asarray(made(batch, method.constants)['encoder']['prompt'])

  base = run([5, 6, 7, 8, 9, 1])
  # of six tokens the first three
  np.testing.assert_array_equal(base, run([5, 6, 7, 20, 21, 1]))
  assert not np.array_equal(base, run([5, 6, 20, 8, 9, 1]))


def test_segments_cover_the_tokens_once_and_evenly():
  found = np.asarray(encoders.segments(jnp.asarray([7, 2, 1]), 9, 3))
  assert found[0].sum(axis=1).tolist() == [2, 2, 3]
  assert found[0].sum(axis=0).tolist() == [1] * 7 + [0, 0]
  # fewer tokens than segments: none is empty, nothing behind the end is used
  assert (found.sum(axis=2) >= 1).all()
  assert not found[1][:, 2:].any() and not found[2][:, 1:].any()


def test_the_prefix_of_an_input_is_the_tasks_with_its_vectors_added():
  name = 'random, prefix'
  batch = tiny.batch()
  made = trees.flatten(delta(name, batch))
  held = phi(name)
  t = held['table'][batch['inputs'][0, :K]]
  moved = {
    n: {**part, 'table': part['table'] + t}
    for n, part in held['prefix'].items()
  }
  plain = deltas.prefix(length=K, hidden=5).expand(moved)
  for path, x in trees.flatten(plain).items():
    np.testing.assert_allclose(made[path][0], x, atol=1e-6, err_msg=path)


def test_words_may_stand_before_the_prompt():
  setting = tiny.setting(CONFIG)._replace(encode=lambda text: [4, 8])
  method = deltas.bound(methods.random(hard='sports news', **SMALL), setting)
  made = method.delta(phi('random'), tiny.batch(), method.constants)
  prompt = made['encoder']['prompt']
  assert prompt.shape == (3, 2 + K, 16)
  table = setting.embedding
  for row in prompt:
    np.testing.assert_array_equal(row[:2], table[jnp.asarray([4, 8])])


@pytest.mark.parametrize('layers', methods.LAYERS)
def test_words_stand_before_the_input_beside_a_prefix(layers):
  setting = tiny.setting(CONFIG)._replace(encode=lambda text: [4, 8])
  made = {}
  for hard in ('', 'sports news'):
    method = deltas.bound(
      methods.random(base='prefix', hard=hard, layers=layers, **SMALL), setting
    )
    held = method.init(jax.random.key(0), setting)
    found = method.delta(held, tiny.batch(), method.constants)
    made[hard] = trees.flatten(found)
  words = made['sports news'].pop('encoder/prompt')
  rows = setting.embedding[jnp.asarray([4, 8])]
  np.testing.assert_array_equal(words, jnp.broadcast_to(rows, (3, 2, 16)))
  jax.tree.map(np.testing.assert_array_equal, made['sports news'], made[''])


def test_a_convolution_and_its_pooling_are_those_of_flax():
  class Reference(nn.Module):
    @nn.compact
    def __call__(self, x, used):
      mask = jnp.arange(x.shape[1]) < used[:, None]
      for i in range(3):
        conv = nn.Conv(5, (3,), name=f'Conv_{i}')
        x = nn.relu(conv(x * mask[..., None])) * mask[..., None]
        x = nn.max_pool(x, (3,), strides=(1,), padding='SAME')
      chosen = encoders.segments(used, x.shape[1], K)
      return nn.Dense(4, name='Dense_0')(encoders._highest(x, chosen))

  x, used = jax.random.normal(jax.random.key(0), (2, 9, 4)), jnp.array([9, 4])
  ours, reference = encoders.TextCNN(5, K), Reference()
  start = reference.init(jax.random.key(1), x, used)
  jax.tree.map(
    np.testing.assert_array_equal, ours.init(jax.random.key(1), x, used), start
  )
  phi = tiny.noise(start, 0, 0.5)

  def run(module):
    return jax.value_and_grad(lambda p: (module.apply(p, x, used) ** 2).sum())

  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    run(ours)(phi),
    run(reference)(phi),
  )


@pytest.mark.parametrize(
  'size', ['mini', 'small', 'base', 'large', 'xl', 'xxl']
)
@pytest.mark.parametrize('kind', encoders.ENCODERS)
def test_an_encoder_has_half_a_percent_of_the_backbone(kind, size):
  config = configs.sized(size)
  whole = trees.size(backbones.expected(config))
  budget, dim = int(0.005 * whole), config.emb_dim
  width = encoders.width_for(kind, budget, 20, dim)
  count = encoders.parameters(kind, width, 20, dim)
  more = encoders.parameters(kind, width + 1, 20, dim)
  assert count <= budget < more
  # one more unit is a few percent of the smallest encoder
  assert count > 0.93 * budget


def test_a_card_makes_the_strategy_again():
  for name in ('random', 'cnn', 'mlp, first layer'):
    method = bound(name)
    again = deltas.bound(
      methods.make(method.name, **method.settings), tiny.setting(CONFIG)
    )
    assert again.settings == method.settings
    jax.tree.map(
      np.testing.assert_array_equal,
      delta(name, tiny.batch()),
      again.delta(phi(name), tiny.batch(), again.constants),
    )


def test_mistakes():
  for call, said in (
    (lambda: methods.random(base='lora'), 'base: .*prefix'),
    (lambda: methods.random(length=0), 'length: expected a whole number'),
    (lambda: methods.encoder('gru'), 'kind: .*lstm'),
    (lambda: methods.encoder(share=0), 'share: expected a share'),
    (lambda: methods.random(layers='last'), 'layers: .*first'),
    (lambda: methods.make('ipt_other'), 'method: .*ipt_random'),
    (
      lambda: deltas.bound(methods.encoder(budget=1e-4), tiny.setting(CONFIG)),
      'budget: expected at least .* Raise the budget',
    ),
    (
      lambda: methods.random().init(jax.random.key(0), tiny.setting()),
      'bound to a backbone',
    ),
    (
      lambda: (
        bound('pretrained')._replace()
        and deltas.bound(
          methods.pretrained('/nowhere'), tiny.setting(CONFIG)
        ).init(jax.random.key(0), tiny.setting(CONFIG))
      ),
      'source: expected a folder .* /nowhere',
    ),
  ):
    with pytest.raises(ValueError, match=said):
      call()
