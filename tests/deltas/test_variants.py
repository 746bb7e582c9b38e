"""The library of a sweep: methods under several values of a setting."""

import functools

import pytest

from prompt_subspace import deltas
from prompt_subspace.deltas import variants


def test_a_method_for_each_value_and_those_beside():
  methods = {
    'lora': deltas.lora,
    'by scale': functools.partial(deltas.lora, scale=8.0),
  }
  beside = {'prompt': deltas.prompt()}
  found = variants.library(methods, 'rank', [1, 16], beside)
  assert list(found) == [
    'lora 1',
    'lora 16',
    'by scale 1',
    'by scale 16',
    'prompt',
  ]
  assert [m.settings.get('rank') for m in found.values()] == [
    1,
    16,
    1,
    16,
    None,
  ]
  assert found['by scale 16'].settings['scale'] == 8.0
  assert found['lora 16'].settings['scale'] != 8.0


@pytest.mark.parametrize(
  'name, line',
  [
    ('lora 16', 'lora'),
    ('prefix cnn 0.002', 'prefix cnn'),
    ('cnn 1e-05', 'cnn'),
    ('prefix cnn', 'prefix cnn'),
    ('lora', 'lora'),
  ],
)
def test_the_line_of_a_variant(name, line):
  assert variants.line(name) == line


def test_names_lead_back_to_their_line():
  values = [1e-12, 0.002, 1, 0.5, 123456, 1e9]
  found = variants.library({'a b': deltas.lora}, 'scale', values)
  assert len(found) == len(values)
  assert {variants.line(n) for n in found} == {'a b'}


@pytest.mark.parametrize(
  'match, change',
  [
    ("setting, lora: expected .*'rank'.*found .*'depth'", {'setting': 'depth'}),
    ('values: expected a list of at least one number', {'values': []}),
    ("values: expected numbers, found 'all'", {'values': [1, 'all']}),
    ('values: expected numbers, found True', {'values': [True]}),
    (
      "found 'lora 1' twice",
      {'setting': 'scale', 'values': [1, 1.0]},
    ),
    ("found 'lora 1' twice", {'beside': {'lora 1': deltas.prompt()}}),
    ('methods: expected a list of at least one method', {'methods': {}}),
  ],
)
def test_mistakes(match, change):
  asked = {'methods': {'lora': deltas.lora}, 'setting': 'rank', 'values': [1]}
  with pytest.raises(ValueError, match=match):
    variants.library(**asked | change)
