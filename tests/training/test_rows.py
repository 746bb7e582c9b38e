"""Rows: each trains as if alone, phi alone is trained, a NaN stops one row."""

import functools
import types
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import forward
from prompt_subspace.training import rows
from tests import sample, tiny


def objective_of(backbone, method):
  """Frozen weights -> the task loss, with dropout where it is configured."""
  config = backbone.config

  def of(frozen):
    def run(delta, batch, key):
      key = key if config.dropout_rate else None
      return forward.logits(config, frozen, delta, batch, key)

    return objectives.task_loss(run, method.expand)

  return of


def batches(count, seed=0, inputs=(7, 4, 1, 3), targets=(5, 2, 4, 1)):
  """A batch of its own for each row."""
  each = [tiny.batch(seed + i, inputs, targets) for i in range(count)]
  return jax.tree.map(lambda *x: np.stack(x), *each)


def same(found, wanted, **tolerance):
  """Compares two trees leaf by leaf; bit by bit without a tolerance."""
  compare = functools.partial(
    np.testing.assert_allclose if tolerance else np.testing.assert_array_equal,
    **tolerance,
  )
  jax.tree.map(
    lambda a, b: compare(np.asarray(a), np.asarray(b)), found, wanted
  )


# -- a row alone and among others


@pytest.fixture(scope='module')
def sixteen(small):
  """16 rows that differ in all that rows differ in, and three of them alone."""
  method, seeds = tiny.VARIANTS['prompt'], [i % 3 for i in range(16)]
  keys = [
    rows.random_key(rows.row_key(seed, f'row {i}'))
    for i, seed in enumerate(seeds)
  ]
  phis = [method.init(key, sample.setting(small)) for key in keys]
  rates = np.geomspace(1e-3, 0.3, 16).astype(np.float32)
  data = [batches(16, 100 * number) for number in range(3)]

  def run(members, **options):
    step = rows.make_step(objective_of(small, method), optax.adam, **options)
    out = {}
    for stack in members:
      stack, losses = np.array(stack), []
      state = rows.start([phis[i] for i in stack], optax.adam)
      for number in range(3):
        state, metrics = step(
          state,
          small.weights,
          {name: x[stack] for name, x in data[number].items()},
          rates[stack],
          jnp.stack([keys[i] for i in stack]),
          number,
        )
        losses.append(metrics['loss'])
      for place, i in enumerate(stack.tolist()):
        out[i] = rows.to_rows((state.phi, np.stack(losses, 1)))[place]
    return out

  return run, run([[0], [6], [15]], chunk=lambda b: 1, split=lambda b: 4)


# by one, with accumulated gradients; by four; all at once
@pytest.mark.parametrize('chunk, microbatch', [(1, 2), (4, 1), (16, 4)])
def test_a_row_is_the_same_alone_and_among_16(sixteen, chunk, microbatch):
  run, alone = sixteen
  found = run([range(16)], chunk=lambda b: chunk, split=lambda b: microbatch)
  for i, wanted in alone.items():
    same(found[i], wanted, atol=2e-5, rtol=2e-5)
  # and they do differ
  assert len({float(losses[0]) for _, losses in found.values()}) == 16


# 2 MiB, of which half holds 3 rows of 8 x 20 positions through 5 layers of 4
@pytest.mark.parametrize(
  'stats, size', [({'bytes_limit': 2**21}, 3), ({'bytes_limit': 1}, 1)]
)
def test_rows_at_once_fit_into_half_the_memory(small, monkeypatch, stats, size):
  config = small.config.replace(
    num_encoder_layers=3, num_decoder_layers=2, emb_dim=4
  )
  device = types.SimpleNamespace(memory_stats=lambda: stats)
  monkeypatch.setattr(jax, 'local_devices', lambda: [device])
  assert rows.rows_at_once(8 * 20, config) == size


def test_rows_at_once_of_a_device_that_tells_nothing(small):
  # a CPU: rows are computed one by one anyway
  assert rows.rows_at_once(10**9, small.config) is None


def noise(phi, batch, key):
  """A loss whose gradient is the random draw of its key."""
  del batch
  draw = jax.random.normal(key, phi['p'].shape)
  return jnp.sum(phi['p'] * draw), {'weight': jnp.ones(())}


