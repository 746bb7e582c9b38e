"""Task names resolve in the stated order, and folders serve SeqIO's users."""

import sys

import pytest

from prompt_subspace.data import seqio_tasks, tasks
from prompt_subspace.data.templates import Template
from prompt_subspace.vocabulary import EOS

FILMS = Template('film: {sentence}', '{label}', {'0': 'bad', '1': 'good'})


@pytest.fixture(autouse=True)
def no_templates(monkeypatch):
  """Tables that other tests import must not count here."""
  monkeypatch.setattr(tasks, '_templates', {})


@pytest.fixture
def demo(monkeypatch, tmp_path, write_task):
  """An embedded task `weather` in place of the real ones."""
  monkeypatch.setattr(tasks, 'DEMO', tmp_path / 'demo')
  fields = {'input': '{q}', 'target': '{a}'}
  return write_task(
    tmp_path / 'demo' / 'weather', fields, ['q', 'a'], [['rain?', 'no']]
  )


@pytest.fixture
def registered():
  """A name in SeqIO's registry, removed afterwards."""
  import seqio

  feature = seqio.Feature(seqio.PassThroughVocabulary(10))
  seqio.TaskRegistry.add(
    'registered_task',
    source=seqio.FunctionDataSource(
      lambda split, shuffle_files: None, ['train']
    ),
    output_features={'inputs': feature, 'targets': feature},
  )
  yield 'registered_task'
  seqio.TaskRegistry.remove('registered_task')


def test_own_folder_needs_no_python(data_dir):
  task = tasks.find('films', data_dir)
  assert task.name == 'films' and task.folder == data_dir / 'films'
  assert task.template.label_texts == ('negative', 'positive')
  assert tasks.find('films', str(data_dir)) == task


def test_registered_template_needs_the_folder(data_dir, write_tsv):
  tasks.register_templates({'plain': FILMS})
  with pytest.raises(ValueError, match=r"'plain'.*found no such\s+folder"):
    tasks.find('plain', data_dir)
  write_tsv(data_dir / 'plain' / 'train.tsv', ['sentence', 'label'], [])
  assert tasks.find('plain', data_dir) == ('plain', data_dir / 'plain', FILMS)


def test_task_json_comes_before_the_table(data_dir):
  tasks.register_templates({'films': FILMS})
  assert tasks.find('films', data_dir).template != FILMS


@pytest.mark.parametrize('data_dir', [None, 'demo'])
def test_embedded_tasks(demo, data_dir):
  assert tasks.find('weather', data_dir).folder == demo


def test_embedded_tasks_are_not_mixed_into_data_dir(demo, data_dir):
  with pytest.raises(ValueError, match="unknown task 'weather'"):
    tasks.find('weather', data_dir)


def test_seqio_registry(registered, demo, data_dir):
  assert tasks.find(registered) == (registered, None, tasks.PLAIN)
  assert tasks.find(registered, data_dir).folder is None
  template = Template('{inputs}', '{targets}', {'no': 'no', 'yes': 'yes'})
  tasks.register_templates({registered: template})
  assert tasks.find(registered, data_dir).template == template


def test_unknown_names_list_the_known(demo, data_dir, registered):
  tasks.register_templates({'plain': FILMS})
  with pytest.raises(ValueError, match='answers, films, rivers, scores') as e:
    tasks.find('flims', data_dir)
  assert 'registered_task' in str(e.value) and 'plain' not in str(e.value)
  with pytest.raises(ValueError, match='in the package: weather'):
    tasks.find('flims')
  with pytest.raises(ValueError, match='unknown task'):
    tasks.find('', data_dir)


def test_missing_data_dir_says_what_to_pass(demo, tmp_path):
  tasks.register_templates({'plain': FILMS})
  with pytest.raises(ValueError, match='pass data_dir, .* plain/train.tsv'):
    tasks.find('plain')
  with pytest.raises(ValueError, match='data_dir: expected a folder .*nowhere'):
    tasks.find('plain', tmp_path / 'nowhere')


def test_folder_without_template(data_dir):
  (data_dir / 'films' / 'task.json').unlink()
  with pytest.raises(ValueError, match='has no task.json and no template'):
    tasks.find('films', data_dir)


def test_mistake_in_task_json_names_the_file(data_dir):
  (data_dir / 'films' / 'task.json').write_text('{}')
  with pytest.raises(ValueError, match='films/task.json: expected an object'):
    tasks.find('films', data_dir)


def test_a_name_has_one_template():
  tasks.register_templates({'films': FILMS})
  tasks.register_templates({'films': FILMS})
  with pytest.raises(ValueError, match="'films' is registered with another"):
    tasks.register_templates({'films': tasks.PLAIN})


