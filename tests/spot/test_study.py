"""The transfer study: what is run, from where, what counts, what is kept."""

import json
import shutil

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, reparams
from prompt_subspace.bank import similarity, store
from prompt_subspace.data import tasks
from prompt_subspace.reparams import subspace
from prompt_subspace.spot import plan, study
from prompt_subspace.training import spec, stack
from tests import made_up
from tests.made_up import table

SOURCES = ['reviews', 'topics', 'formality']
TARGETS = ['questions', 'causes']
SETTINGS = spec.Settings(
  steps=4,
  batch_size=4,
  evaluate_every=2,
  embedding_step=2,
  validation_examples=8,
  test_examples=8,
  evaluation_batch=8,
  buckets=1,
)
SIDE = study.Side(SETTINGS, rate=0.3)
POLICIES = ['best-1', 'best-2', 'average-2', 'mixture-2', 'random-1', 'oracle']


@pytest.fixture(scope='module')
def make(small, tmp_path_factory):
  """Plans a small study, with some arguments changed."""
  shared = {
    'targets': TARGETS,
    'sources': SOURCES,
    'policy_names': POLICIES,
    'seeds': [0, 1],
    'source': SIDE,
    'target': SIDE._replace(shots=4),
    'wide': study.Side(SETTINGS._replace(embedding_step=None), rate=1e-3),
    'method': deltas.prompt(length=3),
    'full': deltas.full(only=('token_embedder',)),
    'backbone': small,
    'max_input': 48,
    'max_target': 8,
    'held_out': 4,
    'cache': str(tmp_path_factory.mktemp('cache')),
  }
  return lambda out, **changes: study.transfer(out=str(out), **shared | changes)


@pytest.fixture
def fake(monkeypatch):
  return made_up.training(monkeypatch)


def ids(asked):
  return [a.row.id for a in asked]


def by_stage(folder):
  out = {}
  for row in table(folder):
    out.setdefault(row['stage'], []).append(row)
  return out


# -- what is run


def test_every_policy_gets_the_runs_it_needs(tmp_path, make, fake):
  make(tmp_path).run()
  found = {k: len(v) for k, v in by_stage(tmp_path).items()}
  assert found == {
    'source': 6,
    'scratch': 4,
    'transfer': 12,
    'average': 4,
    'mixture': 4,
    'mixed': 4,
  }
  assert len(set(ids(fake))) == len(fake) == 34
  # what has seen a target's data is no source prompt
  for folder, stage in (('bank', 'source'), ('mixed', 'mixture')):
    stored = {p.name for p in (tmp_path / folder).iterdir()}
    assert stored == {r['cell'] for r in by_stage(tmp_path)[stage]}


def test_without_an_oracle_only_the_nearest_are_tried(tmp_path, make, fake):
  make(tmp_path, policy_names=['best-2'], metrics=['average']).run()
  rows = by_stage(tmp_path)['transfer']
  assert len(rows) == 2 * 4
  near = {
    (r['target'], r['seed'], r['source'])
    for r in table(tmp_path, 'similarities.csv')
    if int(r['rank']) <= 2
  }
  assert {(r['task'], r['seed'], r['source']) for r in rows} == near


def test_runs_of_one_seed_are_paired_or_all_are_tried(tmp_path, make, fake):
  make(tmp_path / 'a', policy_names=['oracle']).run()
  for row in by_stage(tmp_path / 'a')['transfer']:
    assert row['source'].endswith(f's{row["seed"]}')
  make(tmp_path / 'b', policy_names=['oracle'], pairing='all').run()
  assert len(by_stage(tmp_path / 'b')['transfer']) == 6 * 4


def test_a_second_call_runs_nothing(tmp_path, make, fake):
  make(tmp_path).run()
  before = {p.name: p.read_bytes() for p in tmp_path.glob('*.csv')}
  count = len(fake)
  make(tmp_path).run()
  assert len(fake) == count
  assert before == {p.name: p.read_bytes() for p in tmp_path.glob('*.csv')}


