"""Checks a gin file before anything runs: names, paths, data, memory.

python -m prompt_subspace.check --gin_file=gin/tune.gin

Of gin files for T5X it says whether all that they need is installed. With
--plan it compiles the step for a mesh of simulated devices, from shapes alone,
and says what each needs of memory and what they exchange; no T5X is needed:

python -m prompt_subspace.check --plan --mesh 1,4,8 --gin_file=gin/spot_xxl.gin
"""

import argparse
import sys
from collections.abc import Sequence

from prompt_subspace import run
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import plan, t5x_needs


def main(argv: Sequence[str]) -> int:
  """Builds the job and prints its plan; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m prompt_subspace.check',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog='All else is as of prompt_subspace.run.',
    allow_abbrev=False,
  )
  parser.add_argument('--plan', action='store_true', help='compile the step')
  parser.add_argument('--mesh', metavar='ROW,DATA,MODEL')
  parser.add_argument('--memory', type=float, help='of a device, in GiB')
  parser.add_argument('--size', help='plan for this size of backbone')
  parser.add_argument('--rows', type=int, help='runs in a stack')
  known, rest = parser.parse_known_args(argv)
  try:
    if known.plan:
      print(_plan(known, rest))
      return 0
    if (of_t5x := _t5x(argv)) is not None:
      print(of_t5x)
      return 0
    work, _ = run.parse(argv, 'check')
  except (ValueError, ImportError, OSError) as error:
    print(f'error: {run.told(error)}', file=sys.stderr)
    return 2
  print(work.plan)
  print('ok         everything that can be checked before compiling is fine')
  return 0


def _plan(known: argparse.Namespace, rest: Sequence[str]) -> str:
  """Returns what a mesh needs for the steps of gin files."""
  sizes = known.mesh and meshes.parse(known.mesh)
  if _runner(rest)[0] is None:
    sizes = sizes or (1, 1, 1)
    mesh = plan.simulate(sizes)
    # the job is built on one device, whatever its steps are planned for
    work, _ = run.parse([*rest, '--mesh=1,1,1'], 'check')
    if not work.stages:
      raise ValueError(
        'gin_file: expected a recipe that trains rows, such as gin/tune.gin, '
        'found one that cannot be planned.'
      )
    rows = known.rows or sizes[0]
    steps = {
      f'{title}, {step.method.name}': step
      for title, (where, inputs, targets) in work.stages.items()
      for step in plan.of_stage(where, inputs, targets, known.size, rows)
    }
  else:
    step, mesh = run.planned(rest, sizes)
    step = step._replace(
      config=plan.resized(step.config, known.size),
      rows=known.rows or mesh.shape['row'],
    )
    steps = {'T5X': step}
  out = []
  for title, step in steps.items():
    found = plan.make(step, mesh)
    out.append(f'== {title}\n{plan.describe(step, found, mesh, known.memory)}')
  return '\n\n'.join(out)


def _runner(argv: Sequence[str]) -> tuple[str | None, list[str]]:
  """Returns the program of T5X that runs these gin files, and the files."""
  parser = argparse.ArgumentParser(add_help=False)
  parser.add_argument('--gin_file', action='append', default=[])
  parser.add_argument('--gin_search_paths', default='.')
  known, _ = parser.parse_known_args(argv)
  paths = known.gin_search_paths.split(',')
  return t5x_needs.command(known.gin_file, paths), known.gin_file


def _t5x(argv: Sequence[str]) -> str | None:
  """Returns how T5X runs these gin files; None if it does not."""
  runner, files = _runner(argv)
  return runner and t5x_needs.check(runner, files)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
