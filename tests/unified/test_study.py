"""The study: what is run, on what, and that its numbers are what they say."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.bank import store
from prompt_subspace.data import crossfit_tasks
from prompt_subspace.data.tasks import DEMO
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.evaluation import predict
from prompt_subspace.training import engine, results, spec
from prompt_subspace.unified import (
  columns,
  evaluate,
  landscape,
  study,
  tables,
  transfer,
)
from prompt_subspace.unified.joint import Joint
from prompt_subspace.unified.landscape import Look
from tasks import english  # noqa: F401  registers the templates of real tasks
from tests import made_up
from tests.made_up import table

SETTINGS = spec.Settings(
  steps=4,
  batch_size=2,
  evaluate_every=2,
  validation_examples=8,
  test_examples=8,
  evaluation_batch=8,
  buckets=1,
)
GROUPS = {
  'one': {'train': ['reviews'], 'unseen': ['questions']},
  'many': {'train': ['reviews', 'topics'], 'unseen': ['causes', 'questions']},
}
LIBRARY = {
  'adapter': deltas.adapter(rank=2),
  'lora': deltas.lora(rank=1),
  'prefix': deltas.prefix(length=2, hidden=3),
}


@pytest.fixture(scope='module')
def make(small, tmp_path_factory):
  """Plans a small study, with some arguments changed."""
  shared = {
    'groups': GROUPS,
    'library': LIBRARY,
    'sizes': [3],
    'original': SETTINGS,
    'approximation': SETTINGS,
    'inside': SETTINGS,
    'inside_rates': [0.05, 0.01],
    'backbone': small,
    'max_input': 24,
    'max_target': 8,
    'cache': str(tmp_path_factory.mktemp('cache')),
  }
  return lambda out, **changes: study.unify(out=str(out), **shared | changes)


@pytest.fixture(scope='module')
def finished(make, tmp_path_factory):
  """A whole study of one group, with a landscape."""
  folder = tmp_path_factory.mktemp('study')
  make(folder, **ONE).run()
  return folder


ONE = {
  'groups': {'one': GROUPS['one']},
  'look': Look(maps=['linear'], reach=1.0, step=0.5, examples=8),
}


@pytest.fixture
def fake(monkeypatch):
  return made_up.training(monkeypatch)


def recovery(folder):
  return results.read_csv(folder / 'recovery.csv', columns.RECOVERY)


# -- what is run


def test_the_whole_study_runs_and_is_made_once(finished, make, capsys):
  rows = table(finished)
  stages = [r['stage'] for r in rows]
  # types x tasks; one space; types x rates
  assert [stages.count(s) for s in ('original', 'maps', 'inside')] == [6, 1, 6]
  found = recovery(finished)
  count = {
    s: sum(r['stage'] == s for r in found)
    for s in ('approximation', 'inside', 'transfer')
  }
  assert count == {'approximation': 3, 'inside': 3, 'transfer': 6}
  assert {
    (r['source'], r['type']) for r in found if r['stage'] == 'transfer'
  } == {(a, b) for a in LIBRARY for b in LIBRARY if a != b}
  assert '13, 0 to do' in make(finished, **ONE).plan
  before = (finished / 'recovery.csv').read_text()
  capsys.readouterr()
  make(finished, **ONE).run()
  assert (finished / 'recovery.csv').read_text() == before
  assert 'evaluations in' not in capsys.readouterr().out


def test_codes_that_were_evaluated_are_not_evaluated_again(
  finished, make, tmp_path, monkeypatch
):
  folder = tmp_path / 'cut'
  shutil.copytree(finished, folder)
  (path,) = (folder / 'recovery').iterdir()
  lines = path.read_text().splitlines(keepends=True)
  # as a run that was killed after five of its twelve lines
  path.write_text(''.join(lines[:6]))
  (folder / 'recovery.csv').unlink()
  asked = []
  real = transfer.transfer
  monkeypatch.setattr(
    transfer, 'transfer', lambda *a: asked.append(a[1]) or real(*a)
  )
  make(folder, **ONE).run()
  assert path.read_text() == ''.join(lines)
  left = [line.split(',') for line in lines[6:]]
  # what a run has found itself is known
  assert len(asked) == sum(r[0] != 'inside' for r in left) > 0


def test_tuning_with_the_type_itself_is_its_run(finished):
  rows = {r['cell']: r for r in table(finished)}
  for row in recovery(finished):
    if row['stage'] == 'inside':
      own = rows[row['cell']]
      assert float(own['test']) == row['test']
      assert own['method'] == row['type'] == row['source']
      rivals = [
        float(r['validation'])
        for r in rows.values()
        if r['stage'] == 'inside' and r['method'] == row['type']
      ]
      assert row['validation'] == max(rivals)


def test_originals_are_the_best_by_validation(finished):
  rows = [r for r in table(finished) if r['stage'] == 'original']
  for row in recovery(finished):
    own = [
      r for r in rows if r['task'] == row['task'] and r['method'] == row['type']
    ]
    best = max(own, key=lambda r: float(r['validation']))
    assert row['original'] == float(best['test'])


def test_a_transferred_score_is_that_of_the_code_with_the_other_type(
  finished, make, small
):
  """By hand: the code out of the run's history, through the map from the bank,
  added to where the type starts."""
  row = next(
    r
    for r in recovery(finished)
    if (r['stage'], r['source'], r['type']) == ('transfer', 'lora', 'prefix')
  )
  record = json.loads((finished / 'rows' / f'{row["cell"]}.json').read_text())
  at = next(p for p in record['history'] if p['step'] == row['step'])
  code = np.array([at[f'code/{i}'] for i in range(3)], np.float32)
  maps = store.read(finished / 'bank' / 'maps-one-linear-z3-s0').phi
  method = LIBRARY['prefix']
  from tests import sample

  start, back = trees.ravel(
    method.init(jax.random.key(0), sample.setting(small))
  )
  phi = back(start + code @ maps['maps']['prefix']['up'])
  assert row['test'] == score(small, make, method, phi, 'test')
  assert row['validation'] == score(small, make, method, phi, 'validation')


def score(small, make, method, phi, split):
  """The score of a phi on the unseen task, without anything of the study."""
  from prompt_subspace.data import arrays, tasks

  task = tasks.find('questions', None)
  held = arrays.prepare(
    task, small.vocabulary, make.__closure__[0].cell_contents['cache'], 24, 8
  )
  data = {
    'inputs': held.splits[split].inputs,
    'targets': held.splits[split].targets,
  }
  texts = predict.predict(
    predict.make_predictor(small.config, method.delta),
    Frozen(small.weights),
    jax.tree.map(lambda x: x[None], phi),
    [0],
    held,
    split,
    jax.tree.map(jax.numpy.asarray, data),
    small.vocabulary,
    small.config.vocab_size,
    examples=8,
  )
  return predict.score(held, split, texts[0])['score']


def test_transferred_codes_are_those_of_the_other_types_runs(finished):
  for row in recovery(finished):
    if row['stage'] == 'transfer':
      assert row['cell'].startswith('inside-one-linear-z3-s0-questions-')
      assert f'-{row["source"]}-' in row['cell']
      assert row['step'] in (2, 4)


@pytest.mark.parametrize(
  'choose_by, chosen', [('target', 'second'), ('source', 'third')]
)
def test_the_code_is_chosen_by_validation_of_the_type_that_uses_it(
  monkeypatch, choose_by, chosen
):
  """Or, as the released code does, of that which found it; never by test."""
  scores = {
    # of the type that uses them: validation, test
    0.0: (50.0, 90.0),
    1.0: (70.0, 40.0),
    2.0: (60.0, 80.0),
  }
  found = (('first', 50.0), ('second', 55.0), ('third', 65.0))
  tried = [
    {
      'code': np.full(2, i, np.float32),
      'cell': name,
      'step': i,
      'validation': theirs,
    }
    for i, (name, theirs) in enumerate(found)
  ]

  def score(where, kind, codes, task, split, examples):
    assert (where.settings, kind, task) == (SETTINGS, 'lora', 'a task')
    place = ('validation', 'test').index(split)
    return [{'score': scores[float(c[0])][place]} for c in codes]

  monkeypatch.setattr(evaluate, 'scores', score)
  where = SimpleNamespace(settings=SETTINGS)
  row = transfer.transfer(where, 'lora', tried, 'a task', choose_by)
  step = [name for name, _ in found].index(chosen)
  validation, test = scores[float(step)]
  assert row == {
    'validation': validation,
    'test': test,
    'cell': chosen,
    'step': step,
  }


@pytest.mark.parametrize(
  'changes, name',
  [
    ({'inside_rates': [0.05]}, 'inside_rates'),
    ({'rates': [0.1]}, 'rates.adapter'),
  ],
)
def test_what_choices_are_among_cannot_change_in_a_folder(
  finished, make, changes, name
):
  """Maps, transfers and landscapes that are there rest on them."""
  with pytest.raises(ValueError, match=f'made differently:\n  {name}: it was'):
    make(finished, **ONE | changes)


def test_the_best_is_the_first_of_the_highest():
  nan = float('nan')
  assert evaluate.best([nan, 3.0, 5.0, 5.0]) == 2
  assert evaluate.best([nan, nan]) == 0
  assert evaluate.best([-1.0, nan]) == 0


def test_the_landscape_is_of_the_codes_that_were_found(finished):
  lines = results.read_csv(finished / 'landscapes.csv', columns.LANDSCAPES)
  assert [r['type'] for r in lines] == list(LIBRARY)
  assert (lines[0]['x'], lines[0]['y']) == (0, 0)
  assert (lines[1]['x'], lines[1]['y']) == (1, 0)
  rows = landscape.read(finished / lines[0]['file'])
  assert len(rows) == 3 * 25
  # at the first solution's place, the first type has its own score
  own = next(
    r
    for r in recovery(finished)
    if r['stage'] == 'inside' and r['type'] == 'adapter'
  )
  here = next(
    r for r in rows if (r['x'], r['y'], r['type']) == (0, 0, 'adapter')
  )
  assert here['score'] == own['validation']


def test_maps_are_trained_on_what_the_originals_reached(
  tmp_path, make, fake, small
):
  job = make(tmp_path, groups={'many': GROUPS['many']})
  asked = []
  from prompt_subspace.unified import joint

  real = joint.shared

  def watch(held, size, seed, tasks, how, solutions):
    asked.append((held, solutions))
    return real(held, size, seed, tasks, how, solutions)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(joint, 'shared', watch)
    # made-up rows have no codes in their history
    with pytest.raises(KeyError, match='code/0'):
      job.run()
  held, solutions = asked[0]
  for number, task in enumerate(GROUPS['many']['train']):
    entry = store.read(tmp_path / 'bank' / f'original-{task}-lora-s0-r0.01')
    flat, _ = trees.ravel(entry.phi)
    np.testing.assert_allclose(
      solutions['lora'][number], flat - held['lora'].start.flat, rtol=1e-6
    )


def test_the_short_pipeline_needs_no_originals_of_its_training_tasks(
  tmp_path, make
):
  kinds = {'linear': reparams.linear(down=False)}
  short = make(tmp_path, how=Joint(pipeline='short'), maps=kinds)
  whole = make(tmp_path / 'other')
  # 3 types: 2 unseen tasks, or 4 tasks; 2 spaces; 3 unseen places x 2 rates
  assert f'runs       {3 * 2 + 2 + 3 * 3 * 2},' in short.plan
  assert f'runs       {3 * 4 + 2 + 3 * 3 * 2},' in whole.plan


def test_what_seeds_share_is_compiled_once_and_leaves_their_numbers_alone(
  tmp_path, make
):
  short = {
    'groups': {'one': GROUPS['one']},
    'library': {'lora': LIBRARY['lora']},
    'maps': {'linear': reparams.linear(down=False)},
    'how': Joint(pipeline='short'),
  }
  # the second one's maps, codes and origin meet what the first one compiled
  with pytest.MonkeyPatch.context() as patch:
    made, real = [], engine.make
    patch.setattr(engine, 'make', lambda *a: made.append(a) or real(*a))
    make(tmp_path / 'both', seeds=[1, 0], **short).run()
  # the original's, the maps' and the code's
  assert len(made) == 3
  make(tmp_path / 'alone', seeds=[0], **short).run()
  both, alone = (
    {r['cell']: r for r in table(tmp_path / n)} for n in ('both', 'alone')
  )
  assert len(both) == 2 * len(alone)
  for cell, row in alone.items():
    assert {**row, 'seconds': 0} == {**both[cell], 'seconds': 0}
  (name,) = (n for n in alone if n.startswith('maps-'))
  one, other = (
    store.read(tmp_path / n / 'bank' / name).phi for n in ('both', 'alone')
  )
  trees.check_same(one, other, 'maps')
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_kinds_of_maps_may_differ_by_type(tmp_path, make):
  kinds = {
    'mixed': {
      'adapter': reparams.linear(down=False),
      'lora': reparams.linear(down=False, scale=0.1),
    }
  }
  with pytest.raises(ValueError, match="maps: .*'mixed', missing .'prefix'"):
    make(tmp_path, how=Joint(pipeline='short'), maps=kinds)
  kinds['mixed']['prefix'] = kinds['mixed']['adapter']
  make(tmp_path, how=Joint(pipeline='short'), maps=kinds)


def test_a_folder_of_other_settings_is_refused(finished, make):
  with pytest.raises(ValueError, match='joint_rate'):
    make(finished, **ONE, rate=0.5)
  # maps are of all types together
  fewer = dict(list(LIBRARY.items())[:-1])
  with pytest.raises(ValueError, match=r'types: it was \['):
    make(finished, groups=ONE['groups'], library=fewer)
  # more of the same is no contradiction
  more = make(finished, **ONE | {'groups': GROUPS}, sizes=[3, 2], seeds=[0, 1])
  assert 'spaces     8' in more.plan


def test_mistakes_are_found_before_anything_runs(tmp_path, make):
  for changes, said in (
    ({'groups': {}}, 'groups'),
    ({'groups': {'a': {'train': ['reviews']}}}, "groups: expected .*'train'"),
    (
      {'groups': {'a': {'train': ['reviews'], 'unseen': ['reviews']}}},
      "unseen tasks of 'a' .*reviews.* on both sides",
    ),
    (
      {'groups': {'a': {'train': 'reviews', 'unseen': ['topics']}}},
      'groups, a',
    ),
    ({'sizes': [0]}, 'sizes: expected a whole number'),
    ({'choose_by': 'test'}, 'choose_by: .*source'),
    ({'rates': {'lora': [0.1]}}, "rates: .*'adapter'"),
    ({'look': Look(maps=['fastfood'])}, 'look.maps'),
    ({'look': Look(maps=['linear'], types=('lora',))}, 'look.types'),
    ({'how': Joint(pipeline='middle')}, 'pipeline'),
    ({'how': Joint(episodes=0)}, 'episodes: expected a whole number'),
    ({'how': Joint(code_rate=-5)}, 'code_rate: expected numbers above 0'),
    ({'how': Joint(weight=-1)}, 'weight: expected at least 0'),
    ({'rate': -1}, 'rate: expected numbers above 0'),
    ({'spread': -1}, 'spread: expected at least 0'),
    (
      {'inside': SETTINGS._replace(test_examples=4)},
      'inside.test_examples: expected 8, .* found 4',
    ),
    (
      {'look': Look(maps=['linear'], examples=4)},
      'look.examples: expected the validation_examples of original',
    ),
  ):
    with pytest.raises(ValueError, match=said):
      make(tmp_path, **changes)
  assert not list(tmp_path.iterdir())


def test_texts_that_are_trained_on_and_tested_are_told(
  tmp_path, make, overlapping
):
  job = make(
    tmp_path / 'out',
    data_dir=str(overlapping),
    groups={'one': {'train': ['reviews'], 'unseen': ['copied']}},
  )
  told = (
    '98 % of the test examples of copied have a text that reviews trains on'
  )
  assert f'overlap    {told}' in job.plan
  assert job.record['overlaps'] == [told]


@pytest.fixture
def crossfit(tmp_path):
  """The embedded reviews under three of CrossFit's names, one a set of it."""
  folder = tmp_path / 'tasks'
  for name in ('glue-sst2', 'rotten_tomatoes'):
    shutil.copytree(DEMO / 'reviews', folder / name)
  (folder / 'imdb').mkdir()
  for split, word in (('train', 'a'), ('dev', 'b'), ('test', 'c')):
    path = folder / 'imdb' / f'imdb_16_13_{split}.tsv'
    path.write_text(f'{word} good\tpositive\n{word} bad\tnegative\n')
  return str(folder)


