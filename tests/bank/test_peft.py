"""PEFT folders: the same logits on both sides, where PEFT is installed."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import decode, forward, huggingface
from prompt_subspace.bank import peft_read, peft_write, store
from tests import tiny

# PEFT's prefixes take the positions before the sequence
CONFIG = tiny.CONFIG.replace(dropout_rate=0.0, prefix_positions=True)
EVERYWHERE = ('query', 'key', 'value', 'out', 'mlp')
TOLERANCE = 1e-4

METHODS = {
  'prompt': deltas.prompt(length=3, start='uniform'),
  'lora': deltas.lora(rank=3, scale=1.6),
  'lora, everywhere': deltas.lora(rank=2, scale=0.7, projections=EVERYWHERE),
  'lora, cross': deltas.lora(attentions=('cross',), where=('decoder',)),
  'lora, mlp of the encoder': deltas.lora(
    rank=2, projections=('mlp',), where=('encoder',)
  ),
  'prefix, flat': deltas.prefix(length=4, hidden=None, where=('decoder',)),
  'prefix': deltas.prefix(length=3, hidden=5, where=('decoder',)),
}


def config_of(layers=2):
  return CONFIG.replace(num_encoder_layers=layers, num_decoder_layers=layers)


def entry(name, config=CONFIG, **card):
  method = METHODS[name]
  known = tiny.setting(config.replace(prefix_positions=False))
  start = jax.eval_shape(lambda key: method.init(key, known), tiny.key())
  phi = jax.tree.map(np.asarray, tiny.noise(start))
  card = {
    'task': 'invented',
    'method': method.name,
    'settings': json.loads(json.dumps(dict(method.settings))),
    'backbone': 'tiny',
    'fingerprint': 'f',
    'prefix_positions': True,
    **card,
  }
  return store.Entry(name, phi, card)


@functools.cache
def weights_of(config):
  return tiny.frozen(config.replace(prefix_positions=False))


def logits(config, delta, batch):
  run = jax.jit(lambda w, d, b: forward.logits(config, w, d, b))
  return np.asarray(run(weights_of(config), delta, batch))


def delta_of(method, settings, phi):
  settings = {
    k: tuple(v) if isinstance(v, list) else v
    for k, v in settings.items()
    if k != 'stored'
  }
  if method == 'prompt':
    settings['start'] = 'uniform'
  return deltas.make(method, **settings).expand(phi, None)


@pytest.fixture
def batch():
  return {k: np.array(x) for k, x in tiny.batch().items()}


@pytest.fixture
def base(tmp_path):
  """(config) -> Transformers' T5 with the weights of ours."""
  pytest.importorskip('peft', reason='needs torch, transformers and peft')
  torch = pytest.importorskip('torch')
  from transformers import T5ForConditionalGeneration

  def make(config):
    folder = tmp_path / 'base'
    huggingface.write(folder, weights_of(config), config)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    # Transformers 5 ties the head whatever the configuration says
    stored = huggingface.to_huggingface(weights_of(config))
    model.lm_head.weight = torch.nn.Parameter(
      torch.from_numpy(stored['lm_head.weight'])
    )
    model.shared.weight.data.copy_(torch.from_numpy(stored['shared.weight']))
    model.config.scale_decoder_outputs = False
    return model.eval()

  return make


def their_logits(model, batch):
  import torch

  inputs = torch.from_numpy(batch['inputs']).long()
  labels = torch.from_numpy(batch['targets']).long()
  with torch.no_grad():
    found = model.eval()(
      input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels
    )
  return found.logits.numpy()


