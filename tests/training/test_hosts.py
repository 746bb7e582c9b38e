"""Two processes as one: they end with what one process ends with."""

import csv
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

from prompt_subspace import trees
from prompt_subspace.backbone import weights
from prompt_subspace.bank import store
from prompt_subspace.training import hosts

ROOT = pathlib.Path(__file__).parents[2]
MACROS = {
  'TASKS': ['moods', 'emails'],
  'METHODS': ['prompt', 'lora'],
  'SEEDS': [0],
  'RATES': [0.03, 0.01],
  'STEPS': 6,
  'SHOTS': 4,
}


def command(folder, out, *more):
  """A short sweep on the embedded tasks; moods has labels."""
  words = [sys.executable, '-m', 'prompt_subspace.run']
  words += ['--gin_file=gin/tune.gin', f'--gin.OUT={str(out)!r}']
  words += [f'--gin.{name}={value!r}' for name, value in MACROS.items()]
  words += [f'--gin.BACKBONE={str(folder)!r}', '--gin.tune.tune.max_input=24']
  words += ['--gin.spec.Settings.test_examples=8']
  words += ['--gin.spec.Settings.evaluate_every=3']
  return [*words, *more]


def started(words):
  return subprocess.Popen(
    words,
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def ended(*processes):
  """Waits for all; returns what each wrote to stdout."""
  out = []
  for process in processes:
    said, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    out.append(said)
  return out


def free_port() -> int:
  with socket.socket() as found:
    found.bind(('localhost', 0))
    return found.getsockname()[1]


def table(out):
  with open(out / 'results.csv', encoding='utf-8') as file:
    return [
      {n: v for n, v in row.items() if n != 'seconds'}
      for row in csv.DictReader(file)
    ]


@pytest.fixture(scope='module')
def alone(small, tmp_path_factory):
  """What one process makes, and the backbone that all take."""
  folder = tmp_path_factory.mktemp('alone')
  weights.write(folder / 'small', small)
  ended(started(command(folder / 'small', folder / 'out')))
  return folder


@pytest.mark.parametrize('mesh', ['2,1,1', '1,1,2'])
def test_two_processes_end_as_one_does(mesh, alone, tmp_path):
  place = f'localhost:{free_port()}'
  said = ended(
    *[
      started(
        command(
          alone / 'small',
          tmp_path,
          f'--mesh={mesh}',
          f'--processes={place},2,{i}',
        )
      )
      for i in range(2)
    ]
  )
  row, data, model = mesh.split(',')
  assert f'row {row}, data {data}, model {model}' in said[0]
  assert 'average' in said[0]
  # the first alone speaks
  # (the library that connects them has a line of its own)
  assert not [x for x in said[1].splitlines() if 'Gloo' not in x]
  assert table(tmp_path) == table(alone / 'out')
  names = store.names(alone / 'out' / 'bank')
  assert store.names(tmp_path / 'bank') == names and len(names) == 8
  for name in names:
    found, wanted = (
      trees.flatten(store.read(folder / 'bank' / name).phi)
      for folder in (tmp_path, alone / 'out')
    )
    assert set(found) == set(wanted)
    for path in found:
      np.testing.assert_allclose(found[path], wanted[path], rtol=0, atol=1e-5)
  left = [p.name for p in tmp_path.iterdir() if p.name[0] == '.']
  assert not left, 'the mark that all processes see the folder is gone'


@pytest.mark.parametrize(
  'text', ['two', 'localhost,2,0', 'localhost:1,2,2', 'localhost:1,2']
)
def test_who_is_who_must_be_said(text):
  with pytest.raises(ValueError, match='expected auto, or HOST:PORT'):
    hosts.join(text)


def test_one_process_agrees_with_itself(tmp_path):
  assert hosts.leads()
  assert [hosts.agree(True), hosts.agree(3)] == [1, 3]
  hosts.wait('nothing')
  hosts.check_shared(tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
