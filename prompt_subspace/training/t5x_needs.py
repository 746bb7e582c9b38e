"""What gin files for T5X need, and what of it is not installed.

T5X is no dependency of this package and is not on the package index: it is
installed from its own repository, as are two libraries that it imports.
"""

import importlib.util
import pathlib
import re
from collections.abc import Sequence

# module -> what to install, in the version that was tried; T5X's own first
NEEDS = {
  't5x': 'T5X, github.com/google-research/t5x, commit cc342d4 (2026-04-21)',
  'airio': 'AirIO, github.com/google/airio, for T5X',
  'jestimator': 'JEstimator, github.com/google-research/jestimator, for T5X',
  'seqio': 'seqio==0.0.20',
  'tensorflow': 'tensorflow-cpu==2.21.0 (or tensorflow, not both)',
  'tensorflow_text': 'tensorflow-text==2.21.1',
  'tensorflow_datasets': 'tensorflow-datasets==4.9.10',
  'tensorboard': 'tensorboard==2.21.0',
  'tensorstore': 'tensorstore==0.1.86',
  'orbax.checkpoint': 'orbax-checkpoint==0.12.8',
  'clu': 'clu==0.0.12',
  'fiddle': 'fiddle==0.3.1',
  'libcst': 'libcst, for fiddle',
  'grain': 'grain==0.2.18',
  'portpicker': 'portpicker, for grain',
  'cached_property': 'cached_property==2.0.1',
  'gin': 'gin-config==0.5.0',
}
TRIED = 'jax 0.10.2, flax 0.12.8, optax 0.2.8, numpy 2.4.6, Python 3.11'
SCRIPT = re.compile(r"^include 't5x/configs/runs/(\w+)\.gin'", re.M)
INCLUDE = re.compile(r"^include '(.+)'", re.M)
COMMANDS = {'finetune': 'train', 'pretrain': 'train'}


def command(
  gin_files: Sequence[str], search_paths: Sequence[str] = ('.',)
) -> str | None:
  """Returns the module of T5X that runs these gin files, None if none does."""
  for name in gin_files:
    for root in search_paths:
      path = pathlib.Path(root) / name
      if path.is_file():
        text = path.read_text(encoding='utf-8')
        if found := SCRIPT.search(text):
          return f't5x.{COMMANDS.get(found[1], found[1])}'
        if found := command(INCLUDE.findall(text), search_paths):
          return found
        break
  return None


def missing() -> list[str]:
  """Returns what is to be installed, a line each; imports nothing."""
  return [what for module, what in NEEDS.items() if not _there(module)]


def _there(module: str) -> bool:
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:  # the package around it
    return False


def check(runner: str, gin_files: Sequence[str]) -> str:
  """Returns how to run gin files with T5X.

  Raises:
    ValueError: something is not installed; says what.
  """
  if lacking := missing():
    lines = '\n  '.join(lacking)
    raise ValueError(
      f'{" ".join(gin_files)}: runs with T5X ({runner}), of which this '
      f'environment lacks:\n  {lines}\nInstall them as the README, "T5X and '
      f'pods", says; tried with {TRIED}. T5X itself: '
      'github.com/google-research/t5x#installation.'
    )
  files = ' '.join(f'--gin_file={name}' for name in gin_files)
  return (
    f'engine     T5X, all that it needs is installed\n'
    f'run it     python -m {runner} {files} --gin.MODEL_DIR="\'...\'"'
  )
