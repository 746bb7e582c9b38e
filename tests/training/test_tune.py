"""The main job, end to end: a table of runs that is only ever added to."""

import functools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from prompt_subspace import deltas, trees
from prompt_subspace import predict as commands
from prompt_subspace.bank import store
from prompt_subspace.data import fewshot
from prompt_subspace.data.tasks import DEMO
from prompt_subspace.evaluation import predict
from prompt_subspace.training import (
  cells,
  optimizers,
  spec,
  stack,
  stage,
  tune,
)
from tests import made_up, sample
from tests.made_up import table

TASKS = ['reviews', 'causes']
COLUMNS = (
  'task,method,seed,rate,steps,best_step,validation,test,majority,seconds,'
  'trained_parameters,padding'
)
LIBRARY = {
  'prompt': deltas.prompt(length=2, start='uniform'),
  'lora': deltas.lora(rank=2),
}
SETTINGS = spec.Settings(
  steps=4,
  batch_size=4,
  evaluate_every=2,
  validation_examples=8,
  test_examples=8,
  evaluation_batch=8,
  buckets=1,
)


@pytest.fixture(scope='module')
def plan(small, tmp_path_factory):
  """Plans a small sweep, with some arguments changed."""
  shared = {
    'tasks': TASKS,
    'methods': ['prompt', 'lora'],
    'library': LIBRARY,
    'rates': {'prompt': [0.3], 'lora': [0.01]},
    'seeds': [0, 1],
    'backbone': small,
    'settings': SETTINGS,
    'max_input': 64,
    'max_target': 8,
    'cache': str(tmp_path_factory.mktemp('cache')),
  }
  return lambda out, **changes: tune.tune(out=str(out), **shared | changes)


@pytest.fixture(scope='module')
def finished(plan, tmp_path_factory):
  """The folder of a sweep that has run."""
  folder = tmp_path_factory.mktemp('runs') / 'tune'
  plan(folder).run()
  return folder


@pytest.fixture
def copy(finished, tmp_path):
  """A copy of it, to add to."""
  return shutil.copytree(finished, tmp_path / 'tune')


@pytest.fixture
def fake(monkeypatch):
  """Runs nothing: scores tell the seed, and rates above 1 are too high."""

  def result(row, settings):
    return made_up.result(row, settings)._replace(
      validation=float('nan') if row.rate > 1 else 50.0,
      test={'accuracy': 40.0 + row.seed, 'score': 40.0 + row.seed},
      stopped=3 if row.rate > 1 else -1,
    )

  return made_up.training(monkeypatch, result)


def ids(asked):
  return [x.row.id for x in asked]


# -- end to end


def test_the_table_has_a_line_per_run(finished, small, plan):
  header = (finished / 'results.csv').read_text().splitlines()[0]
  assert header == COLUMNS
  rows = table(finished)
  found = {(r['task'], r['method'], r['seed'], r['rate']) for r in rows}
  rate = {'prompt': '0.3', 'lora': '0.01'}
  assert len(rows) == 8 and found == {
    (t, m, s, rate[m]) for t in TASKS for m in LIBRARY for s in '01'
  }
  size = {
    name: trees.size(m.init(jax.random.key(0), sample.setting(small)))
    for name, m in LIBRARY.items()
  }
  for row in rows:
    assert row['steps'] == '4' and row['best_step'] in ('2', '4')
    assert int(row['trained_parameters']) == size[row['method']]
    for name in ('validation', 'test', 'majority'):
      # of eight examples
      assert float(row[name]) % 12.5 == 0 and 0 <= float(row[name]) <= 100
    assert float(row['seconds']) > 0
    # all inputs of `causes` are longer than what is taken of them
    padded = 0 < float(row['padding']) < 0.9
    assert padded == (row['task'] == 'reviews')
  assert len({r['majority'] for r in rows if r['task'] == 'causes'}) == 1


def test_every_delta_is_in_the_bank(finished, small):
  for row in table(finished):
    name = f'{row["task"]}-{row["method"]}-s{row["seed"]}-r{row["rate"]}'
    entry = store.read(finished / 'bank' / name)
    store.check_backbone(entry, small)
    assert trees.size(entry.phi) == int(row['trained_parameters'])
    assert entry.card['task'] == row['task']
    assert float(row['test']) == entry.card['metrics']['score']
    if row['task'] == 'reviews':
      assert entry.card['label_texts'] == ['negative', 'positive']
      assert entry.card['template']['input'] == 'review: {review}'
  assert not list(finished.glob('stacks/*/checkpoints'))


