"""Gains, intervals, curves and rates, against numbers worked out by hand."""

import math

import pytest

from prompt_subspace.evaluation import metrics
from prompt_subspace.meta import analysis


def chosen(
  target, algorithm, seed, test, metric='accuracy', learned=None, rate=0.5
):
  return {
    'target': target,
    'metric': metric,
    'algorithm': algorithm,
    'learned': learned,
    'seed': seed,
    'rate': rate,
    'validation': test,
    'test': test,
    'best_step': 10,
    'cell': f'{target}-{algorithm}-{seed}',
  }


ROWS = [
  chosen('a', 'pt', 0, 50.0),
  chosen('a', 'pt', 1, 40.0),
  chosen('b', 'pt', 0, 20.0),
  chosen('b', 'pt', 1, 80.0),
  chosen('a', 'maml', 0, 60.0),  # + 20 %
  chosen('a', 'maml', 1, 50.0),  # + 25 %
  chosen('b', 'maml', 0, 30.0),  # + 50 %
  chosen('b', 'maml', 1, 60.0),  # - 25 %
]


def by_algorithm(rows):
  return {g.algorithm: g for g in analysis.gains(analysis.of_targets(rows))}


def test_a_relative_gain_is_over_the_score_of_prompt_tuning():
  assert analysis.relative_gain(60.0, 50.0, 'accuracy') == 20.0
  assert analysis.relative_gain(0.0, 50.0, 'qa_f1') == -100.0
  for base in (0.0, -3.0, math.nan):
    assert math.isnan(analysis.relative_gain(60.0, base, 'accuracy'))
  assert math.isnan(analysis.relative_gain(math.nan, 50.0, 'accuracy'))


def test_metrics_that_can_be_negative_have_no_relative_gain():
  wrong = {
    'matthews': ([0, 1, 0, 1], [1, 0, 1, 0]),
    'pearson': ([1, 2, 3], [3, 2, 1]),
    'spearman': ([1, 2, 3], [3, 2, 1]),
  }
  for name in metrics.METRICS:
    sides = wrong.get(name, (['x', 'y'], ['y', 'x']))
    can = metrics.metric(name)(*sides) < 0
    assert can == (name in analysis.SIGNED), name
    for metric in (name, f'accuracy, {name}', f'{name}, f1_macro'):
      assert math.isnan(analysis.relative_gain(60.0, 50.0, metric)) == can


def test_arg_is_the_mean_over_targets_then_over_splits():
  found = by_algorithm(ROWS)
  maml = found['maml']
  # per split (20 + 50) / 2 and (25 - 25) / 2
  assert maml.relative.mean == 17.5
  assert maml.relative.deviation == pytest.approx(math.sqrt(2 * 17.5**2))
  assert maml.relative.targets == ('a', 'b') and maml.left_out == {}
  # per split (10 + 10) / 2 and (10 - 20) / 2
  assert maml.points[:2] == pytest.approx((2.5, math.sqrt(2 * 7.5**2)))
  assert maml.score[:2] == pytest.approx((50.0, math.sqrt(50)))
  assert found['pt'].score.mean == 47.5
  assert found['pt'].relative is None and found['pt'].points is None


def test_what_has_no_relative_gain_is_left_out_and_said():
  rows = [
    *ROWS,
    chosen('zero', 'pt', 0, 0.0),
    chosen('zero', 'pt', 1, 10.0),
    chosen('zero', 'maml', 0, 30.0),
    chosen('zero', 'maml', 1, 30.0),
    chosen('cola', 'pt', 0, 10.0, 'matthews'),
    chosen('cola', 'pt', 1, 10.0, 'matthews'),
    chosen('cola', 'maml', 0, 20.0, 'matthews'),
    chosen('cola', 'maml', 1, 20.0, 'matthews'),
    chosen('half', 'pt', 0, 10.0),
    chosen('half', 'maml', 0, 20.0),
    chosen('half', 'maml', 1, 20.0),
    chosen('nan', 'pt', 0, 10.0),
    chosen('nan', 'pt', 1, 10.0),
    chosen('nan', 'maml', 0, None),
    chosen('nan', 'maml', 1, math.nan),
  ]
  maml = by_algorithm(rows)['maml']
  assert maml.relative.mean == 17.5 and maml.relative.targets == ('a', 'b')
  unfinished = 'a score is missing on a split, its own or that of plain tuning'
  assert maml.left_out == {
    'zero': 'plain tuning scores 0 on a split',
    'cola': 'matthews can be negative',
    'half': unfinished,
    'nan': unfinished,
  }
  # points have a meaning there: 10, 10; 10, -20; 30, 20; 10, 10
  assert maml.points.targets == ('a', 'b', 'zero', 'cola')
  assert maml.points.mean == pytest.approx((60 + 20) / 4 / 2)
  assert maml.score.targets == ('a', 'b', 'zero', 'cola', 'half')
  assert all(math.isfinite(x) for x in maml.relative.interval)


def test_initialisations_learned_twice_are_averaged_within_a_split():
  rows = [
    chosen('a', 'pt', 0, 50.0),
    chosen('a', 'maml', 0, 50.0, learned=0),
    chosen('a', 'maml', 0, 70.0, learned=1),
  ]
  (target,) = [t for t in analysis.of_targets(rows) if t.algorithm == 'maml']
  assert target.splits == (0,)
  assert target.scores.tolist() == [60.0]
  assert target.relative.tolist() == [20.0]
  assert target.points.tolist() == [10.0]


