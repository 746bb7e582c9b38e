"""Checks a gin file before anything compiles: names, paths, data, memory.

python -m prompt_subspace.check --gin_file=gin/tune.gin
"""

import sys
from collections.abc import Sequence

from prompt_subspace import run


def main(argv: Sequence[str]) -> int:
  """Builds the job and prints its plan; returns the exit code."""
  try:
    work, _ = run.parse(argv, 'check')
  except (ValueError, ImportError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  print(work.plan)
  print('ok         everything that can be checked before compiling is fine')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
