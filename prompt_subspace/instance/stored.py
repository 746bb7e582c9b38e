"""The method of a stored delta, made again from its card.

Any method: those of the floor, this room's strategies, and subspaces of either.
"""

from collections.abc import Mapping
from typing import Any

from prompt_subspace import deltas, reparams
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import store
from prompt_subspace.instance import methods
from prompt_subspace.reparams import subspace


def method(card: Mapping[str, Any], backbone: Backbone) -> deltas.Method:
  """Returns the method of a stored delta, with its constants.

  Raises:
    ValueError: an unknown method or setting, or one that is made otherwise now.
  """
  try:
    made = deltas.bound(_made(card), backbones.setting(backbone))
    store.check_method(card, made)
    return made
  except TypeError as error:  # no such argument
    raise ValueError(
      f'delta: expected settings of {card["method"]}, found '
      f'{card["settings"]}: {error}. The card is of another version, or edited.'
    ) from error


def _made(card: Mapping[str, Any]) -> deltas.Method:
  if card['method'] == 'subspace':

    def make(name, **settings):
      return _made({'method': name, 'settings': settings})

    return subspace.again(card['settings'], make, reparams.make)
  if card['method'] in methods.METHODS:
    return methods.make(card['method'], **card['settings'])
  if card['method'] in deltas.METHODS:
    return deltas.make(card['method'], **_arguments(card['settings']))
  known = sorted([*deltas.METHODS, *methods.METHODS, 'subspace'])
  raise ValueError(
    f'delta: expected a method of {", ".join(known)}, found '
    f'{card["method"]!r}. For one of your own, --import the module that adds '
    'it to `deltas.METHODS`.'
  )


def _arguments(settings: dict) -> dict:
  """A method's arguments from its card; `stored` served the start alone."""
  rest = {k: v for k, v in settings.items() if k != 'stored'}
  if 'stored' in settings:
    rest['start'] = 'uniform'
  # JSON has lists alone
  return {k: tuple(v) if isinstance(v, list) else v for k, v in rest.items()}
