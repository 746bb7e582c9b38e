"""The report of a study of the unified subspace, from its files."""

import csv
import html
import json
import math
import re
import shutil

import numpy as np
import pytest

from prompt_subspace.report import (
  unified,
  unified_found,
  unified_landscapes,
  unified_training,
)
from prompt_subspace.training import results
from prompt_subspace.unified import columns
from tests.report import unified_study
from tests.report.words import shown


def pictures(folder):
  return {p.stem for p in (folder / 'pictures').glob('*.png')}


def scores(kind, x, y):
  """Highest at the adapter's solution; the types differ by points."""
  return (
    70.0 - 4.0 * (x * x + y * y) + {'lora': 3.0, 'prefix': -3.0}.get(kind, 0)
  )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  out = unified_study.write(tmp_path_factory.mktemp('unified') / 'study')
  lines = unified_study.plane(out, 'books-plane', scores)
  lines += unified_study.plane(out, 'near', scores, 52.0)
  lines += unified_study.plane(out, 'begun', scores)
  results.write_csv(out / 'landscapes.csv', lines, columns.LANDSCAPES)
  begun = out / 'landscapes' / 'begun.csv'
  # all of the adapter, 5 of LoRA
  begun.write_text('\n'.join(begun.read_text().split('\n')[:31]) + '\n')
  return out


@pytest.fixture(scope='module')
def text(folder):
  return unified.report(folder)


def cells_of(text, *start):
  """The cells of the first line that begins with these words."""
  for line in text.splitlines():
    cells = re.split(r'\s{2,}', line.strip())
    if cells[: len(start)] == list(start):
      return cells[len(start) :]
  raise AssertionError(f'{start} in no line')


def test_averages_are_printed(text, folder):
  # books 66, 67 (seed 1) and 68, 69 (size 8) of 70; coins 51 of 52
  assert cells_of(text, 'optimisation') == [
    '24',
    '50.0',
    '61.0 ± 0.0',
    '59.2 ± 0.4',
    # 50 (67.5 / 70 + 51 / 52), and 50 (50 / 70 + 50 / 52)
    '97.3 ± 0.5',
    '83.8',
    # 100 (17.5 + 1) / (20 + 2), by seed 18 and 19 of 22
    '84.1 ± 3.2',
    # books alone, 17 and 18 of 20
    '87.5 ± 3.5',
    '12',
  ]
  transfer = cells_of(text, 'transfer')
  assert transfer[-3:] == ['56.8 ± 3.2', '57.5 ± 3.5', '24']
  assert cells_of(text, 'tasks of the space')[-2:] == ['97.5 ± 3.5', '24']
  assert (
    'Not counted in “above majority, %”, by the least that an original is over '
    'majority: coins (+2.0 points).'
  ) in text
  assert str(folder / 'report.html') in text


def test_sizes_and_types_are_compared(text):
  # 16.5 and 18.5 points of 20 on books, 1 of 2 on coins
  assert cells_of(text, 'optimisation', '4')[-3:-1] == [
    '79.5 ± 3.2',
    '82.5 ± 3.5',
  ]
  assert cells_of(text, 'optimisation', '8')[-3:-1] == [
    '88.6 ± 3.2',
    '92.5 ± 3.5',
  ]
  pooled = text[text.index('above majority, pooled, %  used by') :]
  assert cells_of(pooled, 'lora') == ['56.8 ± 3.2', '84.1 ± 3.2', '56.8 ± 3.2']


def test_tables_are_written(text, folder):
  written = (folder / 'recovery.md').read_text(encoding='utf-8')
  assert 'above majority, % (without coins (+2.0 points))' in written
  part = written[written.index('Optimisation, above majority') :]
  lines = [[c.strip() for c in x.split('|')[1:-1]] for x in part.splitlines()]
  assert ['reading', 'books', '4', *['82.5 ± 3.5'] * 4] in lines
  assert ['luck', 'coins', '8', *['-'] * 4] in lines
  assert ['average', '', '', *['87.5 ± 3.5'] * 4] in lines
  assert ['books', '50.0', *['70.0 ± 0.0'] * 3] in lines
  transfer = (folder / 'transfer.md').read_text(encoding='utf-8')
  assert 'adapter → lora' in transfer and 'prefix → lora' in transfer
  with open(folder / 'averages.csv', encoding='utf-8') as file:
    found = {(r['stage'], r['size']): r for r in csv.DictReader(file)}
  row = found['inside', '8']
  assert float(row['above']) == pytest.approx(92.5)
  assert float(row['pooled']) == pytest.approx(100 * 19.5 / 22)
  assert float(row['paper']) == pytest.approx(50 * (68.5 / 70 + 51 / 52))
  assert (row['runs'], row['above_runs'], row['seeds']) == ('12', '6', '2')


