"""The paper's source mixtures."""

import pytest

from prompt_subspace.spot import mixtures


def test_there_are_fourteen_of_the_right_sizes():
  sizes = {name: len(tasks) for name, tasks in mixtures.PAPER.items()}
  # figure 6 of the paper
  assert sizes == {
    'c4': 1,
    'mnli': 1,
    'squad': 1,
    'glue': 8,
    'superglue': 8,
    'nli': 7,
    'paraphrase': 4,
    'sentiment': 5,
    'mrqa': 6,
    'rainbow': 6,
    'translation': 3,
    'summarization': 9,
    'gem': 8,
    'all': 54,
  }
  for tasks in mixtures.PAPER.values():
    assert len(set(tasks)) == len(tasks)


def test_all_is_the_union():
  parts = {t for n, ts in mixtures.PAPER.items() if n != 'all' for t in ts}
  assert set(mixtures.PAPER['all']) == parts


def test_what_has_data_is_taken():
  found = mixtures.members('nli', available=['mnli', 'cb', 'sst2', 'snli'])
  assert found == ('cb', 'mnli', 'snli')
  assert mixtures.members('paraphrase') == ('cxc', 'mrpc', 'qqp', 'sts')


def test_unknown_or_without_data():
  with pytest.raises(ValueError, match="one of all, c4, .*, found 'nosuch'"):
    mixtures.members('nosuch')
  with pytest.raises(ValueError, match="of 'mrqa' has data. It is made of sq"):
    mixtures.members('mrqa', available=['mnli'])
