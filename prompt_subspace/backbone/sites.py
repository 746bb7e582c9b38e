"""Where a delta acts: the leaves that the backbone's modules look for.

A site is the path of a module of the backbone. A delta is a tree with the same
paths; a module reads its own leaves from the Flax collection `"delta"`, and
without them it is plain T5. The leaves, with the shapes of one delta for all
examples (a leading axis B gives each example its own):

| site | leaf | shape | effect |
| --- | --- | --- | --- |
| encoder, decoder | prompt | [P, D] | put before the embedded tokens |
| any attention | prefix_key, prefix_value | [P, H*K] | more keys, values |
| any projection | lora_a, lora_b | [I, R], [R, O] | x W + (x a) b |
| attention, mlp | adapter_down, adapter_up | [D, R], [R, D] | y + f(y d) u |
| any module with weights | the weight's own name | the weight's | W + offset |

Matrix products broadcast over the leading axis, so shared and per-example
deltas take the same code.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from prompt_subspace import trees

COLLECTION = 'delta'


def leaf(module: nn.Module, name: str) -> Array | None:
  """Returns the module's own leaf of the delta, or None."""
  if not module.has_variable(COLLECTION, name):
    return None
  return module.get_variable(COLLECTION, name)


def weight(module: nn.Module, name: str, value: Array, dtype) -> Array:
  """Returns a frozen weight plus its offset, if there is one.

  The sum is taken in float32, so that small offsets on bfloat16 weights are
  not lost before the result is rounded to the activations' type.
  """
  offset = leaf(module, name)
  if offset is None:
    return value.astype(dtype)
  return (trees.precise(value) + offset).astype(dtype)


def lora(module: nn.Module, dtype) -> tuple[Array, Array] | None:
  """Returns the low-rank factors of a projection, or None."""
  a, b = leaf(module, 'lora_a'), leaf(module, 'lora_b')
  if a is None:
    return None
  return a.astype(dtype), b.astype(dtype)


def adapt(module: nn.Module, y: Float[Array, 'B L D']) -> Float[Array, 'B L D']:
  """Applies the adapter of a sublayer: y + SiLU(y W_down) W_up.

  Source: Houlsby et al. 2019 (placement after the sublayer, inside the
  residual branch); SiLU and no biases as in Yi et al. 2022.
  """
  down = leaf(module, 'adapter_down')
  if down is None:
    return y
  up = leaf(module, 'adapter_up')
  hidden = jax.nn.silu(jnp.matmul(y, down.astype(y.dtype)))
  return y + jnp.matmul(hidden, up.astype(y.dtype))


def prepend(
  module: nn.Module, x: Float[Array, 'B L D']
) -> Float[Array, 'B P_L D']:
  """Puts the prompt of a stack, if there is one, before its input."""
  prompt = leaf(module, 'prompt')
  if prompt is None:
    return x
  shape = (x.shape[0], *prompt.shape[-2:])
  return jnp.concatenate(
    [jnp.broadcast_to(prompt.astype(x.dtype), shape), x], axis=1
  )


def prefix(
  module: nn.Module, heads: int, dtype
) -> tuple[Float[Array, 'B P H K'], Float[Array, 'B P H K']] | None:
  """Returns the prefix keys and values of an attention, split into heads.

  The leading axis is 1 when all examples share them.
  """
  key = leaf(module, 'prefix_key')
  if key is None:
    return None

  def split(x):
    x = x.astype(dtype).reshape(*x.shape[:-1], heads, -1)
    return x if x.ndim == 4 else x[None]

  return split(key), split(leaf(module, 'prefix_value'))


def check(delta: Mapping, weights: Mapping) -> None:
  """Looks for leaves of a delta that no module of the backbone would read.

  Args:
    delta: the delta, stacked if the layers are.
    weights: of the backbone, likewise.

  Raises:
    ValueError: there are such leaves.
  """
  known = set(trees.flatten(weights))
  beside = {
    'lora_a': ('kernel',),
    'lora_b': ('kernel',),
    'prefix_key': ('query/kernel',),
    'prefix_value': ('query/kernel',),
    'adapter_down': ('out/kernel', 'wo/kernel'),
    'adapter_up': ('out/kernel', 'wo/kernel'),
  }

  def read(path):
    module, _, name = path.rpartition('/')
    if name == 'prompt':
      return module in ('encoder', 'decoder')
    near = [f'{module}/{weight}' for weight in beside.get(name, ())]
    return path in known or any(weight in known for weight in near)

  if lost := [path for path in trees.flatten(delta) if not read(path)]:
    raise ValueError(
      f'delta: expected leaves at sites of the backbone, found {len(lost)} '
      f'that nothing would read: {sorted(lost)[:3]}. Is the delta of a '
      f'backbone with other layers? Its weights are {sorted(known)[:2]}, ...'
    )


def per_example(path: str, x: Array) -> bool:
  """Whether a leaf of a delta has a leading axis for the examples."""
  shared = 1 if path.rsplit('/', 1)[-1] == 'scale' else 2
  return x.ndim > shared


def repeat(delta: dict, times: int) -> dict:
  """Repeats each example's own leaves, as the examples of a batch are."""
  flat = trees.flatten(delta)
  return trees.unflatten(
    {
      p: jnp.repeat(x, times, axis=0) if per_example(p, x) else x
      for p, x in flat.items()
    }
  )


def stack_layers(tree: dict, layers: dict[str, int]) -> dict:
  """Renames `layers_0`, `layers_1`, ... to one stacked `layers` per stack.

  This is the form that a backbone with `scan_layers` reads, for weights and
  for deltas alike.

  Args:
    tree: a tree with stacks `encoder` and `decoder` at its top.
    layers: the number of layers of each stack.

  Returns:
    The tree; each leaf of a stack's layers has a leading axis for the layer.

  Raises:
    ValueError: only some of a stack's layers have a leaf.
  """
  out = dict(tree)
  for stack, count in layers.items():
    if stack not in tree:
      continue
    names = [f'layers_{i}' for i in range(count)]
    present = [n for n in names if n in tree[stack]]
    rest = {k: v for k, v in tree[stack].items() if k not in names}
    if present:
      shapes = [jax.tree.structure(tree[stack][n]) for n in present]
      if len(present) < count or any(s != shapes[0] for s in shapes):
        raise ValueError(
          f'delta: with scan_layers every layer of the {stack} needs the same '
          f'leaves; found leaves in {present} of {count} layers, of '
          f'{len(set(shapes))} different kinds. Use the same sites in every '
          'layer, or a backbone with scan_layers=False.'
        )
      rest['layers'] = jax.tree.map(
        lambda *xs: jnp.stack(xs), *(tree[stack][n] for n in names)
      )
    out[stack] = rest
  return out


def unstack_layers(tree: dict, layers: dict[str, int]) -> dict:
  """Undoes `stack_layers`."""
  out = dict(tree)
  for stack, count in layers.items():
    if 'layers' in tree.get(stack, {}):
      rest = {k: v for k, v in tree[stack].items() if k != 'layers'}
      for i in range(count):
        rest[f'layers_{i}'] = jax.tree.map(
          lambda x, i=i: x[i], tree[stack]['layers']
        )
      out[stack] = rest
  return out
