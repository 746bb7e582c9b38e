"""A tiny vocabulary and small task folders for the tests of the data layer."""

import io
import json
from pathlib import Path

import pytest
import sentencepiece

from prompt_subspace.vocabulary import Vocabulary

TEXTS = [
  'The film was warm and funny, and I would see it again with my sister.',
  'A dull, long and loud evening; nobody in the hall laughed once.',
  'Which river runs through the old town and past the market?',
  'sentence: question: answer: negative positive neutral choice label',
  'She poured the milk into the bowl before the children woke up.',
  '0 1 2 3 4 5 6 7 8 9 10 20 30 4.5 2.2',
]

SPLITS = ('train', 'validation', 'test')


def train_model(path: Path, pieces: int = 150, **options) -> Path:
  """Writes a sentencepiece model with T5's special ids, unless told others."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(TEXTS * 20),
    model_writer=model,
    vocab_size=pieces,
    hard_vocab_limit=False,
    minloglevel=2,
    **{'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1} | options,
  )
  path.write_bytes(model.getvalue())
  return path


@pytest.fixture(scope='session', name='train_model')
def train_model_fixture():
  return train_model


@pytest.fixture(scope='session')
def vocabulary(tmp_path_factory) -> Vocabulary:
  return Vocabulary(
    train_model(tmp_path_factory.mktemp('vocabulary') / 'tiny.model')
  )


def write_tsv(path: Path, columns: list[str], rows: list[list[str]]) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = ['\t'.join(row) for row in [columns, *rows]]
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  return path


@pytest.fixture(name='write_tsv')
def write_tsv_fixture():
  return write_tsv


def write_task(folder: Path, fields: dict, columns, rows) -> Path:
  """A user's own task: task.json and the same number of rows per split."""
  for split in SPLITS:
    write_tsv(
      folder / f'{split}.tsv',
      columns,
      [[f'{split} {row[0]}', *row[1:]] for row in rows],
    )
  (folder / 'task.json').write_text(json.dumps(fields), encoding='utf-8')
  return folder


@pytest.fixture(name='write_task')
def write_task_fixture():
  return write_task


@pytest.fixture
def data_dir(tmp_path) -> Path:
  """Four tasks, one of each kind."""
  root = tmp_path / 'tasks'
  write_task(
    root / 'films',
    {
      'input': 'sentence: {sentence}',
      'target': '{label}',
      'labels': {'0': 'negative', '1': 'positive'},
      'metrics': ['accuracy', 'f1_macro'],
    },
    ['sentence', 'label'],
    [
      ['the film was warm', '1'],
      ['a dull "evening"', '0'],
      ['loud and long', '0'],
      ['I would see it again', '1'],
      ['nobody laughed', '0'],
      ['funny and warm and funny', '1'],
      ['the children laughed', '1'],
      ['nobody laughed once, nobody', '0'],
    ],
  )
  write_task(
    root / 'rivers',
    {
      'input': 'question: {question}',
      'target': '{answer}',
      'choices': ['{a}', '{b}', '{c}'],
    },
    ['question', 'a', 'b', 'c', 'answer'],
    [
      ['which runs', 'the river', 'the town', 'the market', 'the town'],
      ['which is old', 'milk', 'the town hall', '', 'milk'],
    ],
  )
  write_task(
    root / 'answers',
    {
      'input': 'question: {question}',
      'target': '{answer}',
      'metrics': ['exact_match', 'qa_f1'],
    },
    ['question', 'answer'],
    [
      ['what did she pour', 'milk'],
      ['who woke up', 'the children'],
      ['what did she pour', 'the milk'],
    ],
  )
  write_task(
    root / 'scores',
    {'input': '{first} {second}', 'target': '{score}', 'kind': 'regression'},
    ['first', 'second', 'score'],
    [['warm milk', 'milk', '4.5'], ['the hall', 'my sister', '0']],
  )
  return root
