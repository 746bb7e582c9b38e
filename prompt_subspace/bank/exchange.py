"""Deltas as files: safetensors, and the .npy prompts of SPoT's code."""

import io
import json
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float
from safetensors import numpy as safetensors_numpy

from prompt_subspace import deltas, trees
from prompt_subspace.bank import files, store


class Adapter(NamedTuple):
  """A delta that was read from files of others.

  Attributes:
    phi: float32 arrays.
    method: name in `deltas.METHODS`.
    settings: arguments of the method.
    backbone: what the files say that it was trained on; may be empty.
    facts: more for the card.
  """

  phi: dict
  method: str
  settings: dict[str, Any]
  backbone: str = ''
  facts: dict[str, Any] = {}


def to_safetensors(
  entry: store.Entry, path: epath.PathLike, replace: bool = False
) -> None:
  """Writes phi as one file, names joined by `/`, the card in its metadata."""
  flat = trees.flatten(entry.phi)
  content = safetensors_numpy.save(flat, {'card': json.dumps(entry.card)})
  files.write_file(path, content, replace)


def to_npy(
  entry: store.Entry, path: epath.PathLike, replace: bool = False
) -> None:
  """Writes a prompt [P, D] as the .npy file that SPoT's code reads.

  Raises:
    ValueError: it is not the prompt of an encoder alone.
  """
  buffer = io.BytesIO()
  np.save(buffer, encoder_prompt(entry, '.npy'), allow_pickle=False)
  files.write_file(path, buffer.getvalue(), replace)


def encoder_prompt(entry: store.Entry, where: str) -> Float[np.ndarray, 'P D']:
  """Returns the prompt of an entry.

  Args:
    entry: of the bank.
    where: where it goes, for the error.

  Raises:
    ValueError: it is not the prompt of an encoder alone.
  """
  flat = trees.flatten(entry.phi)
  if entry.card['method'] != 'prompt' or set(flat) != {'encoder'}:
    raise ValueError(
      f'{entry.name}: {where} holds a prompt of the encoder alone, found '
      f'{entry.card["method"]!r} with {sorted(flat)[:3]}. Export it as '
      'safetensors.'
    )
  return flat['encoder']


def from_npy(path: epath.PathLike) -> Adapter:
  """Reads a prompt [P, D]; never a pickle.

  Raises:
    ValueError: it is no array of two axes of finite numbers.
  """
  try:
    x = np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise ValueError(f'{path}: expected a .npy file, found {error}') from error
  if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind != 'f':
    found = f'{x.dtype} {x.shape}' if isinstance(x, np.ndarray) else 'others'
    raise ValueError(
      f'{path}: expected a prompt [P, D] of floating-point numbers, found '
      f'{found}.'
    )
  return prompt_adapter(float32(str(path), x))


def prompt_adapter(table: Float[np.ndarray, 'P D']) -> Adapter:
  """Returns a prompt with the settings that start from it."""
  method = deltas.prompt(length=len(table), start='stored', stored=table)
  return Adapter({'encoder': table}, 'prompt', dict(method.settings))


def float32(what: str, x: np.ndarray) -> Float[np.ndarray, '*S']:
  """Returns an array in float32.

  Args:
    what: how to call it in the error.
    x: floating-point numbers.

  Raises:
    ValueError: a value is not finite.
  """
  out = np.ascontiguousarray(x, np.float32)
  if not np.isfinite(out).all():
    raise ValueError(f'{what}: expected finite float32 values, found others.')
  return out
