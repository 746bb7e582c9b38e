"""Scores of many codes at once: no training, one compiled call for each batch.

Each code is a row of a stack, so that hundreds of them are evaluated as runs
are, sharing the backbone and the batches.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.evaluation import predict
from prompt_subspace.training import stage
from prompt_subspace.training.stage import Stage


def scores(
  where: Stage,
  method: str,
  codes: Float[np.ndarray, 'N Z'],
  task: TaskArrays,
  split: str,
  examples: int | None = None,
) -> list[dict[str, Any]]:
  """Returns the metrics of each code on a split of a task.

  Args:
    where: stage of the type's method, which has a code as its phi.
    method: its name in the stage's library.
    codes: N of them.
    task: its arrays.
    split: of the task.
    examples: how many of the split, the first ones; None all.
  """
  phi = {'code': jnp.asarray(codes, jnp.float32)}
  one = {'code': phi['code'][0]}
  arrays = task.splits[split]
  settings = where.settings
  texts = predict.predict(
    stage.engine(where, method, one).predictor,
    Frozen(where.backbone.weights, where.library[method].constants),
    phi,
    range(len(codes)),
    task,
    split,
    {
      'inputs': jnp.asarray(arrays.inputs),
      'targets': jnp.asarray(arrays.targets),
    },
    where.backbone.vocabulary,
    where.backbone.config.vocab_size,
    examples=examples,
    batch_size=settings.evaluation_batch,
    buckets=settings.buckets,
    widths=settings.widths,
  )
  return [predict.score(task, split, t) for t in texts]


def values(found: Sequence[dict[str, Any]]) -> Float[np.ndarray, ' N']:
  """Returns the mean metric of each, in percent."""
  return np.array([x['score'] for x in found])


def best(worth: Sequence[float]) -> int:
  """Returns which is the highest: undefined is below everything; of equals,
  the first counts.
  """
  found = np.asarray(worth, np.float64)
  return int(np.argmax(np.where(np.isnan(found), -np.inf, found)))
