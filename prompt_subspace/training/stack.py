"""Trains one stack of rows to the end: batches, evaluation, checkpoints.

Killed at any moment and started again, a stack goes on from its last
checkpoint and ends with the same numbers: what a row sees at a step depends on
its key and the step alone.
"""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import forward
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Method
from prompt_subspace.evaluation import predict
from prompt_subspace.training import feed
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.checkpoints import Checkpoints
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.training.progress import Progress
from prompt_subspace.training.spec import RowSpec, Settings


class RowResult(NamedTuple):
  """What came of one run.

  Attributes:
    validation: the best validation score, NaN if there was none.
    best_step: after how many updates.
    test: every test metric of the chosen phi, and their mean as `score`.
    phi: the chosen phi.
    stopped: the update at which the loss was not finite, -1 if it never was.
    seconds: the stack's time divided by its rows.
    padding: share of padding in the inputs it was trained on.
    embedding: phi after `embedding_step` updates, if that was asked for.
  """

  validation: float
  best_step: int
  test: dict[str, float]
  phi: Any
  stopped: int
  seconds: float
  padding: float
  embedding: Any = None


class Engine(NamedTuple):
  """The compiled functions of one method, shared by all of its stacks."""

  method: Method
  step: Callable
  predictor: predict.Predictor


def make_engine(
  backbone: Backbone,
  method: Method,
  optimizer: Optimizer,
  settings: Settings,
  phi: Any,
) -> Engine:
  """Prepares training and evaluation of a method; compiles on first use.

  Args:
    backbone: frozen model; dropout is that of its configuration.
    method: what is trained.
    optimizer: rate -> transform.
    settings: of the rows.
    phi: one of its trees, for the shapes.
  """
  config = backbone.config
  delta = jax.eval_shape(lambda p: method.expand(p, {}), phi)
  prompt = trees.flatten(delta).get('encoder/prompt')

  def objective_of(frozen):
    def run(delta, batch, key):
      key = key if config.dropout_rate > 0 else None
      return forward.logits(config, frozen, delta, batch, key)

    return objectives.task_loss(run, method.expand)

  step = stack_rows.make_step(
    objective_of,
    optimizer,
    chunk=settings.chunk,
    microbatch=settings.microbatch,
    extra=0 if prompt is None else prompt.shape[-2],
    width=config.emb_dim,
  )
  predictor = predict.make_predictor(config, method.expand, settings.chunk)
  return Engine(method, step, predictor)


class Stack(NamedTuple):
  """A stack at work: everything but its state."""

  engine: Engine
  backbone: Backbone
  specs: Sequence[RowSpec]
  tasks: Mapping[str, TaskArrays]
  settings: Settings
  feed: feed.Feed