def test_tasks_of_the_paper_that_are_missing_are_listed_or_left_out(
  tmp_path, make, crossfit
):
  groups = {
    'one': {'train': ['glue-sst2', 'dream', 'imdb'], 'unseen': ['codah']},
    'two': {'train': ['glue-sst2', 'imdb'], 'unseen': ['rotten_tomatoes']},
  }
  given = {'groups': groups, 'data_dir': crossfit}
  with pytest.raises(
    ValueError, match='2 of 5 tasks are not in .*dream, codah'
  ):
    make(tmp_path / 'out', **given)
  job = make(tmp_path / 'out', **given, skip_missing=True)
  assert job.record['groups'] == {
    'two': {'train': ('glue-sst2', 'imdb'), 'unseen': ('rotten_tomatoes',)}
  }
  assert 'note       2 tasks left out, no data: dream, codah' in job.plan
  assert 'leak: glue-sst2 and rotten_tomatoes share sentences' in job.plan
  assert 'task       imdb: classification, 2/2/2 examples' in job.plan
  del groups['two']
  with pytest.raises(ValueError, match=r"groups: .* one of \['one'\]"):
    make(tmp_path / 'out', **given, skip_missing=True)


def test_the_papers_lists_are_of_known_tasks():
  assert (len({*tables.TRAIN}), len({*tables.UNSEEN})) == (60, 9)
  assert not {*tables.TRAIN} & {*tables.UNSEEN}
  single = tables.single()
  assert sum(len(group['unseen']) for group in single.values()) == 11
  named = [n for g in single.values() for side in g.values() for n in side]
  assert {*tables.TRAIN, *tables.UNSEEN, *named} <= set(crossfit_tasks.TASKS)
