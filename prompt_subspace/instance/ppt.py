"""PPT: a prompt that is pre-trained on plain text, before any task.

The self-supervised task: is the second sentence the one that follows the first
(yes), another one of the same document (maybe), or one of another document
(no)? The recipe writes it as a task folder, like any other: a prompt is tuned
on it by gin/tune.gin, and taken as a start from its bank: by `prompt`, as a
method of any study (gin/ipt.gin), or as every source prompt (gin/spot.gin,
BANK).

Source: Gu et al. 2022, "PPT: Pre-trained Prompt Tuning for Few-shot Learning",
section 3.2 (sentence-pair classification).
"""

import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath

from prompt_subspace import deltas
from prompt_subspace.bank import store
from prompt_subspace.data import corpus
from prompt_subspace.data.orders import numbers, order
from prompt_subspace.deltas.base import Method, check_list, positive, unbound
from prompt_subspace.training import job

LABELS = ('yes', 'maybe', 'no')
TASK = {
  'input': 'first: {first} second: {second}',
  'target': '{label}',
  'labels': {label: label for label in LABELS},
  'metrics': ['accuracy'],
}
# words of a sentence that is used
SHORTEST, LONGEST = 4, 30
Pair = tuple[str, str, str]


def next_sentences(
  texts: Sequence[str],
  out: str,
  train: int = 6000,
  held_out: int = 600,
  seed: int = 0,
) -> job.Job:
  """Plans the writing of a next-sentence task from plain text.

  Args:
    texts: files, blank lines between documents.
    out: the task's folder; its name is that of the task.
    train: examples to train on, a third of each class.
    held_out: examples to validate on, and as many to test on, of documents
      that no other split has.
    seed: of the draws.

  Returns:
    The job. It leaves `task.json` and `train|validation|test.tsv`.

  Raises:
    ValueError: no files, or (when it runs) too little text.
  """
  check_list('texts', texts, of='file')
  for path in texts:
    if not pathlib.Path(path).is_file():
      raise ValueError(
        f'texts: expected a file of plain text, found no {path}.'
      )
  positive('train', train)
  positive('held_out', held_out)
  counts = {'train': train, 'validation': held_out, 'test': held_out}
  folder = pathlib.Path(out)

  def run():
    folder.mkdir(parents=True, exist_ok=True)
    documents = [s for s in map(sentences, corpus.documents(texts)) if s]
    for split, members in _divide(documents, counts, seed).items():
      pairs = list(_pairs(members, counts[split], seed, split))
      _write(folder / f'{split}.tsv', pairs)
    # last: without it the folder is no task
    job.write_json(folder / 'task.json', TASK)

  plan = f'task       {folder.name}: {json.dumps(counts)} pairs of sentences'
  return job.Job(folder, plan, {'texts': list(map(str, texts))}, run)


def prompt(source: str, length: int = 20) -> Method:
  """Prompt tuning from a stored prompt, such as that of the next-sentence task.

  Args:
    source: an entry of a bank; it is read when the method is bound.
    length: P, its prompt vectors.

  Returns:
    The method, `deltas.prompt` with start `stored`; phi = {'encoder': [P, D]}.

  Raises:
    ValueError: when it is bound, there is no such entry, it is no prompt, or
      one for another backbone; at `init`, it has another length.
  """

  def bind(setting):
    entry = store.read(epath.Path(source))
    found = entry.card['fingerprint']
    if setting.fingerprint and found != setting.fingerprint:
      raise ValueError(
        f'source: expected a prompt for the backbone {setting.fingerprint[:16]}'
        f', found {source} for {(found or "unknown")[:16]}. Tune one on the '
        'next-sentence task with this backbone (gin/ppt.gin).'
      )
    if set(entry.phi) != {'encoder'} or entry.card['method'] != 'prompt':
      raise ValueError(
        f'source: expected a prompt of the encoder, found {source} of the '
        f'method {entry.card["method"]!r} with {sorted(entry.phi)}.'
      )
    array = entry.phi['encoder']
    return deltas.prompt(length=length, start='stored', stored=array)

  return unbound('prompt', bind, {'length': length, 'source': source})


def sentences(text: str) -> list[str]:
  """Returns the sentences of a document that are neither short nor long."""
  found = re.split(r'(?<=[.!?])\s+', text)
  found = [' '.join(s.split()) for s in found]
  return [s for s in found if SHORTEST <= len(s.split()) <= LONGEST]


def _divide(documents, counts, seed):
  """Gives each split two documents of its own or more, by its share."""
  usable = [d for d in documents if len(d) > 3]
  if len(usable) < 10:
    raise ValueError(
      f'texts: expected at least 10 documents of more than three sentences, '
      f'found {len(usable)}. Give more text.'
    )
  shuffled = [usable[i] for i in order(len(usable), 'ppt', seed)]
  shares = np.cumsum(list(counts.values())) / sum(counts.values())
  ends, splits = [0], len(counts)
  for number, share in enumerate(shares, start=1):
    end = max(round(share * len(shuffled)), ends[-1] + 2)
    # two are left for each of the others
    ends.append(min(end, len(shuffled) - 2 * (splits - number)))
  parts = itertools.pairwise(ends)
  return {
    split: shuffled[first:last]
    for split, (first, last) in zip(counts, parts, strict=True)
  }


def _pairs(documents, count: int, seed: int, split: str) -> Iterator[Pair]:
  """Draws pairs, the three classes in turn."""
  for number in range(count):
    draw = numbers(4, 'ppt', seed, split, number).tolist()
    own = documents[draw[0] % len(documents)]
    at = draw[1] % (len(own) - 1)
    label = LABELS[number % 3]
    if label == 'yes':
      second = own[at + 1]
    elif label == 'maybe':
      others = [i for i in range(len(own)) if i not in (at, at + 1)]
      second = own[others[draw[2] % len(others)]]
    else:
      rest = [d for d in documents if d is not own]
      other = rest[draw[2] % len(rest)]
      second = other[draw[3] % len(other)]
    yield own[at], second, label


def _write(path: pathlib.Path, pairs: Sequence[Pair]) -> None:
  """Writes a split whole or not at all."""
  lines = ['\t'.join(('first', 'second', 'label'))]
  lines += ['\t'.join(x.replace('\t', ' ') for x in pair) for pair in pairs]
  draft = path.with_name(f'.{path.name}.{os.getpid()}')
  draft.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  os.replace(draft, path)
