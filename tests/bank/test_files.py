"""Folders appear whole: whenever a process is killed, and beside others."""

import pathlib
import subprocess
import sys

import pytest
from etils import epath

from prompt_subspace.bank import files

KNOWN = ('array', 'more', 'seal')
OLD = {'array': b'old', 'more': b'old', 'seal': b'old'}
NEW = {'array': b'new' * 99, 'seal': b'new'}


@pytest.fixture(params=[True, False], ids=['moves folders', 'moves files'])
def kind(request, monkeypatch):
  """Both kinds of file system; on the second, moving a folder is an error."""
  monkeypatch.setattr(files, 'moves_folders', lambda path: request.param)
  if not request.param:

    def move(path, target):
      assert not path.is_dir(), 'an object store cannot do this at once'

    monkeypatch.setattr(type(epath.Path('/')), 'rename', move)
  return request.param


def held(folder):
  return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_folder_is_written_and_replaced(kind, tmp_path):
  folder = tmp_path / 'deep' / 'one'
  files.write_folder(folder, OLD, KNOWN)
  assert held(folder) == OLD
  with pytest.raises(ValueError, match='expected a new name.*--replace'):
    files.write_folder(folder, NEW, KNOWN)
  assert held(folder) == OLD
  files.write_folder(folder, NEW, KNOWN, replace=True)
  assert held(folder) == NEW
  assert [p.name for p in folder.parent.iterdir()] == ['one']


def test_what_is_not_ours_is_never_replaced(kind, tmp_path):
  (tmp_path / 'one').mkdir()
  (tmp_path / 'one' / 'thesis.txt').write_text('mine')
  (tmp_path / 'file').write_text('mine')
  for name, found in (('one', 'thesis.txt'), ('file', 'a file')):
    with pytest.raises(ValueError, match=f"holds .'{found}'.. Choose another"):
      files.write_folder(tmp_path / name, NEW, KNOWN, replace=True)
  assert (tmp_path / 'one' / 'thesis.txt').read_text() == 'mine'
  assert (tmp_path / 'file').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == 2


def test_a_file_is_written_and_replaced(kind, tmp_path):
  path = tmp_path / 'deep' / 'a.npy'
  files.write_file(path, b'1')
  with pytest.raises(ValueError, match='expected a new name.*--replace'):
    files.write_file(path, b'2')
  assert path.read_bytes() == b'1'
  files.write_file(path, b'3', replace=True)
  assert path.read_bytes() == b'3'
  assert [p.name for p in path.parent.iterdir()] == ['a.npy']
  with pytest.raises(ValueError, match='expected a new name'):
    files.write_file(tmp_path / 'deep', b'4', replace=True)


def test_a_failed_write_leaves_the_older_folder(tmp_path, monkeypatch):
  files.write_folder(tmp_path / 'one', OLD, KNOWN)

  def fail(path, content):
    raise OSError('disk full')

  monkeypatch.setattr(type(epath.Path('/')), 'write_bytes', fail)
  with pytest.raises(OSError, match='disk full'):
    files.write_folder(tmp_path / 'one', NEW, KNOWN, replace=True)
  with pytest.raises(OSError, match='disk full'):
    files.write_file(tmp_path / 'two', b'1')
  assert [p.name for p in tmp_path.iterdir()] == ['one']
  assert held(tmp_path / 'one') == OLD


def test_remote_paths_are_told_apart():
  assert files.moves_folders(epath.Path('/runs/bank'))
  assert not files.moves_folders(epath.Path('gs://runs/bank'))


# Kills a child process at every line that it runs, of this project's and of
# etils', and within every file that it writes. Prints what each left behind.
KILLED = """
import json, os, pathlib, sys
from etils import epath
from prompt_subspace.bank import files

place, moves = pathlib.Path(sys.argv[1]), sys.argv[2] == 'True'
files.moves_folders = lambda path: moves
OLD, NEW, KNOWN = json.loads(sys.argv[3])
OLD, NEW = ({n: x.encode() for n, x in y.items()} for y in (OLD, NEW))

def write_bytes(path, content):
  with path.open('wb') as file:
    file.write(content[: len(content) // 2])
    file.flush()
    file.write(content[len(content) // 2 :])

type(epath.Path('/')).write_bytes = write_bytes

def attempt(folder, limit):
  lines = 0
  def trace(frame, event, argument):
    nonlocal lines
    name = frame.f_code.co_filename
    if 'bank' not in name and 'epath' not in name and name != '<string>':
      return None
    lines += event == 'line'
    if lines >= limit:
      os.kill(os.getpid(), 9)
    return trace
  sys.settrace(trace)
  files.write_folder(folder, NEW, KNOWN, replace=True)
  sys.settrace(None)
  os._exit(0)

for before in (False, True):
  for limit in range(1, 2000):
    bank = place / f'{before}-{limit}'
    if before:
      files.write_folder(bank / 'one', OLD, KNOWN)
    child = os.fork()
    if not child:
      attempt(bank / 'one', limit)
    if os.waitpid(child, 0)[1] == 0:
      break
"""


@pytest.mark.parametrize('moves', [True, False])
def test_a_killed_write_leaves_nothing_half_done(moves, tmp_path):
  import json

  texts = [{name: x.decode() for name, x in one.items()} for one in (OLD, NEW)]
  subprocess.run(
    [
      sys.executable,
      '-c',
      KILLED,
      str(tmp_path),
      str(moves),
      json.dumps([*texts, KNOWN]),
    ],
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  seen = set()
  for bank in tmp_path.iterdir():
    folder = bank / 'one'
    # what makes a folder valid is there, and whole
    if (folder / 'seal').exists() and (folder / 'seal').read_bytes() in (
      OLD['seal'],
      NEW['seal'],
    ):
      state = held(folder)
      assert state in (OLD, NEW), bank.name
      seen.add(state['seal'])
    else:
      seen.add(None)
      if moves:
        # the older one is kept under a name that tells what it was
        aside = [p for p in bank.glob('.*') if files.replaced(p.name) == 'one']
        assert not folder.exists()
        assert bank.name.startswith('False') or held(aside[0]) == OLD
  assert seen == {OLD['seal'], NEW['seal'], None}
  assert len(list(tmp_path.iterdir())) > 100


WRITER = """
import sys
from prompt_subspace.bank import files
place, mark = sys.argv[1:]
sys.stdin.readline()
for i in range(40):
  content = {name: mark.encode() * 1000 for name in ('array', 'seal')}
  files.write_folder(f'{place}/{mark}-{i}', content, ('array', 'seal'))
  files.write_folder(f'{place}/one', content, ('array', 'seal'), replace=True)
"""


def test_processes_write_at_once(tmp_path):
  running = [
    subprocess.Popen(
      [sys.executable, '-c', WRITER, str(tmp_path), mark],
      stdin=subprocess.PIPE,
      cwd=pathlib.Path(__file__).parents[2],
    )
    for mark in 'abc'
  ]
  for process in running:
    process.stdin.write(b'\n')
    process.stdin.flush()
  assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
  assert len(list(tmp_path.iterdir())) == 121
  for folder in tmp_path.iterdir():
    contents = set(held(folder).values())
    assert len(contents) == 1 and len(contents.pop()) == 1000
