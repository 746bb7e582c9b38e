"""Intervals of means over targets and their runs."""

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000


def bootstrap(
  values: Float[np.ndarray, 'T S'],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> tuple[float, float]:
  """Returns a 95 % interval of the mean over targets, by the percentile method.

  Each resample draws T targets with replacement, and of each drawn target S
  splits with replacement: the splits of a target have nothing to do with those
  of another. The interval is from the 2.5 to the 97.5 percentile of the means.

  Args:
    values: by target and split, all finite.
    resamples: how many.
    seed: of the draws; equal for all algorithms, so that they are compared on
      the same resamples.

  Source: Efron and Tibshirani 1993, sections 8 and 13.
  """
  random = np.random.default_rng(seed)
  count, splits = values.shape
  means = np.zeros(resamples)
  # a target at a time: all at once takes long arrays for all of CrossFit
  for _ in range(count):
    row = random.integers(count, size=(resamples, 1))
    column = random.integers(splits, size=(resamples, splits))
    means += values[row, column].mean(axis=1)
  low, high = np.quantile(means / count, [0.025, 0.975])
  return float(low), float(high)
