"""Trees of arrays by named paths: split, merge, ravel, describe."""

import hashlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


def precise(x: Array) -> Array:
  """Returns x in float32, or as it is in float64: for sums that must not be
  taken in bfloat16."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def flatten(tree: Mapping, prefix: str = '') -> dict[str, Array]:
  """Returns {path: leaf} of nested mappings; paths are joined by `/`."""
  flat = {}
  for name, value in tree.items():
    path = f'{prefix}/{name}' if prefix else str(name)
    if isinstance(value, Mapping):
      flat.update(flatten(value, path))
    else:
      flat[path] = value
  return flat


def unflatten(flat: Mapping[str, Array]) -> dict:
  """Undoes `flatten`.

  Raises:
    ValueError: a path is both a leaf and a folder.
  """
  tree: dict = {}
  for path, value in flat.items():
    *folders, name = path.split('/')
    node = tree
    for folder in folders:
      node = node.setdefault(folder, {})
      if not isinstance(node, dict):
        raise ValueError(f'tree: {path!r} runs through the leaf {folder!r}')
    if name in node:
      raise ValueError(f'tree: {path!r} is both a leaf and a folder')
    node[name] = value
  return tree


def merge(*trees: Mapping) -> dict:
  """Joins trees that share folders but no leaves.

  Raises:
    ValueError: a leaf stands in two of the trees.
  """
  flat: dict = {}
  for tree in trees:
    new = flatten(tree)
    if both := sorted(set(flat) & set(new)):
      raise ValueError(f'tree: leaves in two trees at once: {both[:5]}')
    flat.update(new)
  return unflatten(flat)


def size(tree: PyTree) -> int:
  """Returns the number of values in all leaves."""
  return sum(int(np.prod(np.shape(x))) for x in jax.tree.leaves(tree))


def nbytes(tree: PyTree) -> int:
  """Returns the bytes of all leaves."""
  return sum(
    int(np.prod(x.shape)) * jnp.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def ravel(
  tree: PyTree,
) -> tuple[Float[Array, ' M'], Callable[[Array], PyTree]]:
  """Returns all leaves as one float32 vector and the way back."""
  leaves, treedef = jax.tree.flatten(tree)
  shapes = [np.shape(x) for x in leaves]
  ends = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]

  def back(vector: Float[Array, ' M']) -> PyTree:
    parts = jnp.split(vector, ends) if leaves else []
    pieces = [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
    return jax.tree.unflatten(treedef, pieces)

  flat = [jnp.ravel(x).astype(jnp.float32) for x in leaves]
  return jnp.concatenate(flat) if flat else jnp.zeros((0,)), back


def describe(tree: Mapping) -> str:
  """Returns a line per leaf: path, shape, type."""
  lines = [
    f'{path}  {tuple(x.shape)}  {jnp.dtype(x.dtype).name}'
    for path, x in sorted(flatten(tree).items())
  ]
  return '\n'.join(lines)


def check_same(found: Mapping, expected: Mapping, what: str) -> None:
  """Compares names, shapes and types of two trees of arrays.

  Args:
    found: the tree to check.
    expected: a tree of arrays or of `jax.ShapeDtypeStruct`.
    what: how to call the tree in the error.

  Raises:
    ValueError: something differs; lists what, and what to do.
  """
  have, want = flatten(found), flatten(expected)
  problems = [f'missing {p}' for p in sorted(set(want) - set(have))]
  problems += [f'unexpected {p}' for p in sorted(set(have) - set(want))]
  for path in sorted(set(have) & set(want)):
    a, b = have[path], want[path]
    if tuple(a.shape) != tuple(b.shape):
      problems.append(
        f'{path}: expected shape {tuple(b.shape)}, found {tuple(a.shape)}'
      )
    elif jnp.dtype(a.dtype) != jnp.dtype(b.dtype):
      problems.append(f'{path}: expected {b.dtype}, found {a.dtype}')
  if problems:
    shown = '\n  '.join(problems[:10])
    more = f'\n  and {len(problems) - 10} more' if len(problems) > 10 else ''
    raise ValueError(
      f'{what}: the tree does not match:\n  {shown}{more}\n'
      'Load it with the configuration that it was made with.'
    )


def fingerprint(tree: Mapping) -> str:
  """Returns a sha256 over names, shapes and float32 values of all leaves.

  Values are compared as float32, so that weights stored in bfloat16 have the
  same fingerprint whether they are held in bfloat16 or in float32.
  """
  digest = hashlib.sha256()
  for path, x in sorted(flatten(tree).items()):
    # no copy of what is float32 already: an embedding may be large
    array = np.ascontiguousarray(np.asarray(x).astype(np.float32, copy=False))
    digest.update(f'{path} {np.shape(x)}\n'.encode())
    digest.update(array)
  return digest.hexdigest()
