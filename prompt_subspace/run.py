"""The command line: a gin file in, a recipe out.

  python -m prompt_subspace.run --gin_file=gin/tune.gin --gin.STEPS=100

A gin file binds `run.job.job` to a recipe, a function that plans a `Job`, and
`run.job.report` to what shows its results: folder -> text.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

import gin
from prompt_subspace.training import hosts, mesh, plan, t5x_needs
from prompt_subspace.training.job import Job, environment, write_json

Report = Callable[[pathlib.Path], str]
# what gin raises for a file, module, name or value; ValueError as it is
GIN_ERRORS = (OSError, ImportError, AttributeError, SyntaxError, NameError)

THEIRS = (
  'A file for T5X is started by T5X, where that is installed: python -m '
  't5x.train (or t5x.eval, t5x.infer), as its first lines say.'
)


def job(job: Job, report: Report | None = None) -> tuple[Job, Report | None]:
  """Returns what the gin file binds here, `run.job.job = @recipe()`."""
  return job, report


def parse(argv: Sequence[str], program: str) -> tuple[Job, Report | None]:
  """Reads gin files and bindings from a command line; builds the job.

  Args:
    argv: `--gin_file=F` (repeatable), `--gin.NAME=VALUE` (later wins; strings
      in inner quotes), `--gin_search_paths=A,B`, `--mesh=ROW,DATA,MODEL`,
      `--processes=auto|HOST:PORT,COUNT,INDEX`.
    program: name of the command, for its help.

  Raises:
    ValueError: a file, module, name or value that does not exist or cannot be
      read, a macro that no file defines, no job, or what its recipe says.
  """
  known, bindings = _read(argv, program)
  for path in known.gin_search_paths.split(','):
    gin.add_config_file_search_path(path)
  if known.processes:
    hosts.join(known.processes)
  gin.clear_config()
  try:
    gin.parse_config_files_and_bindings(
      known.gin_file, None, finalize_config=False
    )
    _check_names(bindings)
    _bind(bindings)
    gin.finalize()
  except GIN_ERRORS as error:
    hint = f'\n{THEIRS}' if "No module named 't5x'" in str(error) else ''
    raise ValueError(f'gin: {error}{hint}') from error
  if not re.search(r'^run\.job\.job = ', gin.config_str(), re.M):
    raise ValueError(
      f'gin_file: expected a file that binds run.job.job to a recipe, as '
      f'gin/tune.gin does, found none in {known.gin_file}. {THEIRS}'
    )
  with mesh.use(known.mesh and mesh.parse(known.mesh)):
    return gin.get_configurable(job)()


def _read(argv: Sequence[str], program: str):
  """Reads a command line; returns it, and the bindings as gin writes them."""
  parser = argparse.ArgumentParser(
    prog=f'python -m prompt_subspace.{program}',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--gin_file', action='append', required=True)
  parser.add_argument('--gin_search_paths', default='.')
  parser.add_argument(
    '--mesh',
    metavar='ROW,DATA,MODEL',
    help='devices for rows, examples, weights; default: all for rows',
  )
  parser.add_argument(
    '--processes',
    metavar='auto|HOST:PORT,COUNT,INDEX',
    help='be one of several processes; auto on TPU pods and SLURM',
  )
  known, rest = parser.parse_known_args(argv)
  bindings = []
  for word in rest:
    if not word.startswith('--gin.') or '=' not in word:
      parser.error(f'expected --gin.NAME=VALUE, found {word!r}')
    bindings.append(word.removeprefix('--gin.').replace('=', ' = ', 1))
  return known, bindings


def planned(
  argv: Sequence[str], sizes: Sequence[int] | None
) -> tuple[plan.Step, Mesh]:
  """Reads gin files for T5X and bindings: a step, and the devices to plan for.

  Needs no T5X; what is bound to its own functions is not looked at.

  Args:
    argv: `--gin_file=F`, `--gin.NAME=VALUE`, `--gin_search_paths=A,B`.
    sizes: of the mesh; None: all devices hold the weights, as many as the files
      say (PARTITIONS).

  Raises:
    ValueError: a file, name or value that cannot be read.
  """
  known, bindings = _read(argv, 'check')
  try:
    paths = known.gin_search_paths.split(',')
    text = t5x_needs.for_plan(known.gin_file, paths, bindings)
    mesh = plan.simulate(sizes or (1, 1, t5x_needs.partitions(text)))
    gin.clear_config()
    gin.parse_config(text)
    return gin.get_configurable(plan.of_t5x)(), mesh
  except GIN_ERRORS as error:
    raise ValueError(f'gin: {error}') from error


def _bind(bindings: Sequence[str]) -> None:
  """Parses bindings with the imports of the files that were read.

  So they may name what no file uses: `--gin.study.learn.method=@deltas.lora()`.
  """
  imports = re.findall(r'^(?:from|import) .+', gin.config_str(), re.M)
  for binding in bindings:
    try:
      gin.parse_config([*imports, binding])
    except NameError as error:
      known = sorted({line.split()[-1] for line in imports[1:]})
      raise ValueError(
        f'gin: {error}\nexpected one of {", ".join(known)}, which the gin '
        'files import; one more --gin_file can import others.'
      ) from error
    except SyntaxError as error:
      name, _, value = binding.partition(' = ')
      raise ValueError(
        f'--gin.{name}: expected a value as Python writes it, found {value}. '
        'A text has quotes of its own, inside those of the shell: '
        """--gin.BACKBONE='"mini"' --gin.TASKS='["sst2", "cola"]'."""
      ) from error


def _check_names(bindings: Sequence[str]) -> None:
  """Raises ValueError for a name that binds nothing.

  NAME = VALUE with a name that no file defines would be a new macro to gin,
  which nothing uses; and a parameter wants its module.
  """
  defined = re.findall(r'^(\w+) = ', gin.config_str(), re.M)
  for binding in bindings:
    name = binding.partition(' = ')[0]
    dots = name.rpartition('/')[2].count('.')
    if dots < 2 and not (dots == 0 and name in defined):
      raise ValueError(
        f'--gin.{name}: expected one of {", ".join(sorted(defined))}, or a '
        f'parameter by module and function, such as --gin.tune.tune.max_input; '
        f'found {name}.'
      )


def main(argv: Sequence[str]) -> int:
  """Builds the job, writes `record.json`, runs it; returns the exit code.

  `starts.jsonl` has the record of every start of the folder.
  """
  try:
    work, report = parse(argv, 'run')
    print(work.plan, flush=True)
    record = {
      'gin': gin.config_str(),
      'command': list(argv),
      **environment(),
      **work.record,
    }
    write_json(work.folder / 'record.json', record)
    _note_start(work.folder / 'starts.jsonl', record)
    work.run()
    if report is not None and hosts.leads():
      print(report(work.folder))
  except ValueError as error:
    print(f'error: {told(error)}', file=sys.stderr)
    return 2
  return 0


def _note_start(path: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Adds a line: a folder may be made by many starts, record.json is the last
  one's."""
  if hosts.leads():
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    with path.open('a', encoding='utf-8') as file:
      file.write(json.dumps({'started': now, **record}) + '\n')


def told(error: Exception) -> str:
  """Returns the message, without gin's notes of its own calls."""
  return re.sub(r'\n\s*In call to configurable .*', '', str(error))


if __name__ == '__main__':
  # gin knows functions by their module; as a script this one is `__main__`
  from prompt_subspace import run

  sys.exit(run.main(sys.argv[1:]))
