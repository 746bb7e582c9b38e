"""Gives back what a process has of the system and no longer needs.

Freed memory: glibc's malloc keeps much of it, scattered over the heaps of the
threads that asked for it. Compiling a step takes some hundred MiB in many
threads, and the step's own buffers come from others, so that both would count
at once.

Mappings: the code of a program that XLA compiles for a CPU is mapped into
memory in dozens of pieces, and Linux lets a process have 65,530. Beyond them
compiling ends the process.
"""

import ctypes
import functools
import pathlib
import sys

import jax

COMPILED = '/jax/core/compile/backend_compile_duration'
# seconds of compilation below which there is little to give back
LITTLE = 0.2
# how many mappings a process may have, and has
ALLOWED = pathlib.Path('/proc/sys/vm/max_map_count')
MAPPED = pathlib.Path('/proc/self/maps')


def give_back() -> None:
  """Does it now, and from now on after every compilation.

  Does nothing on systems without `malloc_trim`, which are those without glibc.
  """
  if (trim := _trim()) is not None:
    trim(0)
    _listen()


def drop_programs() -> bool:
  """Forgets compiled programs if they take half of the mappings allowed.

  What is needed again is compiled again. Does nothing on systems other than
  Linux.

  Returns:
    Whether it did.
  """
  try:
    allowed = int(ALLOWED.read_text(encoding='ascii'))
    mapped = MAPPED.read_bytes().count(b'\n')
  except OSError:
    return False
  if mapped < allowed / 2:
    return False
  jax.clear_caches()
  return True


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
