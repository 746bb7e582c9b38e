"""Logits, loss and gradients equal those of Hugging Face's T5.

The reference files in `fixtures/` hold weights, inputs and outputs that
transformers computed; where it is installed, the same runs live.
"""

import functools
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open

from prompt_subspace import objectives
from prompt_subspace.backbone import forward, huggingface, weights
from prompt_subspace.backbone import stored as backbones
from tests import tiny

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
KINDS = ('t5_1_1', 't5_1_0')
TOLERANCE = 1e-4


@functools.cache
def stored(kind):
  """Arrays of a reference file, and Hugging Face's configuration."""
  path = FIXTURES / f'{kind}.safetensors'
  with safe_open(path, 'np') as file:
    config = json.loads(file.metadata()['config'])
  return safetensors_numpy.load_file(path), config


def within(arrays, folder):
  """The arrays of one folder of a reference file."""
  found = {
    name.removeprefix(f'{folder}/'): x
    for name, x in arrays.items()
    if name.startswith(f'{folder}/')
  }
  assert found
  return found


def ours(arrays, fields, **changes):
  """Our configuration and weights of a reference."""
  theirs = within(arrays, 'weights')
  config = huggingface.config_from(fields, theirs).replace(**changes)
  tree = huggingface.from_huggingface(theirs, weights.expected(config))
  return config, jax.tree.map(jnp.asarray, tree)


