"""A stack: killed and resumed it ends the same; test scores are of the best."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import weights
from prompt_subspace.data import arrays
from prompt_subspace.training import engine as engines
from prompt_subspace.training import optimizers, spec, stack
from prompt_subspace.training import rows as stack_rows
from tests import sample

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = spec.Settings(
  steps=24,
  batch_size=4,
  evaluate_every=3,
  evaluation_batch=8,
  checkpoint_seconds=0,
)
RATES = {'slow': 0.01, 'fast': 0.1, 'lost': np.inf}
# quick to compile, and quick to learn
METHOD = deltas.full(only=('token_embedder', 'decoder/logits_dense'))


class Killed(BaseException):
  """Stands for a kill in the middle of a step."""


def rows_of(backbone, tasks=('invented',), method=METHOD):
  """A row at each rate, of the tasks in turn."""
  setting = sample.setting(backbone)
  return [
    spec.RowSpec(
      id=name,
      task=tasks[i % len(tasks)],
      seed=i,
      rate=rate,
      phi=method.init(jax.random.key(i), setting),
    )
    for i, (name, rate) in enumerate(RATES.items())
  ]


class Record:
  """What was fed and computed at each step."""

  def __init__(self):
    self.numbers, self.batches, self.losses, self.phi = [], [], [], None

  def watch(self, engine, before=None):
    """The engine, recorded, with something that happens before each step."""

    def step(state, frozen, batch, rates, keys, number):
      if before:
        before(number)
      state, metrics = engine.step(state, frozen, batch, rates, keys, number)
      self.numbers.append(number)
      self.batches.append(batch)
      self.losses.append(np.asarray(metrics['loss']))
      self.phi = jax.tree.map(np.array, state.phi)
      return state, metrics

    return engine._replace(step=step)


class Case:
  """One stack, with its compiled functions, for runs under many conditions."""

  def __init__(self, backbone):
    self.backbone = backbone
    self.tasks = {'invented': sample.task(backbone.vocabulary)}
    self.specs = rows_of(backbone)
    self.optimizer = optimizers.adafactor
    self.engine = engines.make(
      backbone, METHOD, self.optimizer, SETTINGS, self.specs[0].phi
    )

  def run(self, folder=None, before=None, settings=SETTINGS):
    """Returns the results, and the record of the steps."""
    record = Record()
    results = stack.train_stack(
      record.watch(self.engine, before),
      self.backbone,
      self.optimizer,
      self.specs,
      self.tasks,
      settings,
      folder,
    )
    return results, record


@pytest.fixture(scope='module')
def case(small):
  return Case(small)


@pytest.fixture(scope='module')
def undisturbed(case):
  return case.run()


def np_tree(tree):
  return jax.tree.map(np.asarray, tree)


def same(found, wanted):
  """Results but for the time, last losses and phi: all bit by bit."""
  for a, b in zip(found[0], wanted[0], strict=True):
    np.testing.assert_equal(
      a._replace(seconds=0.0)._asdict(), b._replace(seconds=0.0)._asdict()
    )
  np.testing.assert_equal(found[1].phi, wanted[1].phi)
  start = found[1].numbers[0]
  np.testing.assert_equal(found[1].losses, wanted[1].losses[start:])


# -- killed and resumed


@pytest.mark.parametrize('at', [2, 3, 11, 22])
def test_an_interrupted_stack_goes_on_from_its_checkpoint(
  case, undisturbed, tmp_path, at
):
  def interrupt(number):
    if number == at:
      raise Killed

  with pytest.raises(Killed):
    case.run(tmp_path, interrupt)
  found = case.run(tmp_path)
  assert found[1].numbers == list(range(at - at % 3, 24))
  same(found, undisturbed)


def test_an_embedding_is_phi_after_so_many_updates(case, tmp_path):
  """It is that of a run which ends there, also after an interruption."""
  short = case.run(settings=SETTINGS._replace(steps=12))[1]
  settings = SETTINGS._replace(embedding_step=12)

  def interrupt(number):
    if number == 17:
      raise Killed

  with pytest.raises(Killed):
    case.run(tmp_path, interrupt, settings)
  results, record = case.run(tmp_path, settings=settings)
  assert record.numbers == list(range(15, 24))
  for i, result in enumerate(results):
    np.testing.assert_equal(
      result.embedding, jax.tree.map(lambda x, i=i: x[i], short.phi)
    )
    last = jax.tree.map(lambda x, i=i: x[i], record.phi)
    moved = jax.tree.map(np.array_equal, result.embedding, last)
    assert not any(jax.tree.leaves(moved)) or result.stopped >= 0
  stack.remove_checkpoints(tmp_path)
  assert {p.name for p in tmp_path.iterdir()} == {'tensorboard'}


@pytest.mark.parametrize('step', [0, 4, 27])
def test_an_embedding_step_without_evaluation_is_refused(step):
  with pytest.raises(ValueError, match='embedding_step: expected a multiple'):
    spec.check(SETTINGS._replace(embedding_step=step))


CHILD = """
import sys, time
from prompt_subspace.vocabulary import Vocabulary
from tests import sample
from tests.training import test_stack
case = test_stack.Case(sample.backbone(Vocabulary(sys.argv[1])))
case.run(sys.argv[2], lambda number: time.sleep(0.2))
"""


def test_killed_at_any_moment_it_ends_with_the_same_numbers(
  case, undisturbed, tmp_path
):
  vocabulary = str(case.backbone.vocabulary.path)
  child = subprocess.Popen(
    [sys.executable, '-c', CHILD, vocabulary, str(tmp_path)],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.DEVNULL,
  )
  try:
    while not any(p.name.isdigit() for p in tmp_path.glob('checkpoints/*')):
      assert child.poll() is None, 'it ended before its first checkpoint'
      time.sleep(0.01)
    time.sleep(random.uniform(0, 0.6))
    assert child.poll() is None, 'it ended before it could be killed'
  finally:
    child.send_signal(signal.SIGKILL)
    child.wait()
  found = case.run(tmp_path)
  first = found[1].numbers[0]
  assert 3 <= first < 24 and first % 3 == 0
  same(found, undisturbed)
  stack.remove_checkpoints(tmp_path)
  assert not (tmp_path / 'checkpoints').exists()


def test_a_checkpoint_of_other_rows_is_refused(case, tmp_path):
  settings = SETTINGS._replace(steps=3)
  case.run(tmp_path, settings=settings)
  other = Case(case.backbone)
  other.engine, other.specs = case.engine, case.specs[:2]
  with pytest.raises(ValueError):
    other.run(tmp_path, settings=settings)


# -- results


def test_a_row_that_stops_is_reported_and_the_others_are_not_harmed(
  case, undisturbed
):
  results = dict(zip(RATES, undisturbed[0], strict=True))
  lost = results['lost']
  assert lost.stopped == 0 and lost.best_step == 0
  assert np.isnan(lost.validation)
  np.testing.assert_equal(lost.phi, np_tree(case.specs[2].phi))
  assert np.isfinite(lost.test['score'])
  for name in ('slow', 'fast'):
    found = results[name]
    assert found.stopped == -1 and found.best_step in range(3, 25, 3)
    assert 0 <= found.validation <= 100
    assert set(found.test) == {'accuracy', 'f1_macro', 'score'}
  assert results['fast'].seconds > 0


def test_rows_learn_at_their_own_rates(undisturbed):
  losses = np.stack(undisturbed[1].losses, axis=1)
  for before, after in zip(losses[:2, :6], losses[:2, -6:], strict=True):
    assert after.mean() < 0.7 * before.mean()
  assert (losses[0] != losses[1]).all()


def test_padding_is_that_of_the_rows_batches(undisturbed):
  results, record = undisturbed
  for i, result in enumerate(results):
    tokens = [np.asarray(b['inputs'][i]) for b in record.batches]
    share = 1 - sum((t > 0).sum() for t in tokens) / sum(t.size for t in tokens)
    assert result.padding == pytest.approx(share)
    assert 0 < result.padding < 0.5
  assert len({b['inputs'].shape for b in record.batches}) > 1


def test_progress_goes_to_tensorboard(case, tmp_path):
  case.run(tmp_path, settings=SETTINGS._replace(steps=3))
  (file,) = (tmp_path / 'tensorboard').iterdir()
  content = file.read_bytes()
  for name in (b'loss/slow', b'validation/fast', b'examples_per_second'):
    assert name in content


# -- without compiling: what is fed, and what is chosen


def fake(engine, record, scores=None):
  """An engine that trains nothing: it keeps count, in phi, of the steps.

  Args:
    engine: whose method is kept.
    record: takes (kind, what was asked).
    scores: row -> whether its answers are right, at each evaluation.
  """

  def step(state, frozen, batch, rates, keys, number):
    record.append(('step', batch))
    phi = jax.tree.map(lambda x: x + 1, state.phi)
    return state._replace(phi=phi), {'loss': np.zeros(len(rates))}

  evaluations = []

  def rank(frozen, phi, batch, choices):
    count = len(jax.tree.leaves(phi)[0])
    record.append(('rank', (phi, batch)))
    evaluations.append(None)
    right = (np.asarray(batch['inputs']) == 101).any(axis=1)
    if scores is None:
      return np.stack([right] * count)
    # all examples fit one batch: a call is an evaluation
    now = [scores[row][len(evaluations) - 1] for row in range(count)]
    return np.stack([right if good else ~right for good in now])

  # all rows in one call
  predictor = engine.predictor._replace(rank=rank, chunk=100)
  return engine._replace(step=step, predictor=predictor)


def test_the_best_phi_of_each_row_is_tested(case):
  record = []
  # rows by evaluations; the last one is the test
  scores = [
    [False, True, False, True, True],
    [True, False, True, False, False],
    [False, False, False, False, True],
  ]
  engine = fake(case.engine, record, scores)
  settings = SETTINGS._replace(steps=12, buckets=1, evaluation_batch=32)
  tasks = {
    # one width, so that one batch holds them all
    'invented': sample.task(case.backbone.vocabulary, longest=3)
  }
  results = stack.train_stack(
    engine, case.backbone, optimizers.sgd, case.specs, tasks, settings
  )
  assert [r.best_step for r in results] == [6, 3, 3]
  assert [r.validation for r in results] == [100, 100, 0]
  assert [r.test['accuracy'] for r in results] == [100, 0, 100]
  tested = [asked for kind, asked in record if kind == 'rank'][-1][0]
  for i, steps in enumerate((6, 3, 3)):
    wanted = jax.tree.map(lambda x, n=steps: x + n, np_tree(case.specs[i].phi))
    np.testing.assert_equal(stack_rows.to_rows(tested)[i], wanted)
    np.testing.assert_equal(results[i].phi, wanted)


def test_each_row_sees_the_examples_of_its_own_task(case):
  """Two tasks in one stack: the second one's tokens are all above 130."""
  first = sample.task(case.backbone.vocabulary)
  second = sample.task(case.backbone.vocabulary, longest=30, seed=1)
  train = second.splits['train']
  moved = np.where(train.inputs > 1, train.inputs + 110, train.inputs)
  second.splits['train'] = train._replace(inputs=moved)
  tasks, record = {'first': first, 'second': second}, []
  results = stack.train_stack(
    fake(case.engine, record),
    case.backbone,
    optimizers.sgd,
    rows_of(case.backbone, ('first', 'second')),
    tasks,
    SETTINGS,
  )
  seen = [np.asarray(b['inputs']) for kind, b in record if kind == 'step']
  assert len(seen) == SETTINGS.steps
  for batch in seen:
    body = batch > 1
    assert (batch[0][body[0]] < 110).all() and (batch[2][body[2]] < 110).all()
    assert (batch[1][body[1]] >= 110).all()
    # a sequence is never cut: each ends with its end token
    assert ((batch == 1).sum(axis=-1) == 1).all()
  # the short rows are padded to the widths of the long one
  assert results[0].padding > results[1].padding