def test_the_page_says_what_was_found(text, folder):
  said = shown(folder)
  page = (folder / 'report.html').read_text(encoding='utf-8')
  assert (
    'A code tuned in it recovers 97.3 % of the original scores, and 84.1 % of '
    'what they are above majority.'
  ) in said
  assert 'a constant answer: 83.8' in said and 'mean of ratios: 57.5' in said
  assert 'has not finished' not in said
  for title in (
    'Types against types',
    'Sizes of the subspace',
    'Landscapes',
    'Every result',
  ):
    assert title in said
  assert 'Kinds of maps' not in said, 'there is one'
  assert 'mini <b>' in said and 'mini <b>' not in page, 'texts are escaped'
  assert pictures(folder) == {
    'scores',
    'sizes_paper',
    'sizes_pooled',
    'transfer_paper',
    'transfer_above',
    'transfer_pooled',
    'maps_loss',
    'maps_distance',
    'landscape_books-plane',
    'landscape_near',
  }
  assert page.count('data:image/png') == len(pictures(folder))


def test_landscapes_have_shares_of_the_mean_original(folder, text):
  planes, without = unified_landscapes.read(folder)
  assert without == {'begun': '5 of 25 points of lora'}
  assert 'begun (5 of 25 points of lora)' in text
  whole, near = planes
  np.testing.assert_allclose(whole.x, [-1, -0.5, 0, 0.5, 1])
  paper = whole.views[unified_landscapes.PAPER]
  above = whole.views[unified_landscapes.ABOVE]
  # scores of 70, 73, 67 at the origin, of 66, 69, 63 at x = 1
  assert paper[2, 2] == pytest.approx(100.0) == above[2, 2]
  assert paper[2, 4] == pytest.approx(100 * 66 / 70)
  assert above[2, 4] == pytest.approx(100 * 16 / 20)
  assert whole.scores['lora'][4, 2] == pytest.approx(69.0)
  assert whole.marks == unified_study.MARKS
  assert set(near.views) == {unified_landscapes.PAPER}
  assert 'the originals are +2.0 points over majority' in near.lacks
  assert 'no value above majority, the originals are +2.0' in shown(folder)


def test_landscapes_can_be_looked_at(folder, text):
  page = (folder / 'report.html').read_text(encoding='utf-8')
  found = re.findall('data-surface="(.*?)"', page)
  data = json.loads(html.unescape(found[0]))
  assert len(found) == 2
  assert [v['name'] for v in data['views']] == [
    unified_landscapes.PAPER,
    unified_landscapes.ABOVE,
    *(f'{t}, score' for t in unified_study.TYPES),
  ]
  # line by line from below: the third value of the third line
  assert [v['texts'][12] for v in data['views']] == [
    '100.0',
    '100.0',
    '70.0',
    '73.0',
    '67.0',
  ]


def test_incomplete_landscapes_are_told(folder, tmp_path):
  small = shutil.copytree(folder, tmp_path / 'small')
  (small / 'landscapes' / 'near.csv').unlink()
  points = (small / 'landscapes' / 'books-plane.csv').read_text().split('\n')
  # a whole line of the grid is missing for all types
  kept = [p for p in points if not p.startswith('0.5,0.5,')]
  (small / 'landscapes' / 'books-plane.csv').write_text('\n'.join(kept))
  planes, without = unified_landscapes.read(small)
  assert not planes
  assert without['near'] == 'no points'
  assert without['books-plane'] == '24 of 25 points of adapter'


def test_missing_scores_of_a_landscape_leave_gaps(folder, tmp_path):
  small = shutil.copytree(folder, tmp_path / 'small')
  lines = results.read_csv(small / 'landscapes.csv', columns.LANDSCAPES)
  for row in lines:
    if row['name'] == 'near':
      row['original'] = None
  results.write_csv(small / 'landscapes.csv', lines, columns.LANDSCAPES)
  path = small / 'landscapes' / 'books-plane.csv'
  path.write_text(path.read_text().replace('73.0', 'nan'))
  (whole, near), _ = unified_landscapes.read(small)
  assert math.isnan(whole.views[unified_landscapes.PAPER][2, 2])
  assert near.views == {} and near.lacks == 'an original has no score'
  shutil.rmtree(small / 'pictures')
  unified.report(small)
  assert 'landscape_near' not in pictures(small)
  assert 'landscape_books-plane' in pictures(small)


def test_kinds_of_maps_are_compared_where_all_were_used(tmp_path):
  rows = unified_study.rows(('linear', 'fastfood'), sizes=(4,))
  # Fastfood is worse by 2 points, and was used on books alone
  rows = [
    r | {'test': r['test'] - 2.0 * (r['maps'] == 'fastfood')}
    for r in rows
    if r['maps'] == 'linear' or r['group'] == 'reading'
  ]
  study = unified_study.write(tmp_path / 'kinds', rows)
  text = unified.report(study)
  # books: 16.5 and 14.5 of 20
  assert cells_of(text, 'optimisation', 'linear')[-2:] == ['82.5 ± 3.5', '6']
  assert cells_of(text, 'optimisation', 'fastfood')[-2:] == ['72.5 ± 3.5', '6']
  assert {'kinds_paper', 'kinds_pooled'} <= pictures(study)
  assert not pictures(study) & {'sizes_paper', 'sizes_pooled'}
  said = shown(study)
  assert 'Kinds of maps' in said and 'Sizes of the subspace' not in said


