"""Backbones on disk: the bundled one, our own folders, T5X, Hugging Face.

A folder of ours holds `weights.safetensors` (names joined by `/`),
`config.json` and `vocab.model`. Matrices may be stored as int8 with a float32
scale per channel, in a second array named `<name>:scale`.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from safetensors import numpy as safetensors_numpy

from prompt_subspace import heap, trees
from prompt_subspace import vocabulary as vocabularies
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, huggingface, sites
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.deltas.base import Setting, check_names
from prompt_subspace.vocabulary import Vocabulary

BUNDLED = {'mini': pathlib.Path(__file__).parent / 'mini'}
SCALE = ':scale'


class Backbone(NamedTuple):
  """A frozen model with its weights, vocabulary and identity.

  Attributes:
    name: how it was asked for.
    config: its shape.
    weights: the frozen tree, stacked if the configuration scans layers.
    vocabulary: tokens of its embedding; None if the folder has none.
    fingerprint: sha256 over names, shapes and values of the weights.
    mesh: of the devices that the weights are spread over, see
      `training.mesh`; None: one device.
  """

  name: str
  config: configs.T5Config
  weights: Mapping
  vocabulary: Vocabulary | None
  fingerprint: str
  mesh: jax.sharding.Mesh | None = None


def expected(config: configs.T5Config) -> dict:
  """Returns the names, shapes and types of a backbone's weights.

  Layers are named one by one, whether or not the configuration scans them.
  """
  model = T5(config.replace(scan_layers=False, remat=False))
  tokens = jax.ShapeDtypeStruct((1, 2), jnp.int32)
  shapes = jax.eval_shape(
    lambda key, x: model.init(key, x, x, enable_dropout=False),
    jax.random.key(0),
    tokens,
  )
  return shapes['params']


def load(
  name: str | pathlib.Path,
  vocabulary: str | pathlib.Path | None = None,
  **changes,
) -> Backbone:
  """Loads a backbone by name or path.

  Args:
    name: `mini`, or a folder: our own, a T5X checkpoint in the legacy format,
      or a Hugging Face T5 with safetensors.
    vocabulary: a sentencepiece model, or `bytes`, where the folder has none.
    **changes: fields of the configuration to replace (dtype, weight_dtype,
      scan_layers, remat, dropout_rate, ...).

  Raises:
    ValueError: nothing known at that place, or names, shapes or types of the
      weights do not match the configuration.
  """
  folder = BUNDLED.get(str(name), pathlib.Path(name))
  if (folder / 'weights.safetensors').exists():
    weights, config = _read_own(folder)
  elif (folder / 'checkpoint').exists():
    weights = read_t5x(folder)
    config = infer_config(weights)
  elif huggingface.is_folder(folder):
    weights, config = huggingface.read(folder)
  else:
    raise ValueError(
      f'backbone: expected one of {sorted(BUNDLED)} or a folder with '
      '`weights.safetensors` (ours), `checkpoint` (T5X, legacy format) or '
      f'`model.safetensors` (Hugging Face T5, or its index of shards), found '
      f'{str(name)!r}.'
    )
  _to_device(weights)
  loaded = assemble(
    str(name),
    config.replace(**changes),
    weights,
    vocabularies.find(vocabulary)
    if vocabulary
    else vocabularies.of_folder(folder),
  )
  del weights  # in another form they are copies
  heap.give_back()
  return loaded


def _to_device(tree: dict) -> None:
  """Replaces what was read by JAX's arrays, one by one.

  A large backbone is so never in memory twice.
  """
  for name, value in tree.items():
    if isinstance(value, dict):
      _to_device(value)
    else:
      tree[name] = jnp.asarray(np.asarray(value))


def assemble(
  name: str,
  config: configs.T5Config,
  weights: Mapping,
  vocabulary: Vocabulary | None,
) -> Backbone:
  """Checks weights against a configuration and brings them into its form.

  Raises:
    ValueError: names or shapes differ, a weight is not floating-point, or the
      vocabulary has more tokens than the embedding has rows.
  """
  for path, x in trees.flatten(weights).items():
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise ValueError(
        f'backbone {name}: expected floating-point weights, found {x.dtype} '
        f'in {path}. Integers need their scales beside them.'
      )
  dtype = jnp.dtype(config.weight_dtype)
  weights = jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), weights)
  trees.check_same(weights, expected(config), f'backbone {name}')
  if vocabulary is not None and vocabulary.size > config.vocab_size:
    raise ValueError(
      f'vocabulary: expected at most {config.vocab_size} tokens, the rows of '
      f'the embedding of {name}, found {vocabulary.size} in '
      f'{vocabulary.path}. Give the vocabulary the backbone was trained with.'
    )
  mark = trees.fingerprint(weights)
  if config.scan_layers:
    weights = sites.stack_layers(weights, forward.layer_counts(config))
  return Backbone(name, config, weights, vocabulary, mark)


def setting(
  backbone: Backbone, labels: tuple[tuple[int, ...], ...] = ()
) -> Setting:
  """Returns what a method's initialisation may read of a backbone.

  Layers are named one by one, whether or not the backbone scans them. Of
  scanned layers there are only shapes; the token table has its values always.

  Args:
    backbone: to start from.
    labels: token ids of each label text of the task, without end token.
  """
  weights = backbone.weights
  if backbone.config.scan_layers:
    table = {'token_embedder': weights['token_embedder']}
    weights = {**expected(backbone.config), **table}
  vocabulary = backbone.vocabulary
  return Setting(
    backbone.config,
    weights,
    vocabulary.size - vocabulary.extra_ids if vocabulary else 0,
    labels,
    vocabulary.encode if vocabulary else None,
    backbone.fingerprint,
  )


def random(
  config: configs.T5Config, seed: int = 0, vocabulary: Vocabulary | None = None
) -> Backbone:
  """Returns a backbone with freshly drawn weights, for tests and timing."""
  plain = config.replace(scan_layers=False, remat=False)
  weights = _draw(plain, jax.random.key(seed))
  return assemble('random', config, weights, vocabulary)


@functools.partial(jax.jit, static_argnames='config')
def _draw(config, key):
  tokens = jnp.ones((1, 2), jnp.int32)
  model = T5(config)
  return model.init(key, tokens, tokens, enable_dropout=False)['params']


def write(
  folder: str | pathlib.Path,
  backbone: Backbone,
  store: str = 'float32',
) -> None:
  """Writes a folder of ours.

  Args:
    folder: made if it does not exist.
    backbone: what to write.
    store: `float32`, `bfloat16`, or `int8` (matrices with one scale per
      output channel, or per row of the embedding; the rest float32).

  Raises:
    ValueError: `store` is none of these.
  """
  check_names('store', (store,), ('float32', 'bfloat16', 'int8'))
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  counts = forward.layer_counts(backbone.config)
  flat = trees.flatten(sites.unstack_layers(dict(backbone.weights), counts))
  arrays: dict[str, np.ndarray] = {}
  for path, x in flat.items():
    x = np.asarray(x).astype(np.float32)
    if store == 'int8' and min(x.shape) > 1 and x.ndim == 2 and x.size > 4096:
      arrays[path], arrays[path + SCALE] = quantise(path, x)
    elif store == 'bfloat16':
      arrays[path] = x.astype(ml_dtypes.bfloat16)
    else:
      arrays[path] = x
  safetensors_numpy.save_file(arrays, folder / 'weights.safetensors')
  text = json.dumps(backbone.config.to_json(), indent=2)
  (folder / 'config.json').write_text(text + '\n', encoding='utf-8')
  if backbone.vocabulary is not None:
    backbone.vocabulary.write(folder)


def quantise(path: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Rounds a matrix to int8 with a scale per channel: x ~ q * scale."""
  axis = 1 if path.endswith('embedding') else 0
  scale = np.abs(x).max(axis=axis, keepdims=True) / 127.0
  scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
  return np.rint(x / scale).astype(np.int8), scale


