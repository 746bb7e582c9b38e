"""A sweep over one number of its methods: table, lines, picture."""

import json

import pytest

from prompt_subspace.report import varied
from prompt_subspace.training import results
from tests.made_up import line


def row(method, seed, test, rate=0.1, task='reviews', validation=70.0):
  return line(method, seed, rate, validation, test, task)


METHODS = {
  'cnn 10': {'name': 'ipt_encoder', 'share': 0.1},
  'cnn 2': {'name': 'ipt_encoder', 'share': 0.02},
  'prompt': {'name': 'prompt', 'length': 20},
}


@pytest.fixture
def folder(tmp_path):
  rows = [
    row('cnn 10', 0, 71.0),
    row('cnn 10', 1, 75.0),
    # another rate, better on the test split alone
    row('cnn 10', 0, 99.0, 0.3, validation=60.0),
    row('cnn 10', 1, 99.0, 0.3, validation=60.0),
    row('cnn 2', 0, 61.0),
    row('prompt', 0, 66.0),
    row('cnn 2', 0, 33.0, task='topics'),
  ]
  results.write_csv(tmp_path / 'results.csv', rows)
  (tmp_path / 'identity.json').write_text(json.dumps({'methods': METHODS}))
  return tmp_path


def test_a_table_and_a_picture_for_each_task(folder):
  text = varied.report(folder, 'share')
  first, second = text.split('\n\n')[:2]
  head, _, cnn, prompt, majority = (x.split() for x in first.splitlines())
  assert head == ['reviews', 'by', 'share', '0.02', '0.1']
  assert cnn == ['cnn', '61.0', '73.0', '±', '2.8']
  assert prompt == ['prompt', '66.0', '66.0']
  assert majority == ['majority', '52.5', '52.5']
  assert second.splitlines()[2].split() == ['cnn', '33.0', '-']
  for task in ('reviews', 'topics'):
    data = (folder / 'pictures' / f'{task}.png').read_bytes()
    assert data.startswith(b'\x89PNG')
  assert '73.0' in (folder / 'varied.md').read_text(encoding='utf-8')


def test_lines_are_named_without_the_value_and_sorted_by_it():
  settings = {
    'prefix cnn 9': {'length': 9},
    'prefix cnn 5': {'length': 5},
    'mlp': {'length': 7},
    'full': {},
  }
  lines, level = varied.group(settings, 'length')
  assert lines == {
    'prefix cnn': {5: 'prefix cnn 5', 9: 'prefix cnn 9'},
    'mlp': {7: 'mlp'},
  }
  assert list(lines['prefix cnn']) == [5, 9] and level == ['full']


def test_mistakes(folder):
  with pytest.raises(ValueError, match="setting: .*'share'.*found 'depth'"):
    varied.report(folder, 'depth')
  twice = {'cnn 5': {'length': 5}, 'cnn 5.0': {'length': 5}}
  with pytest.raises(ValueError, match='cnn 5.*cnn 5.0.*same length, 5'):
    varied.group(twice, 'length')
