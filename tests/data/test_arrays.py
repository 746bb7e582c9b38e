"""Preparing folders: the arrays, the cache, and doing without TensorFlow."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from prompt_subspace.data import arrays, tasks
from prompt_subspace.vocabulary import EOS, Vocabulary

SPLITS = ('train', 'validation', 'test')


@pytest.fixture
def prepare(data_dir, vocabulary, tmp_path):
  """Prepares a task of data_dir in a cache of its own."""

  def prepare(name, **options):
    task = tasks.find(name, data_dir)
    return arrays.prepare(task, vocabulary, tmp_path / 'cache', **options)

  return prepare


def texts(vocabulary, ids):
  return [vocabulary.decode(row) for row in ids]


def test_classification(prepare, vocabulary):
  task = prepare('films')
  assert task.name == 'films' and task.kind == 'classification'
  assert task.metrics == ('accuracy', 'f1_macro')
  assert task.label_texts == ('negative', 'positive')
  assert tuple(task.splits) == SPLITS
  train = task.splits['train']
  assert train.inputs.dtype == train.targets.dtype == np.int32
  assert texts(vocabulary, train.inputs)[0] == (
    'sentence: train the film was warm'
  )
  assert train.labels.tolist() == [1, 0, 0, 1, 0, 1, 1, 0]
  assert texts(vocabulary, train.choices) == ['negative', 'positive']
  width = train.targets.shape[1]
  np.testing.assert_array_equal(
    train.targets, train.choices[train.labels][:, :width]
  )
  assert train.references[1] == ['negative']


def test_every_row_ends_with_eos_and_zeros(prepare):
  for name in ('films', 'rivers', 'answers', 'scores'):
    for split in prepare(name).splits.values():
      for ids in (split.inputs, split.targets):
        lengths = (ids != 0).sum(axis=1)
        assert ids.shape[1] == lengths.max()
        for row, length in zip(ids, lengths, strict=True):
          assert row[length - 1] == EOS and not row[length:].any()
          assert EOS not in row[: length - 1]


def test_multiple_choice(prepare, vocabulary):
  task = prepare('rivers')
  test = task.splits['test']
  assert task.kind == 'multiple_choice' and task.label_texts is None
  assert test.choices.shape[:2] == (2, 3)
  assert texts(vocabulary, test.choices[0]) == [
    'the river',
    'the town',
    'the market',
  ]
  assert texts(vocabulary, test.choices[1]) == ['milk', 'the town hall', '']
  assert not test.choices[1, 2].any()
  assert test.labels.tolist() == [1, 0]


def test_generation_and_regression(prepare):
  answers = prepare('answers')
  assert answers.kind == 'generation'
  assert answers.splits['train'].choices is None
  assert answers.splits['train'].labels.tolist() == [-1, -1, -1]
  assert answers.splits['train'].references == [
    ['milk', 'the milk'],
    ['the children'],
    ['the milk', 'milk'],
  ]
  scores = prepare('scores')
  assert scores.kind == 'regression'
  assert scores.metrics == ('pearson', 'spearman')
  assert scores.splits['test'].references == [['4.5'], ['0']]


def test_cut_inputs_are_counted(prepare, vocabulary):
  whole, cut = prepare('films'), prepare('films', max_input=21)
  assert whole.record['truncated']['train'] == {
    'inputs': 0,
    'targets': 0,
    'choices': 0,
  }
  lengths = (whole.splits['train'].inputs != 0).sum(axis=1)
  assert 0 < (lengths > 21).sum() < 8
  assert cut.record['truncated']['train']['inputs'] == (lengths > 21).sum()
  ids = cut.splits['train'].inputs
  assert ids.shape == (8, 21)
  long = lengths > 21
  np.testing.assert_array_equal(
    ids[long, :20], whole.splits['train'].inputs[long, :20]
  )
  assert (ids[long, 20] == EOS).all()


def test_length_that_just_fits_is_not_cut(prepare):
  width = prepare('films').splits['train'].inputs.shape[1]
  record = prepare('films', max_input=width).record
  assert record['truncated']['train']['inputs'] == 0


def test_cut_choices_are_counted(prepare):
  task = prepare('rivers', max_target=4)
  assert task.splits['train'].choices.shape == (2, 3, 4)
  assert task.record['truncated']['train']['choices'] > 0
  assert task.record['truncated']['train']['targets'] > 0


def test_choices_that_read_the_same_are_counted(prepare, data_dir):
  assert prepare('rivers').record['indistinct']['train'] == 0
  path = data_dir / 'rivers' / 'train.tsv'
  path.write_text(
    'question\ta\tb\tc\tanswer\n'
    'which\tmilk\tmilk\ttown\tmilk\n'
    'which\tmilk\tmilk\ttown\ttown\n'
  )
  assert prepare('rivers').record['indistinct']['train'] == 1


def test_label_texts_must_stay_different(prepare, data_dir):
  path = data_dir / 'films' / 'task.json'
  path.write_text(path.read_text().replace('negative', 'positively'))
  prepare('films')
  with pytest.raises(ValueError, match="'positively' and 'positive' have the"):
    prepare('films', max_target=2)


def test_limit(prepare):
  task = prepare('films', limit=3)
  assert task.record['counts'] == dict.fromkeys(SPLITS, 3)
  assert len(task.splits['train'].references) == 3


def test_splits(prepare, data_dir):
  (data_dir / 'films' / 'test.tsv').unlink()
  with pytest.raises(ValueError, match="split 'test' is missing"):
    prepare('films')
  assert tuple(prepare('films', splits=['train']).splits) == ('train',)
  held_out = {'train': 'train', 'test': 'validation'}
  task = prepare('films', splits=held_out)
  assert task.splits['test'].inputs.shape[0] == 8
  assert tuple(task.splits) == ('train', 'test')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'max_input': 1}, 'max_input: expected at least 2'),
    ({'max_target': 0}, 'max_target: expected at least 2'),
    ({'limit': 0}, 'limit: expected 1 or more'),
    ({'splits': ()}, 'splits: expected at least one'),
    ({'label_texts': ['a', 'b']}, "labels of 'films' belong into its template"),
    ({'references': 'x'}, 'label_texts, references'),
  ],
)
def test_refuses_arguments(prepare, options, message):
  with pytest.raises(ValueError, match=message):
    prepare('films', **options)


def test_bad_data_names_file_and_line(prepare, data_dir, tmp_path):
  path = data_dir / 'films' / 'validation.tsv'
  path.write_text('sentence\tlabel\nfine\t1\nbad\t2\n')
  with pytest.raises(ValueError, match="validation.tsv:3: label '2'"):
    prepare('films')
  assert not list((tmp_path / 'cache').glob('*'))


def equal(one, other):
  assert one._replace(splits=None) == other._replace(splits=None)
  assert one.splits.keys() == other.splits.keys()
  for split in one.splits:
    a, b = one.splits[split], other.splits[split]
    assert a.references == b.references
    for x, y in zip(a[:-1], b[:-1], strict=True):
      np.testing.assert_array_equal(x, y)


def test_second_call_loads_the_first_ones_work(prepare, monkeypatch):
  from prompt_subspace.data import tokens

  for name in ('films', 'rivers', 'answers'):
    first = prepare(name)
    with monkeypatch.context() as patch:
      patch.setattr(tokens, 'tokenise', None)
      equal(prepare(name), first)


def test_cache_key_sees_everything(prepare, data_dir, vocabulary, tmp_path):
  keys = [
    prepare('films').record['key'],
    prepare('films', max_input=40).record['key'],
    prepare('films', max_target=40).record['key'],
    prepare('films', limit=2).record['key'],
    prepare('films', splits=['train']).record['key'],
  ]
  other = Vocabulary(vocabulary.path, extra_ids=3)
  task = tasks.find('films', data_dir)
  keys.append(arrays.prepare(task, other, tmp_path / 'cache').record['key'])
  path = data_dir / 'films' / 'train.tsv'
  path.write_text(path.read_text().replace('warm', 'cold'))
  keys.append(prepare('films').record['key'])
  path = data_dir / 'films' / 'task.json'
  path.write_text(path.read_text().replace('sentence: ', 'text: '))
  keys.append(prepare('films').record['key'])
  assert len(set(keys)) == len(keys)
  assert len(list((tmp_path / 'cache').iterdir())) == len(keys)


def test_rows_checksum_is_the_same_for_every_vocabulary(
  prepare, data_dir, vocabulary, tmp_path
):
  first = prepare('films')
  other = arrays.prepare(
    tasks.find('films', data_dir),
    Vocabulary(vocabulary.path, extra_ids=3),
    tmp_path / 'cache',
  )
  assert other.record['rows'] == first.record['rows']
  assert len(set(first.record['rows'].values())) == 3


def test_refresh_prepares_again(prepare, tmp_path):
  first = prepare('films')
  (folder,) = (tmp_path / 'cache').iterdir()
  (folder / 'record.json').write_text('{}')
  equal(prepare('films', refresh=True), first)
  equal(prepare('films'), first)
  assert list((tmp_path / 'cache').iterdir()) == [folder]


def test_nothing_is_left_when_writing_fails(prepare, tmp_path, monkeypatch):
  def fail(path, value):
    raise OSError('disk full')

  monkeypatch.setattr(arrays, '_write_json', fail)
  with pytest.raises(OSError, match='disk full'):
    prepare('films')
  assert not list((tmp_path / 'cache').iterdir())


def edit_record(folder, change):
  record = json.loads((folder / 'record.json').read_text())
  change(record)
  (folder / 'record.json').write_text(json.dumps(record))


def flip_a_token(folder):
  with np.load(folder / 'arrays.npz') as flat:
    flat = dict(flat)
  flat['train/inputs'][0, 0] += 1
  np.savez(folder / 'arrays.npz', **flat)


def truncate_arrays(folder):
  path = folder / 'arrays.npz'
  path.write_bytes(path.read_bytes()[:-100])


def change_reference(folder):
  path = folder / 'references.json'
  path.write_text(path.read_text().replace('negative', 'negatives', 1))


def test_several_may_write_one_task_at_once(prepare, tmp_path):
  task, failed = prepare('films'), []

  def write(barrier, folder):
    barrier.wait()
    try:
      arrays.save(task, folder)
    except Exception as error:
      failed.append(error)

  for number in range(30):
    barrier = threading.Barrier(4)
    folder = tmp_path / 'shared' / str(number)
    writers = [
      threading.Thread(target=write, args=(barrier, folder)) for _ in range(4)
    ]
    for writer in writers:
      writer.start()
    for writer in writers:
      writer.join()
    assert not failed
    assert arrays.load(folder).record == task.record
  # nothing is left beside them
  assert len(list((tmp_path / 'shared').iterdir())) == 30


@pytest.mark.parametrize(
  'damage, message',
  [
    (flip_a_token, 'not those that record.json describes'),
    (change_reference, 'not those that record.json describes'),
    (
      lambda f: edit_record(
        f, lambda r: r['request'].update(kind='generation')
      ),
      'not those that record.json describes',
    ),
    (
      lambda f: edit_record(f, lambda r: r['rows'].update(train='0')),
      'not those that record.json describes',
    ),
    (truncate_arrays, 'BadZipFile'),
    (lambda f: (f / 'references.json').unlink(), 'FileNotFoundError'),
    (lambda f: (f / 'record.json').write_text('{"counts"'), 'JSONDecodeError'),
    (lambda f: (f / 'record.json').write_text('{}'), 'KeyError'),
  ],
)
def test_damaged_folders_are_refused(prepare, tmp_path, damage, message):
  prepare('films')
  (folder,) = (tmp_path / 'cache').iterdir()
  damage(folder)
  with pytest.raises(ValueError, match=message) as error:
    prepare('films')
  assert str(folder) in str(error.value)
  with pytest.raises(ValueError, match='delete the folder and prepare'):
    arrays.load(folder)


def test_pickles_are_refused(prepare, tmp_path):
  prepare('films')
  (folder,) = (tmp_path / 'cache').iterdir()
  np.savez(folder / 'arrays.npz', x=np.array([{}], object))
  with pytest.raises(ValueError, match='pickle'):
    arrays.load(folder)


def test_another_task_in_the_folder_is_refused(prepare, tmp_path):
  prepare('films')
  (folder,) = (tmp_path / 'cache').iterdir()
  other = prepare('films', limit=2)
  arrays.save(other, folder)
  with pytest.raises(ValueError, match=f'found {other.record["key"]}'):
    prepare('films')


def test_training_from_prepared_arrays_needs_no_tensorflow(
  prepare, data_dir, vocabulary, tmp_path
):
  first = prepare('films')
  program = """
import importlib, pkgutil, sys
import prompt_subspace.data
import tasks.english
for module in pkgutil.iter_modules(prompt_subspace.data.__path__):
  importlib.import_module(f'prompt_subspace.data.{module.name}')
from prompt_subspace import vocabulary
from prompt_subspace.data import arrays, fewshot, mixtures, tasks
data_dir, model, cache, folder = sys.argv[1:]
words = vocabulary.Vocabulary(model)
words.decode(words.encode('the film'))
task = arrays.prepare(tasks.find('films', data_dir), words, cache)
assert arrays.load(folder).record == task.record
few = fewshot.apply(task, fewshot.draw(task, 2, 0))
mixtures.mix([few], 4, 0)
print(task.record['checksum'])
for name in ('tensorflow', 'seqio', 'tensorflow_datasets'):
  assert name not in sys.modules, name
"""
  (folder,) = (tmp_path / 'cache').iterdir()
  done = subprocess.run(
    [sys.executable, '-c', program]
    + [str(p) for p in (data_dir, vocabulary.path, folder.parent, folder)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == first.record['checksum']
