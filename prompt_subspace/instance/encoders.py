"""Small encoders: a frozen table's rows of an input become k prompt vectors.

TextCNN (three convolutions, each with a pooling), MLP (three linear layers) and
LSTM (three recurrent and three linear layers). What stands behind the last
token has no influence: positions are masked, and the features of the first n
tokens are pooled to k segments of equal length.

Source: Jiang et al. 2022 (IPT), section 3.3.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from prompt_subspace import trees


def segments(
  used: Int[Array, ' B'], length: int, k: int
) -> Bool[Array, 'B k L']:
  """Returns which positions belong to which of k segments of the first tokens.

  Segment j of n tokens goes from floor(j n / k) to floor((j + 1) n / k), and
  has at least one token: of fewer tokens than segments, some serve twice.
  """
  j = jnp.arange(k)
  first = (j * used[:, None]) // k
  last = jnp.maximum(((j + 1) * used[:, None]) // k, first + 1)
  at = jnp.arange(length)
  return (at >= first[..., None]) & (at < last[..., None])


def _mean(x, chosen):
  weights = chosen / chosen.sum(axis=-1, keepdims=True)
  return jnp.einsum('bkl,bld->bkd', weights, x)


def _highest(x, chosen):
  kept = jnp.where(chosen[..., None], x[:, None], -jnp.inf)
  return kept.max(axis=2)


def _beside(x: Float[Array, 'B L D']) -> list[Float[Array, 'B L D']]:
  """What stands before, at and after each position; zeros beyond the ends."""
  wide = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
  return [wide[:, i : i + x.shape[1]] for i in range(3)]


class Conv(nn.Module):
  """A convolution over three tokens, as one matrix product.

  Parameters and numbers are those of `nn.Conv(width, (3,))`, whose gradient a
  CPU takes several times as long for inside a loop, as rows are advanced.
  """

  width: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D']) -> Float[Array, 'B L width']:
    shape = (3, x.shape[-1], self.width)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    near = jnp.concatenate(_beside(x), axis=-1)
    return near @ kernel.reshape(-1, self.width) + bias


class TextCNN(nn.Module):
  """Three convolutions over three tokens, each with a pooling over three."""

  width: int
  k: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D'], used: Int[Array, ' B']):
    """Returns k vectors [B, k, D]."""
    out, mask = x.shape[-1], jnp.arange(x.shape[1]) < used[:, None]
    for _ in range(3):
      x = nn.relu(Conv(self.width)(x * mask[..., None]))
      # behind the last token nothing may be higher than what is before it
      x = jnp.where(mask[..., None], x, 0.0)
      # nothing is below the zeros beyond the ends
      x = functools.reduce(jnp.maximum, _beside(x))
    chosen = segments(used, x.shape[1], self.k)
    return nn.Dense(out)(_highest(x, chosen))


class MLP(nn.Module):
  """Three linear layers on the mean of each segment."""

  width: int
  k: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D'], used: Int[Array, ' B']):
    """Returns k vectors [B, k, D]."""
    out = x.shape[-1]
    x = _mean(x, segments(used, x.shape[1], self.k))
    x = nn.relu(nn.Dense(self.width)(x))
    x = nn.relu(nn.Dense(self.width)(x))
    return nn.Dense(out)(x)


class LSTM(nn.Module):
  """Three recurrent layers, and three linear ones on each segment's mean."""

  width: int
  k: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B L D'], used: Int[Array, ' B']):
    """Returns k vectors [B, k, D]."""
    out = x.shape[-1]
    for _ in range(3):
      cell = nn.OptimizedLSTMCell(self.width)
      x = nn.RNN(cell)(x, seq_lengths=used)
    x = _mean(x, segments(used, x.shape[1], self.k))
    x = nn.relu(nn.Dense(self.width)(x))
    x = nn.relu(nn.Dense(self.width)(x))
    return nn.Dense(out)(x)


ENCODERS: dict[str, Callable] = {'cnn': TextCNN, 'mlp': MLP, 'lstm': LSTM}


def parameters(kind: str, width: int, k: int, dim: int) -> int:
  """Returns how many numbers an encoder of a width has."""
  return trees.size(shapes(kind, width, k, dim))


def shapes(kind: str, width: int, k: int, dim: int) -> dict:
  """Returns the names and shapes of an encoder's parameters."""
  module = ENCODERS[kind](width, k)
  x = jax.ShapeDtypeStruct((1, 4, dim), jnp.float32)
  used = jax.ShapeDtypeStruct((1,), jnp.int32)
  found = jax.eval_shape(module.init, jax.random.key(0), x, used)
  return found['params']


def width_for(kind: str, budget: int, k: int, dim: int) -> int:
  """Returns the largest width whose encoder has at most `budget` numbers.

  Raises:
    ValueError: not even a width of 1 fits.
  """
  low, high = 0, 1
  while parameters(kind, high, k, dim) <= budget:
    low, high = high, 2 * high
  while high - low > 1:
    middle = (low + high) // 2
    fits = parameters(kind, middle, k, dim) <= budget
    low, high = (middle, high) if fits else (low, middle)
  if not low:
    raise ValueError(
      f'budget: expected at least {parameters(kind, 1, k, dim):,} parameters, '
      f'what a {kind} encoder of width 1 has on a backbone of width {dim}, '
      f'found {budget:,}. Raise the budget.'
    )
  return low
