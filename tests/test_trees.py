"""Trees: names, the way to a vector and back, fingerprints."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import trees

TREE = {'b': {'x': jnp.arange(6.0).reshape(2, 3)}, 'a': jnp.ones((2,))}


def test_flatten_and_unflatten_are_inverse():
  flat = trees.flatten(TREE)
  assert set(flat) == {'b/x', 'a'}
  back = trees.unflatten(flat)
  assert trees.flatten(back).keys() == flat.keys()
  np.testing.assert_array_equal(back['b']['x'], TREE['b']['x'])


@pytest.mark.parametrize('paths', [('a', 'a/b'), ('a/b', 'a')])
def test_a_leaf_cannot_be_a_folder(paths):
  with pytest.raises(ValueError, match='leaf'):
    trees.unflatten(dict.fromkeys(paths, np.zeros(1)))


def test_merge_joins_and_refuses_doubles():
  merged = trees.merge({'a': {'x': 1}}, {'a': {'y': 2}})
  assert merged == {'a': {'x': 1, 'y': 2}}
  with pytest.raises(ValueError, match='a/x'):
    trees.merge({'a': {'x': 1}}, {'a': {'x': 2}})
  with pytest.raises(ValueError, match='leaf'):
    trees.merge({'a': {'x': 1}}, {'a': 2})


def test_ravel_is_a_vector_and_comes_back():
  vector, back = trees.ravel(TREE)
  assert vector.shape == (trees.size(TREE),) == (8,)
  np.testing.assert_array_equal(back(vector)['b']['x'], TREE['b']['x'])
  np.testing.assert_array_equal(back(2 * vector)['a'], 2 * TREE['a'])


def test_ravel_keeps_order_types_apart_and_takes_odd_trees():
  tree = {'z': jnp.asarray(3), 'a': [jnp.ones((0, 2)), jnp.asarray([True])]}
  vector, back = trees.ravel(tree)
  assert vector.dtype == jnp.float32
  np.testing.assert_array_equal(vector, [1.0, 3.0])
  found = back(vector)
  assert found['z'].shape == () and found['a'][0].shape == (0, 2)
  nothing, back = trees.ravel({})
  assert nothing.shape == (0,) and back(nothing) == {}


def test_sizes_and_description():
  assert trees.nbytes(TREE) == 32
  assert trees.describe(TREE).splitlines() == [
    'a  (2,)  float32',
    'b/x  (2, 3)  float32',
  ]


def test_check_same_names_every_difference():
  trees.check_same(TREE, TREE, 'tree')
  found = {'b': {'x': jnp.zeros((3, 2))}, 'c': jnp.ones((2,))}
  with pytest.raises(ValueError) as error:
    trees.check_same(found, TREE, 'weights of mini')
  for words in (
    'weights of mini',
    'missing a',
    'unexpected c',
    'b/x: expected shape (2, 3), found (3, 2)',
  ):
    assert words in str(error.value)
  with pytest.raises(ValueError, match='a: expected float32, found int32'):
    trees.check_same({**TREE, 'a': jnp.ones((2,), jnp.int32)}, TREE, 'tree')


def test_fingerprint_sees_values_names_and_shapes_but_not_order_or_type():
  mark = trees.fingerprint(TREE)
  assert mark == trees.fingerprint(dict(reversed(TREE.items())))
  half = {**TREE, 'a': TREE['a'].astype(jnp.bfloat16)}
  assert mark == trees.fingerprint(half)
  others = [
    {**TREE, 'a': jnp.array([1.0, 1.0 + 1e-6])},
    {'b': TREE['b'], 'c': TREE['a']},
    {**TREE, 'a': TREE['a'][None]},
  ]
  assert len({mark, *map(trees.fingerprint, others)}) == 4