def train_stack(
  engine: Engine,
  backbone: Backbone,
  optimizer: Optimizer,
  specs: Sequence[RowSpec],
  tasks: Mapping[str, TaskArrays],
  settings: Settings,
  folder: str | pathlib.Path | None = None,
  description: str = '',
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

  Returns:
    A result for each row, in order.
  """
  began = time.monotonic()
  data = feed.make_feed(engine.method, backbone, specs, tasks, settings)
  stack = Stack(engine, backbone, specs, tasks, settings, data)
  state = stack_rows.start([s.phi for s in specs], optimizer)
  at, before, embeddings = 0, 0.0, None
  with contextlib.ExitStack() as exits:
    checkpoints = None
    if folder is not None:
      checkpoints = Checkpoints(pathlib.Path(folder) / 'checkpoints')
      exits.callback(checkpoints.close)
      stored = checkpoints.restore(_snapshot(state, 0, 0.0))
      if stored:
        state, at = stored[1]['state'], int(stored[1]['step'])
        before = float(stored[1]['seconds'])
    progress = exits.enter_context(
      Progress(
        settings.steps,
        description,
        pathlib.Path(folder) / 'tensorboard' if folder else None,
        start=at,
      )
    )
    saved = time.monotonic()
    while at < settings.steps:
      until = min(settings.steps, at + settings.evaluate_every)
      state, losses = _advance(stack, state, at, until)
      scores = _validate(stack, state.phi)
      state = stack_rows.keep_best(state, jnp.asarray(scores), until)
      if until == settings.embedding_step:
        embeddings = stack_rows.to_rows(state.phi)
        # kept before any checkpoint that lies behind it
        _write_embeddings(folder, embeddings)
      examples = (until - at) * len(specs) * settings.batch_size
      progress.update(until, examples, _scalars(specs, losses, scores))
      at, now = until, time.monotonic()
      if checkpoints and now - saved > settings.checkpoint_seconds:
        checkpoints.save(at, _snapshot(state, at, before + now - began))
        saved = now
    results = _results(stack, state, before + time.monotonic() - began)
    if settings.embedding_step is None:
      return results
    kept = embeddings or _read_embeddings(folder, len(specs))
    return [r._replace(embedding=e) for r, e in zip(results, kept, strict=True)]


def remove_checkpoints(folder: str | pathlib.Path) -> None:
  """Removes the checkpoints of a stack whose results are stored."""
  folder = pathlib.Path(folder)
  shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
  (folder / EMBEDDINGS).unlink(missing_ok=True)


EMBEDDINGS = 'embeddings.safetensors'


def _write_embeddings(folder, phis: Sequence[Any]) -> None:
  """Keeps the embeddings of a stack for the case that it is interrupted."""
  if folder is None:
    return
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  flat = {
    f'{i}/{path}': np.ascontiguousarray(x)
    for i, phi in enumerate(phis)
    for path, x in trees.flatten(phi).items()
  }
  draft = folder / f'.{EMBEDDINGS}.{os.getpid()}'
  safetensors_numpy.save_file(flat, draft)
  os.replace(draft, folder / EMBEDDINGS)


def _read_embeddings(folder, count: int) -> list[Any]:
  flat = safetensors_numpy.load_file(pathlib.Path(folder) / EMBEDDINGS)
  held = trees.unflatten(flat)
  return [held[str(i)] for i in range(count)]


def _snapshot(state: stack_rows.State, at: int, seconds: float) -> dict:
  """What a checkpoint holds."""
  return {
    'state': state,
    'step': np.asarray(at),
    'seconds': np.asarray(seconds, np.float64),
  }


def _advance(stack: Stack, state: stack_rows.State, at: int, until: int):
  """Runs the updates at..until; returns the state and each row's mean loss."""
  rates = jnp.asarray([s.rate for s in stack.specs], jnp.float32)
  keys = jnp.stack(
    [
      stack_rows.random_key(stack_rows.row_key(s.seed, s.id))
      for s in stack.specs
    ]
  )
  losses = []
  for number in range(at, until):
    state, metrics = stack.engine.step(
      state,
      stack.backbone.weights,
      stack.feed.batch(number),
      rates,
      keys,
      number,
    )
    losses.append(metrics['loss'])
  return state, np.stack(losses).mean(axis=0)


def _scores(stack: Stack, phi: Any, split: str, examples: int | None):
  """Returns each row's metrics on a split of its own task."""
  out: list = [None] * len(stack.specs)
  members: dict[str, list[int]] = {}
  for i, spec in enumerate(stack.specs):
    members.setdefault(spec.task, []).append(i)
  for name, rows in members.items():
    task = stack.tasks[name]
    if split not in task.splits:
      for i in rows:
        out[i] = {'score': float('nan')}
      continue
    predictions = predict.predict(
      stack.engine.predictor,
      stack.backbone.weights,
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
      out[i] = predict.score(task, split, texts)
  return out


def _validate(stack: Stack, phi: Any) -> np.ndarray:
  """Scores every row on its validation split."""
  count = stack.settings.validation_examples
  found = _scores(stack, phi, 'validation', count)
  return np.array([s['score'] for s in found], np.float32)


def _scalars(specs, losses, scores) -> dict[str, float]:
  """Scalars for the progress line and TensorBoard, by row."""
  going = losses[np.isfinite(losses)]
  out = {'loss': float(going.mean()) if len(going) else float('nan')}
  for spec, loss, value in zip(specs, losses, scores, strict=True):
    out[f'loss/{spec.id}'] = float(loss)
    out[f'validation/{spec.id}'] = float(value)
  return out


def _results(
  stack: Stack, state: stack_rows.State, seconds: float
) -> list[RowResult]:
  tests = _scores(stack, state.best, 'test', stack.settings.test_examples)
  validation = np.asarray(state.best_score)
  best_steps, stopped = np.asarray(state.best_step), np.asarray(state.stopped)
  phis = stack_rows.to_rows(state.best)
  return [
    RowResult(
      validation=float(validation[i]) if best_steps[i] else float('nan'),
      best_step=int(best_steps[i]),
      test=tests[i],
      phi=phis[i],
      stopped=int(stopped[i]),
      seconds=seconds / len(stack.specs),
      padding=stack.feed.padding[i],
    )
    for i in range(len(stack.specs))
  ]


def state_bytes(phi: Any, optimizer: Optimizer, rows: int) -> int:
  """Returns the bytes of a stack's state: phi, best phi, optimiser state."""
  shapes = jax.eval_shape(lambda p: stack_rows.start([p], optimizer), phi)
  return rows * trees.nbytes(shapes)
