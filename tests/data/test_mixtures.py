"""Mixtures: exact rates, every example before any twice, one vocabulary."""

import numpy as np
import pytest

from prompt_subspace.data import arrays, mixtures
from tests import sample


def make_task(name, size, width=2, vocabulary='v'):
  """A task whose i-th input starts with i + 3."""
  ids = np.zeros((size, width), np.int32)
  ids[:, 0] = np.arange(size) + 3
  ids[:, 1] = 1
  split = arrays.Arrays(
    ids,
    ids,
    np.zeros(size, np.int32),
    np.full((2, 2), 3, np.int32),
    [[f'{name} {i}'] for i in range(size)],
  )
  request = {
    'task': name,
    'kind': 'classification',
    'metrics': ['accuracy'],
    'label_texts': ['a', 'b'],
    'vocabulary': vocabulary,
    'extra_ids': 100,
  }
  return arrays.assemble(request, {'train': split}, {})


def test_rates_by_hand():
  # min(n, 100) = 10, 90, 100: of 200.
  found = mixtures.rates([10, 90, 5000], limit=100)
  assert found.tolist() == [10 / 200, 90 / 200, 100 / 200]
  assert mixtures.rates([7], 3).tolist() == [1.0]


def test_rates_of_t5_with_the_limit_of_spot():
  # MNLI, QNLI, RTE at K = 2^19 (no limit bites) and at K = 2^14.
  sizes = [392702, 104743, 2490]
  np.testing.assert_allclose(
    mixtures.rates(sizes, 2**19), np.array(sizes) / 499935, rtol=1e-12
  )
  np.testing.assert_allclose(
    mixtures.rates(sizes, 2**14),
    np.array([16384, 16384, 2490]) / 35258,
    rtol=1e-12,
  )


@pytest.mark.parametrize('size', [1, 2, 3, 199, 200, 1000])
def test_shares_are_the_rates_to_within_one(size):
  counts, limit = [10, 90, 5000], 100
  which = mixtures.plan(counts, limit, 0, size)
  assert which.shape == (size, 2)
  shares = np.bincount(which[:, 0], minlength=3)
  assert shares.sum() == size
  assert np.abs(shares - size * mixtures.rates(counts, limit)).max() < 1


def test_default_size_takes_the_capped_examples_once():
  tasks = [make_task('a', 10), make_task('b', 300)]
  mixed = mixtures.mix(tasks, limit=50, seed=0)
  texts = [texts[0] for texts in mixed.splits['train'].references]
  assert len(set(texts)) == len(texts) == 60
  assert mixed.record['shares'] == {'a': 10, 'b': 50}
  assert mixed.record['rates'] == {'a': 10 / 60, 'b': 50 / 60}


def test_each_example_once_before_any_again():
  which = mixtures.plan([10, 7], 100, 0, size=100)
  for task, count in enumerate([10, 7]):
    times = np.bincount(which[which[:, 0] == task, 1], minlength=count)
    assert times.max() - times.min() <= 1


def test_plans_are_shuffled_and_repeatable():
  first = mixtures.plan([100, 100], 100, 0, 200)
  np.testing.assert_array_equal(first, mixtures.plan([100, 100], 100, 0, 200))
  assert (first != mixtures.plan([100, 100], 100, 1, 200)).any()
  # Neither task fills one half, nor do examples stand in order.
  assert 30 < first[:100, 0].sum() < 70
  assert (np.diff(first[first[:, 0] == 0, 1]) < 0).any()


def test_rows_keep_their_texts_and_padding():
  tasks = [make_task('a', 3, width=2), make_task('b', 4, width=5)]
  mixed = mixtures.mix(tasks, 10, 0, size=14, name='both')
  train = mixed.splits['train']
  assert (mixed.name, mixed.kind) == ('both', 'generation')
  assert tuple(mixed.splits) == ('train',) and mixed.label_texts is None
  assert train.inputs.shape == train.targets.shape == (14, 5)
  assert train.inputs.dtype == np.int32 and train.choices is None
  assert train.labels.tolist() == [-1] * 14
  for ids, (text,) in zip(train.inputs, train.references, strict=True):
    assert ids.tolist() == [int(text[2:]) + 3, 1, 0, 0, 0]


