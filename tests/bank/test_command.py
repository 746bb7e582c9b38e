"""python -m prompt_subspace.bank: every command, and its mistakes."""

import csv
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from prompt_subspace import deltas, predict
from prompt_subspace.backbone import weights
from prompt_subspace.bank import __main__ as command
from prompt_subspace.bank import store

random = np.random.default_rng(0)
PROMPTS = {
  name: random.standard_normal((3, 16)).astype(np.float32) for name in 'abc'
}


@pytest.fixture
def run(tmp_path, capsys):
  """(arguments) -> exit code, output, errors."""

  def call(*arguments):
    capsys.readouterr()
    code = command.main(['--bank', str(tmp_path / 'bank'), *arguments])
    return code, *capsys.readouterr()

  return call


@pytest.fixture
def npy(tmp_path):
  """Folder with a file of each prompt."""
  folder = tmp_path / 'files'
  folder.mkdir()
  for name, x in PROMPTS.items():
    np.save(folder / f'{name}.npy', x)
  return folder


@pytest.fixture
def filled(run, npy):
  """Commands on a bank that holds the prompts."""
  for name in PROMPTS:
    arguments = ('--task', f'task {name}', '--backbone', 'T5-small')
    code, out, error = run('add', str(npy / f'{name}.npy'), *arguments)
    assert (code, out) == (0, f'added {name}: prompt for task {name}\n')
    assert 'can be compared but not used' in error
  return run


@pytest.fixture
def bank(tmp_path):
  return tmp_path / 'bank'


def test_a_prompt_is_added_with_what_is_known_of_it(filled, bank):
  entry = store.read(bank / 'a')
  np.testing.assert_array_equal(entry.phi['encoder'], PROMPTS['a'])
  assert entry.card['method'] == 'prompt'
  assert entry.card['backbone'] == 'T5-small'
  assert entry.card['fingerprint'] is None
  assert (entry.card['task'], entry.card['origin']) == ('task a', 'a.npy')


def test_ls_prints_a_line_for_each(filled, bank):
  card = {
    'task': 'reviews',
    'method': 'lora',
    'settings': {},
    'backbone': 'mini',
    'fingerprint': '0123456789abcdef',
    'seed': 2,
    'rate': 0.01,
    'steps': 300,
    'validation': 71.25,
    'test': float('nan'),
  }
  store.write(bank / 'trained', {'x': np.ones(1, np.float32)}, card)
  code, out, _ = filled('ls')
  lines = [line.split() for line in out.splitlines()]
  assert code == 0 and lines[0] == [
    *('entry', 'task', 'method', 'seed', 'rate', 'steps', 'validation'),
    *('test', 'backbone'),
  ]
  assert lines[1] == ['a', 'task', 'a', 'prompt', *'-----', 'T5-small']
  assert lines[4] == [
    *('trained', 'reviews', 'lora', '2', '0.01', '300', '71.25', 'nan'),
    *('mini', '01234567'),
  ]


def test_ls_lists_what_it_can_and_names_a_damaged_card(filled, bank):
  (bank / 'a' / 'card.json').write_text('{')
  code, out, error = filled('ls')
  assert code == 1
  assert [line.split()[0] for line in out.splitlines()] == ['entry', 'b', 'c']
  assert re.match(r'error: .*a/card.json: expected a card', error)


def test_show_prints_card_and_shapes(filled):
  code, out, _ = filled('show', 'b')
  card, _, arrays = out.partition('\nphi\n')
  assert code == 0 and json.loads(card)['task'] == 'task b'
  assert arrays == 'encoder  (3, 16)  float32\n'


def test_similar_ranks_and_says_what_it_compared(filled, npy):
  code, out, error = filled('similar', 'a', '--top', '1')
  assert (code, error) == (0, 'compared: best checkpoints\n')
  header, line = out.splitlines()
  assert header.split() == ['rank', 'entry', 'task', 'similarity', 'compared']
  a, b, c = (PROMPTS[n].mean(axis=0) for n in 'abc')
  scores = {
    n: x @ a / np.linalg.norm(x) / np.linalg.norm(a)
    for n, x in (('b', b), ('c', c))
  }
  best = max(scores, key=scores.get)
  assert line.split() == [
    *('1', best, 'task', best, f'{scores[best]:.4f}', 'phi'),
  ]
  # a file is no entry, even of the same name
  found = filled('similar', str(npy / 'a.npy'), '--csv', '--metric', 'token')
  rows = list(csv.DictReader(io.StringIO(found[1])))
  assert [row['rank'] for row in rows] == ['1', '2', '3']
  assert rows[0]['entry'] == 'a' and rows[0]['task'] == 'task a'


def test_similar_says_what_it_left_out(filled, npy):
  more = ('--task', 'x', '--backbone', 'other', '--name', 'd')
  filled('add', str(npy / 'a.npy'), *more)
  code, out, error = filled('similar', 'a')
  assert code == 0 and 'left out: 1 of another backbone\n' in error
  code, out, error = filled('similar', 'a', '--foreign')
  assert out.splitlines()[1].split()[:2] == ['1', 'd'] and 'left' not in error
  assert filled('similar', str(npy / 'b.npy'))[0] == 2
  assert filled('similar', str(npy / 'b.npy'), '--foreign')[0] == 0


