"""A task as token arrays: prepared once by SeqIO, then loaded without it.

A prepared task is a folder with `arrays.npz`, `references.json` and
`record.json`. It can be moved to a machine without TensorFlow.
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prompt_subspace.data import files
from prompt_subspace.data.tasks import (
  PLAIN,
  Task,
  ensure_registered,
  identity,
  source,
)
from prompt_subspace.data.templates import Template
from prompt_subspace.vocabulary import EOS, Vocabulary

# Raised when the same request would be answered with other arrays.
FORMAT = 1


class Arrays(NamedTuple):
  """One split as token arrays; every row ends with EOS and zero padding.

  Attributes:
    inputs: token ids, as wide as the split's longest input.
    targets: token ids, as wide as the split's longest target.
    labels: index of the right choice; -1 where there are none.
    choices: candidates, one set for all rows [C, T2] or one per row
      [N, C, T2] (slots that a row does not use are all zero), or None.
    references: accepted target texts of each row.
  """

  inputs: Int[np.ndarray, 'N L']
  targets: Int[np.ndarray, 'N T']
  labels: Int[np.ndarray, ' N']
  choices: Int[np.ndarray, 'C T2'] | Int[np.ndarray, 'N C T2'] | None
  references: list[list[str]]


class TaskArrays(NamedTuple):
  """A task ready for training.

  Attributes:
    name: of the task.
    kind: classification, multiple_choice, generation or regression.
    metrics: names, see `prompt_subspace.evaluation.metrics`.
    splits: 'train', 'validation', 'test' -> Arrays.
    label_texts: of a classification, in the order of the labels, else None.
    record: what the arrays were made from: `request` (task, vocabulary sha256,
      template hash, lengths, checksum of the source files) and `key`, its
      sha256; per split `counts`, `truncated` (how many inputs, targets and
      choices were cut), `indistinct` (rows whose right choice reads the same
      as another one, by the data or in this vocabulary), `rows` (sha256 over
      the texts, the same for every vocabulary) and `checksums` (sha256 over
      the arrays); `checksum`, over all of these.
  """

  name: str
  kind: str
  metrics: tuple[str, ...]
  splits: dict[str, Arrays]
  label_texts: tuple[str, ...] | None
  record: dict


def prepare(
  task: Task,
  vocabulary: Vocabulary,
  cache_dir: str | pathlib.Path,
  max_input: int = 512,
  max_target: int = 64,
  splits: Sequence[str] | Mapping[str, str] = files.SPLITS,
  limit: int | None = None,
  label_texts: Sequence[str] | None = None,
  references: str | None = None,
  refresh: bool = False,
) -> TaskArrays:
  """Token arrays of a task, from the cache or through SeqIO.

  Only the first call for a request imports TensorFlow. The cache notices new
  files, vocabularies, templates and lengths. It cannot notice that a task of
  SeqIO's registries was redefined under its name: then pass refresh=True.

  Args:
    task: see `tasks.find`.
    vocabulary: of the backbone.
    cache_dir: a folder; the prepared task is a folder in it.
    max_input: longest input in tokens, EOS included; longer ones are cut.
    max_target: longest target or choice in tokens, EOS included.
    splits: names; or, where a SeqIO task names or lacks them otherwise, our
      name -> its name, such as {'train': 'train', 'test': 'validation'}.
    limit: at most so many examples per split, the first ones. A mixture of
      SeqIO has no end, so it needs one.
    label_texts: for a SeqIO task: its target texts, which makes it a
      classification.
    references: for a SeqIO task: its feature that lists accepted target
      texts, such as 'answers', or, where its template has choices, the
      candidates of each row. Tasks of `seqio_tasks.text_task` need none named.
    refresh: prepare again even if the cache has it.

  Raises:
    ValueError: bad data, see `files.examples` and `tokens`; a cached folder
      that is damaged.
  """
  splits = (
    dict(splits) if isinstance(splits, Mapping) else {s: s for s in splits}
  )
  _check_lengths(max_input, max_target, limit, splits)
  task = _with_labels(task, label_texts, references)
  references = references or _lists(task)
  request = {
    'format': FORMAT,
    'task': task.name,
    'kind': task.template.kind,
    'metrics': list(task.template.metrics),
    'label_texts': task.template.label_texts
    and list(task.template.label_texts),
    'vocabulary': vocabulary.sha256,
    'extra_ids': vocabulary.extra_ids,
    'template': task.template.hash,
    'max_input': max_input,
    'max_target': max_target,
    'splits': splits,
    'limit': limit,
    'references': references,
    'source': source(task, list(splits.values())),
  }
  key = _sha256(request)
  readable = re.sub(r'\W', '_', task.name)
  folder = pathlib.Path(cache_dir) / f'{readable}-{key[:16]}'
  if folder.is_dir() and not refresh:
    return _load_as(folder, key)
  ensure_registered(task, vocabulary)
  # The one module that runs TensorFlow.
  from prompt_subspace.data import tokens

  # A SeqIO task brings its own text: the candidates too are a feature of it,
  # not made by the template.
  listed = task.folder is None and task.template.choices and references
  made, facts = tokens.tokenise(
    _without_choices(task) if listed else task, vocabulary, request
  )
  if listed:
    for split, arrays in made.items():
      made[split], counts = _ranked(arrays, vocabulary, max_target, split)
      facts['truncated'][split]['choices'] = counts['truncated']
      facts['indistinct'][split] = counts['indistinct']
  result = assemble(request, made, facts)
  # Another process may have been quicker, and others may be reading its work.
  if refresh or not folder.is_dir():
    save(result, folder)
  return result


def assemble(
  request: dict, splits: dict[str, Arrays], facts: dict
) -> TaskArrays:
  """A task from its splits, with the record that `load` will hold it to.

  Args:
    request: everything that determines the arrays, as JSON values; at least
      task, kind, metrics and label_texts.
    splits: the arrays.
    facts: what else the record says.
  """
  record = facts | {
    'request': request,
    'key': _sha256(request),
    'counts': {split: len(arrays.labels) for split, arrays in splits.items()},
    'checksums': {split: checksum(arrays) for split, arrays in splits.items()},
  }
  label_texts = request['label_texts']
  return TaskArrays(
    name=request['task'],
    kind=request['kind'],
    metrics=tuple(request['metrics']),
    splits=splits,
    label_texts=None if label_texts is None else tuple(label_texts),
    record=record | {'checksum': _sha256(record)},
  )


def save(task: TaskArrays, folder: str | pathlib.Path) -> None:
  """Writes a prepared task; the folder appears whole or not at all.

  Several processes may write one folder at once: one of theirs is there then.
  """
  folder = pathlib.Path(folder)
  folder.parent.mkdir(parents=True, exist_ok=True)
  # Beside the folder, so that the rename stays within one file system.
  part = folder.with_name(f'.{folder.name}-{uuid.uuid4().hex}')
  olds = []
  part.mkdir()
  try:
    np.savez_compressed(part / 'arrays.npz', **_flat(task.splits))
    _write_json(
      part / 'references.json',
      {split: arrays.references for split, arrays in task.splits.items()},
    )
    _write_json(part / 'record.json', task.record)
    while not _moved(part, folder):
      # there is an older one, or another process was faster
      olds.append(part.with_name(f'{part.name}-old{len(olds)}'))
      with contextlib.suppress(FileNotFoundError):
        folder.rename(olds[-1])
  finally:
    for left in (part, *olds):
      shutil.rmtree(left, ignore_errors=True)


def _moved(part: pathlib.Path, folder: pathlib.Path) -> bool:
  """Moves a folder; returns False if another is in the way."""
  try:
    part.rename(folder)
  except OSError as error:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
      return False
    raise
  return True


def load(folder: str | pathlib.Path) -> TaskArrays:
  """Reads a prepared task; needs no TensorFlow and no source files.

  Raises:
    ValueError: a file is missing or unreadable, or the arrays are not those
      that the record describes.
  """
  folder = pathlib.Path(folder)
  try:
    record = json.loads((folder / 'record.json').read_text(encoding='utf-8'))
    texts = json.loads((folder / 'references.json').read_text(encoding='utf-8'))
    with np.load(folder / 'arrays.npz', allow_pickle=False) as flat:
      flat = dict(flat)
    splits = {
      split: Arrays(
        flat[f'{split}/inputs'],
        flat[f'{split}/targets'],
        flat[f'{split}/labels'],
        flat.get(f'{split}/choices'),
        texts[split],
      )
      for split in record['counts']
    }
    derived = ('request', 'key', 'counts', 'checksums', 'checksum')
    facts = {k: v for k, v in record.items() if k not in derived}
    task = assemble(record['request'], splits, facts)
  except Exception as error:  # json, zip, NumPy and the system have their own
    raise ValueError(
      f'{folder}: expected a prepared task (arrays.npz, references.json, '
      f'record.json), found {type(error).__name__}: {error}; delete the folder '
      f'and prepare the task again.'
    ) from error
  if task.record != record:
    raise ValueError(
      f'{folder}: the arrays are not those that record.json describes '
      f'(checksums {record["checksums"]}, found {task.record["checksums"]}); '
      f'delete the folder and prepare the task again.'
    )
  return task


def checksum(arrays: Arrays) -> str:
  """sha256 in hex over one split: names, shapes, numbers and references."""
  whole = hashlib.sha256()
  for name, value in arrays._asdict().items():
    if isinstance(value, np.ndarray):
      whole.update(f'{name} {value.shape}'.encode())
      whole.update(np.ascontiguousarray(value, '<i4').tobytes())
  whole.update(_sha256(arrays.references).encode())
  return whole.hexdigest()


def _load_as(folder: pathlib.Path, key: str) -> TaskArrays:
  task = load(folder)
  if task.record['key'] != key:
    raise ValueError(
      f'{folder}: expected the prepared task with key {key}, found '
      f'{task.record["key"]}; delete the folder and prepare the task again.'
    )
  return task


def _with_labels(
  task: Task, label_texts: Sequence[str] | None, references: str | None
) -> Task:
  """The task with its template completed from prepare's arguments."""
  if task.folder is not None and (label_texts or references):
    raise ValueError(
      f'label_texts, references: these describe tasks of SeqIO; the labels of '
      f'{task.name!r} belong into its template.'
    )
  if not label_texts:
    return task
  if task.template != PLAIN:
    raise ValueError(
      f'label_texts: {task.name!r} has a registered template already; put the '
      f'labels there.'
    )
  labels = {text: text for text in label_texts}
  return task._replace(template=Template('{inputs}', '{targets}', labels))


