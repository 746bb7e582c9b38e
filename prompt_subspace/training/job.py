"""A job: what a recipe returns, planned and checked but not yet run."""

import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from prompt_subspace.training import hosts

PACKAGES = (
  'prompt_subspace',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'numpy',
  'seqio',
  'tensorflow',
  'gin-config',
)


class Job(NamedTuple):
  """A planned piece of work. Building it finds every mistake that can be
  found before something compiles; running it does the work.

  Attributes:
    folder: where its results go.
    plan: what will be done, for people.
    record: what the results depend on (data checksums, fingerprint, ...).
    run: does it.
    stages: name -> (its `stage.Stage`, longest input, longest target), of what
      it trains, for plans of memory.
  """

  folder: pathlib.Path
  plan: str
  record: Mapping[str, Any]
  run: Callable[[], None]
  stages: Mapping[str, tuple[Any, int, int]] = {}


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON whole or not at all; of several processes the first does."""
  if not hosts.leads():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  os.replace(draft, path)


def check(folder: pathlib.Path, identity: Mapping[str, Any]) -> dict[str, Any]:
  """Refuses a run folder that is tied to something else; writes nothing.

  Args:
    folder: of the run.
    identity: JSON values; a folder made with others cannot be continued. It
      may have entries that the folder knows nothing of, and lack some.

  Returns:
    The entries of both.

  Raises:
    ValueError: the folder holds results of something else; says what differs.
  """
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'out: expected a folder or a new name, found {folder}.')
  path = folder / 'identity.json'
  now = json.loads(json.dumps(identity))
  if not path.exists():
    return now
  before = json.loads(path.read_text(encoding='utf-8'))
  if differences := list(_differences(before, now)):
    lines = '\n  '.join(differences)
    data = (
      "A task's mark is that of its files, template and lengths. "
      if any(d.startswith('tasks.') for d in differences)
      else ''
    )
    found = 'holds results that were made differently'
    advice = 'or go back to the settings it was made with'
    if not _holds_results(folder):
      found = 'was begun with other settings, and has no results'
      advice = 'or remove it, if nothing is running there'
    raise ValueError(
      f'out: {folder} {found}:\n  {lines}\n{data}Name another folder, {advice}.'
    )
  return _joined(before, now)


def claim(folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
  """Ties a run folder to what decides its results, or refuses it: `check`."""
  write_json(folder / 'identity.json', check(folder, identity))


def _holds_results(folder: pathlib.Path) -> bool:
  """Whether a run has ended there, or can be resumed."""
  kept = ('rows/*.json', 'stacks/*/checkpoints/*', 'checkpoints/*')
  return any(path for pattern in kept for path in folder.glob(pattern))


def _joined(before, now):
  if not (isinstance(before, dict) and isinstance(now, dict)):
    return now
  both = {n: _joined(before[n], now[n]) for n in before if n in now}
  return {**before, **now, **both}


def _differences(before, now, path=''):
  if isinstance(before, dict) and isinstance(now, dict):
    for name in sorted(set(before) | set(now)):
      inner = f'{path}.{name}' if path else name
      if name in before and name in now:
        yield from _differences(before[name], now[name], inner)
      # a task or method that is new, or not asked for, is no contradiction
  elif before != now:
    yield f'{path}: it was {before!r}, asked for is {now!r}'


def environment() -> dict[str, Any]:
  """Returns versions and devices, for the record of a run."""
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = None
  return {
    'versions': versions,
    'python': platform.python_version(),
    'machine': f'{platform.machine()}, {os.cpu_count()} cores',
    'devices': [str(d) for d in jax.devices()],
  }
