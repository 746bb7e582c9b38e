"""Names of T5 weights in Hugging Face folders, in both directions.

Hugging Face stores a linear map as [out, in], ours is [in, out]. Weights are
read when they are asked for, whole or in parts, so that a large backbone is
never in memory beside the devices that hold it.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import numpy as safetensors_numpy
from safetensors import safe_open

from prompt_subspace import trees
from prompt_subspace.backbone.config import T5Config

ATTENTION = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}
# sublayer of ours -> (number in the block, name there)
SUBLAYERS = {
  'encoder': {
    'attention': (0, 'SelfAttention'),
    'mlp': (1, 'DenseReluDense'),
  },
  'decoder': {
    'self_attention': (0, 'SelfAttention'),
    'encoder_decoder_attention': (1, 'EncDecAttention'),
    'mlp': (2, 'DenseReluDense'),
  },
}
# feed_forward_proj there -> mlp_activations here; their plain `gelu` is the
# exact one, which no T5 has
ACTIVATIONS = {
  'relu': ('relu',),
  'silu': ('silu',),
  'gelu_new': ('gelu',),
  'gated-relu': ('relu', 'linear'),
  'gated-silu': ('silu', 'linear'),
  'gated-gelu': ('gelu', 'linear'),
}
NORMS = {
  'encoder': ('pre_attention_layer_norm', 'pre_mlp_layer_norm'),
  'decoder': (
    'pre_self_attention_layer_norm',
    'pre_cross_attention_layer_norm',
    'pre_mlp_layer_norm',
  ),
}

TYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}
# rows of two tables that are compared at once
ROWS = 4096

WHOLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'


class Part(NamedTuple):
  """An array in a file, read when it is asked for.

  Attributes:
    file: of safetensors.
    name: of the array.
    shape: of it, or of its transpose.
    dtype: of it.
    turned: whether it is the transpose.
  """

  file: pathlib.Path
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  turned: bool = False

  @property
  def T(self) -> 'Part':  # noqa: N802
    return self._replace(shape=self.shape[::-1], turned=not self.turned)

  def __getitem__(self, index: Any) -> np.ndarray:
    given = index if isinstance(index, tuple) else (index,)
    given = () if index is Ellipsis else given
    given += (slice(None),) * (len(self.shape) - len(given))
    sizes = zip(given, self.shape, strict=True)
    index = tuple(slice(*s.indices(size)) for s, size in sizes)
    # opened for each part: what was read of a mapped file would stay in memory
    with safe_open(self.file, 'np') as file:
      found = file.get_slice(self.name)
      return found[index[::-1]].T if self.turned else found[index]

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # what was read is nobody else's
    return np.asarray(self[...], dtype)


def name_of(path: str) -> str:
  """Returns Hugging Face's name of a weight of ours."""
  if path == 'token_embedder/embedding':
    return 'shared.weight'
  if path == 'decoder/logits_dense/kernel':
    return 'lm_head.weight'
  stack, *rest = path.split('/')
  if rest[0] == 'relpos_bias':
    return (
      f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
    )
  if rest[0] == f'{stack}_norm':
    return f'{stack}.final_layer_norm.weight'
  block = f'{stack}.block.{rest[0].removeprefix("layers_")}.layer'
  if rest[1] in NORMS[stack]:
    return f'{block}.{NORMS[stack].index(rest[1])}.layer_norm.weight'
  number, module = SUBLAYERS[stack][rest[1]]
  inner = ATTENTION.get(rest[2], rest[2])
  return f'{block}.{number}.{module}.{inner}.weight'


def to_huggingface(weights: Mapping) -> dict[str, np.ndarray]:
  """Returns {Hugging Face name: array} of a tree of ours."""
  out = {}
  for path, x in trees.flatten(weights).items():
    x = np.asarray(x).astype(np.float32)
    turned = path.endswith(('kernel', 'rel_embedding'))
    out[name_of(path)] = np.ascontiguousarray(x.T) if turned else x
  return out


def from_huggingface(arrays: Mapping[str, np.ndarray], like: Mapping) -> dict:
  """Returns a tree of ours from Hugging Face's arrays.

  Args:
    arrays: by Hugging Face name; copies of the shared embedding are ignored.
    like: names and shapes of the tree to make.

  Raises:
    ValueError: a weight is missing or one is left over.
  """
  flat, used = {}, set()
  for path in trees.flatten(like):
    name = name_of(path)
    if name not in arrays:
      raise ValueError(
        f'weights: expected {name} (our {path}) in the Hugging Face folder, '
        'found none. Is it a T5 with the same number of layers?'
      )
    used.add(name)
    turned = path.endswith(('kernel', 'rel_embedding'))
    flat[path] = arrays[name].T if turned else arrays[name]
  copies = {'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'}
  if 'lm_head.weight' not in used:
    copies.add('lm_head.weight')
  if left := sorted(set(arrays) - used - copies):
    raise ValueError(
      f'weights: unexpected arrays in the Hugging Face folder: {left[:5]}. '
      'They would be lost; is it a plain T5?'
    )
  return trees.unflatten(flat)


def read(folder: pathlib.Path) -> tuple[dict, T5Config]:
  """Finds the weights (`Part`s) and the shape of a Hugging Face T5 folder."""
  from prompt_subspace.backbone import weights as weights_module

  text = (folder / 'config.json').read_text(encoding='utf-8')
  fields = json.loads(text)
  arrays = _arrays(folder)
  config = config_from(fields, arrays)
  if not config.logits_via_embedding:  # tied, yet without T5 1.0's scale
    arrays.setdefault('lm_head.weight', arrays['shared.weight'])
  return from_huggingface(arrays, weights_module.expected(config)), config


