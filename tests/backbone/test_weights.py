"""Backbones on disk: read back whole, or refused by name."""

import gzip
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import tensorstore
from flax import serialization
from safetensors import numpy as safetensors_numpy

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import weights
from prompt_subspace.vocabulary import Vocabulary
from tests import tiny

# its larger matrices are above the size from which int8 is used
CONFIG = tiny.CONFIG.replace(vocab_size=300, emb_dim=72, mlp_dim=60)


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['the quick brown fox jumps over it'] * 9),
    model_writer=model,
    vocab_size=40,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  path = tmp_path_factory.mktemp('vocabulary') / 'vocab.model'
  path.write_bytes(model.getvalue())
  return Vocabulary(path)


def backbone(config=CONFIG, vocabulary=None):
  plain = config.replace(scan_layers=False)
  return weights.assemble('tiny', config, tiny.frozen(plain), vocabulary)


def flat(found):
  return {k: np.asarray(v) for k, v in trees.flatten(found.weights).items()}


def test_float32_folder_gives_back_everything(tmp_path, vocabulary):
  original = backbone(vocabulary=vocabulary)
  weights.write(tmp_path / 'new', original)
  found = weights.load(tmp_path / 'new')
  assert found.config == original.config
  assert found.fingerprint == original.fingerprint
  assert found.vocabulary.sha256 == vocabulary.sha256
  jax.tree.map(np.testing.assert_array_equal, flat(found), flat(original))


def test_a_folder_without_vocabulary_has_none(tmp_path, vocabulary):
  weights.write(tmp_path, backbone())
  assert weights.load(tmp_path).vocabulary is None
  given = weights.load(tmp_path, vocabulary=vocabulary.path)
  assert given.vocabulary.size == vocabulary.size


def test_scanned_backbones_are_stored_layer_by_layer(tmp_path):
  config = CONFIG.replace(scan_layers=True)
  scanned = backbone(config)
  weights.write(tmp_path, scanned)
  stored = safetensors_numpy.load_file(tmp_path / 'weights.safetensors')
  assert 'encoder/layers_1/mlp/wo/kernel' in stored
  assert weights.load(tmp_path).config.scan_layers
  found = weights.load(tmp_path, scan_layers=False)
  assert found.fingerprint == scanned.fingerprint == backbone().fingerprint
  jax.tree.map(np.testing.assert_array_equal, flat(found), flat(backbone()))


def test_bfloat16_rounds_to_8_bits_once(tmp_path):
  original = backbone()
  weights.write(tmp_path / 'one', original, store='bfloat16')
  found = weights.load(tmp_path / 'one')
  for path, x in flat(original).items():
    # half of the spacing of numbers with 8 significant bits
    error = np.abs(flat(found)[path] - x)
    assert (error <= np.abs(x) * 2.0**-8).all(), path
  assert found.fingerprint != original.fingerprint
  weights.write(tmp_path / 'two', found, store='bfloat16')
  assert weights.load(tmp_path / 'two').fingerprint == found.fingerprint
  sizes = [
    (tmp_path / folder / 'weights.safetensors').stat().st_size
    for folder in ('one', 'two')
  ]
  assert sizes[0] == sizes[1] < 2.2 * trees.size(original.weights)


def test_the_fingerprint_does_not_depend_on_the_type_in_memory(tmp_path):
  weights.write(tmp_path, backbone(), store='bfloat16')
  wide = weights.load(tmp_path)
  narrow = weights.load(tmp_path, weight_dtype='bfloat16')
  assert jax.tree.leaves(narrow.weights)[0].dtype == jnp.bfloat16
  assert narrow.fingerprint == wide.fingerprint


def test_int8_is_within_half_a_step_of_each_channel(tmp_path):
  original = backbone()
  weights.write(tmp_path, original, store='int8')
  stored = safetensors_numpy.load_file(tmp_path / 'weights.safetensors')
  scaled = {p.removesuffix(weights.SCALE) for p in stored if ':' in p}
  assert {p for p, x in stored.items() if x.dtype == np.int8} == scaled
  assert 'token_embedder/embedding' in scaled
  assert 'encoder/layers_0/mlp/wi_0/kernel' in scaled
  assert 'encoder/encoder_norm/scale' not in scaled
  found = flat(weights.load(tmp_path))
  for path, x in flat(original).items():
    if path not in scaled:
      np.testing.assert_array_equal(found[path], x)
      continue
    # 255 steps from -max to max, rounded to the nearest, in float32
    axis = 1 if path.endswith('embedding') else 0
    most = np.abs(x).max(axis=axis, keepdims=True)
    error = np.abs(found[path] - x)
    assert (error <= most / 254 * (1 + 1e-5)).all(), path
    assert error.max() > 0


