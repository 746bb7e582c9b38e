"""Ranking: choices packed into one sequence score as one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import objectives
from prompt_subspace.backbone import forward
from tests import tiny


@functools.partial(jax.jit, static_argnames=('name', 'config'))
def choice_scores(name, config, weights, own, batch, choices):
  delta = tiny.expand(name, own)
  return forward.choice_scores(config, weights, delta, batch, choices)


CHOICES = tiny.batch(7, targets=(5, 2, 3, 1))['targets']


def one_by_one(name, config, own, inputs, choice):
  """log p of one choice for every example, by the whole forward pass."""
  batch = {'inputs': inputs, 'targets': choice}
  weights = tiny.frozen(config)
  logits = tiny.logits(name, config, weights, own, batch)
  return objectives.token_log_likelihood(logits, choice).sum(axis=-1)


@pytest.mark.parametrize('positions', [False, True])
@pytest.mark.parametrize(
  'name', [tiny.PLAIN, 'prompt, decoder too', 'prefix, flat, cross too']
)
def test_packed_choices_score_as_one_by_one(name, positions):
  config = tiny.CONFIG.replace(prefix_positions=positions)
  inputs, own = tiny.batch()['inputs'], tiny.phi(name)
  unused = jnp.concatenate([CHOICES, jnp.zeros_like(CHOICES[:1])])
  found = choice_scores(
    name, config, tiny.frozen(config), own, {'inputs': inputs}, unused
  )
  assert found.shape == (3, 5)
  assert (np.asarray(found[:, 4]) == -np.inf).all()
  for c, choice in enumerate(CHOICES):
    repeated = jnp.broadcast_to(choice, (3, choice.shape[0]))
    expected = one_by_one(name, config, own, inputs, repeated)
    np.testing.assert_allclose(found[:, c], expected, atol=5e-5)


def test_choices_of_each_example_score_as_one_by_one():
  name, inputs = 'prompt, decoder too', tiny.batch()['inputs']
  own = tiny.phi(name)
  order = np.asarray([[0, 1, 2], [3, 2, 1], [1, 0, 3]])
  choices = jnp.asarray(np.asarray(CHOICES)[order]).at[1, 2].set(0)
  found = choice_scores(
    name, tiny.CONFIG, tiny.frozen(), own, {'inputs': inputs}, choices
  )
  for c in range(3):
    expected = one_by_one(name, tiny.CONFIG, own, inputs, choices[:, c])
    unused = np.asarray(choices[:, c] == 0).all(axis=-1)
    assert unused.tolist() == [False, c == 2, False]
    expected = np.where(unused, -np.inf, expected)
    np.testing.assert_allclose(found[:, c], expected, atol=5e-5)


def test_choices_use_a_known_encoder_output():
  inputs = tiny.batch()['inputs']
  args = tiny.PLAIN, tiny.CONFIG, tiny.frozen(), {}

  @jax.jit
  def encode(inputs):
    return forward.encode(tiny.CONFIG, tiny.frozen(), {}, inputs)

  alone = choice_scores(*args, {'inputs': inputs}, CHOICES)
  for shift, same in ((0.0, True), (1.0, False)):
    known = {'inputs': inputs, 'encoded': encode(inputs) + shift}
    found = choice_scores(*args, known, CHOICES)
    assert np.allclose(found, alone, atol=1e-5) == same
