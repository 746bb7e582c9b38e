"""Batches of T5X as batches of examples and episodes."""

import numpy as np
import pytest

from prompt_subspace import reparams
from prompt_subspace.meta import algorithms
from prompt_subspace.training import algorithm, features
from prompt_subspace.unified import joint


def batch_of(count):
  inputs = np.arange(1, 3 * count + 1).reshape(count, 3)
  targets = np.arange(1, 2 * count + 1).reshape(count, 2)
  targets[0, 1] = 0
  return {'encoder_input_tokens': inputs, 'decoder_target_tokens': targets}


def test_examples_have_our_names_and_are_not_packed():
  batch = batch_of(4)
  found = features.examples(batch)
  assert set(found) == {'inputs', 'targets'}
  np.testing.assert_array_equal(found['inputs'], batch['encoder_input_tokens'])
  with pytest.raises(ValueError, match='pack: expected False'):
    features.examples({**batch, 'encoder_segment_ids': batch})


def test_an_episode_is_its_support_batches_then_its_query():
  maml = algorithms.maml(inner_steps=2)
  assert features.episode_size(maml, 2) == 6
  held = features.examples(batch_of(12))
  found = features.episodes(held, maml, 2)
  assert found['support']['inputs'].shape == (2, 2, 2, 3)
  assert found['query']['inputs'].shape == (2, 2, 3)
  np.testing.assert_array_equal(
    found['support']['inputs'][1, 0], held['inputs'][6:8]
  )
  np.testing.assert_array_equal(
    found['query']['targets'][1], held['targets'][10:12]
  )
  with pytest.raises(ValueError, match='whole episodes of 6 examples'):
    features.episodes(features.examples(batch_of(10)), maml, 2)


def test_reptile_has_no_query():
  reptile = algorithms.reptile(inner_steps=3)
  assert features.episode_size(reptile, 2) == 6
  found = features.episodes(features.examples(batch_of(6)), reptile, 2)
  assert set(found) == {'support'}
  assert found['support']['targets'].shape == (1, 3, 2, 2)


def test_a_batch_weighs_its_tokens_or_its_episodes():
  batch = batch_of(6)
  found = features.with_weight(batch, algorithm.TUNING, 1)
  np.testing.assert_array_equal(found[features.WHOLE], np.full(6, 11.0))
  maml = algorithms.maml()
  assert features.weight(batch, maml, 1) == 3


def test_the_joint_loss_knows_the_task_of_its_examples():
  how = joint.Joint(pipeline='short')
  stage = joint.algorithm({'lora': reparams.linear(down=False)}, how)
  assert features.episode_size(stage, 3) == 3
  numbers = np.repeat([[4], [1]], 3, axis=0)
  held = features.examples({**batch_of(6), features.TASK: numbers})
  found = features.episodes(held, stage, 3)
  assert set(found) == {'support'}
  assert found['support']['inputs'].shape == (2, 1, 3, 3)
  np.testing.assert_array_equal(found['support']['task'][:, 0, 0, 0], [4, 1])
  assert features.weight(batch_of(6), stage, 3) == 2
