"""Trains one stack of rows to the end: batches, evaluation, checkpoints.

Killed at any moment and started again, a stack goes on from its last
checkpoint and ends with the same numbers: what a row sees at a step depends on
its key and the step alone.
"""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import forward
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import batches
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Method, touches_encoder
from prompt_subspace.evaluation import predict
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.checkpoints import Checkpoints
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.training.progress import Progress


class Settings(NamedTuple):
  """How the rows of a stack are trained; the same for all of them.

  Attributes:
    steps: updates.
    batch_size: examples per update, B.
    evaluate_every: updates between evaluations on the validation split.
    validation_examples: how many of it are used; None all.
    test_examples: how many of the test split are used; None all.
    evaluation_batch: examples at once in evaluation.
    buckets: widths that a task's inputs are padded to.
    microbatch: examples in flight at once; None suits the device.
    chunk: rows computed at once; None suits the device.
    cache_encoder: compute a frozen encoder's output once per example where
      the method allows it and dropout is off; None: if it fits in
      `cache_bytes`.
    cache_bytes: limit of that cache.
    checkpoint_seconds: least time between checkpoints.
  """

  steps: int = 500
  batch_size: int = 16
  evaluate_every: int = 100
  validation_examples: int | None = 200
  test_examples: int | None = None
  evaluation_batch: int = 32
  buckets: int = 3
  microbatch: int | None = None
  chunk: int | None = None
  cache_encoder: bool | None = None
  cache_bytes: int = 2**30
  checkpoint_seconds: float = 60.0


# settings that change how fast a row is computed, but not what it computes
SPEED_ONLY = (
  'evaluation_batch',
  'microbatch',
  'chunk',
  'cache_encoder',
  'cache_bytes',
  'checkpoint_seconds',
)


class RowSpec(NamedTuple):
  """One run of a stack.

  Attributes:
    id: names the run; its random keys are folded from it and the seed.
    task: name of its task.
    seed: of its draws.
    rate: learning rate.
    phi: where it starts.
  """

  id: str
  task: str
  seed: int
  rate: float
  phi: Any


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
  """

  validation: float
  best_step: int
  test: dict[str, float]
  phi: Any
  stopped: int
  seconds: float
  padding: float


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
  )
  predictor = predict.make_predictor(config, method.expand, settings.chunk)
  return Engine(method, step, predictor)


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
    folder: for checkpoints and TensorBoard; None keeps none. Checkpoints are
      removed when the stack is done.
    description: what the progress line begins with.

  Returns:
    A result for each row, in order.
  """
  began = time.monotonic()
  data = _Data(engine.method, backbone, specs, tasks, settings)
  state = stack_rows.start([s.phi for s in specs], optimizer)
  rates = jnp.asarray([s.rate for s in specs], jnp.float32)
  keys = jnp.stack([stack_rows.random_key(k) for k in data.keys])
  at, before = 0, 0.0
  with contextlib.ExitStack() as stack:
    checkpoints = None
    if folder is not None:
      checkpoints = Checkpoints(pathlib.Path(folder) / 'checkpoints')
      stack.callback(checkpoints.close)
      stored = checkpoints.restore(
        {'state': state, 'seconds': np.zeros(()), 'step': np.zeros((), int)}
      )
      if stored:
        state, at = stored[1]['state'], int(stored[1]['step'])
        before = float(stored[1]['seconds'])
    progress = stack.enter_context(
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
      losses = []
      for number in range(at, until):
        batch = data.batch(number)
        state, metrics = engine.step(
          state, backbone.weights, batch, rates, keys, number
        )
        losses.append(metrics['loss'])
      at = until
      scores = _validate(engine, backbone, state, specs, tasks, data, settings)
      state = stack_rows.keep_best(state, jnp.asarray(scores), at)
      examples = len(losses) * len(specs) * settings.batch_size
      progress.update(
        at, examples, _scalars(specs, np.stack(losses).mean(0), scores)
      )
      due = time.monotonic() - saved > settings.checkpoint_seconds
      if checkpoints and due and at < settings.steps:
        seconds = before + time.monotonic() - began
        checkpoints.save(
          at,
          {
            'state': state,
            'seconds': np.asarray(seconds),
            'step': np.asarray(at),
          },
        )
        saved = time.monotonic()
    results = _results(
      engine,
      backbone,
      state,
      specs,
      tasks,
      data,
      settings,
      before + time.monotonic() - began,
    )
  return results


def remove_checkpoints(folder: str | pathlib.Path) -> None:
  """Removes the checkpoints of a stack whose results are stored."""
  shutil.rmtree(pathlib.Path(folder) / 'checkpoints', ignore_errors=True)


class _Data:
  """The stack's arrays on the device, and its batches.

  All training examples of the stack's tasks stand in one array; a row's
  indices are shifted to its own task.
  """

  def __init__(self, method, backbone, specs, tasks, settings):
    names = list(dict.fromkeys(s.task for s in specs))
    self.keys = [stack_rows.row_key(s.seed, s.id) for s in specs]
    self.used = {n: tasks[n] for n in names}
    train = [tasks[n].splits['train'] for n in names]
    offsets = dict(
      zip(names, np.cumsum([0] + [len(t.labels) for t in train]), strict=False)
    )
    lengths = {n: _lengths(t.inputs) for n, t in zip(names, train, strict=True)}
    plans = [
      batches.plan(
        lengths[s.task],
        batches.choose_edges(lengths[s.task], settings.buckets),
        settings.batch_size,
        settings.steps,
        key,
      )
      for s, key in zip(specs, self.keys, strict=True)
    ]
    self.indices = np.stack(
      [p.indices + offsets[s.task] for p, s in zip(plans, specs, strict=True)],
      axis=1,
    )
    self.widths = np.stack([p.widths for p in plans]).max(axis=0)
    every = np.concatenate([lengths[n] for n in names])
    self.padding = [
      batches.padding_share(
        every[self.indices[:, i]],
        np.broadcast_to(
          self.widths[:, None], (settings.steps, settings.batch_size)
        ),
      )
      for i in range(len(specs))
    ]
    widest = max(int(self.widths.max()), max(t.inputs.shape[1] for t in train))
    longest = max(t.targets.shape[1] for t in train)
    self.target_width = batches.round_up(longest, batches.TARGET_EDGES)
    cached = _caches_encoder(method, backbone, specs, self.used, settings)
    self.train = _upload(
      np.concatenate([_wide(t.inputs, widest) for t in train]),
      np.concatenate([_wide(t.targets, self.target_width) for t in train]),
      backbone,
      cached,
      settings,
    )
    self.held_out = {
      (n, split): _upload(
        tasks[n].splits[split].inputs,
        tasks[n].splits[split].targets,
        backbone,
        cached,
        settings,
      )
      for n in names
      for split in ('validation', 'test')
    }

  def batch(self, number: int) -> dict[str, Array]:
    """Returns the batches [W, B, ...] of one step."""
    return stack_rows.gather(
      self.train,
      jnp.asarray(self.indices[number]),
      int(self.widths[number]),
      self.target_width,
    )


def _lengths(tokens):
  return (np.asarray(tokens) > 0).sum(axis=1)


def _wide(tokens, width):
  return np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])))