def test_another_source_target_or_seed_runs_only_what_is_new(
  tmp_path, make, fake
):
  few = {'policy_names': ['oracle'], 'seeds': [0]}
  make(tmp_path, **few).run()
  fake.clear()
  make(tmp_path, sources=[*SOURCES, 'paraphrase'], **few).run()
  new = 'source-paraphrase-s0'
  assert sorted(ids(fake)) == sorted(
    [new, *(f'transfer-{t}-s0-from-{new}' for t in TARGETS)]
  )
  fake.clear()
  make(tmp_path, targets=[*TARGETS, 'entailment'], **few).run()
  assert sorted(ids(fake)) == sorted(
    ['scratch-entailment-s0']
    + [f'transfer-entailment-s0-from-source-{s}-s0' for s in SOURCES]
  )
  fake.clear()
  make(tmp_path, policy_names=['oracle'], seeds=[0, 1]).run()
  assert len(fake) == 3 + 2 + 6 and all('-s1' in i for i in ids(fake))


def test_after_a_failure_only_what_is_missing_is_run(
  tmp_path, make, fake, monkeypatch
):
  make(tmp_path / 'whole').run()
  whole, made, calls = list(ids(fake)), stack.train_stack, []
  fake.clear()

  def failing(*args):
    calls.append(args)
    if len(calls) % 3 == 0:
      raise KeyboardInterrupt
    return made(*args)

  monkeypatch.setattr(stack, 'train_stack', failing)
  for _ in range(30):
    try:
      make(tmp_path / 'broken').run()
      break
    except KeyboardInterrupt:
      continue
  assert len(calls) > 3
  assert sorted(ids(fake)) == sorted(whole)
  for name in ('results.csv', 'similarities.csv', 'policies.csv'):
    broken, undisturbed = (
      (tmp_path / f / name).read_bytes() for f in ('broken', 'whole')
    )
    assert broken == undisturbed


def test_what_is_named_twice_is_made_and_listed_once(tmp_path, make, fake):
  make(tmp_path / 'once').run()
  make(
    tmp_path / 'twice',
    targets=[*TARGETS, *TARGETS],
    sources=[SOURCES[0], *SOURCES],
    seeds=[0, 1, 0],
  ).run()
  for name in ('results.csv', 'similarities.csv', 'policies.csv'):
    one, two = ((tmp_path / n / name).read_bytes() for n in ('once', 'twice'))
    assert one == two


def test_tasks_that_would_share_their_runs_are_refused(tmp_path, make):
  for name, task in (('a b', 'reviews'), ('a_b', 'topics')):
    shutil.copytree(tasks.DEMO / task, tmp_path / 'data' / name)
  with pytest.raises(
    ValueError, match='two runs would have the name scratch-a'
  ):
    make(
      tmp_path / 'new',
      data_dir=str(tmp_path / 'data'),
      targets=['a b', 'a_b'],
      sources=['a_b', 'a b'][:1],
      policy_names=['best-1'],
    )


