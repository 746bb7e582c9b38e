"""Sweeps of studies: one folder for each value, and a list of them."""

import json
import pathlib

import pytest

from prompt_subspace.meta import sweep
from prompt_subspace.training.job import Job

VARIANTS = {'16': {'shots': 16}, '32': {'shots': 32}, 'all': {'shots': None}}


@pytest.fixture
def study():
  """Plans nothing; returns the function and the record of its calls."""
  calls = []

  def learn(out, shots=0, targets='x'):
    if shots == -1:
      raise ValueError('shots: expected more, found -1.')
    calls.append(('plan', out, shots, targets))
    return Job(
      pathlib.Path(out),
      f'plan of {shots}',
      {'shots': shots},
      lambda: calls.append(('run', out, shots, targets)),
    )

  return learn, calls


def test_each_value_is_a_study_of_its_own(study, tmp_path):
  learn, calls = study
  job = sweep.sweep(learn, 'shots', VARIANTS, str(tmp_path))
  assert [c[0] for c in calls] == ['plan'] * 3
  assert not (tmp_path / 'sweep.json').exists()
  job.run()
  assert [c[1:3] for c in calls[3:]] == [
    (str(tmp_path / f'shots={v}'), a['shots']) for v, a in VARIANTS.items()
  ]
  listed = json.loads((tmp_path / 'sweep.json').read_text(encoding='utf-8'))
  assert listed == {
    'name': 'shots',
    'values': [16, 32, 'all'],
    'folders': ['shots=16', 'shots=32', 'shots=all'],
  }
  assert 'shots 32\nplan of 32' in job.plan
  assert job.record == {
    'shots': {v: {'shots': a['shots']} for v, a in VARIANTS.items()}
  }


@pytest.mark.parametrize(
  'variants, message',
  [
    ({}, 'variants: expected at least one'),
    ({'a/b': {}}, "variants: expected names .* found 'a/b'"),
    ({'8': {'shots': -1}}, 'shots 8: shots: expected more, found -1'),
  ],
)
def test_bad_variants_are_refused(study, tmp_path, variants, message):
  with pytest.raises(ValueError, match=message):
    sweep.sweep(study[0], 'shots', variants, str(tmp_path))
