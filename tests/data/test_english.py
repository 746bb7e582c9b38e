"""The table of English tasks fits the real files and registers with SeqIO."""

from collections import Counter

import numpy as np
import pytest

import tasks.english as english
from prompt_subspace.data import arrays, files, tasks
from prompt_subspace.vocabulary import Vocabulary


def test_names_are_known_to_find(tmp_path):
  (tmp_path / 'sst2').mkdir()
  assert tasks.find('sst2', tmp_path).template == english.TASKS['sst2']


def test_the_table_has_all_tasks_of_the_folder(real_data):
  folders = {p.name for p in (real_data / 'tasks').iterdir() if p.is_dir()}
  assert folders == set(english.TASKS) and len(folders) == 56


@pytest.mark.parametrize('name', english.TASKS)
def test_every_row_renders(real_data, name):
  template = english.TASKS[name]
  labels = {}
  for split in files.SPLITS:
    rows = files.examples(real_data / 'tasks' / name, split, template)
    labels[split] = Counter(row.label for row in rows)
  if template.kind != 'classification':
    return
  # Each label text is one that the files use, and the table's rule for when
  # macro-F1 stands beside accuracy holds.
  assert set(labels['train']) == set(range(len(template.label_texts)))
  most, *_, least = sorted(labels['train'].values(), reverse=True)
  if template.metrics != ('matthews',):
    assert ('f1_macro' in template.metrics) == (most >= 2 * least)


def test_multiple_choice_answers_are_the_stated_ones(real_data):
  for name, template in english.TASKS.items():
    if template.kind != 'multiple_choice':
      continue
    path = files.split_path(real_data / 'tasks' / name, 'test')
    rows = files.read(path, [*template.columns, 'answer_index'])
    for _, row in rows:
      example = template.render(row)
      assert example.choices[int(row['answer_index'])] == example.target


@pytest.mark.parametrize('name', ['cb', 'copa', 'wsc', 'xquad_en'])
def test_tasks_become_tokens(real_data, tmp_path, name):
  vocabulary = Vocabulary(real_data / 'vocab' / 't5.model')
  task = arrays.prepare(
    tasks.find(name, real_data / 'tasks'), vocabulary, tmp_path, limit=20
  )
  for split, array in task.splits.items():
    rows = files.examples(
      real_data / 'tasks' / name, split, english.TASKS[name]
    )[:20]
    for ids, target, row in zip(array.inputs, array.targets, rows, strict=True):
      expected = vocabulary.encode(row.input)[:511]
      assert ids[: len(expected)].tolist() == expected
      assert vocabulary.decode(target) == vocabulary.decode(
        vocabulary.encode(row.target)
      )
    if array.choices is not None:
      candidates = array.choices[array.labels]
      if array.choices.ndim == 3:
        candidates = array.choices[np.arange(len(rows)), array.labels]
      width = array.targets.shape[1]
      np.testing.assert_array_equal(candidates[:, :width], array.targets)


def test_register_fills_seqios_registry(real_data, monkeypatch):
  import seqio

  few = {name: english.TASKS[name] for name in ('cb', 'copa', 'wsc')}
  monkeypatch.setattr(english, 'TASKS', few)
  vocabulary = Vocabulary(real_data / 'vocab' / 't5.model')
  english.register(real_data / 'tasks', vocabulary)
  try:
    task = seqio.get_mixture_or_task('copa')
    assert task.num_input_examples('test') == 100
    (row, *_) = task.get_dataset(
      None, 'test', shuffle=False
    ).as_numpy_iterator()
    assert row['inputs_pretokenized'].startswith(b'copa question: ')
  finally:
    for name in few:
      seqio.TaskRegistry.remove(name)
