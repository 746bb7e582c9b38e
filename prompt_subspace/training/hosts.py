"""Several processes that work as one, each on its own devices.

Every process runs the same program on the same data; arrays lie on the devices
of all (`training.mesh`). The first process, the leader, alone writes and
speaks; the others read what it has written, so that all need one file system
for the results.
"""

import os
import re
import sys
import uuid
from typing import Any

import jax
import numpy as np
from etils import epath


def join(text: str) -> None:
  """Makes this process one of several, before JAX is used.

  Args:
    text: `auto` on TPU pods, SLURM and Open MPI, which tell JAX who is who;
      else HOST:PORT,COUNT,INDEX, with an address of the process of index 0.

  Raises:
    ValueError: the text is something else, or JAX cannot tell.
  """
  given: dict[str, Any] = {}
  if text != 'auto':
    found = re.fullmatch(r'([^,]+:\d+),(\d+),(\d+)', text)
    if not found or int(found[3]) >= int(found[2]):
      raise ValueError(
        'processes: expected auto, or HOST:PORT,COUNT,INDEX with INDEX from 0 '
        f'to COUNT - 1, found {text!r}.'
      )
    given = {
      'coordinator_address': found[1],
      'num_processes': int(found[2]),
      'process_id': int(found[3]),
    }
  try:
    jax.distributed.initialize(**given)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'processes: {error}') from error
  if not leads():
    sys.stdout = open(os.devnull, 'w', encoding='utf-8')  # noqa: SIM115


def leads() -> bool:
  """Whether this process writes and speaks: it is the first, or the only."""
  return jax.process_index() == 0


def wait(what: str) -> None:
  """Returns when every process is here: what was written can be read."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def agree(value: bool | int) -> int:
  """Returns the leader's value to all, which might have others: a clock's."""
  if jax.process_count() == 1:
    return int(value)
  from jax.experimental import multihost_utils

  return int(multihost_utils.broadcast_one_to_all(np.asarray(int(value))))


def check_shared(folder: epath.PathLike) -> None:
  """Checks that all processes see the same folder.

  Raises:
    ValueError: this one does not see what the leader has written there.
  """
  if jax.process_count() == 1:
    return
  mark = epath.Path(folder) / f'.hosts-{agree(uuid.uuid4().int % 2**30)}'
  if leads():
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text('')
  wait('written')
  seen = mark.exists()
  wait('seen')
  if leads():
    mark.unlink()
  if not seen:
    raise ValueError(
      f'out: expected a folder that all {jax.process_count()} processes see, '
      f'found that process {jax.process_index()} does not see {folder} as the '
      'first does. Name one on a shared file system.'
    )
