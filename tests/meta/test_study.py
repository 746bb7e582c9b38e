"""The meta-learning study: what is learned, from what, and what counts."""

import json

import jax
import numpy as np
import optax
import pytest

from prompt_subspace import deltas
from prompt_subspace.bank import store
from prompt_subspace.meta import algorithms, study
from prompt_subspace.meta.diagnostics import Look
from prompt_subspace.training import spec
from tasks import english  # noqa: F401  registers the templates of real tasks
from tests import made_up
from tests.made_up import score, table

SOURCES = ['reviews', 'topics', 'formality']
TARGETS = ['questions', 'causes']
SETTINGS = spec.Settings(
  steps=4,
  batch_size=2,
  evaluate_every=2,
  validation_examples=8,
  test_examples=8,
  evaluation_batch=8,
  buckets=1,
)
LEARNERS = {
  'mtl': study.Learner(algorithms.mtl(), SETTINGS, 0.3),
  'maml': study.Learner(algorithms.maml(0.1, inner_steps=2), SETTINGS, 0.3),
  'fomaml': study.Learner(algorithms.fomaml(0.1), SETTINGS, 0.3),
  'reptile': study.Learner(algorithms.reptile(0.1, 3), SETTINGS, 0.3),
}


@pytest.fixture(scope='module')
def make(small, tmp_path_factory):
  """Plans a small study, with some arguments changed."""
  shared = {
    'sources': SOURCES,
    'targets': TARGETS,
    'learners': LEARNERS,
    'splits': [0, 1],
    'shots': 4,
    'source_shots': 4,
    'target': study.Downstream(SETTINGS, rates=(0.1, 0.3)),
    'wide': study.Downstream(SETTINGS, rates=(1e-3,)),
    'look': Look(inner_rates=()),
    'method': deltas.prompt(length=3),
    'full': deltas.full(only=('token_embedder',)),
    'backbone': small,
    'max_input': 48,
    'max_target': 8,
    'cache': str(tmp_path_factory.mktemp('cache')),
  }
  return lambda out, **changes: study.learn(out=str(out), **shared | changes)


@pytest.fixture
def fake(monkeypatch):
  return made_up.training(monkeypatch)


# -- what is run


def test_every_algorithm_is_learned_once_and_tuned_everywhere(
  tmp_path, make, fake
):
  names = ['pt', 'ft', *LEARNERS]
  make(tmp_path, algorithm_names=names).run()
  rows = table(tmp_path)
  up = [r for r in rows if r['stage'] == 'upstream']
  assert [r['algorithm'] for r in up] == list(LEARNERS)
  down = [r for r in rows if r['stage'] == 'downstream']
  # targets x splits x (one rate for ft, two for the others)
  assert len(down) == 2 * 2 * (1 + 2 * 5)
  assert {r['method'] for r in down if r['algorithm'] == 'ft'} == {'full'}
  assert {r['learned'] for r in down if r['algorithm'] in ('pt', 'ft')} == {''}
  assert {p.name for p in (tmp_path / 'bank').iterdir()} == {
    f'{n}-s0' for n in LEARNERS
  }
  assert len(fake) == len(rows)


def test_each_algorithm_is_trained_as_what_it_is(tmp_path, make, fake):
  make(tmp_path).run()
  found = {a.row.id: a.algorithm for a in fake}
  for name in LEARNERS:
    assert found[f'{name}-s0'] == name
  assert {n for i, n in found.items() if '-s0-' in i or '-s1-' in i} == {
    'tuning'
  }


def test_targets_start_from_what_was_learned(tmp_path, make, fake):
  make(tmp_path).run()
  starts = {a.row.id: jax.tree.map(np.asarray, a.row.phi) for a in fake}
  learned = store.read(tmp_path / 'bank' / 'maml-s0').phi
  np.testing.assert_equal(starts['maml-causes-s1-u0-r0.3'], learned)
  # what is learned begins where all algorithms begin, and so do rates
  np.testing.assert_equal(starts['maml-s0'], starts['reptile-s0'])
  np.testing.assert_equal(
    starts['pt-causes-s1-r0.1'], starts['pt-causes-s1-r0.3']
  )
  one, other = starts['pt-causes-s0-r0.3'], starts['pt-causes-s1-r0.3']
  assert not np.array_equal(*(jax.tree.leaves(x)[0] for x in (one, other)))


def test_all_algorithms_see_support_and_query_of_the_sources(
  tmp_path, make, fake
):
  make(tmp_path).run()
  unions = [a.task for a in fake if a.row.id in {f'{n}-s0' for n in LEARNERS}]
  assert len(unions) == 4 and len({u.record['checksum'] for u in unions}) == 1
  # 4 shots of each class to train, as many to validate
  classes = {'reviews': 2, 'topics': 4, 'formality': 2}
  wanted = [
    [task, split, 4 * n]
    for task, n in classes.items()
    for split in ('train', 'validation')
  ]
  assert unions[0].record['parts'] == wanted


