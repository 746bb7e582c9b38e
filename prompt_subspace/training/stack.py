"""Trains one stack of rows to the end: batches, evaluation, checkpoints.

Killed at any moment and started again, a stack goes on from its last
checkpoint and ends with the same numbers: what a row sees at a step depends on
its key and the step alone.
"""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from prompt_subspace import trees
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.evaluation import predict
from prompt_subspace.training import feed, hosts, journal
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.checkpoints import Checkpoints
from prompt_subspace.training.engine import Engine
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.training.progress import Progress
from prompt_subspace.training.spec import RowSpec, Settings


class RowResult(NamedTuple):
  """What came of one run.

  Attributes:
    validation: the best validation score, NaN if there was none.
    best_step: after how many updates.
    test: every test metric of the chosen phi, and their mean as `score`; NaN
      without a test split.
    phi: the chosen phi: that of the best step, or the last one where nothing
      was validated.
    stopped: the update at which the loss was not finite, -1 if it never was.
    seconds: the stack's time divided by its rows.
    padding: share of padding in the inputs it was trained on.
    history: of each evaluation, its step and the numbers then: mean training
      `loss` since the one before, `validation`, and whatever the algorithm
      reports.
    embedding: phi after `embedding_step` updates, if that was asked for.
    predictions: the chosen phi's answers to the test examples, in order.
  """

  validation: float
  best_step: int
  test: dict[str, float]
  phi: Any
  stopped: int
  seconds: float
  padding: float
  history: list[dict[str, float]]
  embedding: Any = None
  predictions: Sequence[str] = ()


class Stack(NamedTuple):
  """A stack at work: everything but its state."""

  engine: Engine
  backbone: Backbone
  frozen: Frozen
  specs: Sequence[RowSpec]
  tasks: Mapping[str, TaskArrays]
  settings: Settings
  feed: feed.Feed
  rates: Array
  keys: Array


def train_stack(
  engine: Engine,
  backbone: Backbone,
  optimizer: Optimizer,
  specs: Sequence[RowSpec],
  tasks: Mapping[str, TaskArrays],
  settings: Settings,
  folder: str | pathlib.Path | None = None,
  description: str = '',
  constants: Any = None,
) -> list[RowResult]:
  """Trains rows to the end and evaluates each at its best step.

  Args:
    engine: compiled functions of the rows' method.
    backbone: frozen model.
    optimizer: the one the engine was made with.
    specs: the rows.
    tasks: arrays of every task that a row names.
    settings: as the engine was made with.
    folder: for checkpoints and TensorBoard; None keeps none. The checkpoints
      stay until `remove_checkpoints`.
    description: what the progress line begins with.
    constants: of the rows' method, where the engine was made with others of
      the same shapes; None: those of the engine's method.

  Returns:
    A result for each row, in order.
  """
  began = time.monotonic()
  folder = None if folder is None else pathlib.Path(folder)
  mesh = backbone.mesh
  # a mesh divides its rows: the last one is run again, and not looked at
  more = meshes.padded(mesh, len(specs)) - len(specs)
  filled = [*specs, *[specs[-1]] * more]
  data = feed.make_feed(
    engine.method, engine.algorithm, backbone, filled, tasks, settings
  )
  if constants is None:
    constants = engine.method.constants
  frozen = Frozen(backbone.weights, meshes.put(mesh, constants))
  numbers = _numbers(mesh, filled)
  stack = Stack(
    engine, backbone, frozen, specs, tasks, settings, data, *numbers
  )
  state = stack_rows.start([s.phi for s in filled], optimizer)
  state = meshes.put_state(mesh, state, backbone.weights)
  at, before, embeddings = 0, 0.0, None
  with contextlib.ExitStack() as exits:
    checkpoints = None
    if folder is not None:
      checkpoints = Checkpoints(folder / 'checkpoints')
      exits.callback(checkpoints.close)
      stored = checkpoints.restore(_snapshot(stack, state, 0, 0.0))
      if stored:
        state = _state(stack, stored[1]['state'])
        at, before = int(stored[1]['step']), float(stored[1]['seconds'])
    progress = exits.enter_context(
      Progress(
        settings.steps,
        description,
        folder / 'tensorboard' if folder and hosts.leads() else None,
        start=at,
      )
    )
    saved, past = time.monotonic(), journal.history(folder, at)
    while at < settings.steps:
      until = min(settings.steps, at + settings.evaluate_every)
      state, numbers = _advance(stack, state, at, until)
      scores = _validate(stack, state.phi)
      state = stack_rows.keep_best(state, np.pad(scores, (0, more)), until)
      past[until] = numbers | {'validation': scores}
      journal.append(folder, until, past[until])
      if until == settings.embedding_step:
        embeddings = stack_rows.to_rows(state.phi)[: len(specs)]
        # kept before any checkpoint that lies behind it
        journal.write_embeddings(folder, embeddings)
      examples = (until - at) * data.examples
      progress.update(until, examples, _scalars(specs, past[until]))
      at, now = until, time.monotonic()
      late = now - saved > settings.checkpoint_seconds
      if checkpoints and hosts.agree(late):
        seconds = before + now - began
        checkpoints.save(at, _snapshot(stack, state, at, seconds))
        saved = now
    results = _results(stack, state, before + time.monotonic() - began, past)
    if settings.embedding_step is None:
      return results
    kept = embeddings or journal.read_embeddings(folder, len(specs))
    return [r._replace(embedding=e) for r, e in zip(results, kept, strict=True)]


def remove_checkpoints(folder: str | pathlib.Path) -> None:
  """Removes the checkpoints of a stack whose results are stored."""
  folder = pathlib.Path(folder)
  shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
  journal.remove(folder)


