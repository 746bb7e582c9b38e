"""Hyper-parameters to choose from, and how the best setting is found.

A setting is a variant of a method, a rate and a number of updates. It is chosen
for a task, method and seed, by its mean score over folds.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_subspace.deltas import METHODS
from prompt_subspace.deltas.base import check_list, check_seeds, positive
from prompt_subspace.training import cells, spec, tune

Methods = Sequence[str] | Mapping[str, Sequence[str]]


class Choice(NamedTuple):
  """What a setting is chosen for: it has one result."""

  task: str
  method: str
  seed: int


class Trial(NamedTuple):
  """A setting without its number of updates: trained once for each fold."""

  variant: str
  rate: float


def variants_of(methods, library) -> dict[str, tuple[str, ...]]:
  """Returns {name in the results: names in the library}."""
  if methods is None:
    methods = tuple(library or METHODS)
  check_list('methods', methods, of='name')
  if not isinstance(methods, Mapping):
    return {name: (name,) for name in methods}
  for name, given in methods.items():
    check_list(f'methods, {name}', given, of='name in the library')
  return {name: tuple(given) for name, given in methods.items()}


def steps_of(steps, settings: spec.Settings) -> tuple[int, ...]:
  """The numbers of updates, all of which are evaluated on the way."""
  if settings.embedding_step is not None:
    raise ValueError(
      'embedding_step: expected None, as the number of updates is a choice '
      f'here, found {settings.embedding_step}.'
    )
  if steps is None:
    return (settings.steps,)
  check_list('steps', steps, of='number of updates')
  for number in steps:
    positive('steps', number)
  longest, every = max(steps), settings.evaluate_every
  if wrong := [s for s in steps if s % every and s != longest]:
    raise ValueError(
      f'steps: expected multiples of evaluate_every = {every}, where runs are '
      f'scored, found {wrong}.'
    )
  return tuple(sorted(set(steps)))


def shots_of(shots, task: str) -> int:
  """Returns the shots of a task, of one number for all or of its own."""
  if not isinstance(shots, Mapping):
    positive('shots', shots)
    return shots
  if task not in shots:
    raise ValueError(
      f'shots: expected an entry for task {task!r}, found only '
      f'{sorted(shots)}. Add one, or give one number for all tasks.'
    )
  positive(f'shots, {task}', shots[task])
  return shots[task]


def trials_of(tasks, variants, seeds, rates) -> dict[Choice, list[Trial]]:
  """Returns what is tried for each choice: every variant at every rate."""
  check_seeds('seeds', seeds)
  out = {
    Choice(task, method, int(seed)): list(
      dict.fromkeys(
        Trial(variant, float(rate))
        for variant in given
        for rate in tune.rates_of(rates, method)
      )
    )
    for method, given in variants.items()
    for task in tasks
    for seed in seeds
  }
  cells.check_ids([trial_name(c, t) for c, tried in out.items() for t in tried])
  return out


def trial_name(choice: Choice, trial: Trial) -> str:
  """Names a trial, in files and for its random keys."""
  task = re.sub(r'[^\w.-]', '_', choice.task)
  method = choice.method
  if trial.variant != method:
    method = f'{method}-{trial.variant}'
  return f'{task}-{method}-s{choice.seed}-r{trial.rate:g}'


def score_at(record: Mapping[str, Any], steps: int) -> float:
  """The score of a fold's run after so many updates; NaN if it had stopped."""
  if 0 <= record['stopped'] < steps:
    return math.nan
  return {x['step']: x['validation'] for x in record['history']}[steps]


def best(lines: Sequence[Mapping[str, Any]]) -> int:
  """Returns which setting is chosen, as an index.

  That with the highest mean among those that came through most folds. Small
  folds give equal means often: then fewer updates, a lower rate, the variant
  that was named first.
  """

  def rank(i):
    line = lines[i]
    mean = line['validation'] if line['folds'] else -math.inf
    # a sum of thirds in another order is the same score
    return line['folds'], round(mean, 6), -line['steps'], -line['rate'], -i

  return max(range(len(lines)), key=rank)
