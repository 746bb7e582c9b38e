"""Backbones that are read part by part equal those that are loaded whole."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import huggingface, stored, weights
from tests import tiny
from tests.backbone.test_weights import write_t5x

VOCABULARY = weights.BUNDLED['mini'] / 'vocab.model'
WIDE = tiny.CONFIG.replace(vocab_size=8192)


@pytest.fixture
def checkpoint(tmp_path):
  """A T5X checkpoint of random weights."""
  write_t5x(tmp_path / 'checkpoint_3', tiny.frozen(WIDE))
  return tmp_path / 'checkpoint_3'


@pytest.mark.parametrize('kind', [tiny.CONFIG, tiny.TIED], ids=['1.1', '1.0'])
def test_a_hugging_face_folder_is_read_as_load_does(kind, tmp_path):
  config = kind.replace(vocab_size=8192)
  huggingface.write(tmp_path, tiny.frozen(config), config)
  found, loaded = stored.find(str(tmp_path), VOCABULARY), weights.load(tmp_path)
  assert found.config == loaded.config
  placed = stored.place(found, whole(found.shapes))
  jax.tree.map(np.testing.assert_array_equal, placed, dict(loaded.weights))
  assert stored.fingerprint(found) == loaded.fingerprint
  # a part of what is stored turned over, and of what is not
  for path in ('encoder/layers_1/mlp/wo/kernel', 'token_embedder/embedding'):
    part = stored.read(found, path, (slice(3, 9), slice(0, 5)))
    expected = trees.flatten(loaded.weights)[path][3:9, :5]
    np.testing.assert_array_equal(part, expected)


def whole(tree):
  return jax.tree.map(
    lambda x: jax.sharding.SingleDeviceSharding(jax.devices()[0]), tree
  )


def test_a_t5x_checkpoint_is_read_as_load_does(checkpoint):
  found = stored.find(str(checkpoint), VOCABULARY)
  loaded = weights.load(checkpoint)
  assert found.config == loaded.config
  placed = stored.place(found, whole(found.shapes))
  jax.tree.map(np.testing.assert_array_equal, placed, dict(loaded.weights))
  assert stored.fingerprint(found) == loaded.fingerprint
  path = 'encoder/layers_1/mlp/wo/kernel'
  part = stored.read(found, path, (slice(3, 9), slice(0, 5)))
  expected = trees.flatten(loaded.weights)[path][3:9, :5]
  np.testing.assert_array_equal(part, expected)


def test_folders_of_ours_are_read_as_load_does():
  found = stored.find('mini', weight_dtype='bfloat16')
  placed = stored.place(found, whole(found.shapes))
  loaded = weights.load('mini', weight_dtype='bfloat16')
  jax.tree.map(np.testing.assert_array_equal, placed, dict(loaded.weights))
  setting = stored.setting(found, placed['token_embedder']['embedding'])
  assert setting.vocab_limit == weights.setting(loaded).vocab_limit


def test_what_is_missing_or_broken_is_named(checkpoint, tmp_path):
  with pytest.raises(ValueError, match='vocabulary: expected a sentencepiece'):
    stored.find(str(checkpoint))
  with pytest.raises(ValueError, match='scan_layers: expected False'):
    stored.find('mini', scan_layers=True)
  lost = 'target.encoder.layers_0.mlp.wo.kernel'
  (checkpoint / lost).rename(tmp_path / 'away')
  with pytest.raises(ValueError, match=f'{lost} for encoder/layers_0/mlp/wo'):
    stored.find(str(checkpoint), VOCABULARY)


def test_a_checkpoint_that_lacks_a_leaf_is_refused(tmp_path):
  tree = jax.tree.map(lambda x: x, tiny.frozen(WIDE))
  del tree['decoder']['layers_1']['mlp']['wo']
  write_t5x(tmp_path, tree)
  with pytest.raises(ValueError, match='missing decoder/layers_1/mlp/wo'):
    stored.find(str(tmp_path), VOCABULARY)


def test_values_that_are_not_finite_are_refused(tmp_path):
  tree = jax.tree.map(np.array, tiny.frozen(WIDE))
  tree['decoder']['layers_1']['mlp']['wo']['kernel'][2, 3] = np.nan
  write_t5x(tmp_path, tree)
  found = stored.find(str(tmp_path), VOCABULARY)
  with pytest.raises(ValueError, match='wo/kernel has values that are not'):
    stored.place(found, whole(found.shapes))


@pytest.mark.parametrize('config', [tiny.CONFIG, tiny.TIED])
def test_every_weight_has_a_name_for_each_axis(config):
  for path, x in trees.flatten(weights.expected(config)).items():
    assert len(stored.axes(path)) == x.ndim, path
  assert stored.axes('encoder/layers_3/attention/out/kernel') == (
    'joined_kv',
    'embed',
  )
  with pytest.raises(ValueError, match='expected the path of a T5'):
    stored.axes('encoder/layers_3/conv/kernel')


def test_a_genuine_t5x_checkpoint_is_read(real_data):
  folder = real_data / 'checkpoints' / 't5x_t5_1_1_tiny' / 'checkpoint_3'
  found = stored.find(str(folder), real_data / 'vocab' / 't5.model')
  placed = stored.place(found, whole(found.shapes))
  loaded = weights.load(folder)
  assert trees.fingerprint(placed) == loaded.fingerprint
  assert stored.fingerprint(found) == loaded.fingerprint


MEMORY = """
import resource, sys
import jax
import numpy as np
from prompt_subspace import trees
from prompt_subspace.training import mesh

def peak():
  return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

jax.block_until_ready(jax.device_put(np.zeros(8), jax.devices()[0]))
before = peak()
found = mesh.load(sys.argv[1], sys.argv[2], mesh.make((1, 1, 4)))
print(peak() - before, trees.nbytes(found.weights), found.fingerprint)
"""


def test_shards_stream_onto_the_devices(tmp_path):
  """A host holds what its devices hold, and little beside it."""
  config = configs.sized('small', vocab_size=8192)
  made = weights.random(config)
  huggingface.write(tmp_path, made.weights, config)
  size, count = shard(tmp_path, 4)
  assert count == 4
  found = subprocess.run(
    [sys.executable, '-c', MEMORY, str(tmp_path), str(VOCABULARY)],
    cwd=pathlib.Path(__file__).parents[2],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
    },
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr[-2000:]
  more, held, mark = found.stdout.split()
  assert mark == made.fingerprint
  assert int(held) > 2.5 * size
  assert int(more) < int(held) + 1.2 * size


def shard(folder, count):
  """Divides a Hugging Face folder; returns the largest file's bytes."""
  whole = folder / 'model.safetensors'
  held = safetensors_numpy.load_file(whole)
  whole.unlink()
  names, places = sorted(held), {}
  for i in range(count):
    file = f'model-{i}.safetensors'
    part = {n: held[n] for n in names[i::count]}
    places |= dict.fromkeys(part, file)
    safetensors_numpy.save_file(part, folder / file)
  index = json.dumps({'weight_map': places})
  (folder / 'model.safetensors.index.json').write_text(index)
  sizes = [p.stat().st_size for p in folder.glob('model-*')]
  return max(sizes), len(sizes)
