"""The tasks of SPoT's study fit the installed TFDS, and become arrays.

No data is downloaded: a few examples, written by hand, are stored by TFDS's own
builders, so that features, versions and splits are the real ones.
"""

import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from etils import epath

from prompt_subspace.data import arrays, tasks
from prompt_subspace.spot import mixtures
from prompt_subspace.vocabulary import EOS
from tasks import english, spot
from tests.data import spot_examples
from tests.data.spot_examples import PREMISE

IN_TFDS = {name: row for name, row in spot.TASKS.items() if row.tfds}


@pytest.fixture(scope='module')
def tfds_data_dir(tmp_path_factory):
  """EXAMPLES as TFDS stores them."""
  return spot_examples.store(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def registered(vocabulary, tfds_data_dir, monkeypatch):
  import seqio

  monkeypatch.setattr(tasks, '_templates', dict(tasks._templates))
  monkeypatch.setattr(tasks, '_identities', {})
  spot.register(vocabulary, str(tfds_data_dir))
  yield
  for name in IN_TFDS:
    seqio.TaskRegistry.remove(name)


@pytest.fixture
def prepare(registered, vocabulary, tmp_path):
  def prepare(name, **options):
    return arrays.prepare(tasks.find(name), vocabulary, tmp_path, **options)

  return prepare


def texts(vocabulary, split):
  """Inputs and targets of one split as text, in the order of the arrays."""
  return [
    (vocabulary.decode(i), vocabulary.decode(t))
    for i, t in zip(split.inputs, split.targets, strict=True)
  ]


def as_read(vocabulary, text):
  """A text as it comes back from this small vocabulary."""
  return vocabulary.decode(vocabulary.encode(text))


def test_table_2():
  assert (len(spot.SOURCES), len(spot.TARGETS)) == (16, 10)
  for rows in (spot.SOURCES, spot.TARGETS):
    sizes = [row.size for row in rows.values()]
    assert sizes == sorted(sizes, reverse=True)
  assert {n for n, row in spot.TASKS.items() if not row.tfds} == {
    'spot_cxc',
    'spot_cr',
  }


def test_names_are_those_of_the_mixtures():
  plain = {name.removeprefix('spot_') for name in spot.TASKS}
  # These two are in the study, but in none of the mixtures.
  assert plain - set(mixtures.PAPER['all']) == {'drop', 'race'}
  assert not set(spot.TASKS) & set(english.TASKS)


def test_importing_brings_neither_tensorflow_nor_seqio():
  code = (
    'import sys\nimport tasks.spot\n'
    "print({'tensorflow', 'seqio', 'tensorflow_datasets'} & set(sys.modules))"
  )
  root = pathlib.Path(__file__).resolve().parents[2]
  found = subprocess.run(
    [sys.executable, '-c', code],
    cwd=root,
    capture_output=True,
    text=True,
    check=True,
  )
  assert found.stdout.strip() == 'set()'


def split_names(builder):
  """The splits that a builder's code makes of downloads, without them."""

  class Files(type(epath.Path())):
    """Any file of any download."""

    def __getitem__(self, key):
      return self

    def items(self):
      return ((split, self) for split in ('train', 'validation', 'test'))

  manager = mock.Mock()
  manager.download.return_value = Files('/nowhere')
  manager.download_and_extract.return_value = Files('/nowhere')
  made = builder._split_generators(manager)
  return set(made) if isinstance(made, dict) else {s.name for s in made}


@pytest.mark.parametrize('name', IN_TFDS)
def test_rows_fit_the_installed_builders(name, tmp_path):
  import tensorflow_datasets as tfds

  row = IN_TFDS[name]
  for source in row.tfds:
    # A version that the installed package does not make is an error.
    builder = tfds.builder(source, data_dir=str(tmp_path))
    assert builder.info.full_name == source.replace(':', '/')
    features = builder.info.features
    if name == 'spot_c4_prefix_lm':
      # Its splits are Beam's; the other half of this test does not apply.
      assert 'text' in features
      return
    assert set(row.splits.values()) <= split_names(builder)
    if row.columns is None:
      wanted = {*row.template.columns, 'label'}
      assert wanted <= set(features)
    if row.template.labels:
      assert tuple(row.template.labels) == tuple(features['label'].names)
    elif row.template.choices and row.columns is None:
      assert features['label'].num_classes == len(row.template.choices)


def test_tfds_has_no_data_of_the_others():
  import tensorflow_datasets as tfds

  known = set(tfds.list_builders(with_community_datasets=False))
  assert not {'cxc', 'crisscrossed_captions', 'cr', 'customer_reviews'} & known
  assert {'doc_nli', 'drop'} <= known


def test_pair_classification(prepare, vocabulary):
  task = prepare('spot_mrpc')
  assert task.kind == 'classification'
  assert task.label_texts == ('not_equivalent', 'equivalent')
  assert task.metrics == ('accuracy', 'f1_macro')
  train = task.splits['train']
  assert sorted(texts(vocabulary, train)) == [
    (
      as_read(vocabulary, f'mrpc sentence1: {a} sentence2: {b}'),
      as_read(vocabulary, label),
    )
    for a, b, label in (
      ('a b', 'a', 'equivalent'),
      ('c', 'd', 'not_equivalent'),
    )
  ]
  for n, label in enumerate(train.labels):
    right = train.choices[label]
    assert right[right > 0].tolist() == [
      *vocabulary.encode(train.references[n][0]),
      EOS,
    ]
  # The labels of TFDS's own test split are not public.
  assert arrays.checksum(task.splits['test']) == arrays.checksum(
    task.splits['validation']
  )


@pytest.mark.parametrize(
  ('name', 'text', 'candidates', 'rights'),
  [
    (
      'spot_copa',
      'copa choice1: It was warm. choice2: It rained a lot. '
      f'premise: {PREMISE} question: cause',
      ['It was warm.', 'It rained a lot.'],
      [1],
    ),
    (
      'spot_winogrande',
      'winogrande sentence: Ann sang as _ was glad. option1: Ann option2: Bob',
      ['Ann', 'Bob'],
      [0, 1],
    ),
    (
      'spot_hellaswag',
      'hellaswag context: She pours choice1: milk. choice2: a hall. '
      'choice3: the town. choice4: no.',
      ['milk.', 'a hall.', 'the town.', 'no.'],
      [2],
    ),
  ],
)
def test_multiple_choice(prepare, vocabulary, name, text, candidates, rights):
  task = prepare(name)
  train = task.splits['train']
  assert task.kind == 'multiple_choice' and task.metrics == ('accuracy',)
  assert train.choices.shape[:2] == (len(rights), len(candidates))
  assert sorted(train.labels.tolist()) == rights
  for n, label in enumerate(train.labels):
    assert vocabulary.decode(train.inputs[n]) == as_read(vocabulary, text)
    assert [vocabulary.decode(ids) for ids in train.choices[n]] == [
      as_read(vocabulary, c) for c in candidates
    ]
    assert train.references[n] == [candidates[label]]
    right, width = train.choices[n, label], train.targets.shape[1]
    np.testing.assert_array_equal(right[:width], train.targets[n])


def test_race_has_an_example_for_each_question(prepare, vocabulary):
  task = prepare('spot_race')
  for arrays_of in task.splits.values():
    assert sorted(texts(vocabulary, arrays_of)) == sorted(
      (
        as_read(
          vocabulary,
          f'race question: {question} choice1: {options[0]} choice2: '
          f'{options[1]} choice3: {options[2]} choice4: {options[3]} '
          f'article: A {level} article.',
        ),
        as_read(vocabulary, right),
      )
      for level in ('high', 'middle')
      for question, options, right in (
        ('one?', 'abcd', 'b'),
        ('two?', 'efgh', 'h'),
      )
    )
    assert sorted(arrays_of.labels.tolist()) == [1, 1, 3, 3]


def test_questions_have_all_accepted_answers(prepare, vocabulary):
  squad = prepare('spot_squad').splits['train']
  assert texts(vocabulary, squad) == [
    (
      as_read(vocabulary, 'question: Who met? context: Ann met Bob.'),
      as_read(vocabulary, 'Ann'),
    )
  ]
  assert squad.references == [['Ann', 'Ann met']]
  # The example without an answer, and an empty accepted one, are left out.
  drop = prepare('spot_drop')
  assert drop.splits['validation'].references == [['4', 'four']]
  assert drop.kind == 'generation' and drop.metrics == ('exact_match', 'qa_f1')
  record = prepare('spot_record').splits['train']
  assert record.references == [['Bob', 'Robert']]
  assert vocabulary.decode(record.inputs[0]) == as_read(
    vocabulary,
    'record query: @placeholder left entities: Ann, Bob passage: '
    'Ann met Bob. Bob left. Ann sang',
  )


def test_regression(prepare, vocabulary):
  task = prepare('spot_sts')
  assert task.kind == 'regression' and task.metrics == ('pearson', 'spearman')
  assert sorted(task.splits['train'].references) == [['0.0'], ['3.8']]
  assert task.splits['validation'].references == [['5.0']]


def test_marked_and_cleaned_texts(prepare, vocabulary):
  found = texts(vocabulary, prepare('spot_wsc').splits['train'])
  assert sorted(found) == sorted(
    (as_read(vocabulary, f'wsc text: {text}'), as_read(vocabulary, 'True'))
    for text in (
      '* Mark * told Pete (it) that # he # knew.',
      'When # he # came, * Mr. (X) * sang.',
    )
  )
  (found,) = texts(vocabulary, prepare('spot_multirc').splits['train'])
  assert found[0] == as_read(
    vocabulary,
    'multirc question: Who left? answer: Bob paragraph: '
    'Sent 1: Ann sang. Sent 2: Bob left.',
  )


def test_tasks_register_themselves_when_they_are_read(
  vocabulary, tfds_data_dir, tmp_path, monkeypatch
):
  import seqio

  read = mock.Mock(
    side_effect=lambda words: spot.register(words, str(tfds_data_dir))
  )
  monkeypatch.setattr(tasks, '_later', dict.fromkeys(IN_TFDS, read))
  found = tasks.find('spot_mrpc')
  assert found.folder is None and found.template.metrics[0] == 'accuracy'
  assert 'spot_mrpc' not in seqio.TaskRegistry.names()
  try:
    first = arrays.prepare(found, vocabulary, tmp_path)
    arrays.prepare(tasks.find('spot_sts'), vocabulary, tmp_path)
    assert read.call_count == 1  # adds all of them
  finally:
    for name in IN_TFDS:
      seqio.TaskRegistry.remove(name)
  # what is prepared needs no registry, nor TensorFlow
  again = arrays.prepare(found, vocabulary, tmp_path)
  assert read.call_count == 1 and again.record == first.record


def test_data_that_cannot_be_downloaded_are_named(
  registered, vocabulary, tmp_path
):
  import seqio

  source = seqio.TaskRegistry.get('spot_mrpc').source
  with (
    mock.patch.object(type(source), 'get_dataset', side_effect=OSError('gone')),
    pytest.raises(ValueError, match="task 'spot_mrpc': .* OSError: gone.*TFDS"),
  ):
    arrays.prepare(tasks.find('spot_mrpc'), vocabulary, tmp_path)


def test_what_a_submission_answers_can_be_read(registered):
  import seqio

  for name, idx in (('copa', 7), ('record', {'passage': 3, 'query': 5})):
    task = seqio.get_mixture_or_task(f'spot_{name}')
    (row,) = task.get_dataset(None, 'unlabelled', shuffle=False)
    assert row['inputs_pretokenized'].numpy().startswith(name.encode())
    assert row['targets_pretokenized'].numpy() == b''
    found = row['idx']
    if isinstance(idx, dict):
      found = {k: int(v) for k, v in found.items()}
    assert found == idx


def test_seqio_scores_with_the_tasks_metrics(registered):
  import seqio

  task = seqio.get_mixture_or_task('spot_squad')
  (row,) = task.get_dataset(None, 'validation', shuffle=False)
  row = {k: v.numpy() for k, v in row.items()}
  target = task.postprocess_fn(
    row['targets_pretokenized'], example=row, is_target=True
  )
  scores = {}
  for metric in task.metric_fns:
    scores |= metric([target], ['Ann met'])
  assert scores == {'exact_match': 100.0, 'qa_f1': 100.0}


def test_c4_in_two_parts(registered, vocabulary, tmp_path, monkeypatch):
  import seqio
  import tensorflow as tf
  import tensorflow_datasets as tfds

  words = [f'word{n} river' for n in range(40)]
  documents = [' '.join(words), 'the town']

  def as_dataset(self, split, **kwargs):
    return tf.data.Dataset.from_tensor_slices({'text': documents})

  # TFDS does not know the size of what is not there, and SeqIO asks for it.
  monkeypatch.setattr(
    seqio.TfdsDataSource, 'num_input_examples', lambda self, split: 2
  )
  with tfds.testing.mock_data(as_dataset_fn=as_dataset):
    task, again = (
      arrays.prepare(
        tasks.find('spot_c4_prefix_lm'),
        vocabulary,
        tmp_path,
        max_input=21,
        max_target=21,
        splits=['train'],
        limit=100,
        refresh=refresh,
      )
      for refresh in (False, True)
    )
  assert task.kind == 'generation' and task.record == again.record
  train = task.splits['train']
  whole = [i for text in documents for i in vocabulary.encode(text)]
  assert len(train.inputs) > 5
  read, places = [], set()
  for row, target in zip(train.inputs, train.targets, strict=True):
    row, target = row[row > 0].tolist(), target[target > 0].tolist()
    assert row[-1] == target[-1] == EOS and len(row) > 1 and len(target) > 1
    assert len(row) + len(target) <= 22
    read += row[:-1] + target[:-1]
    places.add(len(row))
  assert read == whole and len(places) > 2


def test_tasks_that_tfds_lacks_are_folders(write_tsv, tmp_path, vocabulary):
  with pytest.raises(ValueError, match="'spot_cxc' needs data: pass data_dir"):
    tasks.find('spot_cxc')
  for split in arrays.files.SPLITS:
    write_tsv(
      tmp_path / 'spot_cr' / f'{split}.tsv',
      ['sentence', 'label'],
      [['warm', 'positive'], ['dull', 'negative']],
    )
  task = arrays.prepare(
    tasks.find('spot_cr', tmp_path), vocabulary, tmp_path / 'cache'
  )
  assert task.label_texts == ('negative', 'positive')
  assert task.splits['train'].labels.tolist() == [1, 0]


def test_cut_and_equal_candidates_are_counted(prepare, vocabulary):
  longest = len(vocabulary.encode('It was warm.'))
  record = prepare('spot_copa', max_target=longest).record
  # Both are longer than this with their end.
  assert record['truncated']['train']['choices'] == 2
  assert record['indistinct']['train'] == 0
  # Both begin with 'It'.
  record = prepare('spot_copa', max_target=2).record
  assert record['indistinct']['train'] == 1
