"""Files of others: written as they expect them, read without pickles."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from prompt_subspace.bank import exchange, store

PROMPT = np.arange(12, dtype=np.float32).reshape(3, 4)
LORA = {'encoder': {'layers_0': {'lora_a': np.ones((4, 2), np.float32).T}}}


def entry(phi, method='prompt'):
  card = {'task': 'reviews', 'method': method, 'settings': {'length': 3}}
  return store.Entry('one', phi, card)


def test_a_prompt_goes_to_npy_and_back(tmp_path):
  path = tmp_path / 'out' / 'one.npy'
  exchange.to_npy(entry({'encoder': PROMPT}), path)
  x = np.load(path, allow_pickle=False)
  assert x.dtype == np.float32
  np.testing.assert_array_equal(x, PROMPT)
  found = exchange.from_npy(path)
  np.testing.assert_array_equal(found.phi['encoder'], PROMPT)
  assert (found.method, found.settings['length']) == ('prompt', 3)
  with pytest.raises(ValueError, match='--replace'):
    exchange.to_npy(entry({'encoder': 2 * PROMPT}), path)
  exchange.to_npy(entry({'encoder': 2 * PROMPT}), path, replace=True)
  np.testing.assert_array_equal(np.load(path), 2 * PROMPT)


@pytest.mark.parametrize(
  'one',
  [entry(LORA, 'lora'), entry({'encoder': PROMPT, 'decoder': PROMPT})],
)
def test_npy_holds_one_prompt_alone(one, tmp_path):
  with pytest.raises(ValueError, match='one: .npy holds a prompt .* alone'):
    exchange.to_npy(one, tmp_path / 'one.npy')
  assert not list(tmp_path.iterdir())


def test_any_delta_goes_to_safetensors(tmp_path):
  path = tmp_path / 'one.safetensors'
  exchange.to_safetensors(entry(LORA, 'lora'), path)
  with safe_open(path, 'np') as file:
    assert json.loads(file.metadata()['card'])['task'] == 'reviews'
    assert list(file.keys()) == ['encoder/layers_0/lora_a']
    found = file.get_tensor('encoder/layers_0/lora_a')
  np.testing.assert_array_equal(found, LORA['encoder']['layers_0']['lora_a'])


@pytest.mark.parametrize('dtype', [np.float16, np.float64])
def test_other_precisions_become_float32(dtype, tmp_path):
  np.save(tmp_path / 'a.npy', PROMPT.astype(dtype).T)
  found = exchange.from_npy(tmp_path / 'a.npy').phi['encoder']
  assert found.dtype == np.float32 and found.flags.c_contiguous
  np.testing.assert_array_equal(found, PROMPT.T)


class Trap:
  """Unpickling it would write a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), 'w'))


def test_pickles_are_never_read(tmp_path):
  mark, path = tmp_path / 'sprung', tmp_path / 'a.npy'
  np.save(path, np.array([Trap(mark)]), allow_pickle=True)
  with pytest.raises(ValueError, match='a.npy: expected a .npy file'):
    exchange.from_npy(path)
  assert not mark.exists()


@pytest.mark.parametrize(
  ('x', 'message'),
  [
    (PROMPT[None], r'\[P, D\].*\(1, 3, 4\)'),
    (PROMPT.astype(int), r'found int64 \(3, 4\)'),
    (PROMPT + np.inf, 'expected finite'),
  ],
)
def test_what_is_no_prompt_is_refused(x, message, tmp_path):
  np.save(tmp_path / 'a.npy', x)
  with pytest.raises(ValueError, match=message):
    exchange.from_npy(tmp_path / 'a.npy')


def test_what_is_no_npy_file_is_refused(tmp_path):
  (tmp_path / 'text').write_text('nothing of the kind')
  (tmp_path / 'empty').touch()
  np.savez(tmp_path / 'many.npz', PROMPT)
  for name in ('text', 'empty', 'many.npz'):
    with pytest.raises(ValueError, match=f'{name}: expected a'):
      exchange.from_npy(tmp_path / name)
  with pytest.raises(OSError, match='nosuch'):
    exchange.from_npy(tmp_path / 'nosuch')
