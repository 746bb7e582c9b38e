"""A stage: what its runs share, and what decides their numbers."""

import numbers
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from prompt_subspace import heap, trees
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import arrays as task_arrays
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.tasks import Task
from prompt_subspace.deltas import METHODS, base
from prompt_subspace.deltas.base import Method, Setting, check_names
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import engine as engines
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import optimizers, spec
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.vocabulary import UNK


class Stage(NamedTuple):
  """What the runs of a stage share.

  Attributes:
    folder: of the results.
    bank: folder of the trained deltas, anywhere that etils reaches.
    backbone: frozen model; dropout is that of its configuration.
    setting: what initialisations may read of it.
    library: name -> method.
    optimizer: rate -> transform.
    settings: steps, batch size, evaluation.
    keep: methods whose trained deltas are stored.
    algorithm: what the runs minimise, and on which examples.
    engines: compiled functions by method, filled on first use. Stages that
      differ in steps alone may share them.
  """

  folder: pathlib.Path
  bank: epath.Path
  backbone: Backbone
  setting: Setting
  library: Mapping[str, Method]
  optimizer: optimizers.Optimizer
  settings: spec.Settings
  keep: tuple[str, ...]
  algorithm: Algorithm
  engines: dict[str, engines.Engine]


def make(
  folder: str | pathlib.Path,
  backbone: str | Backbone,
  library: Mapping[str, Method] | None = None,
  methods: Sequence[str] | None = None,
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  settings: spec.Settings = spec.Settings(),
  dropout: float = 0.0,
  keep: Sequence[str] | None = None,
) -> Stage:
  """Loads the backbone and checks names and settings.

  Args:
    folder: of the results.
    backbone: name, folder or a loaded backbone; it needs a vocabulary.
    library: name -> method; by default every method with its own defaults.
    methods: names in `library` that are used; None: all.
    optimizer: rate -> transform.
    settings: of the runs.
    dropout: of the backbone while training.
    keep: methods whose trained deltas are stored; None: all.

  Raises:
    ValueError: an unknown name, a setting out of range, or no vocabulary.
  """
  spec.check(settings)
  if not (isinstance(dropout, numbers.Real) and 0 <= dropout < 1):
    raise ValueError(
      f'dropout: expected a share of at least 0 and below 1, found {dropout!r}.'
    )
  library = library or {name: make() for name, make in METHODS.items()}
  library = _with_own(library, methods or ())
  if isinstance(optimizer, str):
    check_names('optimizer', (optimizer,), tuple(optimizers.OPTIMIZERS))
    optimizer = optimizers.OPTIMIZERS[optimizer]
  if not callable(optimizer):
    raise ValueError(
      'optimizer: expected a name or a function of the rate, such as '
      f'@optimizers.adam without (), found {optimizer!r}.'
    )
  methods = tuple(library if methods is None else methods)
  check_names('methods', methods, tuple(library))
  check_names('keep_deltas', tuple(keep or ()), (*library, *METHODS))
  if not isinstance(backbone, Backbone):
    if not isinstance(backbone, str | pathlib.Path):
      raise ValueError(
        'backbone: expected a name or a folder of a checkpoint, found '
        f'{backbone!r}.'
      )
    backbone = meshes.load(backbone)
  if backbone.vocabulary is None:
    raise ValueError(
      f'backbone: expected a vocabulary, found none with {backbone.name}. Put '
      'vocab.model or spiece.model into its folder, or load it with one: '
      'weights.load(folder, vocabulary=...).'
    )
  config = backbone.config.replace(dropout_rate=dropout)
  setting = backbones.setting(backbone)
  return Stage(
    folder=pathlib.Path(folder),
    bank=epath.Path(folder) / 'bank',
    backbone=backbone._replace(config=config),
    setting=setting,
    library={name: base.bound(library[name], setting) for name in methods},
    optimizer=optimizer,
    settings=settings,
    keep=tuple(methods if keep is None else keep),
    algorithm=algorithms.TUNING,
    engines={},
  )


def _with_own(
  library: Mapping[str, Method], methods: Sequence[str]
) -> dict[str, Method]:
  """The library, with methods of `METHODS` that are asked for beside it."""
  for name, method in library.items():
    if not isinstance(method, Method):
      raise ValueError(
        f'library: expected a method for {name!r}, such as @deltas.prompt() '
        f'with (), found {method!r}.'
      )
  own = [n for n in methods if n not in library and n in METHODS]
  return {**library, **{n: METHODS[n]() for n in own}}


def prepare(
  stage: Stage,
  tasks: Mapping[str, Task],
  cache: str | pathlib.Path | None,
  max_input: int,
  max_target: int,
  limit: int | None = None,
) -> dict[str, TaskArrays]:
  """Returns the arrays of tasks; every mistake in their data shows here.

  Args:
    stage: whose vocabulary counts.
    tasks: see `data.tasks.find`.
    cache: folder of prepared arrays; None: `cache` beside the stage's folder.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    limit: at most so many examples of each split.
  """
  cache = cache or stage.folder.parent / 'cache'
  vocabulary = stage.backbone.vocabulary
  return {
    name: task_arrays.prepare(
      task, vocabulary, cache, max_input, max_target, limit=limit
    )
    for name, task in tasks.items()
  }


