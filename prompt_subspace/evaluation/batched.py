"""A function over many examples, a batch of them at a time."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def over(
  run: Callable[[np.ndarray], Array], rows: np.ndarray, size: int
) -> Array:
  """Returns `run` of all rows; every batch has one shape, compiled once.

  Args:
    run: rows [size, ...] -> what it makes of each [size, ...]. It gets them in
      the host's memory, the last batch filled up with rows of zeros, which for
      tokens is padding.
    rows: [N, ...], in the host's memory.
    size: rows at once.

  Returns:
    An array [N, ...] on the device.
  """
  more = [(0, -len(rows) % size), *[(0, 0)] * (rows.ndim - 1)]
  padded = np.pad(rows, more)
  parts = [run(padded[i : i + size]) for i in range(0, len(padded), size)]
  return jnp.concatenate(parts)[: len(rows)]
