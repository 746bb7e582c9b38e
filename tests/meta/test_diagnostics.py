"""From which inner rate on the inner steps of meta-learning matter."""

import math

from prompt_subspace.meta import diagnostics


def diagnostic(rate, before, after, cosine, steps=1):
  return {
    'inner_rate': rate,
    'inner_steps': steps,
    'episodes': 4,
    'displacement': rate,
    'relative': rate / 10,
    'loss_before': before,
    'loss_after': after,
    'cosine': cosine,
  }


def test_the_smallest_rates_that_matter():
  rows = [
    diagnostic(1.0, 2.0, 1.5, 0.9),
    diagnostic(3e-5, 2.0, 1.9999, 1.0),
    diagnostic(0.1, 2.0, 1.98, 0.99),
    diagnostic(10.0, 2.0, 9.0, 0.1),
    diagnostic(0.1, 2.0, math.nan, math.nan, steps=4),
    diagnostic(0.2, 2.0, None, None, steps=4),
  ]
  assert diagnostics.matters(rows) == [
    diagnostics.Matters(1, 0.1, 1.0),
    diagnostics.Matters(4, None, None),
  ]
  assert diagnostics.matters([]) == []
