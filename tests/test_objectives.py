"""Objectives against numpy in float64 and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np

from prompt_subspace import objectives


def reference(logits, targets):
  """Mean negative log-likelihood over targets that are not 0, in float64."""
  logits = np.asarray(logits, np.float64)
  log_z = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1))
  log_z += logits.max(-1)
  chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0]
  mask = targets > 0
  return -((chosen - log_z) * mask).sum() / mask.sum()


def example(seed=0):
  random = np.random.default_rng(seed)
  logits = 3 * random.standard_normal((2, 4, 7))
  targets = np.array([[3, 1, 0, 0], [6, 2, 5, 1]], np.int32)
  return logits, targets


def test_cross_entropy_is_the_formula():
  logits, targets = example()
  loss, weight = objectives.cross_entropy(
    jnp.asarray(logits, jnp.float32), jnp.asarray(targets)
  )
  # float32: 7 digits of values of size 10
  np.testing.assert_allclose(loss, reference(logits, targets), rtol=1e-6)
  assert weight == 6


def test_gradient_is_the_finite_difference():
  logits, targets = example()
  with jax.enable_x64(True):
    loss = lambda x: objectives.cross_entropy(x, jnp.asarray(targets))[0]  # noqa: E731
    found = jax.grad(loss)(jnp.asarray(logits, jnp.float32))
  step = 1e-6
  for place in [(0, 0, 3), (1, 2, 0), (1, 3, 1)]:
    up, down = logits.copy(), logits.copy()
    up[place] += step
    down[place] -= step
    slope = (reference(up, targets) - reference(down, targets)) / (2 * step)
    np.testing.assert_allclose(found[place], slope, atol=1e-6)
  # padding gives no gradient
  assert not np.any(found[0, 2:])


def test_large_and_bfloat16_logits_are_summed_in_float32():
  logits, targets = example()
  large = 1e4 * logits
  loss, _ = objectives.cross_entropy(
    jnp.asarray(large, jnp.float32), jnp.asarray(targets)
  )
  np.testing.assert_allclose(loss, reference(large, targets), rtol=1e-5)
  half = jnp.asarray(logits, jnp.bfloat16)
  loss, _ = objectives.cross_entropy(half, jnp.asarray(targets))
  assert loss.dtype == jnp.float32
  exact = reference(np.asarray(half, np.float64), targets)
  np.testing.assert_allclose(loss, exact, rtol=1e-6)


def test_a_target_outside_of_the_vocabulary_is_nan():
  logits, targets = example()
  targets[1, 2] = 7
  loss, _ = objectives.cross_entropy(jnp.asarray(logits), jnp.asarray(targets))
  assert np.isnan(loss)


def test_no_targets_cost_nothing():
  logits, targets = example()
  loss, weight = objectives.cross_entropy(
    jnp.asarray(logits, jnp.float32), jnp.zeros_like(targets)
  )
  assert loss == 0 and weight == 0


def test_shift_right_starts_with_0():
  shifted = objectives.shift_right(jnp.array([[5, 6, 1]]))
  assert shifted.tolist() == [[0, 5, 6]]


def test_task_loss_passes_phi_batch_and_key_on():
  _, targets = example()
  batch = {'targets': jnp.asarray(targets)}

  def expand(phi, given):
    assert given is batch
    return {'delta': 2 * phi}

  def forward(delta, given, key):
    assert given is batch and key == 'key'
    return jnp.broadcast_to(delta['delta'], (2, 4, 7))

  phi = jnp.arange(7.0)
  loss, metrics = objectives.task_loss(forward, expand)(phi, batch, 'key')
  expected = reference(np.broadcast_to(2 * np.arange(7.0), (2, 4, 7)), targets)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert metrics['weight'] == 6