def test_all_metrics_and_answers_are_in_tables(finished):
  found = {}
  for row in table(finished, 'metrics.csv'):
    found.setdefault(row['cell'], {})[row['metric']] = float(row['test'])
  assert len(found) == 8
  for row in table(finished):
    name = f'{row["task"]}-{row["method"]}-s{row["seed"]}-r{row["rate"]}'
    assert np.mean(list(found[name].values())) == float(row['test'])
    answers = table(finished, f'predictions/{name}.csv')
    right = [a['target'] == a['output'] for a in answers]
    assert len(right) == 8 and 100 * np.mean(right) == found[name]['accuracy']


def test_the_command_answers_what_was_scored(tmp_path, plan, small):
  """Inputs are cut as they were in training."""
  asked = {'tasks': ['reviews'], 'methods': ['lora'], 'seeds': [0]}
  plan(tmp_path, **asked, max_input=9).run()
  (place,) = (tmp_path / 'bank').iterdir()
  lines = (DEMO / 'reviews' / 'test.tsv').read_text('utf-8').splitlines()
  names = lines[0].split('\t')
  rows = [
    json.dumps(dict(zip(names, line.split('\t'), strict=True)))
    for line in lines[1:9]
  ]
  entry = store.read(place)
  assert entry.card['max_input'] == 9

  def answers(entry):
    requests = commands.read_requests(rows, [entry])
    return commands.answer(requests, [entry], small)

  written = table(tmp_path, f'predictions/{place.name}.csv')
  assert [a['output'] for a in answers(entry)] == [r['output'] for r in written]
  uncut = entry._replace(card=entry.card | {'max_input': None})
  for one, other in zip(answers(entry), answers(uncut), strict=True):
    assert one['scores'] != pytest.approx(other['scores'], abs=1e-4)
    assert one['cut'] and 'cut' not in other


def test_a_method_of_ones_own_is_asked_for_by_its_name(
  tmp_path, plan, fake, monkeypatch
):
  own = dict(deltas.METHODS) | {'mine': lambda: deltas.prompt(length=5)}
  monkeypatch.setattr(stage, 'METHODS', own)
  job = plan(
    tmp_path, methods=['mine', 'lora'], rates=[0.1], keep_deltas=['adapter']
  )
  assert 'mine: 80 trained parameters' in job.plan
  assert job.plan.count('; not stored') == 2
  job.run()
  assert {r['method'] for r in table(tmp_path)} == {'mine', 'lora'}


def init_of(made):
  return deltas.Method('odd', lambda key, setting: made, lambda phi, batch: {})


def test_pieces_that_the_vocabulary_lacks_are_told(tmp_path, plan):
  shutil.copytree(DEMO / 'reviews', tmp_path / 'data' / 'other')
  train = tmp_path / 'data' / 'other' / 'train.tsv'
  text = train.read_text('utf-8')
  for letter in 'aeo':
    text = text.replace(f' {letter}', ' \u4f60\u597d')
  train.write_text(text, 'utf-8')
  asked = {'tasks': ['other'], 'data_dir': str(tmp_path / 'data')}
  assert re.search(
    r', \d+ % unknown pieces', plan(tmp_path / 'o', **asked).plan
  )
  assert 'unknown pieces' not in plan(tmp_path / 'new').plan


def test_the_job_says_what_it_will_do(plan, tmp_path, small):
  job = plan(tmp_path / 'new')
  assert job.folder == tmp_path / 'new'
  assert not job.folder.exists(), 'planning writes nothing'
  for part in (
    small.fingerprint[:12],
    'reviews: classification, 120/50/70 examples',
    'causes: multiple_choice',
    'prompt: 32 trained parameters',
    '8 of 4 steps, 8 to do',
    'MiB',
  ):
    assert part in job.plan
  assert job.record['fingerprint'] == small.fingerprint
  assert set(job.record['data']) == set(TASKS)


def test_labels_that_scores_do_not_see_are_told(tmp_path, plan):
  few = SETTINGS._replace(test_examples=2)
  found = plan(tmp_path, tasks=['topics'], settings=few).plan
  assert re.search(r'its first 2 test examples have [12] of 4 labels', found)
  assert 'its first' not in plan(tmp_path, tasks=['topics', 'causes']).plan


# -- again, and more


def test_a_second_call_runs_nothing(copy, plan, fake):
  before = (copy / 'results.csv').read_bytes()
  job = plan(copy)
  assert ', 0 to do' in job.plan
  job.run()
  assert not fake
  assert (copy / 'results.csv').read_bytes() == before


