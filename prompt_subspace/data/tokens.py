"""Runs a task through SeqIO and collects its tokens: the TensorFlow step.

Folders and tasks of SeqIO's registries take the same path: SeqIO tokenises,
this file cuts, pads and labels. It is imported by `arrays.prepare` alone, and
only when the cache does not have the answer.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from prompt_subspace.data.arrays import Arrays
from prompt_subspace.data.seqio_tasks import seqio_task
from prompt_subspace.data.tasks import Task
from prompt_subspace.data.templates import Example, Template
from prompt_subspace.vocabulary import EOS, Vocabulary

# TensorFlow reports its build and the lack of a GPU on every start.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


class Row(NamedTuple):
  """One example: its tokens as SeqIO made them, and its texts."""

  inputs: list[int]
  targets: list[int]
  example: Example
  references: list[str]


def tokenise(
  task: Task, vocabulary: Vocabulary, request: dict
) -> tuple[dict[str, Arrays], dict]:
  """The arrays of every split, and what the record says of how they came.

  Args:
    task: a folder or the name of a task or mixture that is registered.
    vocabulary: of the backbone.
    request: max_input, max_target, splits, limit, references as in
      `arrays.prepare`.

  Returns:
    split -> Arrays, and the facts truncated, indistinct and rows of the record,
    see `TaskArrays`. For a task of SeqIO's registries, whose own preprocessors
    may cut, an input that fills max_input counts as truncated: the number is
    an upper bound.

  Raises:
    ValueError: bad data; a SeqIO task without the split, without inputs and
      targets, or with another vocabulary; choices whose tokens are equal.
  """
  read = _folder_rows if task.folder is not None else _registry_rows
  splits, facts = {}, {'truncated': {}, 'rows': {}, 'indistinct': {}}
  for split, theirs in request['splits'].items():
    try:
      rows = list(read(task, vocabulary, theirs, request))
    except OSError as error:  # SeqIO's sources may download
      raise ValueError(
        f'task {task.name!r}: expected data of split {theirs!r} that can be '
        f'read or downloaded, found {type(error).__name__}: {error}. Put it '
        'where its source looks (of TFDS the folder TFDS_DATA_DIR), or leave '
        'the task out.'
      ) from error
    if not rows:
      raise ValueError(f'task {task.name!r}: split {theirs!r} has no examples.')
    splits[split], facts['truncated'][split] = _arrays(
      rows, task, vocabulary, request
    )
    facts['indistinct'][split] = _indistinct(splits[split])
    text = json.dumps([[r.example, r.references] for r in rows])
    facts['rows'][split] = hashlib.sha256(text.encode()).hexdigest()
  return splits, facts


def _folder_rows(
  task: Task, vocabulary: Vocabulary, split: str, request: dict
) -> Iterator[Row]:
  """The rows of one file, tokenised in full by the SeqIO task made of it."""
  # SeqIO is stricter about names than file systems are.
  name = re.sub(r'[^\w.:#]', '_', task.name)
  provider = seqio_task(
    name, task.folder, task.template, vocabulary, [split], register=False
  )
  dataset = provider.get_dataset(None, split, shuffle=False)
  for features in dataset.take(request['limit'] or -1).as_numpy_iterator():
    choices = tuple(text.decode() for text in features['choices'])
    example = Example(
      features['inputs_pretokenized'].decode(),
      features['targets_pretokenized'].decode(),
      int(features['label']),
      choices or None,
    )
    yield Row(
      features['inputs'].tolist(),
      features['targets'].tolist(),
      example,
      [text.decode() for text in features['references']],
    )


def _registry_rows(
  task: Task, vocabulary: Vocabulary, split: str, request: dict
) -> Iterator[Row]:
  """The rows of a registered task or mixture."""
  import seqio

  provider = seqio.get_mixture_or_task(task.name)
  _check_provider(provider, task, vocabulary, split)
  named, options = request['references'], {'num_epochs': 1}
  if isinstance(provider, seqio.Mixture):
    if request['limit'] is None:
      raise ValueError(
        f'limit: {task.name!r} is a mixture, which repeats its tasks without '
        f'end; say how many examples of each split to draw.'
      )
    # With one epoch, SeqIO would stop at the end of the smallest task.
    extra = [named] if named else None
    options = {
      'num_epochs': None,
      'copy_pretokenized': True,
      'passthrough_features': extra,
    }
  dataset = provider.get_dataset(
    {'inputs': request['max_input'], 'targets': request['max_target']},
    split,
    shuffle=False,
    trim_output_features=False,
    **options,
  )
  dataset = dataset.take(request['limit'] or -1)
  for number, features in enumerate(dataset.as_numpy_iterator()):
    try:
      yield _registry_row(features, task.template, vocabulary, named)
    except ValueError as error:
      raise ValueError(
        f'task {task.name!r}, split {split!r}, example {number}: {error}'
      ) from error


def _registry_row(
  features: dict, template: Template, vocabulary: Vocabulary, named: str | None
) -> Row:
  texts = {}
  for name in ('inputs', 'targets'):
    text = features.get(f'{name}_pretokenized')
    # Some preprocessors make tokens without a text.
    texts[name] = (
      text.decode()
      if isinstance(text, bytes)
      else vocabulary.decode(features[name].tolist())
    )
  example = template.render(texts)
  accepted = [example.target]
  if named is not None:
    if named not in features:
      raise ValueError(
        f'references: no feature {named!r}; the features are '
        f'{", ".join(sorted(features))}.'
      )
    accepted = [text.decode() for text in np.ravel(features[named])]
  return Row(
    features['inputs'].tolist(), features['targets'].tolist(), example, accepted
  )


def _check_provider(
  provider, task: Task, vocabulary: Vocabulary, split: str
) -> None:
  """Raises unless the SeqIO task fits this library's arrays."""
  name, template = task.name, task.template
  plain = template.input == '{inputs}' and template.target == '{targets}'
  kept = all(k == v for k, v in (template.labels or {}).items())
  if not plain or not kept or template.choices is not None:
    raise ValueError(
      f'task {name!r}: a task of SeqIO brings its own text, so its template '
      f"must be Template('{{inputs}}', '{{targets}}', ...) without choices and "
      f'with label texts that are its target texts.'
    )
  if split not in provider.splits:
    raise ValueError(
      f'task {name!r} has no split {split!r}; its splits are '
      f'{", ".join(sorted(provider.splits))}. Pass splits as a mapping, such '
      f"as {{'test': 'validation'}}."
    )
  found = provider.output_features
  if not {'inputs', 'targets'} <= set(found):
    raise ValueError(
      f'task {name!r}: expected the features inputs and targets, found '
      f'{", ".join(found)}.'
    )
  for feature in ('inputs', 'targets'):
    other = found[feature].vocabulary
    if not vocabulary.reads_as(other):
      raise ValueError(
        f'task {name!r}: the vocabulary of its {feature} is {other}, that of '
        f'the backbone is {vocabulary}; register the task with the vocabulary '
        f'of the backbone (Vocabulary.seqio()).'
      )


