"""What a compiled program does: collectives and floating-point operations.

Both count what stands in a loop as often as the loop runs. XLA's own count of
operations does not.
"""

import collections
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

KINDS = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
)
_CALLED = re.compile(
  r'(?:calls|to_apply|body|condition|branch_computations|'
  r'true_computation|false_computation)=\{?((?:%[\w.-]+(?:, )?)+)'
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SHAPE = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]')


class Collective(NamedTuple):
  """Collectives of a kind in one run of a program.

  Attributes:
    count: how many are run.
    bytes: what one device receives, all together.
  """

  count: int
  bytes: int


def collectives(text: str) -> dict[str, Collective]:
  """Returns the collectives of a compiled program, by kind.

  Args:
    text: of the optimised module, `compiled.as_text()`.

  Raises:
    ValueError: there is no entry computation.
  """
  bodies, entry = _computations(text)
  found: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
  for line, times in _lines(bodies, entry, 1):
    for kind in KINDS:
      match = re.search(rf' = (.*?) {kind}(-start)?\(', line)
      if match:
        shapes = _SHAPE.findall(match[1])
        # a started one has its operand beside its result
        shapes = shapes[len(shapes) // 2 :] if match[2] else shapes
        found[kind][0] += times
        found[kind][1] += times * sum(_bytes(*s) for s in shapes)
  return {kind: Collective(*found[kind]) for kind in KINDS if kind in found}


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """Returns the lines of each computation, and the name of the first."""
  bodies: dict[str, list[str]] = {}
  entry, lines = '', None
  for line in text.splitlines():
    if line.startswith(('%', 'ENTRY ')) and line.endswith('{'):
      name = line.removeprefix('ENTRY ').split()[0].lstrip('%')
      lines = bodies[name] = []
      entry = name if line.startswith('ENTRY ') else entry
    elif line.startswith('}'):
      lines = None
    elif lines is not None:
      lines.append(line)
  if not entry:
    raise ValueError('text: expected an HLO module with an entry, found none.')
  return bodies, entry


def _lines(bodies, name: str, times: int) -> Iterator[tuple[str, int]]:
  """Yields each line with how often it is run."""
  for line in bodies.get(name, ()):
    yield line, times
    found = _TRIPS.search(line)
    inner = times * (int(found[1]) if found else 1)
    for called in _CALLED.findall(line):
      for each in called.split(', '):
        yield from _lines(bodies, each.lstrip('%'), inner)


def _bytes(kind: str, sizes: str) -> int:
  bits = 8 if kind == 'pred' else int(re.search(r'\d+', kind)[0])
  return int(
    np.prod([int(n) for n in sizes.split(',') if n], dtype=np.int64)
  ) * (max(bits, 8) // 8)


def operations(jaxpr: Any) -> int:
  """Returns the floating-point operations of the products of a program.

  2 m n k for a product of [m, k] and [k, n]; what is elementwise is not
  counted. A loop without a known end counts once, of branches the dearest.

  Args:
    jaxpr: `jax.make_jaxpr(f)(...)` or part of one.
  """
  jaxpr = getattr(jaxpr, 'jaxpr', jaxpr)
  total = 0
  for equation in jaxpr.eqns:
    inner = [
      operations(x)
      for value in equation.params.values()
      for x in jax.tree.leaves(value, is_leaf=_is_jaxpr)
      if _is_jaxpr(x)
    ]
    if equation.primitive.name == 'dot_general':
      total += _product(equation)
    elif equation.primitive.name == 'scan':
      total += equation.params['length'] * sum(inner)
    elif equation.primitive.name == 'cond':
      total += max(inner)
    else:
      total += sum(inner)
  return total


def _is_jaxpr(x: Any) -> bool:
  return hasattr(getattr(x, 'jaxpr', x), 'eqns')


def _product(equation) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  result = equation.outvars[0].aval.shape
  depth = int(np.prod([left[i] for i in contracted], dtype=np.int64))
  return 2 * depth * int(np.prod(result, dtype=np.int64))