def test_with_dropout_a_row_is_the_same_beside_longer_inputs(small):
  """Whose widths, and with them microbatches, it shares."""
  config = small.config.replace(dropout_rate=0.2)
  backbone = small._replace(config=config)
  tasks = {
    'short': sample.task(small.vocabulary),
    'long': sample.task(small.vocabulary, longest=40, seed=1),
  }
  settings = SETTINGS._replace(steps=6, buckets=1, microbatch=2)
  specs = rows_of(small, ('short', 'long'))[:2]

  def run(specs, settings):
    engine = engines.make(
      backbone, METHOD, optimizers.sgd, settings, specs[0].phi
    )
    return stack.train_stack(
      engine, backbone, optimizers.sgd, specs, tasks, settings
    )[0]

  alone = run(specs[:1], settings)
  beside = run(specs, settings._replace(microbatch=4))
  assert alone.padding < beside.padding
  for path, x in trees.flatten(alone.phi).items():
    np.testing.assert_allclose(
      x, trees.flatten(beside.phi)[path], atol=1e-5, err_msg=path
    )


PREFIX = deltas.prefix(length=3, hidden=None, where=('decoder',))
PROMPT = deltas.prompt(length=3, start='uniform')
NOT_CACHED = {
  'encoder prefix': (deltas.prefix(length=3, hidden=None), {}, {}),
  'prompt': (PROMPT, {}, {'cache_encoder': True}),
  'embedding': (METHOD, {}, {}),
  'too large': (PREFIX, {}, {'cache_bytes': 1000}),
  'not wanted': (PREFIX, {}, {'cache_encoder': False}),
  'dropout': (PREFIX, {'dropout_rate': 0.1}, {}),
  'reads the batch': (PREFIX._replace(reads_batch=True), {}, {}),
}


