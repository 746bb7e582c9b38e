"""Stage 1: the loss is the paper's, by hand; switches do what they say."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import objectives, reparams, trees
from prompt_subspace.backbone import forward
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.deltas.base import Frozen, bound
from prompt_subspace.reparams import subspace
from prompt_subspace.training import engine as engines
from prompt_subspace.training import optimizers, rows, spec
from prompt_subspace.unified import joint, spaces
from prompt_subspace.unified.joint import Joint
from tests import tiny

KINDS = ('adapter', 'lora', 'prefix')
Z, TASKS = 3, 2
# three types are compiled at once: one layer of each stack will do
CONFIG = tiny.CONFIG.replace(
  num_encoder_layers=1, num_decoder_layers=1, dropout_rate=0.0
)


def held(down=True):
  """Three types; their maps are large enough that everything shows."""
  kind = reparams.linear(down=down, scale=0.2)
  library = {n: tiny.VARIANTS[n] for n in KINDS}
  return spaces.sides(
    library, dict.fromkeys(KINDS, kind), tiny.setting(CONFIG), seed=5
  )


def solutions(sides):
  random = np.random.default_rng(3)
  return {
    n: (0.1 * random.standard_normal((TASKS, s.size))).astype(np.float32)
    for n, s in sides.items()
  }


def episodes(*tasks):
  """One batch of three examples for each of the given tasks."""
  one = tiny.batch()
  rows = one['targets'].shape[0]
  return {
    'support': {
      **jax.tree.map(
        lambda x: jnp.broadcast_to(x, (len(tasks), 1, *x.shape)), one
      ),
      'task': jnp.broadcast_to(
        jnp.asarray(tasks)[:, None, None, None], (len(tasks), 1, rows, 1)
      ),
    }
  }


def objective_of(sides, method, how):
  frozen = Frozen(tiny.frozen(CONFIG), method.constants)
  loss = engines.task_loss(CONFIG, method, frozen)
  return joint.objective(spaces.kinds(sides), how, loss, method.constants)


@functools.cache
def run(how, tasks=(1,), key=0):
  sides = held(how.pipeline == 'whole')
  method = joint.shared(sides, Z, 7, TASKS, how, solutions(sides))
  phi = method.init(jax.random.key(1), tiny.setting(CONFIG))
  if how.pipeline == 'short':
    phi['codes'] = 30 * phi['codes']
  else:
    # the codes of drawn down-projections are small: what they do would not show
    phi['maps'] = {
      n: {**m, 'down': 10 * m['down'], 'mix': 50 * m['mix']}
      for n, m in phi['maps'].items()
    }
  objective = objective_of(sides, method, how)
  loss, metrics = jax.jit(objective)(phi, episodes(*tasks), jax.random.key(key))
  return sides, method, phi, loss, metrics


def task_loss(sides, name, theta):
  """The loss of a displacement, computed without any map."""
  side = sides[name]
  phi = side.start.back(side.start.flat + theta)
  batch = tiny.batch()
  delta = side.start.method.delta(phi, batch, side.start.method.constants)
  logits = forward.logits(CONFIG, tiny.frozen(CONFIG), delta, batch)
  return objectives.cross_entropy(logits, batch['targets'])[0]


def by_hand(sides, method, phi, task, shares, how):
  """The whole pipeline's loss, in numpy but for the backbone."""
  own, total = {}, 0.0
  for name in KINDS:
    maps, theta = phi['maps'][name], method.constants['solutions'][name][task]
    own[name] = np.tanh(theta @ np.asarray(maps['down'])) @ maps['mix']
  mixed = sum(
    s * own[n] for s, n in zip(shares, how.order or KINDS, strict=True)
  )
  for name in KINDS:
    up = np.asarray(phi['maps'][name]['up'])
    theta = method.constants['solutions'][name][task]
    code = own[name] if how.target == 'own' else mixed
    distance = np.sum((code @ up - theta) ** 2)
    if not how.squared:
      distance = np.sqrt(distance)
    total += how.weight * distance + task_loss(sides, name, mixed @ up)
  return total / len(KINDS)


@pytest.mark.parametrize(
  'how',
  [
    Joint(),
    Joint(weight=0.1),
    Joint(target='own'),
    Joint(squared=False),
    Joint(order=('prefix', 'adapter', 'lora')),
  ],
  ids=str,
)
def test_the_loss_is_reconstruction_and_task_loss_of_the_mix(how):
  sides, method, phi, loss, metrics = run(how)
  key = jax.random.fold_in(jax.random.key(0), 0)
  shares = np.asarray(joint.mixing(key, 3))
  wanted = by_hand(sides, method, phi, 1, shares, how)
  # sums of a few hundred float32 terms, some of them 10 times as large
  assert float(loss) == pytest.approx(float(wanted), rel=2e-5)
  theta = method.constants['solutions']['lora'][1]
  assert 0 < float(metrics['distance lora']) != np.linalg.norm(theta)