def _read_own(folder: pathlib.Path):
  stored = safetensors_numpy.load_file(folder / 'weights.safetensors')
  flat = {}
  for path, x in stored.items():
    if path.endswith(SCALE) and path.removesuffix(SCALE) in stored:
      continue
    scale = stored.get(path + SCALE)
    flat[path] = x if scale is None else x.astype(np.float32) * scale
  return trees.unflatten(flat), configs.read(folder / 'config.json')


def read_t5x(folder: str | pathlib.Path) -> dict:
  """Reads the weights of a T5X checkpoint in the legacy format.

  That is a msgpack index named `checkpoint`, small arrays inside it, large
  ones beside it in zarr. Optimiser state is not read.

  Raises:
    ValueError: the index has no model weights, or an array is missing.
  """
  import tensorstore
  from flax import serialization

  folder = pathlib.Path(folder).absolute()
  index = serialization.msgpack_restore((folder / 'checkpoint').read_bytes())
  holder = index.get('optimizer', index)
  if 'target' not in holder:
    raise ValueError(
      f'{folder}: expected a T5X checkpoint with a `target`, found only '
      f'{sorted(holder)}. Name the folder of one step (checkpoint_N).'
    )

  def read(node):
    if not isinstance(node, dict):
      return np.asarray(node)
    if node.get('driver') != 'zarr':
      return {name: read(child) for name, child in node.items()}
    path = folder / node['kvstore']['path']
    if not path.exists():
      raise ValueError(
        f'{folder}: the index names {path.name}, which is missing. Copy the '
        'whole folder of the checkpoint.'
      )
    spec = {
      'driver': 'zarr',
      'kvstore': {'driver': 'file', 'path': str(path)},
    }
    return np.asarray(
      tensorstore.open(spec, open=True).result().read().result()
    )

  return read(holder['target'])


def infer_config(weights: Mapping) -> configs.T5Config:
  """Reads the shape of a T5 off its weights.

  Dropout, types and the distance limit of the relative bias are not in the
  weights; they keep their defaults.
  """
  flat = trees.flatten(weights)

  def shape(path):
    if path not in flat:
      raise ValueError(
        f'weights: expected a T5 with {path}, found only names like '
        f'{sorted(flat)[:3]}.'
      )
    return flat[path].shape

  def count(stack):
    return len([k for k in weights[stack] if k.startswith('layers_')])

  vocab, width = shape('token_embedder/embedding')
  heads, buckets = shape('encoder/relpos_bias/rel_embedding')
  joined = shape('encoder/layers_0/attention/query/kernel')[1]
  gated = 'encoder/layers_0/mlp/wi_0/kernel' in flat
  inner = 'wi_0' if gated else 'wi'
  shape('decoder/layers_0/encoder_decoder_attention/query/kernel')
  return configs.T5Config(
    vocab_size=vocab,
    emb_dim=width,
    num_heads=heads,
    head_dim=joined // heads,
    mlp_dim=shape(f'encoder/layers_0/mlp/{inner}/kernel')[1],
    num_encoder_layers=count('encoder'),
    num_decoder_layers=count('decoder'),
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    logits_via_embedding='decoder/logits_dense/kernel' not in flat,
    relpos_buckets=buckets,
  )
