"""Deltas from runs of T5X: the folder of a run read as a bank entry.

A run of `training.t5x_model` leaves checkpoints of phi (legacy format, see
`weights.read_t5x`) and, beside them, a small card of the method and backbone.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from prompt_subspace.backbone import weights
from prompt_subspace.bank import exchange

CARD = 'delta.json'
FIELDS = ('method', 'settings', 'backbone', 'vocabulary', 'algorithm')


def write_card(folder: epath.PathLike, card: Mapping[str, Any]) -> None:
  """Writes what a run's phi is, if it is not written yet."""
  path = epath.Path(folder) / CARD
  text = json.dumps(card, indent=2, sort_keys=True) + '\n'
  if not path.exists() or path.read_text() != text:
    path.write_text(text)


def read(folder: str | pathlib.Path) -> tuple[exchange.Adapter, dict]:
  """Reads the newest phi of a run, or that of one checkpoint.

  Args:
    folder: MODEL_DIR of the run, or checkpoint_N in it.

  Returns:
    The delta with its facts, and the run's card.

  Raises:
    ValueError: no such run, no checkpoint, or a card that lacks something.
  """
  folder = pathlib.Path(folder).absolute()
  chosen = re.fullmatch(r'checkpoint_(\d+)', folder.name)
  run = folder.parent if chosen else folder
  steps = sorted(
    int(found[1])
    for path in (run.iterdir() if run.is_dir() else ())
    if (found := re.fullmatch(r'checkpoint_(\d+)', path.name))
    and (path / 'checkpoint').is_file()
  )
  if not steps or not (run / CARD).is_file():
    raise ValueError(
      f'{run}: expected the MODEL_DIR of a T5X run, with {CARD} and folders '
      f'checkpoint_N, found {len(steps)} checkpoints. Train with '
      'checkpointer_cls = @t5x_model.PhiCheckpointer.'
    )
  step = int(chosen[1]) if chosen else steps[-1]
  card = json.loads((run / CARD).read_text(encoding='utf-8'))
  if missing := [name for name in FIELDS if name not in card]:
    raise ValueError(f'{run / CARD}: missing the fields {missing}.')
  phi = weights.read_t5x(run / f'checkpoint_{step}')
  facts = {
    name: card[name]
    for name in card
    if name in ('algorithm', 'prefix_positions')
  }
  found = exchange.Adapter(
    phi=phi,
    method=card['method'],
    settings=card['settings'],
    backbone=card['backbone'],
    facts={**facts, 'steps': step},
  )
  return found, card