def is_folder(folder: pathlib.Path) -> bool:
  """Whether a folder has weights as Hugging Face writes them."""
  return any((folder / name).exists() for name in (WHOLE, INDEX))


def _arrays(folder: pathlib.Path) -> dict[str, Part]:
  """Finds the arrays of the one file of a model, or of its shards.

  Raises:
    ValueError: a shard is missing, or lacks what the index says it has.
  """
  if (folder / WHOLE).exists():
    return _parts(folder / WHOLE)
  index = json.loads((folder / INDEX).read_text(encoding='utf-8'))
  shards: dict[str, list[str]] = {}
  for name, shard in index['weight_map'].items():
    shards.setdefault(shard, []).append(name)
  if missing := sorted(s for s in shards if not (folder / s).exists()):
    raise ValueError(
      f'{folder}: expected the shards that {INDEX} lists, missing {missing}. '
      'Copy all of them.'
    )
  out = {}
  for shard, names in shards.items():
    held = _parts(folder / shard)
    if lacking := sorted(set(names) - set(held)):
      raise ValueError(
        f'{folder / shard}: expected the arrays that {INDEX} lists, missing '
        f'{lacking[:3]}. Copy the folder again.'
      )
    out |= {name: held[name] for name in names}
  return out


def _parts(file: pathlib.Path) -> dict[str, Part]:
  """Finds the arrays of a file.

  Raises:
    ValueError: one is not floating-point.
  """
  out = {}
  with safe_open(file, 'np') as opened:
    for name in opened.keys():
      found = opened.get_slice(name)
      if (kind := found.get_dtype()) not in TYPES:
        raise ValueError(
          f'{file}: expected arrays of {sorted(TYPES)}, found {kind} in '
          f'{name}. Quantised models are not supported: save it in floating '
          'point.'
        )
      out[name] = Part(file, name, tuple(found.get_shape()), TYPES[kind])
  return out


def _same(a: Any, b: Any) -> bool:
  """Whether two tables are equal; reads a part of them at once."""
  return a.shape == b.shape and all(
    np.array_equal(a[i : i + ROWS], b[i : i + ROWS])
    for i in range(0, a.shape[0], ROWS)
  )


def config_from(fields: Mapping, arrays: Mapping) -> T5Config:
  """Translates Hugging Face's `config.json`.

  The head of T5 1.0 is the embedding, with its input scaled. Transformers 5
  writes `tie_word_embeddings` true for T5 1.1 as well, and says in
  `scale_decoder_outputs` which of the two it is.

  Raises:
    ValueError: another family or activation, or a head of its own that is
      scaled.
  """
  if fields.get('model_type') not in ('t5', 'mt5'):
    raise ValueError(
      f'config.json: expected model_type t5 or mt5, found '
      f'{fields.get("model_type")!r}. Other families are not supported.'
    )
  kind = fields.get('feed_forward_proj', 'relu')
  if kind not in ACTIVATIONS:
    raise ValueError(
      f'config.json: expected feed_forward_proj among {sorted(ACTIVATIONS)}, '
      f'found {kind!r}. Other activations are not supported.'
    )
  untied = 'lm_head.weight' in arrays and not _same(
    arrays['lm_head.weight'], arrays['shared.weight']
  )
  scaled = fields.get('scale_decoder_outputs')
  if untied and scaled:
    raise ValueError(
      'config.json: expected scale_decoder_outputs false, because lm_head '
      'differs from the embedding, found true. Set it as the model was trained.'
    )
  if scaled is None:
    scaled = not untied and fields.get('tie_word_embeddings', True)
  return T5Config(
    vocab_size=arrays['shared.weight'].shape[0],
    emb_dim=fields['d_model'],
    num_heads=fields['num_heads'],
    head_dim=fields['d_kv'],
    mlp_dim=fields['d_ff'],
    num_encoder_layers=fields['num_layers'],
    num_decoder_layers=fields.get('num_decoder_layers') or fields['num_layers'],
    mlp_activations=ACTIVATIONS[kind],
    logits_via_embedding=bool(scaled),
    dropout_rate=fields.get('dropout_rate', 0.1),
    relpos_buckets=fields.get('relative_attention_num_buckets', 32),
    relpos_max_distance=fields.get('relative_attention_max_distance', 128),
    norm_epsilon=fields.get('layer_norm_epsilon', 1e-6),
  )


def write(folder: pathlib.Path, weights: Mapping, config: T5Config) -> None:
  """Writes a folder that `T5ForConditionalGeneration` can load.

  Args:
    folder: made if it does not exist.
    weights: with layers named one by one.
    config: of the backbone.

  Raises:
    ValueError: Hugging Face's T5 has no such activation.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  names = {ours: name for name, ours in ACTIVATIONS.items()}
  if config.mlp_activations not in names:
    raise ValueError(
      f'mlp_activations: expected one of {sorted(names)}, which Hugging Face '
      f'has, found {config.mlp_activations}.'
    )
  fields = {
    'architectures': ['T5ForConditionalGeneration'],
    'model_type': 't5',
    'vocab_size': config.vocab_size,
    'd_model': config.emb_dim,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'num_heads': config.num_heads,
    'feed_forward_proj': names[config.mlp_activations],
    'tie_word_embeddings': config.logits_via_embedding,
    'dropout_rate': config.dropout_rate,
    'relative_attention_num_buckets': config.relpos_buckets,
    'relative_attention_max_distance': config.relpos_max_distance,
    'layer_norm_epsilon': config.norm_epsilon,
    'decoder_start_token_id': 0,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'is_encoder_decoder': True,
  }
  text = json.dumps(fields, indent=2) + '\n'
  (folder / 'config.json').write_text(text, encoding='utf-8')
  safetensors_numpy.save_file(
    to_huggingface(weights),
    folder / 'model.safetensors',
    metadata={'format': 'pt'},
  )
