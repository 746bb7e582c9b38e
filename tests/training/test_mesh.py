"""Meshes: what comes out does not depend on them; weights are really spread."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from prompt_subspace.backbone import weights
from prompt_subspace.training import mesh
from tests.training import mesh_program

ROOT = pathlib.Path(__file__).parents[2]
MESHES = ('1,8,1', '1,2,4', '8,1,1', '2,2,2')


def run(name, folder, vocabulary, *meshes):
  """What the program prints, on 8 devices."""
  flags = os.environ.get('XLA_FLAGS', '')
  found = subprocess.run(
    [sys.executable, '-m', 'tests.training.mesh_program']
    + [str(vocabulary.path), str(folder), name, *meshes],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': f'{flags} --xla_force_host_platform_device_count=8',
    },
  )
  assert found.returncode == 0, found.stderr[-3000:]
  return json.loads(found.stdout.splitlines()[-1])


def same(found, wanted):
  assert len(found) == len(wanted) == mesh_program.ROWS
  for x, y in zip(found, wanted, strict=True):
    for name in ('phi', 'loss', 'validation'):
      # losses are of the order of 6, phi of 0.3
      np.testing.assert_allclose(x[name], y[name], rtol=0, atol=1e-5)
    np.testing.assert_equal(x['test'], y['test'])


@pytest.mark.parametrize(
  ('name', 'meshes'),
  [
    ('prompt', MESHES),
    # the only one whose phi is divided, too
    ('full', ('1,2,4', '2,2,2')),
    ('lora', MESHES[-1:]),
    ('subspace', MESHES[-1:]),
    ('maml', MESHES[-1:]),
  ],
)
def test_every_mesh_gives_what_one_device_gives(name, meshes, small, tmp_path):
  out = run(name, tmp_path, small.vocabulary, *meshes)
  wanted = out['one']['rows']
  # the rows differ, and they learn
  losses = [row['loss'] for row in wanted]
  assert len({tuple(x) for x in losses}) == mesh_program.ROWS
  assert all(x[0] != x[-1] for x in losses)
  for label in meshes:
    same(out[label]['rows'], wanted)
    parts = int(label.split(',')[2])
    # norms and position tables are small and lie whole
    assert 1 / parts <= out[label]['share'] < 1 / parts + 0.02
  if name == 'prompt':
    same(out['generation']['rows'], out['one, generation']['rows'])
  if len(meshes) > 1:
    # begun on one mesh, ended on another, and on one device
    same(out['moved']['rows'], wanted)
    same(out['gathered']['rows'], wanted)


def test_sizes_are_those_of_the_devices():
  devices = jax.devices() * 8  # as many names as devices would have
  with pytest.raises(ValueError, match='expected row x data x model = 8'):
    mesh.make((2, 2, 4), devices)
  assert mesh.make(devices=jax.devices()[:1]) is None
  with pytest.raises(ValueError, match='three numbers'):
    mesh.parse('4,2')


def test_use_ends():
  with mesh.use((3, 1, 1)), pytest.raises(ValueError, match='Change --mesh'):
    mesh.make(devices=jax.devices()[:1])
  assert mesh.make(devices=jax.devices()[:1]) is None


@pytest.mark.parametrize(
  ('path', 'shape', 'wanted'),
  [
    ('token_embedder/embedding', (256, 16), ('model', None)),
    ('encoder/layers_0/attention/query/kernel', (16, 32), (None, 'model')),
    ('encoder/layers_0/attention/out/kernel', (32, 16), ('model', None)),
    ('decoder/layers/mlp/wi_0/kernel', (2, 16, 24), (None, None, 'model')),
    ('decoder/layers_1/mlp/wo/kernel', (24, 16), ('model', None)),
    ('decoder/logits_dense/kernel', (16, 256), (None, 'model')),
    ('encoder/encoder_norm/scale', (16,), (None,)),
    # 4 does not divide 30
    ('decoder/layers_1/mlp/wo/kernel', (30, 16), (None, None)),
  ],
)
def test_weights_lie_by_their_logical_axes(path, shape, wanted):
  there = jax.sharding.AbstractMesh((1, 2, 4), mesh.AXES)
  assert tuple(mesh.weight_spec(path, shape, there)) == wanted


def test_load_is_that_of_one_device(small, tmp_path):
  weights.write(tmp_path, small)
  one = jax.sharding.Mesh(
    np.asarray(jax.devices()[:1]).reshape(1, 1, 1), mesh.AXES
  )
  for changes in ({}, {'scan_layers': True}):
    found = mesh.load(str(tmp_path), mesh=one, **changes)
    wanted = weights.load(tmp_path, **changes)
    assert found.fingerprint == wanted.fingerprint
    assert found.config == wanted.config
    jax.tree.map(np.testing.assert_array_equal, found.weights, wanted.weights)