def cached(case, method, changes, settings):
  """Whether the encoder's output is in what steps and evaluations get."""
  config, record = case.backbone.config.replace(**changes), []
  stack.train_stack(
    fake(case.engine._replace(method=method), record),
    case.backbone._replace(config=config),
    optimizers.sgd,
    rows_of(case.backbone, method=method),
    case.tasks,
    SETTINGS._replace(steps=1, **settings),
  )
  found = {
    'encoded' in (asked if kind == 'step' else asked[1])
    for kind, asked in record
  }
  assert len(found) == 1
  return found.pop()


def test_the_encoder_is_cached_where_the_method_leaves_it_alone(case):
  assert cached(case, PREFIX, {}, {})


@pytest.mark.parametrize('name', NOT_CACHED)
def test_the_encoder_is_not_cached_where(case, name):
  assert not cached(case, *NOT_CACHED[name])


def test_the_cached_encoder_changes_no_result(case):
  results = []
  for cache in (True, False):
    settings = SETTINGS._replace(steps=6, cache_encoder=cache)
    specs = rows_of(case.backbone, method=PREFIX)[:2]
    engine = engines.make(
      case.backbone, PREFIX, optimizers.sgd, settings, specs[0].phi
    )
    results.append(
      stack.train_stack(
        engine, case.backbone, optimizers.sgd, specs, case.tasks, settings
      )
    )
  for with_cache, without in zip(*results, strict=True):
    for path, x in trees.flatten(with_cache.phi).items():
      np.testing.assert_allclose(
        x, trees.flatten(without.phi)[path], atol=1e-5, err_msg=path
      )
    assert with_cache.validation == without.validation
    assert with_cache.test == without.test