@pytest.mark.parametrize('layers', [2, 3])
@pytest.mark.parametrize('name', METHODS)
def test_peft_computes_what_we_write(name, layers, base, batch, tmp_path):
  import peft

  config = config_of(layers)
  one = entry(name, config)
  peft_write.write(one, tmp_path / 'out')
  expected = logits(
    config, delta_of(one.card['method'], one.card['settings'], one.phi), batch
  )
  plain = their_logits(base(config), batch)
  np.testing.assert_allclose(plain, logits(config, {}, batch), atol=TOLERANCE)
  model = peft.PeftModel.from_pretrained(base(config), tmp_path / 'out')
  found = their_logits(model, batch)
  np.testing.assert_allclose(found, expected, atol=TOLERANCE)
  # a delta without effect would prove nothing
  assert np.abs(found - plain).max() > 0.1
  # and what PEFT saves again is read again
  model.save_pretrained(tmp_path / 'again')
  again = peft_read.read(tmp_path / 'again', layers)
  found = logits(
    config, delta_of(again.method, again.settings, again.phi), batch
  )
  np.testing.assert_allclose(found, expected, atol=TOLERANCE)


@pytest.mark.parametrize('name', ['prompt', 'lora, everywhere'])
def test_peft_generates_what_we_generate(name, base, batch, tmp_path):
  import peft
  import torch

  one = entry(name)
  peft_write.write(one, tmp_path / 'out')
  model = peft.PeftModel.from_pretrained(base(CONFIG), tmp_path / 'out').eval()
  inputs = torch.from_numpy(batch['inputs']).long()
  found = model.generate(
    input_ids=inputs,
    attention_mask=(inputs > 0).long(),
    max_new_tokens=6,
    do_sample=False,
    num_beams=1,
  )[:, 1:]
  delta = delta_of(one.card['method'], one.card['settings'], one.phi)
  expected = decode.greedy(
    CONFIG, weights_of(CONFIG), delta, batch['inputs'], 6
  )
  np.testing.assert_array_equal(found.numpy(), expected)


THEIRS = {
  # by default with a second table, for a decoder that never reads it
  'prompt': ('PromptTuningConfig', {'num_virtual_tokens': 3}),
  'lora': ('LoraConfig', {'r': 4, 'lora_alpha': 16}),
  'lora, everywhere': (
    'LoraConfig',
    {
      'r': 4,
      'lora_alpha': 3,
      'use_rslora': True,
      'target_modules': ['q', 'k', 'v', 'o', 'wi_0', 'wi_1', 'wo'],
    },
  ),
  'prefix': ('PrefixTuningConfig', {'num_virtual_tokens': 4, 'token_dim': 12}),
  'projected prefix': (
    'PrefixTuningConfig',
    {
      'num_virtual_tokens': 4,
      'token_dim': 12,
      'prefix_projection': True,
      'encoder_hidden_size': 7,
    },
  ),
}


@pytest.mark.parametrize('layers', [2, 3])
@pytest.mark.parametrize('name', THEIRS)
def test_we_compute_what_peft_saves(name, layers, base, batch, tmp_path):
  import peft
  import torch

  config = config_of(layers)
  kind, fields = THEIRS[name]
  model = peft.get_peft_model(
    base(config), getattr(peft, kind)(task_type='SEQ_2_SEQ_LM', **fields)
  )
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.requires_grad:
        parameter.normal_(0, 0.3, generator=generator)
  expected = their_logits(model, batch)
  model.save_pretrained(tmp_path / 'out')
  found = peft_read.read(tmp_path / 'out', layers)
  assert name.endswith(found.method) or name.startswith(found.method)
  np.testing.assert_allclose(
    logits(config, delta_of(found.method, found.settings, found.phi), batch),
    expected,
    atol=TOLERANCE,
  )
  assert np.abs(expected - logits(config, {}, batch)).max() > 0.1
  # and goes back as it came
  one = store.Entry(
    'one',
    found.phi,
    {
      'method': found.method,
      'settings': found.settings,
      'backbone': 'tiny',
      **found.facts,
    },
  )
  peft_write.write(one, tmp_path / 'back')
  again = peft.PeftModel.from_pretrained(base(config), tmp_path / 'back')
  np.testing.assert_allclose(
    their_logits(again, batch), expected, atol=TOLERANCE
  )


