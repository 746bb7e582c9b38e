"""What a method is: how a small trained tree becomes a delta.

A method is a pair of pure functions. Everything that trains, saves, restores,
shards or reports a run derives from the tree phi that `init` returns.
"""

import json
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from prompt_subspace import trees

Phi = Any
Delta = dict


class Setting(NamedTuple):
  """What an initialisation may read: the backbone and the task.

  Attributes:
    config: the backbone's configuration (a `T5Config` or alike).
    weights: the backbone's weights, with layers named one by one; shapes
      alone (`jax.ShapeDtypeStruct`) of layers that are scanned, and where a
      plan of memory is made. The token table always has its values.
    vocab_limit: number of pieces; rows above it are sentinels and padding.
    labels: token ids of each label text of the task, without end token.
    encode: text -> token ids.
    fingerprint: of the backbone's weights; empty where nobody asks.
  """

  config: Any
  weights: Mapping
  vocab_limit: int = 0
  labels: tuple[tuple[int, ...], ...] = ()
  encode: Callable[[str], list[int]] | None = None
  fingerprint: str = ''

  @property
  def embedding(self) -> Float[Array, 'V D']:
    """The token table of the backbone."""
    return self.weights['token_embedder']['embedding']


class Frozen(NamedTuple):
  """What compiled functions read and nothing trains; one of their arguments.

  Attributes:
    weights: of the backbone.
    constants: of the method, see `Method`.
  """

  weights: Mapping
  constants: Any = None


class Method(NamedTuple):
  """A way to make deltas.

  Attributes:
    name: as in the registry.
    init: (key, setting) -> phi, nested dicts of float32 arrays, without `/`
      in their names; all that is trained.
    expand: (phi, batch) -> delta, the tree that the backbone's sites read.
      Leaves may have a leading batch axis (one delta for each example).
    reads_batch: whether `expand` looks at the batch.
    settings: the arguments it was made with, as JSON values; for cards and
      for telling whether two runs are of the same method.
    constants: a tree of arrays that `expand` reads beside phi and that is not
      trained, such as the basis of a subspace; it is then the third argument
      of `expand`. None where there is none.
    bind: (setting) -> the method with its constants, where these depend on the
      backbone. Until it is bound, such a method can do nothing else.
    starting: names of the settings that decide where phi starts and no more.
  """

  name: str
  init: Callable[[Array, Setting], Phi]
  expand: Callable[[Phi, Any], Delta]
  reads_batch: bool = False
  settings: Mapping[str, Any] = {}
  constants: Any = None
  bind: Callable[[Setting], 'Method'] | None = None
  starting: tuple[str, ...] = ()

  def delta(self, phi: Phi, batch: Any, constants: Any = None) -> Delta:
    """Returns `expand` of phi, with the constants where it takes any."""
    if self.constants is None:
      return self.expand(phi, batch)
    return self.expand(phi, batch, constants)


def bound(method: Method, setting: Setting) -> Method:
  """Returns a method with its constants, whether or not it needs any."""
  return method if method.bind is None else method.bind(setting)


