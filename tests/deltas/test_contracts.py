"""Every method against every promise that a method makes.

A new method gets a row in `tests/tiny.VARIANTS`; formulas for its size go into
`COUNTS`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, weights
from prompt_subspace.deltas.base import Setting, touches_encoder
from tests import tiny

BASE = configs.sized('base')
SHAPES = weights.expected(BASE)

# method at T5 1.1 base -> trained parameters; the first three are the sizes
# that Yi et al. 2022 print
COUNTS = {
  'adapter': (deltas.adapter(rank=12), 60 * 2 * 768 * 12),
  'lora': (deltas.lora(rank=10), 36 * 2 * 2 * 768 * 10),
  'prefix': (
    deltas.prefix(length=120, hidden=24),
    2 * (120 * 768 + 768 * 24 + 24 * 12 * 2 * 768),
  ),
  'prefix, flat': (
    deltas.prefix(length=5, hidden=None, attentions=('self', 'cross')),
    36 * 2 * 5 * 768,
  ),
  'prompt': (deltas.prompt(length=100), 100 * 768),
  'prompt, decoder too': (
    deltas.prompt(length=100, decoder_length=7),
    107 * 768,
  ),
  'lora, feed-forward': (
    deltas.lora(rank=4, projections=('mlp',)),
    24 * 3 * 4 * (768 + 2048),
  ),
}
ZERO_EFFECT = ('lora', 'lora, everywhere', 'adapter', 'full')


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_count_is_the_formula(name):
  method, expected = COUNTS[name]
  setting = Setting(BASE, SHAPES)
  phi = jax.eval_shape(
    lambda key, table: method.init(
      key,
      setting._replace(
        weights={
          **setting.weights,
          'token_embedder': {'embedding': table},
        }
      ),
    ),
    jax.random.key(0),
    setting.embedding,
  )
  assert trees.size(phi) == expected


@pytest.mark.parametrize('name', ['adapter', 'lora', 'prefix'])
def test_the_published_sizes_are_equal(name):
  assert COUNTS[name][1] == 1_105_920


def test_full_has_every_weight():
  phi = jax.eval_shape(
    lambda key: deltas.full().init(key, Setting(BASE, SHAPES)),
    jax.random.key(0),
  )
  assert trees.flatten(phi).keys() == trees.flatten(SHAPES).keys()
  assert trees.size(phi) == trees.size(SHAPES)


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_gradient_has_the_tree_of_phi_and_reaches_every_leaf(name):
  phi = tiny.phi(name)
  _, grads = tiny.loss_and_grad(
    name, tiny.CONFIG, tiny.frozen(), phi, tiny.batch()
  )
  assert jax.tree.structure(grads) == jax.tree.structure(phi)
  for path, leaf in trees.flatten(grads).items():
    assert np.all(np.isfinite(leaf)), path
    assert np.any(leaf != 0), path


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_init_is_float32_and_a_function_of_the_key(name):
  init = tiny.VARIANTS[name].init
  one, same, other = (
    init(jax.random.key(seed), tiny.setting()) for seed in (0, 0, 1)
  )
  assert {x.dtype for x in jax.tree.leaves(one)} == {jnp.dtype('float32')}
  jax.tree.map(np.testing.assert_array_equal, one, same)
  if name != 'full':
    differs = jax.tree.map(lambda a, b: bool(np.any(a != b)), one, other)
    drawn = {p for p, d in trees.flatten(differs).items() if d}
    constant = {p for p, x in trees.flatten(one).items() if not np.any(x)}
    assert drawn == set(trees.flatten(one)) - constant


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_starts_without_effect_where_it_promises_to(name):
  phi = tiny.VARIANTS[name].init(jax.random.key(0), tiny.setting())
  batch = tiny.batch()
  plain = tiny.logits(tiny.PLAIN, tiny.CONFIG, tiny.frozen(), {}, batch)
  found = tiny.logits(name, tiny.CONFIG, tiny.frozen(), phi, batch)
  same = np.max(np.abs(found - plain)) < 1e-5
  assert same == (name in ZERO_EFFECT)


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_each_example_may_have_its_own_delta(name):
  batch = tiny.batch()
  size = batch['inputs'].shape[0]
  expanded = [tiny.expand(name, tiny.phi(name, seed)) for seed in range(size)]
  own = jax.tree.map(lambda *xs: jnp.stack(xs), *expanded)
  run = jax.jit(lambda w, d, b: forward.logits(tiny.CONFIG, w, d, b, None))
  together = run(tiny.frozen(), own, batch)
  for i, delta in enumerate(expanded):
    one = jax.tree.map(lambda x, i=i: x[i : i + 1], batch)
    alone = run(tiny.frozen(), delta, one)
    length = int((one['targets'] > 0).sum())
    # float32 sums in another order: some 1e-6 of logits of size 1
    np.testing.assert_allclose(
      together[i, :length], alone[0, :length], atol=2e-5
    )


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_expand_is_pure_and_compiles(name):
  phi = tiny.phi(name)
  before = jax.tree.map(np.array, phi)
  plain = tiny.expand(name, phi)
  compiled = jax.jit(lambda p: tiny.expand(name, p))(phi)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), plain, compiled
  )
  jax.tree.map(np.testing.assert_array_equal, phi, before)


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_float32_phi_under_a_bfloat16_backbone(name):
  config = tiny.CONFIG.replace(dtype='bfloat16', weight_dtype='bfloat16')
  phi = tiny.phi(name)
  _, grads = tiny.loss_and_grad.eval_shape(
    name, config, tiny.frozen(config), phi, tiny.batch()
  )
  trees.check_same(grads, phi, 'gradient')


def test_a_bfloat16_backbone_has_nearly_the_same_loss_and_gradient():
  config = tiny.CONFIG.replace(dtype='bfloat16', weight_dtype='bfloat16')
  args = tiny.phi(tiny.EVERYTHING), tiny.batch()
  loss, grads = tiny.loss_and_grad(
    tiny.EVERYTHING, config, tiny.frozen(config), *args
  )
  exact, slopes = tiny.loss_and_grad(
    tiny.EVERYTHING, tiny.CONFIG, tiny.frozen(), *args
  )
  # bfloat16 has 8 bits: 0.4% per rounding, some dozen of them in a row
  np.testing.assert_allclose(loss, exact, rtol=0.05)
  one, two = trees.ravel(grads)[0], trees.ravel(slopes)[0]
  cosine = one @ two / jnp.sqrt((one @ one) * (two @ two))
  assert cosine > 0.99


def test_the_registry_makes_every_method_and_names_the_known_ones():
  for name in deltas.METHODS:
    assert deltas.make(name).name == name
  with pytest.raises(ValueError, match=r"'adapter'.*'prompt'.*found \['lra'\]"):
    deltas.make('lra')


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_settings_make_the_same_method_again(name):
  method = tiny.VARIANTS[name]
  arguments = {
    k: tuple(v) if isinstance(v, list) else v
    for k, v in method.settings.items()
  }
  again = deltas.make(method.name, **arguments)
  assert again.settings == method.settings
  key = jax.random.key(3)
  jax.tree.map(
    np.testing.assert_array_equal,
    method.init(key, tiny.setting()),
    again.init(key, tiny.setting()),
  )


@pytest.mark.parametrize(
  'make, words',
  [
    (lambda: deltas.prompt(length=0), 'length: expected a whole number >= 1'),
    (lambda: deltas.prompt(start='zeros'), "found .*'zeros'"),
    (lambda: deltas.lora(rank=-1), 'rank: expected'),
    (lambda: deltas.lora(projections=('q',)), "projections: .*found .*'q'"),
    (lambda: deltas.lora(projections=()), 'at least one'),
    (lambda: deltas.adapter(sublayers=('ffn',)), "sublayers: .*'ffn'"),
    (lambda: deltas.adapter(sublayers=()), 'at least one'),
    (lambda: deltas.prefix(hidden=0), 'hidden: expected'),
    (lambda: deltas.prefix(length=2.5), 'length: expected.*found 2.5'),
    (lambda: deltas.lora(where=('middle',)), "where: .*'middle'"),
    (lambda: deltas.prefix(where=('all',)), "where: .*'all'"),
    (
      lambda: deltas.adapter(sublayers=('mlp',), where=('all',)),
      "where: .*'all'",
    ),
    (lambda: deltas.lora(projections=('mlp',), where=()), 'where: .*none'),
  ],
)
def test_bad_arguments_are_named(make, words):
  with pytest.raises(ValueError, match=words):
    make()


@pytest.mark.parametrize(
  'method, words',
  [
    (deltas.prefix(attentions=('cross',), where=('encoder',)), 'no attention'),
    (
      deltas.adapter(sublayers=('cross',), where=('encoder',)),
      'no attention',
    ),
    (deltas.lora(attentions=('both',)), "attentions: .*'both'"),
    (deltas.full(only=('nowhere',)), 'select nothing'),
  ],
)
def test_what_the_backbone_does_not_have_is_named(method, words):
  with pytest.raises(ValueError, match=words):
    method.init(jax.random.key(0), tiny.setting())


def test_which_methods_leave_the_encoder_alone():
  def touches(method):
    phi = method.init(jax.random.key(0), tiny.setting())
    return touches_encoder(method.expand(phi, None))

  assert not touches(deltas.prefix(where=('decoder',)))
  assert not touches(deltas.lora(where=('decoder',)))
  assert not touches(deltas.full(only=('decoder/',)))
  assert touches(deltas.prefix())
  assert touches(deltas.prompt(start='uniform'))
  assert touches(deltas.full(only=('token_embedder',)))
