"""Which examples a run sees at each step, bucketed by length.

The plan of a run is a function of its own key alone: it can be computed for
any step, alone or beside other runs, before or after a restart. Runs that
share a compiled step are padded to a common width; so that they need a similar
one at the same time, all draw their bucket from one fixed sequence of
quantiles.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prompt_subspace.data.orders import order

EDGES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)
TARGET_EDGES = (4, 8, 16, 32, 64, 128, 256, 512)
GOLDEN = (5**0.5 - 1) / 2


class Plan(NamedTuple):
  """The examples of each step of one run.

  Attributes:
    indices: which examples.
    widths: to how many tokens the inputs of each step are padded.
  """

  indices: Int[np.ndarray, 'S B']
  widths: Int[np.ndarray, ' S']


def round_up(length: int, edges: Sequence[int] = EDGES) -> int:
  """Returns the first edge that holds `length` tokens."""
  for edge in edges:
    if edge >= length:
      return edge
  return int(length)


def choose_edges(
  lengths: Int[np.ndarray, ' N'],
  count: int,
  widths: Sequence[int] = EDGES,
) -> tuple[int, ...]:
  """Picks at most `count` bucket edges with the least padding.

  Every edge is a shape that is compiled once, so few are wanted. They come
  from the fixed list `widths`, so that tasks share compiled shapes.
  """
  needed = np.array([round_up(n, widths) for n in lengths])
  candidates = sorted(set(needed.tolist()))
  top = candidates[-1]
  best, cost = (top,), top * len(needed)
  for size in range(1, min(count, len(candidates))):
    for lower in itertools.combinations(candidates[:-1], size):
      edges = (*lower, top)
      padded = np.asarray(edges)[np.searchsorted(edges, needed)].sum()
      if padded < cost:
        best, cost = edges, padded
  return best


def buckets(
  lengths: Int[np.ndarray, ' N'], edges: Sequence[int], least: int
) -> list[tuple[int, Int[np.ndarray, ' n']]]:
  """Groups examples by the first edge that holds them.

  A bucket with fewer than `least` examples joins the next larger one (the
  largest joins the one below it).

  Returns:
    [(edge, members)], shortest first.

  Raises:
    ValueError: an example is longer than the last edge.
  """
  if len(lengths) and np.max(lengths) > edges[-1]:
    raise ValueError(
      f'edges: expected the last one to hold every example, found one of '
      f'{np.max(lengths)} tokens and edges {tuple(edges)}. Choose the edges '
      'for these lengths with choose_edges.'
    )
  place = np.searchsorted(edges, lengths)
  groups = [[e, np.flatnonzero(place == i)] for i, e in enumerate(edges)]
  out: list = []
  waiting = np.zeros((0,), np.int64)
  for edge, members in groups:
    members = np.concatenate([waiting, members])
    if len(members) >= least:
      out.append([edge, members])
      waiting = members[:0]
    else:
      waiting = members
  if len(waiting):
    if out:
      out[-1] = [edges[-1], np.concatenate([out[-1][1], waiting])]
    else:
      out = [[edges[-1], waiting]]
  return [(int(e), np.sort(m)) for e, m in out]


def plan(
  lengths: Int[np.ndarray, ' N'],
  edges: Sequence[int],
  batch_size: int,
  steps: int,
  key: Sequence[int],
) -> Plan:
  """Plans a run: at each step, a batch from one bucket, in shuffled epochs.

  The bucket at step t is the quantile frac(t * golden ratio) of the buckets'
  shares, so that each bucket is used as often as it has examples. Within a
  bucket every example is seen once before any is seen again.

  Args:
    lengths: tokens of each input.
    edges: widths that batches may be padded to.
    batch_size: B.
    steps: S.
    key: whole numbers that name the run (seed, hash of its id).
  """
  if not len(lengths):
    raise ValueError('examples: expected at least one to train on, found none.')
  groups = buckets(lengths, edges, min(batch_size, len(lengths)))
  shares = np.cumsum([len(m) for _, m in groups]) / len(lengths)
  quantile = np.arange(steps) * GOLDEN % 1.0
  chosen = np.minimum(np.searchsorted(shares, quantile), len(groups) - 1)
  indices = np.zeros((steps, batch_size), np.int32)
  for number, (_, members) in enumerate(groups):
    at = np.flatnonzero(chosen == number)
    needed = len(at) * batch_size
    epochs = [
      members[order(len(members), 'batches', *key, number, epoch)]
      for epoch in range(-(-needed // len(members)))
    ]
    if epochs:
      stream = np.concatenate(epochs)[:needed]
      indices[at] = stream.reshape(-1, batch_size)
  widths = np.array([e for e, _ in groups])[chosen]
  return Plan(indices, widths.astype(np.int32))


def padding_share(
  used: Int[np.ndarray, '...'], width: Int[np.ndarray, '...']
) -> float:
  """Returns the share of input positions that hold padding."""
  total = int(np.sum(width))
  return 1.0 - float(np.sum(used)) / total if total else 0.0


def in_order(
  lengths: Int[np.ndarray, ' N'], batch_size: int, edges: Sequence[int]
) -> list[tuple[int, Int[np.ndarray, ' b']]]:
  """Splits examples for evaluation into batches of similar length.

  Every batch has `batch_size` entries, so that one shape per width is
  compiled; the last one of a bucket is filled up with its first example.

  Returns:
    [(width, indices)]; `indices` repeats an example to fill a batch.
  """
  out = []
  for edge, members in buckets(lengths, edges, 1):
    for start in range(0, len(members), batch_size):
      part = members[start : start + batch_size]
      fill = np.full(batch_size - len(part), part[0])
      out.append((edge, np.concatenate([part, fill])))
  return out
