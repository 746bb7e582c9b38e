"""A SeqIO task of `text_task` brings candidates and accepted answers along."""

import pytest

from prompt_subspace.data import arrays, seqio_tasks, tasks
from prompt_subspace.data.templates import Template


@pytest.fixture
def choose(vocabulary, monkeypatch):
  """A multiple-choice task whose rows a test gives: (target, candidates)."""
  import seqio
  import tensorflow as tf

  monkeypatch.setattr(tasks, '_templates', {})
  monkeypatch.setattr(tasks, '_identities', {})
  names = []

  def choose(*rows):
    def dataset_fn(split, shuffle_files):
      targets, choices = zip(*rows, strict=True)
      return tf.data.Dataset.from_tensor_slices(
        {
          'inputs': ['which?'] * len(rows),
          'targets': list(targets),
          'choices': tf.ragged.constant([list(c) for c in choices]),
        }
      )

    seqio_tasks.text_task(
      'odd',
      seqio.FunctionDataSource(dataset_fn, ['train']),
      [],
      Template('{inputs}', '{targets}', choices=('{a}', '{b}')),
      vocabulary,
      'odd rows',
    )
    names.append('odd')
    return tasks.find('odd')

  yield choose
  for name in names:
    seqio.TaskRegistry.remove(name)


def test_candidates_of_a_seqio_task_may_differ_in_number(
  choose, vocabulary, tmp_path
):
  task = choose(('milk', ['the town', 'milk', ' ', 'no']), ('a', ['a', 'b']))
  train = arrays.prepare(task, vocabulary, tmp_path, splits=['train']).splits[
    'train'
  ]
  # Blank candidates are left out, as in templates.
  assert train.choices.shape[:2] == (2, 3)
  assert [vocabulary.decode(ids) for ids in train.choices[0]] == [
    vocabulary.decode(vocabulary.encode(text))
    for text in ('the town', 'milk', 'no')
  ]
  assert train.labels.tolist() == [1, 0]
  assert not train.choices[1, 2].any()
  assert train.references == [['milk'], ['a']]


def test_a_target_that_is_no_choice_is_refused(choose, vocabulary, tmp_path):
  task = choose(('a', ['a', 'b']), ('milk', ['no', 'the town']))
  with pytest.raises(
    ValueError, match=r"'train', example 1: the target 'milk' is none .*'no'"
  ):
    arrays.prepare(task, vocabulary, tmp_path, splits=['train'])


def test_another_identity_is_prepared_again(
  choose, vocabulary, tmp_path, monkeypatch
):
  def key():
    task = arrays.prepare(
      tasks.find('odd'), vocabulary, tmp_path, splits=['train']
    )
    return task.record['key']

  choose(('a', ['a', 'b']))
  before = key()
  assert key() == before
  monkeypatch.setitem(tasks._identities, 'odd', 'other rows')
  assert key() != before
