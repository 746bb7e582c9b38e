"""Meta-gradients against finite differences and one another; their memory."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import forward, weights
from prompt_subspace.meta import objectives as meta
from prompt_subspace.training import rows
from tests import tiny

SHALLOW = tiny.CONFIG.replace(num_encoder_layers=1, num_decoder_layers=1)
CONFIG = SHALLOW.replace(dtype='float64', weight_dtype='float64')
INNER = {
  'sgd': optax.sgd(0.2),
  'adam': optax.adam(0.05, eps_root=1e-6),
}


def by_ones(batch):
  """Of the three examples of a batch, whose lengths differ, one at a time."""
  assert batch['inputs'].ndim == 2, 'an episode or steps are left'
  return 1


KEY = tiny.key()
SPLITS = {'whole': None, 'by ones': by_ones}
DOUBLE = jax.enable_x64 if hasattr(jax, 'enable_x64') else None
if DOUBLE is None:
  from jax.experimental import enable_x64 as DOUBLE


@contextlib.contextmanager
def double():
  with DOUBLE(True):
    yield


def make(name):
  """A tiny float64 backbone, a method's phi, two episodes, the task loss."""
  flat = {
    path: np.asarray(x, np.float64)
    for path, x in trees.flatten(tiny.frozen(tiny.CONFIG)).items()
    if 'layers_1/' not in path
  }
  frozen = weights.assemble('tiny', CONFIG, trees.unflatten(flat), None).weights
  phi = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.float64), tiny.phi(name, config=SHALLOW)
  )

  def run(delta, batch, key):
    return forward.logits(CONFIG, frozen, delta, batch)

  task = objectives.task_loss(run, tiny.TABLE[name].expand)
  parts = [tiny.batch(seed) for seed in range(4)]
  stack = functools.partial(
    jax.tree.map, lambda *xs: jnp.stack([jnp.asarray(x) for x in xs])
  )
  batch = {'support': stack(*parts[:2]), 'query': stack(*parts[2:])}
  return task, phi, batch


@pytest.fixture(scope='module')
def case():
  with double():
    yield make('prompt')


def value_and_gradient(objective, phi, batch):
  """Both as numpy, with the gradient as one vector."""
  with double():
    run = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (loss, metrics), grads = run(phi, batch, jax.random.key(0))
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])
    assert flat.dtype == np.float64
    return float(loss), {k: float(v) for k, v in metrics.items()}, flat


def adapted(task, inner, steps, phi, support):
  """phi after the inner steps, by a plain loop."""
  state = inner.init(phi)
  for _ in range(steps):
    grads = jax.grad(lambda p: task(p, support, None)[0])(phi)
    updates, state = inner.update(grads, state, phi)
    phi = optax.apply_updates(phi, updates)
  return phi


def by_hand(task, inner, steps, phi, batch):
  """The adapted query loss, by a plain loop over episodes and steps."""
  total = 0.0
  for i in range(2):
    support, query = (
      jax.tree.map(lambda x, i=i: x[i], batch[n]) for n in ('support', 'query')
    )
    total += task(adapted(task, inner, steps, phi, support), query, None)[0]
  return total / 2


def differences(function, phi, directions, step=2e-7):
  """Central differences along random directions."""
  leaves, treedef = jax.tree.flatten(phi)
  sizes = np.cumsum([x.size for x in leaves])[:-1]

  def at(vector):
    parts = np.split(vector, sizes)
    moved = [x + p.reshape(x.shape) for x, p in zip(leaves, parts, strict=True)]
    return float(function(jax.tree.unflatten(treedef, moved)))

  return np.array(
    [(at(step * d) - at(-step * d)) / (2 * step) for d in directions]
  )


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('name', INNER)
def test_maml_is_the_gradient_of_the_adapted_loss(case, name, steps, split):
  task, phi, batch = case
  loss, metrics, grads = value_and_gradient(
    meta.maml(task, INNER[name], steps, split=SPLITS[split]), phi, batch
  )
  with double():
    function = jax.jit(
      functools.partial(by_hand, task, INNER[name], steps, batch=batch)
    )
    assert loss == pytest.approx(float(function(phi)), rel=1e-12)
    random = np.random.default_rng(0)
    directions = random.standard_normal((6, len(grads)))
    wanted = differences(function, phi, directions)
  # central differences err by step^2 times a large third derivative
  np.testing.assert_allclose(
    directions @ grads, wanted, atol=1e-6 * np.abs(wanted).max(), rtol=1e-6
  )
  assert metrics['displacement'] > 1e-3 and metrics['weight'] == 2


