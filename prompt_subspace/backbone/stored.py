"""A backbone on disk that is read slice by slice, each by whom it belongs to.

`weights.load` holds a whole backbone on one device. Where the weights are
spread over many, each host reads only the parts that its devices hold, and
nothing is read before it is needed. T5X checkpoints (legacy format) are read so
from disk and from Google Cloud Storage, Hugging Face folders from disk; our own
folders, which may be quantised, are read into the host's memory once.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from prompt_subspace import trees
from prompt_subspace import vocabulary as vocabularies
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import huggingface, weights
from prompt_subspace.deltas.base import Setting
from prompt_subspace.vocabulary import Vocabulary

# (end of a weight's path, names of its axes as T5X's minimal T5 has them)
AXES: tuple[tuple[str, tuple[str, ...]], ...] = (
  ('token_embedder/embedding', ('vocab', 'embed')),
  ('relpos_bias/rel_embedding', ('heads', 'relpos_buckets')),
  (r'(query|key|value)/kernel', ('embed', 'joined_kv')),
  ('out/kernel', ('joined_kv', 'embed')),
  (r'mlp/wi(_\d)?/kernel', ('embed', 'mlp')),
  ('mlp/wo/kernel', ('mlp', 'embed')),
  ('logits_dense/kernel', ('embed', 'vocab')),
  ('scale', ('embed',)),
)


class Stored(NamedTuple):
  """A frozen model of which nothing is in memory yet.

  Attributes:
    name: how it was asked for.
    config: its shape.
    leaves: path -> what gives a part of a weight for an index, and has its
      shape and type.
    vocabulary: tokens of its embedding.
  """

  name: str
  config: configs.T5Config
  leaves: Mapping[str, Any]
  vocabulary: Vocabulary

  @property
  def shapes(self) -> dict:
    """The tree of its weights' shapes, in the type that they are held in."""
    dtype = jnp.dtype(self.config.weight_dtype)
    return trees.unflatten(
      {
        path: jax.ShapeDtypeStruct(tuple(x.shape), dtype)
        for path, x in self.leaves.items()
      }
    )


def axes(path: str) -> tuple[str, ...]:
  """Returns the logical names of a weight's axes.

  Raises:
    ValueError: no weight of a T5 has that path.
  """
  for end, names in AXES:
    if re.search(rf'(^|/){end}$', path):
      return names
  raise ValueError(
    f'weights: expected the path of a T5, found {path!r}. Add its axes to '
    'backbone.stored.AXES.'
  )


def find(
  name: str, vocabulary: str | pathlib.Path | None = None, **changes
) -> Stored:
  """Finds a backbone, checks its names and shapes, and reads no weights.

  Args:
    name: `mini`, any folder that `weights.load` reads, or a T5X checkpoint on
      Google Cloud Storage (gs://...).
    vocabulary: a sentencepiece model, or `bytes`, where the folder has none.
    **changes: fields of the configuration to replace.

  Raises:
    ValueError: nothing known at that place, names or shapes do not match the
      configuration, no vocabulary, or stacked layers.
  """
  if (epath.Path(str(name)) / 'checkpoint').exists():
    leaves = {p: _leaf(p, name, x) for p, x in _index(name).items()}
    config = weights.infer_config(trees.unflatten(leaves))
    known = None
  elif huggingface.is_folder(pathlib.Path(name)):
    tree, config = huggingface.read(pathlib.Path(name))
    leaves = trees.flatten(tree)
    known = vocabularies.of_folder(pathlib.Path(name))
  else:
    # in the host's memory, whatever the devices are
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      read = weights.load(name, vocabulary)
    config, known = read.config, read.vocabulary
    leaves = trees.flatten(jax.tree.map(np.asarray, dict(read.weights)))
  config = config.replace(**changes)
  if config.scan_layers:
    raise ValueError(
      'scan_layers: expected False, found True. A stored backbone is read with '
      'its layers one by one.'
    )
  if vocabulary is not None:
    known = vocabularies.find(vocabulary)
  if known is None:
    raise ValueError(
      f'vocabulary: expected a sentencepiece model, as {name} has none. Give '
      'vocabulary="path/of/a.model"; that of T5 1.1 is spiece.model, of ByT5 '
      '"bytes".'
    )
  if known.size > config.vocab_size:
    raise ValueError(
      f'vocabulary: expected at most {config.vocab_size} tokens, the rows of '
      f'the embedding of {name}, found {known.size} in {known.path}.'
    )
  stored = Stored(str(name), config, leaves, known)
  trees.check_same(stored.shapes, expected(config), f'backbone {name}')
  return stored


