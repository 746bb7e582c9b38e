"""A method inside a subspace: phi = origin + expand(basis, code).

Any method and any reparameterisation make a method again, whose phi is the code
alone. So every recipe can tune, transfer or meta-learn in a space of a few
dimensions.

Source: Li et al. 2018, "Measuring the Intrinsic Dimension of Objective
Landscapes"; Aghajanyan et al. 2021; Yi et al. 2022 (UDT), section 3.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from prompt_subspace import trees
from prompt_subspace.deltas.base import (
  Method,
  Setting,
  bound,
  positive,
  unbound,
)
from prompt_subspace.reparams.base import Reparam


class Origin(NamedTuple):
  """Where a method starts, as one vector.

  Attributes:
    method: bound to the backbone.
    flat: its phi, drawn with a seed that all tasks share.
    back: vector -> phi.
  """

  method: Method
  flat: Float[Array, ' M']
  back: Callable[[Float[Array, ' M']], Any]


def origin(method: Method, setting: Setting, seed: int = 0) -> Origin:
  """Returns the start of a method that is the same for all tasks.

  Args:
    method: of the registry, or another subspace.
    setting: the backbone; label texts, which differ by task, are left out.
    seed: of the draw.
  """
  method = bound(method, setting)
  phi = method.init(jax.random.key(seed), setting._replace(labels=()))
  flat, back = trees.ravel(phi)
  return Origin(method, flat, back)


def subspace(
  method: Method,
  reparam: Reparam,
  size: int,
  seed: int = 0,
  spread: float = 0.0,
  fingerprint: str | None = None,
) -> Method:
  """Returns the method whose phi is a code of `size` numbers.

  Args:
    method: what the code is expanded to.
    reparam: how, see `prompt_subspace.reparams`.
    size: Z, of the code.
    seed: of the origin and of the basis.
    spread: standard deviation of the code at the start; 0 starts at the
      origin.
    fingerprint: of the bound method's constants (origin, basis, and those of
      `method`), if they must be known ones: that of a stored code. A basis that
      is drawn otherwise, by another version of a library, say, gives the code
      another meaning.

  Raises:
    ValueError: a size below 1; when it is bound to a backbone, another
      fingerprint than was given.
  """
  positive('size', size)

  def bind(setting):
    start = origin(method, setting, seed)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    basis = reparam.init(key, start.flat.size, size)
    constants = {'origin': start.flat, 'basis': basis}
    made = within(start, reparam, constants, size, spread)
    found = made.settings['fingerprint']
    if fingerprint not in (None, found):
      raise ValueError(
        f'fingerprint: expected constants {fingerprint}, found {found}: '
        f'{reparam.name} with seed {seed} is drawn otherwise here, or '
        f'{method.name} has other constants. Use the versions of the libraries '
        'that the card names.'
      )
    return made._replace(
      settings=settings | {'fingerprint': found},
      # the fingerprint tells the map apart, whatever drew it
      starting=('seed', 'spread'),
    )

  settings = {
    'method': {'name': method.name, **method.settings},
    'reparam': {'name': reparam.name, **reparam.settings},
    'size': size,
    'seed': seed,
    'spread': spread,
    'fingerprint': fingerprint,
  }
  return unbound('subspace', bind, settings, method.reads_batch)


def within(
  start: Origin,
  reparam: Reparam,
  constants: Mapping[str, Any],
  size: int,
  spread: float = 0.0,
) -> Method:
  """Returns the method of codes in a known subspace.

  Args:
    start: method and origin.
    reparam: how codes are expanded.
    constants: `origin` [M] and `basis`.
    size: Z.
    spread: standard deviation of the code at the start.

  Returns:
    The method. Where the inner method has constants, they stand among its own
    as `inner`: so they, too, are arguments of what is compiled, and part of the
    fingerprint.
  """
  if start.method.constants is not None:
    constants = {**constants, 'inner': start.method.constants}

  def init(key, setting):
    del setting
    return {'code': spread * jax.random.normal(key, (size,), jnp.float32)}

  def expand(phi, batch, constants):
    flat = constants['origin'] + reparam.expand(constants['basis'], phi['code'])
    inner = constants.get('inner')
    return start.method.delta(start.back(flat), batch, inner)

  settings = {
    'method': {'name': start.method.name, **start.method.settings},
    'reparam': {'name': reparam.name, **reparam.settings},
    'size': size,
    'spread': spread,
    'fingerprint': trees.fingerprint(constants),
  }
  return Method(
    'subspace',
    init,
    expand,
    reads_batch=start.method.reads_batch,
    settings=settings,
    constants=constants,
  )


def again(
  settings: Mapping[str, Any],
  method_of: Callable[..., Method],
  reparam_of: Callable[..., Reparam],
) -> Method:
  """Returns the method that a card describes.

  Args:
    settings: of the card.
    method_of: (name, **settings) -> method.
    reparam_of: (name, **settings) -> reparam.

  Raises:
    ValueError: its basis was learned, so that no seed draws it again.
  """
  if 'seed' not in settings:
    raise ValueError(
      'subspace: expected a basis that a seed draws, found one that was '
      'learned. Use the bank of the study, where its phi is stored.'
    )
  rest = {k: v for k, v in settings.items() if k not in ('method', 'reparam')}
  return subspace(
    method_of(**settings['method']), reparam_of(**settings['reparam']), **rest
  )