def _lists(task: Task) -> str | None:
  """The feature of a task of `text_task` that `references` names."""
  if identity(task) is None:
    return None
  lists = {'generation': 'references', 'multiple_choice': 'choices'}
  return lists.get(task.template.kind)


def _without_choices(task: Task) -> Task:
  template = Template(task.template.input, task.template.target)
  return task._replace(template=template)


def _ranked(
  arrays: Arrays, vocabulary: Vocabulary, longest: int, split: str
) -> tuple[Arrays, dict[str, int]]:
  """Turns the references of each row, its candidates, into choices.

  Also counts the candidates that were cut and the rows whose right choice has
  the tokens of another one.
  """
  texts = [[t for t in row if t.strip()] for row in arrays.references]
  whole = [[[*vocabulary.encode(t), EOS] for t in row] for row in texts]
  tokens = [[[*i[:-1][: longest - 1], EOS] for i in row] for row in whole]
  rights = [[i for i in row.tolist() if i] for row in arrays.targets]
  for n, (right, row) in enumerate(zip(rights, tokens, strict=True)):
    if right not in row:
      raise ValueError(
        f'split {split!r}, example {n}: the target '
        f'{vocabulary.decode(right)!r} is none of the choices {texts[n]}.'
      )
  labels = [row.index(i) for i, row in zip(rights, tokens, strict=True)]
  most, width = max(map(len, tokens)), max(len(i) for r in tokens for i in r)
  choices = np.zeros((len(tokens), most, width), np.int32)
  for n, row in enumerate(tokens):
    for c, ids in enumerate(row):
      choices[n, c, : len(ids)] = ids
  ranked = arrays._replace(
    labels=np.array(labels, np.int32),
    choices=choices,
    references=[[t[i]] for t, i in zip(texts, labels, strict=True)],
  )
  return ranked, {
    'truncated': sum(len(i) > longest for row in whole for i in row),
    'indistinct': sum(
      row.count(i) > 1 for i, row in zip(rights, tokens, strict=True)
    ),
  }


def _check_lengths(
  max_input: int, max_target: int, limit: int | None, splits: Mapping[str, str]
) -> None:
  for name, value in (('max_input', max_input), ('max_target', max_target)):
    if value < 2:
      raise ValueError(
        f'{name}: expected at least 2 tokens (one and EOS), found {value}.'
      )
  if limit is not None and limit < 1:
    raise ValueError(f'limit: expected 1 or more examples, found {limit}.')
  if not splits:
    raise ValueError('splits: expected at least one split, found none.')


def _flat(splits: Mapping[str, Arrays]) -> dict[str, np.ndarray]:
  return {
    f'{split}/{name}': value
    for split, arrays in splits.items()
    for name, value in arrays._asdict().items()
    if isinstance(value, np.ndarray)
  }


def _write_json(path: pathlib.Path, value: object) -> None:
  path.write_text(json.dumps(value, indent=1), encoding='utf-8')


def _sha256(value: object) -> str:
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