def test_int8_keeps_a_channel_of_zeros():
  matrix = np.ones((3, 2), np.float32) * np.asarray([2.0, 0.0], np.float32)
  stored, scale = weights.quantise('x/kernel', matrix)
  np.testing.assert_array_equal(stored * scale, matrix)


def test_write_knows_its_formats(tmp_path):
  with pytest.raises(ValueError, match="store: expected.*'float8'"):
    weights.write(tmp_path, backbone(), store='float8')


def rewrite(folder, change):
  """Writes a folder whose arrays went through `change`."""
  weights.write(folder, backbone(), store='int8')
  path = folder / 'weights.safetensors'
  arrays = safetensors_numpy.load_file(path)
  change(arrays)
  safetensors_numpy.save_file(arrays, path)


NORM = 'encoder/encoder_norm/scale'
TABLE = 'token_embedder/embedding'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda x: x.pop(NORM), f'missing {NORM}'),
    (lambda x: x.update(more=np.ones(2, np.float32)), 'unexpected more'),
    (
      lambda x: x.update({NORM: np.ones(71, np.float32)}),
      r'encoder_norm/scale: expected shape \(72,\), found \(71,\)',
    ),
    (lambda x: x.pop(TABLE + ':scale'), 'expected floating-point.*int8'),
    (lambda x: x.pop(TABLE), 'unexpected token_embedder/embedding:scale'),
    (
      lambda x: x.update({NORM: np.ones(72, np.int32)}),
      'expected floating-point.*int32',
    ),
  ],
)
def test_weights_that_do_not_fit_are_refused(change, message, tmp_path):
  rewrite(tmp_path, change)
  with pytest.raises(ValueError, match=message):
    weights.load(tmp_path)


def test_configurations_that_do_not_fit_are_refused(tmp_path):
  weights.write(tmp_path, backbone())
  with pytest.raises(ValueError, match='expected shape'):
    weights.load(tmp_path, vocab_size=301)
  with pytest.raises(ValueError, match='missing decoder/layers_2'):
    weights.load(tmp_path, num_decoder_layers=3)
  path = tmp_path / 'config.json'
  fields = json.loads(path.read_text(encoding='utf-8'))
  path.write_text(json.dumps({**fields, 'd_model': 72}), encoding='utf-8')
  with pytest.raises(ValueError, match=r"fields of T5Config.*\['d_model'\]"):
    weights.load(tmp_path)


def test_a_vocabulary_larger_than_the_embedding_is_refused(vocabulary):
  config = tiny.CONFIG.replace(vocab_size=vocabulary.size - 1)
  with pytest.raises(ValueError, match='vocabulary: expected at most'):
    backbone(config, vocabulary)
  exact = tiny.CONFIG.replace(vocab_size=vocabulary.size)
  assert backbone(exact, vocabulary).vocabulary is vocabulary


def test_an_unknown_place_is_an_error_that_lists_what_is_known(tmp_path):
  with pytest.raises(ValueError, match='backbone: expected one of.*mini'):
    weights.load(tmp_path / 'nowhere')


def test_the_fingerprint_sees_one_value_one_name_and_one_shape():
  tree = trees.flatten(tiny.frozen())
  mark = trees.fingerprint(trees.unflatten(tree))
  assert mark == trees.fingerprint(
    trees.unflatten(dict(reversed(list(tree.items()))))
  )
  x = np.array(tree[NORM])
  x[3] = np.nextafter(x[3], np.float32(9))
  renamed = {**tree, NORM + 'x': tree[NORM]}
  del renamed[NORM]
  reshaped = {**tree, NORM: tree[NORM].reshape(4, 4)}
  for other in ({**tree, NORM: x}, renamed, reshaped):
    assert trees.fingerprint(trees.unflatten(other)) != mark


def test_random_weights_are_decided_by_the_seed():
  one, same, other = (weights.random(tiny.CONFIG, seed) for seed in (0, 0, 1))
  assert one.fingerprint == same.fingerprint != other.fingerprint
  kernel = one.weights['encoder']['layers_0']['mlp']['wo']['kernel']
  assert 0.5 < kernel.std() * tiny.CONFIG.mlp_dim**0.5 < 1.5


def test_a_method_may_read_all_weights(vocabulary):
  """(IA)^3 on a kernel, say, whose offset is W (l - 1)."""
  plain = backbone(CONFIG.replace(vocab_size=160), vocabulary)
  path = 'encoder/layers_0/mlp/wo/kernel'
  found = trees.flatten(weights.setting(plain).weights)[path]
  np.testing.assert_array_equal(found, trees.flatten(plain.weights)[path])
  scanned = backbone(CONFIG.replace(scan_layers=True, vocab_size=160))
  shape = trees.flatten(weights.setting(scanned).weights)[path]
  assert isinstance(shape, jax.ShapeDtypeStruct) and shape.shape == found.shape


