"""How similar two deltas are, as embeddings of their tasks.

For prompts e1, e2 [P, D]:

- `average`: cos(mean_i e1_i, mean_j e2_j)
- `token`: (1 / P^2) sum_i sum_j cos(e1_i, e2_j), which is the inner product of
  the two means of unit vectors
- `subspace`: |B1 B2^T|_F / sqrt(min(r1, r2)), where the rows of B [r, D] are
  the right singular vectors that hold a share of the energy: the norm of one
  subspace's projection on the other, between 0 (orthogonal) and 1 (one holds
  the other)

The first two are of Vu et al. 2022 (SPoT), section 3.2; the third of Qin et
al. 2023 (MPT), section 6 and appendix A.6, after Lin et al. 2022 (TRGP), with
the bases chosen as in Saha et al. 2021 (GPM). They do not say which share of
the energy they take. With 0.15 to 0.33 of it, prompts trained on similar tasks
are each other's nearest; with 0.5 half of them are, with 0.9 hardly any, since
most directions of a trained prompt are those of its random start.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl
from jaxtyping import Float, Int

from prompt_subspace import trees

# how many bytes of a bank are worked on at once
CHUNK_BYTES = 64 * 2**20
ENERGY = 0.25

Prompt = Float[np.ndarray, 'P D']
Prompts = Float[np.ndarray, 'N P D']


def vectors(phi: Mapping[str, Any]) -> Prompt:
  """Returns the vectors that a phi is compared by.

  A prompt's are its own, [P, D], encoder and decoder after one another. Any
  other phi is one long vector [1, M], for which `average` and `token` are the
  plain cosine, and `subspace` is its magnitude: opposite ones are alike to it.
  """
  flat = trees.flatten(phi)
  leaves = [np.asarray(flat[path], np.float32) for path in sorted(flat)]
  if set(flat) <= {'encoder', 'decoder'} and all(x.ndim == 2 for x in leaves):
    # `encoder` first, though its name sorts last
    return np.concatenate(leaves[::-1])
  return np.concatenate([x.ravel() for x in leaves])[None]


def average(query: Prompt, bank: Prompts) -> Float[np.ndarray, ' N']:
  """Returns the cosine of the average tokens to every prompt of a bank."""
  means = _summaries(bank, lambda x: x.mean(axis=1))
  return _unit(means) @ _unit(query.mean(axis=0))


def token(query: Prompt, bank: Prompts) -> Float[np.ndarray, ' N']:
  """Returns the average cosine over all pairs of tokens."""
  return _summaries(bank, _mean_unit) @ _mean_unit(query[None])[0]


class Bases(NamedTuple):
  """The subspaces of many prompts.

  Attributes:
    rows: basis vectors; rows beyond a prompt's rank are zero.
    ranks: how many each has.
  """

  rows: Float[np.ndarray, 'N R D']
  ranks: Int[np.ndarray, ' N']


def bases(prompts: Prompts, energy: float = ENERGY) -> Bases:
  """Returns the fewest right singular vectors of each with so much energy.

  With X X^T = U S^2 U^T they are the rows of S^-1 U^T X. This is what takes
  the time, about a millisecond for each prompt [100, 768], 10 s for 10,000 of
  them: for many queries keep it and call `overlap`.

  Args:
    prompts: [N, P, D].
    energy: share of the squared singular values that is held at least.
  """
  # small matrices gain nothing from threads of BLAS, and beside other work
  # these wait for each other, up to forty times as long
  with threadpoolctl.threadpool_limits(1, 'blas'):
    found = [_bases(part, energy) for part in _chunks(prompts)]
  kept = [x.rows for x in found]
  most = max(x.shape[1] for x in kept)
  wide = [np.pad(x, ((0, 0), (0, most - x.shape[1]), (0, 0))) for x in kept]
  return Bases(np.concatenate(wide), np.concatenate([x.ranks for x in found]))


def _bases(part: Prompts, energy: float) -> Bases:
  gram = np.matmul(part, part.swapaxes(1, 2)).astype(np.float64)
  squares, left = np.linalg.eigh(gram)
  squares, left = np.maximum(squares[:, ::-1], 0), left[:, :, ::-1]
  total = np.maximum(squares.sum(axis=1, keepdims=True), 1e-30)
  # a share that is reached but for rounding is reached
  below = np.cumsum(squares, axis=1) / total < energy - 1e-6
  ranks = 1 + below[:, :-1].sum(axis=1)
  most = int(ranks.max())
  scale = 1 / np.sqrt(np.maximum(squares[:, :most], 1e-30))
  scale *= np.arange(most) < ranks[:, None]
  turned = left[:, :, :most] * scale[:, None]
  rows = np.matmul(turned.swapaxes(1, 2).astype(np.float32), part)
  return Bases(rows, ranks)


def overlap(one: Bases, other: Bases) -> Float[np.ndarray, 'N M']:
  """Returns |B1 B2^T|_F / sqrt(min(r1, r2)) of every pair."""
  size, width = other.rows.shape[0], other.rows.shape[2]
  columns = other.rows.reshape(-1, width).T
  squares = [
    np.square(rows @ columns).reshape(len(rows), size, -1).sum(axis=(0, 2))
    for rows in one.rows
  ]
  least = np.minimum(one.ranks[:, None], other.ranks[None])
  return np.sqrt(np.array(squares) / least)


def subspace(query: Prompt, bank: Prompts) -> Float[np.ndarray, ' N']:
  """Returns the subspace similarity to every prompt of a bank."""
  return overlap(bases(query[None]), bases(bank))[0]


SIMILARITIES: dict[str, Callable[[Prompt, Prompts], np.ndarray]] = {
  'average': average,
  'token': token,
  'subspace': subspace,
}


def matrix(
  prompts: Prompts | Sequence[Prompt], metric: str = 'average'
) -> Float[np.ndarray, 'N N']:
  """Returns the similarity of every prompt to every other; symmetric.

  Raises:
    ValueError: the prompts differ in shape, or the metric is unknown.
  """
  bank = stacked(prompts)
  if metric == 'average':
    means = _unit(_summaries(bank, lambda x: x.mean(axis=1)))
    out = means @ means.T
  elif metric == 'token':
    means = _summaries(bank, _mean_unit)
    out = means @ means.T
  elif metric == 'subspace':
    found = bases(bank)
    out = overlap(found, found)
  else:
    raise ValueError(
      f'metric: expected one of {sorted(SIMILARITIES)}, found {metric!r}.'
    )
  return (out + out.T) / 2


def stacked(prompts: Prompts | Sequence[Prompt]) -> Prompts:
  """Returns prompts as one array.

  Raises:
    ValueError: there are none, or their shapes differ.
  """
  shapes = sorted({np.shape(p) for p in prompts})
  if len(shapes) != 1:
    raise ValueError(
      f'prompts: expected some of one shape, found the shapes {shapes}. Only '
      'deltas of one method and size, on backbones of one width, can be '
      'compared.'
    )
  return np.asarray(prompts, np.float32)


def _summaries(bank: Prompts, function) -> Float[np.ndarray, 'N D']:
  """Applies a function to a bank, some prompts at a time."""
  return np.concatenate([function(part) for part in _chunks(bank)])


def _chunks(bank: Prompts):
  size = max(1, CHUNK_BYTES // max(1, bank[:1].nbytes))
  for i in range(0, len(bank), size):
    yield np.asarray(bank[i : i + size], np.float32)


def _mean_unit(x: Prompts) -> Float[np.ndarray, 'N D']:
  """Returns the mean over tokens of the tokens' unit vectors."""
  norms = np.sqrt(np.einsum('npd,npd->np', x, x))
  shares = 1 / np.maximum(norms, 1e-30) / x.shape[1]
  return np.matmul(shares[:, None], x)[:, 0]


def _unit(x: Float[np.ndarray, '*B D']) -> Float[np.ndarray, '*B D']:
  norms = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.maximum(norms, 1e-30)