def differing(
  method: Method, name: str, settings: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns by what a stored phi means another delta than with a method.

  Args:
    method: bound, where it has constants.
    name: of the method that phi was trained with.
    settings: of it, from the card. What a card lacks is not compared.

  Returns:
    {setting: (the card's, the method's)}, empty where they mean the same.
  """
  if name != method.name:
    return {'method': (name, method.name)}
  own = json.loads(json.dumps(dict(method.settings)))
  return {
    n: (settings[n], own[n])
    for n in own
    if n in settings and n not in method.starting and settings[n] != own[n]
  }


def unbound(
  name: str,
  bind: Callable[[Setting], Method],
  settings: Mapping[str, Any],
  reads_batch: bool = False,
) -> Method:
  """Returns a method that can do nothing until it is bound, and says so.

  Args:
    name: as in the registry.
    bind: (setting) -> the method with its constants.
    settings: the arguments it was made with, as JSON values.
    reads_batch: whether the bound method's `expand` looks at the batch.
  """

  def refuse(*_):
    raise ValueError(
      f'{name}: expected a method that is bound to a backbone, found one that '
      'is not. Call deltas.bound(method, setting) first; recipes do.'
    )

  return Method(name, refuse, refuse, reads_batch, settings=settings, bind=bind)


def stacks(config: Any) -> dict[str, int]:
  """Returns the number of layers of each stack of the backbone."""
  return {
    'encoder': config.num_encoder_layers,
    'decoder': config.num_decoder_layers,
  }


ATTENTIONS = {
  'encoder': {'self': 'attention'},
  'decoder': {'self': 'self_attention', 'cross': 'encoder_decoder_attention'},
}


def attention_sites(
  config: Any, kinds: tuple[str, ...], where: tuple[str, ...]
) -> list[str]:
  """Lists the paths of attention modules.

  Args:
    config: the backbone's configuration.
    kinds: of `self`, `cross`.
    where: of `encoder`, `decoder`.

  Raises:
    ValueError: an unknown kind or stack, or nothing selected.
  """
  check_names('attentions', kinds, ('self', 'cross'))
  check_where(where)
  found = [
    f'{stack}/layers_{i}/{name}'
    for stack, layers in stacks(config).items()
    if stack in where
    for i in range(layers)
    for kind, name in ATTENTIONS[stack].items()
    if kind in kinds
  ]
  if not found:
    raise ValueError(
      f'attentions: {kinds} in {where} selects no attention of the backbone. '
      'Cross-attention is in the decoder only.'
    )
  return found


def flat_weights(setting: Setting) -> dict[str, Any]:
  """Returns {path: weight or its shape} of the backbone.

  Raises:
    ValueError: the layers are stacked; deltas name them one by one.
  """
  flat = trees.flatten(setting.weights)
  if stacked := [path for path in flat if '/layers/' in path]:
    raise ValueError(
      'weights: expected layers named one by one, as in encoder/layers_0, '
      f'found stacked ones: {stacked[:1]}. Make the setting with '
      'prompt_subspace.backbone.weights.setting.'
    )
  return flat


def check_where(where: tuple[str, ...]) -> None:
  """Raises ValueError unless `where` names at least one stack."""
  check_names('where', where, tuple(ATTENTIONS))
  if not where:
    raise ValueError(
      f'where: expected at least one of {tuple(ATTENTIONS)}, found none.'
    )


def check_names(
  argument: str, found: tuple[str, ...], known: tuple[str, ...]
) -> None:
  """Raises ValueError if a name is not among the known ones."""
  if unknown := sorted(set(found) - set(known)):
    raise ValueError(
      f'{argument}: expected names among {sorted(known)}, found {unknown}. '
      'Name one of the known ones.'
    )


def check_list(argument: str, value: Any, of: str = 'item') -> None:
  """Raises ValueError unless the value is a list of something.

  A text is none, though it has letters: one name has to be a list of one.
  """
  if not isinstance(value, Collection) or isinstance(value, str) or not value:
    raise ValueError(
      f'{argument}: expected a list of at least one {of}, found {value!r}.'
    )


def check_rates(argument: str, value: Any) -> None:
  """Raises ValueError unless the value is a list of numbers above 0."""
  check_list(argument, value, of='rate')
  for rate in value:
    if not isinstance(rate, numbers.Real) or not rate > 0:
      raise ValueError(f'{argument}: expected numbers above 0, found {rate!r}.')


def check_seeds(argument: str, value: Any) -> None:
  """Raises ValueError unless the value is a list of whole numbers."""
  check_list(argument, value, of='seed')
  for seed in value:
    if not isinstance(seed, numbers.Integral):
      raise ValueError(f'{argument}: expected whole numbers, found {seed!r}.')


def positive(argument: str, value: int) -> None:
  """Raises ValueError unless the value is a positive whole number."""
  if not isinstance(value, int) or value < 1:
    raise ValueError(
      f'{argument}: expected a whole number >= 1, found {value!r}.'
    )


def touches_encoder(delta: Mapping) -> bool:
  """Whether a delta changes the encoder's output.

  If not, a frozen encoder's output can be computed once per example. An
  offset on the token embedding changes both stacks.
  """
  paths = trees.flatten(delta)
  return any(not path.startswith('decoder/') for path in paths)