def test_another_seed_runs_alone(copy, plan, fake):
  before = table(copy)
  plan(copy, seeds=[0, 1, 2]).run()
  assert sorted(ids(fake)) == sorted(
    f'{t}-{m}-s2-r{r}'
    for t in TASKS
    for m, r in (('prompt', 0.3), ('lora', 0.01))
  )
  after = table(copy)
  assert [r for r in after if r['seed'] != '2'] == before
  assert [r['test'] for r in after if r['seed'] == '2'] == ['42.0'] * 4


def test_what_was_asked_for_before_stays_in_the_table(copy, plan, fake):
  before = table(copy)
  plan(copy, tasks=TASKS[:1], seeds=[0]).run()
  assert not fake
  after = table(copy)
  assert sorted(r['task'] for r in after) == sorted(r['task'] for r in before)
  assert len(after) == len(before)


def test_a_row_is_the_same_whatever_else_is_asked(copy, finished, plan):
  """One run of the eight, alone, from nothing."""
  import shutil

  shutil.rmtree(copy)
  plan(copy, tasks=['reviews'], methods=['prompt'], seeds=[1]).run()
  name = 'reviews-prompt-s1-r0.3'
  whole, alone = (
    json.loads((f / 'rows' / f'{name}.json').read_text())
    for f in (finished, copy)
  )
  for x in (whole, alone):
    del x['row']['seconds']
  assert alone == whole
  phis = [store.read(f / 'bank' / name).phi for f in (finished, copy)]
  np.testing.assert_allclose(phis[0]['encoder'], phis[1]['encoder'], atol=1e-6)


def test_what_is_missing_is_made_after_a_failure(
  tmp_path, plan, fake, monkeypatch
):
  made, calls = stack.train_stack, []

  def failing(*args):
    calls.append(args)
    if len(calls) == 3:
      raise KeyboardInterrupt
    return made(*args)

  monkeypatch.setattr(stack, 'train_stack', failing)
  with pytest.raises(KeyboardInterrupt):
    plan(tmp_path).run()
  first = set(ids(fake))
  assert len(table(tmp_path)) == len(first) == 4
  plan(tmp_path).run()
  assert len(table(tmp_path)) == 8
  assert len(ids(fake)) == 8 == len(set(ids(fake)))


def other(small):
  return sample.backbone(small.vocabulary, seed=1)


REFUSED = {
  'settings.steps: it was 4, asked for is 5': {
    'settings': SETTINGS._replace(steps=5)
  },
  'settings.batch_size': {'settings': SETTINGS._replace(batch_size=2)},
  'settings.validation_examples': {
    'settings': SETTINGS._replace(validation_examples=None)
  },
  'optimizer: it was .adafactor., asked for is .sgd.': {
    'optimizer': optimizers.sgd
  },
  'optimizer_moved': {
    'optimizer': functools.partial(optimizers.adafactor, weight_decay=0.1)
  },
  'methods.prompt.length: it was 2, asked for is 3': {
    'library': LIBRARY | {'prompt': deltas.prompt(length=3, start='uniform')}
  },
  'dropout: it was 0.0, asked for is 0.1': {'dropout': 0.1},
  'shots: it was None, asked for is 3': {'shots': 3},
  'tasks.reviews': {'max_input': 20},
  'fingerprint: it was': {'backbone': other},
}


@pytest.mark.parametrize('message', REFUSED)
def test_a_folder_of_other_results_is_refused(finished, plan, small, message):
  changes = {
    k: v(small) if v is other else v for k, v in REFUSED[message].items()
  }
  before = {p: p.stat().st_mtime_ns for p in finished.rglob('*')}
  with pytest.raises(ValueError, match=message) as error:
    plan(finished, **changes)
  assert str(finished) in str(error.value)
  assert {p: p.stat().st_mtime_ns for p in finished.rglob('*')} == before


def test_what_only_changes_the_speed_is_not_refused(finished, plan):
  faster = SETTINGS._replace(
    evaluation_batch=4, chunk=2, microbatch=2, checkpoint_seconds=5
  )
  assert ', 0 to do' in plan(finished, settings=faster).plan
  # nor another way to name the same optimiser, or fewer runs
  same = functools.partial(optimizers.adafactor, weight_decay=1e-5)
  assert ', 0 to do' in plan(finished, optimizer=same, seeds=[1]).plan


