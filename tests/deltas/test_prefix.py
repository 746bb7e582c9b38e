"""Which part of a prefix's phi becomes the keys and values of which site."""

import jax
import numpy as np

from prompt_subspace import deltas, trees
from tests import tiny

# the order of the attentions of a stack in phi
SITES = {
  'encoder': ['layers_0/attention', 'layers_1/attention'],
  'decoder': [
    'layers_0/self_attention',
    'layers_0/encoder_decoder_attention',
    'layers_1/self_attention',
    'layers_1/encoder_decoder_attention',
  ],
}


def trained(hidden):
  """A perturbed phi of a prefix at all attentions, and its delta, flat."""
  method = deltas.prefix(length=3, hidden=hidden, attentions=('self', 'cross'))
  shapes = jax.eval_shape(
    lambda key: method.init(key, tiny.setting()), jax.random.key(0)
  )
  phi = tiny.noise(shapes)
  delta = {
    path: np.asarray(x) for path, x in trees.flatten(method.expand(phi)).items()
  }
  expected_sites = {
    f'{stack}/{site}/prefix_{kind}'
    for stack, sites in SITES.items()
    for site in sites
    for kind in ('key', 'value')
  }
  assert set(delta) == expected_sites
  return phi, delta


def test_a_flat_prefix_is_taken_as_it_is():
  phi, delta = trained(None)
  for stack, sites in SITES.items():
    pairs = np.asarray(phi[stack]['pairs'])
    assert pairs.shape == (len(sites), 2, 3, tiny.CONFIG.joined_dim)
    for pair, site in zip(pairs, sites, strict=True):
      np.testing.assert_array_equal(
        delta[f'{stack}/{site}/prefix_key'], pair[0]
      )
      np.testing.assert_array_equal(
        delta[f'{stack}/{site}/prefix_value'], pair[1]
      )


def test_an_mlp_makes_all_prefixes_of_a_stack_from_one_table():
  phi, delta = trained(5)
  for stack, sites in SITES.items():
    part = {k: np.asarray(v, np.float64) for k, v in phi[stack].items()}
    inner = np.tanh(part['table'] @ part['down'])
    for n, site in enumerate(sites):
      for i, kind in enumerate(('key', 'value')):
        np.testing.assert_allclose(
          delta[f'{stack}/{site}/prefix_{kind}'],
          inner @ part['up'][:, n, i],
          atol=1e-5,
        )
