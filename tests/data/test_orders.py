"""Random orders are permutations that depend on the seed alone."""

import numpy as np

from prompt_subspace.data.orders import numbers, order


def test_orders_are_permutations():
  for size in (0, 1, 2, 1000):
    assert sorted(order(size, 'a', 0).tolist()) == list(range(size))


def test_orders_differ_by_every_part_of_the_seed():
  seeds = [('a', 0), ('a', 1), ('b', 0), ('a', 0, 0), ('a', '0'), (0, 'a')]
  orders = {tuple(order(50, *seed).tolist()) for seed in seeds}
  assert len(orders) == len(seeds)
  assert order(50, 'a', np.int64(1)).tolist() == order(50, 'a', 1).tolist()


def test_numbers_by_their_definition():
  found = numbers(20, 'task', 3)
  assert found.tolist() == stream()
  assert numbers(4, 'task', 3).tolist() == stream()[:4]
  assert found.tolist() != numbers(20, 'task', 4).tolist()


def test_order_by_its_definition():
  expected = sorted(range(20), key=stream().__getitem__)
  assert order(20, 'task', 3).tolist() == expected


def stream():
  """The first 20 numbers of the seed ('task', 3)."""
  # The stream of PCG64 by its published recurrence (O'Neill 2014), and the
  # seeding of NumPy's SeedSequence: independent of how numbers are used.
  import hashlib

  digest = hashlib.sha256(b'["task", 3]').digest()
  state = np.random.PCG64(int.from_bytes(digest, 'big')).state['state']
  x, increment, outputs = state['state'], state['inc'], []
  for _ in range(20):
    x = (x * 0x2360ED051FC65DA44385DF649FCCF645 + increment) % 2**128
    value, turn = ((x >> 64) ^ x) % 2**64, x >> 122
    outputs.append(((value >> turn) | (value << (64 - turn))) % 2**64)
  return outputs
