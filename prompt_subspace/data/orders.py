"""Random orders that are equal on every machine and in every NumPy version."""

import hashlib
import json

import numpy as np
from jaxtyping import Int


def order(size: int, *seed: str | int) -> Int[np.ndarray, ' size']:
  """A random permutation of 0 .. size - 1 that depends on `seed` alone.

  NumPy keeps the raw stream of PCG64 for ever but not what its Generator's
  methods make of it (NEP 19), and Python's `hash` of a text differs between
  processes. So: PCG64 seeded with the sha256 of `seed`, one raw 64-bit number
  per item, and a stable sort.

  Args:
    size: how many items.
    seed: any texts and integers, such as ('sst2', 'train', 3).
  """
  digest = hashlib.sha256(json.dumps(seed, default=int).encode()).digest()
  raw = np.random.PCG64(int.from_bytes(digest, 'big')).random_raw(size)
  return np.argsort(raw, kind='stable')
