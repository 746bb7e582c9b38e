"""The algorithms that learn an initialisation from many tasks.

Qin et al. 2023 (MPT), section 3, and the settings of its appendix A. Each is an
algorithm of the same training that tunes a prompt on one task: another
objective (`meta.objectives`), on episodes (`training.episodes`). Multi-task
learning is tuning on the union of the source tasks, support and query both, so
that all see the same data.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from prompt_subspace.deltas.base import positive
from prompt_subspace.meta import objectives
from prompt_subspace.training import algorithm, episodes, optimizers
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.optimizers import Optimizer


def maml(
  inner_rate: float = 3e-5,
  inner_steps: int = 1,
  tasks: int = 1,
  inner: Optimizer = optimizers.sgd,
  mode: str = 'forward over reverse',
) -> Algorithm:
  """Second-order MAML, see `objectives.maml`.

  Args:
    inner_rate: of the inner steps.
    inner_steps: k.
    tasks: episodes of an outer step, E.
    inner: rate -> transform; plain gradient descent by default.
    mode: of the Hessian-vector products.

  Raises:
    ValueError: a number out of range.
  """
  run = functools.partial(objectives.maml, mode=mode)
  return _adapting('maml', run, inner_rate, inner_steps, tasks, inner)


def fomaml(
  inner_rate: float = 3e-5,
  inner_steps: int = 1,
  tasks: int = 1,
  inner: Optimizer = optimizers.sgd,
) -> Algorithm:
  """First-order MAML; arguments and errors as of `maml`."""
  run = objectives.fomaml
  return _adapting('fomaml', run, inner_rate, inner_steps, tasks, inner)


def reptile(
  inner_rate: float = 3e-5,
  inner_steps: int = 10,
  tasks: int = 1,
  inner: Optimizer = optimizers.sgd,
  by_rate: bool = False,
) -> Algorithm:
  """Reptile: phi - phi_k as the gradient; arguments as of `maml`.

  Args:
    by_rate: divide the gradient by the inner rate, as the paper's code does.
      An optimiser that normalises gradients (Adafactor) sees no difference.
  """
  _check(inner_rate, inner_steps, tasks)

  def objective(loss, split, constants):
    del constants
    made = objectives.reptile(loss, inner(inner_rate), inner_steps, split=split)
    return _scaled(made, 1 / inner_rate) if by_rate else made

  return Algorithm(
    'reptile',
    objective,
    functools.partial(
      episodes.plan, tasks=tasks, steps=inner_steps, query=False
    ),
    episodes=True,
    settings={
      **_settings(inner_rate, inner_steps, tasks, inner),
      'by_rate': by_rate,
    },
  )


def mtl() -> Algorithm:
  """Multi-task learning: plain tuning on the union of the source tasks."""
  return algorithm.TUNING._replace(name='mtl')


ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
  'mtl': mtl,
  'maml': maml,
  'fomaml': fomaml,
  'reptile': reptile,
}


def _adapting(name, run, inner_rate, inner_steps, tasks, inner) -> Algorithm:
  """MAML or FoMAML, watched by the cosine of their gradients."""
  _check(inner_rate, inner_steps, tasks)

  def objective(loss, split, constants):
    del constants
    return run(loss, inner(inner_rate), inner_steps, split=split)

  def probe(loss, split, constants):
    del constants
    made = [
      build(loss, inner(inner_rate), inner_steps, split=split)
      for build in (objectives.maml, objectives.fomaml)
    ]
    return lambda *episode: {'cosine': cosine(*made, *episode)}

  return Algorithm(
    name,
    objective,
    functools.partial(episodes.plan, tasks=tasks, steps=inner_steps),
    episodes=True,
    query=True,
    probe=probe,
    settings=_settings(inner_rate, inner_steps, tasks, inner),
  )


def cosine(one, other, phi, batch, key) -> Float[Array, '']:
  """Returns the cosine of the gradients of two objectives at phi."""
  gradients = [
    jax.grad(lambda p, f=f: f(p, batch, key)[0])(phi) for f in (one, other)
  ]
  product = optax.tree.vdot(*gradients)
  norms = [optax.tree.norm(g) for g in gradients]
  return product / jnp.maximum(norms[0] * norms[1], 1e-30)


def _scaled(objective, factor: float):
  """An objective with its loss multiplied."""

  def run(phi, batch, key):
    loss, metrics = objective(phi, batch, key)
    return factor * loss, metrics

  return run


def _settings(inner_rate, inner_steps, tasks, inner) -> dict:
  return {
    'inner_rate': inner_rate,
    'inner_steps': inner_steps,
    'tasks': tasks,
    'inner_moved': optimizers.behaviour(inner),
  }


def _check(inner_rate: float, inner_steps: int, tasks: int) -> None:
  if not inner_rate > 0:
    raise ValueError(
      f'inner_rate: expected a number above 0, found {inner_rate!r}.'
    )
  positive('inner_steps', inner_steps)
  positive('tasks', tasks)
