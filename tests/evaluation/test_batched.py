"""A function over many examples gives what it gives of each."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.evaluation import batched


@pytest.mark.parametrize('count', [1, 4, 7, 8])
@pytest.mark.parametrize('shape', [(), (3,), (3, 2)])
def test_the_rows_are_those_of_each_alone_and_none_is_added(count, shape):
  rows = np.random.default_rng(0).integers(1, 9, (count, *shape))
  seen = []

  def run(batch):
    seen.append(batch.shape)
    return jnp.square(batch).reshape(len(batch), -1).sum(axis=1)

  found = np.asarray(batched.over(run, rows, 4))
  wanted = [np.sum(np.square(row)) for row in rows]
  assert found.tolist() == wanted
  # each batch is whole, so that one shape is compiled
  assert seen == [(4, *shape)] * -(-count // 4)
