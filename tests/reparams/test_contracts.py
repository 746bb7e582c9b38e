"""What every reparameterisation promises, one row each in the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import reparams, trees

TABLE = {
  'linear': reparams.linear(),
  'linear, up alone': reparams.linear(down=False),
  'linear, bias': reparams.linear(bias=True),
  'mlp': reparams.mlp(hidden=5),
  'kronecker': reparams.kronecker(),
  'kronecker, three terms': reparams.kronecker(terms=3),
  'fastfood': reparams.fastfood(),
  'fastfood, fixed': reparams.fastfood(trainable=False),
  'fastfood, small blocks': reparams.fastfood(block=8),
}
LINEAR = [n for n in TABLE if n != 'mlp']
# of one block, of several with a rest, and of several chunks' worth of nothing
SIZES = [(1, 1), (7, 3), (130, 8), (1000, 6)]


def make(name, size=130, z=8, seed=0):
  return TABLE[name], TABLE[name].init(jax.random.key(seed), size, z)


def code(z, seed=1):
  return jax.random.normal(jax.random.key(seed), (z,))


@pytest.mark.parametrize('name', TABLE)
@pytest.mark.parametrize('size, z', SIZES)
def test_a_code_becomes_a_vector_of_the_size(name, size, z):
  found, basis = make(name, size, z)
  out = found.expand(basis, code(z))
  assert out.shape == (size,) and out.dtype == jnp.float32
  assert np.isfinite(out).all() and np.any(out)
  assert found.name in reparams.REPARAMS
  again = reparams.make(found.name, **found.settings)
  np.testing.assert_array_equal(
    out, again.expand(again.init(jax.random.key(0), size, z), code(z))
  )


@pytest.mark.parametrize('name', TABLE)
def test_a_code_of_zero_is_the_origin(name):
  found, basis = make(name)
  np.testing.assert_array_equal(found.expand(basis, jnp.zeros(8)), 0)


@pytest.mark.parametrize('name', LINEAR)
def test_the_map_is_linear_in_the_code(name):
  found, basis = make(name)
  a, b = code(8), code(8, 2)
  whole = found.expand(basis, 2 * a - 3 * b)
  parts = 2 * found.expand(basis, a) - 3 * found.expand(basis, b)
  np.testing.assert_allclose(whole, parts, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', TABLE)
def test_gradients_of_all_kinds(name):
  """Against central differences, whose error is that of float32: 1e-3."""
  found, basis = make(name, size=40, z=4)
  target = jax.random.normal(jax.random.key(5), (40,))
  # large enough for curvature to show
  at, along = 20 * code(4), code(4, 3)

  def loss(c):
    return jnp.sum(jnp.sin(found.expand(basis, c)) * target)

  grad = jax.jit(jax.grad(loss))
  step = 2e-2
  finite = [
    (loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in jnp.eye(4)
  ]
  np.testing.assert_allclose(grad(at), np.array(finite), rtol=2e-2, atol=2e-3)
  _, slope = jax.jvp(loss, (at,), (along,))
  np.testing.assert_allclose(slope, grad(at) @ along, rtol=1e-4, atol=1e-5)
  # forward over reverse, as second-order MAML has it, and reverse over reverse
  _, curve = jax.jvp(grad, (at,), (along,))
  other = jax.grad(lambda c: grad(c) @ along)(at)
  np.testing.assert_allclose(curve, other, rtol=1e-3, atol=1e-5)
  assert np.any(curve)
  both = jax.vmap(grad)(jnp.stack([at, along]))
  np.testing.assert_allclose(both[0], grad(at), rtol=1e-4, atol=1e-5)
  mapped = jax.lax.map(grad, jnp.stack([at, along]))
  np.testing.assert_allclose(mapped, both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', TABLE)
def test_what_is_trained_is_part_of_the_basis_and_has_gradients(name):
  found, basis = make(name)
  trained = found.trained(basis)
  assert set(trained) <= set(basis)
  if name == 'fastfood, fixed':
    assert not trained
    return
  assert all(x.dtype == jnp.float32 for x in trained.values())

  def loss(trained):
    merged = {**basis, **trained}
    out = jnp.sum(jnp.sin(found.expand(merged, code(8))))
    if found.compress is not None:
      out += jnp.sum(jnp.sin(found.compress(merged, jnp.ones(130))))
    return out

  for path, x in jax.grad(loss)(trained).items():
    assert np.any(np.asarray(x)), path


@pytest.mark.parametrize('scale', [0.02, 0.5, None])
@pytest.mark.parametrize('name', ['linear', 'mlp', 'kronecker', 'fastfood'])
def test_entries_have_the_scale_that_was_asked_for(name, scale):
  """E |expand(c)|^2 = M (scale |c|)^2, and |c|^2 for a scale of None.

  Over 60 draws of the basis the mean of the ratio has a relative deviation of
  about sqrt(2 / 60 / 16) = 5 % even if only 16 of a map's numbers were
  independent.
  """
  size, z = 600, 16
  found = reparams.make(name, scale=scale)
  c = 0.05 * code(z)  # of the mlp, only small codes have it
  ratios = []
  for seed in range(60):
    basis = found.init(jax.random.key(seed), size, z)
    ratios.append(float(jnp.sum(jnp.square(found.expand(basis, c)))))
  wanted = float(jnp.sum(c**2)) * (1 if scale is None else size * scale**2)
  assert np.mean(ratios) == pytest.approx(wanted, rel=0.15)


def test_compress_is_the_papers_down_projection():
  found, basis = make('linear, bias')
  basis = {**basis, 'down_bias': code(8, 4), 'mix_bias': code(8, 5)}
  flat = jax.random.normal(jax.random.key(6), (130,))
  held = {k: np.asarray(v, np.float64) for k, v in basis.items()}
  wanted = np.tanh(np.asarray(flat) @ held['down'] + held['down_bias'])
  wanted = wanted @ held['mix'] + held['mix_bias']
  np.testing.assert_allclose(found.compress(basis, flat), wanted, rtol=1e-5)
  assert reparams.linear(down=False).compress is None
  assert 'down_bias' not in make('linear')[1]


def test_kronecker_is_the_sum_of_kronecker_products():
  for size, z, terms in ((30, 6, 1), (29, 12, 3), (50, 7, 2)):
    found = reparams.kronecker(terms=terms)
    basis = found.init(jax.random.key(0), size, z)
    left, right = np.asarray(basis['left']), np.asarray(basis['right'])
    whole = sum(np.kron(a, b) for a, b in zip(left, right, strict=True))
    np.testing.assert_allclose(
      found.expand(basis, code(z)),
      (whole @ np.asarray(code(z)))[:size],
      rtol=1e-4,
      atol=1e-6,
    )
    assert left[0].size + right[0].size < 2 * size * z


def test_mistakes():
  key = jax.random.key(0)
  for name in reparams.REPARAMS:
    with pytest.raises(ValueError, match='size: expected a whole number'):
      reparams.make(name).init(key, 0, 3)
    with pytest.raises(ValueError, match='z: expected a whole number'):
      reparams.make(name).init(key, 10, 0)
    with pytest.raises(ValueError, match='scale: expected a number above 0'):
      reparams.make(name, scale=0)
  with pytest.raises(ValueError, match="reparam: .*fastfood.*found .'slow'"):
    reparams.make('slow')
  with pytest.raises(ValueError, match='bias: expected it with down=True'):
    reparams.linear(down=False, bias=True)
  with pytest.raises(ValueError, match='terms: expected'):
    reparams.kronecker(terms=0)
  with pytest.raises(ValueError, match='hidden: expected'):
    reparams.mlp(hidden=0)
  assert trees.size(reparams.linear(down=False).init(key, 5, 2)) == 10