def expected(config: configs.T5Config) -> dict:
  """Returns what `weights.expected` does, in the type that is held."""
  dtype = jnp.dtype(config.weight_dtype)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype), weights.expected(config)
  )


def read(stored: Stored, path: str, index: Any = ...) -> np.ndarray:
  """Reads a weight, or a part of it, as it is held.

  Raises:
    ValueError: it has values that are not finite.
  """
  held = np.asarray(stored.leaves[path][index])
  value = held.astype(jnp.dtype(stored.config.weight_dtype))
  if not np.isfinite(value.astype(np.float32)).all():
    raise ValueError(
      f'backbone {stored.name}: {path} has values that are not finite.'
    )
  return value


def place(stored: Stored, shardings: Mapping) -> dict:
  """Reads all weights onto the devices, each host what its devices hold.

  Args:
    stored: where they are.
    shardings: a tree like the weights.
  """
  out = {}
  for path, sharding in trees.flatten(shardings).items():
    out[path] = jax.make_array_from_callback(
      tuple(stored.leaves[path].shape),
      sharding,
      lambda index, path=path: read(stored, path, index),
    )
  return trees.unflatten(out)


def fingerprint(stored: Stored) -> str:
  """Returns that of the weights as they are on disk; reads all, one by one."""
  return trees.fingerprint(trees.unflatten(stored.leaves))


def setting(stored: Stored, embedding: Any) -> Setting:
  """Returns what a method's initialisation may read, see `weights.setting`."""
  known = stored.vocabulary
  table = {'token_embedder': {'embedding': embedding}}
  return Setting(
    stored.config,
    {**weights.expected(stored.config), **table},
    known.size - known.extra_ids,
    (),
    known.encode,
  )


class _Zarr(NamedTuple):
  """An array of TensorStore; a part of it is read when it is asked for."""

  store: Any

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.store.shape)

  @property
  def dtype(self) -> np.dtype:
    return self.store.dtype.numpy_dtype

  def __getitem__(self, index) -> np.ndarray:
    return np.asarray(self.store[index].read().result())

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # what was read is nobody else's
    return np.asarray(self[...], dtype)


def _index(folder: str) -> dict:
  """Returns {path: array, or where it is} of a legacy T5X checkpoint."""
  from flax import serialization

  content = (epath.Path(str(folder)) / 'checkpoint').read_bytes()
  index = serialization.msgpack_restore(content)
  holder = index.get('optimizer', index)
  if 'target' not in holder:
    raise ValueError(
      f'{folder}: expected a T5X checkpoint with a `target`, found only '
      f'{sorted(holder)}. Name the folder of one step (checkpoint_N), written '
      'in the legacy format.'
    )
  flat: dict = {}
  _collect(holder['target'], '', flat)
  return flat


def _collect(node: Any, path: str, flat: dict) -> None:
  if isinstance(node, dict) and 'driver' not in node:
    for name, child in node.items():
      _collect(child, f'{path}/{name}' if path else name, flat)
  else:
    flat[path] = node


def _leaf(path: str, folder: str, node: Any) -> Any:
  if not isinstance(node, dict):
    return np.asarray(node)
  import tensorstore

  inner = node['kvstore']['path'].rstrip('/')
  cloud = re.fullmatch(r'gs://([^/]+)/?(.*)', str(folder))
  if cloud:
    place = {
      'driver': 'gcs',
      'bucket': cloud[1],
      'path': f'{cloud[2].rstrip("/")}/{inner}/',
    }
  else:
    place = {
      'driver': 'file',
      'path': f'{pathlib.Path(folder).absolute()}/{inner}/',
    }
  spec = {'driver': 'zarr', 'kvstore': place}
  try:
    return _Zarr(tensorstore.open(spec, open=True, read=True).result())
  except ValueError as error:
    raise ValueError(
      f'{folder}: the index names {inner} for {path}, which cannot be read '
      f'({str(error)[:200]}). Copy the whole folder of the checkpoint.'
    ) from error