def task_setting(stage: Stage, arrays: TaskArrays) -> Setting:
  """Returns what an initialisation may read of backbone and task."""
  encode = stage.backbone.vocabulary.encode
  labels = tuple(tuple(encode(text)) for text in arrays.label_texts or ())
  return stage.setting._replace(labels=labels)


def initial(
  stage: Stage, method: str, arrays: TaskArrays, seed: int, name: str
) -> Any:
  """Draws a phi as its method does; seed and name decide the draw."""
  key = stack_rows.random_key(stack_rows.row_key(seed, name))
  return stage.library[method].init(
    jax.random.fold_in(key, 1), task_setting(stage, arrays)
  )


def shapes(stage: Stage, method: str, arrays: TaskArrays) -> Any:
  """Returns the shapes of a method's phi; draws nothing."""
  setting = task_setting(stage, arrays)
  phi = jax.eval_shape(
    lambda key: stage.library[method].init(key, setting), jax.random.key(0)
  )
  _check_phi(method, phi)
  return phi


def _check_phi(method: str, phi: Any) -> None:
  """Raises ValueError if a phi would not come back from a bank as it is."""
  flat = trees.flatten(phi) if isinstance(phi, Mapping) else {'': phi}
  arrays = all(isinstance(x, jax.ShapeDtypeStruct) for x in flat.values())
  names = [name for path in _paths(phi) for name in path]
  if '' in flat or not arrays or any('/' in name for name in names):
    raise ValueError(
      f'{method}: expected a phi of nested dicts without "/" in their names, '
      f'found {jax.tree.structure(phi)}.'
    )
  wrong = {p: x.dtype.name for p, x in flat.items() if x.dtype != jnp.float32}
  if wrong:
    raise ValueError(f'{method}: expected a phi of float32, found {wrong}.')


def _paths(tree: Any) -> Iterator[tuple[str, ...]]:
  """Names on the way to each leaf of nested mappings."""
  if not isinstance(tree, Mapping):
    yield ()
    return
  for name, inner in tree.items():
    for path in _paths(inner):
      yield (str(name), *path)


def engine(stage: Stage, method: str, phi: Any) -> engines.Engine:
  """Returns the compiled functions of a method, made on first use.

  Many tasks make many programs; those of before may be dropped here.
  """
  heap.drop_programs()
  # stages that share engines may differ in these
  name = method, stage.settings.microbatch, stage.settings.chunk
  if name not in stage.engines:
    stage.engines[name] = engines.make(
      stage.backbone,
      stage.library[method],
      stage.optimizer,
      stage.settings,
      phi,
      stage.algorithm,
    )
  return stage.engines[name]


def identity(stage: Stage) -> dict[str, Any]:
  """Returns what decides the numbers of a stage beside its data."""
  decisive = {
    name: value
    for name, value in stage.settings._asdict().items()
    if name not in spec.SPEED_ONLY
  }
  return {
    'fingerprint': stage.backbone.fingerprint,
    'backbone': stage.backbone.config.to_json(),
    'settings': decisive,
    'optimizer': _name(stage.optimizer),
    'optimizer_moved': optimizers.behaviour(stage.optimizer),
    'dropout': stage.backbone.config.dropout_rate,
    'algorithm': {'name': stage.algorithm.name, **stage.algorithm.settings},
    'methods': {
      n: {'name': m.name, **m.settings} for n, m in stage.library.items()
    },
  }


def _name(optimizer: optimizers.Optimizer) -> str:
  """Of the function, without its address; of a `partial`, that inside it."""
  inner = getattr(optimizer, 'func', optimizer)
  return getattr(inner, '__name__', type(inner).__name__)


def describe_backbone(stage: Stage) -> str:
  """Returns lines of a plan: backbone and device."""
  config = stage.backbone.config
  return (
    f'backbone   {stage.backbone.name}, '
    f'{trees.size(stage.backbone.weights):,} parameters, {config.dtype}, '
    f'fingerprint {stage.backbone.fingerprint[:12]}\n'
    f'device     {jax.devices()[0].device_kind} x {jax.device_count()}, '
    f'mesh: {meshes.describe(stage.backbone.mesh)}'
  )


def describe_task(
  name: str, arrays: TaskArrays, settings: spec.Settings
) -> str:
  """Returns a line of a plan: a task, its size, and what scores do not see.

  Scores are of the first examples of a split, and a file may be sorted.
  """
  counts = '/'.join(str(len(a.labels)) for a in arrays.splits.values())
  cut = sum(
    c.get('inputs', 0) for c in arrays.record.get('truncated', {}).values()
  )
  inputs = arrays.splits['train'].inputs
  unknown = (inputs == UNK).sum() / max(1, (inputs > 0).sum())
  return (
    f'task       {name}: {arrays.kind}, {counts} examples, '
    f'longest input {arrays.splits["train"].inputs.shape[1]} tokens'
    + (f', {cut} inputs cut' if cut else '')
    + (f', {100 * unknown:.0f} % unknown pieces' if unknown >= 0.005 else '')
    + ''.join(_unseen(arrays, settings))
  )


def _unseen(arrays: TaskArrays, settings: spec.Settings) -> Iterator[str]:
  if arrays.label_texts is None:
    return
  for split, count in (
    ('validation', settings.validation_examples),
    ('test', settings.test_examples),
  ):
    labels = arrays.splits[split].labels
    seen, known = len(set(labels[:count])), len(set(labels))
    if seen < known:
      yield (
        f', its first {count} {split} examples have {seen} of {known} labels: '
        'shuffle the file'
      )