def test_one_split_and_one_target_have_neither_deviation_nor_interval():
  rows = [chosen('a', 'pt', 0, 50.0), chosen('a', 'maml', 0, 60.0)]
  found = by_algorithm(rows)['maml'].relative
  assert found == analysis.Average(20.0, None, None, ('a',))


def test_without_prompt_tuning_there_is_no_gain():
  found = by_algorithm([r for r in ROWS if r['algorithm'] != 'pt'])
  assert list(found) == ['maml']
  assert found['maml'].relative is None and found['maml'].points is None
  assert found['maml'].score.mean == 50.0


def test_an_algorithm_without_a_target_says_so():
  rows = [*ROWS, chosen('a', 'ft', 0, 60.0), chosen('a', 'ft', 1, 60.0)]
  ft = by_algorithm(rows)['ft']
  assert ft.relative.targets == ('a',) and list(ft.left_out) == ['b']
  # 20 % and 50 %
  assert ft.relative.mean == 35.0


def curve(target, algorithm, seed, scores, learned=None):
  return [
    {
      'target': target,
      'algorithm': algorithm,
      'learned': learned,
      'seed': seed,
      'step': 50 * i,
      'loss': None,
      'validation': score,
    }
    for i, score in enumerate(scores)
  ]


CURVES = [
  *curve('a', 'pt', 0, [10.0, 30.0, 50.0, 40.0]),
  *curve('a', 'pt', 1, [30.0, 30.0, 50.0, 40.0]),
  *curve('b', 'pt', 0, [20.0, 40.0, 50.0, 50.0]),
  *curve('b', 'pt', 1, [20.0, 60.0, 70.0, 70.0]),
  *curve('a', 'maml', 0, [40.0, 60.0, 60.0, 60.0]),
  *curve('a', 'maml', 1, [40.0, 50.0, 60.0, 60.0]),
  *curve('b', 'maml', 0, [50.0, 60.0, 60.0, None]),
  *curve('b', 'maml', 1, [50.0, 50.0, 60.0, None]),
  *curve('a', 'reptile', 0, [1.0, 2.0]),
  *curve('b', 'reptile', 0, [3.0, 4.0]),
]


def test_curves_are_means_over_targets_and_splits():
  pt, maml, reptile = analysis.curves(CURVES)
  assert pt.algorithm == 'pt' and pt.targets == ('a', 'b')
  assert pt.steps == (0, 50, 100, 150)
  assert pt.mean.tolist() == [20.0, 40.0, 55.0, 50.0]
  # at step 0 the splits have 15 and 25, at 50 both 35 and 45
  assert pt.deviation[:2] == pytest.approx([math.sqrt(50)] * 2)
  assert maml.steps == (0, 50, 100), 'b has no score at 150'
  assert reptile.mean.tolist() == [2.0, 3.0] and reptile.deviation is None


def test_steps_to_the_best_of_prompt_tuning():
  # PT's mean curve is best at 100, with 55; that of MAML has it at 50
  assert analysis.steps_to_base(analysis.curves(CURVES)) == {
    'pt': 100,
    'maml': 50,
    'reptile': None,
  }
  alone = [r for r in CURVES if r['algorithm'] != 'pt']
  assert analysis.steps_to_base(analysis.curves(alone)) == {}
  assert analysis.curves([]) == []


def test_curves_are_over_the_targets_that_all_have():
  rows = [r for r in CURVES if (r['algorithm'], r['target']) != ('maml', 'b')]
  pt, maml, _ = analysis.curves(rows)
  assert pt.targets == maml.targets == ('a',)
  assert maml.mean.tolist() == [40.0, 55.0, 60.0, 60.0]
  apart = [*curve('a', 'pt', 0, [1.0]), *curve('b', 'maml', 0, [1.0])]
  assert analysis.curves(apart) == []


def test_best_rates_count_the_tried_ones_too():
  rows = [
    chosen('a', 'pt', 0, 1.0, rate=0.5),
    chosen('a', 'pt', 1, 1.0, rate=0.5),
    chosen('b', 'pt', 0, 1.0, rate=0.2),
  ]
  cells = [
    {'stage': 'downstream', 'algorithm': 'pt', 'rate': rate}
    for rate in (0.5, 0.3, 0.2)
  ]
  cells.append({'stage': 'upstream', 'algorithm': 'maml', 'rate': 0.1})
  found = analysis.best_rates(rows, cells)
  assert found == {'pt': {0.2: 1, 0.3: 0, 0.5: 2}}
  assert list(found['pt']) == [0.2, 0.3, 0.5]


def test_speeds_are_by_stage_and_algorithm():
  def cell(stage, algorithm, seconds, padding):
    return {
      'stage': stage,
      'algorithm': algorithm,
      'seconds': seconds,
      'padding': padding,
    }

  found = analysis.speeds(
    [
      cell('upstream', 'maml', 30.0, 0.5),
      cell('downstream', 'maml', 10.0, 0.25),
      cell('downstream', 'maml', 20.0, 0.75),
      cell('downstream', 'pt', 0.0, None),
    ]
  )
  assert found[:2] == [
    analysis.Speed('upstream', 'maml', 1, 30.0, 120.0, 0.5),
    analysis.Speed('downstream', 'maml', 2, 30.0, 240.0, 0.5),
  ]
  assert math.isnan(found[2].per_hour) and math.isnan(found[2].padding)