def _as_tuple(value):
  return tuple(value) if isinstance(value, list) else value


@pytest.mark.parametrize('name', METHODS)
def test_what_is_written_is_read_again(name, tmp_path):
  one = entry(name)
  peft_write.write(one, tmp_path / 'out')
  found = peft_read.read(tmp_path / 'out', 2)
  assert (found.method, found.backbone) == (one.card['method'], 'tiny')
  expected = one.card['settings']
  for argument, value in found.settings.items():
    if argument == 'hidden':  # of an MLP only what it makes is kept
      assert value is None
    elif argument not in ('start', 'stored'):
      assert value == pytest.approx(_as_tuple(expected[argument])), argument
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    delta_of(found.method, found.settings, found.phi),
    delta_of(one.card['method'], one.card['settings'], one.phi),
  )


def test_a_lora_is_written_in_their_orientation(tmp_path):
  one = entry('lora')
  peft_write.write(one, tmp_path / 'out')
  fields = json.loads((tmp_path / 'out' / peft_write.CONFIG).read_text())
  assert (fields['r'], fields['lora_alpha']) == (3, pytest.approx(4.8))
  arrays = safetensors_numpy.load_file(tmp_path / 'out' / peft_write.ARRAYS)
  site = one.phi['decoder']['layers_1']['encoder_decoder_attention']['query']
  prefix = 'base_model.model.decoder.block.1.layer.1.EncDecAttention.q.lora_'
  np.testing.assert_array_equal(arrays[f'{prefix}A.weight'], site['lora_a'].T)
  np.testing.assert_array_equal(arrays[f'{prefix}B.weight'], site['lora_b'].T)
  # 2 layers of the encoder, 2 of the decoder with two attentions; q and v
  assert len(fields['target_modules']) == len(arrays) / 2 == 12


@pytest.mark.parametrize(
  ('method', 'card', 'message'),
  [
    (deltas.adapter(rank=2), {}, "expected one of .*'lora'.*found 'adapter'"),
    (deltas.prefix(length=3), {}, 'self-attention, which is all.*encoder/att'),
    (
      deltas.prefix(length=3, attentions=('cross',), where=('decoder',)),
      {},
      'found .*encoder_decoder_attention',
    ),
    (METHODS['prefix'], {'prefix_positions': None}, 'prefix_positions=True'),
    (
      deltas.prompt(length=3, start='uniform', decoder_length=2),
      {},
      'encoder alone',
    ),
  ],
)
def test_what_peft_cannot_compute_is_refused(
  method, card, message, tmp_path, monkeypatch
):
  monkeypatch.setitem(METHODS, 'this', method)
  with pytest.raises(ValueError, match=message):
    peft_write.write(entry('this', **card), tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def changed(folder, fields=(), arrays=(), drop=()):
  """Changes a folder: fields, arrays to add, parts of names to leave out."""
  config, stored = folder / peft_write.CONFIG, folder / peft_write.ARRAYS
  text = json.dumps({**json.loads(config.read_text()), **dict(fields)})
  config.write_text(text)
  kept = {
    name: x
    for name, x in safetensors_numpy.load_file(stored).items()
    if not any(part in name for part in drop)
  }
  safetensors_numpy.save_file({**kept, **dict(arrays)}, stored)


ROW = np.ones((1, 2), np.float32)


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('lora', {'fields': {'use_dora': True}}, 'use_dora=True'),
    ('lora', {'fields': {'rank_pattern': {'q': 2}}}, 'rank_pattern'),
    ('lora', {'fields': {'init_lora_weights': 'pissa'}}, 'pissa'),
    ('lora', {'fields': {'bias': 'all'}}, "bias='all'"),
    ('lora', {'fields': {'r': 2}}, r'expected factors \[I, 2\]'),
    (
      'lora',
      {'arrays': {'lm_head.weight': ROW}},
      'lm_head.*Anything else would',
    ),
    ('lora', {'drop': ['q.lora_B']}, r'found \[\(16, 3\), \(0,\)\]'),
    ('lora', {'drop': ['lora']}, 'found nothing'),
    ('lora', {'drop': ['block.1.layer.1']}, 'left over .*layers_1/enc'),
    ('lora, everywhere', {'drop': ['wo']}, 'left over .*mlp/wo'),
    ('lora', {'fields': {'task_type': 'CAUSAL_LM'}}, 'SEQ_2_SEQ_LM, found'),
    ('lora', {'fields': {'peft_type': 'IA3'}}, "LORA.*found 'IA3'"),
    ('prompt', {'arrays': {'x': ROW}}, 'prompt_embeddings alone'),
    ('prompt', {'fields': {'num_virtual_tokens': 2}}, 'expected 2 prompt'),
    (
      'prompt',
      {'arrays': {'prompt_embeddings': np.full((3, 2), np.nan, np.float32)}},
      'prompt_embeddings: expected finite',
    ),
    (
      'prompt',
      {'arrays': {'prompt_embeddings': np.ones((3, 2), np.int32)}},
      'found I32',
    ),
    ('prefix', {'fields': {'num_layers': 1}}, '2 layers of the backbone'),
  ],
)
def test_what_would_be_lost_is_refused(name, changes, message, tmp_path):
  peft_write.write(entry(name), tmp_path / 'out')
  changed(tmp_path / 'out', **changes)
  with pytest.raises(ValueError, match=message):
    peft_read.read(tmp_path / 'out', 2)


