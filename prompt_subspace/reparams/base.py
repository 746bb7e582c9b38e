"""What a reparameterisation is: a map from a short code to a long vector.

All of them share a convention of scale, so that one learning rate of the code
serves each: every entry of expand(basis, code) has the expected square
(scale |code|)^2, for codes that are not large. With scale = 1 / sqrt(M), which
`None` stands for, |expand(basis, code)| is |code| in expectation.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array

from prompt_subspace.deltas.base import positive

Basis = Mapping[str, Any]
SCALE = 0.02


class Reparam(NamedTuple):
  """A way to expand codes.

  Attributes:
    name: as in the registry.
    init: (key, size M, z Z) -> basis, a dict of arrays.
    expand: (basis, code [Z]) -> [M], float32.
    compress: (basis, [M]) -> code [Z], a down-projection; None without one.
    trained: basis -> the leaves of it that training may change.
    settings: the arguments it was made with, as JSON values.
  """

  name: str
  init: Callable[[Array, int, int], dict]
  expand: Callable[[Basis, Array], Array]
  compress: Callable[[Basis, Array], Array] | None
  trained: Callable[[Basis], dict]
  settings: Mapping[str, Any] = {}


def check(scale: float | None) -> None:
  """Raises ValueError if a scale is not above 0."""
  if scale is not None and not scale > 0:
    raise ValueError(
      f'scale: expected a number above 0, or None to preserve norms, found '
      f'{scale!r}.'
    )


def check_sizes(size: int, z: int) -> None:
  """Raises ValueError unless both sizes are positive whole numbers."""
  positive('size', size)
  positive('z', z)


def entry_scale(scale: float | None, size: int) -> float:
  """Returns the scale of entries; that which preserves norms for None."""
  return size**-0.5 if scale is None else scale
