"""The data of a stack: arrays on the device, and which batch is when.

All training examples of the stack's tasks stand in one array; a row's indices
are shifted to its own task. What a row sees at a step depends on its key and
the step alone; only the width that batches are padded to is shared.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, PyTree

from prompt_subspace.backbone import forward
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import batches
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Method, touches_encoder
from prompt_subspace.evaluation import batched
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import episodes
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.spec import RowSpec, Settings


class Feed(NamedTuple):
  """What a stack is trained and evaluated on.

  Attributes:
    train: arrays of all training examples, on the device: `inputs`,
      `targets`, maybe `encoded`, and of unions of tasks `task`.
    held_out: (task, split) -> arrays, on the device.
    indices: the examples of each step and row; a tree of arrays where the
      algorithm has batches of several parts.
    widths: to how many tokens the inputs of each step are padded.
    target_width: to how many tokens all targets are padded.
    padding: share of padding in the inputs of each row.
    mesh: of the devices that all lies on.
  """

  train: dict[str, Array]
  held_out: dict[tuple[str, str], dict[str, Array]]
  indices: PyTree[Int[np.ndarray, 'S W *B']]
  widths: Int[np.ndarray, ' S']
  target_width: int
  padding: list[float]
  mesh: Mesh | None = None

  def batch(self, number: int) -> dict[str, Array]:
    """Returns the batches [W, B, ...] of one step."""
    return jax.tree.map(
      lambda x: stack_rows.gather(
        self.train,
        meshes.put_batch(self.mesh, x[number]),
        int(self.widths[number]),
        self.target_width,
      ),
      self.indices,
    )

  @property
  def examples(self) -> int:
    """How many examples all rows see in one step."""
    return sum(x[0].size for x in jax.tree.leaves(self.indices))


def make_feed(
  method: Method,
  algorithm: Algorithm,
  backbone: Backbone,
  specs: Sequence[RowSpec],
  tasks: Mapping[str, TaskArrays],
  settings: Settings,
) -> Feed:
  """Plans all steps of a stack and puts its data on the device.

  Args:
    method: of the rows; one that leaves the encoder alone may have the
      encoder's output computed here, once per example.
    algorithm: plans which examples a row sees.
    backbone: frozen model.
    specs: the rows.
    tasks: arrays of every task that a row names.
    settings: steps, batch size, buckets, cache.
  """
  names = list(dict.fromkeys(s.task for s in specs))
  train = {n: tasks[n].splits['train'] for n in names}
  lengths = [algorithms.lengths(a.inputs) for a in train.values()]
  firsts = dict(
    zip(names, np.cumsum([0, *map(len, lengths)]).tolist(), strict=False)
  )
  plans = [algorithm.plan(s, tasks[s.task], settings) for s in specs]
  shifted = [
    jax.tree.map(lambda x, n=firsts[s.task]: x + n, p.indices)
    for p, s in zip(plans, specs, strict=True)
  ]
  widths = np.stack([p.widths for p in plans]).max(axis=0)
  every = np.concatenate(lengths)
  most = max(int(widths.max()), *(a.inputs.shape[1] for a in train.values()))
  target_width = batches.round_up(
    max(a.targets.shape[1] for a in train.values()), batches.TARGET_EDGES
  )
  cached = _caches_encoder(method, backbone, specs, tasks, settings)

  def upload(inputs, targets, **more):
    data = {'inputs': inputs, 'targets': targets, **more}
    data = meshes.put(backbone.mesh, data)
    if cached:
      data['encoded'] = _encode(backbone, inputs, settings.evaluation_batch)
    return data

  return Feed(
    train=upload(
      np.concatenate([_wide(a.inputs, most) for a in train.values()]),
      np.concatenate([_wide(a.targets, target_width) for a in train.values()]),
      **_owners([tasks[n] for n in names]),
    ),
    held_out={
      (n, split): upload(a.inputs, a.targets)
      for n in names
      for split, a in tasks[n].splits.items()
      if split != 'train'
    },
    indices=jax.tree.map(lambda *xs: np.stack(xs, axis=1), *shifted),
    widths=widths,
    target_width=target_width,
    padding=[_padding(every, row, widths) for row in shifted],
    mesh=backbone.mesh,
  )


def _owners(tasks: Sequence[TaskArrays]) -> dict[str, np.ndarray]:
  """Returns `task` [N, 1], to which task of its union an example belongs."""
  if not all('parts' in t.record for t in tasks):
    return {}
  return {'task': np.concatenate([episodes.owners(t) for t in tasks])[:, None]}


def _padding(every, indices, widths) -> float:
  """Share of padding in the inputs of one row."""
  leaves = [x.reshape(len(x), -1) for x in jax.tree.leaves(indices)]
  flat = np.concatenate(leaves, axis=1)
  return batches.padding_share(every[flat], widths * flat.shape[1])


def _wide(tokens, width):
  return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))


def _caches_encoder(method, backbone, specs, tasks, settings) -> bool:
  """Whether the encoder's output is the same for all steps, and kept."""
  if settings.cache_encoder is False or method.reads_batch:
    return False
  delta = jax.eval_shape(
    lambda p: method.delta(p, {}, method.constants), specs[0].phi
  )
  if touches_encoder(delta) or backbone.config.dropout_rate > 0:
    return False
  positions = sum(
    a.inputs.size
    for name in {s.task for s in specs}
    for a in tasks[name].splits.values()
  )
  each = jnp.dtype(backbone.config.dtype).itemsize * backbone.config.emb_dim
  return settings.cache_encoder or positions * each <= settings.cache_bytes


def _encode(backbone: Backbone, inputs: np.ndarray, size: int) -> Array:
  """Returns the plain encoder's output of all examples [N, L, D]."""
  config = backbone.config
  run = jax.jit(lambda w, x: forward.encode(config, w, {}, x))

  def encode(part):
    return run(backbone.weights, meshes.put(backbone.mesh, part))

  return batched.over(encode, inputs, size)
