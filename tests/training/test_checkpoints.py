"""Checkpoints: whole, exact, of the right shapes, safe from donated buffers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.training.checkpoints import Checkpoints


def tree(value):
  return {
    'phi': {'a': jnp.full((2, 3), value, jnp.float32)},
    'count': jnp.asarray(int(value), jnp.int32),
    'seconds': np.asarray(float(value)),
  }


@pytest.fixture
def opened(tmp_path):
  """Opens the folder anew, as another process would."""
  used = []

  def make(keep=2):
    used.append(Checkpoints(tmp_path / 'new' / 'checkpoints', keep))
    return used[-1]

  yield make
  for checkpoints in used[:-1]:
    checkpoints.close()


def test_the_newest_one_comes_back_bit_by_bit(opened):
  first = opened()
  assert first.restore(tree(0)) is None
  for step in (3, 5, 9):
    first.save(step, tree(step + 1 / 3))
  first.close()
  step, found = opened().restore(tree(0))
  assert step == 9
  assert jax.tree.structure(found) == jax.tree.structure(tree(0))
  for a, b in zip(
    jax.tree.leaves(found), jax.tree.leaves(tree(9 + 1 / 3)), strict=True
  ):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_only_the_newest_ones_stay(opened, tmp_path):
  checkpoints = opened(keep=2)
  for step in range(1, 5):
    checkpoints.save(step, tree(step))
  checkpoints.close()
  names = {p.name for p in (tmp_path / 'new' / 'checkpoints').iterdir()}
  assert {n for n in names if n.isdigit()} == {'3', '4'}


@pytest.mark.parametrize(
  'change',
  [
    lambda t: t | {'phi': {'b': t['phi']['a']}},
    lambda t: t | {'phi': {'a': jnp.zeros((2, 4))}},
    lambda t: t | {'more': jnp.zeros(1)},
  ],
  ids=['another name', 'another shape', 'one more'],
)
def test_a_tree_that_does_not_match_is_refused(opened, change):
  first = opened()
  first.save(1, tree(1))
  first.close()
  with pytest.raises(ValueError):
    opened().restore(change(tree(0)))


def test_what_is_saved_is_safe_from_the_next_step(opened):
  """The step that follows a save takes over the state's buffers."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(x):
    return jax.tree.map(lambda a: a + 1, x)

  first = opened()
  state = {'p': jnp.zeros((400, 400))}
  first.save(0, state)
  for _ in range(5):
    state = step(state)
  jax.block_until_ready(state)
  first.close()
  _, found = opened().restore(state)
  np.testing.assert_array_equal(found['p'], 0)
