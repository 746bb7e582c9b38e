"""An algorithm: what rows minimise, and which examples they see at each step.

Tuning minimises the task loss on batches of one task. What learns from many
tasks at once, such as MAML, makes another objective out of the task loss and
draws its examples by task: that is all in which it differs from tuning.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from prompt_subspace.data import batches
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.objectives import Objective
from prompt_subspace.training import rows
from prompt_subspace.training.spec import RowSpec, Settings

# batch of examples -> how many of them are in flight at once, a divisor
Split = Callable[[Mapping], int]


class Algorithm(NamedTuple):
  """What a stack's rows have in common in how they learn.

  Attributes:
    name: of it.
    objective: (task loss, split, the method's constants) -> what is minimised.
    plan: (row, its task, settings) -> the examples of each step, by their
      numbers in the task's training split. Their leaves have a leading axis of
      steps; behind it stand whatever axes the objective expects.
    episodes: batches are of episodes, which the objective splits into
      microbatches itself; otherwise they are of examples, and the step does.
    query: an episode has a query batch beside its support batches.
    probe: of the same arguments -> ((phi, batch, key) -> numbers to watch),
      for what is too dear to compute at every step; it is at every evaluation.
    settings: the arguments it was made with, as JSON values.
  """

  name: str
  objective: Callable[[Objective, Split, Any], Objective]
  plan: Callable[[RowSpec, TaskArrays, Settings], batches.Plan]
  episodes: bool = False
  query: bool = False
  probe: Callable[[Objective, Split, Any], Callable] | None = None
  settings: Mapping[str, Any] = {}


def lengths(tokens: np.ndarray) -> np.ndarray:
  """Returns the number of tokens of each row that are not padding."""
  return (np.asarray(tokens) > 0).sum(axis=1)


def _plan(spec: RowSpec, task: TaskArrays, settings: Settings) -> batches.Plan:
  found = lengths(task.splits['train'].inputs)
  return batches.plan(
    found,
    batches.choose_edges(found, settings.buckets, settings.widths),
    settings.batch_size,
    settings.steps,
    rows.row_key(spec.seed, spec.id),
  )


# Plain training on one task, or on a mixture of several.
TUNING = Algorithm('tuning', lambda loss, split, constants: loss, _plan)
