"""What a stack writes beside its checkpoints: history and embeddings.

Both are of the steps that they were made at, so that a stack which goes on from
a checkpoint finds them again.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.training import hosts

EMBEDDINGS = 'embeddings.safetensors'
HISTORY = 'history.jsonl'

Folder = pathlib.Path | None


def append(folder: Folder, step: int, numbers: Mapping[str, Any]) -> None:
  """Adds what an evaluation found: name -> a number for each row."""
  if folder is None or not hosts.leads():
    return
  folder.mkdir(parents=True, exist_ok=True)
  values = {n: [float(x) for x in v] for n, v in numbers.items()}
  with open(folder / HISTORY, 'a', encoding='utf-8') as file:
    # a line break before it, too: a line that was cut off ends here
    file.write('\n' + json.dumps({'step': step, **values}) + '\n')


def history(folder: Folder, until: int) -> dict[int, dict[str, list[float]]]:
  """Returns {step: numbers} of the evaluations up to a step.

  What lies behind a checkpoint is done again, so the last line of a step
  counts; one that was cut off belongs to a step that is done again as well.
  """
  if folder is None or not (folder / HISTORY).exists():
    return {}
  out = {}
  for line in (folder / HISTORY).read_text(encoding='utf-8').splitlines():
    try:
      numbers = json.loads(line)
    except json.JSONDecodeError:
      continue
    step = numbers.pop('step')
    if step <= until:
      out[step] = numbers
  return dict(sorted(out.items()))


def write_embeddings(folder: Folder, phis: Sequence[Any]) -> None:
  """Keeps the embeddings of a stack, whole or not at all."""
  if folder is None or not hosts.leads():
    return
  folder.mkdir(parents=True, exist_ok=True)
  flat = {
    f'{i}/{path}': np.ascontiguousarray(x)
    for i, phi in enumerate(phis)
    for path, x in trees.flatten(phi).items()
  }
  draft = folder / f'.{EMBEDDINGS}.{os.getpid()}'
  safetensors_numpy.save_file(flat, draft)
  os.replace(draft, folder / EMBEDDINGS)


def read_embeddings(folder: Folder, count: int) -> list[Any]:
  """Returns the embeddings of a stack's rows."""
  held = trees.unflatten(safetensors_numpy.load_file(folder / EMBEDDINGS))
  return [held[str(i)] for i in range(count)]


def remove(folder: pathlib.Path) -> None:
  """Removes both, once the results of the stack are stored."""
  for name in (EMBEDDINGS, HISTORY):
    (folder / name).unlink(missing_ok=True)
