"""Recovery, counted three ways, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from prompt_subspace.unified import analysis, columns


def row(task, kind, seed, test, original, majority=50.0, **others):
  source = others.pop('source', kind)
  return {
    'stage': 'inside' if source == kind else 'transfer',
    'group': 'reading',
    'maps': 'linear',
    'size': 4,
    'seed': seed,
    'task': task,
    'source': source,
    'type': kind,
    'validation': test,
    'test': test,
    'original': original,
    'majority': majority,
    'cell': f'{task}-{source}-{seed}',
    'step': 20,
    **others,
  }


ROWS = [
  row('books', 'adapter', 0, 65.0, 75.0),  # 15 of 25 points
  row('books', 'adapter', 1, 58.0, 70.0),  # 8 of 20
  row('coins', 'adapter', 0, 52.0, 51.0),  # 2 of 1
  row('coins', 'adapter', 1, 50.0, 60.0),  # 0 of 10
]


def only(rows, by=(), **more):
  (line,) = analysis.recover(rows, by, **more)
  return line


def test_rows_are_of_the_table():
  assert set(ROWS[0]) == set(columns.RECOVERY)


def test_the_papers_way_is_the_mean_of_shares():
  found = only(ROWS).paper
  first = (65 / 75 + 52 / 51) / 2
  second = (58 / 70 + 50 / 60) / 2
  assert found.mean == pytest.approx(50 * (first + second))
  # of two numbers, the deviation is their distance by the root of 2
  assert found.deviation == pytest.approx(
    100 * abs(first - second) / math.sqrt(2)
  )
  assert (found.runs, found.seeds) == (4, 2)


def test_a_constant_answer_gets_a_share_by_the_papers_way_alone():
  constant = [dict(r, test=r['majority']) for r in ROWS]
  found = only(constant)
  assert found.paper == found.constant == only(ROWS).constant
  assert found.constant.mean == pytest.approx(
    25 * 50 * (1 / 75 + 1 / 70 + 1 / 51 + 1 / 60)
  )
  assert found.pooled.mean == found.above.mean == 0.0


def test_own_solutions_are_recovered_whole():
  same = [dict(r, test=r['original']) for r in ROWS]
  found = only(same)
  for way in analysis.WAYS:
    assert getattr(found, way).mean == pytest.approx(100.0)
    assert getattr(found, way).deviation == pytest.approx(0.0, abs=1e-9)


def test_pooled_sums_before_it_divides():
  found = only(ROWS).pooled
  assert found.mean == pytest.approx(
    100 * (15 + 8 + 2 + 0) / (25 + 20 + 1 + 10)
  )
  first, second = 100 * 17 / 26, 100 * 8 / 30
  assert found.deviation == pytest.approx((first - second) / math.sqrt(2))
  assert (found.runs, found.seeds) == (4, 2)


def test_a_solution_near_majority_with_one_seed_is_left_out_with_all():
  assert analysis.weak(ROWS) == {('coins', 'adapter'): '+1.0 points'}
  found = only(ROWS).above
  assert found.mean == pytest.approx((60 + 40) / 2)
  assert found.deviation == pytest.approx(20 / math.sqrt(2))
  assert found.runs == 2
  # 1 point is enough for a margin of 1
  assert only(ROWS, margin=1.0).above.mean == pytest.approx(
    (60 + 40 + 200 + 0) / 4
  )


def test_no_room_is_left_out_at_any_margin():
  rows = [row('a', 'lora', 0, 60.0, 50.0), row('b', 'lora', 0, 60.0, 45.0)]
  assert set(analysis.weak(rows, 0.0)) == {('a', 'lora'), ('b', 'lora')}
  assert set(analysis.weak(rows, -9.0)) == {('a', 'lora'), ('b', 'lora')}
  found = only(rows, margin=0.0)
  assert found.above is None and found.pooled is None
  assert found.paper.mean == pytest.approx(50 * (60 / 50 + 60 / 45))


def test_pooled_needs_room_on_average():
  # 2 of 1 and 0 of 10: 5.5 points on average
  assert only(ROWS[2:]).pooled.mean == pytest.approx(100 * 2 / 11)
  assert only(ROWS[2:]).pooled.deviation is None, 'seed 0 has 1 point'
  assert only(ROWS[2:3]).pooled is None


def test_lines_are_by_columns_and_leave_out_the_same_solutions():
  rows = [*ROWS, row('coins', 'lora', 0, 70.0, 75.0)]
  lines = analysis.recover(rows, ('task', 'type'))
  assert [x.of for x in lines] == [
    ('books', 'adapter'),
    ('coins', 'adapter'),
    ('coins', 'lora'),
  ]
  assert lines[1].above is None and lines[2].above.mean == pytest.approx(80.0)
  assert lines[0].score.mean == 61.5 and lines[0].original.mean == 72.5
  # seed 1 alone has room enough, but what is left out is so everywhere
  why = analysis.weak(rows)
  late = [r for r in rows if r['seed'] == 1]
  assert only(late).above.runs == 2
  assert only(late, why=why).above.runs == 1


def test_means_and_deviations_where_a_seed_lacks_a_task():
  rows = [*ROWS[:2], row('films', 'adapter', 0, 50.0, 100.0)]
  found = only(rows).paper
  books = (65 / 75 + 58 / 70) / 2
  assert found.mean == pytest.approx(50 * (books + 0.5))
  # over books alone
  assert found.deviation == pytest.approx(
    100 * (65 / 75 - 58 / 70) / math.sqrt(2)
  )
  apart = [ROWS[0], row('films', 'adapter', 1, 50.0, 100.0)]
  assert only(apart).paper.deviation is None, 'no task has both seeds'


@pytest.mark.parametrize('gap', [None, math.nan])
def test_gaps_are_not_counted(gap):
  rows = [
    *ROWS[:2],
    row('songs', 'adapter', 0, 70.0, gap),
    row('poems', 'adapter', 0, 70.0, 75.0, majority=gap),
    row('plays', 'adapter', 0, gap, 75.0),
  ]
  found = only(rows)
  assert found.pooled.runs == 2 and found.above.runs == 2
  assert found.paper.runs == 3 and found.score.runs == 4
  assert analysis.weak(rows) == {
    ('songs', 'adapter'): 'no original score',
    ('poems', 'adapter'): 'no majority score',
  }
  assert only(rows[2:3]).paper is None


def test_a_score_of_nothing_has_no_shares():
  assert math.isnan(analysis.relative(row('a', 'lora', 0, 5.0, 0.0)))
  assert math.isnan(analysis.relative(row('a', 'lora', 0, 5.0, -2.0)))
  assert analysis.relative(row('a', 'lora', 0, -1.0, 4.0)) == -25.0


def test_the_matrix_has_sources_in_its_lines():
  rows = [
    row('books', 'adapter', 0, 70.0, 75.0),  # 20 of 25
    row('books', 'lora', 0, 60.0, 70.0, source='adapter'),  # 10 of 20
    row('books', 'adapter', 0, 75.0, 75.0, source='lora'),
    row('books', 'adapter', 0, 99.0, 75.0, stage='approximation'),
  ]
  found = analysis.matrix(rows, ['adapter', 'lora'], 'above')
  np.testing.assert_allclose(found, [[80.0, 50.0], [100.0, math.nan]])
  paper = analysis.matrix(rows, ['lora', 'adapter'], 'paper')
  np.testing.assert_allclose(
    paper, [[math.nan, 100.0], [100 * 60 / 70, 100 * 70 / 75]]
  )


def test_what_is_shared_can_be_compared():
  rows = [
    row('books', 'adapter', 0, 60.0, 75.0, size=4),
    row('books', 'adapter', 0, 70.0, 75.0, size=8),
    row('books', 'adapter', 1, 70.0, 75.0, size=8),
    row('coins', 'adapter', 0, 70.0, 75.0, size=4),
    row('coins', 'adapter', 0, math.nan, 75.0, size=8),
  ]
  assert analysis.shared(rows, 'size') == rows[:2]
  assert analysis.shared(rows, 'maps') == rows[:4]
  assert analysis.shared([], 'size') == []


def test_originals_are_of_the_rate_that_validation_prefers():
  def cell(rate, validation, test, stage='original', seed=0):
    return {
      'stage': stage,
      'task': 'books',
      'method': 'lora',
      'seed': seed,
      'rate': rate,
      'validation': validation,
      'test': test,
    }

  cells = [
    cell(0.1, math.nan, 10.0),
    cell(0.2, 60.0, 20.0),
    cell(0.3, 50.0, 99.0),
    cell(0.2, 99.0, 99.0, stage='inside'),
    cell(0.1, None, 30.0, seed=1),
  ]
  found = analysis.originals(cells)
  assert list(found) == [('books', 'lora')]
  tests = {seed: r['test'] for seed, r in found['books', 'lora'].items()}
  assert tests == {0: 20.0, 1: 30.0}