def _caches_encoder(method, backbone, specs, tasks, settings) -> bool:
  """Whether the encoder's output is the same for all steps and kept."""
  if settings.cache_encoder is False or method.reads_batch:
    return False
  delta = jax.eval_shape(lambda p: method.expand(p, {}), specs[0].phi)
  if touches_encoder(delta) or backbone.config.dropout_rate > 0:
    return False
  positions = sum(
    a.inputs.size for t in tasks.values() for a in t.splits.values()
  )
  size = jnp.dtype(backbone.config.dtype).itemsize * backbone.config.emb_dim
  return settings.cache_encoder or positions * size <= settings.cache_bytes


def _upload(inputs, targets, backbone, cached, settings):
  """Puts a split on the device, with the encoder's output if it is cached."""
  data = {'inputs': jnp.asarray(inputs), 'targets': jnp.asarray(targets)}
  if cached:
    config, size = backbone.config, settings.evaluation_batch
    run = jax.jit(lambda w, x: forward.encode(config, w, {}, x))
    padded = np.pad(inputs, ((0, -len(inputs) % size), (0, 0)))
    parts = [
      run(backbone.weights, jnp.asarray(padded[i : i + size]))
      for i in range(0, len(padded), size)
    ]
    data['encoded'] = jnp.concatenate(parts)[: len(inputs)]
  return data


def _by_task(specs) -> dict[str, list[int]]:
  out: dict = {}
  for i, spec in enumerate(specs):
    out.setdefault(spec.task, []).append(i)
  return out


def _scores(engine, backbone, phi, split, examples, specs, tasks, data, size):
  """Returns each row's metrics on a split of its own task."""
  out: list = [None] * len(specs)
  for name, members in _by_task(specs).items():
    predictions = predict.predict(
      engine.predictor,
      backbone.weights,
      phi,
      members,
      tasks[name],
      split,
      data.held_out[name, split],
      backbone.vocabulary,
      backbone.config.vocab_size,
      examples=examples,
      batch_size=size,
    )
    for i, texts in zip(members, predictions, strict=True):
      out[i] = predict.score(tasks[name], split, texts)
  return out


def _validate(engine, backbone, state, specs, tasks, data, settings):
  scores = _scores(
    engine,
    backbone,
    state.phi,
    'validation',
    settings.validation_examples,
    specs,
    tasks,
    data,
    settings.evaluation_batch,
  )
  return np.array([s['score'] for s in scores], np.float32)


def _scalars(specs, losses, scores) -> dict[str, float]:
  """Scalars for the progress line and TensorBoard, by row."""
  out = {'loss': float(np.nanmean(losses)) if len(losses) else float('nan')}
  for spec, loss, value in zip(specs, losses, scores, strict=True):
    out[f'loss/{spec.id}'] = float(loss)
    out[f'validation/{spec.id}'] = float(value)
  return out


def _results(
  engine, backbone, state, specs, tasks, data, settings, seconds
) -> list[RowResult]:
  tests = _scores(
    engine,
    backbone,
    state.best,
    'test',
    settings.test_examples,
    specs,
    tasks,
    data,
    settings.evaluation_batch,
  )
  validation = np.asarray(state.best_score)
  best_steps, stopped = np.asarray(state.best_step), np.asarray(state.stopped)
  return [
    RowResult(
      validation=float(validation[i]) if best_steps[i] else float('nan'),
      best_step=int(best_steps[i]),
      test=tests[i],
      phi=stack_rows.take_row(state.best, i),
      stopped=int(stopped[i]),
      seconds=seconds / len(specs),
      padding=data.padding[i],
    )
    for i in range(len(specs))
  ]


def state_bytes(phi: Any, optimizer: Optimizer, rows: int) -> int:
  """Returns the bytes of a stack's state: phi, best phi, optimiser state."""
  shapes = jax.eval_shape(lambda p: stack_rows.start([p], optimizer), phi)
  return rows * trees.nbytes(shapes)
