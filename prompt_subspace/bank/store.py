"""A stored delta: a folder with `phi.safetensors` and `card.json`.

An entry is written beside its place and renamed when complete, so that an
interrupted write leaves nothing that reads as an entry.
"""

import json
import pathlib
import shutil
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.backbone.weights import Backbone

REQUIRED = ('task', 'method', 'settings', 'backbone', 'fingerprint')


class Entry(NamedTuple):
  """A stored delta.

  Attributes:
    name: of its folder.
    phi: the trained tree.
    card: where it comes from: task, method, its settings, name and
      fingerprint of the backbone, seed, rate, steps, scores.
  """

  name: str
  phi: dict
  card: dict


def write(
  folder: str | pathlib.Path, phi: Mapping, card: Mapping[str, Any]
) -> None:
  """Writes an entry whole or not at all; an older one is replaced.

  Raises:
    ValueError: the card lacks a required field, or phi is not float32.
  """
  if missing := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'card: expected {list(REQUIRED)}, missing {missing}.')
  flat = {p: np.asarray(x) for p, x in trees.flatten(phi).items()}
  if wrong := [p for p, x in flat.items() if x.dtype != np.float32]:
    raise ValueError(f'phi: expected float32 leaves, found others at {wrong}.')
  folder = pathlib.Path(folder)
  draft = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
  draft.mkdir(parents=True)
  try:
    contiguous = {p: np.ascontiguousarray(x) for p, x in flat.items()}
    safetensors_numpy.save_file(contiguous, draft / 'phi.safetensors')
    text = json.dumps(dict(card), indent=2, sort_keys=True) + '\n'
    (draft / 'card.json').write_text(text, encoding='utf-8')
    if folder.exists():
      shutil.rmtree(folder)
    draft.rename(folder)
  finally:
    shutil.rmtree(draft, ignore_errors=True)


def read(folder: str | pathlib.Path) -> Entry:
  """Reads an entry.

  Raises:
    ValueError: there is none, or its card is not one of ours.
  """
  folder = pathlib.Path(folder)
  files = [folder / 'phi.safetensors', folder / 'card.json']
  if missing := [f.name for f in files if not f.exists()]:
    raise ValueError(
      f'{folder}: expected a stored delta, missing {missing}. Name the folder '
      'of one run, for instance runs/tune/deltas/<run>.'
    )
  card = json.loads(files[1].read_text(encoding='utf-8'))
  if lacking := [name for name in REQUIRED if name not in card]:
    raise ValueError(f'{files[1]}: missing the fields {lacking}.')
  flat = safetensors_numpy.load_file(files[0])
  return Entry(folder.name, trees.unflatten(flat), card)


def check_backbone(entry: Entry, backbone: Backbone) -> None:
  """Raises ValueError if the entry was trained on another backbone."""
  if entry.card['fingerprint'] != backbone.fingerprint:
    raise ValueError(
      f'{entry.name}: trained on backbone {entry.card["backbone"]!r} with '
      f'fingerprint {entry.card["fingerprint"][:16]}, found '
      f'{backbone.name!r} with {backbone.fingerprint[:16]}. Load the backbone '
      'that it was trained on.'
    )
