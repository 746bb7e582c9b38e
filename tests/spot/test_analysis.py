"""Gains, pairs and correlations, against numbers worked out by hand."""

import math

import numpy as np
import pytest

from prompt_subspace.evaluation import intervals
from prompt_subspace.spot import analysis


def outcome(target, seed, policy, test, scratch, metric=''):
  return {
    'target': target,
    'seed': seed,
    'policy': policy,
    'metric': metric,
    'validation': 0.0,
    'test': test,
    'scratch': scratch,
    'chosen': '',
  }


OUTCOMES = [
  # seed 0: gains 10 and 0, the oracle's 20 and 0
  outcome('a', 0, 'best-1', 60.0, 50.0, 'average'),
  outcome('b', 0, 'best-1', 80.0, 80.0, 'average'),
  outcome('a', 0, 'oracle', 70.0, 50.0),
  outcome('b', 0, 'oracle', 80.0, 80.0),
  # seed 1: gains 0 and 10, the oracle's 0 and 20
  outcome('a', 1, 'best-1', 50.0, 50.0, 'average'),
  outcome('b', 1, 'best-1', 70.0, 60.0, 'average'),
  outcome('a', 1, 'oracle', 50.0, 50.0),
  outcome('b', 1, 'oracle', 80.0, 60.0),
]


def test_the_papers_example_of_relative_error_reduction():
  # Vu et al. 2022, figure 3: CB from 92.7 to 97.0 with MNLI's prompt
  assert analysis.reduction(97.0, 92.7) == pytest.approx(58.9, abs=0.05)
  assert analysis.reduction(40.0, 50.0) == -20.0
  assert math.isnan(analysis.reduction(100.0, 100.0))


def test_gains_are_means_over_targets_then_over_seeds():
  scratch, best, oracle = analysis.gains(OUTCOMES)
  assert scratch.policy == 'scratch' and scratch.gain == (0.0, 0.0)
  assert scratch.score[0] == pytest.approx((65 + 55) / 2)
  assert (best.policy, best.metric) == ('best-1', 'average')
  assert best.gain == (5.0, 0.0)
  assert best.score == pytest.approx((65.0, math.sqrt(50)))
  # (20 + 0) / 2 and (0 + 25) / 2
  assert best.reduction == pytest.approx((11.25, math.sqrt(2 * 1.25**2)))
  assert oracle.gain[0] == 10.0 and oracle.share == 1.0
  assert best.share == 0.5 and scratch.share is None


def test_the_interval_of_a_gain_is_over_targets_and_their_seeds():
  rows = [r for r in OUTCOMES if r['policy'] == 'best-1']
  (line,) = [g for g in analysis.gains(rows) if g.policy == 'best-1']
  by_target: dict = {}
  for row in rows:
    by_target.setdefault(row['target'], []).append(row['test'] - row['scratch'])
  values = np.array(list(by_target.values()))
  assert values.shape == (2, 2)
  assert line.interval == intervals.bootstrap(values)
  assert line.interval[0] < line.gain[0] < line.interval[1]
  # a target that lacks a seed, and a single target
  for fewer in (rows[1:], [r for r in rows if r['target'] == 'a']):
    assert all(g.interval is None for g in analysis.gains(fewer))


def test_one_seed_has_no_deviation_and_no_gain_has_no_share():
  rows = [
    outcome('a', 0, 'best-1', 40.0, 50.0, 'average'),
    outcome('a', 0, 'oracle', 50.0, 50.0),
  ]
  for line in analysis.gains(rows):
    assert line.gain[1] is None and line.share is None
  assert analysis.gains(rows[:1])[1].share is None
  assert analysis.gains([]) == []


def cell(name, stage, task, seed, test, source='', seconds=2.0):
  return {
    'cell': name,
    'stage': stage,
    'task': task,
    'seed': seed,
    'source': source,
    'test': test,
    'seconds': seconds,
    'padding': 0.25,
  }


CELLS = [
  *(
    cell(f'source-{s}-s{i}', 'source', s, i, 90.0)
    for s in ('near', 'far', 'mid')
    for i in (0, 1)
  ),
  cell('x', 'scratch', 'a', 0, 50.0),
  cell('y', 'scratch', 'a', 1, 60.0),
  cell('z', 'scratch', 'b', 0, 100.0),
  cell('1', 'transfer', 'a', 0, 75.0, 'source-near-s0'),
  cell('2', 'transfer', 'a', 1, 70.0, 'source-near-s1'),
  cell('3', 'transfer', 'a', 0, 40.0, 'source-far-s0'),
  cell('4', 'transfer', 'a', 0, 55.0, 'source-mid-s0'),
  cell('5', 'transfer', 'b', 0, 90.0, 'source-near-s0'),
]


def test_pairs_are_means_over_seeds_and_missing_where_untried():
  found = analysis.pairs(CELLS, [])
  assert found.sources == ('near', 'far', 'mid')
  assert found.targets == ('a', 'b')
  # (25 / 50 + 10 / 40) / 2, -10 / 50, 5 / 50
  np.testing.assert_allclose(found.reduction[:, 0], [37.5, -20.0, 10.0])
  np.testing.assert_allclose(found.gain[:, 0], [17.5, -10.0, 5.0])
  assert np.isnan(found.reduction[:, 1]).all()
  assert found.gain[0, 1] == -10.0 and np.isnan(found.gain[1:, 1]).all()


def test_pairs_of_a_bank_are_its_tasks_not_its_entries():
  cells = [c for c in CELLS if c['stage'] != 'source']
  rows = [
    {'source': f'source-{task}-s{seed}', 'source_task': task}
    for task in ('near', 'far', 'mid')
    for seed in (0, 1)
  ]
  found, same = analysis.pairs(cells, rows), analysis.pairs(CELLS, [])
  assert found.sources == same.sources == ('near', 'far', 'mid')
  np.testing.assert_array_equal(found.gain, same.gain)


def test_correlation_is_over_source_tasks():
  similarity = {'near': (0.9, 0.7), 'mid': (0.5, 0.1), 'far': (0.2, 0.3)}
  rows = [
    {
      'target': 'a',
      'seed': seed,
      'metric': metric,
      'source': f'source-{task}-s{seed}',
      'source_task': task,
      'similarity': values[seed] * (1 if metric == 'average' else -1),
    }
    for metric in ('average', 'token')
    for task, values in similarity.items()
    for seed in (0, 1)
  ]
  (found,) = analysis.correlations(CELLS, rows, 'average')
  assert found.sources == ('near', 'mid', 'far')
  # only what was tried counts: `near` in both seeds, the others in one
  np.testing.assert_allclose(found.similarity, [0.8, 0.5, 0.2])
  np.testing.assert_allclose(found.reduction, [37.5, 10.0, -20.0])
  x, y = found.similarity - 0.5, found.reduction - found.reduction.mean()
  assert found.r == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)))
  assert 0 < found.p < 0.1
  (other,) = analysis.correlations(CELLS, rows, 'token')
  assert other.r == pytest.approx(-found.r)
  few = [r for r in rows if r['source_task'] != 'mid']
  (two,) = analysis.correlations(CELLS, few, 'average')
  assert math.isnan(two.r) and math.isnan(two.p)


def test_speed_by_stage():
  found = {s.stage: s for s in analysis.speeds(CELLS)}
  assert found['source'].cells == 6 and found['source'].seconds == 12.0
  assert found['source'].per_hour == 1800.0
  assert found['transfer'].padding == 0.25
