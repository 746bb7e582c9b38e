"""Stored deltas: a folder with phi and a card that says where it comes from.

A bank is a folder of entries, local or wherever etils reaches (gs://...). An
entry is a folder:

  phi.safetensors        the best checkpoint
  embedding.safetensors  the task embedding: phi after a fixed number of steps
  card.json              where it comes from, and the sha256 of the other files

An entry appears whole. The card is written last, so that what an interrupted
write leaves behind is no entry, on any file system.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
from etils import epath
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import files
from prompt_subspace.deltas import base
from prompt_subspace.deltas.base import Method

REQUIRED = ('task', 'method', 'settings', 'backbone', 'fingerprint')
CARD = 'card.json'
FILES = {'phi': 'phi.safetensors', 'embedding': 'embedding.safetensors'}


class Entry(NamedTuple):
  """A stored delta.

  Attributes:
    name: of its folder.
    phi: the trained tree, at its best step.
    card: where it comes from: task, method, its settings, name and
      fingerprint of the backbone, seed, rate, steps, scores. The fingerprint
      is None for a delta from elsewhere.
    embedding: the tree after `embedding_step` updates, if it was kept.
  """

  name: str
  phi: dict
  card: dict
  embedding: dict | None = None


def write(
  folder: epath.PathLike,
  phi: Mapping,
  card: Mapping[str, Any],
  embedding: Mapping | None = None,
  replace: bool = True,
) -> None:
  """Writes an entry whole or not at all.

  Several processes may write to one bank at once.

  Args:
    folder: of the entry.
    phi: float32 arrays.
    card: at least `REQUIRED`.
    embedding: a tree like phi.
    replace: whether an older entry of that name gives way; else it is an
      error.

  Raises:
    ValueError: the card lacks a required field, an array is not float32, or
      the folder exists and is not to be replaced, or is no entry.
  """
  if missing := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'card: expected {list(REQUIRED)}, missing {missing}.')
  held = {'phi': phi} | ({} if embedding is None else {'embedding': embedding})
  content = {FILES[n]: _serialise(n, tree) for n, tree in held.items()}
  sums = {n: hashlib.sha256(x).hexdigest() for n, x in content.items()}
  text = json.dumps({**card, 'files': sums}, indent=2, sort_keys=True) + '\n'
  # last: without a card that fits, the rest is no entry
  content[CARD] = text.encode()
  files.write_folder(folder, content, {*FILES.values(), CARD}, replace)


def _serialise(name: str, tree: Mapping) -> bytes:
  flat = {p: np.asarray(x) for p, x in trees.flatten(tree).items()}
  if wrong := [p for p, x in flat.items() if x.dtype != np.float32]:
    raise ValueError(
      f'{name}: expected float32 leaves, found others at {wrong}.'
    )
  return safetensors_numpy.save(
    {p: np.ascontiguousarray(x) for p, x in flat.items()}
  )


def read(folder: epath.PathLike) -> Entry:
  """Reads an entry.

  Raises:
    ValueError: there is none, its card is not one of ours, or its arrays are
      not those that the card was written with.
  """
  folder = epath.Path(folder)
  if missing := [n for n in (FILES['phi'], CARD) if not (folder / n).exists()]:
    raise ValueError(
      f'{folder}: expected a stored delta, missing {missing}. Name the folder '
      'of one run, for instance runs/tune/bank/<run>.'
    )
  card = read_card(folder)
  # cards of the first entries have no sums
  sums = card.pop('files', {FILES['phi']: None})
  held = {}
  for name, file in FILES.items():
    if file in sums:
      held[name] = _tree(folder / file, _checked(folder / file, sums[file]))
  return Entry(folder.name, held['phi'], card, held.get('embedding'))


def read_card(folder: epath.PathLike) -> dict[str, Any]:
  """Reads the card of an entry, with the sha256 of its files.

  Raises:
    ValueError: it cannot be read, or lacks a required field.
  """
  path = epath.Path(folder) / CARD
  try:
    card = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise ValueError(f'{path}: expected a card, found {error}.') from error
  if not isinstance(card, dict):
    raise ValueError(f'{path}: expected a card, found a {type(card).__name__}.')
  if lacking := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'{path}: missing the fields {lacking}.')
  return card


def phi_sum(folder: epath.PathLike) -> str | None:
  """Returns the sha256 of an entry's phi; None of one from before sums."""
  return read_card(folder).get('files', {}).get(FILES['phi'])


def _tree(path: epath.Path, content: bytes) -> dict:
  try:
    return trees.unflatten(safetensors_numpy.load(content))
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path}: expected safetensors, found {error}.') from error
  except KeyError as error:  # a type that numpy has no name for
    raise ValueError(f'{path}: expected float32, found {error}.') from error


