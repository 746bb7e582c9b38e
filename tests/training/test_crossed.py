"""Few-shot tuning by cross-validation: what is tried, chosen, tested, kept."""

import json
import math

import jax
import numpy as np
import pytest

from prompt_subspace import deltas
from prompt_subspace.bank import store
from prompt_subspace.report import crossed as report
from prompt_subspace.training import crossed, results, spec, stack, trials
from tests import made_up

LIBRARY = {
  'short': deltas.prompt(length=2, start='uniform'),
  'long': deltas.prompt(length=3, start='uniform'),
  'lora': deltas.lora(rank=2),
}
SETTINGS = spec.Settings(
  batch_size=4,
  evaluate_every=2,
  test_examples=8,
  evaluation_batch=8,
  buckets=1,
)


@pytest.fixture(scope='module')
def plan(small, tmp_path_factory):
  """Plans a small study, with some arguments changed."""
  shared = {
    'tasks': ['reviews'],
    'shots': 4,
    'methods': {'prompt': ['short', 'long']},
    'library': LIBRARY,
    'rates': [0.3, 0.1],
    'steps': [2, 4],
    'folds': 2,
    'seeds': [0, 1],
    'backbone': small,
    'settings': SETTINGS,
    'max_input': 64,
    'max_target': 8,
    'cache': str(tmp_path_factory.mktemp('cache')),
  }
  return lambda out, **changes: crossed.cross_validate(
    out=str(out), **shared | changes
  )


def result(row, settings):
  """What comes of a row: on folds `score`, and no test."""
  return stack.RowResult(
    validation=50.0,
    best_step=2,
    test={'score': 40.0 + row.seed if 'fold' not in row.id else math.nan},
    phi=jax.tree.map(np.asarray, row.phi),
    stopped=3 if row.rate > 1 else -1,
    seconds=1.0,
    padding=0.0,
    history=[
      {'step': n, 'loss': 1.0, 'validation': score(row.id, n)}
      for n in range(2, settings.steps + 1, 2)
    ],
  )


@pytest.fixture
def fake(monkeypatch):
  """Runs nothing: results are made up of the rows."""
  return made_up.training(monkeypatch, result)


def score(name, step):
  """Best at 4 updates of `long` at rate 0.1, by the mean of the folds alone."""
  value = 10.0 + step
  value += 20 * ('-long' in name) + 5 * ('r0.1' in name)
  # on the first fold another setting is far better
  lucky = name.endswith('fold0') and '-short' in name and 'r0.3' in name
  return value + 30 * lucky


def lines(folder):
  return results.read_csv(folder / 'settings.csv', crossed.SETTINGS)


def ids(asked):
  return [x.row.id for x in asked]


def test_a_study_end_to_end(plan, tmp_path, small):
  plan(tmp_path, seeds=[0]).run()
  tried = lines(tmp_path)
  assert len(tried) == 2 * 2 * 2
  for line in tried:
    # two folds of four examples each
    assert line['folds'] == 2 and line['validation'] % 12.5 == 0
  (chosen,) = [x for x in tried if x['chosen']]
  assert chosen['validation'] == max(x['validation'] for x in tried)
  (row,) = results.read_csv(tmp_path / 'results.csv')
  assert (row['method'], row['rate'], row['steps']) == (
    'prompt',
    chosen['rate'],
    chosen['steps'],
  )
  assert row['test'] % 12.5 == 0 and row['best_step'] <= chosen['steps']
  (name,) = [p.name for p in (tmp_path / 'bank').iterdir()]
  entry = store.read(tmp_path / 'bank' / name)
  store.check_backbone(entry, small)
  long = 3 if chosen['variant'] == 'long' else 2
  assert entry.phi['encoder'].shape[0] == long
  assert entry.card['settings']['length'] == long
  text = report.report(tmp_path)
  assert f'{row["test"]:.1f}' in text and '1 of 1' in text
  assert '0 to do' in plan(tmp_path, seeds=[0]).plan


def test_the_best_mean_over_folds_is_trained_on_all_and_tested(
  plan, tmp_path, fake
):
  plan(tmp_path).run()
  names = ids(fake)
  folds = [n for n in names if 'fold' in n]
  assert len(folds) == len(set(folds)) == 2 * 2 * 2 * 2
  assert names[len(folds) :] == [
    f'reviews-prompt-long-s{seed}-r0.1-n4' for seed in (0, 1)
  ]
  held = {}
  for asked in fake:
    row, splits = asked.row, asked.task.splits
    counts = {n: len(x.labels) for n, x in splits.items()}
    if 'fold' in row.id:
      assert counts == {'train': 4, 'validation': 4}, 'no test to choose by'
      held.setdefault((row.seed, row.id[-1]), []).append(splits['validation'])
    else:
      assert counts == {'train': 8, 'validation': 8, 'test': 70}
      assert asked.settings.steps == 4
  for same in held.values():
    assert len(same) == 4, 'all settings are scored on the same examples'
    for other in same:
      np.testing.assert_array_equal(other.inputs, same[0].inputs)
  rows = results.read_csv(tmp_path / 'results.csv')
  assert [(r['method'], r['rate'], r['test']) for r in rows] == [
    ('prompt', 0.1, 40.0),
    ('prompt', 0.1, 41.0),
  ]
  tried = {
    (x['seed'], x['variant'], x['rate'], x['steps']): x['validation']
    for x in lines(tmp_path)
  }
  # (10 + 2 + 30 and 10 + 2) / 2
  assert tried[0, 'short', 0.3, 2] == 27.0 and tried[1, 'long', 0.1, 4] == 39.0


