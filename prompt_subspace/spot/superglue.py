"""The SuperGLUE submission folder: a file of answers per task.

Vu et al. 2022, appendix D; Wang et al. 2019 (SuperGLUE), whose leaderboard
takes a zip archive of the files. A line answers an example, under the number
`idx` that the unlabelled test file gives it:

| file                  | line                                               |
| --------------------- | -------------------------------------------------- |
| BoolQ, WiC            | {"idx": 0, "label": true}                          |
| CB, RTE, AX-b, AX-g   | {"idx": 0, "label": "entailment"}                  |
| COPA                  | {"idx": 0, "label": 1}                             |
| ReCoRD                | {"idx": 0, "label": "the answer's text"}           |
| WSC                   | {"idx": 0, "label": "True"}                        |
| MultiRC, by passage   | {"idx": 0, "passage": {"questions": [{"idx": 0,    |
|                       | "answers": [{"idx": 0, "label": 1}]}]}}            |
"""

import json
import operator
import os
import pathlib
import shutil
import uuid
import zipfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple


class _Task(NamedTuple):
  """The file of a task, how many examples it answers, and the labels.

  `labels` maps the label texts of `tasks.spot` and `tasks.english` to the
  leaderboard's; None where the answers are free text or choices of the row.
  `keys` are the parts of an idx, as TFDS names them; without any it is a
  number.
  """

  file: str
  count: int
  labels: Mapping[str, Any] | None
  keys: tuple[str, ...] = ()


_TRUTH = {'False': False, 'True': True, 'false': False, 'true': True}
_YES = _TRUTH | {'no': False, 'yes': True}
_ENTAILED = {
  'entailment': 'entailment',
  'not_entailment': 'not_entailment',
  'not entailment': 'not_entailment',
}
_TASKS = {
  'boolq': _Task('BoolQ', 3245, _YES),
  'cb': _Task(
    'CB', 250, {t: t for t in ('entailment', 'contradiction', 'neutral')}
  ),
  'copa': _Task('COPA', 500, None),
  'multirc': _Task(
    'MultiRC',
    9693,
    {text: int(truth) for text, truth in _YES.items()},
    ('paragraph', 'question', 'answer'),
  ),
  'record': _Task('ReCoRD', 10000, None, ('passage', 'query')),
  'rte': _Task('RTE', 3000, _ENTAILED),
  'wic': _Task('WiC', 1400, _TRUTH),
  'wsc': _Task(
    'WSC', 146, {text: str(truth) for text, truth in _TRUTH.items()}
  ),
  'axb': _Task('AX-b', 1104, _ENTAILED),
  'axg': _Task('AX-g', 356, _ENTAILED),
}
# The diagnostic sets, answered by the prompt of RTE, may be left out.
_OPTIONAL = ('axb', 'axg')
_COPA_LABELS = {'choice1': 0, 'choice2': 1}

Idx = int | Sequence[int] | Mapping[str, int]


def submission(
  folder: str | os.PathLike[str],
  predictions: Mapping[str, Sequence[tuple[Idx, str]]],
  copa_choices: Mapping[int, Sequence[str]] | None = None,
  expected: Mapping[str, Collection[Idx]] | None = None,
) -> None:
  """Writes the answers of all tasks; the folder appears whole or not at all.

  Args:
    folder: to be made; it may exist if it is empty.
    predictions: task -> (idx, answer) of every example of its test split. Tasks
      are boolq, cb, copa, multirc, record, rte, wic, wsc, and maybe axb and
      axg. An idx is a number, for multirc (paragraph, question, answer), for
      record (passage, query) or the number of the query alone; TFDS's dict
      will do for these two. An answer is a label text.
    copa_choices: idx -> the two choices, where copa is answered with the text
      of one; not needed for 'choice1' and 'choice2'.
    expected: task -> every idx that must be answered. Of a task without,
      there must be as many as the leaderboard's test split has.

  Raises:
    ValueError: an unknown or missing task, a double, missing or unknown idx,
      an answer that is no label text, or a folder that has files already.
  """
  folder = pathlib.Path(folder)
  _check_names('predictions', predictions)
  _check_names('expected', expected or {})
  missing = [t for t in _TASKS if t not in predictions and t not in _OPTIONAL]
  if missing:
    raise ValueError(
      f'predictions: expected all eight tasks, found none of '
      f'{", ".join(missing)}; the leaderboard takes no part of them.'
    )
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(
      f'folder: expected none or an empty one at {folder}, found something; '
      f'give another one, so that no old answer stays among the new.'
    )
  texts = {}
  for task, answers in predictions.items():
    labels = _labels(task, answers, copa_choices or {})
    _check_complete(task, labels, (expected or {}).get(task))
    lines = _passages(labels) if task == 'multirc' else _lines(labels)
    texts[_TASKS[task].file] = ''.join(json.dumps(x) + '\n' for x in lines)
  _write(folder, texts)