@pytest.mark.parametrize('name', ['prefix', 'lora', 'adapter'])
def test_every_method_can_be_meta_learned(name):
  with double():
    task, phi, batch = make(name)
    inner = INNER['sgd']
    _, metrics, grads = value_and_gradient(meta.maml(task, inner), phi, batch)
    function = jax.jit(functools.partial(by_hand, task, inner, 1, batch=batch))
    random = np.random.default_rng(0)
    directions = random.standard_normal((2, len(grads)))
    wanted = differences(function, phi, directions)
  np.testing.assert_allclose(
    directions @ grads, wanted, atol=1e-5 * np.abs(wanted).max(), rtol=1e-5
  )
  assert metrics['displacement'] > 1e-3


@pytest.mark.parametrize('split', SPLITS)
@pytest.mark.parametrize('name', INNER)
def test_both_modes_are_equal(case, name, split):
  task, phi, batch = case
  found = [
    value_and_gradient(
      meta.maml(task, INNER[name], 2, mode, split=SPLITS[split]), phi, batch
    )
    for mode in meta.MODES
  ]
  np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-9, atol=1e-12)
  assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)


def test_fomaml_is_the_gradient_at_the_adapted_point(case):
  task, phi, batch = case
  found = value_and_gradient(meta.fomaml(task, INNER['sgd'], 2), phi, batch)
  with double():
    wanted = []
    for i in range(2):
      support, query = (
        jax.tree.map(lambda x, i=i: x[i], batch[n])
        for n in ('support', 'query')
      )
      last = adapted(task, INNER['sgd'], 2, phi, support)
      grads = jax.grad(lambda p, q=query: task(p, q, None)[0])(last)
      wanted.append(np.ravel(jax.tree.leaves(grads)[0]))
  np.testing.assert_allclose(found[2], np.mean(wanted, axis=0), rtol=1e-9)
  second = value_and_gradient(meta.maml(task, INNER['sgd'], 2), phi, batch)
  assert found[0] == pytest.approx(second[0], rel=1e-12), 'the same loss'
  assert np.abs(found[2] - second[2]).max() > 1e-3 * np.abs(second[2]).max()


@pytest.mark.parametrize('name', INNER)
def test_reptile_is_the_way_back_from_where_the_steps_led(case, name):
  task, phi, batch = case
  found = value_and_gradient(
    meta.reptile(task, INNER[name], 3), phi, {'support': batch['support']}
  )
  with double():
    ways = []
    for i in range(2):
      support = jax.tree.map(lambda x, i=i: x[i], batch['support'])
      last = adapted(task, INNER[name], 3, phi, support)
      way = jax.tree.map(jnp.subtract, phi, last)
      ways.append(np.ravel(jax.tree.leaves(way)[0]))
  np.testing.assert_allclose(
    found[2], np.mean(ways, axis=0), rtol=1e-9, atol=1e-12
  )
  norms = [np.linalg.norm(w) for w in ways]
  assert found[1]['displacement'] == pytest.approx(np.mean(norms), rel=1e-9)


