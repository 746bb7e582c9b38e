"""The model of T5X, with the real T5X; skipped where that is not installed."""

import pytest

pytest.importorskip(
  't5x', reason='T5X is not installed: README, "T5X and pods"'
)

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.core import unfreeze
from t5x import partitioning, utils

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import decode, stored, weights
from prompt_subspace.bank import __main__ as bank_command
from prompt_subspace.bank import store, t5x_run
from prompt_subspace.deltas import Frozen
from prompt_subspace.instance import methods as instance
from prompt_subspace.meta import algorithms
from prompt_subspace.reparams import subspace
from prompt_subspace.spot import leaderboard
from prompt_subspace.training import engine as engines
from prompt_subspace.training import features, optimizers, spec, t5x_model
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.unified import joint, stages
from prompt_subspace.vocabulary import Vocabulary
from tests.data import spot_examples

ROOT = pathlib.Path(__file__).parents[2]
VOCABULARY = weights.BUNDLED['mini'] / 'vocab.model'
CONFIG = configs.T5Config(
  vocab_size=8192,
  emb_dim=16,
  num_heads=4,
  head_dim=6,
  mlp_dim=20,
  num_encoder_layers=2,
  num_decoder_layers=2,
  dropout_rate=0.0,
)
SIZE, INPUT, TARGET = 8, 12, 5
METHODS = {
  'prompt': deltas.prompt(length=3),
  'lora': deltas.lora(rank=2),
  'full': deltas.full(),
  'subspace': subspace.subspace(
    deltas.prompt(length=3), reparams.linear(), 7, spread=0.1
  ),
  'ipt': instance.encoder('cnn', length=3, budget=0.05),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A tiny backbone as a folder of ours."""
  path = tmp_path_factory.mktemp('backbone')
  made = weights.random(CONFIG, 3, Vocabulary(VOCABULARY))
  weights.write(path, made)
  return path


@pytest.fixture(scope='module')
def partitioner():
  return partitioning.PjitPartitioner(num_partitions=1)


def batch_of(seed):
  """A batch as SeqIO's converter makes it; no two targets are as long."""
  random = np.random.default_rng(seed)
  inputs = random.integers(2, 8000, (SIZE, INPUT)).astype(np.int32)
  targets = random.integers(2, 8000, (SIZE, TARGET)).astype(np.int32)
  for row in range(SIZE):
    inputs[row, 5 + row % 7 :] = 0
    targets[row, 1 + row % 5 :] = 0
  return {
    'encoder_input_tokens': inputs,
    'decoder_target_tokens': targets,
    'decoder_input_tokens': np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_loss_weights': (targets > 0).astype(np.int32),
  }


def started(folder, partitioner, method, microbatches=None, **fields):
  """Returns the model, and a trainer of T5X at its start."""
  model = t5x_model.Model(str(folder), method, **fields)
  shapes = {name: x.shape for name, x in batch_of(0).items()}
  initializer = t5x_model.Initializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes=shapes,
    partitioner=partitioner,
  )
  trainer = t5x_model.Trainer(
    model=model,
    train_state=initializer.from_scratch(jax.random.PRNGKey(5)),
    partitioner=partitioner,
    eval_names=(),
    summary_dir=None,
    train_state_axes=initializer.train_state_axes,
    rng=jax.random.PRNGKey(0),
    learning_rate_fn=lambda step: 0.3,
    num_microbatches=microbatches,
  )
  return model, trainer, initializer


def advance(trainer, batches):
  """Trains with T5X's own step; returns the loss of each."""
  losses = []
  for batch in batches:
    state, metrics = trainer._partitioned_train_step(trainer.train_state, batch)
    trainer.train_state = state
    losses.append(float(metrics['loss'].total))
  return np.asarray(losses)


