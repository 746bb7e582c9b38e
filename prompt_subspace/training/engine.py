"""The compiled functions of a method on a backbone: step, probe, evaluation.

They are made once for a method and an algorithm, and shared by all stacks.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import forward
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.deltas.base import Frozen, Method
from prompt_subspace.evaluation import predict
from prompt_subspace.objectives import Objective
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.training.spec import Settings


class Engine(NamedTuple):
  """The compiled functions of a method and an algorithm.

  Attributes:
    method: what is trained.
    algorithm: what is minimised, and on which examples.
    step: see `rows.make_step`.
    probe: see `rows.make_probe`; None where the algorithm has none.
    predictor: see `predict.make_predictor`.
  """

  method: Method
  algorithm: Algorithm
  step: Callable
  probe: Callable | None
  predictor: predict.Predictor


def task_loss(config: T5Config, method: Method, frozen: Frozen) -> Objective:
  """Returns the loss of a method on batches of examples.

  Args:
    config: of the backbone; dropout is as it says.
    method: makes the delta.
    frozen: the backbone's weights, and the method's constants.
  """

  def run(delta, batch, key):
    key = key if config.dropout_rate > 0 else None
    return forward.logits(config, frozen.weights, delta, batch, key)

  def expand(phi, batch):
    return method.delta(phi, batch, frozen.constants)

  return objectives.task_loss(run, expand)


def make(
  backbone: Backbone,
  method: Method,
  optimizer: Optimizer,
  settings: Settings,
  phi: Any,
  algorithm: Algorithm = algorithms.TUNING,
) -> Engine:
  """Prepares training and evaluation of a method; compiles on first use.

  Args:
    backbone: frozen model; dropout is that of its configuration.
    method: what is trained.
    optimizer: rate -> transform.
    settings: of the rows.
    phi: one of its trees, for the shapes.
    algorithm: what is minimised, and on which examples.
  """
  config = backbone.config
  shapes = jax.eval_shape(lambda p: p, phi)

  def split(batch):
    # not before it is asked for: what an objective makes of phi, and not phi
    # itself, may be what has a delta
    return settings.microbatch or stack_rows.microbatch_size(
      batch, _positions(method, shapes), config.emb_dim
    )

  def at_once(batch):
    # for the objectives of episodes see `split`
    extra = 0 if algorithm.episodes else _positions(method, shapes)
    return settings.chunk or stack_rows.rows_at_once(
      _seen(batch, extra), config
    )

  loss_of = functools.partial(task_loss, config, method)
  step = stack_rows.make_step(
    lambda f: algorithm.objective(loss_of(f), split, f.constants),
    optimizer,
    chunk=at_once,
    split=None if algorithm.episodes else split,
    mesh=backbone.mesh,
  )
  probe = algorithm.probe and stack_rows.make_probe(
    lambda f: algorithm.probe(loss_of(f), split, f.constants),
    at_once,
    backbone.mesh,
  )
  predictor = predict.make_predictor(
    config, method.delta, settings.chunk, mesh=backbone.mesh, at_once=at_once
  )
  return Engine(method, algorithm, step, probe, predictor)


def _positions(method: Method, phi: Any) -> int:
  """Returns how many positions a method's prompt adds to an input."""
  # what a method makes of one input, if it looks at inputs
  some = {'inputs': jax.ShapeDtypeStruct((1, 1), jnp.int32)}
  delta = jax.eval_shape(method.delta, phi, some, method.constants)
  prompt = trees.flatten(delta).get('encoder/prompt')
  return 0 if prompt is None else prompt.shape[-2]


def _seen(batch: Any, extra: int) -> int:
  """Returns how many positions the encoder sees in a row's batch.

  Args:
    batch: a tree, whose parts have their examples in any number of axes.
    extra: positions that the method adds to each input.
  """
  leaves = jax.tree.leaves_with_path(batch)
  inputs = [x for path, x in leaves if path[-1].key == 'inputs']
  return sum(x.size // x.shape[-1] * (x.shape[-1] + extra) for x in inputs)