def test_the_best_rate_is_chosen_by_validation(tmp_path, make, fake):
  make(tmp_path).run()
  rows = {r['cell']: r for r in table(tmp_path)}
  chosen = table(tmp_path, 'chosen.csv')
  assert len(chosen) == 2 * 2 * 5
  for row in chosen:
    start = row['cell'].rpartition('-r')[0]
    tried = [f'{start}-r0.1', f'{start}-r0.3']
    best = max(tried, key=lambda c: float(rows[c]['validation']))
    assert row['cell'] == best
    assert float(row['test']) == score(best, 2)


def test_curves_are_those_of_the_chosen_runs(tmp_path, make, fake):
  make(tmp_path, algorithm_names=['pt', 'maml']).run()
  chosen = table(tmp_path, 'chosen.csv')
  curves = table(tmp_path, 'curves.csv')
  assert len(curves) == 2 * len(chosen)
  first = chosen[0]
  mine = [
    (r['step'], float(r['validation']))
    for r in curves
    if all(r[n] == first[n] for n in ('target', 'algorithm', 'seed'))
  ]
  cell = first['cell']
  assert mine == [('2', score(cell, 3)), ('4', score(cell, 1))]


def test_what_is_there_is_not_made_again(tmp_path, make, fake):
  make(tmp_path, algorithm_names=['pt', 'maml'], splits=[0]).run()
  before = len(fake)
  make(tmp_path, algorithm_names=['pt', 'maml', 'mtl']).run()
  again = [a.row.id for a in fake[before:]]
  assert 'maml-s0' not in again and 'mtl-s0' in again
  assert len(again) == 1 + 2 * 2 + 2 * 2 * 2 + 2 * 2 * 2 - 2 * 2
  assert len({a.row.id for a in fake}) == len(fake)


def test_several_upstream_seeds_are_tuned_on_every_split(tmp_path, make, fake):
  make(tmp_path, algorithm_names=['pt', 'mtl'], learned=[0, 1]).run()
  chosen = table(tmp_path, 'chosen.csv')
  mine = [r for r in chosen if r['algorithm'] == 'mtl']
  assert len(mine) == 2 * 2 * 2
  assert {r['learned'] for r in mine} == {'0', '1'}
  splits = {p.name for p in (tmp_path / 'splits').iterdir()}
  # 2 k where there are no classes
  assert {'reviews-k4-s1.json', 'causes-k8-s0.json'} <= splits


# -- what is refused


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'targets': []}, 'targets: expected a list'),
    ({'sources': None}, 'sources: expected a list'),
    ({'partition': 'QA to QA'}, 'partition: .* found both'),
    ({'subset': 12}, 'subset: .* with a partition only'),
    ({'targets': ['reviews', 'causes']}, r"found \['reviews'\] on both"),
    ({'algorithm_names': ['sgd']}, 'algorithm_names: expected names among'),
    ({'splits': []}, 'splits: expected a list'),
    ({'learners': {'pt': LEARNERS['mtl']}}, 'learners: .* other names'),
    ({'shots': 10**6}, 'shots: task .* training examples'),
    ({'look': Look(inner_rates=(0.0,))}, 'inner_rates: expected numbers'),
    (
      {
        'algorithm_names': ['pt', 'ft'],
        'wide': study.Downstream(SETTINGS._replace(test_examples=3)),
      },
      'wide.settings.test_examples: expected .* found 3',
    ),
  ],
)
def test_bad_requests_are_refused(tmp_path, make, changes, message):
  with pytest.raises(ValueError, match=message):
    make(tmp_path, **changes)
  assert not (tmp_path / 'identity.json').exists()


def test_a_folder_of_other_settings_is_refused(tmp_path, make, fake):
  make(tmp_path, algorithm_names=['pt', 'maml']).run()
  other = LEARNERS | {
    'maml': study.Learner(algorithms.maml(0.2), SETTINGS, 0.3)
  }
  with pytest.raises(ValueError, match='algorithm.inner_rate: it was 0.1'):
    make(tmp_path, algorithm_names=['maml'], learners=other)


@pytest.mark.parametrize(
  'build',
  [
    lambda: algorithms.maml(0.0),
    lambda: algorithms.fomaml(0.1, inner_steps=0),
    lambda: algorithms.reptile(0.1, tasks=0),
  ],
)
def test_algorithms_check_their_numbers(build):
  with pytest.raises(ValueError, match='expected'):
    build()


def test_partitions_say_what_is_missing_or_leave_it_out(tmp_path, make):
  (tmp_path / 'data').mkdir()
  asked = {
    'sources': None,
    'targets': None,
    'partition': 'classification to classification',
    'data_dir': str(tmp_path / 'data'),
  }
  with pytest.raises(ValueError, match='55 of 55 tasks are not in'):
    make(tmp_path / 'out', **asked)
  with pytest.raises(ValueError, match='sources: expected data for at least'):
    make(tmp_path / 'out', skip_missing=True, **asked)


def test_texts_that_are_trained_on_and_tested_are_told(
  tmp_path, make, overlapping
):
  job = make(
    tmp_path / 'out',
    data_dir=str(overlapping),
    sources=['reviews'],
    targets=['copied'],
  )
  told = (
    '98 % of the test examples of copied have a text that reviews trains on'
  )
  assert f'overlap    {told}' in job.plan
  assert job.record['overlaps'] == [told]


