"""Checks a gin file before anything compiles: names, paths, data, memory.

python -m prompt_subspace.check --gin_file=gin/tune.gin

Of gin files for T5X it says whether all that they need is installed.
"""

import argparse
import sys
from collections.abc import Sequence

from prompt_subspace import run
from prompt_subspace.training import t5x_needs


def main(argv: Sequence[str]) -> int:
  """Builds the job and prints its plan; returns the exit code."""
  try:
    if (of_t5x := _t5x(argv)) is not None:
      print(of_t5x)
      return 0
    work, _ = run.parse(argv, 'check')
  except (ValueError, ImportError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(work.plan)
  print('ok         everything that can be checked before compiling is fine')
  return 0


def _t5x(argv: Sequence[str]) -> str | None:
  """Returns how T5X runs these gin files; None if it does not."""
  parser = argparse.ArgumentParser(add_help=False)
  parser.add_argument('--gin_file', action='append', default=[])
  parser.add_argument('--gin_search_paths', default='.')
  known, _ = parser.parse_known_args(argv)
  paths = known.gin_search_paths.split(',')
  runner = t5x_needs.command(known.gin_file, paths)
  return runner and t5x_needs.check(runner, known.gin_file)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
