"""Tasks and mixtures of SeqIO's registries, TFDS included, become arrays."""

import functools

import numpy as np
import pytest

from prompt_subspace.data import arrays, tasks
from prompt_subspace.data.templates import Template
from prompt_subspace.vocabulary import EOS

QUESTIONS = {
  'inputs': ['what did she pour', 'who woke up', 'which river runs'],
  'targets': ['yes', 'no', 'yes'],
  'answers': [['yes', 'sure'], ['no', 'never'], ['yes', 'aye']],
}


@pytest.fixture
def register(vocabulary):
  """Registers a SeqIO task over `columns`; removed afterwards."""
  import seqio
  import tensorflow as tf

  names = []

  def register(
    name,
    columns=QUESTIONS,
    source=None,
    preprocessors=(
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos,
    ),
    features=('inputs', 'targets'),
    words=None,
  ):
    def dataset_fn(split, shuffle_files):
      return tf.data.Dataset.from_tensor_slices(columns)

    seqio.TaskRegistry.add(
      name,
      source=source
      or seqio.FunctionDataSource(dataset_fn, ['train', 'validation']),
      preprocessors=list(preprocessors),
      output_features={
        feature: seqio.Feature(words or vocabulary.seqio())
        for feature in features
      },
    )
    names.append(name)

  yield register
  for name in names:
    seqio.TaskRegistry.remove(name)


@pytest.fixture
def prepare(vocabulary, tmp_path):
  def prepare(name, template=None, **options):
    options = {'splits': ('train', 'validation')} | options
    task = tasks.find(name)
    if template is not None:
      task = task._replace(template=template)
    return arrays.prepare(task, vocabulary, tmp_path / 'cache', **options)

  return prepare


def test_task_as_text_to_text(register, prepare, vocabulary, tmp_path):
  register('foreign')
  task = prepare('foreign')
  train = task.splits['train']
  assert (task.name, task.kind) == ('foreign', 'generation')
  assert [vocabulary.decode(i) for i in train.inputs] == QUESTIONS['inputs']
  assert [vocabulary.decode(i) for i in train.targets] == QUESTIONS['targets']
  assert train.references == [['yes'], ['no'], ['yes']]
  assert train.choices is None and train.labels.tolist() == [-1] * 3
  (folder,) = (tmp_path / 'cache').iterdir()
  assert arrays.load(folder).record == task.record


def test_label_texts_make_a_classification(register, prepare, vocabulary):
  register('foreign')
  task = prepare('foreign', label_texts=['no', 'yes'])
  assert task.kind == 'classification' and task.metrics == ('accuracy',)
  assert task.label_texts == ('no', 'yes')
  assert task.splits['train'].labels.tolist() == [1, 0, 1]
  choices = task.splits['train'].choices
  assert [vocabulary.decode(ids) for ids in choices] == ['no', 'yes']
  with pytest.raises(
    ValueError, match="'train', example 1: label 'no' is not in the table"
  ):
    prepare('foreign', label_texts=['yes', 'maybe'])


def test_registered_template_gives_labels_and_metrics(register, prepare):
  register('foreign')
  labels = {'no': 'no', 'yes': 'yes'}
  template = Template(
    '{inputs}', '{targets}', labels, metrics=('f1_macro', 'matthews')
  )
  assert prepare('foreign', template).metrics == ('f1_macro', 'matthews')
  with pytest.raises(ValueError, match='has a registered template already'):
    prepare('foreign', template, label_texts=['no', 'yes'])


def test_references_name_a_feature(register, prepare):
  register('foreign')
  task = prepare('foreign', references='answers')
  assert task.splits['train'].references == QUESTIONS['answers']
  with pytest.raises(ValueError, match="no feature 'answer'; the features are"):
    prepare('foreign', references='answer')


def test_cut_inputs_end_with_eos_and_are_counted(register, prepare):
  import seqio

  register('plain')
  register(
    'trimmed',
    preprocessors=(
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ),
  )
  whole = prepare('plain').splits['train'].inputs
  for name in ('plain', 'trimmed'):
    task = prepare(name, max_input=6)
    ids = task.splits['train'].inputs
    np.testing.assert_array_equal(ids[:, :5], whole[:, :5])
    assert (ids[:, 5] == EOS).all()
    assert task.record['truncated']['train']['inputs'] == 3
    assert prepare(name).record['truncated']['train']['inputs'] == 0


def test_eos_is_added_where_the_task_has_none(register, prepare):
  import seqio

  register('bare', preprocessors=[seqio.preprocessors.tokenize])
  register('ended')
  one, other = (prepare(n).splits['train'] for n in ('bare', 'ended'))
  np.testing.assert_array_equal(one.inputs, other.inputs)
  np.testing.assert_array_equal(one.targets, other.targets)