def test_held_out_are_the_first_validation_examples_of_each():
  tasks = [make_task('a', 3), make_task('b', 4)]
  parts = [
    t._replace(splits=t.splits | {'validation': t.splits['train']})
    for t in tasks
  ]
  mixed = mixtures.mix(parts, 10, 0, held_out=3)
  held = mixed.splits['validation']
  expected = [r for t in tasks for r in t.splits['train'].references[:3]]
  assert held.references == expected and len(held.inputs) == 6
  np.testing.assert_array_equal(
    held.targets[3:, :2], tasks[1].splits['train'].targets[:3, :2]
  )
  plain = mixtures.mix(parts, 10, 0)
  assert plain.record['key'] != mixed.record['key']
  assert set(plain.splits) == {'train'}


def test_a_mixture_is_a_prepared_task(tmp_path):
  mixed = mixtures.mix([make_task('a', 3), make_task('b', 4)], 10, 0)
  arrays.save(mixed, tmp_path / 'mixture')
  loaded = arrays.load(tmp_path / 'mixture')
  assert loaded.record == mixed.record
  np.testing.assert_array_equal(
    loaded.splits['train'].inputs, mixed.splits['train'].inputs
  )


def test_records_tell_mixtures_apart():
  tasks = [make_task('a', 3), make_task('b', 4)]
  keys = {
    mixtures.mix(tasks, limit, seed, size).record['key']
    for limit, seed, size in [(9, 0, 7), (2, 0, 7), (9, 1, 7), (9, 0, 6)]
  }
  keys.add(mixtures.mix(tasks[:1], 9, 0, 7).record['key'])
  assert len(keys) == 5


@pytest.mark.parametrize(
  'tasks, options, message',
  [
    ([], {}, 'tasks: expected one or more'),
    ([('a', 3), ('a', 4)], {}, r"different names, found \['a', 'a'\]"),
    (
      [('a', 3), ('b', 4, 2, 'w')],
      {},
      "'b' was prepared with vocabulary w, 'a' with v",
    ),
    ([('a', 3)], {'limit': 0}, 'limit: expected 1 or more'),
    ([('a', 3)], {'size': 0}, 'size: expected 1 or more'),
  ],
)
def test_refuses(tasks, options, message):
  with pytest.raises(ValueError, match=message):
    mixtures.mix(
      [make_task(*t) for t in tasks], **{'limit': 10, 'seed': 0} | options
    )


def test_empty_tasks_have_no_rate():
  with pytest.raises(ValueError, match=r'at least 1, found \[3, 0\]'):
    mixtures.rates([3, 0], 10)


# -- unions


def test_a_union_has_each_example_once_in_order(small):
  counts = {'train': 5, 'validation': 3, 'test': 2}
  tasks = [
    sample.task(small.vocabulary, name=name, seed=i, counts=counts, longest=n)
    for i, (name, n) in enumerate([('short', 4), ('long', 13)])
  ]
  union = mixtures.join(tasks, name='both')
  assert union.name == 'both' and set(union.splits) == {'train'}
  assert union.record['parts'] == [
    ['short', 'train', 5],
    ['short', 'validation', 3],
    ['long', 'train', 5],
    ['long', 'validation', 3],
  ]
  wanted = [t.splits[s] for t in tasks for s in ('train', 'validation')]
  for name in ('inputs', 'targets'):
    found = [[x for x in r if x] for r in getattr(union.splits['train'], name)]
    rows = [r for part in wanted for r in getattr(part, name).tolist()]
    assert found == [[x for x in r if x] for r in rows]
  references = [r for part in wanted for r in part.references]
  assert union.splits['train'].references == references
  # its checksum is that of the tasks
  again = mixtures.join(tasks, name='both')
  assert again.record['checksum'] == union.record['checksum']
  other = mixtures.join(tasks[::-1], name='both')
  assert other.record['checksum'] != union.record['checksum']


def test_a_union_wants_every_split(small):
  task = sample.task(small.vocabulary, counts={'train': 3, 'test': 2})
  with pytest.raises(ValueError, match=r"\['validation'\] is missing"):
    mixtures.join([task])