def test_a_study_that_is_interrupted_keeps_its_table(
  tmp_path, make, fake, monkeypatch
):
  make(tmp_path, targets=TARGETS[:1]).run()
  before = {row['cell'] for row in table(tmp_path)}
  made, calls = stack.train_stack, []

  def failing(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return made(*args)

  monkeypatch.setattr(stack, 'train_stack', failing)
  with pytest.raises(KeyboardInterrupt):
    make(tmp_path).run()
  after = {row['cell'] for row in table(tmp_path)}
  assert before < after


# -- from where


def test_starts_are_those_of_the_policy(tmp_path, make, fake):
  make(tmp_path).run()
  phis = {
    p.name: store.read(p).phi['encoder']
    for folder in ('bank', 'mixed')
    for p in (tmp_path / folder).iterdir()
  }
  starts = {a.row.id: a.row.phi['encoder'] for a in fake}
  for row in table(tmp_path):
    if row['stage'] in ('transfer', 'mixed'):
      np.testing.assert_array_equal(starts[row['cell']], phis[row['source']])
  ranked = {}
  for r in table(tmp_path, 'similarities.csv'):
    if r['metric'] == 'average':
      ranked.setdefault((r['target'], r['seed']), []).append(r)
  for row in by_stage(tmp_path)['average']:
    first = ranked[row['task'], row['seed']][:2]
    sims = np.maximum([float(r['similarity']) for r in first], 0)
    shares = sims / sims.sum() if sims.sum() else np.full(2, 0.5)
    wanted = sum(
      a * phis[r['source']] for a, r in zip(shares, first, strict=True)
    )
    np.testing.assert_allclose(starts[row['cell']], wanted, atol=1e-6)
    card = store.read(tmp_path / 'tuned' / row['cell']).card
    assert card['parents'] == [r['source'] for r in first]


def test_embeddings_rank_and_not_the_best_phi(tmp_path, make, fake):
  make(tmp_path, policy_names=['best-1']).run()
  rows = [
    r
    for r in table(tmp_path, 'similarities.csv')
    if (r['target'], r['seed'], r['metric']) == ('causes', '1', 'average')
  ]
  own = store.read(tmp_path / 'tuned' / 'scratch-causes-s1').embedding
  mean = own['encoder'].mean(axis=0)
  for row in rows:
    other = store.read(tmp_path / 'bank' / row['source']).embedding
    their = other['encoder'].mean(axis=0)
    cosine = mean @ their / np.linalg.norm(mean) / np.linalg.norm(their)
    assert float(row['similarity']) == pytest.approx(cosine, abs=1e-5)
  values = [float(r['similarity']) for r in rows]
  assert values == sorted(values, reverse=True)


def test_targets_train_on_their_split_and_sources_on_all(tmp_path, make, fake):
  make(tmp_path).run()
  for row, arrays, *_ in fake:
    kind, count = row.id.split('-')[0], len(arrays.splits['train'].labels)
    if kind == 'source':
      assert count == 120
    elif kind == 'mixture':
      # two sources and the few shots of the target
      few = 4 if 'causes' in row.id else 4 * 5
      assert count == 240 + few
      assert len(arrays.splits['validation'].labels) == 12
    else:
      assert count == (4 if 'causes' in row.id else 4 * 5)
  assert {r['majority'] for r in by_stage(tmp_path)['mixture']} == {'nan'}


def test_a_mixture_may_be_a_source(tmp_path, make, fake):
  make(
    tmp_path,
    sources=['family'],
    mixtures={'family': ['reviews', 'topics', 'not_here']},
    policy_names=['best-1'],
  ).run()
  (row, arrays, *_), *_ = [f for f in fake if f.row.id == 'source-family-s0']
  assert set(arrays.record['shares']) == {'reviews', 'topics'}
  assert len(by_stage(tmp_path)['transfer']) == 4


def test_baselines_are_in_the_same_table(tmp_path, make, fake):
  make(tmp_path, policy_names=['best-1'], baselines=['full', 'multitask']).run()
  found = by_stage(tmp_path)
  assert len(found['full']) == len(found['multitask']) == 4
  assert len(found['multitask-source']) == 2
  assert {r['method'] for r in found['multitask']} == {'full'}
  starts = {a.row.id: a.row for a in fake}
  for row in found['multitask']:
    stored = store.read(tmp_path / 'full' / row['source'])
    jax.tree.map(
      np.testing.assert_array_equal, starts[row['cell']].phi, stored.phi
    )
  kept = {p.name for p in (tmp_path / 'full').iterdir()}
  assert kept == {r['cell'] for r in found['multitask-source']}


def test_a_bank_takes_the_place_of_sources(tmp_path, make, fake):
  make(tmp_path / 'first', policy_names=['best-1']).run()
  fake.clear()
  bank = tmp_path / 'first' / 'bank'
  make(
    tmp_path / 'second',
    sources=None,
    bank=str(bank),
    policy_names=['best-1', 'oracle'],
    seeds=[5],
  ).run()
  assert not by_stage(tmp_path / 'second').get('source')
  assert len(by_stage(tmp_path / 'second')['transfer']) == 2 * 6


def test_a_folder_keeps_to_the_prompts_that_it_began_with(tmp_path, make, fake):
  shared = {'policy_names': ['best-1'], 'seeds': [0], 'targets': TARGETS[:1]}
  make(tmp_path / 'first', **shared).run()
  bank = tmp_path / 'first' / 'bank'
  entry = store.read(bank / 'source-topics-s0')
  other = jax.tree.map(lambda x: x + 1, entry.phi)
  for name in store.names(bank):
    store.write(tmp_path / 'other' / name, other, entry.card)
  asked = shared | {'sources': None}
  make(tmp_path / 'second', bank=str(bank), **asked).run()
  # entries of the same names in another bank, or what is there of them anew
  with pytest.raises(ValueError, match='bank: expected the source-'):
    make(tmp_path / 'second', bank=str(tmp_path / 'other'), **asked)
  with pytest.raises(ValueError, match='bank: .*would be replaced'):
    store.write(bank / entry.name, other, entry.card | {'rate': 9.0})
    make(tmp_path / 'first', **shared)
  # nor those of a bank after own ones, or own ones after those of a bank
  with pytest.raises(ValueError, match='bank: expected the source-'):
    make(tmp_path / 'first', bank=str(tmp_path / 'other'), **asked)
  with pytest.raises(ValueError, match='bank: expected the prompts that'):
    make(tmp_path / 'first', bank=str(tmp_path / 'none'), **shared)


def test_what_a_new_target_would_make_known_is_not_taken(tmp_path, make, fake):
  """A mixture has all data of a task, until that is a target of few shots."""
  shared = {'policy_names': ['best-1'], 'seeds': [0]}
  one, two = {'targets': ['questions']}, {'targets': ['questions', 'reviews']}
  mixed = shared | {
    'sources': ['family'],
    'mixtures': {'family': ['reviews', 'topics']},
  }
  make(tmp_path / 'mixed', **mixed, **one).run()
  with pytest.raises(ValueError, match="source-family-s0 with {'data': "):
    make(tmp_path / 'mixed', **mixed, **two)
  joined = shared | {'sources': SOURCES[:2], 'baselines': ['multitask']}
  make(tmp_path / 'joined', **joined, **one).run()
  with pytest.raises(ValueError, match='multitask-.*json: expected a run on'):
    make(tmp_path / 'joined', **joined, **two).run()


def test_sides_may_split_their_batches_otherwise(tmp_path, make):
  def side(rows, **fields):
    return study.Side(SETTINGS._replace(batch_size=rows, **fields), rate=0.3)

  make(
    tmp_path,
    targets=TARGETS[:1],
    sources=SOURCES[:1],
    seeds=[0],
    policy_names=['best-1'],
    source=side(8, microbatch=8),
    target=side(4, microbatch=2)._replace(shots=4),
  ).run()
  assert set(by_stage(tmp_path)) == {'source', 'scratch', 'transfer'}


def test_mixtures_of_a_banks_tasks_are_of_the_data_at_hand(
  tmp_path, make, fake
):
  make(tmp_path / 'first', policy_names=['best-1'], seeds=[0]).run()
  bank = tmp_path / 'first' / 'bank'
  asked = {
    'sources': None,
    'bank': str(bank),
    'policy_names': ['mixture-2'],
    'seeds': [0],
  }
  make(tmp_path / 'second', **asked).run()
  rows = by_stage(tmp_path / 'second')['mixture']
  assert len(rows) == len(TARGETS)
  assert {s for r in rows for s in r['source'].split()} <= set(SOURCES)
  entry = store.read(bank / 'source-topics-s0')
  store.write(bank / 'far', entry.phi, {**entry.card, 'task': 'far away'})
  with pytest.raises(ValueError, match="policies: .* found none of .'far away"):
    make(tmp_path / 'third', **asked)


def test_a_bank_gives_only_what_means_the_same(tmp_path, make, fake):
  make(tmp_path / 'first', policy_names=['best-1'], seeds=[0]).run()
  bank = tmp_path / 'first' / 'bank'
  asked = {
    'sources': None,
    'bank': str(bank),
    'policy_names': ['best-1'],
    'seeds': [0],
  }
  # where a prompt starts does not change what it is
  make(
    tmp_path / 'other start',
    method=deltas.prompt(length=3, start='uniform'),
    **asked,
  )
  for number, method in enumerate(
    [
      deltas.prompt(length=4),
      deltas.prompt(length=3, decoder_length=2),
      deltas.lora(),
    ]
  ):
    with pytest.raises(ValueError, match='found none of these among the 3'):
      make(tmp_path / f'other {number}', method=method, **asked)


def test_codes_of_another_space_are_not_transferred(tmp_path, make, fake):
  def inside(seed):
    return subspace.subspace(
      deltas.lora(rank=2), reparams.fastfood(), size=4, seed=seed
    )

  shared = {'policy_names': ['best-1'], 'seeds': [0], 'targets': TARGETS[:1]}
  make(tmp_path / 'first', method=inside(0), **shared).run()
  asked = {'sources': None, 'bank': str(tmp_path / 'first' / 'bank'), **shared}
  make(tmp_path / 'same', method=inside(0), **asked)
  with pytest.raises(ValueError, match='found none of these.*fingerprint'):
    make(tmp_path / 'other', method=inside(1), **asked)


def test_a_bank_is_not_written_over_by_another_study(tmp_path, make, fake):
  asked = {'bank': str(tmp_path / 'bank'), 'policy_names': ['best-1']}
  make(tmp_path / 'first', **asked).run()
  # the same prompts again, and the study itself once more
  make(tmp_path / 'second', **asked)
  make(tmp_path / 'first', **asked)
  for changes in (
    {'source': SIDE._replace(rate=0.1)},
    {'source': SIDE._replace(settings=SETTINGS._replace(steps=6))},
    {'method': deltas.prompt(length=3, start='uniform')},
  ):
    with pytest.raises(ValueError, match='bank: .*would be replaced'):
      make(tmp_path / 'third', **asked | changes)


def test_a_best_checkpoint_is_not_compared_with_an_embedding(
  tmp_path, make, fake
):
  make(tmp_path / 'first', policy_names=['best-1'], seeds=[0]).run()
  bank = tmp_path / 'first' / 'bank'
  entry = store.read(bank / 'source-topics-s0')
  assert not np.array_equal(entry.phi['encoder'], entry.embedding['encoder'])
  store.write(bank / entry.name, entry.phi, entry.card)
  make(
    tmp_path / 'second',
    sources=None,
    bank=str(bank),
    policy_names=['best-1'],
    seeds=[0],
  ).run()
  rows = table(tmp_path / 'second', 'similarities.csv')
  own = {
    t: store.read(tmp_path / 'second' / 'tuned' / f'scratch-{t}-s0').phi
    for t in TARGETS
  }
  assert {r['source'] for r in rows} == {f'source-{s}-s0' for s in SOURCES}
  for row in rows:
    if row['metric'] == 'average':
      ours = similarity.vectors(own[row['target']])
      theirs = similarity.vectors(store.read(bank / row['source']).phi)
      found = similarity.SIMILARITIES['average'](ours, theirs[None])
      assert float(row['similarity']) == pytest.approx(float(found[0]))


# -- what counts


def test_outcomes_are_those_of_the_rows(tmp_path, make, fake):
  make(tmp_path).run()
  rows = {r['cell']: r for r in table(tmp_path)}
  ranked = {}
  for r in table(tmp_path, 'similarities.csv'):
    key = (r['metric'], r['target'], r['seed'])
    ranked.setdefault(key, []).append(r['source'])
  found = table(tmp_path, 'policies.csv')
  assert len(found) == 4 * (2 * 3 + 4)
  for r in found:
    base = rows[f'scratch-{r["target"]}-s{r["seed"]}']
    assert float(r['scratch']) == float(base['test'])
    if r['policy'] == 'random-1':
      continue
    chosen = rows[r['chosen']]
    assert float(r['test']) == float(chosen['test'])
    assert float(r['validation']) == float(chosen['validation'])
    if r['policy'] in ('best-1', 'best-2', 'oracle'):
      metric = r['metric'] or 'average'
      names = ranked[metric, r['target'], r['seed']]
      count = len(names) if r['policy'] == 'oracle' else int(r['policy'][-1])
      tried = [
        float(
          rows[f'transfer-{r["target"]}-s{r["seed"]}-from-{n}']['validation']
        )
        for n in names[:count]
      ]
      assert float(r['validation']) == max(tried)


def test_it_runs_for_real(tmp_path, make):
  """Nothing made up: two sources, one target, one seed."""
  make(
    tmp_path,
    sources=SOURCES[:2],
    targets=TARGETS[:1],
    seeds=[0],
    policy_names=['best-1', 'mixture-1'],
  ).run()
  rows = table(tmp_path)
  assert [r['stage'] for r in rows].count('source') == 2
  for row in rows:
    scored = row['stage'] != 'mixture'
    assert (0 <= float(row['test']) <= 100) == scored
    assert 0 <= float(row['validation']) <= 100
    assert row['best_step'] in ('2', '4')
  (entry,) = (tmp_path / 'bank').glob('source-reviews-s0')
  card = json.loads((entry / 'card.json').read_text())
  assert card['embedding_step'] == 2 and card['template_hash']
  read = store.read(entry)
  assert read.embedding['encoder'].shape == read.phi['encoder'].shape == (3, 16)
  assert {p.name for p in tmp_path.glob('stacks/*/*')} == {'tensorboard'}


def test_lora_in_a_fastfood_space_is_transferred(tmp_path, make):
  """A method in a subspace is a method: its code is what is transferred."""
  inside = subspace.subspace(
    deltas.lora(rank=2), reparams.fastfood(block=16), 8, spread=0.1
  )
  make(
    tmp_path,
    sources=SOURCES[:2],
    targets=TARGETS[:1],
    seeds=[0],
    policy_names=['best-1', 'average-2'],
    method=inside,
  ).run()
  rows = table(tmp_path)
  assert {r['trained_parameters'] for r in rows} == {'8'}
  entries = [
    store.read(tmp_path / 'bank' / f'source-{n}-s0') for n in SOURCES[:2]
  ]
  for entry in entries:
    assert entry.card['method'] == 'subspace'
    assert entry.card['settings']['method']['name'] == 'lora'
    assert entry.phi['code'].shape == (8,)
  # the same map, so that codes mean the same
  marks = {e.card['settings']['fingerprint'] for e in entries}
  assert len(marks) == 1
  ranks = table(tmp_path, 'similarities.csv')
  best = min(ranks, key=lambda r: int(r['rank']))
  one, other = (e.embedding['code'] for e in entries)
  assert abs(float(best['similarity'])) <= 1 and not np.array_equal(one, other)


# -- mistakes


MISTAKES = {
  "policies: expected k up to 3, .* found .'best-4'": {
    'policy_names': ['best-4']
  },
  'targets: expected a list': {'targets': 'questions'},
  'sources: expected a list': {'sources': []},
  'sources: expected tasks .* or a bank': {'sources': None},
  'metrics: expected names among .*average': {'metrics': ['nosuch']},
  'baselines: expected names among .*full': {'baselines': ['nosuch']},
  'pairing: expected names among': {'pairing': 'nosuch'},
  'unknown task .nosuch': {'sources': ['nosuch']},
  "the tasks of 'mrqa' has data": {'sources': ['mrqa']},
  'sources: expected a source prompt for every target': {
    'sources': ['questions'],
    'targets': ['questions'],
    'policy_names': ['oracle'],
  },
  'limit: expected a whole number >= 1': {'limit': 0},
  'held_out: expected a whole number >= 1': {'held_out': -1},
  'scratch: expected a method whose phi is that of .prompt': {
    'scratch': deltas.prompt(length=5)
  },
  'scratch: expected a method whose phi is .*encoder  .5, 16': {
    'method': deltas.prompt(length=5),
    'scratch': deltas.lora(rank=2),
  },
  'wide.settings.test_examples: expected 8, .* found None': {
    'baselines': ['full'],
    'wide': study.Side(SETTINGS._replace(test_examples=None), rate=1e-3),
  },
  'embedding_step: expected a multiple': {
    'target': study.Side(SETTINGS._replace(embedding_step=3))
  },
}


@pytest.mark.parametrize('message', MISTAKES)
def test_mistakes_are_found_before_anything_runs(tmp_path, make, fake, message):
  with pytest.raises(ValueError, match=message):
    make(tmp_path / 'new', **MISTAKES[message])
  assert not (tmp_path / 'new').exists() and not fake


def test_a_bank_without_fitting_entries_is_refused(tmp_path, make, small):
  card = {
    'task': 'reviews',
    'method': 'prompt',
    'settings': {'length': 3},
    'backbone': 'other',
    'fingerprint': 'f' * 64,
  }
  phi = {'encoder': np.zeros((3, 16), np.float32)}
  store.write(tmp_path / 'bank' / 'foreign', phi, card)
  with pytest.raises(ValueError, match='none of these among the 1 entries'):
    make(tmp_path / 'new', sources=None, bank=str(tmp_path / 'bank'))


@pytest.mark.parametrize(
  'changes',
  [
    {'source': SIDE._replace(rate=0.1)},
    {'target': SIDE._replace(shots=5)},
    {'limit': 50},
    {'scratch': deltas.prompt(length=3, start='labels')},
  ],
)
def test_a_folder_of_another_study_is_refused(tmp_path, make, fake, changes):
  make(tmp_path, policy_names=['best-1'], seeds=[0]).run()
  with pytest.raises(ValueError, match='results that were made differently'):
    make(tmp_path, policy_names=['best-1'], seeds=[0], **changes)


def test_names_of_cells_are_their_combination():
  assert plan.mark(['a', 'b']) == plan.mark(['a', 'b']) != plan.mark(['b', 'a'])


def test_texts_that_are_trained_on_and_tested_are_told(
  tmp_path, make, overlapping, fake
):
  asked = {
    'data_dir': str(overlapping),
    'targets': ['copied'],
    'policy_names': ['best-1'],
  }
  job = make(tmp_path / 'out', sources=['reviews'], **asked)
  told = (
    '98 % of the test examples of copied have a text that reviews trains on'
  )
  assert f'overlap    {told}' in job.plan
  assert job.record['overlaps'] == [told]
  # so are those of a bank's prompts
  job.run()
  bank = str(tmp_path / 'out' / 'bank')
  other = make(tmp_path / 'other', sources=None, bank=bank, **asked)
  assert other.record['overlaps'] == [told]