def test_a_batch_for_each_inner_step(case):
  """Steps on one batch twice are those on that batch given twice."""
  task, phi, batch = case
  twice = {
    'support': jax.tree.map(
      lambda x: np.stack([x, x], axis=1), batch['support']
    ),
    'query': batch['query'],
  }
  one = value_and_gradient(meta.maml(task, INNER['sgd'], 2), phi, batch)
  two = value_and_gradient(meta.maml(task, INNER['sgd'], 2), phi, twice)
  np.testing.assert_allclose(one[2], two[2], rtol=1e-9, atol=1e-12)
  other = dict(twice, support=jax.tree.map(np.array, twice['support']))
  other['support']['inputs'][:, 1, :, 0] = 9
  three = value_and_gradient(meta.maml(task, INNER['sgd'], 2), phi, other)
  assert np.abs(three[2] - two[2]).max() > 1e-6


@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('name', ['maml', 'fomaml', 'reptile'])
def test_examples_one_at_a_time_give_what_the_batch_gives(case, name, steps):
  """Three steps have batches of their own, all different."""
  task, phi, batch = case
  if steps > 1:
    turns = [
      jax.tree.map(lambda x, i=i: np.roll(x, i, axis=0), batch['support'])
      for i in range(steps)
    ]
    for i, turn in enumerate(turns):
      turn['inputs'][..., 0] += i
    support = jax.tree.map(lambda *xs: np.stack(xs, axis=1), *turns)
    batch = dict(batch, support=support)
  if name == 'reptile':
    batch = {'support': batch['support']}
  build = getattr(meta, name)
  whole, ones = (
    value_and_gradient(build(task, INNER['adam'], steps, split=s), phi, batch)
    for s in SPLITS.values()
  )
  assert ones[0] == pytest.approx(whole[0], rel=1e-10)
  assert ones[1] == pytest.approx(whole[1], rel=1e-10)
  np.testing.assert_allclose(
    ones[2], whole[2], rtol=1e-9, atol=1e-10 * np.abs(whole[2]).max()
  )


def test_keys_of_steps_examples_and_queries_differ():
  """A loss that is linear in phi and random tells each key that was used."""

  def task(phi, batch, key):
    return phi * jax.random.uniform(key), {'weight': jnp.float32(1)}

  batch = {'inputs': jnp.ones((1, 3, 2)), 'targets': jnp.ones((1, 3, 2))}
  seen = []

  def spy(grads, state, params=None):
    jax.debug.callback(lambda g: seen.append(float(g)), grads)
    return jax.tree.map(jnp.zeros_like, grads), state

  spying = optax.GradientTransformation(lambda _: (), spy)
  objective = meta.fomaml(task, spying, 4, split=by_ones)
  loss, _ = objective(jnp.float32(1), {'support': batch, 'query': batch}, KEY)
  jax.effects_barrier()
  assert len(seen) == 4 and len({*seen, float(loss)}) == 5
  whole = meta.fomaml(task, spying, 1)
  other, _ = whole(jnp.float32(1), {'support': batch, 'query': batch}, KEY)
  assert other != loss, 'each of the microbatches has a key of its own'


SMALL = CONFIG.replace(dtype='float32', weight_dtype='float32')


def small_task(frozen):
  """The task loss on a tiny backbone whose weights are arguments."""

  def run(delta, batch, key):
    return forward.logits(SMALL, frozen, delta, batch)

  return objectives.task_loss(run, tiny.TABLE['prompt'].expand)


def test_training_steps_take_the_frozen_weights_as_arguments():
  """As training does: weights that are arguments, or constants, are one."""
  frozen, phi = tiny.frozen(SMALL), tiny.phi('prompt')
  parts = [tiny.batch(seed) for seed in range(2)]
  support, query = (jax.tree.map(lambda x: x[None], part) for part in parts)
  batch = {'support': support, 'query': query}
  inner = optax.sgd(0.2)
  step = rows.make_step(
    lambda w: meta.maml(small_task(w), inner, 2, split=by_ones),
    optax.sgd,
    split=None,
  )
  state, metrics = step(
    rows.start([phi], optax.sgd),
    frozen,
    jax.tree.map(lambda x: x[None], batch),
    jnp.ones(1),
    KEY[None],
    0,
  )
  task = small_task(frozen)
  wanted = jax.jit(
    jax.value_and_grad(functools.partial(by_hand, task, inner, 2))
  )
  loss, grads = wanted(phi, batch)
  assert float(metrics['loss'][0]) == pytest.approx(float(loss), rel=1e-5)
  np.testing.assert_allclose(
    state.phi['encoder'][0], phi['encoder'] - grads['encoder'], atol=1e-5
  )


