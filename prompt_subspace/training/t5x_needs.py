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


# what a plan reads of gin files for T5X, and how it is called there
PLANNED = (
  ('batch_size', 'BATCH_SIZE'),
  ('microbatches', 'MICROBATCHES'),
  ('lengths', 'TASK_FEATURE_LENGTHS'),
)
PLAN = 'from prompt_subspace.training import plan'
_LINE = re.compile(r'^(?:from|import|include) .*$', re.M)


def for_plan(
  gin_files: Sequence[str],
  search_paths: Sequence[str] = ('.',),
  bindings: Sequence[str] = (),
) -> str:
  """Returns gin files for T5X as one that needs no T5X.

  The model's arguments go to `plan.of_t5x`, as do the macros of `PLANNED`; what
  else is T5X's or SeqIO's is left out.

  Raises:
    OSError: there is no such file.
  """
  imports, texts = {}, []
  for name in gin_files:
    _inline(name, search_paths, imports, texts)
  head = ['from __gin__ import dynamic_registration', PLAN]
  head += [x for x in imports if _own(x)]
  tail = [f'plan.of_t5x.{name} = %{macro}' for name, macro in PLANNED]
  known = [line.split()[-1] for line in head[1:]]
  text = '\n'.join([*texts, *bindings]).replace(
    't5x_model.Model', 'plan.of_t5x'
  )
  kept = [x for x in _statements(text) if understood(x, known)]
  return '\n'.join([*head, *kept, *tail]) + '\n'


def partitions(text: str) -> int:
  """Returns over how many devices a gin file spreads the weights."""
  found = re.findall(r'^PARTITIONS = (\d+)', text, re.M)
  return int(found[-1]) if found else 1


def _statements(text: str) -> list[str]:
  """Returns the statements of a gin file, each with the lines it goes on in."""
  found = re.split(r'^(?=\w)', text, flags=re.M)
  return [x for x in found if re.match(r'\w', x)]


def understood(statement: str, modules: Sequence[str]) -> bool:
  """Whether a statement names no modules but these."""
  target = re.match(r'[\w./]+', statement)[0].split('/')[-1]
  named = re.findall(r'@(?:[\w.]+/)*(\w+)\.', statement)
  if '.' in target:
    named.append(target.split('.')[0])
  return all(name in modules for name in named)


def _inline(name, search_paths, imports, texts) -> None:
  """Adds a file and its includes, in the order in which gin reads them."""
  roots = [pathlib.Path(r) / name for r in search_paths]
  path = next((p for p in roots if p.is_file()), None)
  if path is None:
    if name.startswith('t5x/'):
      return
    raise FileNotFoundError(f'{name}: expected a gin file, found none.')
  rest = []
  for line in path.read_text(encoding='utf-8').splitlines():
    if found := INCLUDE.match(line):
      texts.append('\n'.join(rest))
      rest = []
      _inline(found[1], search_paths, imports, texts)
    elif _LINE.match(line):
      imports[line] = None
    else:
      rest.append(line)
  texts.append('\n'.join(rest))


def _own(line: str) -> bool:
  """Whether an import is of this package, and needs no T5X or SeqIO."""
  other = ('t5x_model', 'seqio_streams')
  return line.startswith('from prompt_subspace') and not line.endswith(other)


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
