"""CrossFit's tasks are consistent; leaks and missing ones are named."""

import pytest

from prompt_subspace.data import crossfit_places as places
from prompt_subspace.data.crossfit_tasks import TASKS, row
from prompt_subspace.evaluation.metrics import METRICS
from tasks import english


def test_the_160_tasks():
  assert len(TASKS) == 160
  assert {r.type for r in TASKS.values()} == {
    'classification',
    'question answering',
    'conditional generation',
    'other',
  }
  assert {r.metric for r in TASKS.values()} == {*METRICS} - {'spearman'}
  assert row('glue-cola').metric == 'matthews'
  with pytest.raises(ValueError, match="'sst2' is no task .* acronym_id.*xsum"):
    row('sst2')


def test_metrics_fit_the_kinds():
  for name, (type, category, kind, metric) in TASKS.items():
    assert (kind == 'regression') == (metric == 'pearson'), name
    if type == 'classification':
      assert kind == 'classification', name
    if kind == 'classification':
      assert metric in ('accuracy', 'f1_macro', 'matthews'), name
    elif metric in ('accuracy', 'f1_macro'):
      chosen = category == 'multiple choice'
      assert chosen or name == 'definite_pronoun_resolution', name


def test_families_are_of_known_tasks():
  for shared, names in places.FAMILIES.items():
    assert len(set(names)) == len(names) > 1, shared
    assert set(names) <= set(TASKS), shared


def test_leaks_are_named():
  assert places.leaks(
    ['glue-sst2', 'glue-rte_16_13', 'glue-rte_16_21'], ['superglue-rte', 'imdb']
  ) == ['glue-rte and superglue-rte share RTE']
  (both,) = places.leaks(['ag_news'], ['ag_news_16_13'])
  assert both == 'ag_news and ag_news share everything: they are one task'
  with pytest.raises(ValueError, match="'rte' is no task of CrossFit"):
    places.leaks(['rte'], ['imdb'])


def test_registered_tasks_exist_and_answer_alike():
  assert set(places.REGISTERED) <= set(TASKS)
  for name, registered in places.REGISTERED.items():
    kind = english.TASKS[registered].kind
    # a choice is ranked here where CrossFit generates it, or labels its place
    alike = (TASKS[name].kind, 'multiple_choice')
    assert kind in alike, name


def test_registered_tasks_are_in_the_data(real_data):
  found = places.require(places.REGISTERED, real_data / 'tasks')
  assert found['glue-sst2'] == (('sst2',), ())
  assert len(found) == len(places.REGISTERED)


def touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()


def test_available_in_the_stated_order(tmp_path):
  names = ['glue-sst2', 'ag_news', 'imdb', 'xsum']
  for file in ('sst2/train.tsv', 'ag_news/train.jsonl', 'xsum/train.tsv'):
    touch(tmp_path / file)
  assert places.available(names, tmp_path) == {
    'glue-sst2': (('sst2',), ()),
    'ag_news': (('ag_news',), ()),
  }
  for seed in (100, 13):
    touch(tmp_path / 'glue-sst2' / f'glue-sst2_16_{seed}_train.tsv')
    touch(tmp_path / 'imdb' / f'imdb_16_{seed}_train.tsv')
  found = places.available(names, tmp_path)
  assert found['glue-sst2'].names == ('glue-sst2_16_13', 'glue-sst2_16_100')
  assert found['imdb'].seeds == (13, 100)
  touch(tmp_path / 'glue-sst2' / 'task.json')
  assert places.available(names, tmp_path)['glue-sst2'].names == ('glue-sst2',)


def test_missing_tasks_are_listed_with_the_way_to_get_them(tmp_path):
  touch(tmp_path / 'sst2' / 'train.tsv')
  assert places.require(['glue-sst2'], tmp_path)
  with pytest.raises(
    ValueError,
    match=r'2 of 3 tasks are not in .*: imdb, glue-cola\. .*'
    r'imdb/imdb_16_13_train.tsv .*task.json\. .*: cola \(for glue-cola\)\.',
  ):
    places.require(['imdb', 'glue-sst2', 'glue-cola'], tmp_path)
  with pytest.raises(ValueError, match='task.json.$'):
    places.require(['imdb'], tmp_path)
  with pytest.raises(ValueError, match='data_dir: .* none at .*nowhere'):
    places.available(['imdb'], tmp_path / 'nowhere')
  with pytest.raises(ValueError, match="'sst2' is no task of CrossFit"):
    places.available(['sst2'], tmp_path)
