"""Delta methods, one file each. A new method is one more line here."""

from prompt_subspace.deltas.adapter import adapter
from prompt_subspace.deltas.base import (
  Frozen,
  Method,
  Setting,
  bound,
  check_names,
)
from prompt_subspace.deltas.full import full
from prompt_subspace.deltas.lora import lora
from prompt_subspace.deltas.prefix import prefix
from prompt_subspace.deltas.prompt import prompt

__all__ = [
  'METHODS',
  'Frozen',
  'Method',
  'Setting',
  'adapter',
  'bound',
  'full',
  'lora',
  'make',
  'prefix',
  'prompt',
]

METHODS = {
  'prompt': prompt,
  'prefix': prefix,
  'lora': lora,
  'adapter': adapter,
  'full': full,
}


def make(name: str, **settings) -> Method:
  """Returns the method of a name in the registry, with its settings.

  Raises:
    ValueError: the name is unknown.
  """
  check_names('method', (name,), tuple(METHODS))
  return METHODS[name](**settings)