def zipped(
  folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None
) -> pathlib.Path:
  """Packs a submission folder; equal answers give equal bytes.

  Args:
    folder: that `submission` made.
    path: of the archive; by default the folder's, with `.zip` behind.

  Returns:
    the path.

  Raises:
    ValueError: a file of the eight tasks is missing.
  """
  folder = pathlib.Path(folder)
  path = pathlib.Path(path or folder.with_name(f'{folder.name}.zip'))
  files = {task: folder / f'{_TASKS[task].file}.jsonl' for task in _TASKS}
  missing = [
    file.name
    for task, file in files.items()
    if task not in _OPTIONAL and not file.is_file()
  ]
  if missing:
    raise ValueError(
      f'folder: expected a submission in {folder}, found no '
      f'{", ".join(missing)}; make it with `submission`.'
    )
  draft = path.with_name(f'.{path.name}-{uuid.uuid4().hex}')
  try:
    # Stored, not compressed: the bytes would depend on the version of zlib.
    with zipfile.ZipFile(draft, 'w', zipfile.ZIP_STORED) as archive:
      for file in files.values():
        if file.is_file():
          entry = zipfile.ZipInfo(file.name)  # its time is a constant
          entry.create_system, entry.external_attr = 3, 0o644 << 16
          archive.writestr(entry, file.read_bytes())
    os.replace(draft, path)
  finally:
    draft.unlink(missing_ok=True)
  return path


def _check_names(argument: str, tasks: Collection[str]) -> None:
  for task in tasks:
    if task not in _TASKS:
      raise ValueError(
        f'{argument}: unknown task {task!r}; the known ones are '
        f'{", ".join(_TASKS)}.'
      )


def _labels(
  task: str,
  answers: Sequence[tuple[Idx, str]],
  copa_choices: Mapping[int, Sequence[str]],
) -> dict[Any, Any]:
  """idx -> the leaderboard's label, in the order of the idx."""
  labels: dict[Any, Any] = {}
  for idx, text in answers:
    key = _key(task, idx)
    if key in labels:
      raise ValueError(f'{task}: idx {idx} is answered twice; answer it once.')
    labels[key] = _label(task, key, text, copa_choices)
  return dict(sorted(labels.items()))


def _key(task: str, idx: Idx) -> Any:
  """The idx as a number, or as numbers for multirc; that of record's query."""
  names = _TASKS[task].keys
  try:
    if not names:
      return operator.index(idx)
    if isinstance(idx, Mapping):
      numbers = tuple(operator.index(idx[name]) for name in names)
    elif task == 'record' and not isinstance(idx, Sequence):
      return operator.index(idx)
    else:
      numbers = tuple(operator.index(number) for number in idx)
    if len(numbers) != len(names):
      raise TypeError
  except (TypeError, KeyError) as error:
    wanted = f'({", ".join(names)})' if names else 'a whole number'
    raise ValueError(
      f'{task}: expected an idx that is {wanted}, as the test split has it, '
      f'found {idx!r}.'
    ) from error
  return numbers[-1] if task == 'record' else numbers


def _label(
  task: str, key: Any, text: str, copa_choices: Mapping[int, Sequence[str]]
) -> Any:
  """The leaderboard's label for the text of one answer."""
  if not isinstance(text, str) or not text.strip():
    raise ValueError(
      f'{task}: expected a text as answer to idx {key}, found {text!r}.'
    )
  if task == 'record':
    return text
  labels = _TASKS[task].labels
  if task == 'copa':
    choices = list(copa_choices.get(key, ()))
    # Two equal choices tell nothing about which of them was meant.
    given = {c: n for n, c in enumerate(choices) if choices.count(c) == 1}
    labels = _COPA_LABELS | given
  if text not in labels:
    raise ValueError(
      f'{task}: the answer {text!r} to idx {key} is no label text; the known '
      f'ones are {", ".join(map(repr, labels))}'
      + ('; pass copa_choices for others.' if task == 'copa' else '.')
    )
  return labels[text]


def _check_complete(
  task: str, labels: Mapping[Any, Any], expected: Collection[Idx] | None
) -> None:
  """Raises unless every example of the test split is answered."""
  if expected is None:
    if len(labels) != _TASKS[task].count:
      raise ValueError(
        f'{task}: expected answers to the {_TASKS[task].count} examples of the '
        f'test split, found {len(labels)}; answer each (pass expected to learn '
        f'which are not).'
      )
    return
  wanted = {_key(task, idx) for idx in expected}
  missing, unknown = sorted(wanted - set(labels)), sorted(set(labels) - wanted)
  if missing or unknown:
    raise ValueError(
      f'{task}: expected answers to the {len(wanted)} examples given, found '
      f'{len(labels)}; missing idx {_few(missing)}, unknown idx '
      f'{_few(unknown)}.'
    )


def _few(items: Sequence[Any]) -> str:
  first = ', '.join(map(str, items[:5])) or 'none'
  return f'{first} and {len(items) - 5} more' if len(items) > 5 else first


def _lines(labels: Mapping[int, Any]) -> list[dict]:
  return [{'idx': idx, 'label': label} for idx, label in labels.items()]


def _passages(labels: Mapping[tuple[int, int, int], int]) -> list[dict]:
  """The lines of MultiRC: a passage, its questions, their answers."""
  found: dict[int, dict[int, list[dict]]] = {}
  for (passage, question, answer), label in labels.items():
    questions = found.setdefault(passage, {})
    questions.setdefault(question, []).append({'idx': answer, 'label': label})
  return [
    {
      'idx': passage,
      'passage': {
        'questions': [
          {'idx': question, 'answers': answers}
          for question, answers in questions.items()
        ]
      },
    }
    for passage, questions in found.items()
  ]


def _write(folder: pathlib.Path, texts: Mapping[str, str]) -> None:
  folder.parent.mkdir(parents=True, exist_ok=True)
  draft = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
  draft.mkdir()
  try:
    for name, text in texts.items():
      (draft / f'{name}.jsonl').write_text(text, encoding='utf-8')
    draft.rename(folder)
  finally:
    shutil.rmtree(draft, ignore_errors=True)
