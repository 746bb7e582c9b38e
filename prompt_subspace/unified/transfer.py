"""Stage 3: a code that one type found, used by another, without training.

Yi et al. 2022 (UDT), section 3.3. Which of the codes on the way is taken, is
chosen by the validation score of the type that uses it, never by test scores;
the released code chooses by that of the type that found it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import check_names
from prompt_subspace.training.stage import Stage
from prompt_subspace.unified import evaluate

CHOICES = ('target', 'source')


def transfer(
  where: Stage,
  kind: str,
  tried: Sequence[dict[str, Any]],
  task: TaskArrays,
  choose_by: str = 'target',
) -> dict[str, Any]:
  """Evaluates codes with a type; returns the chosen one's scores.

  Args:
    where: stage of the space, with the type's method.
    kind: the type that uses the codes.
    tried: codes with where they come from, of `plan.path`.
    task: the task.
    choose_by: `target` evaluates all of them on the validation split with the
      type `kind`; `source` takes the one that was best for the type that found
      it.

  Returns:
    validation and test score with `kind`, and `cell` and `step` of the code.
  """
  check_names('choose_by', (choose_by,), CHOICES)
  if choose_by == 'source':
    tried = [tried[evaluate.best([x['validation'] for x in tried])]]
  settings = where.settings

  def score(codes, split, examples):
    return evaluate.values(
      evaluate.scores(where, kind, codes, task, split, examples)
    )

  codes = np.stack([x['code'] for x in tried])
  worth = score(codes, 'validation', settings.validation_examples)
  chosen = evaluate.best(worth)
  test = score(codes[chosen : chosen + 1], 'test', settings.test_examples)
  return {
    'validation': float(worth[chosen]),
    'test': float(test[0]),
    'cell': tried[chosen]['cell'],
    'step': tried[chosen]['step'],
  }