def test_random_draws_depend_on_row_and_step_alone():
  """Neither on the place in the stack nor on where training began."""
  names = ['a', 'b', 'c']
  step = rows.make_step(lambda frozen: noise, optax.sgd, split=lambda b: 1)

  def run(members, numbers):
    keys = jnp.stack([rows.random_key(rows.row_key(5, m)) for m in members])
    state = rows.start([{'p': jnp.zeros(4)}] * len(members), optax.sgd)
    batch, out = {'targets': jnp.ones((len(members), 1))}, []
    for number in numbers:
      before = np.array(state.phi['p'])
      state, _ = step(state, {}, batch, jnp.ones(len(members)), keys, number)
      out.append(np.asarray(state.phi['p']) - before)
    return np.stack(out, axis=1)

  whole = run(names, range(4))
  assert len(np.unique(whole)) == whole.size
  turned = run(['c', 'a'], range(2, 4))
  np.testing.assert_allclose(turned, whole[[2, 0], 2:], atol=1e-6)


@pytest.mark.parametrize(
  'count, chunk', [(1, 1), (1, 4), (3, 8), (7, 3), (8, 4)]
)
def test_map_rows_covers_all_rows(count, chunk):
  tree = {'a': jnp.arange(count * 2.0).reshape(count, 2), 'b': jnp.ones(count)}
  found = rows.map_rows(lambda r: r['a'].sum() + r['b'], tree, chunk)
  np.testing.assert_array_equal(found, np.asarray(tree['a']).sum(1) + 1)


@pytest.mark.parametrize(
  'count, chunk, sizes',
  [
    (6, 4, {3}),  # none left over
    (8, 4, {4}),
    (7, 3, {3, 1}),
    (5, 4, {4, 1}),  # one at a time would be much slower
    (10, None, {1}),
  ],
)
def test_rows_at_once_leave_none_over_if_they_can(count, chunk, sizes):
  seen = set()

  traced = jax.custom_batching.custom_vmap(lambda row: row + 0)

  @traced.def_vmap
  def _(axis_size, in_batched, row):
    seen.add(axis_size)
    return row + 0, True

  rows.map_rows(traced, jnp.arange(float(count)), chunk)
  assert (seen or {1}) == sizes


def test_a_row_is_named_by_seed_and_id_alone():
  assert rows.row_key(3, 'sst2-lora') == (3, zlib.crc32(b'sst2-lora'))
  keys = [(0, 'a'), (1, 'a'), (0, 'b')]
  drawn = {
    float(jax.random.normal(rows.random_key(rows.row_key(*k)))) for k in keys
  }
  assert len(drawn) == 3


def test_rows_of_one_stack_have_one_shape():
  with pytest.raises(ValueError, match='rows: .* found 2 different'):
    rows.start([{'a': np.ones(2)}, {'a': np.ones(3)}], optax.sgd)


# -- microbatches


def table_loss(phi, batch, key):
  """A model that one can see through: logits are rows of a table."""
  del key
  logits = (
    phi['table'][batch['inputs'][:, :1]]
    + phi['bias'] * batch['scale'][:, None, None]
  )
  logits = jnp.broadcast_to(logits, (*batch['targets'].shape, 6))
  loss, weight = objectives.cross_entropy(logits, batch['targets'])
  return loss, {'weight': weight, 'largest': logits.max()}


def table_batch():
  # 5, 1, 2 and 0 target tokens
  targets = [[1, 2, 3, 4, 5], [3, 0, 0, 0, 0], [2, 2, 0, 0, 0], [0] * 5]
  return {
    'inputs': jnp.array([[1, 2], [3, 1], [1, 1], [4, 0]]),
    'targets': jnp.array(targets),
    'scale': jnp.array([1.0, -2.0, 0.5, 3.0]),
  }


TABLE = {
  'table': np.random.default_rng(0).standard_normal((5, 6)).astype('f'),
  'bias': np.linspace(-1, 1, 6, dtype='f'),
}


