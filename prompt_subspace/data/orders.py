"""Random numbers and orders, equal on every machine and in every NumPy version.

NumPy keeps the raw stream of PCG64 for ever but not what its Generator's
methods make of it (NEP 19), and Python's `hash` of a text differs between
processes. So only the raw stream is used, from a seed of our own making.
"""

import hashlib
import json

import numpy as np
from jaxtyping import Int, UInt


def numbers(count: int, *seed: str | int) -> UInt[np.ndarray, ' count']:
  """Raw 64-bit numbers that depend on `seed` alone: PCG64's, seeded with the
  sha256 of `seed`. The first ones are the same whatever `count` is.

  Args:
    count: how many.
    seed: any texts and integers, such as ('sst2', 'train', 3).
  """
  digest = hashlib.sha256(json.dumps(seed, default=int).encode()).digest()
  return np.random.PCG64(int.from_bytes(digest, 'big')).random_raw(count)


def order(size: int, *seed: str | int) -> Int[np.ndarray, ' size']:
  """A random permutation of 0 .. size - 1 that depends on `seed` alone: a raw
  number for each item, and a stable sort.

  Args:
    size: how many items.
    seed: see `numbers`.
  """
  return np.argsort(numbers(size, *seed), kind='stable')
