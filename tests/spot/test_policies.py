"""Policies: what must be tuned, what is chosen, what is expected of chance."""

import itertools

import numpy as np
import pytest

from prompt_subspace.spot import policies

RUNS = {
  'a': (60.0, 51.0, 'run-a'),
  'b': (70.0, 49.0, 'run-b'),
  'c': (70.0, 80.0, 'run-c'),
  'd': (float('nan'), 99.0, 'run-d'),
}
NAMES = ['d', 'a', 'b', 'c']


@pytest.mark.parametrize(
  'name, kind, k',
  [
    ('best-1', 'best', 1),
    ('average-12', 'average', 12),
    ('mixture-3', 'mixture', 3),
    ('random-6', 'random', 6),
    ('oracle', 'oracle', None),
  ],
)
def test_names_are_read_and_written(name, kind, k):
  policy = policies.parse(name)
  assert policy == (kind, k) and policy.name == name


@pytest.mark.parametrize(
  'name', ['best', 'best-0', 'best-x', 'oracle-3', 'worst-3', '', 'best-1-2']
)
def test_other_names_are_refused(name):
  with pytest.raises(ValueError, match="expected 'oracle', or 'best-k'"):
    policies.parse(name)


def test_the_best_validation_score_decides_and_ties_go_to_the_more_similar():
  found = policies.best(NAMES, RUNS)
  assert found == (70.0, 49.0, 'run-b'), 'not the best test score'
  assert policies.best(['c', 'b'], RUNS).chosen == 'run-c'
  assert policies.best(['d', 'a'], RUNS).chosen == 'run-a', 'NaN is no score'
  assert policies.best(['d'], RUNS).chosen == 'run-d'


def test_weights_are_shares_of_similarity():
  np.testing.assert_allclose(
    policies.weights([0.6, 0.3, 0.1]), [0.6, 0.3, 0.1], rtol=1e-12
  )
  np.testing.assert_allclose(policies.weights([2.0, 1.0]), [2 / 3, 1 / 3])
  np.testing.assert_allclose(policies.weights([0.5, -0.5]), [1.0, 0.0])
  np.testing.assert_allclose(policies.weights([-1.0, -2.0]), [0.5, 0.5])


def test_only_what_a_policy_needs_is_tried():
  def tried(*names):
    return policies.tried([policies.parse(n) for n in names], NAMES)

  assert tried('best-1', 'best-3') == ['d', 'a', 'b']
  assert tried('average-3', 'mixture-2') == []
  assert tried('best-1', 'oracle') == NAMES
  assert tried('random-2') == NAMES


def test_too_large_k_is_refused():
  asked = [policies.parse(n) for n in ('best-3', 'oracle', 'average-5')]
  policies.check(asked[:2], 4)
  with pytest.raises(ValueError, match=r"k up to 4, .* found \['average-5'\]"):
    policies.check(asked, 4)


def test_random_is_near_the_mean_over_all_subsets():
  # `best` is all of one: the exact mean over the subsets, ties at random
  exact = np.mean(
    [
      policies.best(list(names), RUNS).test
      for names in itertools.permutations(NAMES, 2)
    ]
  )
  found = policies.at_random(NAMES, RUNS, 2, seed=0, draws=4000)
  assert found.test == pytest.approx(exact, abs=1.0) and found.chosen == ''
  assert found == policies.at_random(NAMES, RUNS, 2, seed=0, draws=4000)
  every = policies.at_random(NAMES, RUNS, 4, seed=0, draws=400)
  assert every.validation == 70.0
  assert 49 < every.test < 80, 'of equals, each now and then'