@pytest.mark.parametrize('size', [1, 2])
def test_microbatches_give_the_gradient_of_the_whole_batch(size):
  run = jax.jit(
    lambda batch, size: rows.value_and_grad(
      table_loss, TABLE, batch, jax.random.key(0), size
    ),
    static_argnames='size',
  )
  batch = table_batch()
  whole, parts = run(batch, size=4), run(batch, size=size)
  same((parts[0], parts[2]), (whole[0], whole[2]), rtol=1e-5, atol=1e-7)
  assert parts[1]['weight'] == whole[1]['weight'] == 8
  # a plain mean over microbatches is something else
  each = [
    run({name: x[i : i + size] for name, x in batch.items()}, size=size)[0]
    for i in range(0, 4, size)
  ]
  assert abs(np.mean(each) - whole[0]) > 1e-3


@pytest.mark.parametrize('size', [1, 2])
def test_microbatches_have_the_dropout_of_the_whole_batch(small, size):
  config = small.config.replace(dropout_rate=0.2)
  method = tiny.VARIANTS['prompt']
  objective = objective_of(small._replace(config=config), method)(small.weights)
  phi = method.init(jax.random.key(0), sample.setting(small))
  batch = tiny.batch(0, (7, 4, 1, 3), (5, 2, 4, 1))
  key = jax.random.key(1)
  run = jax.jit(
    lambda size, key: rows.value_and_grad(objective, phi, batch, key, size),
    static_argnums=0,
  )
  whole, parts = run(4, key), run(size, key)
  same((parts[0], parts[2]), (whole[0], whole[2]), rtol=1e-4, atol=1e-6)
  assert abs(run(4, jax.random.key(2))[0] - whole[0]) > 1e-3


def test_a_microbatch_that_does_not_divide_the_batch_is_an_error():
  with pytest.raises(ValueError, match='microbatch: .* divisor .* 4, found 3'):
    rows.value_and_grad(table_loss, TABLE, table_batch(), None, 3)


@pytest.mark.parametrize(
  'shape, extra, width, size',
  [
    ((16, 64), 0, 512, 8),
    ((16, 64), 64, 512, 4),
    ((6, 900), 0, 512, 1),
    ((16, 64), 0, 256, 16),
    ((16, 64), 0, 1024, 4),
  ],
)
def test_microbatches_hold_about_640_positions_on_a_cpu(
  shape, extra, width, size
):
  if jax.default_backend() != 'cpu':
    size = shape[0]
  found = rows.microbatch_size({'inputs': np.zeros(shape)}, extra, width)
  assert found == size


# -- what is trained: the contract of every method


@pytest.fixture(scope='module')
def bfloat(small):
  """The small backbone, with weights and activations in bfloat16."""
  types = {'dtype': 'bfloat16', 'weight_dtype': 'bfloat16'}
  return sample.backbone(small.vocabulary, **types)


@pytest.mark.parametrize('name', tiny.VARIANTS)
def test_phi_alone_is_trained(bfloat, name):
  """Frozen bits stay, all of phi moves, in float32, by one program."""
  backbone = bfloat
  method, frozen = tiny.VARIANTS[name], backbone.weights
  before = jax.tree.map(lambda x: np.array(x, copy=True), frozen)
  start = method.init(jax.random.key(0), sample.setting(backbone))
  # at 0, one of a pair of factors has no gradient
  random = np.random.default_rng(0)
  start = jax.tree.map(
    lambda x: np.float32(x + 0.05 * random.standard_normal(x.shape)), start
  )
  state = rows.start([start], optax.sgd)
  step = rows.make_step(objective_of(backbone, method), optax.sgd)
  for number in range(3):
    state, metrics = step(
      state,
      frozen,
      batches(1, number),
      jnp.array([0.1]),
      jax.random.split(jax.random.key(0), 1),
      number,
    )
    assert np.isfinite(metrics['loss']).all()
  assert step._cache_size() == 1
  same(frozen, before)
  assert jax.tree.structure(state.phi) == jax.tree.structure(start)
  for path, x in trees.flatten(state.phi).items():
    assert x.dtype == jnp.float32, path
    moved = np.abs(np.asarray(x[0]) - np.asarray(trees.flatten(start)[path]))
    assert 1e-5 < moved.max() < 1, path
  # two moments of phi and a count: nothing that belongs to the backbone
  state = jax.eval_shape(lambda: rows.start([start], optax.adam))
  assert trees.size(state.optimizer) == 2 * trees.size(start) + 1


