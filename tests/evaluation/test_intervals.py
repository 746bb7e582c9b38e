"""The bootstrap: no width, the width of theory, the coverage that it claims."""

import math

import numpy as np
import pytest

from prompt_subspace.evaluation import intervals


def test_equal_gains_have_an_interval_of_no_width():
  low, high = intervals.bootstrap(np.full((7, 3), 4.0))
  assert low == pytest.approx(4.0) and high == pytest.approx(4.0)


def test_the_interval_has_the_width_that_theory_gives():
  random = np.random.default_rng(3)
  values = random.normal(5, 4, (40, 1)) + random.normal(0, 6, (40, 5))
  low, high = intervals.bootstrap(values)
  # variance of a resample's mean: between targets, and within over the splits
  variance = (
    values.mean(axis=1).var() + values.var(axis=1).mean() / values.shape[1]
  ) / len(values)
  assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1)
  assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.03)
  assert intervals.bootstrap(values) == (low, high)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
  random = np.random.default_rng(4)
  hits = 0
  for i in range(300):
    values = random.normal(2, 3, (20, 1)) + random.normal(0, 2, (20, 5))
    low, high = intervals.bootstrap(values, resamples=400, seed=i)
    hits += low <= 2 <= high
  assert 0.90 <= hits / 300 <= 0.99
