"""Methods under several values of one setting: the library of a sweep.

In a gin file:

  LIBRARY = @variants.library()
  METHODS = None
  RATES = {"lora": [1e-2]}
  variants.library:
    methods = {"lora": @deltas.lora}
    setting = "rank"
    values = [1, 4, 16]
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence

from prompt_subspace.deltas.base import Method, check_list, check_names


def library(
  methods: Mapping[str, Callable[..., Method]],
  setting: str,
  values: Sequence[float],
  beside: Mapping[str, Method] | None = None,
) -> dict[str, Method]:
  """Returns {'lora 1': lora(rank=1), 'lora 4': lora(rank=4), ...}.

  Args:
    methods: name -> what makes the method, such as `deltas.lora`; its other
      settings are its own or gin's.
    setting: of all of them, such as 'rank'.
    values: numbers that it takes.
    beside: name -> method to compare with.

  Raises:
    ValueError: a method without the setting; a value that is no number, or two
      of one name, with six digits.
  """
  check_list('methods', methods, of='method')
  check_list('values', values, of='number')
  for name, make in methods.items():
    known = tuple(inspect.signature(make).parameters)
    check_names(f'setting, {name}', (setting,), known)
  for value in values:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      raise ValueError(f'values: expected numbers, found {value!r}.')
  made = [
    (f'{name} {value:g}', make(**{setting: value}))
    for name, make in methods.items()
    for value in values
  ]
  made += (beside or {}).items()
  names = [name for name, _ in made]
  if twice := sorted({n for n in names if names.count(n) > 1}):
    raise ValueError(
      f'values, beside: expected names that differ, found {twice[0]!r} twice.'
    )
  return dict(made)


def line(name: str) -> str:
  """Returns what a method is a variant of: 'cnn 5' is one of 'cnn'.

  A name that does not end with a number is a line of its own.
  """
  return re.sub(r' [\d.e+-]+$', '', name)