def _numbers(mesh, specs: Sequence[RowSpec]) -> tuple[Array, Array]:
  """Rates and keys of rows."""
  rates = np.asarray([s.rate for s in specs], np.float32)
  names = [stack_rows.row_key(s.seed, s.id) for s in specs]
  keys = jnp.stack([stack_rows.random_key(name) for name in names])
  return meshes.put(mesh, rates, 'row'), meshes.put_keys(mesh, keys)


def _snapshot(
  stack: Stack, state: stack_rows.State, at: int, seconds: float
) -> dict:
  """What a checkpoint holds: no row twice, whatever the mesh."""
  mesh, rows = stack.backbone.mesh, np.arange(len(stack.specs))
  return {
    'state': meshes.take_rows(mesh, state, rows, stack.frozen.weights),
    'step': np.asarray(at),
    'seconds': np.asarray(seconds, np.float64),
  }


def _state(stack: Stack, kept: stack_rows.State) -> stack_rows.State:
  """The state of a checkpoint, with as many rows as the mesh needs."""
  rows = np.minimum(np.arange(len(stack.rates)), len(stack.specs) - 1)
  return meshes.take_rows(stack.backbone.mesh, kept, rows, stack.frozen.weights)


def _advance(stack: Stack, state: stack_rows.State, at: int, until: int):
  """Runs the updates at..until.

  Returns:
    The state, and {name: a number for each row}: means over the updates, and
    what the algorithm's probe finds behind the last.
  """
  found = []
  for number in range(at, until):
    batch = stack.feed.batch(number)
    state, metrics = stack.engine.step(
      state, stack.frozen, batch, stack.rates, stack.keys, number
    )
    found.append(metrics)
  means = jax.tree.map(lambda *xs: np.stack(xs).mean(axis=0), *found)
  means.pop('weight', None)
  if stack.engine.probe:
    seen = stack.engine.probe(state.phi, stack.frozen, batch, stack.keys, until)
    means |= jax.tree.map(np.asarray, seen)
  return state, {n: x[: len(stack.specs)] for n, x in means.items()}


def _answers(
  stack: Stack, phi: Any, split: str, examples: int | None
) -> list[list[str]]:
  """Returns each row's predictions on a split of its own task, if it has it."""
  out: list = [[]] * len(stack.specs)
  members: dict[str, list[int]] = {}
  for i, spec in enumerate(stack.specs):
    members.setdefault(spec.task, []).append(i)
  for name, rows in members.items():
    task = stack.tasks[name]
    if split not in task.splits:
      continue
    predictions = predict.predict(
      stack.engine.predictor,
      stack.frozen,
      phi,
      rows,
      task,
      split,
      stack.feed.held_out[name, split],
      stack.backbone.vocabulary,
      stack.backbone.config.vocab_size,
      examples=examples,
      batch_size=stack.settings.evaluation_batch,
      buckets=stack.settings.buckets,
      widths=stack.settings.widths,
    )
    for i, texts in zip(rows, predictions, strict=True):
      out[i] = texts
  return out


def _scores(stack: Stack, split: str, answers: Sequence[list[str]]):
  """Returns the metrics of each row's predictions."""
  tasks = [stack.tasks[spec.task] for spec in stack.specs]
  return [
    predict.score(task, split, texts)
    if split in task.splits
    else {'score': float('nan')}
    for task, texts in zip(tasks, answers, strict=True)
  ]


def _validate(stack: Stack, phi: Any) -> np.ndarray:
  """Scores every row on its validation split."""
  count = stack.settings.validation_examples
  answers = _answers(stack, phi, 'validation', count)
  found = _scores(stack, 'validation', answers)
  return np.array([s['score'] for s in found], np.float32)


def _scalars(specs, numbers) -> dict[str, float]:
  """Scalars for the progress line and TensorBoard, by row."""
  losses = numbers['loss'][np.isfinite(numbers['loss'])]
  out = {'loss': float(losses.mean()) if len(losses) else float('nan')}
  for name, values in numbers.items():
    for spec, value in zip(specs, values, strict=True):
      out[f'{name}/{spec.id}'] = float(value)
  return out


def _results(
  stack: Stack, state: stack_rows.State, seconds: float, past
) -> list[RowResult]:
  validation, best_steps, stopped = meshes.fetch(
    (state.best_score, state.best_step, state.stopped)
  )
  validated = best_steps > 0
  last = np.where(stopped < 0, stack.settings.steps, stopped)
  chosen = stack_rows.choose(validated, state.best, state.phi)
  answers = _answers(stack, chosen, 'test', stack.settings.test_examples)
  tests = _scores(stack, 'test', answers)
  phis = stack_rows.to_rows(chosen)
  return [
    RowResult(
      validation=float(validation[i]) if validated[i] else float('nan'),
      best_step=int(best_steps[i] if validated[i] else last[i]),
      test=tests[i],
      phi=phis[i],
      stopped=int(stopped[i]),
      seconds=seconds / len(stack.specs),
      padding=stack.feed.padding[i],
      history=[
        {'step': at, **{n: float(v[i]) for n, v in numbers.items()}}
        for at, numbers in past.items()
      ],
      predictions=answers[i],
    )
    for i in range(len(stack.specs))
  ]


def state_bytes(phi: Any, optimizer: Optimizer, rows: int) -> int:
  """Returns the bytes of a stack's state: phi, best phi, optimiser state."""
  shapes = jax.eval_shape(lambda p: stack_rows.start([p], optimizer), phi)
  return rows * trees.nbytes(shapes)
