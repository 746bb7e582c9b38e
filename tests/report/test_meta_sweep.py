"""The report of a sweep of meta-learning studies, worked out by hand."""

import json

import pytest

from prompt_subspace.report import meta, meta_sweep
from tests.report.meta_study import SCORES, pictures, read, write
from tests.report.words import shown


def sweep_folder(folder, values, name='shots'):
  """Studies in which MAML gains 10 points more from value to value."""
  folders = [f'{name}={value}' for value in values]
  for i, study in enumerate(folders):
    (folder / study).mkdir(parents=True)
    scores = {
      (t, a): tuple(x + 10 * i * (a == 'maml') for x in tests)
      for (t, a), tests in SCORES.items()
    }
    write(folder / study, scores)
  (folder / 'record.json').write_text('{"fingerprint": "of the sweep"}')
  record = {'name': name, 'values': values, 'folders': folders}
  (folder / 'sweep.json').write_text(json.dumps(record))
  return folder


def test_a_sweep_shows_gains_against_the_value(tmp_path):
  text = meta.sweep(sweep_folder(tmp_path, [128, 16]))
  lines = [line.split() for line in text.splitlines()]
  assert ['ARG', '%', 'by', 'shots', '16', '128'] in lines, 'sorted'
  maml = next(line for line in lines if line[:1] == ['MAML'])
  # at 16 the scores are 10 points higher than at 128:
  # by split (40 + 100) / 2 and (50 - 12.5) / 2
  assert maml[1] == '44.4' and maml[4] == '17.5'
  rows = read(tmp_path / 'sweep.csv')
  found = {(r['value'], r['algorithm']): r['arg'] for r in rows}
  assert float(found['16', 'maml']) == pytest.approx(44.375)
  assert float(found['128', 'maml']) == 17.5
  assert rows[0]['name'] == 'shots' and found['16', 'pt'] == ''
  assert '| MAML' in (tmp_path / 'sweep.md').read_text()
  assert pictures(tmp_path) == {'sweep'}
  # and a page for each study
  for study in ('shots=16', 'shots=128'):
    assert 'Target by target' in shown(tmp_path / study)
  assert '+44.4 %' in shown(tmp_path) and 'of the sweep' in shown(tmp_path)


def test_numbers_are_on_an_axis_and_other_values_in_groups(tmp_path):
  def axes(values, name):
    folder = sweep_folder(tmp_path / name, values)
    return meta_sweep.draw(meta_sweep.read(folder)).axes[0]

  found = axes([16, 32, 128], 'shots')
  assert found.get_xscale() == 'log'
  assert [t.get_text() for t in found.get_xticklabels()] == ['16', '32', '128']
  line = next(k for k in found.lines if k.get_label() == 'MAML')
  assert line.get_xdata().tolist() == [16, 32, 128]
  # 22.5 of books, and of verses 12.5, then 10 points more
  assert line.get_ydata()[0] == 17.5
  assert axes([0.2, 0.3], 'rate').get_xscale() == 'linear'
  found = axes([16, 'all'], 'mixed')
  assert [t.get_text() for t in found.get_xticklabels()] == ['16', 'all']
  assert len(found.patches) == 4, 'two values, two algorithms'


def test_averages_over_different_targets_are_said(tmp_path):
  folder = sweep_folder(tmp_path, [16, 32])
  scores = {k: v for k, v in SCORES.items() if k[0] != 'books'}
  write(folder / 'shots=32', scores)
  text = meta.sweep(folder)
  assert 'Not all averages are over the same targets' in text
  assert 'MAML: 2 at 16, 1 at 32' in text
  assert 'MAML: 2 at 16, 1 at 32' in (folder / 'sweep.md').read_text()


def test_a_sweep_that_does_not_fit_is_refused(tmp_path):
  folder = sweep_folder(tmp_path, [16, 32])
  path = folder / 'sweep.json'
  record = json.loads(path.read_text())
  for change, said in (
    ({'values': [16]}, 'found 1 values and 2 folders'),
    ({'folders': ['shots=16', 'gone']}, 'a finished study in gone'),
  ):
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=said):
      meta.sweep(folder)
  path.write_text(json.dumps({'name': 'shots'}))
  with pytest.raises(ValueError, match='name, values, folders, found name'):
    meta.sweep(folder)
