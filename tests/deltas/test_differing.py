"""Whether a stored phi means the delta that a method would make of it."""

import json

import pytest

from prompt_subspace import deltas
from prompt_subspace.deltas import base
from prompt_subspace.instance import methods as strategies


def from_card(method):
  """A card's settings have been through JSON."""
  return json.loads(json.dumps(dict(method.settings)))


@pytest.mark.parametrize('name', deltas.METHODS)
def test_a_method_means_what_it_does(name):
  method = deltas.make(name)
  assert base.differing(method, name, from_card(method)) == {}


@pytest.mark.parametrize(
  'one, other, differ',
  [
    (deltas.lora(rank=4), deltas.lora(rank=4, scale=9.0), {'scale'}),
    (deltas.lora(rank=4), deltas.lora(rank=5), {'rank'}),
    (
      deltas.lora(projections=('query',)),
      deltas.lora(projections=('query', 'key')),
      {'projections'},
    ),
    (deltas.prompt(length=3), deltas.prompt(length=4), {'length'}),
    # where it starts does not change what it is
    (deltas.prompt(start='labels'), deltas.prompt(start='uniform'), set()),
    (deltas.prefix(scale=1.0), deltas.prefix(scale=2.0), set()),
    (deltas.prompt(), deltas.lora(), {'method'}),
    (strategies.encoder('cnn'), strategies.encoder('mlp'), {'kind'}),
  ],
)
def test_settings_that_change_the_meaning_are_named(one, other, differ):
  found = base.differing(one, other.name, from_card(other))
  assert set(found) == differ
  for name in differ - {'method'}:
    theirs, ours = found[name]
    assert theirs == from_card(other)[name] and ours == from_card(one)[name]


def test_what_an_old_card_does_not_say_is_not_compared():
  assert base.differing(deltas.lora(rank=4), 'lora', {'rank': 4}) == {}
