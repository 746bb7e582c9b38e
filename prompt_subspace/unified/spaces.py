"""Delta types in one space: each is an origin and a map from shared codes.

Yi et al. 2022 (UDT), section 3: the solution of a type (adapter, LoRA, prefix,
...) is its displacement theta in R^M from a start that all tasks share; an
up-projection of its own maps a code I in R^Z, which all types share, to theta.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_subspace import trees
from prompt_subspace.deltas.base import Method, Setting
from prompt_subspace.reparams import subspace
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.reparams.subspace import Origin

# maps of the types, by their names
Bases = dict[str, dict[str, Any]]


class Side(NamedTuple):
  """A delta type in the shared space.

  Attributes:
    start: its method, and where all tasks start.
    reparam: how codes become displacements.
  """

  start: Origin
  reparam: Reparam

  @property
  def size(self) -> int:
    """M, numbers in a displacement."""
    return int(self.start.flat.size)


def sides(
  library: Mapping[str, Method],
  reparams: Mapping[str, Reparam],
  setting: Setting,
  seed: int,
) -> dict[str, Side]:
  """Returns the types, each started with the seed.

  Args:
    library: name -> method.
    reparams: name -> how its codes are expanded.
    setting: the backbone.
    seed: of the origins.
  """
  return {
    name: Side(subspace.origin(method, setting, seed), reparams[name])
    for name, method in library.items()
  }


def kinds(held: Mapping[str, Side]) -> dict[str, Reparam]:
  """Returns how the codes of each type are expanded."""
  return {name: side.reparam for name, side in held.items()}


def draw(held: Mapping[str, Side], size: int, seed: int) -> Bases:
  """Draws the map of every type; no two begin alike.

  Args:
    held: the types.
    size: Z.
    seed: of the draw.
  """
  key = jax.random.fold_in(jax.random.key(seed), 2)
  return {
    name: side.reparam.init(jax.random.fold_in(key, i), side.size, size)
    for i, (name, side) in enumerate(held.items())
  }


def divide(held: Mapping[str, Side], bases: Bases) -> tuple[Bases, Bases]:
  """Returns what training may change of the maps, and the rest."""
  trained, fixed = {}, {}
  for name, basis in bases.items():
    trained[name] = held[name].reparam.trained(basis)
    fixed[name] = {k: v for k, v in basis.items() if k not in trained[name]}
  return trained, fixed


def displacement(side: Side, phi: Any) -> np.ndarray:
  """Returns theta [M] of a solution: where it is, seen from the origin."""
  flat, _ = trees.ravel(phi)
  return np.asarray(flat - side.start.flat)


def method(
  side: Side, basis: Mapping[str, Any], size: int, spread: float
) -> Method:
  """Returns the method of a type whose phi is a code alone.

  Args:
    side: the type.
    basis: its map.
    size: Z.
    spread: standard deviation of a code at the start.
  """
  constants = {'origin': side.start.flat, 'basis': dict(basis)}
  return subspace.within(side.start, side.reparam, constants, size, spread)
