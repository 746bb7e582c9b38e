"""Fastfood against dense matrices; its draws must never change."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg

from prompt_subspace import reparams, trees
from prompt_subspace.reparams import trilinear

# the package has the function of this name
fastfood = importlib.import_module('prompt_subspace.reparams.fastfood')

SIGNS = [-1, 1, -1, 1, 1]
ORDER = [4, 1, 6, 3, 2, 7, 5, 0]
FINGERPRINT = '451840c4dc8d3ab03dc6b0912fa02cde3219326a94b762501ca6c2e2516edfae'


@pytest.mark.parametrize('n', [1, 2, 8, 128, 256, 1024])
def test_the_transform_is_hadamards(n):
  x = np.random.default_rng(0).standard_normal((3, n))
  found = fastfood.hadamard(jnp.asarray(x, jnp.float32))
  wanted = x @ linalg.hadamard(n)
  # sums of n float32 terms of size 1
  np.testing.assert_allclose(found, wanted, atol=1e-6 * n**0.5 * 10)
  # its own inverse up to 1 / n
  back = fastfood.hadamard(found) / n
  np.testing.assert_allclose(back, x, atol=1e-5)
  # the gradient of a linear map is its transpose: itself
  grad = jax.grad(lambda v: fastfood.hadamard(v) @ found[0])(found[0] * 0)
  twice = fastfood.hadamard(found[0])
  np.testing.assert_allclose(grad, twice, rtol=1e-5, atol=1e-5 * n)


def test_an_axis_that_is_no_power_of_two():
  with pytest.raises(ValueError, match='expected a last axis of 1, 2, 4, 8'):
    fastfood.hadamard(jnp.ones((2, 12)))


def dense(basis, z, scale):
  """The map as a matrix [M, Z], of scipy's Hadamard matrices."""
  signs, order, gauss = (
    np.asarray(basis[n], np.float64) for n in ('signs', 'order', 'gauss')
  )
  n = gauss.shape[-1]
  signs = np.pad(signs, ((0, 0), (0, n - signs.shape[1])))
  h, blocks = linalg.hadamard(n).astype(np.float64), []
  for s, o, g in zip(signs, order.astype(int), gauss, strict=True):
    permutation = np.eye(n)[o]
    blocks.append(h @ np.diag(g) @ permutation @ h @ np.diag(s))
  whole = np.concatenate(blocks)[: basis['size'].shape[0], :z]
  return scale / n**0.5 * whole


@pytest.mark.parametrize(
  'size, z, block', [(64, 8, 8), (61, 5, 8), (5, 16, 16), (300, 100, None)]
)
def test_it_is_h_g_pi_h_b(size, z, block):
  found = reparams.fastfood(block=block, scale=0.3)
  basis = found.init(jax.random.key(2), size, z)
  code = np.random.default_rng(1).standard_normal(z)
  wanted = dense(basis, z, 0.3) @ code
  np.testing.assert_allclose(
    found.expand(basis, jnp.asarray(code, jnp.float32)),
    wanted,
    atol=1e-5 * np.abs(wanted).max(),
  )


def test_chunks_are_of_no_consequence(monkeypatch):
  """Without and with a rest that is expanded and cut off."""
  monkeypatch.setattr(trilinear, 'CHUNK', 24)
  code = jnp.arange(6.0)
  for size in (8 * 12, 8 * 13 + 1):
    found = reparams.fastfood(block=8)
    basis = found.init(jax.random.key(2), size, 6)
    wanted = dense(basis, 6, 0.02) @ np.arange(6.0)
    np.testing.assert_allclose(
      found.expand(basis, code), wanted, atol=1e-6, err_msg=str(size)
    )
    expand = functools.partial(found.expand, basis)
    pulled = jax.vjp(expand, code)[1](jnp.ones(size))[0]
    np.testing.assert_allclose(
      pulled, dense(basis, 6, 0.02).sum(0), rtol=1e-4, atol=1e-5
    )


