"""Gives memory that the process has freed back to the system.

glibc's malloc keeps much of what is freed, scattered over the heaps of the
threads that asked for it. Compiling a step takes some hundred MiB in many
threads, and the step's own buffers come from others, so that both would count
at once.
"""

import ctypes
import functools
import sys

import jax

COMPILED = '/jax/core/compile/backend_compile_duration'
# seconds of compilation below which there is little to give back
LITTLE = 0.2


def give_back() -> None:
  """Does it now, and from now on after every compilation.

  Does nothing on systems without `malloc_trim`, which are those without glibc.
  """
  if (trim := _trim()) is not None:
    trim(0)
    _listen()


@functools.cache
def _trim():
  """Returns malloc_trim, or None."""
  if sys.platform != 'linux':
    return None
  return getattr(ctypes.CDLL(None), 'malloc_trim', None)


@functools.cache
def _listen() -> None:
  jax.monitoring.register_event_duration_secs_listener(_heard)


def _heard(event: str, duration: float, **_) -> None:
  if event == COMPILED and duration >= LITTLE:
    _trim()(0)
