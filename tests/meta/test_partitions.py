"""MPT's partitions are whole and consistent."""

import pytest

from prompt_subspace.data import crossfit_places
from prompt_subspace.data.crossfit_tasks import TASKS
from prompt_subspace.meta.partitions import (
  LISTS,
  PARTITIONS,
  SUBSETS,
  partition,
)

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


def test_leaks_of_the_partitions():
  found = {k: crossfit_places.leaks(*p) for k, p in PARTITIONS.items()}
  # 4 of ETHOS among the sources, 2 among the targets
  cls = found['classification to classification']
  assert len(cls) == 8 and all(leak.count('ethos-') == 2 for leak in cls)
  assert 'glue-rte and superglue-rte share RTE' in found['random to random']
  assert found['non-classification to classification'] == [
    'yelp_review_full and yelp_polarity share the reviews of Yelp'
  ]
  assert found['non-paraphrase to paraphrase'] == []
