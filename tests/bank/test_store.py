"""Stored deltas: read back as written, whole, refused elsewhere."""

import hashlib
import json
import re

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

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


def test_the_embedding_is_kept_beside_the_best(tmp_path, card):
  early = {'encoder': {'prompt': np.ones((2, 3), np.float32)}}
  store.write(tmp_path / 'run', PHI, card, embedding=early)
  entry = store.read(tmp_path / 'run')
  np.testing.assert_equal(entry.embedding, early)
  np.testing.assert_equal(
    entry.phi['encoder']['prompt'], PHI['encoder']['prompt']
  )
  store.write(tmp_path / 'run', PHI, card)
  assert store.read(tmp_path / 'run').embedding is None
  with pytest.raises(ValueError, match='embedding: expected float32'):
    store.write(tmp_path / 'run', PHI, card, {'a': np.ones(2)})


def test_the_card_holds_the_sum_of_every_file(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card, embedding={'a': PHI['encoder']})
  sums = store.cards(tmp_path)['run']['files']
  assert sums == {
    name: hashlib.sha256((tmp_path / 'run' / name).read_bytes()).hexdigest()
    for name in ('phi.safetensors', 'embedding.safetensors')
  }
  assert 'files' not in store.read(tmp_path / 'run').card


def test_an_entry_is_not_replaced_against_the_will(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card, replace=False)
  with pytest.raises(ValueError, match='expected a new name'):
    store.write(tmp_path / 'run', PHI, card | {'task': 'x'}, replace=False)
  assert store.read(tmp_path / 'run').card['task'] == 'reviews'


def test_cards_are_read_without_arrays(tmp_path, card):
  for name in ('b', 'a'):
    store.write(tmp_path / name, PHI, card | {'task': name})
  (tmp_path / 'b' / 'phi.safetensors').unlink()
  (tmp_path / 'notes').mkdir()
  (tmp_path / 'file').touch()
  assert store.names(tmp_path) == ['a', 'b']
  assert {n: c['task'] for n, c in store.cards(tmp_path).items()} == {
    'a': 'a',
    'b': 'b',
  }
  for function in (store.names, store.cards, store.verify):
    with pytest.raises(ValueError, match='bank: expected a folder.*nosuch'):
      function(tmp_path / 'nosuch')


def _phi(folder, **arrays):
  """Puts arrays into an entry, and their sum into its card."""
  safetensors_numpy.save_file(arrays, folder / 'phi.safetensors')
  path = folder / 'card.json'
  card = json.loads(path.read_text())
  content = (folder / 'phi.safetensors').read_bytes()
  card['files']['phi.safetensors'] = hashlib.sha256(content).hexdigest()
  path.write_text(json.dumps(card))


def _altered(folder):
  content = bytearray((folder / 'phi.safetensors').read_bytes())
  content[-1] ^= 1
  (folder / 'phi.safetensors').write_bytes(content)


DAMAGES = {
  'altered': (_altered, 'phi.safetensors: expected the arrays.*damaged'),
  'cut': (
    lambda f: (f / 'phi.safetensors').write_bytes(b'12'),
    'phi.safetensors: expected the arrays',
  ),
  'missing': (lambda f: (f / 'phi.safetensors').unlink(), 'missing .*phi'),
  'no-card': (lambda f: (f / 'card.json').unlink(), 'missing .*card.json'),
  'bad-card': (
    lambda f: (f / 'card.json').write_text('{"task": '),
    'card.json: expected a card',
  ),
  'list': (lambda f: (f / 'card.json').write_text('[]'), 'found a list'),
  'no-embedding': (
    lambda f: (f / 'embedding.safetensors').unlink(),
    'embedding.safetensors: missing, though',
  ),
  'double': (lambda f: _phi(f, a=np.ones(2)), 'phi: a is float64'),
  'infinite': (
    lambda f: _phi(f, a=np.array([1, np.inf], np.float32)),
    'phi: a has values that are not finite',
  ),
  'half': (
    lambda f: _phi(f, a=np.ones(2, ml_dtypes.bfloat16)),
    'expected float32, found .BF16',
  ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_verify_finds_damage(tmp_path, card, damage):
  for name in ('good', damage):
    store.write(tmp_path / name, PHI, card, embedding=PHI)
  assert store.verify(tmp_path) == []
  harm, message = DAMAGES[damage]
  harm(tmp_path / damage)
  (found,) = store.verify(tmp_path)
  assert found.startswith(f'{damage}: ') and re.search(message, found)


def test_verify_finds_what_interrupted_writes_leave(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card)
  mark = 'ab' * 16
  (tmp_path / 'run').rename(tmp_path / f'.run-{mark}-old')
  (tmp_path / f'.run-{mark}-draft').mkdir()
  assert store.names(tmp_path) == []
  draft, old = store.verify(tmp_path)
  assert draft == f'.run-{mark}-draft: left by an interrupted write; remove it'
  assert old.endswith('about to replace; rename it to run')
  store.write(tmp_path / 'run', PHI, card)
  assert store.verify(tmp_path)[1].endswith('remove it')


def test_an_entry_that_was_written_without_sums_is_read(tmp_path, card):
  store.write(tmp_path / 'run', PHI, card)
  (tmp_path / 'run' / 'card.json').write_text(json.dumps(card))
  assert store.read(tmp_path / 'run').phi.keys() == PHI.keys()
  (tmp_path / 'run' / 'phi.safetensors').write_bytes(b'nothing of the kind')
  with pytest.raises(ValueError, match='phi.safetensors: expected safetensors'):
    store.read(tmp_path / 'run')


def test_a_foreign_entry_is_refused_with_its_shapes(tmp_path, card, small):
  store.write(tmp_path / 'run', PHI, card | {'fingerprint': None})
  with pytest.raises(ValueError) as error:
    store.check_backbone(store.read(tmp_path / 'run'), small)
  for part in ('unknown', small.fingerprint[:16], 'width 16', '(2, 3)'):
    assert part in str(error.value)


def test_prefix_keys_keep_their_positions(tmp_path, card, small):
  store.write(tmp_path / 'run', PHI, card | {'prefix_positions': True})
  entry = store.read(tmp_path / 'run')
  with pytest.raises(ValueError, match='Load it with prefix_positions=True'):
    store.check_backbone(entry, small)
  config = small.config.replace(prefix_positions=True)
  store.check_backbone(entry, small._replace(config=config))