def test_gather_takes_each_rows_own_examples():
  data = {
    'inputs': jnp.arange(40).reshape(5, 8),
    'targets': jnp.arange(30).reshape(5, 6),
    'encoded': jnp.arange(80.0).reshape(5, 8, 2),
  }
  indices = jnp.array([[4, 0, 0], [1, 2, 3]])
  found = rows.gather(data, indices, 3, 2)
  for name, width in (('inputs', 3), ('targets', 2), ('encoded', 3)):
    wanted = np.asarray(data[name])[np.asarray(indices)][:, :, :width]
    np.testing.assert_array_equal(found[name], wanted)


# -- a row that goes wrong


def squares(phi, batch, key):
  """Mean of |phi - x|^2: a NaN in the batch is one in the loss."""
  del key
  return jnp.mean(jnp.square(phi['p'] - batch['x'])), {'weight': jnp.ones(())}


def run_squares(rates, poisoned=None, steps=5, value=np.nan):
  """States after each step; the batch of (row, step) may be poisoned."""
  step = rows.make_step(lambda frozen: squares, optax.adam, split=lambda b: 2)
  count = len(rates)
  starts = [{'p': np.full(3, i, np.float32)} for i in range(count)]
  state, out = rows.start(starts, optax.adam), []
  keys = jax.random.split(jax.random.key(0), count)
  for number in range(steps):
    x = np.random.default_rng(number).standard_normal((count, 2, 3))
    if poisoned and poisoned[1] == number:
      x[poisoned[0], 1] = value
    batch = {'x': jnp.asarray(x, jnp.float32), 'targets': jnp.ones((count, 2))}
    state, metrics = step(state, {}, batch, jnp.asarray(rates), keys, number)
    out.append((jax.tree.map(np.array, state), np.asarray(metrics['loss'])))
  return out


def row_of(state, i):
  return rows.to_rows((state.phi, state.optimizer))[i]


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_nan_stops_its_row_alone(value):
  rates = [0.1, 0.2, 0.3]
  good = run_squares(rates)
  found = run_squares(rates, poisoned=(1, 2), value=value)
  last = found[-1][0]
  np.testing.assert_array_equal(last.alive, [True, False, True])
  np.testing.assert_array_equal(last.stopped, [-1, 2, -1])
  assert not np.isfinite(found[2][1][1]), 'the loss says so'
  # its phi and moments are those after two steps; it does not come back
  same(row_of(last, 1), row_of(good[1][0], 1))
  for i in (0, 2):
    same(row_of(last, i), row_of(good[-1][0], i))


@pytest.mark.parametrize('rate', [np.inf, np.nan])
def test_a_row_whose_update_overflows_keeps_its_start(rate):
  state = run_squares([0.1, rate])[-1][0]
  np.testing.assert_array_equal(state.alive, [True, False])
  np.testing.assert_array_equal(state.stopped, [-1, 0])
  np.testing.assert_array_equal(state.phi['p'][1], np.ones(3))
  assert (state.phi['p'][0] != 0).all()


# -- the best phi


def test_the_best_phi_is_kept_for_each_row():
  state = rows.start([{'p': jnp.full(2, i)} for i in range(4)], optax.sgd)
  state = state._replace(alive=jnp.array([True, True, True, False]))
  given = [
    [50.0, 70.0, np.nan, 90.0],
    [60.0, 70.0, -3.0, 90.0],
    [55.0, 69.0, np.nan, 90.0],
  ]
  for number, scores in enumerate(given, start=1):
    state = state._replace(phi=jax.tree.map(lambda x: x + 10.0, state.phi))
    state = rows.keep_best(state, jnp.array(scores), 100 * number)
  # the first of equals; a NaN is never best; nor is a row that stopped
  np.testing.assert_array_equal(state.best_step, [200, 100, 200, 0])
  np.testing.assert_array_equal(state.best_score, [60, 70, -3, -np.inf])
  best = np.asarray(rows.to_rows(state.best)[0]['p'])
  np.testing.assert_array_equal(best, [20, 20])
  np.testing.assert_array_equal(state.best['p'][:, 0], [20, 11, 22, 3])