def test_the_setting_of_a_scanned_backbone_names_its_layers(vocabulary):
  config = CONFIG.replace(scan_layers=True, vocab_size=160)
  found = weights.setting(backbone(config, vocabulary), labels=((5, 6),))
  assert found.vocab_limit == vocabulary.size - 100
  assert found.labels == ((5, 6),)
  assert found.encode('the fox') == vocabulary.encode('the fox')
  key = jax.random.key(0)
  for name in ('prompt', 'lora', 'full'):
    method = deltas.make(name, **({'length': 5} if name == 'prompt' else {}))
    phi = method.init(key, found)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(phi))
  assert 'layers_1' in phi['encoder']
  stacked = found._replace(weights=backbone(config).weights)
  for name in ('lora', 'full'):
    with pytest.raises(ValueError, match='one by one.*weights.setting'):
      deltas.make(name).init(key, stacked)


def write_t5x(folder, tree, top='optimizer'):
  """Writes a checkpoint as T5X did: msgpack, and zarr for the matrices."""

  def store(node, path):
    if isinstance(node, dict):
      return {name: store(x, (*path, name)) for name, x in node.items()}
    array = np.asarray(node)
    if path[-1] != 'kernel':
      return array
    name = '.'.join(('target', *path))
    spec = {
      'driver': 'zarr',
      'kvstore': {'driver': 'file', 'path': str(folder / name)},
      'metadata': {
        'shape': list(array.shape),
        'chunks': [-(-n // 2) for n in array.shape],
        'dtype': 'bfloat16' if array.dtype.name == 'bfloat16' else '<f4',
        'compressor': {'id': 'gzip', 'level': 1},
      },
    }
    opened = tensorstore.open(spec, create=True).result()
    opened.write(array).result()
    kept = {'kvstore': {'driver': 'gfile', 'path': name}}
    return {**spec, **kept}

  target = store(tree, ())
  state = {'step': np.asarray(3), 'param_states': {}}
  index = {'version': 3, 'optimizer': {'state': state, 'target': target}}
  if top is None:
    index = {'version': 3, 'target': target}
  folder.mkdir(exist_ok=True)
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(index))


@pytest.mark.parametrize(
  ('config', 'top'), [(tiny.CONFIG, 'optimizer'), (tiny.TIED, None)]
)
def test_t5x_checkpoints_are_read(config, top, tmp_path):
  write_t5x(tmp_path, tiny.frozen(config), top)
  found = weights.load(tmp_path)
  assert found.config == config
  jax.tree.map(
    np.testing.assert_array_equal, dict(found.weights), tiny.frozen(config)
  )


def test_t5x_checkpoints_in_bfloat16_are_read(tmp_path):
  narrow = tiny.CONFIG.replace(weight_dtype='bfloat16')
  write_t5x(tmp_path, tiny.frozen(narrow))
  found = weights.load(tmp_path)
  expected = weights.assemble('', narrow, tiny.frozen(narrow), None)
  assert found.fingerprint == expected.fingerprint


def test_incomplete_t5x_checkpoints_are_refused(tmp_path):
  write_t5x(tmp_path, tiny.frozen())
  lost = 'target.encoder.layers_0.mlp.wo.kernel'
  (tmp_path / lost).rename(tmp_path / 'away')
  with pytest.raises(ValueError, match=f'{lost}, which is missing'):
    weights.load(tmp_path)
  index = serialization.msgpack_serialize({'version': 3, 'train_state': {}})
  (tmp_path / 'checkpoint').write_bytes(index)
  with pytest.raises(ValueError, match='expected a T5X checkpoint'):
    weights.load(tmp_path)


def test_other_trees_are_not_taken_for_a_t5():
  tree = dict(tiny.frozen())
  del tree['decoder']
  with pytest.raises(ValueError, match='expected a T5 with decoder/layers_0'):
    weights.infer_config(tree)


def test_a_genuine_t5x_checkpoint_loads(real_data):
  folder = real_data / 'checkpoints' / 't5x_t5_1_1_tiny' / 'checkpoint_3'
  if not folder.is_dir():
    pytest.skip(f'needs the checkpoint {folder.parent.name} in ../shared/data')
  found = weights.load(folder)
  assert found.config.vocab_size == 32128
  assert found.config.mlp_activations == ('gelu', 'linear')
  # one array read by hand: a single gzip chunk of little-endian float32
  stored = folder / 'target.encoder.layers_1.attention.value.kernel'
  content = gzip.decompress((stored / '0.0').read_bytes())
  value = found.weights['encoder']['layers_1']['attention']['value']['kernel']
  by_hand = np.frombuffer(content, '<f4').reshape(value.shape)
  np.testing.assert_array_equal(value, by_hand)
  logits = tiny.logits(
    tiny.PLAIN, found.config, found.weights, {}, tiny.batch()
  )
  assert np.isfinite(logits).all() and np.asarray(logits).std() > 0
