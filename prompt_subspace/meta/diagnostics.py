"""Does an inner step move anything? What it does, over a range of inner rates.

The paper's inner rate is 3e-5 with plain gradient descent, at which a prompt of
another backbone may hardly move, so that MAML, FoMAML and multi-task learning
are one. For each rate: how far the inner steps move phi, what that does to the
query loss, and how far the gradients of MAML and FoMAML agree.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Frozen, positive
from prompt_subspace.meta import algorithms, objectives
from prompt_subspace.training import engine as engines
from prompt_subspace.training import episodes, rows, spec, stage
from prompt_subspace.training.stage import Stage

# what is seen of an inner step: a loss lower by 1 %, gradients that differ
LOSS, COSINE = 0.99, 0.99


class Look(NamedTuple):
  """What is looked at; an empty list of rates looks at nothing.

  Attributes:
    inner_rates: of plain gradient descent.
    inner_steps: numbers of inner steps.
    episodes: how many the numbers are averaged over.
  """

  inner_rates: Sequence[float] = (3e-5, 1e-3, 0.03, 1.0, 10.0, 100.0)
  inner_steps: Sequence[int] = (1,)
  episodes: int = 8


class Matters(NamedTuple):
  """The smallest inner rates that are felt, of those tried; None for none.

  Attributes:
    inner_steps: how many.
    loss: lowers the query loss by 1 % or more.
    cosine: brings the cosine of the MAML and FoMAML gradients below 0.99.
  """

  inner_steps: int
  loss: float | None
  cosine: float | None


def look(
  where: Stage, method: str, union: TaskArrays, what: Look = Look()
) -> list[dict[str, Any]]:
  """Returns the rows of diagnostics.csv, see `columns.DIAGNOSTICS`.

  Args:
    where: backbone, method and batch size.
    method: name in the stage's library.
    union: the source tasks.
    what: rates, steps, episodes.

  Raises:
    ValueError: a rate out of range, or no episodes.
  """
  check(what)
  phi = stage.initial(where, method, union, 0, 'initial')
  norm = float(optax.tree.norm(phi))
  config = where.backbone.config.replace(dropout_rate=0.0)
  chosen = where.library[method]
  frozen = Frozen(where.backbone.weights, chosen.constants)
  out = []
  for steps in what.inner_steps:
    measure = jax.jit(functools.partial(_measure, config, chosen, steps))
    batches = list(_episodes(where, method, union, phi, steps, what.episodes))
    for rate in what.inner_rates:
      found = [
        measure(frozen, phi, batch, jnp.float32(rate)) for batch in batches
      ]
      means = jax.tree.map(lambda *xs: float(np.mean(xs)), *found)
      out.append(
        {
          'inner_rate': rate,
          'inner_steps': steps,
          'episodes': what.episodes,
          'relative': means['displacement'] / norm if norm else math.nan,
          **means,
        }
      )
  return out


def matters(found: Sequence[Mapping[str, Any]]) -> list[Matters]:
  """Returns from which inner rate on the inner steps matter.

  Args:
    found: the rows of diagnostics.csv.
  """
  groups: dict[int, list[Mapping[str, Any]]] = {}
  for row in sorted(found, key=lambda r: r['inner_rate']):
    groups.setdefault(row['inner_steps'], []).append(row)
  out = []
  for steps, tried in sorted(groups.items()):
    falls = (
      r['inner_rate']
      for r in tried
      if not _missing(r['loss_after'])
      and r['loss_after'] <= LOSS * r['loss_before']
    )
    parts = (
      r['inner_rate']
      for r in tried
      if not _missing(r['cosine']) and r['cosine'] < COSINE
    )
    out.append(Matters(steps, next(falls, None), next(parts, None)))
  return out


def _missing(number: float | None) -> bool:
  return number is None or math.isnan(number)


def check(what: Look) -> None:
  """Raises ValueError if a number is out of range."""
  if bad := [r for r in what.inner_rates if not r > 0]:
    raise ValueError(
      f'inner_rates: expected numbers above 0, found {bad[0]!r}.'
    )
  for steps in what.inner_steps:
    positive('inner_steps', steps)
  positive('episodes', what.episodes)


def _episodes(where: Stage, method: str, union, phi, steps: int, count: int):
  """Yields batches of one episode each, all of one width."""
  settings = where.settings._replace(steps=count, buckets=1)
  row = spec.RowSpec('diagnostics', union.name, 0, 0.0, phi)
  planned = episodes.plan(row, union, settings, steps=steps)
  train = union.splits['train']
  data = {'inputs': train.inputs, 'targets': train.targets}
  data = jax.tree.map(jnp.asarray, data)
  for number in range(count):
    yield jax.tree.map(
      lambda x, n=number: rows.gather(
        data,
        jnp.asarray(x[n]),
        int(planned.widths[n]),
        train.targets.shape[1],
      ),
      planned.indices,
    )


def _measure(config, method, steps: int, frozen, phi, batch, rate):
  """One episode at one rate; the rate is an argument, to compile once."""
  loss = engines.task_loss(config, method, frozen)
  key = jax.random.key(0)
  # as in training, so that a step fits on the device
  made = [
    build(loss, optax.sgd(rate), steps, split=rows.microbatch_size)
    for build in (objectives.maml, objectives.fomaml)
  ]
  query = jax.tree.map(lambda x: x[0], batch['query'])
  after, metrics = made[0](phi, batch, key)
  return {
    'displacement': metrics['displacement'],
    'loss_before': loss(phi, query, key)[0],
    'loss_after': after,
    'cosine': algorithms.cosine(*made, phi, batch, key),
  }