def test_switches_change_the_loss():
  found = {
    str(h): float(run(h)[3])
    for h in (
      Joint(),
      Joint(target='own'),
      Joint(squared=False),
      Joint(weight=0.1),
      Joint(order=('prefix', 'adapter', 'lora')),
    )
  }
  assert len({round(x, 4) for x in found.values()}) == 5, found


def test_the_short_pipeline_has_a_code_for_each_task():
  how = Joint(pipeline='short')
  sides, method, phi, loss, metrics = run(how)
  assert phi['codes'].shape == (TASKS, Z)
  assert set(phi['maps']['lora']) == {'up'}
  thetas = {n: phi['codes'][1] @ phi['maps'][n]['up'] for n in KINDS}
  losses = {n: float(task_loss(sides, n, thetas[n])) for n in KINDS}
  assert float(loss) == pytest.approx(np.mean(list(losses.values())), rel=1e-5)
  for name in KINDS:
    assert float(metrics[f'loss {name}']) == pytest.approx(
      losses[name], rel=1e-5
    )
  assert len({round(x, 3) for x in losses.values()}) == 3
  assert 'distance lora' not in metrics


def test_episodes_are_averaged_each_with_its_own_task():
  how = Joint(pipeline='short')
  alone = [float(run(how, (t,))[3]) for t in range(TASKS)]
  both = float(run(how, (0, 1))[3])
  assert alone[0] != pytest.approx(alone[1], rel=1e-3)
  assert both == pytest.approx(np.mean(alone), rel=1e-5)


def test_shares_are_drawn_one_after_another():
  """alpha ~ U(0, 1), beta ~ U(0, 1 - alpha): means 1/2, 1/4, 1/4."""
  keys = jax.random.split(jax.random.key(0), 4000)
  drawn = np.asarray(jax.vmap(lambda k: joint.mixing(k, 3))(keys))
  np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-6)
  assert drawn.min() >= 0
  # three standard errors: the deviations are 0.29 and 0.22
  np.testing.assert_allclose(drawn.mean(axis=0), [0.5, 0.25, 0.25], atol=0.014)
  rest = drawn[:, 1] / (1 - drawn[:, 0])
  assert abs(np.corrcoef(rest, drawn[:, 0])[0, 1]) < 0.05


def test_only_maps_and_codes_are_trained():
  how = Joint(pipeline='short')
  _, method, phi, _, _ = run(how)
  assert set(phi) == {'maps', 'codes'}
  objective = objective_of(held(down=False), method, how)
  batch, key = episodes(1), jax.random.key(0)
  grads = jax.jit(jax.grad(lambda p: objective(p, batch, key)[0]))(phi)
  assert jax.tree.structure(grads) == jax.tree.structure(phi)
  for path, x in trees.flatten(grads['maps']).items():
    assert np.any(np.asarray(x)), path
  # the code of the task that was not seen stays
  assert np.any(grads['codes'][1]) and not np.any(grads['codes'][0])


def nested():
  """Two types, one of which has constants of its own: it is in a subspace."""
  found = subspace.subspace(
    tiny.VARIANTS['lora'], reparams.linear(down=False, scale=0.2), 6
  )
  library = {
    'prefix': tiny.VARIANTS['prefix'],
    'inside': bound(found, tiny.setting(CONFIG)),
  }
  kind = reparams.linear(down=False, scale=0.2)
  setting = tiny.setting(CONFIG)
  return spaces.sides(library, dict.fromkeys(library, kind), setting, seed=5)


