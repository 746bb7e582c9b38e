"""What one process measures about itself: time, peak memory.

Both sides import this file and nothing else in common, so that neither pays
for the libraries of the other.
"""

import os
import pathlib
import time
from collections.abc import Callable
from typing import Any


def timed(function: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
  """Calls a function; returns its result, and its seconds.

  `wall` is what counts. `cpu`, the time of all threads, tells a machine that
  does other work beside: wall x cores stays close to it on a quiet one.
  """
  wall, cpu = time.perf_counter(), time.process_time()
  result = function()
  return result, {
    'wall': time.perf_counter() - wall,
    'cpu': time.process_time() - cpu,
  }


def peak_mib() -> float:
  """Returns the largest resident memory of this process so far, in MiB.

  Everything counts: interpreter, libraries, weights, compilation, work.
  Linux's VmHWM belongs to the program that runs, whereas `ru_maxrss` also
  remembers the program that started it.
  """
  status = pathlib.Path('/proc/self/status')
  if status.exists():
    for line in status.read_text(encoding='ascii').splitlines():
      if line.startswith('VmHWM'):
        return int(line.split()[1]) / 1024
  import resource
  import sys

  unit = 2**20 if sys.platform == 'darwin' else 2**10
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def costs(
  loading: dict[str, float], loaded: float, on_device: int | None = None
) -> dict:
  """Returns what a process reports of itself at its end.

  Args:
    loading: seconds that loading took.
    loaded: peak memory after it, in MiB.
    on_device: peak memory of an accelerator in bytes, if one was used; it is
      then what counts, and not the process's.
  """
  return {
    'loading': loading,
    'loaded_mib': loaded,
    'peak_mib': on_device / 2**20 if on_device else peak_mib(),
    'cores': cores(),
  }


def cores() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