def test_incomplete_folders_are_refused(tmp_path):
  peft_write.write(entry('prefix'), tmp_path / 'out')
  with pytest.raises(ValueError, match='Name the backbone'):
    peft_read.read(tmp_path / 'out')
  path = tmp_path / 'out' / peft_write.CONFIG
  fields = json.loads(path.read_text())
  del fields['num_layers']
  path.write_text(json.dumps(fields))
  with pytest.raises(ValueError, match="missing 'num_layers'"):
    peft_read.read(tmp_path / 'out', 2)
  path.write_text('{')
  with pytest.raises(ValueError, match='adapter_config.json: expected JSON'):
    peft_read.read(tmp_path / 'out', 2)
  (tmp_path / 'out' / peft_write.ARRAYS).rename(
    tmp_path / 'out' / 'adapter_model.bin'
  )
  with pytest.raises(ValueError, match='no adapter_model.safetensors. Pickled'):
    peft_read.read(tmp_path / 'out', 2)


def test_half_precision_is_read_as_float32(tmp_path):
  one = entry('prompt')
  peft_write.write(one, tmp_path / 'out')
  half = jnp.asarray(one.phi['encoder'], jnp.bfloat16)
  safetensors_numpy.save_file(
    {'prompt_embeddings': np.asarray(half)},
    tmp_path / 'out' / peft_write.ARRAYS,
  )
  found = peft_read.read(tmp_path / 'out')
  assert found.phi['encoder'].dtype == np.float32
  np.testing.assert_array_equal(found.phi['encoder'], half.astype(jnp.float32))


def test_a_folder_is_not_overwritten(tmp_path):
  peft_write.write(entry('prompt'), tmp_path / 'out')
  with pytest.raises(ValueError, match='or replace it .*--replace'):
    peft_write.write(entry('lora'), tmp_path / 'out')
  peft_write.write(entry('lora'), tmp_path / 'out', replace=True)
  assert peft_read.read(tmp_path / 'out').method == 'lora'
  (tmp_path / 'out' / 'notes.txt').touch()
  with pytest.raises(ValueError, match="holds .'notes.txt'.. Choose"):
    peft_write.write(entry('lora'), tmp_path / 'out', replace=True)
  assert trees.flatten(peft_read.read(tmp_path / 'out').phi)