# -- what each run gets


def test_rates_go_to_their_methods(tmp_path, plan, fake):
  plan(tmp_path, rates={'prompt': [0.3, 0.1], 'lora': [0.01], 'x': [5]}).run()
  found = {(x.row.id.split('-')[1], x.row.rate) for x in fake}
  assert found == {('prompt', 0.3), ('prompt', 0.1), ('lora', 0.01)}
  assert len(table(tmp_path)) == 12


def test_starts_and_tasks_belong_to_the_runs(tmp_path, plan, fake):
  plan(tmp_path).run()
  starts = set()
  for row, task, *_ in fake:
    assert task.name == row.id.split('-')[0]
    leaves = jax.tree.leaves(row.phi)
    starts.add(tuple(float(x.ravel()[0]) for x in leaves))
  assert len(fake) == len(starts) == 8, 'each run has a start of its own'


def test_a_stack_holds_no_more_than_fits(tmp_path, plan, fake, monkeypatch):
  # a row of the prompt: 32 numbers, three times, and the optimiser's
  monkeypatch.setattr(cells, 'STATE_BYTES', 1500)
  plan(tmp_path, methods=['prompt'], seeds=range(5), tasks=['reviews']).run()
  sizes = np.bincount([x.stack for x in fake])
  assert sum(sizes) == 5 and max(sizes) < 5
  assert len(set(ids(fake))) == 5


def test_a_row_that_stopped_is_told_and_marked(tmp_path, plan, fake, capsys):
  plan(
    tmp_path, tasks=['reviews'], methods=['lora'], rates=[7.0, 0.1], seeds=[0]
  ).run()
  printed = capsys.readouterr().out
  assert 'reviews-lora-s0-r7: stopped at step 3' in printed
  assert 'r0.1: stopped' not in printed
  found = {r['rate']: r['validation'] for r in table(tmp_path)}
  assert found == {'7.0': 'nan', '0.1': '50.0'}
  row = json.loads((tmp_path / 'rows/reviews-lora-s0-r7.json').read_text())
  assert row['stopped'] == 3


def test_deltas_are_kept_of_the_methods_that_are_named(tmp_path, plan, fake):
  plan(tmp_path, tasks=['reviews'], keep_deltas=['lora']).run()
  kept = {p.name.split('-')[1] for p in (tmp_path / 'bank').iterdir()}
  assert kept == {'lora'} and len(table(tmp_path)) == 4


def test_what_runs_started_from_is_held_to_where_it_is_known(tmp_path):
  rows = tmp_path / 'rows'
  rows.mkdir()
  (rows / 'a.json').write_text('{"parents": {"one": "abc", "two": null}}')
  card = dict.fromkeys(store.REQUIRED)
  for name, files in (('one', {}), ('two', {'phi.safetensors': 'xyz'})):
    (tmp_path / 'bank' / name).mkdir(parents=True)
    text = json.dumps(card | {'files': files})
    (tmp_path / 'bank' / name / store.CARD).write_text(text)
  bank = epath.Path(tmp_path / 'bank')
  cells.check_parents(tmp_path, bank, ['one', 'two', 'gone'])
  (bank / 'one' / store.CARD).write_text(
    json.dumps(card | {'files': {'phi.safetensors': 'def'}})
  )
  with pytest.raises(ValueError, match='the one that .*a.json started from'):
    cells.check_parents(tmp_path, bank, ['one'])


def test_runs_without_a_delta_are_told(tmp_path, plan, fake, capsys):
  plan(tmp_path, tasks=['reviews'], keep_deltas=['lora']).run()
  assert 'no delta' not in capsys.readouterr().out
  plan(tmp_path, tasks=['reviews']).run()
  assert '2 finished runs have no delta in' in capsys.readouterr().out


def test_the_majority_is_that_of_the_task(tmp_path, plan, fake, monkeypatch):
  asked = []

  def majority(arrays, split, examples):
    asked.append((arrays.name, split, examples))
    return {'score': 12.5}

  monkeypatch.setattr(predict, 'majority', majority)
  plan(tmp_path).run()
  assert asked == [(name, 'test', 8) for name in TASKS]
  assert {r['majority'] for r in table(tmp_path)} == {'12.5'}


# -- few shots


