"""Few-shot splits: stratified, disjoint, repeatable, refused for other rows."""

import json

import numpy as np
import pytest

from prompt_subspace.data import arrays, fewshot


def make_task(counts, name='task', kind='classification', rows='r'):
  """A task with this many examples of each class, shuffled."""
  labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
  labels = np.random.default_rng(0).permutation(labels)
  size = len(labels)
  inputs = np.stack([np.arange(size) + 3, np.ones(size)], 1).astype(np.int32)
  choices = np.stack([np.arange(len(counts)) + 3] * 2, 1).astype(np.int32)
  if kind == 'multiple_choice':
    choices = np.stack([choices + 10 * i for i in range(size)])
  split = arrays.Arrays(
    inputs, inputs, labels, choices, [[str(i)] for i in range(size)]
  )
  texts = [f'class {i}' for i in range(len(counts))]
  request = {
    'task': name,
    'kind': kind,
    'metrics': ['accuracy'],
    'label_texts': texts if kind == 'classification' else None,
  }
  splits = dict.fromkeys(('train', 'validation', 'test'), split)
  return arrays.assemble(request, splits, {'rows': dict.fromkeys(splits, rows)})


def test_k_per_class_train_and_validation_disjoint():
  task = make_task([30, 9, 8])
  split = fewshot.draw(task, k=4, seed=0)
  labels = task.splits['train'].labels
  for part in (split.train, split.validation):
    assert np.bincount(labels[list(part)]).tolist() == [4, 4, 4]
    assert list(part) == sorted(part)
  assert not set(split.train) & set(split.validation)


@pytest.mark.parametrize(
  'kind', ['multiple_choice', 'generation', 'regression']
)
def test_k_per_set_without_classes(kind):
  split = fewshot.draw(make_task([5, 5], kind=kind), k=5, seed=0)
  assert sorted(split.train + split.validation) == list(range(10))
  assert len(split.train) == 5


def test_each_example_is_held_out_in_one_fold():
  task = make_task([30, 9, 8])
  parts = fewshot.folds(task, 4)
  numbers = [p.splits['validation'].inputs[:, 0] - 3 for p in parts]
  assert sorted(np.concatenate(numbers)) == list(range(47))
  assert [len(n) for n in numbers] == [12, 12, 12, 11]
  for part, held in zip(parts, numbers, strict=True):
    rest = part.splits['train'].inputs[:, 0] - 3
    assert sorted([*rest, *held]) == list(range(47))
    counts = np.bincount(part.splits['validation'].labels, minlength=3)
    # as many of a class as of the others' folds, within one
    assert (np.abs(counts - np.array([30, 9, 8]) / 4) < 1).all()
    assert set(part.splits) == {'train', 'validation'}, 'no test to look at'
  assert len({p.record['checksum'] for p in parts}) == 4
  again = fewshot.folds(make_task([30, 9, 8]), 4)
  assert [p.record for p in again] == [p.record for p in parts]


def test_folds_without_classes_and_of_a_few_shots():
  whole = make_task([5, 5], kind='generation')
  assert [
    len(p.splits['validation'].labels) for p in fewshot.folds(whole, 4)
  ] == [3, 3, 2, 2]
  task = make_task([20, 20])
  few = fewshot.apply(task, fewshot.draw(task, 4, 0))
  for part in fewshot.folds(few, 4):
    assert np.bincount(part.splits['validation'].labels).tolist() == [1, 1]
    assert np.bincount(part.splits['train'].labels).tolist() == [3, 3]
    assert part.record['request']['fewshot']['k'] == 4


@pytest.mark.parametrize('count, said', [(1, '2 or more'), (9, "'class 2'")])
def test_folds_that_cannot_be(count, said):
  with pytest.raises(ValueError, match=f'folds: .*{said}'):
    fewshot.folds(make_task([30, 9, 8]), count)


def test_the_draw_depends_on_task_and_seed_alone():
  task = make_task([50, 50])
  first = fewshot.draw(task, 4, 0)
  assert fewshot.draw(make_task([50, 50]), 4, 0) == first
  assert fewshot.draw(task, 4, 1).train != first.train
  assert fewshot.draw(make_task([50, 50], 'other'), 4, 0).train != first.train


def test_more_to_validate_on_leaves_the_training_examples(tmp_path):
  task = make_task([50, 50])
  usual, more = fewshot.draw(task, 4, 0), fewshot.draw(task, 4, 0, held=16)
  assert more.train == usual.train
  assert len(more.validation) == 32
  assert set(usual.validation) < set(more.validation)
  # their files do not answer for each other
  for held in (None, 16):
    fewshot.keep(fewshot.stored(task, 4, 0, tmp_path, held), tmp_path)
  found = fewshot.stored(task, 4, 0, tmp_path, 16)
  assert len(found.splits['validation'].labels) == 32
  assert len(list(tmp_path.iterdir())) == 2


