"""results.csv: what is written is read back, whole, or refused by line."""

import math
import os

import numpy as np
import pytest

from prompt_subspace.training import results


def run(**values):
  row = {
    'task': 'sst2',
    'method': 'prompt',
    'seed': 0,
    'rate': 0.3,
    'steps': 200,
    'best_step': 150,
    'validation': 70.0,
    'test': 60.0,
    'majority': 50.0,
    'seconds': 12.25,
    'trained_parameters': 5120,
    'padding': 0.125,
  }
  assert set(values) <= set(row)
  return row | values


def test_csv_gives_back_names_numbers_and_missing_values(tmp_path):
  rows = [
    run(task='a, "b"', rate=0.1 + 0.2, test=None, best_step=None),
    run(task='ärger\nzwei', test=1 / 3, seconds=1e-9),
  ]
  path = tmp_path / 'new' / 'results.csv'
  results.write_csv(path, rows)
  read = results.read_csv(path)
  assert read == rows
  for row in read:
    for name, kind in results.COLUMNS.items():
      assert row[name] is None or type(row[name]) is kind
  header = path.read_text(encoding='utf-8').splitlines()[0]
  assert header == (
    'task,method,seed,rate,steps,best_step,validation,test,majority,seconds,'
    'trained_parameters,padding'
  )


def test_csv_takes_numpy_scalars_and_keeps_nan(tmp_path):
  path = tmp_path / 'results.csv'
  row = run(seed=np.int32(3), test=np.float64(0.1), validation=np.nan)
  results.write_csv(path, [row])
  (read,) = results.read_csv(path)
  assert read['seed'] == 3 and read['test'] == 0.1
  assert math.isnan(read['validation'])


def test_csv_of_no_rows_is_a_header(tmp_path):
  results.write_csv(tmp_path / 'results.csv', [])
  assert results.read_csv(tmp_path / 'results.csv') == []


def test_csv_is_whole_or_as_it_was(tmp_path, monkeypatch):
  path = tmp_path / 'results.csv'
  results.write_csv(path, [run(seed=1)])
  with pytest.raises(ValueError, match="row 2: seed: expected int, found 'x'"):
    results.write_csv(path, [run(seed=2), run(seed='x')])

  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'replace', interrupted)
  with pytest.raises(KeyboardInterrupt):
    results.write_csv(path, [run(seed=3)])
  assert [row['seed'] for row in results.read_csv(path)] == [1]
  assert os.listdir(tmp_path) == ['results.csv']


def test_csv_refuses_other_columns_and_types(tmp_path):
  path = tmp_path / 'results.csv'
  with pytest.raises(ValueError, match=r"unknown: \['speed'\]"):
    results.write_csv(path, [run() | {'speed': 1}])
  short = run()
  del short['padding']
  with pytest.raises(ValueError, match=r"absent: \['padding'\]"):
    results.write_csv(path, [short])
  with pytest.raises(ValueError, match='steps: expected int, found 2.5'):
    results.write_csv(path, [run(steps=2.5)])
  assert not path.exists()


def test_reading_another_file_names_the_file_and_line(tmp_path):
  path = tmp_path / 'results.csv'
  path.write_text('a,b\n1,2\n')
  with pytest.raises(ValueError, match='results.csv:1: expected the columns'):
    results.read_csv(path)
  results.write_csv(path, [run()])
  good = path.read_text()
  path.write_text(good + 'sst2,prompt\n')
  with pytest.raises(ValueError, match='results.csv:3: expected 12 cells'):
    results.read_csv(path)
  path.write_text(good.replace('5120', 'many'))
  with pytest.raises(
    ValueError, match="results.csv:2: trained_parameters.*'many'"
  ):
    results.read_csv(path)
