"""Full fine-tuning as a delta: an offset on every weight of the backbone."""

import jax.numpy as jnp

from prompt_subspace import trees
from prompt_subspace.deltas.base import Method, flat_weights


def full(only: tuple[str, ...] = ('',)) -> Method:
  """W + offset for every weight whose path starts with one of `only`.

  The backbone itself stays frozen: rows of different tasks share it, and phi
  is the displacement from the shared start, as subspace methods need it.

  Args:
    only: beginnings of weight paths; '' selects all weights.

  Returns:
    The method; phi has the names and shapes of the selected weights, all 0
    at the start.

  Raises:
    ValueError: nothing selected, or the layers are stacked (at `init`).
  """

  def init(key, setting):
    del key
    flat = flat_weights(setting)
    chosen = {p: x for p, x in flat.items() if p.startswith(tuple(only))}
    if not chosen:
      raise ValueError(
        f'only: expected beginnings of weight paths, found {only}, which '
        f'select nothing. Paths look like {sorted(flat)[:3]}.'
      )
    return trees.unflatten(
      {p: jnp.zeros(x.shape, jnp.float32) for p, x in chosen.items()}
    )

  def expand(phi, batch=None):
    del batch
    return phi

  return Method('full', init, expand, settings={'only': list(only)})
