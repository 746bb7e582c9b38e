"""Pre-training: the loss falls, a resumed run is the same, the result loads."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import weights
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.data import corpus, pretraining, tasks
from prompt_subspace.training import muon, pretrain
from prompt_subspace.vocabulary import Vocabulary

MIX = pretraining.Mix(
  batch_size=8, length=24, task_share=0.4, task_length=24, task_target=24
)
STEPS = 12


@pytest.fixture(scope='module')
def plan(small, tmp_path_factory):
  """Plans a small pre-training, with some arguments changed."""
  folder = tmp_path_factory.mktemp('text')
  for name in ('train', 'validation'):
    lines = [
      line.split('\t')[0]
      for task in ('reviews', 'topics')
      for line in (tasks.DEMO / task / f'{name}.tsv').read_text().splitlines()
    ]
    documents = ['\n'.join(lines[i : i + 3]) for i in range(1, len(lines), 3)]
    (folder / f'{name}.txt').write_text('\n\n'.join(documents) + '\n')
  shape = small.config.replace(vocab_size=224, dropout_rate=0.1)
  known = {
    'texts': [str(folder / 'train.txt')],
    'held_out': [str(folder / 'validation.txt')],
    'steps': STEPS,
    'size': 'tiny',
    'pieces': 110,
    'mix': MIX,
    'tasks': ['reviews'],
    'rate': 0.02,
    'warmup': 2,
    'evaluate_every': 4,
  }

  def make(out, **changes):
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(configs.SIZES, 'tiny', shape)
      return pretrain.pretrain(out=str(out), **known | changes)

  return make


@pytest.fixture(scope='module')
def finished(plan, tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'pretrain'
  plan(folder).run()
  return folder


def log(folder):
  with open(folder / 'log.csv', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_the_validation_losses_fall(finished):
  rows = log(finished)
  assert [r['step'] for r in rows] == ['4', '8', '12']
  assert set(rows[0]) == {'step', 'spans', 'prefix', 'tasks'}
  for name in ('spans', 'prefix', 'tasks'):
    losses = [float(r[name]) for r in rows]
    assert losses[2] < losses[0] - 0.1, name


def test_the_backbone_loads_by_its_folder(finished):
  found = weights.load(finished / 'backbone')
  assert found.config.vocab_size == 224 and found.config.dropout_rate == 0
  assert found.vocabulary.size == 210
  assert found.vocabulary.sha256 == Vocabulary(finished / 'vocab.model').sha256
  trees.check_same(found.weights, weights.expected(found.config), 'found')
  for path, x in trees.flatten(found.weights).items():
    assert np.isfinite(x).all() and np.std(x) > 0, path


def test_the_card_says_what_it_was_made_of(finished, plan):
  card = json.loads((finished / 'backbone' / 'card.json').read_text())
  found = weights.load(finished / 'backbone')
  assert card['fingerprint'] == found.fingerprint
  assert card['vocabulary'] == found.vocabulary.sha256
  assert card['parameters'] == trees.size(found.weights)
  assert card['steps'] == STEPS and card['batches']['task_share'] == 0.4
  last = log(finished)[-1]
  assert card['validation'] == {k: float(v) for k, v in last.items()}
  assert set(card['tasks']) == {'reviews'} and len(card['texts']) == 1


def test_a_finished_backbone_is_trained_further(finished, plan, tmp_path):
  given = weights.load(finished / 'backbone')
  job = plan(
    tmp_path, start=str(finished / 'backbone'), steps=4, rate=1e-5, warmup=1
  )
  assert f'start      {finished / "backbone"}' in job.plan
  job.run()
  found = weights.load(tmp_path / 'backbone')
  card = json.loads((tmp_path / 'backbone' / 'card.json').read_text())
  assert card['start'] == given.fingerprint != found.fingerprint
  assert found.vocabulary.sha256 == given.vocabulary.sha256
  # at this rate it has hardly moved; drawn weights would be elsewhere
  for path, x in trees.flatten(given.weights).items():
    y = trees.flatten(found.weights)[path]
    np.testing.assert_allclose(x, y, atol=2e-2 * np.abs(x).max(), err_msg=path)


def test_the_form_in_which_it_runs_changes_nothing(finished, plan, tmp_path):
  """Scanned layers, and batches that other processes draw."""
  plan(tmp_path, scan=True, workers=2).run()
  for row, known in zip(log(tmp_path), log(finished), strict=True):
    assert row.keys() == known.keys()
    for name, value in known.items():
      # Muon lifts directions whose size is that of rounding
      assert float(row[name]) == pytest.approx(float(value), abs=0.02), name
  found = weights.load(tmp_path / 'backbone')
  trees.check_same(found.weights, weights.expected(found.config), 'found')


def test_scanned_layers_are_trained_as_single_ones(small):
  """One update of the same weights: the same losses, the same weights."""
  shape = small.config.replace(dropout_rate=0.0)
  batch = {
    'inputs': np.random.default_rng(0).integers(2, 90, (4, 12)),
    'targets': np.random.default_rng(1).integers(2, 90, (4, 6)),
  }
  found = []
  for scan in (False, True):
    cfg = shape.replace(scan_layers=scan)
    tx = muon.optimizer(0.02, warmup=1, decay_from=8, decay_to=9)
    start = pretrain._stacked(small.weights, cfg)
    start = jax.tree.map(jnp.array, start)
    state = pretrain.State(start, tx.init(start), jnp.zeros((), jnp.int32))
    step = pretrain.make_step(T5(cfg), tx, 0)
    losses = []
    for _ in range(3):
      state, value = step(state, batch)
      losses.append(float(value))
    found.append((losses, pretrain._stacked(state.weights, shape)))
  (a, one), (b, stacked) = found
  np.testing.assert_allclose(a, b, rtol=1e-5)
  one = pretrain._stacked(one, shape.replace(scan_layers=True))
  for path, x in trees.flatten(one).items():
    # Newton-Schulz lifts directions whose size is that of rounding
    y = trees.flatten(stacked)[path]
    np.testing.assert_allclose(x, y, atol=2e-4, err_msg=path)


def test_dropout_and_narrow_activations_leave_a_plain_backbone(plan, tmp_path):
  plan(tmp_path, dropout=0.1, dtype='bfloat16', steps=4).run()
  found = weights.load(tmp_path / 'backbone')
  assert found.config.dropout_rate == 0 and found.config.dtype == 'float32'
  card = json.loads((tmp_path / 'backbone' / 'card.json').read_text())
  assert (card['dropout'], card['dtype']) == (0.1, 'bfloat16')


def test_a_start_of_another_shape_is_refused(finished, plan, tmp_path):
  start = str(finished / 'backbone')
  with pytest.raises(ValueError, match='expected a backbone with .* the shape'):
    plan(tmp_path, start=start, size='small')
  with pytest.raises(ValueError, match='vocabulary: expected None beside star'):
    plan(tmp_path, start=start, vocabulary=str(finished / 'vocab.model'))


def test_a_killed_run_goes_on_exactly(finished, plan, tmp_path, monkeypatch):
  draw, numbers = pretraining.draw, []

  def interrupted(sources, mix, seed, number):
    numbers.append(number)
    if number == 6 and len(numbers) == 7:
      raise KeyboardInterrupt
    return draw(sources, mix, seed, number)

  monkeypatch.setattr(pretraining, 'draw', interrupted)
  with pytest.raises(KeyboardInterrupt):
    plan(tmp_path).run()
  assert not (tmp_path / 'backbone').exists()
  plan(tmp_path).run()
  assert numbers == [*range(7), *range(4, 12)]
  assert log(tmp_path) == log(finished)
  a, b = (weights.load(f / 'backbone') for f in (tmp_path, finished))
  assert a.fingerprint == b.fingerprint
  # once it is finished, nothing is left to do
  plan(tmp_path).run()
  assert len(numbers) == 15


def test_a_run_killed_behind_its_last_evaluation_has_its_losses(
  finished, plan, tmp_path, monkeypatch
):
  save = pretrain.Checkpoints.save

  def interrupted(self, at, state):
    if at == STEPS:
      raise KeyboardInterrupt
    save(self, at, state)

  with monkeypatch.context() as patch:
    patch.setattr(pretrain.Checkpoints, 'save', interrupted)
    with pytest.raises(KeyboardInterrupt):
      plan(tmp_path).run()
  assert log(tmp_path)[-1]['step'] == str(STEPS)
  plan(tmp_path).run()
  assert log(tmp_path) == log(finished)


@pytest.mark.parametrize(
  'name, value',
  [('seed', 1), ('rates', 0.5), ('pieces', 100), ('texts', None)],
)
def test_a_folder_of_another_backbone_is_refused(finished, plan, name, value):
  asked = {'rates': 'rate'}.get(name, name)
  if value is None:  # other texts of the same name
    text = finished.parent / 'train.txt'
    text.write_text('A boat.\n')
    value = [str(text)]
  with pytest.raises(ValueError, match=f'made differently:\n  {name}: it was'):
    plan(finished, **{asked: value})
  # more updates continue it
  plan(finished, steps=2 * STEPS)


# -- batches


@pytest.fixture(scope='module')
def sources(small):
  """A stream of random tokens, and two tasks of 30 and 3000 examples."""
  random = np.random.default_rng(0)
  tokens = random.integers(3, 100, 4000).astype(np.uint16)
  stream = corpus.Stream(tokens, np.arange(100, 4001, 100))
  pairs = [
    (np.full((n, 5), n % 97, np.int32), np.full((n, 2), 7, np.int32))
    for n in (30, 3000)
  ]
  rates = np.array([0.1, 0.9])
  return pretraining.Sources(stream, small.vocabulary, pairs, rates)


def test_a_batch_depends_on_seed_and_number_alone(sources):
  found = {
    pretraining.draw(sources, MIX, seed, number)['inputs'].tobytes()
    for seed in (0, 1)
    for number in range(3)
    for _ in range(2)
  }
  assert len(found) == 6


@pytest.mark.parametrize('share', [0.0, 0.35, 1.0])
def test_tasks_have_the_share_that_was_asked_for(sources, monkeypatch, share):
  monkeypatch.setattr(corpus, 'denoising_batch', lambda *_, **__: 'text')
  monkeypatch.setattr(pretraining, 'draw_tasks', lambda *_: 'tasks')
  mix = MIX._replace(task_share=share)
  drawn = [pretraining.draw(sources, mix, 0, n) for n in range(1000)]
  assert np.mean([d == 'tasks' for d in drawn]) == pytest.approx(
    share, abs=0.01
  )
  # evenly spread, and none without tasks
  if share == 0.35:
    for start in range(0, 1000, 100):
      assert 30 <= drawn[start : start + 100].count('tasks') <= 40
  bare = sources._replace(tasks=[])
  assert pretraining.draw(bare, mix, 0, 0) == 'text'


def test_other_processes_draw_the_same_batches(sources):
  here, there = (
    list(pretraining.stream(sources, MIX, 3, 5, 9, workers))
    for workers in (0, 2)
  )
  assert len(here) == 4
  for a, b in zip(here, there, strict=True):
    assert a['inputs'].tobytes() == b['inputs'].tobytes()
    assert a['targets'].tobytes() == b['targets'].tobytes()


def test_tasks_are_drawn_by_their_rates(sources):
  mix = MIX._replace(batch_size=2000, task_length=8, task_target=3)
  batch = pretraining.draw_tasks(sources, mix, np.random.default_rng(0))
  assert batch['inputs'].shape == (2000, 8)
  assert batch['targets'].shape == (2000, 3)
  assert (batch['inputs'][:, 5:] == 0).all()
  share = np.mean(batch['inputs'][:, 0] == 30)
  assert share == pytest.approx(0.1, abs=0.03)


def test_validation_batches_are_fixed(sources):
  first, again = (
    pretraining.validation_batches(sources, MIX) for _ in range(2)
  )
  assert set(first) == {'spans', 'prefix', 'tasks'}
  for name, batch in first.items():
    assert len(batch['inputs']) == 128
    for key, x in batch.items():
      np.testing.assert_array_equal(x, again[name][key])
  pieces = sources.vocabulary.size - 100
  assert (first['spans']['inputs'] >= pieces).any(axis=1).all()
  assert not (first['prefix']['inputs'] >= pieces).any()


# -- the optimiser


def test_matrices_of_the_layers_are_trained_by_muon(small):
  flat = trees.flatten(small.weights)
  chosen = {path for path in flat if muon.is_layer_matrix(path)}
  assert {len(flat[path].shape) for path in chosen} == {2}
  left = sorted(set(flat) - chosen)
  assert [p for p in left if 'scale' not in p] == [
    'decoder/logits_dense/kernel',
    'decoder/relpos_bias/rel_embedding',
    'encoder/relpos_bias/rel_embedding',
    'token_embedder/embedding',
  ]


def test_the_rate_warms_up_stays_and_falls():
  """Muon's updates are orthogonal: their size is that of the rate."""
  tx = muon.optimizer(0.1, warmup=4, decay_from=8, decay_to=12)
  params = {
    'encoder': {'layers_0': {'wi': {'kernel': jnp.zeros((6, 4))}}},
    'token_embedder': {'embedding': jnp.zeros((5, 4))},
  }
  update, state = jax.jit(tx.update), tx.init(params)
  random, sizes = np.random.default_rng(0), []
  for _ in range(13):
    grads = jax.tree.map(
      lambda x: random.standard_normal(x.shape).astype('f'), params
    )
    updates, state = update(grads, state, params)
    matrix = np.asarray(updates['encoder']['layers_0']['wi']['kernel'])
    sizes.append(np.sqrt(np.mean(matrix**2)))
    values = np.linalg.svd(matrix, compute_uv=False)
    assert len(sizes) == 1 or values.max() < 2 * values.min()
  wanted = (
    0.2
    * 0.1
    * np.array([0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 0.755, 0.51, 0.265, 0.02])
  )
  np.testing.assert_allclose(sizes, wanted, rtol=0.35)
  assert sizes[0] == 0