def _arrays(
  rows: Sequence[Row], task: Task, vocabulary: Vocabulary, request: dict
) -> tuple[Arrays, dict[str, int]]:
  """Cuts and pads the rows of one split; also counts what was cut."""
  longest, longest_target = request['max_input'], request['max_target']
  exact = task.folder is not None
  inputs = [_fit(row.inputs, longest) for row in rows]
  targets = [_fit(row.targets, longest_target) for row in rows]
  choices, cut = _choices(rows, task.template, vocabulary, longest_target)
  arrays = Arrays(
    _pad(inputs),
    _pad(targets),
    np.array([row.example.label for row in rows], np.int32),
    choices,
    [row.references for row in rows],
  )
  return arrays, {
    'inputs': sum(len(r.inputs) >= longest + exact for r in rows),
    'targets': sum(len(r.targets) >= longest_target + exact for r in rows),
    'choices': cut,
  }


def _choices(
  rows: Sequence[Row], template: Template, vocabulary: Vocabulary, longest: int
) -> tuple[np.ndarray | None, int]:
  """The candidates as `Arrays.choices`, and how many of them were cut."""
  if template.label_texts is not None:
    sets = [template.label_texts]
  elif template.choices is not None:
    sets = [row.example.choices for row in rows]
  else:
    return None, 0
  tokens = [[vocabulary.encode(text) for text in texts] for texts in sets]
  cut = sum(len(ids) >= longest for ids_of_set in tokens for ids in ids_of_set)
  tokens = [[_fit(ids, longest) for ids in of_set] for of_set in tokens]
  if template.label_texts is not None:
    _check_different(template.label_texts, tokens[0], longest)
    return _pad(tokens[0]), cut
  width = max(len(ids) for ids_of_set in tokens for ids in ids_of_set)
  padded = np.zeros((len(rows), len(template.choices), width), np.int32)
  for i, ids_of_set in enumerate(tokens):
    part = _pad(ids_of_set)
    padded[i, : part.shape[0], : part.shape[1]] = part
  return padded, cut


def _check_different(
  texts: Sequence[str], tokens: Sequence[list[int]], longest: int
) -> None:
  """Label texts must stay different, or no model could choose."""
  for i, ids in enumerate(tokens):
    if ids in tokens[:i]:
      raise ValueError(
        f'the label texts {texts[tokens.index(ids)]!r} and {texts[i]!r} have '
        f'the same tokens {ids} in this vocabulary with max_target {longest}; '
        f'use other label texts, or a larger max_target if they were cut.'
      )


def _indistinct(arrays: Arrays) -> int:
  """Rows whose right choice has the same tokens as another of its choices."""
  if arrays.choices is None or arrays.choices.ndim == 2:
    return 0
  right = arrays.choices[np.arange(len(arrays.labels)), arrays.labels]
  same = (arrays.choices == right[:, None]).all(axis=2).sum(axis=1)
  return int((same > 1).sum())


def _fit(ids: list[int], longest: int) -> list[int]:
  """The ids with EOS at the end, cut to at most `longest` with it."""
  ids = ids[:-1] if ids[-1:] == [EOS] else ids
  return [*ids[: longest - 1], EOS]


def _pad(sequences: Sequence[list[int]]) -> Int[np.ndarray, 'N L']:
  """One row per sequence, as wide as the longest, zeros behind."""
  padded = np.zeros((len(sequences), max(map(len, sequences))), np.int32)
  for i, ids in enumerate(sequences):
    padded[i, : len(ids)] = ids
  return padded