@pytest.mark.parametrize('microbatches', [None, 2])
@pytest.mark.parametrize(
  'name, rate',
  [
    ('prompt', 0.3),
    ('lora', 0.01),
    ('full', 0.001),
    ('subspace', 0.1),
    # at 0.01 rounding has grown to 2e-5 within 20 steps on some CPUs
    ('ipt', 0.003),
  ],
)
def test_t5x_and_the_local_engine_give_the_same_losses(
  name, rate, microbatches, folder, partitioner
):
  method = METHODS[name]
  _, trainer, _ = started(folder, partitioner, method, microbatches, rate=rate)
  phi = jax.tree.map(np.asarray, unfreeze(trainer.train_state.params))
  batches = [batch_of(seed) for seed in range(20)]
  found = advance(trainer, batches)

  backbone = weights.load(folder, dropout_rate=0.0)
  method = deltas.bound(method, weights.setting(backbone))
  engine = engines.make(
    backbone,
    method,
    optimizers.adafactor,
    spec.Settings(microbatch=None if microbatches is None else 4),
    phi,
  )
  state = stack_rows.start([phi], optimizers.adafactor)
  keys = jax.random.key(0)[None]
  expected = []
  for number, batch in enumerate(batches, start=1):
    local = {
      'inputs': batch['encoder_input_tokens'][None],
      'targets': batch['decoder_target_tokens'][None],
    }
    state, metrics = engine.step(
      state,
      Frozen(backbone.weights, method.constants),
      local,
      jnp.asarray([rate]),
      keys,
      number,
    )
    expected.append(float(metrics['loss'][0]))
  # losses are about 10, where float32 resolves 1e-6, and differences grow with
  # the steps
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
  assert np.ptp(expected) > 1e-3


@pytest.mark.parametrize('name', METHODS)
def test_t5x_trains_and_keeps_state_for_phi_alone(name, folder, partitioner):
  model, trainer, _ = started(
    folder, partitioner, METHODS[name], optimizer=optimizers.adam, rate=0.01
  )
  state = trainer.train_state
  before = jax.tree.map(np.asarray, state.flax_mutables)
  start = jax.tree.map(np.asarray, state.params)
  setting = stored.setting(
    model.stored, jnp.asarray(before['frozen']['token_embedder']['embedding'])
  )
  method = deltas.bound(METHODS[name], setting)
  phi = method.init(jax.random.key(0), setting)
  assert jax.tree.structure(unfreeze(state.params)) == jax.tree.structure(phi)
  # Adam: two copies of phi and counts, and nothing else
  held = [x for x in jax.tree.leaves(state.param_states) if np.ndim(x)]
  assert sum(x.size for x in held) == 2 * trees.size(phi)
  advance(trainer, [batch_of(0), batch_of(1)])
  after = trainer.train_state
  jax.tree.map(np.testing.assert_array_equal, before, after.flax_mutables)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, after.params)
  assert max(jax.tree.leaves(moved)) > 1e-4


def test_frozen_weights_are_those_of_the_backbone(folder, partitioner):
  _, trainer, _ = started(folder, partitioner, METHODS['prompt'])
  expected = trees.flatten(weights.load(folder).weights)
  found = trees.flatten(trainer.train_state.flax_mutables['frozen'])
  assert set(found) == set(expected)
  for path, x in expected.items():
    np.testing.assert_array_equal(found[path], x, err_msg=path)


def test_t5xs_own_initializer_draws_no_weights_either(folder, partitioner):
  model, trainer, _ = started(folder, partitioner, METHODS['prompt'])
  own = utils.TrainStateInitializer(
    optimizer_def=model.optimizer_def,
    init_fn=model.get_initial_variables,
    input_shapes={},
    partitioner=partitioner,
  ).from_scratch(jax.random.PRNGKey(5))
  jax.tree.map(
    np.testing.assert_array_equal,
    (own.params, own.flax_mutables),
    (trainer.train_state.params, trainer.train_state.flax_mutables),
  )


def test_a_backbone_that_lacks_a_leaf_is_an_error(folder, tmp_path):
  from safetensors import numpy as safetensors_numpy

  broken = tmp_path / 'broken'
  shutil.copytree(folder, broken)
  held = safetensors_numpy.load_file(broken / 'weights.safetensors')
  del held['encoder/layers_1/mlp/wo/kernel']
  safetensors_numpy.save_file(held, broken / 'weights.safetensors')
  with pytest.raises(ValueError, match='missing encoder/layers_1/mlp/wo'):
    t5x_model.Model(str(broken), METHODS['prompt'])


def checkpointer(model, initializer, partitioner, path):
  return t5x_model.PhiCheckpointer(
    initializer.global_train_state_shape,
    partitioner,
    str(path),
    model=model,
  )


