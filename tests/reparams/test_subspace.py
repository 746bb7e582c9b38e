"""A method in a subspace is a method: in training, in files, in recipes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas, objectives, reparams, trees
from prompt_subspace.backbone import forward
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.meta import objectives as meta_objectives
from prompt_subspace.reparams import subspace
from prompt_subspace.training import engine as engines
from prompt_subspace.training import rows
from tests import tiny

CONFIG = tiny.CONFIG.replace(dropout_rate=0.0)
METHODS = ('prompt', 'prefix', 'lora', 'adapter', 'full')
MAPS = {n: reparams.make(n) for n in ('linear', 'fastfood', 'kronecker')}


def bound(method='lora', kind='linear', size=4, **fields):
  found = subspace.subspace(tiny.VARIANTS[method], MAPS[kind], size, **fields)
  return deltas.bound(found, tiny.setting())


def flat(tree):
  return np.asarray(trees.ravel(tree)[0])


@pytest.mark.parametrize('kind', MAPS)
@pytest.mark.parametrize('method', METHODS)
def test_the_delta_is_that_of_origin_plus_expansion(method, kind):
  found = bound(method, kind, seed=3)
  plain = tiny.VARIANTS[method]
  phi = {'code': jnp.arange(4.0)}
  start = plain.init(jax.random.key(3), tiny.setting())
  basis = found.constants['basis']
  theta = MAPS[kind].expand(basis, phi['code'])
  wanted = plain.expand(
    trees.ravel(start)[1](trees.ravel(start)[0] + theta), {}
  )
  delta = found.delta(phi, {}, found.constants)
  assert jax.tree.structure(delta) == jax.tree.structure(wanted)
  np.testing.assert_allclose(flat(delta), flat(wanted), rtol=1e-5, atol=1e-6)
  # all that is trained is the code
  shapes = found.init(jax.random.key(0), tiny.setting())
  assert jax.tree.map(np.shape, shapes) == {'code': (4,)}


def test_the_start_is_the_origin_or_spread_around_it():
  assert not np.any(bound().init(jax.random.key(0), tiny.setting())['code'])
  found = bound(size=400, spread=0.5)
  code = found.init(jax.random.key(0), tiny.setting())['code']
  assert np.std(code) == pytest.approx(0.5, rel=0.15)


def test_the_origin_is_the_same_for_all_tasks():
  labels = tiny.setting()._replace(labels=((3,), (4, 5)))
  method = deltas.prompt(length=3, start='uniform')
  found = [
    deltas.bound(subspace.subspace(method, MAPS['linear'], 2), s).constants
    for s in (tiny.setting(), labels)
  ]
  np.testing.assert_array_equal(found[0]['origin'], found[1]['origin'])


def test_a_subspace_of_a_subspace():
  inner = subspace.subspace(tiny.VARIANTS['lora'], MAPS['linear'], 6)
  outer = deltas.bound(
    subspace.subspace(inner, MAPS['linear'], 2, seed=1), tiny.setting()
  )
  assert outer.constants['basis']['up'].shape == (2, 6)
  delta = outer.delta({'code': jnp.ones(2)}, {}, outer.constants)
  assert set(trees.flatten(delta)) == set(trees.flatten(tiny.phi('lora')))


def nested(seed=0):
  inner = subspace.subspace(tiny.VARIANTS['lora'], MAPS['linear'], 6, seed)
  return deltas.bound(
    subspace.subspace(inner, MAPS['linear'], 2, seed=1), tiny.setting()
  )


def test_constants_of_the_inner_method_are_arguments_too():
  """What is compiled holds none of them, and follows those it is given."""
  phi, one, other = {'code': jnp.ones(2)}, nested(0), nested(5)
  traced = jax.make_jaxpr(lambda p, c: one.delta(p, {}, c))(phi, one.constants)
  assert not [x for x in traced.consts if np.size(x) > 1]
  found = one.delta(phi, {}, other.constants)
  wanted = other.delta(phi, {}, other.constants)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)
  assert np.any(flat(found) != flat(one.delta(phi, {}, one.constants)))


def test_the_fingerprint_is_of_all_constants():
  one, other = nested(0), nested(5)
  outer = ('origin', 'basis')
  same = {n: one.constants[n] for n in outer}
  jax.tree.map(
    np.testing.assert_array_equal, same, {n: other.constants[n] for n in outer}
  )
  assert one.settings['fingerprint'] != other.settings['fingerprint']
  # and where the inner method has none, of origin and basis as ever
  plain = bound()
  assert set(plain.constants) == set(outer)
  digest = trees.fingerprint({n: plain.constants[n] for n in outer})
  assert plain.settings['fingerprint'] == digest


def task(method):
  def of(frozen):
    return engines.task_loss(CONFIG, method, frozen)

  return of


@pytest.mark.parametrize('kind', MAPS)
def test_training_moves_the_code_and_nothing_else(kind):
  method = bound('lora', kind, spread=0.1)
  phis = [method.init(jax.random.key(i), tiny.setting()) for i in range(2)]
  import optax

  step = rows.make_step(task(method), optax.sgd)
  frozen = Frozen(tiny.frozen(), method.constants)
  before = jax.tree.map(np.array, frozen)
  state = rows.start(phis, optax.sgd)
  batch = jax.tree.map(lambda x: jnp.stack([x, x]), tiny.batch())
  keys = jnp.stack([jax.random.key(i) for i in range(2)])
  losses = []
  for number in range(3):
    state, metrics = step(state, frozen, batch, jnp.full(2, 0.5), keys, number)
    losses.append(np.asarray(metrics['loss']))
  assert (losses[-1] < losses[0]).all()
  jax.tree.map(np.testing.assert_array_equal, before, frozen)
  # maps are arguments of the step, and not part of the program
  for phi, row in zip(phis, rows.to_rows(state.phi), strict=True):
    assert np.any(row['code'] != np.asarray(phi['code']))


def test_maml_in_a_space_of_16_dimensions():
  """The meta-gradient of the code, against central differences."""
  found = subspace.subspace(
    tiny.VARIANTS['prompt'], reparams.linear(down=False, scale=0.3), 16
  )
  method = deltas.bound(found, tiny.setting())
  frozen = Frozen(tiny.frozen(), method.constants)
  loss = engines.task_loss(CONFIG, method, frozen)
  import optax

  objective = meta_objectives.maml(loss, optax.sgd(0.5), 1)
  support = jax.tree.map(lambda x: x[None, None], tiny.batch(1))
  query = jax.tree.map(lambda x: x[None], tiny.batch(2))
  batch = {'support': support, 'query': query}
  phi = {'code': 0.3 * jax.random.normal(jax.random.key(4), (16,))}
  key = jax.random.key(0)
  value = jax.jit(lambda p: objective(p, batch, key)[0])
  grad = jax.jit(jax.grad(lambda p: objective(p, batch, key)[0]))(phi)['code']
  along = np.asarray(jax.random.normal(jax.random.key(5), (16,)))
  step = 1e-3
  moved = [
    float(value({'code': phi['code'] + s * step * along})) for s in (1, -1)
  ]
  finite = (moved[0] - moved[1]) / (2 * step)
  # float32 losses of 5 are off by 5e-7: the quotient by 5e-4
  assert float(grad @ along) == pytest.approx(finite, rel=1e-2, abs=2e-3)


def test_a_card_makes_the_method_again():
  method = bound('lora', 'fastfood', seed=5, spread=0.1)
  assert len(method.settings['fingerprint']) == 64
  again = deltas.bound(
    subspace.again(method.settings, deltas.make, reparams.make),
    tiny.setting(),
  )
  assert again.settings == method.settings
  phi = {'code': jnp.ones(4)}
  jax.tree.map(
    np.testing.assert_array_equal,
    method.delta(phi, {}, method.constants),
    again.delta(phi, {}, again.constants),
  )


def test_a_map_that_is_drawn_otherwise_is_refused():
  method = bound('lora', 'fastfood', seed=5)
  other = {**method.settings, 'seed': 6}
  made = subspace.again(other, deltas.make, reparams.make)
  with pytest.raises(ValueError, match='fingerprint: .* drawn otherwise here'):
    deltas.bound(made, tiny.setting())
  learned = {k: v for k, v in method.settings.items() if k != 'seed'}
  with pytest.raises(ValueError, match='subspace: .* learned'):
    subspace.again(learned, deltas.make, reparams.make)


def test_an_unbound_method_says_so():
  found = subspace.subspace(tiny.VARIANTS['lora'], MAPS['linear'], 4)
  with pytest.raises(ValueError, match='bound to a backbone'):
    found.init(jax.random.key(0), tiny.setting())
  with pytest.raises(ValueError, match='size: expected a whole number'):
    subspace.subspace(tiny.VARIANTS['lora'], MAPS['linear'], 0)


def test_a_full_offset_adds_no_second_copy_of_the_model():
  """The step's extra memory, by the compiler: the offset and its gradient,
  activations, and not yet another copy of the weights for each of them."""
  config = tiny.CONFIG.replace(vocab_size=20000, emb_dim=64, dropout_rate=0.0)
  from prompt_subspace.backbone import weights

  shapes = weights.expected(config)
  setting = deltas.Setting(config, shapes)
  found = deltas.bound(
    subspace.subspace(deltas.full(), reparams.fastfood(), 8), setting
  )

  def loss(phi, frozen, constants, batch):
    delta = found.delta(phi, batch, constants)
    logits = forward.logits(config, frozen, delta, batch)
    return objectives.cross_entropy(logits, batch['targets'])[0]

  step = jax.jit(jax.value_and_grad(loss))
  phi = {'code': jnp.zeros(8)}
  compiled = step.lower(phi, shapes, found.constants, tiny.batch()).compile()
  model = trees.nbytes(shapes)
  extra = compiled.memory_analysis().temp_size_in_bytes
  # offset, weight + offset (as they are used), and gradients of them
  assert extra < 4.5 * model, extra / model
