"""Plans: what a device holds, and gin files for T5X are read without T5X."""

import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import weights
from prompt_subspace.meta import algorithms
from prompt_subspace.reparams import subspace
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import plan, t5x_needs
from tests import tiny

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = tiny.CONFIG.replace(vocab_size=64, weight_dtype='bfloat16')


def one_device():
  return meshes.lay((1, 1, 1), jax.devices()[:1])


def bytes_of(config, size=4):
  return size * trees.size(weights.expected(config))


@pytest.mark.parametrize(
  ('method', 'algorithm'),
  [
    (deltas.prompt(length=3, start='vocabulary'), plan.algorithms.TUNING),
    (deltas.full(), plan.algorithms.TUNING),
    (
      subspace.subspace(deltas.lora(rank=2), reparams.linear(), 5),
      algorithms.maml(inner_rate=0.1),
    ),
  ],
  ids=['prompt', 'full', 'maml in a subspace'],
)
def test_what_is_held_is_counted(method, algorithm):
  step = plan.Step(
    CONFIG,
    method,
    algorithm,
    rows=2,
    batch_size=8,
    inputs=6,
    targets=4,
    shots=2,
  )
  found = plan.make(step, one_device())
  assert found.weights == bytes_of(CONFIG, 2)
  setting = tiny.setting(CONFIG)
  phi = deltas.bound(method, setting).init(jax.random.key(0), setting)
  # two rows, and the best phi of each
  assert found.phi == 2 * 2 * 4 * trees.size(phi)
  assert found.devices == 1 and not found.collectives
  assert found.operations > 0 and found.temporaries > 0
  held = found.weights + found.phi + found.optimizer + found.constants
  assert found.total == held + found.temporaries
  assert (found.constants > 0) == (method.name == 'subspace')
  text = plan.describe(step, found, one_device(), memory=1e-6)
  assert 'it DOES NOT fit' in text and 'bfloat16' in text
  assert 'it fits' in plan.describe(step, found, one_device(), memory=1)


def test_operations_of_a_prompt_are_six_a_weight_and_token():
  """Forward, again (remat), and backward, without gradients of weights."""
  config = CONFIG.replace(
    emb_dim=64, mlp_dim=256, head_dim=32, remat=True, num_decoder_layers=1
  )
  step = plan.Step(
    config,
    deltas.prompt(length=3, start='uniform'),
    batch_size=4,
    inputs=13,
    targets=1,
  )
  found = plan.make(step, one_device())
  flat = trees.flatten(weights.expected(config))
  inside = sum(
    x.size
    for p, x in flat.items()
    if 'encoder/layers' in p and p.endswith('kernel')
  )
  floor = 6 * inside * 4 * (13 + 3)
  # the last product of a layer is not computed again; attention and the decoder
  # with its head come on top
  assert 0.9 * floor < found.operations < 1.4 * floor


def test_gin_files_for_t5x_are_read_without_it(monkeypatch):
  monkeypatch.chdir(ROOT)
  text = t5x_needs.for_plan(['gin/mpt_xxl.gin'], bindings=['SHOTS = 8'])
  imports = [x for x in text.splitlines() if x.startswith(('from', 'import'))]
  assert not [x for x in imports if re.search(r't5x|seqio|tasks|main', x)]
  assert t5x_needs.partitions(text) == 4
  # ours stay, T5X's go
  assert 'algorithms.maml:' in text and 'deltas.prompt.length = 100' in text
  assert 'PhiCheckpointer' not in text and 'seqio_streams.' not in text


@pytest.mark.parametrize(
  ('name', 'size'),
  [
    ('gs://x/t5_1_1_lm100k_xxl/checkpoint_1100000', 'xxl'),
    ('/models/t5_1_1_small', 'small'),
    ('mini', 'mini'),
  ],
)
def test_the_shape_is_that_of_the_name(name, size):
  assert plan.shape_of(name) == configs.sized(size)


def test_an_unknown_shape_is_refused():
  with pytest.raises(ValueError, match='backbone: expected a folder, or'):
    plan.shape_of('gs://x/unknown')


def command(*words):
  found = subprocess.run(
    [sys.executable, '-m', 'prompt_subspace.check', '--plan', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  return found.returncode, found.stdout, found.stderr


def test_the_command_plans_gin_files_for_t5x():
  code, out, errors = command(
    '--gin_file=gin/mpt_xxl.gin',
    '--gin_file=gin/sizes/small.gin',
    '--mesh=1,2,2',
    '--memory=16',
    '--gin.TASK_FEATURE_LENGTHS={"inputs": 32, "targets": 4}',
  )
  assert code == 0, errors
  assert 'row 1, data 2, model 2: 4 devices' in out
  assert 'prompt, maml: 1 rows, 32 examples each' in out
  assert '32 input and 4 target tokens' in out
  half = bytes_of(configs.sized('small'), 2) / 2 / 2**20
  said = float(re.search(r'weights +([\d.]+) MiB', out)[1])
  assert said == pytest.approx(half, rel=0.01)
  # a sum for each part of a layer, there and back
  assert int(re.search(r'all-reduce +(\d+) a step', out)[1]) > 100
  assert 'it fits' in out


def test_the_command_plans_the_local_engine():
  code, out, errors = command(
    '--gin_file=gin/demo.gin', '--mesh=2,1,2', '--size=base', '--rows=4'
  )
  assert code == 0, errors
  assert '== sources, prompt' in out and '== targets, prompt' in out
  assert '4 rows' in out and 'row 2, data 1, model 2' in out
  whole = bytes_of(configs.sized('base')) / 2**30
  said = float(re.search(r'weights +([\d.]+) GiB', out)[1])
  assert said == pytest.approx(whole / 2, rel=0.02)
  code, _, errors = command(
    '--gin_file=gin/demo.gin', '--mesh=2,1,2', '--rows=3'
  )
  assert code == 2 and 'rows: expected a multiple of 2' in errors
