"""Optimisers: Adafactor as in T5X, and any optax function with a row's rate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_subspace.training import optimizers, rows

SMALL = {'flat': (2, 130), 'vector': (7,)}
# Adafactor treats matrices of 128 and more on both sides otherwise
SHAPES = {**SMALL, 'wide': (128, 130), 'cube': (2, 129, 128)}
STEPS, RATES = 4, (0.3, 0.02)


def follow(phi, batch, key):
  """A loss whose gradient is given: the batch's own numbers."""
  del key
  parts = jax.tree.map(lambda p, g: jnp.sum(p * g[0]), phi, batch['gradient'])
  return sum(jax.tree.leaves(parts)), {'weight': jnp.ones(())}


def draw(shapes, seed, scale=1.0):
  random = np.random.default_rng(seed)
  return {
    name: (scale * random.standard_normal(shape)).astype(np.float32)
    for name, shape in shapes.items()
  }


def train(optimizer, shapes):
  """Runs two rows with the gradients of `given`; returns their last phi."""
  step = rows.make_step(lambda frozen: follow, optimizer, split=lambda b: 1)
  state = rows.start([draw(shapes, 0), draw(shapes, 1)], optimizer)
  for number in range(STEPS):
    gradient = [
      jax.tree.map(lambda x: x[None], given(shapes, r, number)) for r in (0, 1)
    ]
    batch = {
      'targets': jnp.ones((2, 1, 1)),
      'gradient': jax.tree.map(lambda *x: jnp.stack(x), *gradient),
    }
    keys = jax.random.split(jax.random.key(0), 2)
    state, _ = step(state, {}, batch, jnp.asarray(RATES), keys, number)
  assert step._cache_size() == 1
  return state.phi


def given(shapes, row, number):
  # of very different sizes, so that clipping and decay both matter
  return draw(shapes, (2, row, number), 10.0 ** (number - 1))


def adafactor(phi, gradients, rate, shrink, decay=0.8):
  """T5X's Adafactor, without parameter scale, after its source, in float64.

  Shazeer and Stern 2018, algorithms 4 and 5; matrices of 128 and more on both
  sides have factored second moments, over the two largest axes.
  """
  phi = phi.astype(np.float64)
  large = np.argsort(phi.shape)[-2:] if phi.ndim > 1 else []
  factored = len(large) and phi.shape[large[0]] >= 128
  rows_, columns, whole = 0.0, 0.0, 0.0
  for t, g in enumerate(gradients, start=1):
    g = g.astype(np.float64)
    beta, square = 1 - t**-decay, g**2 + 1e-30
    if factored:
      small, big = large
      rows_ = beta * rows_ + (1 - beta) * square.mean(big, keepdims=True)
      columns = beta * columns + (1 - beta) * square.mean(small, keepdims=True)
      second = rows_ * columns / rows_.mean(small, keepdims=True)
    else:
      second = whole = beta * whole + (1 - beta) * square
    update = g / np.sqrt(second)
    update /= max(1.0, np.sqrt((update**2).mean()))
    phi = (1 - shrink) * phi - rate * update
  return phi


def test_adafactor_is_that_of_t5x():
  shrink = 0.1
  used = functools.partial(optimizers.adafactor, weight_decay=shrink)
  found = train(used, SHAPES)
  for row, rate in enumerate(RATES):
    given_here = [given(SHAPES, row, number) for number in range(STEPS)]
    for name in SHAPES:
      wanted = adafactor(
        draw(SHAPES, row)[name], [g[name] for g in given_here], rate, shrink
      )
      np.testing.assert_allclose(
        found[name][row], wanted, atol=2e-5, rtol=2e-5, err_msg=name
      )


@pytest.mark.parametrize('rate', [0.3, 1e-4])
def test_weight_decay_of_adafactor_does_not_depend_on_the_rate(rate):
  """p <- (1 - 1e-5) p - update: seen where the gradient is zero."""
  phi = {'p': jnp.full((4,), 2.0)}
  tx = optimizers.adafactor(rate)
  state = tx.init(phi)
  updates, _ = jax.jit(tx.update)({'p': jnp.zeros((4,))}, state, phi)
  np.testing.assert_allclose(updates['p'], -2e-5, rtol=1e-5)


def test_warm_up_grows_with_the_updates_and_ends():
  used = functools.partial(
    optimizers.warmed_up, steps=3, optimizer=optimizers.sgd
  )
  found = train(used, SMALL)
  for row, rate in enumerate(RATES):
    for name in SMALL:
      moved = sum(
        min(1, (n + 1) / 3) * given(SMALL, row, n)[name].astype(np.float64)
        for n in range(STEPS)
      )
      wanted = draw(SMALL, row)[name] - rate * moved
      np.testing.assert_allclose(found[name][row], wanted, rtol=1e-4, atol=1e-4)
  with pytest.raises(ValueError, match='steps: expected a whole number >= 1'):
    optimizers.warmed_up(0.1, steps=0)


def test_the_length_of_a_warm_up_is_part_of_an_identity():
  marks = [
    optimizers.behaviour(functools.partial(optimizers.warmed_up, steps=steps))
    for steps in (1, 1000, 2000)
  ]
  assert marks[0] == optimizers.behaviour(optimizers.adam)
  assert marks[0] != marks[1] != marks[2]


@pytest.mark.parametrize(
  'optimizer, name, values',
  [
    (optimizers.adam, 'b1', (0.9, 0.91)),
    (optimizers.adam, 'b2', (0.999, 0.9999)),
    (optimizers.sgd, 'momentum', (0.0, 0.01)),
    (optimizers.adafactor, 'weight_decay', (1e-5, 1.5e-5, 0.0)),
    (optimizers.adafactor, 'decay', (0.8, 0.79)),
    (optax.adamw, 'weight_decay', (1e-4, 1e-5)),
  ],
)
def test_any_setting_is_part_of_an_identity(optimizer, name, values):
  marks = [
    optimizers.behaviour(functools.partial(optimizer, **{name: value}))
    for value in values
  ]
  assert len({tuple(mark) for mark in marks}) == len(values)
  assert np.isfinite(marks).all()


REFERENCES = {
  'adamw of optax': optax.adamw,
  'with a setting': functools.partial(optax.sgd, momentum=0.9),
  'a chain': lambda rate: optax.chain(
    optax.clip_by_global_norm(1.0), optax.lion(rate)
  ),
  **optimizers.OPTIMIZERS,
}


@pytest.mark.parametrize('name', REFERENCES)
def test_any_function_of_a_rate_trains_rows_at_their_own(name):
  """Rows at two rates, against optax with a plain number, one by one."""
  found = train(REFERENCES[name], SMALL)
  for row, rate in enumerate(RATES):
    tx, start = REFERENCES[name](rate), draw(SMALL, row)
    phi = jax.tree.map(jnp.asarray, start)
    state, update = tx.init(phi), jax.jit(tx.update)
    for number in range(STEPS):
      updates, state = update(given(SMALL, row, number), state, phi)
      phi = optax.apply_updates(phi, updates)
    for leaf in SMALL:
      np.testing.assert_allclose(
        found[leaf][row], phi[leaf], atol=1e-5, rtol=1e-5
      )
      assert (np.abs(phi[leaf] - start[leaf]) > 0).all()
