"""Buckets of distances, offsets on coarse weights, names of activations."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import layers, weights
from tests import tiny


def test_unknown_activations_and_sizes_are_named():
  config = tiny.CONFIG.replace(mlp_activations=('swish',))
  with pytest.raises(ValueError, match='mlp_activations.*swish'):
    weights.expected(config)
  with pytest.raises(ValueError, match='size: expected one of.*mini.*huge'):
    configs.sized('huge')


@pytest.mark.parametrize('limits', [(32, 128), (32, 20), (8, 16)])
@pytest.mark.parametrize('bidirectional', [True, False])
def test_distance_buckets_equal_the_formula_in_whole_numbers(
  limits, bidirectional
):
  buckets, furthest = limits
  table = layers.distance_buckets(bidirectional, buckets, furthest)
  half = buckets // 2 if bidirectional else buckets
  exact = half // 2
  for relative in range(-furthest, furthest + 1):
    n = abs(relative) if bidirectional else max(-relative, 0)
    bucket = n
    if n >= exact:
      # floor(log(n/e) / log(m/e) * b) >= k  <=>  (n/e)^b >= (m/e)^k
      b = half - exact
      above = [k for k in range(b) if n**b * exact**k >= furthest**k * exact**b]
      bucket = exact + max(above)
    if bidirectional and relative > 0:
      bucket += half
    assert table[relative + furthest] == bucket, relative


def test_small_offsets_on_bfloat16_weights_are_not_lost():
  # 1 + 2^-10 is 1 in bfloat16: added there, the offset would vanish
  table = jnp.ones((60, 16), jnp.bfloat16)
  offset = jnp.full((60, 16), 2.0**-10)
  config = tiny.CONFIG.replace(weight_dtype='bfloat16')
  found = layers.Embedder(config).apply(
    {'params': {'embedding': table}, 'delta': {'embedding': offset}},
    jnp.asarray([[5]]),
  )
  np.testing.assert_array_equal(found, np.full((1, 1, 16), 1 + 2.0**-10))