def test_as_many_rows_at_once_as_the_device_has_memory_for(case, monkeypatch):
  """Changes no result; what is asked is what a row's batches hold."""
  asked = []

  def two(positions, config):
    asked.append(positions)
    assert config is case.backbone.config
    return 2

  method = deltas.prompt(length=3, start='uniform')
  specs = rows_of(case.backbone, method=method)[:2] * 2
  settings = SETTINGS._replace(steps=2, widths=(16,))
  results = []
  for rows_at_once in (lambda positions, config: None, two):
    monkeypatch.setattr(stack_rows, 'rows_at_once', rows_at_once)
    engine = engines.make(
      case.backbone, method, optimizers.sgd, settings, specs[0].phi
    )
    results.append(
      stack.train_stack(
        engine, case.backbone, optimizers.sgd, specs, case.tasks, settings
      )
    )
  assert settings.batch_size * (16 + 3) in asked
  for by_one, by_two in zip(*results, strict=True):
    for path, x in trees.flatten(by_one.phi).items():
      np.testing.assert_allclose(
        x, trees.flatten(by_two.phi)[path], atol=1e-5, err_msg=path
      )


def test_state_bytes_are_those_of_the_state(case):
  phi = case.specs[0].phi
  state = stack_rows.start([phi] * 3, optimizers.adam)
  assert stack.state_bytes(phi, optimizers.adam, 3) == trees.nbytes(state)


# -- a machine without TensorFlow


PREPARED = """
import sys
from prompt_subspace import deltas
from prompt_subspace.backbone import weights
from prompt_subspace.data import arrays
from prompt_subspace.training import engine as engines
from prompt_subspace.training import optimizers, spec, stack
backbone = weights.load(sys.argv[1])
task = arrays.load(sys.argv[2])
method = deltas.make('prompt', length=2, start='uniform')
import jax
phi = method.init(jax.random.key(0), weights.setting(backbone))
settings = spec.Settings(
  steps=2, batch_size=2, evaluate_every=1, checkpoint_seconds=0
)
engine = engines.make(backbone, method, optimizers.adafactor, settings, phi)
row = spec.RowSpec('row', task.name, 0, 0.3, phi)
(result,) = stack.train_stack(
  engine, backbone, optimizers.adafactor, [row], {task.name: task}, settings,
  sys.argv[3],
)
assert result.stopped == -1 and result.test
found = {'tensorflow', 'seqio', 't5x', 'gin', 'torch'} & set(sys.modules)
print('imported', sorted(found))
"""


def test_training_from_prepared_arrays_imports_no_tensorflow(small, tmp_path):
  weights.write(tmp_path / 'backbone', small)
  arrays.save(sample.task(small.vocabulary), tmp_path / 'task')
  places = [str(tmp_path / name) for name in ('backbone', 'task', 'out')]
  done = subprocess.run(
    [sys.executable, '-c', PREPARED, *places],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'imported []'
