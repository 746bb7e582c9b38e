"""Maps from codes to flat deltas, one file each.

`subspace.subspace` makes a method of a method and such a map.
"""

from prompt_subspace.deltas.base import check_names
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.reparams.fastfood import fastfood
from prompt_subspace.reparams.kronecker import kronecker
from prompt_subspace.reparams.linear import linear
from prompt_subspace.reparams.mlp import mlp

__all__ = [
  'REPARAMS',
  'Reparam',
  'fastfood',
  'kronecker',
  'linear',
  'make',
  'mlp',
]

REPARAMS = {
  'linear': linear,
  'mlp': mlp,
  'fastfood': fastfood,
  'kronecker': kronecker,
}


def make(name: str, **settings) -> Reparam:
  """Returns the reparameterisation of a name, with its settings.

  Raises:
    ValueError: the name is unknown.
  """
  check_names('reparam', (name,), tuple(REPARAMS))
  return REPARAMS[name](**settings)