def temporary(build, batch) -> int:
  """Bytes that a compiled gradient needs besides arguments and results."""

  def run(frozen, phi, batch):
    objective = build(small_task(frozen))
    return jax.value_and_grad(objective, has_aux=True)(phi, batch, KEY)

  arguments = tiny.frozen(SMALL), tiny.phi('prompt'), batch
  compiled = jax.jit(run).lower(*arguments).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope='module')
def long():
  """An episode of eight long examples, for each support and query."""
  parts = [tiny.batch(i, inputs=(30,) * 8, targets=(10,) * 8) for i in range(2)]
  support, query = (jax.tree.map(lambda x: x[None], part) for part in parts)
  return {'support': support, 'query': query}


@pytest.mark.parametrize('name', INNER)
def test_inner_steps_add_copies_of_phi_and_state_alone(long, name):
  inner, phi = INNER[name], tiny.phi('prompt')
  kept = sum(x.nbytes for x in jax.tree.leaves((phi, inner.init(phi))))
  one, five, ten = (
    temporary(lambda t, k=k: meta.maml(t, inner, k, split=by_ones), long)
    for k in (1, 5, 10)
  )
  assert ten - five <= 5 * kept + 256
  # a single step is no loop, before which XLA computes what all of them share
  assert five - one <= 4 * kept + 0.5 * one
  assert one > 400 * kept, 'activations are what could have grown'


def test_first_order_steps_add_nothing(long):
  two, ten = (
    temporary(
      lambda t, k=k: meta.fomaml(t, INNER['adam'], k, split=by_ones), long
    )
    for k in (2, 10)
  )
  assert ten - two <= 256


def test_what_a_second_order_step_needs(long):
  inner = INNER['sgd']
  mixed, whole, other = (
    temporary(
      lambda t, m=mode, s=split: meta.maml(t, inner, 1, m, split=s), long
    )
    for mode, split in (
      (meta.MODES[0], by_ones),
      (meta.MODES[0], None),
      (meta.MODES[1], by_ones),
    )
  )
  assert mixed < 0.5 * other, 'forward over reverse keeps less'
  assert mixed < 0.25 * whole, 'an eighth of the activations'
  query = jax.tree.map(lambda x: x[0], long['query'])
  assert mixed < temporary(lambda t: t, query), 'than a plain step needs, whole'


def test_no_inner_rate_no_difference(case):
  """At an inner rate of 0 both MAMLs are the query loss, Reptile nothing."""
  task, phi, batch = case
  still = optax.sgd(0.0)
  second = value_and_gradient(meta.maml(task, still), phi, batch)
  first = value_and_gradient(meta.fomaml(task, still), phi, batch)
  np.testing.assert_allclose(second[2], first[2], rtol=1e-12)
  assert second[1]['displacement'] == 0
  back = value_and_gradient(meta.reptile(task, still), phi, batch)
  assert not back[2].any()


def test_bad_arguments_are_refused(case):
  task, phi, batch = case
  with pytest.raises(ValueError, match='mode: expected names among'):
    meta.maml(task, INNER['sgd'], mode='backwards')
  with pytest.raises(ValueError, match='steps: expected a whole number >= 1'):
    meta.reptile(task, INNER['sgd'], 0)
  wrong = meta.maml(task, INNER['sgd'], split=lambda batch: 2)
  with double(), pytest.raises(ValueError, match='a divisor of the batch size'):
    wrong(phi, batch, KEY)