def test_few_shot_splits_are_written_used_and_used_again(
  tmp_path, plan, fake, monkeypatch
):
  plan(tmp_path, shots=3, methods=['lora'], seeds=[0, 1]).run()
  files = {p.name: p.read_bytes() for p in (tmp_path / 'splits').iterdir()}
  assert len(files) == 4
  seen = {x.row.id: x.task for x in fake}
  for name, arrays in seen.items():
    few = 3 if name.startswith('causes') else 6
    assert len(arrays.splits['train'].labels) == few
    assert len(arrays.splits['validation'].labels) == few
    assert len(arrays.splits['test'].labels) == 70
  inputs = [
    seen[f'reviews-lora-s{seed}-r0.01'].splits['train'].inputs
    for seed in (0, 1)
  ]
  assert not np.array_equal(*inputs), 'each seed has a split of its own'
  # the files decide, not the draw
  monkeypatch.setattr(fewshot, 'draw', None)
  plan(tmp_path, shots=3, methods=['lora', 'prompt'], seeds=[0, 1]).run()
  prompts = [x for x in fake if '-prompt-' in x.row.id]
  assert len(prompts) == 4 == len(fake) - len(seen)
  for row, task, *_ in prompts:
    wanted = seen[row.id.replace('prompt', 'lora').replace('0.3', '0.01')]
    np.testing.assert_array_equal(
      task.splits['train'].inputs, wanted.splits['train'].inputs
    )
  assert files == {
    p.name: p.read_bytes() for p in (tmp_path / 'splits').iterdir()
  }


# -- mistakes


MISTAKES = {
  'unknown task .nosuch.; the known ones .*causes.*reviews': {
    'tasks': ['reviews', 'nosuch']
  },
  'methods: expected names among .*lora.*prompt.*found .*nosuch': {
    'methods': ['lora', 'nosuch']
  },
  'rates: expected an entry for method .lora., found only .*prompt': {
    'rates': {'prompt': [0.3]}
  },
  'tasks: expected a list of at least one name, found .reviews': {
    'tasks': 'reviews'
  },
  'tasks: .* found \\[\\]': {'tasks': []},
  'seeds: expected a list of at least one seed': {'seeds': []},
  'rates: expected a list of at least one rate, found 0.1': {'rates': 0.1},
  'rates, lora: expected numbers above 0, found .a': {
    'rates': {'prompt': [0.3], 'lora': ['a']}
  },
  'keep_deltas: .*nosuch': {'keep_deltas': ['nosuch']},
  'steps: expected a whole number >= 1, found 0': {
    'settings': SETTINGS._replace(steps=0)
  },
  'microbatch: .* divisor of batch_size = 4, found 3': {
    'settings': SETTINGS._replace(microbatch=3)
  },
  'two runs would have the name reviews-lora-s0-r0.1': {
    'tasks': ['reviews'],
    'methods': ['lora'],
    'rates': [0.1, 0.1 + 1e-9],
  },
  'odd: expected a phi of nested dicts without "/" in their names': {
    'library': {'odd': init_of({'a/b': np.zeros(2, np.float32)})},
    'methods': ['odd'],
    'rates': [0.1],
  },
  'odd: expected a phi of nested dicts .*found PyTreeDef': {
    'library': {'odd': init_of({'a': [np.zeros(2, np.float32)] * 2})},
    'methods': ['odd'],
    'rates': [0.1],
  },
  'odd: expected a phi of float32, found .*int32': {
    'library': {'odd': init_of({'a': np.zeros(2, np.int32)})},
    'methods': ['odd'],
    'rates': [0.1],
  },
  "library: expected a method for 'lora', such as .* with ()": {
    'library': {'lora': deltas.lora},
    'methods': ['lora'],
  },
  'optimizer: expected names among .*adafactor': {'optimizer': 'nosuch'},
  'optimizer: expected a name or a function of the rate': {
    'optimizer': optimizers.adam(0.1)
  },
  'data_dir: expected a folder .*nowhere': {'data_dir': '/nowhere'},
  'shots: task .* has .* expected at least 800': {'shots': 400},
  'backbone: expected one of .*mini': {'backbone': '/nowhere'},
}


@pytest.mark.parametrize('message', MISTAKES)
def test_mistakes_are_found_before_anything_runs(tmp_path, plan, fake, message):
  with pytest.raises(ValueError, match=message):
    plan(tmp_path / 'new', **MISTAKES[message])
  assert not (tmp_path / 'new').exists()


def test_a_backbone_without_vocabulary_is_refused(tmp_path, plan, small):
  with pytest.raises(
    ValueError, match='backbone: expected a vocabulary.*small'
  ):
    plan(tmp_path, backbone=small._replace(vocabulary=None))
