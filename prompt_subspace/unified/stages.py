"""Stages 1 and 2 by themselves: for T5X, where a gin file binds one of them.

The recipe `unified.study` runs them one after another for many spaces. Here a
`Space` says what is in one; `method`, `algorithm` and `optimizer` find its maps
(Yi et al. 2022, section 3.1 and appendix A.3, the short pipeline, which needs
no solutions), and `inside` tunes the code of one type in maps that were found.
"""

from collections.abc import Mapping
from typing import NamedTuple

from prompt_subspace.bank import store
from prompt_subspace.deltas.base import (
  Method,
  check_names,
  positive,
  unbound,
)
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.training import optimizers
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.optimizers import Optimizer
from prompt_subspace.unified import joint, spaces
from prompt_subspace.unified.joint import Joint


class Space(NamedTuple):
  """A space that several types of delta share.

  Attributes:
    types: name -> method.
    kind: how codes are expanded, for all types.
    size: Z, numbers of a code.
    tasks: how many the maps are found on; each has a code of its own.
    seed: of the origins, the maps and the codes.
    how: the pipeline, `short`.
  """

  types: Mapping[str, Method]
  kind: Reparam
  size: int
  tasks: int
  seed: int = 0
  how: Joint = Joint(pipeline='short')


def _kinds(space: Space) -> dict[str, Reparam]:
  return dict.fromkeys(space.types, space.kind)


def _shared(space: Space, setting) -> tuple[dict[str, spaces.Side], Method]:
  """The types on a backbone, and what stage 1 trains, as a method."""
  held = spaces.sides(space.types, _kinds(space), setting, space.seed)
  joint.check(space.how, held)
  return held, joint.shared(
    held, space.size, space.seed, space.tasks, space.how
  )


def _check(space: Space) -> None:
  positive('size', space.size)
  positive('tasks', space.tasks)
  if space.how.pipeline != 'short':
    raise ValueError(
      "pipeline: expected 'short', which needs no solutions of the tasks, "
      f'found {space.how.pipeline!r}. The whole one is that of unified.study.'
    )


def method(space: Space) -> Method:
  """Returns what stage 1 trains: phi = {maps, codes [T, Z]}.

  Raises:
    ValueError: a size or number of tasks below 1; another pipeline than the
      short one.
  """
  _check(space)
  settings = {'size': space.size, 'seed': space.seed, 'tasks': space.tasks}
  reads = any(m.reads_batch for m in space.types.values())
  return unbound('joint', lambda s: _shared(space, s)[1], settings, reads)


def algorithm(space: Space) -> Algorithm:
  """Returns the loss of stage 1, over episodes that know their task."""
  _check(space)
  return joint.algorithm(_kinds(space), space.how)


def optimizer(
  space: Space, inner: Optimizer = optimizers.adafactor
) -> Optimizer:
  """Returns `inner`, with the rate of the codes as a multiple of the maps'."""
  return joint.optimizer(inner, space.how)


def inside(space: Space, entry: str, kind: str, spread: float = 0.0) -> Method:
  """Returns the method of a type whose phi is a code, in maps that were found.

  Args:
    space: with which the maps were found.
    entry: folder of the bank entry that stage 1 has left.
    kind: name of the type.
    spread: standard deviation of the code at the start.

  Raises:
    ValueError: an unknown type; an entry of something else, or, when bound, of
      another space or backbone, or one that is drawn otherwise here.
  """
  _check(space)
  check_names('kind', (kind,), tuple(space.types))
  found = store.read(entry)
  known = found.card['settings'].get('fingerprint')
  if found.card['method'] != 'joint' or known is None:
    raise ValueError(
      f'entry: expected what stage 1 leaves, an entry of the method "joint" '
      f'with the fingerprint of its constants, found {found.card["method"]!r} '
      f'in {entry}.'
    )

  def bind(setting):
    held, made = _shared(space, setting)
    if made.settings['fingerprint'] != known:
      raise ValueError(
        f'entry: expected the space of {entry}, whose constants have the '
        f'fingerprint {known}, found {made.settings["fingerprint"]}. Types, '
        'maps, size, seed and backbone must be those that its maps were found '
        'with.'
      )
    basis = joint.bases_of(made.constants, found.phi)[kind]
    return spaces.method(held[kind], basis, space.size, spread)

  settings = {'size': space.size, 'type': kind, 'space': known}
  reads = space.types[kind].reads_batch
  return unbound('subspace', bind, settings, reads)
