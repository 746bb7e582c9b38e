"""Policies: which source prompts a target starts from, and what that gives.

Vu et al. 2022, section 3.3. Source prompts are ranked by the similarity of
their task embeddings to the target's:

- `best-k`: the target is tuned from each of the k first; the run with the best
  validation score counts.
- `oracle`: the same over all source prompts (the paper's brute-force search).
- `average-k`: it starts from sum_r a_r p_r over the k first,
  a_r = sim_r / sum_l sim_l.
- `mixture-k`: it starts from a prompt tuned on the data of the k first and its
  own, mixed examples-proportionally.
- `random-k`: best-k of k source prompts drawn at random, a control; the mean
  over many draws.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from prompt_subspace.data.orders import order

KINDS = ('best', 'oracle', 'average', 'mixture', 'random')


class Policy(NamedTuple):
  """A policy by its name.

  Attributes:
    kind: of `KINDS`.
    k: how many source prompts; None is all of them.
  """

  kind: str
  k: int | None

  @property
  def name(self) -> str:
    """As `parse` reads it."""
    return self.kind if self.k is None else f'{self.kind}-{self.k}'


class Outcome(NamedTuple):
  """What a policy gave for one target and seed.

  Attributes:
    validation: score that the choice rests on.
    test: score of what was chosen.
    chosen: the run, or '' where it is a mean over several.
  """

  validation: float
  test: float
  chosen: str


def parse(name: str) -> Policy:
  """Reads `oracle` or `kind-k`.

  Raises:
    ValueError: neither.
  """
  if name == 'oracle':
    return Policy('oracle', None)
  kind, _, k = name.partition('-')
  if (
    kind not in KINDS or kind == 'oracle' or not re.fullmatch('[1-9][0-9]*', k)
  ):
    raise ValueError(
      "policies: expected 'oracle', or 'best-k', 'average-k', 'mixture-k' or "
      f"'random-k' with a whole number k such as 'best-3', found {name!r}."
    )
  return Policy(kind, int(k))


def check(policies: Sequence[Policy], sources: int) -> None:
  """Raises ValueError if a policy asks for more source prompts than exist."""
  if policies and sources < 1:
    raise ValueError(
      'sources: expected a source prompt for every target beside its own, '
      'found a target with none. Name other sources.'
    )
  if wrong := [p.name for p in policies if p.k is not None and p.k > sources]:
    raise ValueError(
      f'policies: expected k up to {sources}, the number of source prompts '
      f'that a target has, found {wrong}.'
    )


def tried(policies: Sequence[Policy], ranked: Sequence[str]) -> list[str]:
  """Returns the source prompts that the target must be tuned from.

  Args:
    policies: all that are asked for.
    ranked: names of source prompts, the most similar first.
  """
  if any(p.kind in ('oracle', 'random') for p in policies):
    return list(ranked)
  most = max((p.k for p in policies if p.kind == 'best'), default=0)
  return list(ranked[:most])


def weights(similarities: Sequence[float]) -> Float[np.ndarray, ' k']:
  """Returns a_r = sim_r / sum_l sim_l.

  A negative similarity counts as none, where the formula would subtract that
  prompt; if none is positive, all weigh the same.
  """
  positive = np.maximum(np.asarray(similarities, np.float64), 0.0)
  total = positive.sum()
  count = len(positive)
  return positive / total if total > 0 else np.full(count, 1.0 / count)


def best(
  names: Sequence[str], runs: Mapping[str, tuple[float, float, str]]
) -> Outcome:
  """Returns the run with the best validation score, the first of equals.

  Args:
    names: of the source prompts that are tried, the most similar first.
    runs: source prompt -> (validation, test, run) of the target tuned from
      it. A validation score that is no number is worse than any.
  """
  scores = [runs[n][0] for n in names]
  comparable = [-math.inf if math.isnan(s) else s for s in scores]
  validation, test, run = runs[names[int(np.argmax(comparable))]]
  return Outcome(validation, test, run)


def at_random(
  names: Sequence[str],
  runs: Mapping[str, tuple[float, float, str]],
  k: int,
  seed: int,
  draws: int = 200,
) -> Outcome:
  """Returns the mean of `best` over draws of k of the source prompts."""
  found = []
  for draw in range(draws):
    # of equals, `best` takes the first: a drawn order breaks ties at random
    chosen = order(len(names), 'random', seed, draw)[:k]
    found.append(best([names[i] for i in chosen], runs))
  return Outcome(
    float(np.mean([o.validation for o in found])),
    float(np.mean([o.test for o in found])),
    '',
  )