def test_blocks_are_drawn_independently():
  basis = reparams.fastfood(block=16).init(jax.random.key(0), 16 * 400, 4)
  signs, order, gauss = (
    np.asarray(basis[n]) for n in ('signs', 'order', 'gauss')
  )
  assert set(np.unique(signs)) == {-1, 1}
  # standard errors are 0.0125
  assert abs(signs.mean()) < 0.05 and abs(gauss.mean()) < 0.05
  assert gauss.std() == pytest.approx(1, abs=0.04)
  assert abs(np.corrcoef(signs.ravel(), gauss[:, :4].ravel())[0, 1]) < 0.1
  for row in order:
    assert sorted(row) == list(range(16))
  # each place is as likely for each number: 25 expected, deviation 4.8
  counts = np.array([np.bincount(order[:, i], minlength=16) for i in range(16)])
  assert counts.min() > 5 and counts.max() < 50
  inverse = np.asarray(basis['inverse'])
  taken = np.take_along_axis(order, inverse.astype(int), axis=1)
  np.testing.assert_array_equal(
    taken, np.broadcast_to(np.arange(16), (400, 16))
  )
  other = reparams.fastfood(block=16).init(jax.random.key(1), 16 * 400, 4)
  assert np.mean(np.asarray(other['signs']) == basis['signs']) < 0.6


def test_a_seed_draws_the_same_map_for_ever():
  """Pinned on purpose: a stored code means nothing with another map.

  If this fails with a new version of a library, the draws have to be made
  independent of that version; the number must not be replaced.
  """
  basis = reparams.fastfood(block=8).init(jax.random.key(7), 40, 5)
  assert np.asarray(basis['signs'])[0].tolist() == SIGNS
  assert np.asarray(basis['order'])[0].tolist() == ORDER
  assert trees.fingerprint(basis) == FINGERPRINT


def test_no_derivative_scatters():
  """The transpose of a gather by a permutation is a gather, too."""
  found = reparams.fastfood(block=8)
  basis = found.init(jax.random.key(2), 100, 6)

  def loss(code, gauss):
    return jnp.sum(jnp.sin(found.expand({**basis, 'gauss': gauss}, code)))

  grad = jax.jit(jax.grad(loss, argnums=(0, 1)))
  text = grad.lower(jnp.ones(6), basis['gauss']).as_text()
  assert 'gather' in text and 'stablehlo.scatter' not in text


def test_the_gradient_of_the_gaussian_factors():
  """Against central differences along a direction."""
  found = reparams.fastfood(block=8, scale=0.3)
  basis = found.init(jax.random.key(2), 61, 5)
  code, random = jnp.arange(1.0, 6.0), np.random.default_rng(0)
  along = jnp.asarray(random.standard_normal(basis['gauss'].shape), 'float32')

  def loss(gauss):
    return jnp.sum(jnp.sin(found.expand({**basis, 'gauss': gauss}, code)))

  step = 1e-2
  finite = (
    loss(basis['gauss'] + step * along) - loss(basis['gauss'] - step * along)
  ) / (2 * step)
  slope = jnp.sum(jax.grad(loss)(basis['gauss']) * along)
  assert float(slope) == pytest.approx(float(finite), rel=2e-2, abs=1e-2)


def test_bases_can_be_batched():
  found = reparams.fastfood(block=8)
  one, other = (found.init(jax.random.key(i), 20, 5) for i in range(2))
  both = jax.tree.map(lambda *x: jnp.stack(x), one, other)
  code = jnp.arange(5.0)
  made = jax.vmap(found.expand, in_axes=(0, None))(both, code)
  np.testing.assert_allclose(made[0], found.expand(one, code), atol=1e-6)
  np.testing.assert_allclose(made[1], found.expand(other, code), atol=1e-6)


@pytest.mark.parametrize('n', [2**8, 2**9, 2**16, 2**17])
def test_the_order_of_a_block_of_any_size_is_a_permutation(n):
  basis = reparams.fastfood(block=n).init(jax.random.key(0), 10, 3)
  order, inverse = (np.asarray(basis[x][0]) for x in ('order', 'inverse'))
  np.testing.assert_array_equal(np.sort(order), np.arange(n))
  np.testing.assert_array_equal(order[inverse], np.arange(n))


def test_a_block_must_hold_the_code():
  with pytest.raises(ValueError, match='block: expected a power of 2, found 6'):
    reparams.fastfood(block=6)
  with pytest.raises(ValueError, match='not below z = 9, found 8'):
    reparams.fastfood(block=8).init(jax.random.key(0), 20, 9)
  wide = reparams.fastfood().init(jax.random.key(0), 20, 200)
  assert wide['gauss'].shape[-1] == 256 and wide['order'].dtype == jnp.uint8
