"""What pre-training is fed: batches of plain text and of supervised tasks."""

import collections
import concurrent.futures
import multiprocessing
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_subspace.data import batches, corpus, mixtures
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.vocabulary import Vocabulary


class Sources(NamedTuple):
  """What batches are drawn from: plain text and, maybe, tasks.

  Attributes:
    stream: tokens of the corpus.
    vocabulary: of the backbone.
    tasks: pairs (inputs [n, L], targets [n, T]), one for each task.
    rates: how often each task is drawn.
  """

  stream: corpus.Stream
  vocabulary: Vocabulary
  tasks: list[tuple[np.ndarray, np.ndarray]]
  rates: np.ndarray


class Mix(NamedTuple):
  """Shapes and shares of the batches.

  Attributes:
    batch_size: examples per update.
    length: tokens of inputs and targets of plain text.
    task_share: share of updates that train on tasks.
    task_length: longest input of a task; longer ones are cut.
    task_target: longest target of a task.
    task_limit: K of examples-proportional mixing.
  """

  batch_size: int = 64
  length: int = 48
  task_share: float = 0.0
  task_length: int = 64
  task_target: int = 16
  task_limit: int = 4000


def draw(sources: Sources, mix: Mix, seed: int, number: int) -> dict:
  """Returns the batch of one update; a function of its arguments alone."""
  rng = np.random.default_rng((seed, number))
  if number * batches.GOLDEN % 1.0 < mix.task_share and sources.tasks:
    return draw_tasks(sources, mix, rng)
  return corpus.denoising_batch(
    sources.stream,
    sources.vocabulary,
    rng,
    size=mix.batch_size,
    length=mix.length,
  )


def draw_tasks(sources: Sources, mix: Mix, rng: np.random.Generator) -> dict:
  """Returns a batch of task examples, tasks drawn by their rates."""
  which = rng.choice(len(sources.tasks), mix.batch_size, p=sources.rates)
  rows = []
  for number in which:
    inputs, targets = sources.tasks[number]
    i = int(rng.integers(len(inputs)))
    rows.append((inputs[i], targets[i]))
  return {
    'inputs': corpus.pad([r[0] for r in rows], mix.task_length),
    'targets': corpus.pad([r[1] for r in rows], mix.task_target),
  }


def stream(
  sources: Sources,
  mix: Mix,
  seed: int,
  start: int,
  stop: int,
  workers: int = 0,
) -> Iterator[dict]:
  """Yields the batches of the updates from `start` to `stop` - 1.

  Args:
    sources: what they are drawn from.
    mix: their shapes and shares.
    seed: of the draws.
    start: number of the first update.
    stop: number after the last.
    workers: processes that draw ahead; 0 draws each batch when it is asked
      for. The batches do not depend on it.
  """
  if not workers:
    for number in range(start, stop):
      yield draw(sources, mix, seed, number)
    return
  # A process that runs JAX's threads must not be forked.
  spawn = multiprocessing.get_context('spawn')
  pool = concurrent.futures.ProcessPoolExecutor(
    workers, spawn, _receive, (sources, mix, seed)
  )
  waiting: collections.deque = collections.deque()
  try:
    for number in range(start, stop):
      waiting.append(pool.submit(_draw, number))
      if len(waiting) >= 8 * workers:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


# What the processes of `stream` draw from, sent to each of them once.
_given: dict = {}


def _receive(sources: Sources, mix: Mix, seed: int) -> None:
  _given['draw'] = (sources, mix, seed)


def _draw(number: int) -> dict:
  return draw(*_given['draw'], number)


def read_sources(
  texts: Sequence[str],
  tasks: Mapping[str, TaskArrays],
  split: str,
  vocabulary: Vocabulary,
  cache: pathlib.Path,
  limit: int,
) -> Sources:
  """Reads and tokenises what batches are drawn from."""
  pairs = [
    (t.splits[split].inputs, t.splits[split].targets) for t in tasks.values()
  ]
  counts = [len(p[0]) for p in pairs]
  rates = mixtures.rates(counts, limit) if pairs else np.zeros(0)
  stream = corpus.tokenise(texts, vocabulary, cache)
  return Sources(stream, vocabulary, pairs, rates)


def validation_batches(sources: Sources, mix: Mix) -> dict[str, dict]:
  """Returns the fixed batches that the validation losses are taken on."""
  whole = mix._replace(batch_size=128)
  out = {
    name: corpus.denoising_batch(
      sources.stream,
      sources.vocabulary,
      np.random.default_rng(seed),
      size=128,
      length=mix.length,
      span_share=share,
    )
    for name, seed, share in (('spans', 7, 1.0), ('prefix', 8, 0.0))
  }
  if sources.tasks:
    out['tasks'] = draw_tasks(sources, whole, np.random.default_rng(9))
  return out
