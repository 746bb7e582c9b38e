"""Several devices: a mesh of rows, examples and weights.

Three axes: `row` spreads the rows of a stack, `data` the examples of a batch,
`model` the weights of the backbone and what is trained beside them. A result
does not depend on the mesh, up to rounding. One device needs none of this.

Rows are independent: each part of the axis `row` runs its own, one after
another or together as on one device. The compiler spreads the arithmetic of a
row over `data` and `model`, following where weights and batches lie.
"""

import contextlib
import contextvars
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec
from jaxtyping import PyTree

from prompt_subspace import trees
from prompt_subspace.backbone import forward, sites, stored, weights
from prompt_subspace.backbone.weights import Backbone

AXES = ('row', 'data', 'model')
# logical axis of a weight -> axis of the mesh; the others lie whole
RULES = {
  'vocab': 'model',
  'heads': 'model',
  'joined_kv': 'model',
  'mlp': 'model',
}

_SIZES: contextvars.ContextVar = contextvars.ContextVar('mesh', default=None)


def parse(text: str) -> tuple[int, int, int]:
  """Reads `row,data,model`, such as 4,1,2.

  Raises:
    ValueError: the text is something else.
  """
  parts = text.split(',')
  if len(parts) != 3 or not all(p.strip().isdecimal() for p in parts):
    raise ValueError(
      'mesh: expected three numbers row,data,model, such as 4,1,2, found '
      f'{text!r}.'
    )
  row, data, model = map(int, parts)
  return row, data, model


@contextlib.contextmanager
def use(sizes: Sequence[int] | None) -> Iterator[None]:
  """Backbones that are loaded inside lie on a mesh of these sizes.

  Args:
    sizes: of `AXES`; None: all devices on `row`.
  """
  before = _SIZES.set(sizes)
  try:
    yield
  finally:
    _SIZES.reset(before)


