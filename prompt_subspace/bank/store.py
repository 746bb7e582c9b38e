"""Stored deltas: a folder with phi and a card that says where it comes from.

A bank is a folder of entries, local or wherever etils reaches (gs://...). An
entry is a folder:

  phi.safetensors        the best checkpoint
  embedding.safetensors  the task embedding: phi after a fixed number of steps
  card.json              where it comes from, and the sha256 of the other files

The card is written last and names what it belongs to, so that what an
interrupted write leaves behind is no entry, on any file system. Locally the
folder appears whole.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.backbone.weights import Backbone

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
) -> None:
  """Writes an entry whole or not at all; an older one is replaced.

  Args:
    folder: of the entry.
    phi: float32 arrays.
    card: at least `REQUIRED`.
    embedding: a tree like phi.

  Raises:
    ValueError: the card lacks a required field, or an array is not float32.
  """
  if missing := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'card: expected {list(REQUIRED)}, missing {missing}.')
  held = {'phi': phi} | ({} if embedding is None else {'embedding': embedding})
  files = {FILES[name]: _serialise(name, tree) for name, tree in held.items()}
  sums = {name: hashlib.sha256(x).hexdigest() for name, x in files.items()}
  text = json.dumps({**card, 'files': sums}, indent=2, sort_keys=True) + '\n'
  folder = epath.Path(folder)
  draft = folder.parent / f'.{folder.name}-{uuid.uuid4().hex}'
  old = folder.parent / f'{draft.name}-old'
  draft.mkdir(parents=True)
  try:
    for name, content in files.items():
      (draft / name).write_bytes(content)
    # last: without a card that fits, the rest is no entry
    (draft / CARD).write_text(text)
    if folder.exists():
      folder.rename(old)
    draft.rename(folder)
  finally:
    for left in (draft, old):
      if left.exists():
        left.rmtree()


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
  sums = card.pop('files', {FILES['phi']: None})
  held = {}
  for name, file in FILES.items():
    if file in sums:
      content = _checked(folder / file, sums[file])
      held[name] = trees.unflatten(safetensors_numpy.load(content))
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
  if lacking := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'{path}: missing the fields {lacking}.')
  return card


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

  Looked for: cards that cannot be read, missing and altered files, numbers
  that are not finite, and drafts that an interrupted write has left.
  """
  bank, problems = epath.Path(bank), []
  for path in sorted(bank.iterdir()):
    if path.name.startswith('.') and path.is_dir():
      problems.append(f'{path.name}: left by an interrupted write; remove it')
    elif path.is_dir():
      try:
        entry = read(path)
      except ValueError as error:
        problems.append(f'{path.name}: {error}')
        continue
      for name in FILES:
        flat = trees.flatten(getattr(entry, name) or {})
        problems += [
          f'{path.name}: {name}: {leaf} has values that are not finite'
          for leaf, x in flat.items()
          if not np.isfinite(x).all()
        ]
  return problems


def check_backbone(entry: Entry, backbone: Backbone) -> None:
  """Raises ValueError if the entry was trained on another backbone."""
  found = entry.card['fingerprint']
  if found != backbone.fingerprint:
    shapes = trees.describe(entry.phi).replace('\n', ', ')
    raise ValueError(
      f'{entry.name}: trained on backbone {entry.card["backbone"]!r} with '
      f'fingerprint {(found or "unknown")[:16]}, found {backbone.name!r} with '
      f'{backbone.fingerprint[:16]} (width {backbone.config.emb_dim}); its '
      f'arrays: {shapes}. Load the backbone that it was trained on.'
    )