def test_nothing_is_overwritten_unasked(filled, npy, bank):
  before = store.read(bank / 'a')
  mistake = ('add', str(npy / 'b.npy'), '--task', 'x', '--name', 'a')
  code, out, error = filled(*mistake)
  assert (code, out) == (2, '') and error.startswith('error: ')
  assert 'expected a new name' in error and '--replace' in error
  np.testing.assert_equal(store.read(bank / 'a'), before)
  assert filled(*mistake, '--replace')[0] == 0
  np.testing.assert_array_equal(
    store.read(bank / 'a').phi['encoder'], PROMPTS['b']
  )


@pytest.mark.parametrize('form', ['npy', 'safetensors', 'peft'])
def test_export_writes_once(filled, tmp_path, form):
  out = tmp_path / 'out'
  order = ('export', 'a', str(out), '--format', form)
  assert filled(*order)[:2] == (0, f'wrote {out}\n')
  code, _, error = filled(*order)
  assert code == 2 and '--replace' in error
  assert filled(*order, '--replace')[0] == 0


def test_export_and_import_give_the_same_prompt(filled, tmp_path, bank):
  filled('export', 'a', str(tmp_path / 'out'), '--format', 'peft')
  order = ('import', str(tmp_path / 'out'), '--task', 'x', '--name', 'again')
  assert filled(*order)[0] == 0
  entry = store.read(bank / 'again')
  np.testing.assert_array_equal(entry.phi['encoder'], PROMPTS['a'])
  assert entry.card['backbone'] == 'T5-small'


def test_a_prompt_with_its_backbone_is_used(run, npy, bank, tmp_path, small):
  weights.write(tmp_path / 'small', small)
  folder = str(tmp_path / 'small')
  order = ('--task', 'x', '--backbone', folder)
  code, _, error = run('add', str(npy / 'a.npy'), *order)
  assert (code, error) == (0, '')
  entry = store.read(bank / 'a')
  store.check_backbone(entry, small)
  (answer,) = predict.answer(
    [predict.Request(0, 'a fine day')], [entry], small, length=4
  )
  assert answer['task'] == 'x'
  np.save(npy / 'narrow.npy', PROMPTS['a'][:, :8])
  code, _, error = run('add', str(npy / 'narrow.npy'), *order)
  assert code == 2 and 'expected shape (3, 16), found (3, 8)' in error
  assert store.names(bank) == ['a']


def test_a_prefix_goes_out_only_if_its_positions_are_known(
  run, bank, tmp_path, small
):
  method = deltas.prefix(length=2, hidden=None, where=('decoder',))
  phi = {'decoder': {'pairs': np.ones((1, 2, 2, 12), np.float32)}}
  card = {
    'task': 'x',
    'method': 'prefix',
    'settings': dict(method.settings),
    'backbone': 'small',
    'fingerprint': small.fingerprint,
  }
  store.write(bank / 'p', phi, card)
  order = ('export', 'p', str(tmp_path / 'out'), '--format', 'peft')
  assert 'say so (--prefix_positions)' in run(*order)[2]
  assert run(*order, '--prefix_positions')[0] == 0
  weights.write(tmp_path / 'small', small)
  back = ('import', str(tmp_path / 'out'), '--task', 'x', '--name', 'q')
  assert 'Name the backbone' in run(*back)[2]
  assert run(*back, '--backbone', str(tmp_path / 'small'))[0] == 0
  entry = store.read(bank / 'q')
  np.testing.assert_array_equal(
    entry.phi['decoder']['pairs'], phi['decoder']['pairs']
  )
  with pytest.raises(ValueError, match='prefix_positions'):
    store.check_backbone(entry, small)


def test_verify_says_what_is_wrong(filled, bank):
  assert filled('verify') == (0, '3 entries, all as they were written\n', '')
  (bank / 'b' / 'phi.safetensors').unlink()
  code, out, _ = filled('verify')
  assert code == 1 and out.startswith('b: ') and len(out.splitlines()) == 1


MISTAKES = {
  'found no .*nosuch': ('--bank', 'nosuch', 'ls'),
  "entry: .*'a'.*nosuch": ('show', 'nosuch'),
  'query: expected an entry .* or a .npy': ('similar', 'nosuch'),
  'nosuch.npy': ('add', 'nosuch.npy', '--task', 'x'),
  'expected a PEFT folder': ('import', 'nosuch', '--task', 'x'),
  'name: expected letters': ('add', '{a}', '--task', 'x', '--name', '../x'),
}


@pytest.mark.parametrize('message', MISTAKES)
def test_mistakes_are_explained(filled, npy, message, bank):
  order = [word.format(a=npy / 'a.npy') for word in MISTAKES[message]]
  code, out, error = filled(*order)
  assert (code, out) == (2, '')
  assert error.startswith('error: ') and re.search(message, error)
  assert store.names(bank) == ['a', 'b', 'c']


def test_it_runs_as_a_module(filled, bank):
  found = subprocess.run(
    [sys.executable, '-m', 'prompt_subspace.bank', '--bank', bank, 'verify'],
    capture_output=True,
    text=True,
  )
  assert (found.returncode, found.stdout) == (
    0,
    '3 entries, all as they were written\n',
  )
