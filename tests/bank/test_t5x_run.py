"""The folder of a T5X run becomes a bank entry that predicts."""

import json

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.backbone import weights
from prompt_subspace.bank import __main__ as command
from prompt_subspace.bank import store, t5x_run
from prompt_subspace.reparams import subspace
from tests.backbone.test_weights import write_t5x

METHODS = {
  'prompt': deltas.prompt(length=3, decoder_length=2),
  'lora': deltas.lora(rank=2, projections=('query', 'out')),
  'subspace': subspace.subspace(
    deltas.prompt(length=3), reparams.linear(), 7, spread=0.1
  ),
}


@pytest.fixture
def run(tmp_path, small):
  """(method) -> (folder of a run of two checkpoints, the newest phi)."""
  home = tmp_path / 'backbone'
  weights.write(home, small)

  def make(name):
    method = deltas.bound(METHODS[name], weights.setting(small))
    folder = tmp_path / f'run_{name}'
    folder.mkdir()
    for step in (9, 10):
      phi = method.init(jax.random.key(step), weights.setting(small))
      phi = jax.tree.map(np.asarray, phi)
      write_t5x(folder / f'checkpoint_{step}', phi)
    card = {
      'method': method.name,
      'settings': dict(method.settings),
      'backbone': str(home),
      'vocabulary': 'gone.model',
      'algorithm': 'maml',
      'prefix_positions': False,
    }
    # as T5X's run does it, at every checkpoint
    t5x_run.write_card(folder, card)
    t5x_run.write_card(folder, card)
    return folder, phi

  return make


@pytest.mark.parametrize('name', METHODS)
def test_the_newest_phi_of_a_run_is_added(name, run, small, tmp_path, capsys):
  folder, phi = run(name)
  bank = tmp_path / 'bank'
  words = ['--bank', str(bank), 'add', '--t5x', str(folder), '--task', 'tea']
  assert command.main(words) == 0, capsys.readouterr().err
  entry = store.read(bank / f'run_{name}')
  jax.tree.map(np.testing.assert_array_equal, entry.phi, phi)
  assert entry.card['method'] == name
  assert entry.card['steps'] == 10
  assert entry.card['algorithm'] == 'maml'
  store.check_backbone(entry, small)


def test_an_early_checkpoint_is_the_embedding(run, tmp_path, capsys):
  folder, newest = run('prompt')
  bank = tmp_path / 'bank'
  words = ['--bank', str(bank), 'add', '--task', 'tea', '--t5x', str(folder)]
  early = ['--embedding', str(folder / 'checkpoint_9')]
  assert command.main([*words, *early]) == 0, capsys.readouterr().err
  entry = store.read(bank / 'run_prompt')
  first, _ = t5x_run.read(folder / 'checkpoint_9')
  jax.tree.map(np.testing.assert_array_equal, entry.phi, newest)
  jax.tree.map(np.testing.assert_array_equal, entry.embedding, first.phi)
  assert (entry.card['steps'], entry.card['embedding_step']) == (10, 9)
  other, _ = run('lora')
  early = ['--embedding', str(other / 'checkpoint_9')]
  assert command.main([*words, '--name', 'b', *early]) == 2
  assert 'embedding: expected a checkpoint of a run' in capsys.readouterr().err
  (tmp_path / 'a.npy').write_bytes(b'')
  words = ['--bank', str(bank), 'add', '--task', 'tea', str(tmp_path / 'a.npy')]
  assert command.main([*words, *early]) == 2
  assert 'embedding: expected --t5x' in capsys.readouterr().err


def test_one_checkpoint_can_be_named(run):
  folder, newest = run('lora')
  found, _ = t5x_run.read(folder / 'checkpoint_9')
  assert found.facts['steps'] == 9
  differ = [
    not np.array_equal(x, trees.flatten(newest)[path])
    for path, x in trees.flatten(found.phi).items()
  ]
  assert any(differ)


def test_mistakes_are_named(run, tmp_path, capsys):
  folder, _ = run('prompt')
  with pytest.raises(ValueError, match='expected the MODEL_DIR of a T5X run'):
    t5x_run.read(tmp_path / 'nothing')
  bank = ['--bank', str(tmp_path / 'bank'), 'add', '--task', 'tea']
  assert command.main(bank) == 2
  assert 'expected a .npy file or --t5x' in capsys.readouterr().err
  path = folder / t5x_run.CARD
  card = json.loads(path.read_text())
  path.write_text(json.dumps({**card, 'settings': {'length': 4}}))
  assert command.main([*bank, '--t5x', str(folder)]) == 2
  assert 'expected shape (4, 16)' in capsys.readouterr().err
  del card['settings']
  path.write_text(json.dumps(card))
  with pytest.raises(ValueError, match=r"missing the fields \['settings'\]"):
    t5x_run.read(folder)