def test_fewer_updates_are_a_setting_that_costs_no_run(plan, tmp_path, fake):
  plan(tmp_path, steps=[4], seeds=[0]).run()
  count = len(ids(fake))
  assert ids(fake)[-1].endswith('-n4')
  plan(tmp_path, steps=[2, 4], seeds=[0]).run()
  assert len(ids(fake)) == count, 'the choice is the same'


def test_more_settings_are_added_and_only_they_are_run(plan, tmp_path, fake):
  plan(tmp_path, methods={'prompt': ['short']}, rates=[0.3], seeds=[0]).run()
  first = len(ids(fake))
  plan(tmp_path, seeds=[0]).run()
  new = ids(fake)[first:]
  assert len(new) == 3 * 2 + 1 and not any('short-s0-r0.3' in n for n in new)
  # the results have what is chosen now
  (row,) = results.read_csv(tmp_path / 'results.csv')
  assert row['rate'] == 0.1
  plan(tmp_path, seeds=[0]).run()
  assert len(ids(fake)) == first + len(new)


def test_after_a_failure_what_is_missing_is_made(
  plan, tmp_path, fake, monkeypatch
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
  # both variants' folds are there, the chosen runs are not
  assert len(ids(fake)) == 16 and not (tmp_path / 'results.csv').exists()
  assert 'on 2 folds, 0 to do' in plan(tmp_path).plan
  plan(tmp_path).run()
  assert len(ids(fake)) == 18
  assert len(results.read_csv(tmp_path / 'results.csv')) == 2


def test_a_setting_that_stops_in_a_fold_is_not_chosen(plan, tmp_path, fake):
  plan(tmp_path, rates=[7.0, 0.3], methods=['short'], seeds=[0]).run()
  found = {(x['rate'], x['steps']): x for x in lines(tmp_path)}
  # it stopped at the update 3: before that it has a score
  assert found[7.0, 2]['folds'] == 2 and found[7.0, 4]['folds'] == 0
  assert found[0.3, 4]['chosen'] == 1


def test_of_equals_the_gentlest():
  def line(**changes):
    same = {'folds': 4, 'validation': 50.0, 'steps': 4, 'rate': 0.3}
    return same | changes

  assert trials.best([line(), line(steps=2), line(rate=0.1)]) == 1
  assert trials.best([line(), line(rate=0.1), line(rate=0.1)]) == 1
  assert trials.best([line(), line(validation=60.0, folds=3)]) == 0
  nothing = line(validation=math.nan, folds=0)
  assert trials.best([nothing, line(validation=0.0)]) == 1
  assert trials.best([nothing, nothing]) == 0


def test_every_seed_counts_once_in_the_table(plan, tmp_path, fake):
  plan(tmp_path, methods=['short'], seeds=[0, 1]).run()
  rows = results.read_csv(tmp_path / 'results.csv')
  # as if the seeds had chosen differently
  rows[1]['rate'] = 0.1
  results.write_csv(tmp_path / 'results.csv', rows)
  text = report.report(tmp_path)
  assert '40.5 ± 0.7' in text
  assert (tmp_path / 'table.md').read_text(encoding='utf-8').count('40.5') == 2


def test_another_split_is_another_study(plan, tmp_path, fake):
  plan(tmp_path, seeds=[0]).run()
  for changes, said in (
    ({'folds': 4}, 'folds: it was 2, asked for is 4'),
    ({'shots': 6}, 'shots.reviews: it was 4'),
    ({'steps': [2, 6]}, 'settings.steps: it was 4'),
  ):
    with pytest.raises(ValueError, match=said):
      plan(tmp_path, seeds=[0], **changes)
  record = json.loads((tmp_path / 'identity.json').read_text())
  assert record['folds'] == 2


MISTAKES = {
  'steps: expected multiples of evaluate_every = 2.*found .3': {
    'steps': [3, 4]
  },
  'steps: expected a whole number': {'steps': [0, 4]},
  'shots: expected an entry for task .reviews': {'shots': {'causes': 3}},
  'shots: expected a whole number': {'shots': 0},
  "folds: task 'reviews' has 4 .* each of 5": {'folds': 5},
  'folds: expected 2 or more': {'folds': 1},
  'methods, prompt: expected a list': {'methods': {'prompt': 'short'}},
  'methods: expected names among': {'methods': {'prompt': ['nosuch']}},
  'rates: expected an entry for method .prompt': {'rates': {'lora': [0.1]}},
  'seeds: expected a list of at least one seed': {'seeds': []},
  'two runs would have the name': {'rates': [0.1, 0.1 + 1e-9]},
  'embedding_step: expected None': {
    'settings': SETTINGS._replace(embedding_step=2)
  },
}


@pytest.mark.parametrize('message', MISTAKES)
def test_mistakes_are_found_before_anything_runs(tmp_path, plan, fake, message):
  with pytest.raises(ValueError, match=message):
    plan(tmp_path / 'new', **MISTAKES[message])
  assert not (tmp_path / 'new').exists()
