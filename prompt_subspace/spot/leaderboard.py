"""What T5X answered, as a submission to the SuperGLUE leaderboard.

  python -m prompt_subspace.spot.leaderboard OUT FILE...

Each file is one that `t5x.infer` has written, with gin/t5x_infer.gin and SPLIT
"unlabelled", for a task of tasks/spot.py, by the name that it gives it:
spot_boolq-predict.jsonl-00000-of-00001. OUT and OUT.zip are made, see
`superglue`.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from prompt_subspace.spot import superglue


def read(
  paths: Iterable[str | pathlib.Path],
) -> tuple[dict[str, list[tuple[Any, str]]], dict[int, list[str]]]:
  """Reads answers from T5X's files.

  Args:
    paths: of files; the name says the task, what stands between `spot_` and
      `-predict`. A task may have several, as of several processes.

  Returns:
    task -> (idx, answer) of every example, and idx -> choices of COPA's, as
    `superglue.submission` takes them.

  Raises:
    ValueError: a name without a task, no such file, or a line without an idx
      or an answer.
  """
  predictions: dict[str, list[tuple[Any, str]]] = {}
  choices: dict[int, list[str]] = {}
  for path in map(pathlib.Path, paths):
    named = re.match(r'(?:spot_)?(\w+)-predict', path.name)
    if not named:
      raise ValueError(
        f'{path}: expected a name such as spot_boolq-predict.jsonl-..., as T5X '
        'gives it, which says the task.'
      )
    task = named[1]
    for number, line in enumerate(_lines(path), start=1):
      try:
        found = json.loads(line)
        inputs = found['inputs']
        predictions.setdefault(task, []).append(
          (inputs['idx'], found['prediction'])
        )
        if task == 'copa':
          choices[inputs['idx']] = inputs['choices']
      except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
          f'{path}:{number}: expected inputs with idx (of COPA with choices) '
          f'and a prediction, found {type(error).__name__}: {error}. Answer '
          'with gin/t5x_infer.gin.'
        ) from error
  return predictions, choices


def _lines(path: pathlib.Path) -> list[str]:
  try:
    return path.read_text(encoding='utf-8').splitlines()
  except OSError as error:
    raise ValueError(f'{path}: expected a file, {error.strerror}.') from error


def main(argv: Sequence[str]) -> int:
  """Reads the command line, writes folder and archive."""
  parser = argparse.ArgumentParser(
    prog='python -m prompt_subspace.spot.leaderboard',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('out', metavar='OUT')
  parser.add_argument('files', metavar='FILE', nargs='+')
  known = parser.parse_args(argv)
  try:
    superglue.submission(known.out, *read(known.files))
    print(f'wrote {superglue.zipped(known.out)}')
  except ValueError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
