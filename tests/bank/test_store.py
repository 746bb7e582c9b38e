"""Stored deltas: read back as written, whole, refused elsewhere."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.bank import store
from tests import sample

PHI = {
  'encoder': {'prompt': np.arange(6, dtype=np.float32).reshape(2, 3)},
  'decoder': {'layers_0': {'scale': jnp.ones(4)}},
}


@pytest.fixture
def card(small):
  return {
    'task': 'reviews',
    'method': 'prompt',
    'settings': {'length': 2},
    'backbone': small.name,
    'fingerprint': small.fingerprint,
    'test': float('nan'),
    'label_texts': ('no', 'jä'),
  }


def test_an_entry_is_read_as_it_was_written(tmp_path, card):
  store.write(tmp_path / 'new' / 'run-1', PHI, card)
  entry = store.read(str(tmp_path / 'new' / 'run-1'))
  assert entry.name == 'run-1'
  assert entry.card['label_texts'] == ['no', 'jä']
  assert np.isnan(entry.card['test']) and entry.card['settings'] == {
    'length': 2
  }
  np.testing.assert_equal(
    entry.phi,
    {'encoder': PHI['encoder'], 'decoder': {'layers_0': {'scale': np.ones(4)}}},
  )
  assert entry.phi['encoder']['prompt'].dtype == np.float32


def test_a_transposed_leaf_is_stored_in_its_own_order(tmp_path, card):
  x = np.arange(6, dtype=np.float32).reshape(2, 3).T
  store.write(tmp_path / 'run', {'a': x}, card)
  np.testing.assert_array_equal(store.read(tmp_path / 'run').phi['a'], x)


def test_an_older_entry_is_replaced_whole(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card)
  store.write(tmp_path / 'run', {'other': jnp.zeros(1)}, card | {'task': 'x'})
  entry = store.read(tmp_path / 'run')
  assert set(entry.phi) == {'other'} and entry.card['task'] == 'x'
  assert [p.name for p in tmp_path.iterdir()] == ['run']


def test_a_failed_write_leaves_the_older_entry(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card)
  with pytest.raises(TypeError):
    store.write(tmp_path / 'run', {'a': jnp.ones(1)}, card | {'task': object()})
  assert store.read(tmp_path / 'run').card['task'] == 'reviews'
  assert [p.name for p in tmp_path.iterdir()] == ['run']


@pytest.mark.parametrize('field', store.REQUIRED)
def test_a_card_needs_what_an_entry_is_used_by(tmp_path, card, field):
  lacking = {k: v for k, v in card.items() if k != field}
  with pytest.raises(ValueError, match=f"card: .*missing .'{field}'"):
    store.write(tmp_path / 'run', PHI, lacking)
  assert not list(tmp_path.iterdir())
  store.write(tmp_path / 'run', PHI, card)
  (tmp_path / 'run' / 'card.json').write_text(json.dumps(lacking))
  with pytest.raises(ValueError, match=f"card.json: missing .*'{field}'"):
    store.read(tmp_path / 'run')


def test_phi_is_stored_in_float32(tmp_path, card):
  phi = {'a': {'b': jnp.ones(2, jnp.bfloat16)}, 'c': jnp.ones(2)}
  with pytest.raises(ValueError, match="float32 leaves, .*'a/b'"):
    store.write(tmp_path / 'run', phi, card)


def test_a_folder_that_is_no_entry_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='missing .*phi.safetensors.*card.json'):
    store.read(tmp_path)


def test_an_entry_belongs_to_its_backbone(tmp_path, card, small):
  store.write(tmp_path / 'run', PHI, card)
  entry = store.read(tmp_path / 'run')
  store.check_backbone(entry, small)
  other = sample.backbone(small.vocabulary, seed=1)
  with pytest.raises(ValueError) as error:
    store.check_backbone(entry, other)
  for part in ('run', small.fingerprint[:16], other.fingerprint[:16]):
    assert part in str(error.value)
