"""Training that runs nothing: results that only the names of rows decide."""

import csv
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.training import stack
from prompt_subspace.training.spec import RowSpec, Settings


class Asked(NamedTuple):
  """A row that was to be trained, and the number of its stack."""

  row: RowSpec
  task: TaskArrays
  settings: Settings
  algorithm: str
  stack: int


def score(name: str, seed: int = 0) -> float:
  """A number between 0 and 100 that only the name decides."""
  return zlib.crc32(f'{name} {seed}'.encode()) % 10001 / 100


def phi(row: RowSpec, seed: int) -> Any:
  """A tree like the row's phi that only its name decides."""
  random = np.random.default_rng((zlib.crc32(row.id.encode()), seed))
  return jax.tree.map(
    lambda x: random.standard_normal(x.shape).astype(np.float32), row.phi
  )


def result(row: RowSpec, settings: Settings) -> stack.RowResult:
  """What comes of a row.

  Its score(id, 1) is the validation score, score(id, 2) the test score, and
  score(id, 3) the validation score of the evaluation before the last.
  """
  return stack.RowResult(
    validation=score(row.id, 1),
    best_step=2,
    test={'accuracy': score(row.id, 2), 'score': score(row.id, 2)},
    phi=phi(row, 3),
    stopped=-1,
    seconds=1.0,
    padding=0.25,
    history=[
      {'step': 2, 'loss': 1.5, 'validation': score(row.id, 3)},
      {'step': 4, 'loss': 1.0, 'validation': score(row.id, 1)},
    ],
    embedding=phi(row, 4) if settings.embedding_step else None,
  )


def training(
  monkeypatch,
  result: Callable[[RowSpec, Settings], stack.RowResult] = result,
) -> list[Asked]:
  """Replaces the training of stacks; returns the rows as they are asked for."""
  asked: list[Asked] = []

  def train_stack(
    engine,
    backbone,
    optimizer,
    specs,
    tasks,
    settings,
    folder,
    description,
    constants,
  ):
    assert {s.task for s in specs} == set(tasks), 'data of its rows alone'
    number = asked[-1].stack + 1 if asked else 0
    asked.extend(
      Asked(s, tasks[s.task], settings, engine.algorithm.name, number)
      for s in specs
    )
    return [result(s, settings) for s in specs]

  monkeypatch.setattr(stack, 'train_stack', train_stack)
  return asked


def line(
  method: str,
  seed: int,
  rate: float,
  validation: float,
  test: float,
  task: str = 'reviews',
) -> dict[str, Any]:
  """A line of results.csv."""
  return {
    'task': task,
    'method': method,
    'seed': seed,
    'rate': rate,
    'steps': 10,
    'best_step': 5,
    'validation': validation,
    'test': test,
    'majority': 52.5,
    'seconds': 1.0,
    'trained_parameters': 7,
    'padding': 0.1,
  }


def table(folder, name: str = 'results.csv') -> list[dict[str, str]]:
  """The lines of a table of a study."""
  with open(folder / name, encoding='utf-8') as file:
    return list(csv.DictReader(file))