def test_tokens_without_text_are_decoded(register, prepare, vocabulary):
  import seqio

  tokenize = functools.partial(
    seqio.preprocessors.tokenize, copy_pretokenized=False
  )
  register('wordless', preprocessors=[tokenize])
  task = prepare('wordless', label_texts=['no', 'yes'])
  assert task.splits['train'].labels.tolist() == [1, 0, 1]


def test_mixture(register, prepare, vocabulary):
  import seqio

  register('first')
  register('second', {k: v[:1] for k, v in QUESTIONS.items()})
  seqio.MixtureRegistry.add('both', ['first', 'second'], default_rate=1)
  try:
    with pytest.raises(ValueError, match="limit: 'both' is a mixture"):
      prepare('both')
    task = prepare('both', references='answers', limit=40)
  finally:
    seqio.MixtureRegistry.remove('both')
  # Both are drawn at one rate and repeated: the only example of the second is
  # also one of the three of the first.
  inputs = [vocabulary.decode(i) for i in task.splits['train'].inputs]
  counts = [inputs.count(text) for text in QUESTIONS['inputs']]
  assert sum(counts) == 40 and min(counts) > 0
  assert counts[0] > counts[1] + counts[2]
  answers = dict(zip(QUESTIONS['inputs'], QUESTIONS['answers'], strict=True))
  accepted = task.splits['train'].references
  assert accepted == [answers[text] for text in inputs]


def test_tfds(register, prepare, vocabulary, tmp_path):
  import seqio
  import tensorflow_datasets as tfds

  class TinyPours(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      text = tfds.features.Text()
      return self.dataset_info_from_configs(
        features=tfds.features.FeaturesDict({'question': text, 'answer': text})
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      rows = zip(QUESTIONS['inputs'], QUESTIONS['targets'], strict=True)
      for i, (question, answer) in enumerate(rows):
        yield i, {'question': question, 'answer': answer}

  TinyPours(data_dir=str(tmp_path / 'tfds')).download_and_prepare()
  rekey = functools.partial(
    seqio.preprocessors.rekey,
    key_map={'inputs': 'question', 'targets': 'answer'},
  )
  register(
    'tfds_pours',
    source=seqio.TfdsDataSource(
      'tiny_pours:1.0.0', tfds_data_dir=str(tmp_path / 'tfds')
    ),
    preprocessors=[rekey, seqio.preprocessors.tokenize],
  )
  task = prepare('tfds_pours', splits=['train'], label_texts=['no', 'yes'])
  inputs = sorted(vocabulary.decode(i) for i in task.splits['train'].inputs)
  assert inputs == sorted(QUESTIONS['inputs'])
  assert sorted(task.splits['train'].labels.tolist()) == [0, 1, 1]


def test_missing_split_names_the_known(register, prepare):
  register('foreign')
  with pytest.raises(
    ValueError, match="no split 'test'; its splits are train, validation"
  ):
    prepare('foreign', splits=arrays.files.SPLITS)
  task = prepare('foreign', splits={'train': 'train', 'test': 'validation'})
  assert tuple(task.splits) == ('train', 'test')


def test_another_vocabulary_is_refused(register, prepare, vocabulary):
  import seqio

  other = seqio.SentencePieceVocabulary(str(vocabulary.path), 10)
  register('other', words=other)
  with pytest.raises(ValueError, match='vocabulary of its inputs is .*sp'):
    prepare('other')
  register('bytes', words=seqio.ByteVocabulary())
  with pytest.raises(ValueError, match='register the task with the vocabulary'):
    prepare('bytes')


def test_features_must_be_inputs_and_targets(register, prepare):
  register('causal', features=('targets',))
  with pytest.raises(ValueError, match='features inputs and targets, found ta'):
    prepare('causal')


def test_no_examples(register, prepare):
  import tensorflow as tf

  register('none', {k: tf.constant([], tf.string) for k in QUESTIONS})
  with pytest.raises(ValueError, match="split 'train' has no examples"):
    prepare('none')


@pytest.mark.parametrize(
  'template',
  [
    Template('read: {inputs}', '{targets}'),
    Template('{inputs}', '{answers}'),
    Template('{inputs}', '{targets}', {'no': 'wrong', 'yes': 'right'}),
    Template('{inputs}', '{targets}', choices=('{a}', '{b}')),
  ],
)
def test_templates_cannot_change_their_text(register, prepare, template):
  register('foreign')
  with pytest.raises(ValueError, match='a task of SeqIO brings its own text'):
    prepare('foreign', template)
