"""Stage 1: maps from one space of codes to the solutions of several types.

Yi et al. 2022 (UDT), section 3.1 and appendix A.3, with theta_t the solution
of type t of a task and u_t its up-projection.

Whole pipeline: the down-projection of each type gives a code I_t of theta_t;
the codes of a task are mixed,

  mix = alpha I_A + beta I_P + (1 - alpha - beta) I_L,
  alpha ~ U(0, 1), beta ~ U(0, 1 - alpha),

and loss = mean over types of 10 ||u_t(mix) - theta_t||^2 + task loss of
u_t(mix).

Short pipeline: each task has one code of its own, which is trained beside the
up-projections; loss = mean over types of the task loss of u_t(code). It needs
no solutions.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  Method,
  check_names,
  check_rates,
  positive,
)
from prompt_subspace.objectives import Objective
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.training import episodes
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.unified import spaces
from prompt_subspace.unified.spaces import Side

PIPELINES = ('whole', 'short')
TARGETS = ('mix', 'own')


class Joint(NamedTuple):
  """How the maps are trained. The defaults are the paper's.

  Attributes:
    pipeline: `whole`, with down-projections and reconstruction, or `short`.
    weight: of the reconstruction; the released code has 0.1 for single tasks.
    target: what is reconstructed from: the `mix` of codes, or, as in the
      released code, each type's `own` code: then nothing but the task loss
      holds the codes of a task together.
    squared: the norm is squared; the released code's is not, so that it pulls
      equally hard however far away a solution is.
    order: names of the types, in which alpha, beta, ... fall on them; the first
      ones have the larger share on average. None: as they are listed. The
      released code has another order than the paper.
    episodes: tasks of an update.
    spread: standard deviation of the codes at the start (short pipeline).
    code_rate: rate of the codes, as a multiple of that of the maps (short
      pipeline; the paper has 5e-5 for codes and 1e-4 for maps).
  """

  pipeline: str = 'whole'
  weight: float = 10.0
  target: str = 'mix'
  squared: bool = True
  order: Sequence[str] | None = None
  episodes: int = 1
  spread: float = 0.02
  code_rate: float = 0.5


def check(how: Joint, held: Mapping[str, Side]) -> None:
  """Raises ValueError if a choice is unknown, or does not go with the maps."""
  check_names('pipeline', (how.pipeline,), PIPELINES)
  check_names('target', (how.target,), TARGETS)
  positive('episodes', how.episodes)
  check_rates('code_rate', [how.code_rate])
  for name, value in (('weight', how.weight), ('spread', how.spread)):
    if value < 0:
      raise ValueError(f'{name}: expected at least 0, found {value!r}.')
  if how.order is not None and sorted(how.order) != sorted(held):
    raise ValueError(
      f'order: expected each of {sorted(held)} once, found {how.order}.'
    )
  if how.pipeline == 'short':
    return
  for name, side in held.items():
    if side.reparam.compress is None:
      raise ValueError(
        f'pipeline: expected maps with a down-projection for the whole '
        f'pipeline, found {side.reparam.name!r} for {name}. Use the short '
        'pipeline, or linear(down=True).'
      )


def shared(
  held: Mapping[str, Side],
  size: int,
  seed: int,
  tasks: int,
  how: Joint,
  solutions: Mapping[str, Float[Array, 'T M']] | None = None,
) -> Method:
  """Returns what stage 1 trains, as a method: maps, and maybe codes.

  phi has no delta, but what `objective` makes of it: {type: displacement} of
  one type, which `expand` therefore takes. Origins, and the constants of the
  types' own methods (`inner`), are constants of this one.

  Args:
    held: the types.
    size: Z.
    seed: of origins and maps.
    tasks: T, how many tasks have a code.
    how: which pipeline.
    solutions: displacement of each type on each task (whole pipeline).
  """
  trained, fixed = spaces.divide(held, spaces.draw(held, size, seed))
  constants = {
    'origins': {n: s.start.flat for n, s in held.items()},
    'fixed': fixed,
    'inner': {
      n: s.start.method.constants
      for n, s in held.items()
      if s.start.method.constants is not None
    },
  }
  if how.pipeline == 'whole':
    constants['solutions'] = jax.tree.map(jnp.asarray, dict(solutions))

  def init(key, setting):
    del setting
    phi = {'maps': trained}
    if how.pipeline == 'short':
      codes = jax.random.normal(key, (tasks, size), jnp.float32)
      phi['codes'] = how.spread * codes
    return phi

  def expand(phi, batch, constants):
    check_names('type', tuple(phi), tuple(held))
    ((name, theta),) = phi.items()
    start = held[name].start
    flat = constants['origins'][name] + theta
    inner = constants['inner'].get(name)
    return start.method.delta(start.back(flat), batch, inner)

  settings = {
    'size': size,
    'seed': seed,
    'tasks': tasks,
    'types': {
      n: {
        'method': {'name': s.start.method.name, **s.start.method.settings},
        'reparam': {'name': s.reparam.name, **s.reparam.settings},
      }
      for n, s in held.items()
    },
    'fingerprint': trees.fingerprint(constants),
    **how._asdict(),
    'order': list(how.order or held),
  }
  return Method(
    'joint',
    init,
    expand,
    reads_batch=any(s.start.method.reads_batch for s in held.values()),
    settings=settings,
    constants=constants,
  )


def mixing(key: Array, count: int) -> Float[Array, ' count']:
  """Returns shares that add up to 1: each uniform in what is left."""
  shares, left = [], jnp.float32(1.0)
  for number in range(count - 1):
    drawn = jax.random.uniform(jax.random.fold_in(key, number)) * left
    shares.append(drawn)
    left = left - drawn
  return jnp.stack([*shares, left])


def objective(
  kinds: Mapping[str, Reparam], how: Joint, loss: Objective, constants: Any
) -> Objective:
  """Returns the loss of stage 1 over episodes, each of one task.

  Args:
    kinds: types -> how their codes are expanded.
    how: the pipeline.
    loss: task loss of `shared`'s method, of {type: displacement}.
    constants: of that method.
  """
  names = list(kinds)
  order = [names.index(n) for n in (how.order or names)]

  def codes_of(phi, bases, task, key):
    """The code that each type is expanded from, and that it is told by."""
    if how.pipeline == 'short':
      code = phi['codes'][task]
      return [code] * len(names), None
    own = [
      kinds[n].compress(bases[n], constants['solutions'][n][task])
      for n in names
    ]
    shares = mixing(key, len(names))[jnp.argsort(jnp.asarray(order))]
    mixed = sum(s * c for s, c in zip(shares, own, strict=True))
    return [mixed] * len(names), own if how.target == 'own' else None

  def one(phi, batch, key):
    bases = bases_of(constants, phi)
    task = batch['task'][0, 0]
    codes, told = codes_of(phi, bases, task, key)
    total, metrics = 0.0, {}
    for i, name in enumerate(names):
      expand = kinds[name].expand
      theta = expand(bases[name], codes[i])
      value, _ = loss({name: theta}, batch, key)
      metrics[f'loss {name}'] = value
      total += value
      if how.pipeline == 'whole':
        if told is not None:
          theta = expand(bases[name], told[i])
        away = theta - constants['solutions'][name][task]
        distance = jnp.sum(jnp.square(away))
        metrics[f'distance {name}'] = jnp.sqrt(distance)
        if not how.squared:
          # the norm has no derivative at 0
          distance = jnp.sqrt(distance + 1e-12)
        total += how.weight * distance
    return total / len(names), metrics

  def run(phi, batch, key):
    # of the two axes of support batches, the second is for inner steps
    batch = jax.tree.map(lambda x: x[:, 0], batch['support'])
    count = batch['targets'].shape[0]
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
      jnp.arange(count)
    )
    found = jax.lax.map(lambda x: one(phi, *x), (batch, keys))
    total, metrics = jax.tree.map(jnp.mean, found)
    return total, {**metrics, 'weight': jnp.float32(count)}

  return run


def optimizer(inner: Optimizer, how: Joint) -> Optimizer:
  """Returns an optimiser with another rate for codes than for maps."""

  def make(rate):
    return optax.multi_transform(
      {'maps': inner(rate), 'codes': inner(how.code_rate * rate)},
      # whatever kind of mapping phi is
      functools.partial(jax.tree.map_with_path, lambda path, _: path[0].key),
    )

  return make if how.pipeline == 'short' else inner


def algorithm(kinds: Mapping[str, Reparam], how: Joint) -> Algorithm:
  """Returns what stage 1 minimises, and which tasks an update sees.

  Args:
    kinds: types -> how their codes are expanded.
    how: the pipeline.
  """

  def made(loss, split, constants):
    del split
    return objective(kinds, how, loss, constants)

  def plan(row, union, settings):
    return episodes.plan(row, union, settings, how.episodes, query=False)

  return Algorithm('joint', made, plan, True, settings=how._asdict())


def bases_of(
  constants: Mapping[str, Any], phi: Mapping[str, Any]
) -> spaces.Bases:
  """Returns the maps of all types.

  Of maps that training may not change, a stored phi holds nothing, not even
  their names.

  Args:
    constants: of `shared`'s method.
    phi: of that method, as it trains or was stored.
  """
  trained = phi.get('maps', {})
  return {
    n: {**fixed, **trained.get(n, {})}
    for n, fixed in constants['fixed'].items()
  }


def codes_of(
  held: Mapping[str, Side],
  method: Method,
  phi: Mapping[str, Any],
  how: Joint,
) -> dict[str, np.ndarray]:
  """Returns the codes [T, Z] of the tasks that stage 1 saw, by type.

  In the short pipeline those of all types are the same.
  """
  if how.pipeline == 'short':
    return {n: np.asarray(phi['codes']) for n in held}
  bases = bases_of(method.constants, phi)
  solutions = method.constants['solutions']
  return {
    n: np.stack(
      [np.asarray(s.reparam.compress(bases[n], x)) for x in solutions[n]]
    )
    for n, s in held.items()
  }