def test_kinds_of_maps_without_a_common_task_are_not_compared(tmp_path):
  rows = unified_study.rows(('linear', 'fastfood'), sizes=(4,))
  used = {'linear': 'reading', 'fastfood': 'luck'}
  rows = [r for r in rows if used[r['maps']] == r['group']]
  study = unified_study.write(tmp_path / 'apart', rows)
  unified.report(study)
  assert 'nothing that all of them were used on' in shown(study)
  assert not pictures(study) & {'kinds_paper', 'kinds_pooled'}


def test_a_running_study_is_shown_by_its_spaces(folder, tmp_path):
  early = shutil.copytree(folder, tmp_path / 'early')
  rows = unified_study.rows(
    sizes=(4,), seeds=(0,), groups={'reading': ('films', 'books')}
  )
  (early / 'recovery.csv').unlink()
  path = early / 'recovery' / 'reading-linear-z4-s0.csv'
  results.write_csv(path, rows, columns.RECOVERY)
  for name in ('landscapes.csv', 'record.json'):
    (early / name).unlink()
  shutil.rmtree(early / 'rows')
  text = unified.report(early)
  assert '±' not in text and 'nan' not in text
  # 16 of 20
  assert cells_of(text, 'optimisation')[-3:] == ['80.0', '80.0', '3']
  said = shown(early)
  assert 'has not finished' in said and 'Landscapes' not in said
  assert 'Where their training ended' not in said
  assert '1 unseen task, 1 seed.' in said


def test_a_study_without_results_is_refused(folder, tmp_path):
  empty = shutil.copytree(folder, tmp_path / 'empty')
  (empty / 'recovery.csv').unlink()
  with pytest.raises(ValueError, match='a row per space, task and pair'):
    unified.report(empty)
  results.write_csv(empty / 'recovery.csv', [], columns.RECOVERY)
  with pytest.raises(ValueError, match='finish its first space'):
    unified.report(empty)


def test_results_without_scores_are_counted(tmp_path):
  rows = unified_study.rows(sizes=(4,))
  for row in rows:
    if row['stage'] == 'approximation':
      row['original'] = None  # as of the short pipeline
    if row['task'] == 'books' and row['type'] == 'prefix':
      row['test'] = math.nan
  study = unified_study.write(tmp_path / 'gaps', rows)
  text = unified.report(study)
  assert 'so without recovery: films, dice.' in text
  assert 'over majority: coins (+2.0 points).' in text
  # 3 sources and 2 seeds
  assert 'Without a test score, and not counted: 6 results.' in text
  assert cells_of(text, 'tasks of the space')[2:6] == [
    '-',
    '68.5 ± 0.7',
    '-',
    '-',
  ]
  assert 'nan' not in text.replace(str(study), '')


def test_no_majority_leaves_the_papers_way(tmp_path):
  rows = [r | {'majority': None} for r in unified_study.rows(sizes=(4,))]
  study = unified_study.write(tmp_path / 'texts', rows)
  text = unified.report(study)
  assert cells_of(text, 'optimisation')[-3:] == ['-', '-', '0']
  assert pictures(study) & {'transfer_paper', 'transfer_above'} == {
    'transfer_paper'
  }
  assert 'an undefined share of what they are above majority' in shown(study)


def test_names_are_texts(folder, tmp_path):
  evil = '<script>alert(1)</script> $x_1$'
  rows = unified_study.rows(sizes=(4,), seeds=(0,))
  rows = [r | {'task': evil} if r['task'] == 'books' else r for r in rows]
  study = unified_study.write(tmp_path / 'evil', rows)
  lines = unified_study.plane(study, 'plane', scores)
  lines = [r | {'task': evil} for r in lines]
  results.write_csv(study / 'landscapes.csv', lines, columns.LANDSCAPES)
  unified.report(study)
  page = (study / 'report.html').read_text(encoding='utf-8')
  assert page.count('<script') == 1
  assert '&lt;script&gt;alert(1)&lt;/script&gt; $x_1$' in page


def test_what_was_watched_of_the_maps(folder):
  found = unified_found.read(folder)
  assert unified_training.watched(found)[:2] == ['loss', 'loss adapter']
  steps, mean, deviation = unified_training.curve(found, 'loss lora')
  # 1 with seed 0 and 2 with seed 1, of 8 spaces
  assert (steps, mean) == ([50, 100], [1.5, 1.5])
  assert deviation == pytest.approx([math.sqrt(8 * 0.25 / 7)] * 2)
  grid = unified_training.maps_grid(found)
  assert grid[1] == [
    'reading',
    'linear',
    4,
    0,
    100,
    9,
    '1',
    '1',
    '1',
    '1',
    '4',
    '4',
    '4',
  ]
  assert ['maps', 'all', 8, 72, 25.0] in unified_training.speed_grid(found)
