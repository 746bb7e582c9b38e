"""Overlap: texts that one task trains on and another is tested with."""

import json

import pytest

from prompt_subspace.data import overlap, tasks

LONG = 'one two three four five'


def named(*found):
  return {task.name: task for task in found}


@pytest.fixture
def write(tmp_path):
  """Writes a task of pairs: rows of each split as (first, second, label)."""

  def write(name, **splits):
    folder = tmp_path / name
    folder.mkdir()
    fields = {
      'input': f'{name}: {{a}} {{b}}',
      'target': '{label}',
      'labels': {LONG: 'yes', 'no': 'no'},
    }
    (folder / 'task.json').write_text(json.dumps(fields))
    for split, rows in splits.items():
      lines = ['a\tb\tlabel', *('\t'.join(row) for row in rows)]
      (folder / f'{split}.tsv').write_text('\n'.join(lines))
    return tasks.find(name, tmp_path)

  return write


def test_texts_count_whatever_the_template_column_case_and_signs(write):
  source = write('source', train=[('x', f'"{LONG.upper()}", x', 'no')])
  target = write(
    'target',
    test=[
      (f'{LONG} x!', 'y', 'no'),
      (f'{LONG} x y', 'y', 'no'),
      (f'{LONG} x', f'{LONG}-x', 'no'),
    ],
  )
  (found,) = overlap.shared(named(source), named(target))
  assert found == ('source', 'target', 2, 3)
  assert overlap.told(named(source), named(target)) == [
    '67 % of the test examples of target have a text that source trains on'
  ]


def test_tasks_are_told_by_the_names_they_are_asked_for(write):
  source = write('source', train=[(LONG, 'x', 'no')])
  target = write('target', test=[(LONG, 'x', 'no')])
  (found,) = overlap.shared({'glue-a': source}, {'glue-b': target})
  assert (found.source, found.target) == ('glue-a', 'glue-b')


def test_short_texts_and_labels_are_no_overlap(write):
  source = write('source', train=[('one two three four', 'x', LONG)])
  target = write('target', test=[('one two three four', 'x', LONG)])
  assert overlap.shared(named(source), named(target)) == []


def test_what_is_looked_at_are_training_texts_of_other_tasks(write):
  source = write(
    'source', train=[('x', 'x', 'no')], validation=[(LONG, 'x', 'no')]
  )
  same = write('same', train=[(LONG, 'x', 'no')], test=[(LONG, 'x', 'no')])
  assert overlap.shared(named(source, same), named(same)) == []


def test_large_shares_come_first_and_tiny_ones_are_not_told(write):
  test = [(f'{LONG} {i}', 'x', 'no') for i in range(300)]
  target = write('target', test=test)
  sources = [
    write(name, train=test[:count])
    for name, count in (('tiny', 2), ('some', 3), ('half', 150))
  ]
  found = overlap.shared(named(*sources), named(target))
  assert [(x.source, x.count) for x in found] == [
    ('half', 150),
    ('some', 3),
    ('tiny', 2),
  ]
  told = overlap.told(named(*sources), named(target))
  assert [text.split()[0] for text in told] == ['50', '1']


def test_sets_of_crossfit_are_read_and_tasks_of_seqio_are_not(tmp_path, write):
  rows = {'train': f'{LONG}\tno', 'dev': 'a\tyes', 'test': 'b\tno'}
  (tmp_path / 'glue-sst2').mkdir()
  for split, row in rows.items():
    path = tmp_path / 'glue-sst2' / f'glue-sst2_16_13_{split}.tsv'
    path.write_text(row + '\n')
  source = tasks.find('glue-sst2_16_13', tmp_path)
  target = write('target', test=[(LONG, 'x', 'no')])
  registered = tasks.Task('theirs', None, tasks.PLAIN)
  (found,) = overlap.shared(
    named(source, registered), named(target, registered)
  )
  assert found.count == 1