def make(
  sizes: Sequence[int] | None = None, devices: Sequence | None = None
) -> Mesh | None:
  """Returns the mesh of all devices; None where one device is to do all.

  Args:
    sizes: of `AXES`; None: all devices on `row`, or as `use` says; of 1, 1, 1
      the other devices are left alone.
    devices: by default all that JAX sees, of all hosts.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  sizes = sizes or _SIZES.get() or (len(devices), 1, 1)
  if math.prod(sizes) == 1:
    return None
  if min(sizes) < 1 or math.prod(sizes) != len(devices):
    raise ValueError(
      f'mesh: expected row x data x model = {len(devices)} devices, found '
      f'{" x ".join(map(str, sizes))} = {math.prod(sizes)}. Change --mesh.'
    )
  return lay(sizes, devices)


def lay(sizes: Sequence[int], devices: Sequence) -> Mesh:
  """Returns the mesh of these sizes, of one device too."""
  kinds = (jax.sharding.AxisType.Auto,) * len(AXES)
  return jax.make_mesh(tuple(sizes), AXES, kinds, devices=devices)


def describe(mesh: Mesh | None) -> str:
  """Returns `row 4, data 1, model 2` for people."""
  if mesh is None:
    return 'one device'
  return ', '.join(f'{name} {size}' for name, size in mesh.shape.items())


def sharding(mesh: Mesh, *axes: str | None) -> NamedSharding:
  """Returns where an array lies whose axes lie on these axes of the mesh."""
  return NamedSharding(mesh, Spec(*axes))


def weight_spec(path: str, shape: Sequence[int], mesh: Mesh) -> Spec:
  """Returns on which axes of the mesh the axes of a weight lie.

  An axis that its part of the mesh does not divide lies whole. Stacked layers
  have an axis before those of their weights.

  Raises:
    ValueError: no weight of a T5 has that path.
  """
  names = stored.axes(path)
  names = (None,) * (len(shape) - len(names)) + names
  size = mesh.shape['model']
  return Spec(
    *(
      RULES.get(name) if length % size == 0 else None
      for name, length in zip(names, shape, strict=True)
    )
  )


def weight_shardings(mesh: Mesh, tree: Mapping) -> dict:
  """Returns a tree like the weights: where each lies."""
  return trees.unflatten(
    {
      path: NamedSharding(mesh, weight_spec(path, x.shape, mesh))
      for path, x in trees.flatten(tree).items()
    }
  )


def state_shardings(mesh: Mesh, state: PyTree, frozen: Mapping) -> PyTree:
  """Returns where the state of a stack lies, phi and optimiser alike.

  All leaves have an axis of rows. What has the path and the shape of a weight
  (an offset on it, and its part of an optimiser's state) lies as that weight
  does; all else is whole on `data` and `model`.

  Args:
    mesh: where.
    state: arrays or their shapes.
    frozen: the weights of the backbone, or their shapes.
  """
  known = {}
  for name, x in trees.flatten(frozen).items():
    stacked = '/layers/' in name
    known[name] = tuple(x.shape[1:] if stacked else x.shape)

  def of(path, x):
    name = '/'.join(str(k.key) for k in path if hasattr(k, 'key'))
    one = re.sub('/layers_[0-9]+/', '/layers/', name)
    if tuple(x.shape[1:]) in (known.get(name), known.get(one)):
      return sharding(mesh, 'row', *weight_spec(name, x.shape[1:], mesh))
    return sharding(mesh, 'row')

  return jax.tree_util.tree_map_with_path(of, state)


def put(mesh: Mesh | None, tree: PyTree, *axes: str | None) -> PyTree:
  """Places arrays that every host has whole.

  Args:
    mesh: None: on the default device.
    tree: of arrays whose first axes are divisible by those of the mesh.
    *axes: of the mesh, on which the first axes lie; none: whole everywhere.
  """
  if mesh is None:
    return jax.tree.map(jax.numpy.asarray, tree)
  return jax.device_put(jax.tree.map(np.asarray, tree), sharding(mesh, *axes))


def put_batch(mesh: Mesh | None, indices: np.ndarray, rows: bool = True):
  """Places the numbers of the examples of a batch [W, ..., B], or [..., B].

  The last axis lies on `data` where that divides it.

  Args:
    mesh: None: on the default device.
    indices: the same on all hosts.
    rows: whether the first axis is of rows.
  """
  axes: list = [None] * indices.ndim
  if rows:
    axes[0] = 'row'
  if mesh is not None and indices.shape[-1] % mesh.shape['data'] == 0:
    axes[-1] = 'data'
  return put(mesh, indices, *axes)


def put_keys(mesh: Mesh | None, keys: jax.Array) -> jax.Array:
  """Places the random keys of rows."""
  if mesh is None:
    return keys
  data = put(mesh, jax.random.key_data(keys), 'row')
  return jax.jit(jax.random.wrap_key_data)(data)


def put_state(mesh: Mesh | None, state: PyTree, frozen: Mapping) -> PyTree:
  """Places the state of a stack that one device holds, see
  `state_shardings`."""
  if mesh is None:
    return state
  there = state_shardings(mesh, state, frozen)
  return jax.device_put(fetch(state), there)


def take_rows(
  mesh: Mesh | None, state: PyTree, rows: np.ndarray, frozen: Mapping
) -> PyTree:
  """Returns some rows of a stack, or some twice.

  Where the mesh does not divide their number, each part of `row` has them all.
  Without a mesh no row is there twice, and the stack is as it is.
  """
  if mesh is None:
    return state
  there = state_shardings(mesh, state, frozen)
  if len(rows) % mesh.shape['row']:
    whole = lambda x: sharding(mesh, None, *x.spec[1:])  # noqa: E731
    there = jax.tree.map(whole, there)
  pick = jax.jit(
    lambda s: jax.tree.map(lambda x: x[rows], s), out_shardings=there
  )
  return pick(state)


def everywhere(mesh: Mesh | None, tree: PyTree) -> PyTree:
  """Inside a compiled function: what every host shall see."""
  if mesh is None:
    return tree
  return jax.lax.with_sharding_constraint(tree, sharding(mesh))


def fetch(tree: PyTree) -> PyTree:
  """Returns numpy arrays, whole on every host."""

  def one(x):
    held = isinstance(x, jax.Array) and not (
      x.is_fully_addressable or x.is_fully_replicated
    )
    if not held:
      return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))

  return jax.tree.map(one, tree)


def over_rows(mesh: Mesh | None, function: Callable, rows: PyTree) -> PyTree:
  """Runs a function of stacked rows on each part of the axis `row`.

  Args:
    mesh: None: the function is run once, on all.
    function: stacked rows -> stacked results, row by row.
    rows: leaves with an axis of rows, a multiple of the mesh's.
  """
  if mesh is None:
    return function(rows)
  parts = mesh.shape['row']
  split = jax.tree.map(
    lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), rows
  )
  found = jax.vmap(function, spmd_axis_name='row')(split)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)


def on_data(mesh: Mesh | None, batch: PyTree) -> PyTree:
  """Spreads the first axis of a batch over `data`, inside `over_rows`."""
  if mesh is None or mesh.shape['data'] == 1:
    return batch
  size = mesh.shape['data']
  return jax.tree.map(
    lambda x: (
      jax.lax.with_sharding_constraint(x, sharding(mesh, 'data'))
      if x.shape[0] % size == 0
      else x
    ),
    batch,
  )


def padded(mesh: Mesh | None, rows: int) -> int:
  """Returns the least number of rows, from `rows` on, that the mesh divides."""
  parts = 1 if mesh is None else mesh.shape['row']
  return -(-rows // parts) * parts


def spread(backbone: Backbone, mesh: Mesh | None) -> Backbone:
  """Returns a loaded backbone with its weights on the mesh."""
  if mesh is None:
    return backbone
  held = jax.tree.map(np.asarray, dict(backbone.weights))
  placed = jax.device_put(held, weight_shardings(mesh, held))
  return backbone._replace(weights=placed, mesh=mesh)


def load(
  name: str, vocabulary: str | None = None, mesh: Mesh | None = None, **changes
) -> Backbone:
  """Loads a backbone onto a mesh, each host the parts that its devices hold.

  Args:
    name: as of `weights.load`.
    vocabulary: a sentencepiece model, where the folder has none.
    mesh: where; None: what `use` says.
    **changes: fields of the configuration to replace.

  Raises:
    ValueError: as `weights.load` does.
  """
  mesh = mesh or make()
  if mesh is None:
    return weights.load(name, vocabulary, **changes)
  scanned = changes.pop('scan_layers', False)
  found = stored.find(name, vocabulary, **changes)
  placed = stored.place(found, weight_shardings(mesh, found.shapes))
  config = found.config.replace(scan_layers=scanned)
  if scanned:
    counts = forward.layer_counts(config)
    stack = lambda tree: sites.stack_layers(tree, counts)  # noqa: E731
    shapes = jax.eval_shape(stack, placed)
    there = weight_shardings(mesh, shapes)
    placed = jax.jit(stack, out_shardings=there, donate_argnums=0)(placed)
  mark = stored.fingerprint(found)
  return Backbone(found.name, config, placed, found.vocabulary, mark, mesh)
