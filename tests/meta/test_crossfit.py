"""MPT's tables are whole and consistent; leaks and missing tasks are named."""

import pytest

from prompt_subspace.data.crossfit_tasks import TASKS, row
from prompt_subspace.evaluation.metrics import METRICS
from prompt_subspace.meta import crossfit
from prompt_subspace.meta.partitions import (
  LISTS,
  PARTITIONS,
  SUBSETS,
  partition,
)
from tasks import english

# Table 1 of Qin et al. 2023.
COUNTS = {
  'random to random': (114, 20),
  'classification to classification': (45, 10),
  'both to classification': (23 + 22, 10),
  'non-classification to classification': (45, 10),
  'classification to non-classification': (45, 12),
  'both to non-classification': (23 + 22, 12),
  'non-classification to non-classification': (45, 12),
  'QA to QA': (22, 15),
  'non-QA to QA': (33, 15),
  'non-paraphrase to paraphrase': (60, 4),
}


def types(names):
  return [TASKS[name].type for name in names]


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


def test_partitions_have_the_counts_of_the_paper():
  found = {k: (len(p.sources), len(p.targets)) for k, p in PARTITIONS.items()}
  assert found == COUNTS
  both = types(LISTS['both sources'])
  assert both.count('classification') == 23


@pytest.mark.parametrize('name', PARTITIONS)
def test_partitions_are_partitions(name):
  sources, targets = PARTITIONS[name]
  together = [*sources, *targets]
  assert len(set(together)) == len(together)
  assert set(together) <= set(TASKS)


def test_lists_hold_what_their_names_say():
  of = {name: set(types(names)) for name, names in LISTS.items()}
  for name in ('classification sources', 'classification targets'):
    assert of[name] == {'classification'}
  for name in ('non-classification sources', 'non-classification targets'):
    assert 'classification' not in of[name]
  assert of['QA sources'] == of['QA targets'] == {'question answering'}
  assert 'question answering' not in of['non-QA sources']
  assert of['non-paraphrase sources'] == {'classification'}
  paraphrase = {k for k, r in TASKS.items() if r.category == 'paraphrase'}
  assert set(LISTS['paraphrase targets']) == paraphrase
  assert not paraphrase & set(LISTS['non-paraphrase sources'])
  known = {
    *LISTS['classification sources'],
    *LISTS['non-classification sources'],
  }
  assert set(LISTS['both sources']) <= known


def test_subsets_are_of_the_classification_sources():
  whole = LISTS['classification sources']
  assert {n: len(set(names)) for n, names in SUBSETS.items()} == {
    12: 12,
    24: 24,
  }
  assert set(SUBSETS[12]) < set(SUBSETS[24]) < set(whole)


def test_a_partition_by_name():
  name = 'classification to non-classification'
  assert partition(name) == partition(name, 45) == PARTITIONS[name]
  assert partition(name, 12) == (SUBSETS[12], PARTITIONS[name].targets)
  with pytest.raises(
    ValueError, match="'cls'.*random to random, .* paraphrase"
  ):
    partition('cls')
  with pytest.raises(ValueError, match='expected 45, or .*12 or 24, found 13'):
    partition(name, 13)
  with pytest.raises(ValueError, match='expected 114, .*found 12'):
    partition('random to random', 12)


def test_families_are_of_known_tasks():
  for shared, names in crossfit.FAMILIES.items():
    assert len(set(names)) == len(names) > 1, shared
    assert set(names) <= set(TASKS), shared


def test_leaks_are_named():
  assert crossfit.leaks(
    ['glue-sst2', 'glue-rte_16_13', 'glue-rte_16_21'], ['superglue-rte', 'imdb']
  ) == ['glue-rte and superglue-rte share RTE']
  (both,) = crossfit.leaks(['ag_news'], ['ag_news_16_13'])
  assert both == 'ag_news and ag_news share everything: they are one task'
  with pytest.raises(ValueError, match="'rte' is no task of CrossFit"):
    crossfit.leaks(['rte'], ['imdb'])


def test_leaks_of_the_partitions():
  found = {k: crossfit.leaks(*p) for k, p in PARTITIONS.items()}
  # 4 of ETHOS among the sources, 2 among the targets
  cls = found['classification to classification']
  assert len(cls) == 8 and all(leak.count('ethos-') == 2 for leak in cls)
  assert 'glue-rte and superglue-rte share RTE' in found['random to random']
  assert found['non-classification to classification'] == [
    'yelp_review_full and yelp_polarity share the reviews of Yelp'
  ]
  assert found['non-paraphrase to paraphrase'] == []


def test_registered_tasks_exist_and_answer_alike():
  assert set(crossfit.REGISTERED) <= set(TASKS)
  for name, registered in crossfit.REGISTERED.items():
    kind = english.TASKS[registered].kind
    # a choice is ranked here where CrossFit generates it, or labels its place
    alike = (TASKS[name].kind, 'multiple_choice')
    assert kind in alike, name


def test_registered_tasks_are_in_the_data(real_data):
  found = crossfit.require(crossfit.REGISTERED, real_data / 'tasks')
  assert found['glue-sst2'] == (('sst2',), ())
  assert len(found) == len(crossfit.REGISTERED)


def touch(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()


def test_available_in_the_stated_order(tmp_path):
  names = ['glue-sst2', 'ag_news', 'imdb', 'xsum']
  for file in ('sst2/train.tsv', 'ag_news/train.jsonl', 'xsum/train.tsv'):
    touch(tmp_path / file)
  assert crossfit.available(names, tmp_path) == {
    'glue-sst2': (('sst2',), ()),
    'ag_news': (('ag_news',), ()),
  }
  for seed in (100, 13):
    touch(tmp_path / 'glue-sst2' / f'glue-sst2_16_{seed}_train.tsv')
    touch(tmp_path / 'imdb' / f'imdb_16_{seed}_train.tsv')
  found = crossfit.available(names, tmp_path)
  assert found['glue-sst2'].names == ('glue-sst2_16_13', 'glue-sst2_16_100')
  assert found['imdb'].seeds == (13, 100)
  touch(tmp_path / 'glue-sst2' / 'task.json')
  assert crossfit.available(names, tmp_path)['glue-sst2'].names == (
    'glue-sst2',
  )


def test_missing_tasks_are_listed_with_the_way_to_get_them(tmp_path):
  touch(tmp_path / 'sst2' / 'train.tsv')
  assert crossfit.require(['glue-sst2'], tmp_path)
  with pytest.raises(
    ValueError,
    match=r'2 of 3 tasks are not in .*: imdb, glue-cola\. .*'
    r'imdb/imdb_16_13_train.tsv .*task.json\. .*: cola \(for glue-cola\)\.',
  ):
    crossfit.require(['imdb', 'glue-sst2', 'glue-cola'], tmp_path)
  with pytest.raises(ValueError, match='task.json.$'):
    crossfit.require(['imdb'], tmp_path)
  with pytest.raises(ValueError, match='data_dir: .* none at .*nowhere'):
    crossfit.available(['imdb'], tmp_path / 'nowhere')
  with pytest.raises(ValueError, match="'sst2' is no task of CrossFit"):
    crossfit.available(['sst2'], tmp_path)