@functools.partial(jax.jit, static_argnames='config')
def run(config, tree, data):
  def loss(tree):
    logits = forward.logits(config, tree, {}, data)
    return objectives.cross_entropy(logits, data['targets'])[0], logits

  (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(tree)
  return value, logits, grads


def assert_equals_reference(arrays, fields, name, **changes):
  config, tree = ours(arrays, fields, **changes)
  expected = within(arrays, name)
  data = {k: expected[k] for k in ('inputs', 'targets')}
  value, logits, grads = run(config, tree, data)
  # a reference without signal would prove nothing
  assert expected['logits'].std() > 0.5
  assert np.abs(logits - expected['logits']).max() < TOLERANCE
  assert abs(float(value) - float(expected['loss'][0])) < TOLERANCE
  found = huggingface.to_huggingface(grads)
  reference = within(expected, 'gradients')
  assert set(found) == set(reference)
  for weight, gradient in reference.items():
    assert np.abs(gradient).max() > 1e-3, weight
    assert np.abs(found[weight] - gradient).max() < TOLERANCE, weight


@pytest.mark.parametrize('name', ['long', 'padded'])
@pytest.mark.parametrize('kind', KINDS)
def test_logits_loss_and_gradients_equal_the_stored_ones(kind, name):
  assert_equals_reference(*stored(kind), name)


def test_the_long_reference_reaches_the_last_buckets():
  arrays, fields = stored('t5_1_1')
  config, tree = ours(arrays, fields, relpos_max_distance=100)
  expected = within(arrays, 'long')
  logits = tiny.logits(
    tiny.PLAIN,
    config,
    tree,
    {},
    {k: expected[k] for k in ('inputs', 'targets')},
  )
  assert np.abs(logits - expected['logits']).max() > 10 * TOLERANCE
  for stack in ('encoder', 'decoder'):
    gradient = expected[
      f'gradients/{stack}.block.0.layer.0.SelfAttention'
      '.relative_attention_bias.weight'
    ]
    # the last one of each half; half of the encoder's look ahead
    assert (np.abs(gradient[[15, 31]]).max(axis=1) > 1e-6).all()


def live():
  """The script that makes references, where it can run."""
  pytest.importorskip(
    'transformers', reason='needs torch and transformers to run live'
  )
  pytest.importorskip('torch', reason='needs torch to run live')
  path = FIXTURES / 'make_fixture.py'
  spec = importlib.util.spec_from_file_location('make_fixture', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('kind', KINDS)
def test_logits_loss_and_gradients_equal_transformers_live(kind):
  arrays, fields = live().reference(kind, seed=40)
  for name in ('long', 'padded'):
    assert_equals_reference(arrays, fields, name)


@pytest.mark.parametrize('kind', KINDS)
def test_transformers_loads_what_we_write(kind, tmp_path):
  script = live()
  from transformers import T5ForConditionalGeneration

  arrays, fields = stored(kind)
  config, tree = ours(arrays, fields)
  huggingface.write(tmp_path, tree, config)
  model, report = T5ForConditionalGeneration.from_pretrained(
    tmp_path, attn_implementation='eager', output_loading_info=True
  )
  assert not any(report.values()), report
  for name in ('long', 'padded'):
    expected = within(arrays, name)
    found = script.run(model.eval(), expected)
    assert np.abs(found['logits'] - expected['logits']).max() < TOLERANCE


@pytest.mark.parametrize('kind', KINDS)
def test_load_reads_what_transformers_saves(kind, tmp_path):
  script = live()
  script.build(kind, seed=0 if kind == 't5_1_1' else 1).save_pretrained(
    tmp_path
  )
  arrays, fields = stored(kind)
  config, tree = ours(arrays, fields)
  backbone = weights.load(tmp_path)
  assert backbone.config == config
  jax.tree.map(np.testing.assert_array_equal, dict(backbone.weights), tree)


def folder_of(kind, path, drop=(), **changes):
  """Writes a Hugging Face folder from a reference file, without torch."""
  arrays, fields = stored(kind)
  theirs = within(arrays, 'weights')
  kept = {k: v for k, v in theirs.items() if k not in drop}
  safetensors_numpy.save_file(kept, path / 'model.safetensors')
  text = json.dumps({**fields, **changes})
  (path / 'config.json').write_text(text, encoding='utf-8')
  return path


@pytest.mark.parametrize('kind', KINDS)
def test_load_reads_a_folder_and_write_gives_it_back(kind, tmp_path):
  backbone = weights.load(folder_of(kind, tmp_path))
  config, tree = ours(*stored(kind))
  assert backbone.config == config
  assert config.logits_via_embedding == (kind == 't5_1_0')
  assert backbone.vocabulary is None
  jax.tree.map(np.testing.assert_array_equal, dict(backbone.weights), tree)
  huggingface.write(tmp_path / 'again', backbone.weights, config)
  again = weights.load(tmp_path / 'again')
  assert again.config == config
  assert again.fingerprint == backbone.fingerprint


# the shape of ByT5: gated GELU, a head of its own, a shallow decoder, bytes
BYT5 = tiny.CONFIG.replace(
  vocab_size=384,
  num_encoder_layers=3,
  num_decoder_layers=1,
  mlp_activations=('gelu', 'linear'),
  logits_via_embedding=False,
)


def test_a_byt5_folder_has_bytes_for_a_vocabulary(tmp_path):
  made = weights.random(BYT5, 2)
  huggingface.write(tmp_path / 'theirs', made.weights, BYT5)
  tokenizer = tmp_path / 'theirs' / 'tokenizer_config.json'
  tokenizer.write_text('{"tokenizer_class": "ByT5Tokenizer"}')
  read = weights.load(tmp_path / 'theirs')
  assert read.config == BYT5 and read.fingerprint == made.fingerprint
  assert read.vocabulary.encode('hé') == [107, 198, 172]
  # and so has our own copy of it
  weights.write(tmp_path / 'ours', read)
  again = weights.load(tmp_path / 'ours')
  assert again.vocabulary.sha256 == read.vocabulary.sha256
  assert again.fingerprint == made.fingerprint
  found = backbones.find(str(tmp_path / 'theirs'))
  assert found.vocabulary.size == 384
  # by name, where a folder does not tell
  tokenizer.unlink()
  assert weights.load(tmp_path / 'theirs').vocabulary is None
  named = weights.load(tmp_path / 'theirs', 'bytes')
  assert named.vocabulary.size == 384


def test_logits_of_a_byt5_equal_those_of_transformers_live(tmp_path):
  script = live()
  from transformers import T5ForConditionalGeneration

  made = weights.random(BYT5, 2)
  huggingface.write(tmp_path, made.weights, BYT5)
  model = T5ForConditionalGeneration.from_pretrained(
    tmp_path, attn_implementation='eager'
  )
  expected = within(stored('t5_1_1')[0], 'padded')
  batch = {k: expected[k] % 384 for k in ('inputs', 'targets')}
  found = script.run(model.eval(), batch)
  logits = tiny.logits(tiny.PLAIN, BYT5, made.weights, {}, batch)
  assert np.abs(logits - found['logits']).max() < TOLERANCE


def test_shards_are_read_by_their_index(tmp_path):
  folder_of('t5_1_1', tmp_path)
  whole = weights.load(tmp_path)
  arrays = safetensors_numpy.load_file(tmp_path / 'model.safetensors')
  (tmp_path / 'model.safetensors').unlink()
  names = [f'model-0000{i}-of-00002.safetensors' for i in (1, 2)]
  places = {k: names[i % 2] for i, k in enumerate(sorted(arrays))}
  for shard in names:
    held = {k: arrays[k] for k, place in places.items() if place == shard}
    safetensors_numpy.save_file(held, tmp_path / shard)
  index = tmp_path / 'model.safetensors.index.json'
  index.write_text(json.dumps({'weight_map': places}))
  assert weights.load(tmp_path).fingerprint == whole.fingerprint
  missing = sorted(arrays)[0]
  index.write_text(json.dumps({'weight_map': {**places, missing: names[1]}}))
  with pytest.raises(ValueError, match=f'lists, missing .*{missing[:6]}'):
    weights.load(tmp_path)
  (tmp_path / names[1]).unlink()
  with pytest.raises(ValueError, match='missing .*00002-of-00002'):
    weights.load(tmp_path)


def test_a_tied_head_without_scale_stays_unscaled(tmp_path):
  # what transformers 5 saves when a T5 1.1 is made and not untied by hand
  folder_of(
    't5_1_1', tmp_path, drop=['lm_head.weight'], scale_decoder_outputs=False
  )
  backbone = weights.load(tmp_path)
  assert not backbone.config.logits_via_embedding
  np.testing.assert_array_equal(
    backbone.weights['decoder']['logits_dense']['kernel'],
    backbone.weights['token_embedder']['embedding'].T,
  )


def test_a_copy_of_the_embedding_as_head_is_tied_for_t5_1_0(tmp_path):
  folder_of('t5_1_0', tmp_path)
  path = tmp_path / 'model.safetensors'
  arrays = safetensors_numpy.load_file(path)
  arrays['lm_head.weight'] = arrays['shared.weight']
  arrays['encoder.embed_tokens.weight'] = arrays['shared.weight']
  safetensors_numpy.save_file(arrays, path)
  assert weights.load(tmp_path).config.logits_via_embedding


@pytest.mark.parametrize(
  ('drop', 'changes', 'message'),
  [
    (['encoder.final_layer_norm.weight'], {}, 'expected encoder.final_layer'),
    ((), {'num_decoder_layers': 1}, 'unexpected arrays'),
    ((), {'num_layers': 3}, 'expected encoder.block.2'),
    ((), {'model_type': 'bart'}, "found 'bart'"),
    ((), {'feed_forward_proj': 'gelu'}, "found 'gelu'"),
    ((), {'scale_decoder_outputs': True}, 'scale_decoder_outputs'),
    ((), {'d_ff': 25}, 'expected shape'),
  ],
)
def test_folders_that_do_not_fit_are_refused(drop, changes, message, tmp_path):
  folder_of('t5_1_1', tmp_path, drop, **changes)
  with pytest.raises(ValueError, match=message):
    weights.load(tmp_path)


def test_write_refuses_an_activation_that_hugging_face_lacks(tmp_path):
  config = tiny.CONFIG.replace(mlp_activations=('gelu', 'relu'))
  with pytest.raises(ValueError, match='mlp_activations'):
    huggingface.write(tmp_path, tiny.frozen(), config)