def test_every_example_is_drawn_equally_often():
  task = make_task([10, 10])
  drawn = np.zeros(20)
  for seed in range(500):
    drawn[list(fewshot.draw(task, 2, seed).train)] += 1
  # Binomial(500, 0.2): mean 100, standard deviation 8.9.
  assert drawn.min() > 60 and drawn.max() < 140


def test_too_few_examples():
  with pytest.raises(ValueError, match=r"7 training examples of 'class 1'.*8"):
    fewshot.draw(make_task([30, 7]), 4, 0)
  with pytest.raises(ValueError, match="10 .* of 'all'.* 5 of each, or less"):
    fewshot.draw(make_task([5, 5], kind='generation'), 6, 0)
  with pytest.raises(ValueError, match='shots|held: expected a whole number'):
    fewshot.draw(make_task([5, 5]), 0, 0)


@pytest.mark.parametrize('kind', ['classification', 'multiple_choice'])
def test_apply_takes_the_rows(kind, tmp_path):
  task = make_task([20, 20], kind=kind)
  split = fewshot.draw(task, 3, 7)
  few = fewshot.apply(task, split)
  train, whole = few.splits['train'], task.splits['train']
  rows = list(split.train)
  np.testing.assert_array_equal(train.inputs, whole.inputs[rows])
  np.testing.assert_array_equal(train.targets, whole.targets[rows])
  np.testing.assert_array_equal(train.labels, whole.labels[rows])
  assert train.references == [[str(i)] for i in rows]
  chosen = whole.choices if kind == 'classification' else whole.choices[rows]
  np.testing.assert_array_equal(train.choices, chosen)
  assert few.splits['validation'].references == [
    [str(i)] for i in split.validation
  ]
  assert few.splits['test'] is task.splits['test']
  assert few.record['counts']['train'] == len(rows)
  assert few.record['key'] != task.record['key']
  # The few-shot task is a prepared task like any other.
  arrays.save(few, tmp_path / 'few')
  assert arrays.load(tmp_path / 'few').record == few.record


def test_files_come_back(tmp_path):
  task = make_task([20, 20])
  split = fewshot.draw(task, 3, 7)
  fewshot.save(split, tmp_path / 'splits' / 'task-3-7.json')
  assert fewshot.load(tmp_path / 'splits' / 'task-3-7.json', task) == split


def test_other_rows_are_refused(tmp_path):
  task = make_task([20, 20])
  split = fewshot.draw(task, 3, 7)
  path = tmp_path / 'split.json'
  fewshot.save(split, path)
  changed = make_task([20, 20], rows='s')
  with pytest.raises(ValueError, match='split.json: .* checksum s, found r'):
    fewshot.load(path, changed)
  with pytest.raises(ValueError, match='drawn from other rows'):
    fewshot.apply(changed, split)
  with pytest.raises(ValueError, match="split.json: .* 'task', expected 'b'"):
    fewshot.load(path, make_task([20, 20], 'b'))


@pytest.mark.parametrize(
  'change, message',
  [
    ({'train': [1, 2, 40]}, 'different row numbers below 40'),
    ({'train': [1, 2, -1]}, 'different row numbers below 40'),
    ({'train': [1, 2, 2]}, 'different row numbers below 40'),
    ({'train': [1], 'validation': [1]}, 'different row numbers below 40'),
    ({'more': 1}, 'more'),
  ],
)
def test_edited_files_are_refused(tmp_path, change, message):
  task = make_task([20, 20])
  path = tmp_path / 'split.json'
  fewshot.save(fewshot.draw(task, 3, 7), path)
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(ValueError, match=f'split.json: .*{message}'):
    fewshot.load(path, task)


@pytest.mark.parametrize('content', [None, '{', '[]'])
def test_files_that_are_no_splits(tmp_path, content):
  path = tmp_path / 'split.json'
  if content is not None:
    path.write_text(content)
  with pytest.raises(ValueError, match='split.json: .*fewshot.draw'):
    fewshot.load(path, make_task([20, 20]))


def test_splits_of_several_tasks(tmp_path):
  tasks = {'a': make_task([9, 9], 'a'), 'b': make_task([9, 9], 'b')}
  found = fewshot.splits(tasks, {'a': 2, 'b': None}, [0, 1], tmp_path)
  assert list(found) == [('a', 0), ('a', 1), ('b', 0), ('b', 1)]
  assert len(found['a', 1].splits['train'].labels) == 4
  assert found['b', 1] is tasks['b']
  alone = fewshot.stored(tasks['a'], 2, 1, tmp_path)
  assert found['a', 1].record['checksum'] == alone.record['checksum']


def test_splits_names_every_task_with_too_few(tmp_path):
  tasks = {n: make_task([9, c], n) for n, c in {'a': 3, 'b': 9, 'c': 2}.items()}
  with pytest.raises(ValueError, match="'a' has 3.*\n.*'c' has 2"):
    fewshot.splits(tasks, dict.fromkeys(tasks, 4), [0], tmp_path)