def _checked(path: epath.Path, expected: str | None) -> bytes:
  try:
    content = path.read_bytes()
  except OSError as error:
    raise ValueError(f'{path}: missing, though the card names it.') from error
  found = hashlib.sha256(content).hexdigest()
  if expected is not None and found != expected:
    raise ValueError(
      f'{path}: expected the arrays that card.json was written with, sha256 '
      f'{expected[:16]}, found {found[:16]}. The entry is damaged: make it '
      'again, or copy it from where it is whole.'
    )
  return content


def names(bank: epath.PathLike) -> list[str]:
  """Returns the names of the entries of a bank, sorted.

  Raises:
    ValueError: there is no such folder.
  """
  bank = epath.Path(bank)
  if not bank.is_dir():
    raise ValueError(f'bank: expected a folder of entries, found no {bank}.')
  return sorted(
    p.name
    for p in bank.iterdir()
    if not p.name.startswith('.') and (p / CARD).exists()
  )


def cards(bank: epath.PathLike) -> dict[str, dict[str, Any]]:
  """Returns {entry: card} of a bank; reads no arrays."""
  bank = epath.Path(bank)
  return {name: read_card(bank / name) for name in names(bank)}


def verify(bank: epath.PathLike) -> list[str]:
  """Returns what is wrong with a bank, a line each; none if all is well.

  Looked for: cards that cannot be read, missing and altered files, values
  that are not float32 or not finite, and what interrupted writes have left.

  Raises:
    ValueError: there is no such folder.
  """
  names(bank)
  problems = []
  for path in sorted(epath.Path(bank).iterdir()):
    if path.name.startswith('.') and path.is_dir():
      problems.append(f'{path.name}: {_left_over(path)}')
    elif path.is_dir():
      try:
        entry = read(path)
      except ValueError as error:
        problems.append(f'{path.name}: {error}')
        continue
      for name in FILES:
        flat = trees.flatten(getattr(entry, name) or {})
        problems += [
          f'{path.name}: {name}: {leaf} {found}'
          for leaf, x in flat.items()
          if (found := _wrong(x))
        ]
  return problems


def _wrong(x: np.ndarray) -> str:
  if x.dtype != np.float32:
    return f'is {x.dtype}, expected float32'
  if not np.isfinite(x).all():
    return 'has values that are not finite'
  return ''


def _left_over(path: epath.Path) -> str:
  older = files.replaced(path.name)
  if older and not (path.parent / older).exists():
    return (
      f'the older {older}, which an interrupted write was about to replace; '
      f'rename it to {older}'
    )
  return 'left by an interrupted write; remove it'


def check_method(card: Mapping[str, Any], method: Method) -> None:
  """Checks that a method makes of a stored phi what it was trained as.

  Args:
    card: of the entry.
    method: bound, made again from the card.

  Raises:
    ValueError: it reads phi otherwise: a table or a map that the card names is
      not what it was.
  """
  if other := base.differing(method, method.name, card['settings']):
    texts = [f'{n} was {was!r}, is {now!r}' for n, (was, now) in other.items()]
    raise ValueError(
      f'delta of {card["task"]!r}: expected {card["method"]} as it was '
      f'trained, found other settings: {"; ".join(texts)}. Restore what they '
      'are made from, such as the table that the card names.'
    )


def check_backbone(entry: Entry, backbone: Backbone) -> None:
  """Checks that an entry can be used on a backbone.

  Raises:
    ValueError: it was trained on another one, with another vocabulary, or on
      one that gives prefix keys other positions (`prefix_positions` in the
      card).
  """
  found = entry.card['fingerprint']
  if found != backbone.fingerprint:
    shapes = trees.describe(entry.phi).replace('\n', ', ')
    raise ValueError(
      f'{entry.name}: trained on backbone {entry.card["backbone"]!r} with '
      f'fingerprint {(found or "unknown")[:16]}, found {backbone.name!r} with '
      f'{backbone.fingerprint[:16]} (width {backbone.config.emb_dim}); its '
      f'arrays: {shapes}. Load the backbone that it was trained on.'
    )
  wanted, words = entry.card.get('vocabulary'), backbone.vocabulary
  if wanted and words is not None and wanted != words.sha256:
    raise ValueError(
      f'{entry.name}: trained with the vocabulary {wanted[:16]}, found '
      f'{words.sha256[:16]}, which gives texts other tokens. Load the '
      'backbone with the one that it was trained with.'
    )
  positions = entry.card.get('prefix_positions')
  if positions not in (None, backbone.config.prefix_positions):
    raise ValueError(
      f'{entry.name}: trained with prefix_positions={positions}, found '
      f'{backbone.name!r} with {backbone.config.prefix_positions}. Load it '
      f'with prefix_positions={positions}.'
    )