def test_checkpoints_hold_phi_alone_and_go_on_where_they_were(
  folder, partitioner, tmp_path
):
  batches = [batch_of(seed) for seed in range(6)]
  parts = started(folder, partitioner, METHODS['lora'], rate=0.01)
  whole = advance(parts[1], batches)

  model, trainer, initializer = started(
    folder, partitioner, METHODS['lora'], rate=0.01
  )
  advance(trainer, batches[:3])
  saver = checkpointer(model, initializer, partitioner, tmp_path)
  saver.save(trainer.train_state)
  stored_phi = weights.read_t5x(tmp_path / 'checkpoint_3')
  trees.check_same(stored_phi, model.phi_shapes, 'checkpoint')
  names = [p.name for p in (tmp_path / 'checkpoint_3').iterdir()]
  assert not [name for name in names if 'frozen' in name or 'mutables' in name]

  model, trainer, initializer = started(
    folder, partitioner, METHODS['lora'], rate=0.01
  )
  restorer = checkpointer(model, initializer, partitioner, tmp_path)
  trainer.train_state = restorer.restore(path=str(tmp_path / 'checkpoint_3'))
  rest = advance(trainer, batches[3:])
  np.testing.assert_allclose(rest, whole[3:], rtol=0, atol=1e-6)

  found, card = t5x_run.read(tmp_path)
  assert (found.method, found.facts['steps']) == ('lora', 3)
  assert card['backbone'] == str(folder)

  other, _, initializer = started(
    folder, partitioner, deltas.lora(rank=3), rate=0.01
  )
  restorer = checkpointer(other, initializer, partitioner, tmp_path)
  with pytest.raises(ValueError, match='(?i)shape'):
    restorer.restore(path=str(tmp_path / 'checkpoint_3'))


def test_phi_of_a_bank_entry_is_the_start(folder, partitioner, tmp_path):
  phi = {'encoder': np.full((3, 16), 0.25, np.float32)}
  card = {
    'task': 'x',
    'method': 'prompt',
    'settings': {},
    'backbone': 'x',
    'fingerprint': None,
  }
  store.write(tmp_path / 'entry', phi, card)
  _, trainer, _ = started(
    folder, partitioner, METHODS['prompt'], start=str(tmp_path / 'entry')
  )
  np.testing.assert_array_equal(
    trainer.train_state.params['encoder'], phi['encoder']
  )
  with pytest.raises(ValueError, match='expected a delta of method'):
    t5x_model.Model(str(folder), METHODS['lora'], start=str(tmp_path / 'entry'))
  card['fingerprint'] = weights.load(folder).fingerprint
  store.write(tmp_path / 'entry', phi, card)
  t5x_model.Model(str(folder), METHODS['prompt'], start=str(tmp_path / 'entry'))
  store.write(tmp_path / 'other', phi, card | {'fingerprint': 64 * '0'})
  with pytest.raises(ValueError, match='expected a delta of the backbone'):
    t5x_model.Model(
      str(folder), METHODS['prompt'], start=str(tmp_path / 'other')
    )
  with pytest.raises(ValueError, match='expected shape'):
    t5x_model.Model(
      str(folder), deltas.prompt(length=4), start=str(tmp_path / 'entry')
    )


@pytest.mark.parametrize('microbatches', [None, 2])
@pytest.mark.parametrize('kind', ['maml', 'fomaml', 'reptile'])
def test_meta_learning_takes_the_step_of_its_objective(
  kind, microbatches, folder, partitioner
):
  algorithm = algorithms.ALGORITHMS[kind](inner_rate=0.1, inner_steps=1)
  shots = 4 if kind == 'reptile' else 2
  model, trainer, _ = started(
    folder,
    partitioner,
    METHODS['prompt'],
    microbatches,
    algorithm=algorithm,
    shots=shots,
    optimizer=optimizers.sgd,
    rate=0.5,
  )
  phi = jax.tree.map(np.asarray, unfreeze(trainer.train_state.params))
  loss = advance(trainer, [batch_of(4)])[0]

  backbone = weights.load(folder, dropout_rate=0.0)
  task = engines.task_loss(
    backbone.config, METHODS['prompt'], Frozen(backbone.weights)
  )
  objective = algorithm.objective(task, None, None)
  x = batch_of(4)
  inputs = x['encoder_input_tokens'].reshape(2, 4, INPUT)
  targets = x['decoder_target_tokens'].reshape(2, 4, TARGET)
  both = {'inputs': inputs, 'targets': targets}
  if kind == 'reptile':
    episode = {'support': jax.tree.map(lambda a: a[:, None], both)}
  else:
    episode = {
      'support': jax.tree.map(lambda a: a[:, None, :2], both),
      'query': jax.tree.map(lambda a: a[:, 2:], both),
    }
  (expected, _), grads = jax.value_and_grad(objective, has_aux=True)(
    phi, episode, jax.random.key(0)
  )
  np.testing.assert_allclose(loss, expected, rtol=0, atol=1e-5)
  wanted = optax.apply_updates(phi, jax.tree.map(lambda g: -0.5 * g, grads))
  np.testing.assert_allclose(
    trainer.train_state.params['encoder'], wanted['encoder'], atol=1e-5
  )


