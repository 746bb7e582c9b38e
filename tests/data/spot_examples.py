"""A few hand-written examples of TFDS's data sets, with their features."""

import pathlib
from unittest import mock

from tasks import spot

PREMISE = 'The river rose.'
# Data set -> split of TFDS -> examples
EXAMPLES = {
  'glue/mrpc': {
    'train': [
      {'sentence1': 'a b', 'sentence2': 'a', 'label': 1, 'idx': 0},
      {'sentence1': 'c', 'sentence2': 'd', 'label': 0, 'idx': 1},
    ],
    'validation': [{'sentence1': 'e', 'sentence2': 'f', 'label': 1, 'idx': 0}],
    'test': [{'sentence1': 'g', 'sentence2': 'h', 'label': -1, 'idx': 0}],
  },
  'glue/stsb': {
    'train': [
      {'sentence1': 'a', 'sentence2': 'b', 'label': 3.77, 'idx': 0},
      {'sentence1': 'c', 'sentence2': 'd', 'label': 0.0, 'idx': 1},
    ],
    'validation': [{'sentence1': 'e', 'sentence2': 'f', 'label': 5, 'idx': 0}],
  },
  'super_glue/copa': {
    split: [
      {
        'premise': PREMISE,
        'choice1': 'It was warm.',
        'choice2': 'It rained a lot.',
        'question': 'cause',
        'label': label,
        'idx': 7,
      }
    ]
    for split, label in (('train', 1), ('validation', 0), ('test', -1))
  },
  'super_glue/record': {
    split: [
      {
        'passage': 'Ann met Bob.\n@highlight\nBob left\n@highlight\nAnn sang',
        'query': '@placeholder left',
        'entities': ['Ann', 'Bob'],
        'answers': answers,
        'idx': {'passage': 3, 'query': 5},
      }
    ]
    for split, answers in (
      ('train', ['Bob', 'Robert']),
      ('validation', ['Bob']),
      ('test', []),
    )
  },
  'super_glue/multirc': {
    split: [
      {
        'paragraph': '<b>Sent 1: </b>Ann sang.<br><b>Sent 2: </b>Bob left.',
        'question': 'Who left?',
        'answer': 'Bob',
        'label': 1,
        'idx': {'paragraph': 0, 'question': 1, 'answer': 2},
      }
    ]
    for split in ('train', 'validation')
  },
  'super_glue/wsc.fixed': {
    split: [
      {
        'text': text,
        'span1_text': first,
        'span1_index': at,
        'span2_text': second,
        'span2_index': then,
        'label': 1,
        'idx': 0,
      }
      for text, first, at, second, then in (
        ('Mark told Pete (it) that he knew.', 'Mark', 0, 'he', 5),
        ('When he came, Mr. (X) sang.', 'Mr. (X)', 3, 'he', 1),
      )
    ]
    for split in ('train', 'validation')
  },
  'squad/v1.1': {
    split: [
      {
        'id': '1',
        'title': 'a',
        'context': 'Ann met Bob.',
        'question': 'Who met?',
        'answers': {'text': ['Ann', 'Ann met'], 'answer_start': [0, 0]},
      }
    ]
    for split in ('train', 'validation')
  },
  'drop': {
    split: [
      {
        'passage': 'Two and two.',
        'question': 'How many?',
        'answer': answer,
        'validated_answers': ['four', ''],
        'query_id': answer,
      }
      for answer in ('4', '')
    ]
    for split in ('train', 'dev')
  },
  'winogrande': {
    split: [
      {'sentence': 'Ann sang as _ was glad.', 'label': label}
      | {'option1': 'Ann', 'option2': 'Bob'}
      for label in (0, 1)
    ]
    for split in ('train_xl', 'validation')
  },
  'hellaswag': {
    split: [
      {
        'context': 'She pours',
        'endings': ['milk.', 'a hall.', 'the town.', 'no.'],
        'activity_label': 'a',
        'label': 2,
        'split_type': 'indomain',
        'source_id': 'a~1',
      }
    ]
    for split in ('train', 'validation')
  },
  **{
    f'race/{level}': {
      split: [
        {
          'article': f'A {level} article.',
          'questions': ['one?', 'two?'],
          'answers': ['B', 'D'],
          'options': [['a', 'b', 'c', 'd'], ['e', 'f', 'g', 'h']],
          'example_id': level,
        }
      ]
      for split in ('train', 'dev', 'test')
    }
    for level in ('high', 'middle')
  },
}


def store(folder: pathlib.Path) -> pathlib.Path:
  """Writes EXAMPLES as TFDS stores them; returns the folder.

  The builders of TFDS do it, without a download.
  """
  import tensorflow_datasets as tfds

  versions = {
    name.split(':')[0]: name
    for row in spot.TASKS.values()
    for name in row.tfds or ()
  }
  for name, splits in EXAMPLES.items():
    builder = tfds.builder(versions[name], data_dir=str(folder))
    generators = {s: enumerate(rows) for s, rows in splits.items()}
    with mock.patch.object(
      type(builder), '_split_generators', lambda self, _, g=generators: g
    ):
      builder.download_and_prepare()
  return folder