# -- mistakes


def test_mistakes_are_found_before_anything_runs(plan, tmp_path, small):
  with pytest.raises(ValueError, match='texts: .* found no /none.txt'):
    plan(tmp_path, texts=['/none.txt'])
  with pytest.raises(ValueError, match='texts: .* found no /none.txt'):
    plan(tmp_path, held_out=['/none.txt'])
  with pytest.raises(ValueError, match='pieces: .* 224 .* found 225'):
    plan(tmp_path, pieces=125)
  with pytest.raises(ValueError, match='pieces: .* 64 .*found 220'):
    small_rows = small.config.replace(vocab_size=64)
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(configs.SIZES, 'few', small_rows)
      plan(tmp_path, size='few', vocabulary=str(small.vocabulary.path))
  with pytest.raises(ValueError, match='length: .* at least 16 .* found 12'):
    plan(tmp_path, mix=MIX._replace(length=12))
  with pytest.raises(ValueError, match="unknown task 'none'"):
    plan(tmp_path, tasks=['none'])
  assert not list(tmp_path.iterdir())


def test_the_plan_says_what_is_trained_on_what(plan, tmp_path):
  found = plan(tmp_path / 'new').plan
  for part in ('tiny', '1 files, 1 held out', 'reviews', f'steps      {STEPS}'):
    assert part in found
  assert not (tmp_path / 'new').exists()