@pytest.mark.parametrize('microbatches', [None, 2])
def test_stage_1_takes_the_step_of_its_objective(
  microbatches, folder, partitioner
):
  """Two episodes, one in each microbatch; maps and codes at their own rates."""
  space = stages.Space(
    {'lora': deltas.lora(rank=2), 'prompt': deltas.prompt(length=3)},
    reparams.fastfood(),
    size=5,
    tasks=3,
    how=joint.Joint(pipeline='short', spread=0.5, code_rate=10.0),
  )
  numbers = {features.TASK: np.repeat([[2], [0]], 4, axis=0)}
  _, trainer, _ = started(
    folder,
    partitioner,
    stages.method(space),
    microbatches,
    algorithm=stages.algorithm(space),
    optimizer=stages.optimizer(space, optimizers.sgd),
    shots=4,
    rate=0.01,
  )
  phi = jax.tree.map(np.asarray, unfreeze(trainer.train_state.params))
  x = batch_of(4) | numbers
  loss = advance(trainer, [x])[0]

  backbone = weights.load(folder, dropout_rate=0.0)
  method = deltas.bound(stages.method(space), weights.setting(backbone))
  frozen = Frozen(backbone.weights, method.constants)
  objective = stages.algorithm(space).objective(
    engines.task_loss(backbone.config, method, frozen), None, method.constants
  )
  held = features.episodes(features.examples(x), stages.algorithm(space), 4)
  (expected, _), grads = jax.value_and_grad(objective, has_aux=True)(
    phi, held, jax.random.key(0)
  )
  np.testing.assert_allclose(loss, expected, rtol=0, atol=1e-5)
  found = unfreeze(trainer.train_state.params)
  step = 0.1 * np.asarray(grads['codes'])
  assert np.abs(step[[0, 2]]).max() > 1e-4 and not step[1].any()
  np.testing.assert_allclose(found['codes'], phi['codes'] - step, atol=1e-6)
  for name in space.types:
    moved = phi['maps'][name]['gauss'] - 0.01 * grads['maps'][name]['gauss']
    np.testing.assert_allclose(
      found['maps'][name]['gauss'], moved, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize('name', ['prompt', 'ipt'])
def test_predictions_and_scores_are_those_of_the_local_engine(
  name, folder, partitioner
):
  model, trainer, initializer = started(
    folder, partitioner, METHODS[name], beams=3
  )
  advance(trainer, [batch_of(1)])
  state, batch = trainer.train_state, batch_of(2)
  run = utils.get_infer_fn  # what T5X's evaluation and inference call
  backbone = weights.load(folder, dropout_rate=0.0)
  method = deltas.bound(METHODS[name], weights.setting(backbone))
  phi = unfreeze(state.params)
  tokens, scores = decode.beam(
    backbone.config,
    backbone.weights,
    method.delta(
      phi, {'inputs': batch['encoder_input_tokens']}, method.constants
    ),
    batch['encoder_input_tokens'],
    TARGET,
    3,
  )
  import tensorflow as tf

  data = tf.data.Dataset.from_tensor_slices(batch).enumerate()

  def infer(step):
    call = run(step, SIZE, initializer.train_state_axes, partitioner)
    return call(data, train_state=state, rng=jax.random.PRNGKey(0))

  found = [x for _, x in infer(model.predict_batch)]
  np.testing.assert_array_equal(np.stack(found), tokens)
  _, aux = infer(model.predict_batch_with_aux)
  np.testing.assert_allclose(aux['scores'], scores, rtol=1e-5)
  found = [x for _, x in infer(model.score_batch)]
  total = model.eval_fn(state.params, batch, state.flax_mutables)[0]
  count = (batch['decoder_target_tokens'] > 0).sum()
  np.testing.assert_allclose(-np.sum(found) / count, total, rtol=1e-5)
  with pytest.raises(ValueError, match='best sequence'):
    model.predict_batch_with_aux(
      state.params,
      batch,
      return_all_decodes=True,
      flax_mutables=state.flax_mutables,
    )


def test_packed_batches_and_orbax_are_refused(folder, partitioner):
  model, trainer, _ = started(folder, partitioner, METHODS['prompt'])
  state = trainer.train_state
  packed = {**batch_of(0), 'encoder_segment_ids': np.ones((SIZE, INPUT))}
  with pytest.raises(ValueError, match='pack: expected False'):
    model.loss_fn(state.params, packed, None, state.flax_mutables)
  with pytest.raises(ValueError, match='use_orbax'):
    t5x_model.refuse_orbax(save_cfg=None)


@pytest.mark.parametrize('mesh', [(4, 1), (2, 2), (1, 4)])
def test_weights_spread_over_devices_give_the_same_losses(
  mesh, folder, partitioner
):
  parts = started(folder, partitioner, METHODS['lora'], 2, rate=0.01)
  expected = advance(parts[1], [batch_of(seed) for seed in range(4)])
  flags = os.environ.get('XLA_FLAGS', '')
  flags += ' --xla_force_host_platform_device_count=4'
  found = subprocess.run(
    [sys.executable, '-m', 'tests.training.t5x_mesh', folder, *map(str, mesh)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'XLA_FLAGS': flags},
  )
  assert found.returncode == 0, found.stderr[-3000:]
  result = json.loads(found.stdout.splitlines()[-1])
  np.testing.assert_allclose(result['losses'], expected, rtol=0, atol=1e-5)
  # norms and the like lie whole everywhere, the matrices do not
  assert result['share'] < 1 / mesh[1] + 0.01


def command(module, gin_files, **macros):
  """Runs T5X as a user does; returns what it wrote to stderr."""
  words = [sys.executable, '-m', f't5x.{module}']
  words += [f'--gin_file={name}' for name in gin_files]
  words += [f'--gin.{name}={value!r}' for name, value in macros.items()]
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
  found = subprocess.run(
    words, cwd=ROOT, capture_output=True, text=True, env=environment
  )
  assert found.returncode == 0, found.stderr[-3000:]
  return found.stderr


def common(folder):
  return {
    'BACKBONE': str(folder),
    'VOCABULARY': str(VOCABULARY),
    'DTYPE': 'float32',
    'PARTITIONS': 1,
    'SOURCES': ['reviews', 'topics'],
    'SOURCE_DATA': 'demo',
    'REGISTER': None,
    'BATCH_SIZE': 8,
    'TASK_FEATURE_LENGTHS': {'inputs': 32, 'targets': 8},
  }


TRAINING = {
  'TRAIN_STEPS': 2,
  'EVAL_PERIOD': 2,
  'SAVE_PERIOD': 2,
  'EVAL_STEPS': 1,
  'EVALUATOR_NUM_EXAMPLES': 8,
  'MICROBATCHES': 2,
}


def test_the_spot_file_trains_resumes_evaluates_and_infers(folder, tmp_path):
  files = ['gin/spot_xxl.gin']
  run = tmp_path / 'run'
  given = {**common(folder), **TRAINING, 'MODEL_DIR': str(run)}
  command('train', files, **given)
  assert {'checkpoint_0', 'checkpoint_2'} <= {p.name for p in run.iterdir()}
  said = command('train', files, **{**given, 'TRAIN_STEPS': 4})
  assert f'Restoring from checkpoint: {run}/checkpoint_2/' in said
  phi = weights.read_t5x(run / 'checkpoint_4')
  assert {k: x.shape for k, x in phi.items()} == {'encoder': (100, 16)}

  given = {
    **common(folder),
    'CHECKPOINT_PATH': str(run / 'checkpoint_4'),
    'BEAMS': 2,
  }
  out = tmp_path / 'eval'
  files = ['gin/t5x_eval.gin', 'gin/sizes/xxl.gin']
  command('eval', files, **given, EVAL_OUTPUT_DIR=str(out), NUM_EXAMPLES=8)
  found = sorted((out / 'inference_eval').glob('*metrics.jsonl'))
  assert len(found) == 2
  assert json.loads(found[0].read_text())['step'] == 4

  out = tmp_path / 'infer'
  files = ['gin/t5x_infer.gin', 'gin/sizes/xxl.gin']
  command(
    'infer',
    files,
    **given,
    INFER_OUTPUT_DIR=str(out),
    MODE='predict_with_aux',
    SPLIT='validation',
  )
  lines = next(out.glob('reviews*predict*00001')).read_text().splitlines()
  assert json.loads(lines[0])['aux']['scores'] < 0

  # examples of TFDS without a label, and their answers as a submission
  out = tmp_path / 'unlabelled'
  given |= {
    'SOURCES': ['spot_copa', 'spot_record'],
    'SOURCE_DATA': None,
    'TFDS_DATA': str(spot_examples.store(tmp_path / 'tfds')),
    'SPLIT': 'unlabelled',
  }
  del given['REGISTER']
  command('infer', files, **given, INFER_OUTPUT_DIR=str(out))
  answers, choices = leaderboard.read(out.glob('*-predict.jsonl-*-of-*'))
  copa = spot_examples.EXAMPLES['super_glue/copa']['test'][0]
  assert choices == {copa['idx']: [copa['choice1'], copa['choice2']]}
  assert {n: x[0][0] for n, x in answers.items()} == {
    'copa': copa['idx'],
    'record': spot_examples.EXAMPLES['super_glue/record']['test'][0]['idx'],
  }


def test_the_mpt_file_trains(folder, tmp_path):
  given = {**common(folder), **TRAINING, 'MODEL_DIR': str(tmp_path)}
  given |= {'MICROBATCHES': 2, 'SHOTS': 2, 'EPISODE': 4, 'INNER_RATE': 0.1}
  said = command('train', ['gin/mpt_xxl.gin'], **given)
  assert 'support_loss=' in said
  assert (tmp_path / 'checkpoint_2').is_dir()


def test_the_ipt_file_trains(folder, tmp_path):
  given = {**common(folder), **TRAINING, 'MODEL_DIR': str(tmp_path)}
  command('train', ['gin/ipt_xxl.gin'], **given, BUDGET=0.05, LENGTH=3)
  assert set(weights.read_t5x(tmp_path / 'checkpoint_2')) == {'encoder'}


def test_the_unified_file_trains_a_code(folder, tmp_path):
  given = {**common(folder), **TRAINING, 'MODEL_DIR': str(tmp_path)}
  command('train', ['gin/unified_xxl.gin'], **given, SIZE=7)
  found = weights.read_t5x(tmp_path / 'checkpoint_2')
  assert set(found) == {'code'} and found['code'].shape == (7,)
  assert np.abs(found['code']).max() > 0


def test_the_unified_files_find_a_space_and_a_code_in_it(folder, tmp_path):
  run, bank = tmp_path / 'space', tmp_path / 'bank'
  known = {'TASKS': 2, 'SIZE': 5}
  given = {**common(folder), **TRAINING, **known, 'MODEL_DIR': str(run)}
  command('train', ['gin/unified_space_xxl.gin'], **given, SHOTS=4)
  found = weights.read_t5x(run / 'checkpoint_2')
  assert found['codes'].shape == (2, 5)
  assert set(found['maps']) == {'adapter', 'lora', 'prefix'}
  words = ['add', '--t5x', str(run), '--task', 'space']
  assert bank_command.main(['--bank', str(bank), *words]) == 0
  (entry,) = bank.iterdir()

  given |= {'MODEL_DIR': str(tmp_path / 'code'), 'SOURCES': ['moods']}
  files = ['gin/unified_inside_xxl.gin']
  command('train', files, **given, ENTRY=str(entry), TYPE='prefix')
  code = weights.read_t5x(tmp_path / 'code' / 'checkpoint_2')
  assert set(code) == {'code'} and code['code'].shape == (5,)
  assert np.abs(code['code']).max() > 0