@pytest.fixture
def seqio_task(data_dir, vocabulary):
  """Registers a folder of data_dir under a name; removed afterwards."""
  import seqio

  names = []

  def make(folder, name):
    names.append(name)
    task = tasks.find(folder, data_dir)
    return seqio_tasks.seqio_task(name, task.folder, task.template, vocabulary)

  yield make
  for name in names:
    seqio.TaskRegistry.remove(name)


def test_seqio_task_tokenises_and_appends_eos(seqio_task, vocabulary):
  import seqio

  seqio_task('films', 'seqio_films')
  task = seqio.get_mixture_or_task('seqio_films')
  assert set(task.splits) == {'train', 'validation', 'test'}
  assert task.num_input_examples('train') == 8
  (first, *_) = task.get_dataset(
    None, 'train', shuffle=False
  ).as_numpy_iterator()
  text = 'sentence: train the film was warm'
  assert first['inputs'].tolist() == [*vocabulary.encode(text), EOS]
  assert first['targets'].tolist() == [*vocabulary.encode('positive'), EOS]
  assert first['inputs_pretokenized'].decode() == text
  assert first['label'] == 1 and first['choices'].size == 0
  assert first['references'].tolist() == [b'positive']
  (short, *_) = task.get_dataset(
    {'inputs': 5, 'targets': 3}, 'train', shuffle=False
  ).as_numpy_iterator()
  assert short['inputs'].tolist() == [*vocabulary.encode(text)[:4], EOS]


@pytest.mark.parametrize('pack', [False, True])
@pytest.mark.parametrize('folder', ['films', 'rivers', 'answers', 'scores'])
def test_seqio_task_feeds_an_encoder_decoder(seqio_task, folder, pack):
  import seqio

  task = seqio_task(folder, f'seqio_{folder}_{pack}')
  dataset = seqio.get_dataset(
    mixture_or_task_name=task.name,
    task_feature_lengths={'inputs': 60, 'targets': 20},
    dataset_split='train',
    feature_converter=seqio.EncDecFeatureConverter(pack=pack),
    shuffle=True,
    num_epochs=1,
  )
  (batch, *_) = dataset.as_numpy_iterator()
  assert batch['encoder_input_tokens'].shape == (60,)
  assert batch['decoder_target_tokens'].shape == (20,)


@pytest.mark.parametrize(
  'folder, metric, score',
  [
    ('films', 'f1_macro', 100.0),
    ('rivers', 'accuracy', 100.0),
    ('answers', 'qa_f1', 100.0),
    ('scores', 'spearman', 100.0),
  ],
)
def test_seqio_evaluates_with_our_metrics(seqio_task, folder, metric, score):
  import seqio

  task = seqio_task(folder, f'evaluated_{folder}')
  evaluator = seqio.Evaluator(
    task.name,
    feature_converter=seqio.EncDecFeatureConverter(pack=False),
    eval_split='test',
    sequence_length={'inputs': 60, 'targets': 20},
  )
  # A perfect model answers with the target's tokens.
  metrics, _ = evaluator.evaluate(
    compute_metrics=True,
    predict_fn=lambda dataset: [
      (i, batch['decoder_target_tokens'].tolist())
      for i, batch in dataset.as_numpy_iterator()
    ],
    score_fn=None,
  )
  assert metrics.result()[task.name][metric] == pytest.approx(score)


def test_generation_is_scored_against_all_answers(seqio_task):
  task = seqio_task('answers', 'seqio_answers')
  rows = list(
    task.get_dataset(None, 'train', shuffle=False).as_numpy_iterator()
  )
  targets = [
    task.postprocess_fn(b'', example=row, is_target=True) for row in rows
  ]
  assert targets == [
    ['milk', 'the milk'],
    ['the children'],
    ['the milk', 'milk'],
  ]


def test_seqio_task_checks_the_data_at_once(seqio_task, data_dir):
  (data_dir / 'films' / 'test.tsv').write_text('sentence\tlabel\nx\t7\n')
  with pytest.raises(ValueError, match="test.tsv:2: label '7'"):
    seqio_task('films', 'seqio_bad')


def test_seqio_refuses_a_second_task_of_the_name(seqio_task):
  seqio_task('films', 'seqio_twice')
  with pytest.raises(ValueError, match='duplicate provider: seqio_twice'):
    seqio_task('films', 'seqio_twice')


def test_names_resolve_without_importing_seqio(monkeypatch, demo):
  monkeypatch.delitem(sys.modules, 'seqio', raising=False)
  with pytest.raises(ValueError, match='unknown task'):
    tasks.find('nothing')
  assert 'seqio' not in sys.modules