def test_a_leak_is_named_in_the_plan(tmp_path, make, real_data):
  plan = make(
    tmp_path,
    sources=['sst2', 'cola'],
    targets=['rotten_tomatoes'],
    data_dir=str(real_data / 'tasks'),
  ).plan
  assert 'glue-sst2 and rotten_tomatoes share sentences' in plan


# -- the real thing, on a tiny backbone


@pytest.fixture(scope='module')
def run(make, tmp_path_factory):
  """A study that was really run; returns its folder."""
  folder = tmp_path_factory.mktemp('study')
  make(
    folder,
    sources=['reviews', 'topics'],
    targets=['causes'],
    splits=[0],
    target=study.Downstream(SETTINGS, rates=(0.3,)),
    algorithm_names=['pt', *LEARNERS],
    look=Look(inner_rates=(1e-3, 0.5), inner_steps=(1,), episodes=2),
  ).run()
  return folder


def test_a_study_runs_and_its_numbers_are_real(run):
  rows = {r['cell']: r for r in table(run)}
  assert len(rows) == 4 + 5
  assert all(float(r['seconds']) > 0 for r in rows.values())
  for name in LEARNERS:
    learned = store.read(run / 'bank' / f'{name}-s0')
    assert learned.card['fingerprint']
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(learned.phi))
  phis = [
    jax.tree.leaves(store.read(run / 'bank' / f'{n}-s0').phi)[0]
    for n in LEARNERS
  ]
  for i, one in enumerate(phis):
    assert all(np.abs(one - x).max() > 1e-3 for x in phis[:i])


def test_displacement_and_cosine_are_logged(run):
  def history(name):
    path = run / 'rows' / f'{name}.json'
    return json.loads(path.read_text(encoding='utf-8'))['history']

  for name in ('maml', 'fomaml'):
    last = history(f'{name}-s0')[-1]
    assert last['displacement'] > 0 and -1 <= last['cosine'] <= 1 + 1e-6
    assert last['step'] == 4 and np.isfinite(last['loss'])
  rows = {r['cell']: r for r in table(run)}
  assert float(rows['maml-s0']['cosine']) == history('maml-s0')[-1]['cosine']
  assert rows['mtl-s0']['cosine'] == '' and float(rows['mtl-s0']['loss']) > 0
  assert history('reptile-s0')[-1]['displacement'] > 0
  assert 'displacement' not in history('mtl-s0')[-1]


def test_diagnostics_wait_for_an_algorithm_with_inner_steps(
  tmp_path, make, fake
):
  look = Look(inner_rates=(1e-3,), inner_steps=(1,), episodes=1)
  make(tmp_path, algorithm_names=['pt', 'mtl'], look=look).run()
  assert not (tmp_path / 'diagnostics.csv').exists()
  make(tmp_path, algorithm_names=['pt', 'mtl', 'maml'], look=look).run()
  assert len(table(tmp_path, 'diagnostics.csv')) == 1


def test_diagnostics_tell_a_rate_that_moves_nothing(run):
  small, large = table(run, 'diagnostics.csv')
  numbers = {
    n: (float(small[n]), float(large[n]))
    for n in ('displacement', 'relative', 'cosine', 'loss_before', 'loss_after')
  }
  # one step of gradient descent moves by rate times gradient
  ratio = numbers['displacement'][1] / numbers['displacement'][0]
  assert ratio == pytest.approx(0.5 / 1e-3, rel=0.02)
  assert numbers['relative'][0] < 1e-3 < numbers['relative'][1]
  assert numbers['cosine'][0] == pytest.approx(1, abs=1e-4)
  assert numbers['cosine'][1] < 1
  assert numbers['loss_before'][0] == pytest.approx(
    numbers['loss_after'][0], rel=0.01
  )
  assert numbers['loss_before'][0] == pytest.approx(numbers['loss_before'][1])


def test_reptile_by_rate_changes_only_the_scale(small):
  phi = {'x': np.array([1.0, -2.0])}

  def loss(phi, batch, key):
    gap = phi['x'] - batch['targets'].sum()
    return 0.5 * (gap**2).sum(), {'weight': 1.0}

  batch = {'support': {'targets': np.ones((1, 2, 3, 1))}}
  made = [
    algorithms.reptile(0.25, 2, by_rate=by).objective(loss, lambda b: 3, None)
    for by in (False, True)
  ]
  plain, scaled = (
    jax.grad(lambda p, f=f: f(p, batch, jax.random.key(0))[0])(phi)['x']
    for f in made
  )
  np.testing.assert_allclose(scaled, 4 * plain, rtol=1e-6)
  # two steps of rate 1/4 towards 3: phi - phi_2 = (1 - (3/4)^2) (phi - 3)
  wanted = (1 - 0.75**2) * (phi['x'] - 3)
  np.testing.assert_allclose(plain, wanted, rtol=1e-6)
  assert optax.tree.norm(plain) > 0
