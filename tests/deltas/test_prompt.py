"""Where a prompt starts: all initialisations of Vu et al. 2022, section 2.1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas
from tests import tiny


def start(length=6, **settings):
  fields = {
    name: settings.pop(name)
    for name in ('labels', 'encode', 'vocab_limit')
    if name in settings
  }
  method = deltas.prompt(length=length, **settings)
  phi = method.init(jax.random.key(0), tiny.setting(**fields))
  return np.asarray(phi['encoder'])


def rows_of(prompt):
  """The row of the embedding table that each vector is, or -1."""
  table = np.asarray(tiny.setting().embedding)
  equal = np.all(prompt[:, None] == table[None], axis=-1)
  return np.where(equal.any(1), equal.argmax(1), -1)


def test_uniform_fills_its_range():
  found = start(length=400, start='uniform')
  assert found.min() >= -0.5 and found.max() < 0.5
  # 6,400 draws: the mean is within 5 standard errors of 0, the ends are near
  assert abs(found.mean()) < 5 * 0.2887 / 80
  assert found.min() < -0.49 and found.max() > 0.49


def test_vocabulary_rows_are_distinct_common_pieces():
  rows = rows_of(start(length=10, start='vocabulary', common=20))
  assert len(set(rows)) == 10
  assert rows.min() >= 3 and rows.max() < 20


def test_the_5000_most_common_pieces_are_drawn_by_default():
  assert deltas.prompt().settings['common'] == 5000
  # every row of the table names itself
  table = jnp.broadcast_to(jnp.arange(6000.0)[:, None], (6000, 16))
  setting = tiny.setting()._replace(
    weights={'token_embedder': {'embedding': table}}
  )
  method = deltas.prompt(length=4997)
  phi = method.init(jax.random.key(0), setting)
  rows = np.sort(np.asarray(phi['encoder'])[:, 0])
  np.testing.assert_array_equal(rows, np.arange(3, 5000))


def test_bfloat16_tables_give_float32_prompts():
  config = tiny.CONFIG.replace(weight_dtype='bfloat16')
  for settings in ({}, {'start': 'labels'}):
    method = deltas.prompt(length=4, **settings)
    known = tiny.setting(config, labels=((5, 6), (7,)))
    phi = method.init(jax.random.key(0), known)
    assert phi['encoder'].dtype == np.float32


def test_vocabulary_draws_no_sentinels():
  rows = rows_of(start(length=30, start='vocabulary', vocab_limit=40))
  assert rows.min() >= 3 and rows.max() < 40


def test_labels_come_first_and_are_averaged():
  found = start(start='labels', labels=((5,), (7, 9)))
  table = np.asarray(tiny.setting().embedding)
  np.testing.assert_array_equal(found[0], table[5])
  np.testing.assert_allclose(found[1], (table[7] + table[9]) / 2, rtol=1e-6)
  assert np.all(rows_of(found[2:]) >= 3)


def test_labels_may_fill_the_whole_prompt():
  found = start(length=2, start='labels', labels=((5,), (7,)))
  assert rows_of(found).tolist() == [5, 7]


def test_text_gives_one_row_a_token():
  found = start(
    start='text', text='ab', encode=lambda t: [ord(c) % 50 for c in t]
  )
  assert rows_of(found)[:2].tolist() == [ord('a') % 50, ord('b') % 50]


def test_stored_is_taken_as_it_is():
  given = np.arange(96, dtype=np.float64).reshape(6, 16)
  found = start(start='stored', stored=given)
  np.testing.assert_array_equal(found, given)
  assert found.dtype == np.float32


def test_decoder_prompt_is_drawn_too():
  method = deltas.prompt(length=2, decoder_length=4)
  phi = method.init(jax.random.key(0), tiny.setting())
  assert phi['decoder'].shape == (4, 16)
  assert np.all(rows_of(np.asarray(phi['decoder'])) >= 3)


@pytest.mark.parametrize(
  'settings, words',
  [
    ({'start': 'labels', 'labels': ((1,),) * 7}, 'at least 7 prompt vectors'),
    ({'start': 'labels'}, 'needs a task with label texts'),
    ({'start': 'labels', 'labels': ((5,), ())}, 'at least one token in every'),
    (
      {'start': 'text', 'text': 'abcdefg', 'encode': lambda t: [5] * len(t)},
      'at least 7 prompt vectors',
    ),
    ({'length': 18, 'common': 20}, 'at most 17 prompt vectors .* found 18'),
    ({'decoder_length': -1}, 'decoder_length: expected'),
    ({'start': 'text', 'text': ' '}, 'needs a text'),
    ({'start': 'text', 'text': 'a'}, 'needs a vocabulary'),
    ({'start': 'stored'}, 'needs an array'),
    ({'start': 'stored', 'stored': np.zeros((5, 16))}, r'\(6, 16\).*\(5, 16\)'),
  ],
)
def test_what_does_not_fit_is_an_error(settings, words):
  with pytest.raises(ValueError, match=words):
    start(**settings)