def test_the_ordinary_engine_takes_the_step_of_stage_1():
  """With all that is frozen as an argument, a type's own constants too."""
  how, sides = Joint(pipeline='short'), nested()
  method = joint.shared(sides, Z, 7, TASKS, how)
  phi = method.init(jax.random.key(1), tiny.setting(CONFIG))
  phi['codes'] = 30 * phi['codes']
  backbone = Backbone('tiny', CONFIG, tiny.frozen(CONFIG), None, '')
  engine = engines.make(
    backbone,
    method,
    optimizers.sgd,
    spec.Settings(),
    phi,
    joint.algorithm(spaces.kinds(sides), how),
  )
  batch, key = episodes(1), jax.random.key(0)
  frozen = Frozen(backbone.weights, method.constants)
  rest = (
    frozen,
    jax.tree.map(lambda x: x[None], batch),
    jnp.full(1, 0.5),
    key[None],
    3,
  )
  state = rows.start([phi], optimizers.sgd)
  assert most_held(engine.step, state, *rest) <= 1, 'a weight or a constant'
  state, metrics = engine.step(state, *rest)

  at = jax.random.fold_in(key, 3)
  objective = objective_of(sides, method, how)
  (loss, _), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(
    phi, batch, at
  )
  assert float(metrics['loss'][0]) == pytest.approx(float(loss), rel=1e-6)
  theta = phi['codes'][1] @ phi['maps']['inside']['up']
  assert float(metrics['loss inside'][0]) == pytest.approx(
    float(task_loss(sides, 'inside', theta)), rel=1e-5
  )
  wanted = jax.tree.map(lambda p, g: p - 0.5 * g, phi, grads)
  for path, x in trees.flatten(wanted).items():
    found = trees.flatten(state.phi)[path][0]
    assert np.any(x != trees.flatten(phi)[path]), path
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-6, err_msg=path)


def most_held(function, *args):
  """The numbers in the largest float array that a compiled program holds."""

  def walk(closed):
    yield from closed.consts
    for equation in closed.jaxpr.eqns:
      for inner in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda x: isinstance(x, jax.extend.core.ClosedJaxpr),
      ):
        if isinstance(inner, jax.extend.core.ClosedJaxpr):
          yield from walk(inner)

  held = map(jnp.asarray, walk(jax.make_jaxpr(function)(*args)))
  floats = [x.size for x in held if jnp.issubdtype(x.dtype, jnp.floating)]
  return max(floats, default=0)


def test_phi_itself_has_no_delta():
  _, method, phi, _, _ = run(Joint())
  with pytest.raises(ValueError, match='type: .*adapter.*found .*maps'):
    method.delta(phi, tiny.batch(), method.constants)


def test_codes_have_a_rate_of_their_own():
  how = Joint(pipeline='short', code_rate=0.25)
  tx = joint.optimizer(optimizers.sgd, how)(0.1)
  phi = {'maps': {'a': {'up': jnp.ones(2)}}, 'codes': jnp.ones(3)}
  updates, _ = tx.update(phi, tx.init(phi), phi)
  np.testing.assert_allclose(updates['maps']['a']['up'], -0.1, rtol=1e-6)
  np.testing.assert_allclose(updates['codes'], -0.025, rtol=1e-6)
  assert joint.optimizer(optimizers.sgd, Joint()) is optimizers.sgd


def test_codes_after_stage_1_are_those_of_the_solutions():
  sides, method, phi, _, _ = run(Joint())
  codes = joint.codes_of(sides, method, phi, Joint())
  theta, maps = method.constants['solutions']['lora'][1], phi['maps']['lora']
  wanted = np.tanh(theta @ np.asarray(maps['down'])) @ maps['mix']
  np.testing.assert_allclose(codes['lora'][1], wanted, rtol=1e-4, atol=1e-6)
  assert not np.allclose(codes['lora'], codes['adapter'])


@pytest.mark.parametrize('trainable', [('adapter',), ()])
def test_maps_that_are_not_trained_are_found_again(trainable):
  """What is stored of phi has names of arrays alone."""
  how, sides = Joint(pipeline='short'), held(down=False)
  sides = {
    n: s._replace(reparam=reparams.fastfood(n in trainable, block=16))
    for n, s in sides.items()
  }
  method = joint.shared(sides, Z, 7, TASKS, how)
  phi = method.init(jax.random.key(1), tiny.setting(CONFIG))
  stored = trees.unflatten(trees.flatten(phi))
  assert set(stored.get('maps', {})) == set(trainable)
  wanted = spaces.draw(sides, Z, 7)
  found = joint.bases_of(method.constants, stored)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_mistakes():
  sides = held(down=False)
  with pytest.raises(ValueError, match='pipeline: expected maps with a down'):
    joint.check(Joint(), sides)
  joint.check(Joint(pipeline='short'), sides)
  for how, said in (
    (Joint(pipeline='long'), 'pipeline: .*short'),
    (Joint(target='all'), 'target: .*mix'),
    (Joint(order=('lora',)), 'order: expected each of .*adapter'),
  ):
    with pytest.raises(ValueError, match=said):
      joint.check(how, held())
