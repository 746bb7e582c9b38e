"""A plan ahead of time: does a step fit, and what do devices tell each other?

The real step is compiled for simulated devices, from shapes alone: no weights
are read, and none are made. Compiled is in float32, because a CPU has no other
arithmetic; weights are counted in the type that they are held in.
"""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, sites, weights
from prompt_subspace.deltas import base
from prompt_subspace.deltas.base import Frozen, Method, Setting
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import engine as engines
from prompt_subspace.training import features, hlo, optimizers, rows
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import stage as stages
from prompt_subspace.training.algorithm import Algorithm

GIB = 2**30


class Step(NamedTuple):
  """What is to be compiled.

  Attributes:
    config: of the backbone; dtypes as they will be.
    method: what is trained.
    algorithm: what is minimised.
    optimizer: rate -> transform.
    rows: runs in a stack, W.
    batch_size: examples of a row's update, B.
    inputs: tokens of an input, L.
    targets: tokens of a target, T.
    microbatch: examples in flight at once; None: all.
    shots: of an algorithm over episodes, examples of a support batch.
  """

  config: configs.T5Config
  method: Method
  algorithm: Algorithm = algorithms.TUNING
  optimizer: optimizers.Optimizer = optimizers.adafactor
  rows: int = 1
  batch_size: int = 32
  inputs: int = 512
  targets: int = 64
  microbatch: int | None = None
  shots: int = 8


class Plan(NamedTuple):
  """What a step needs of each device, in bytes, and what it does.

  Attributes:
    weights: frozen, in the type that they are held in.
    phi: trained, with the best one so far.
    optimizer: its state.
    constants: of the method.
    temporaries: activations and work space, in float32.
    collectives: by kind, in float32.
    operations: of the products, floating-point, of all devices together.
    devices: how many there are.
  """

  weights: int
  phi: int
  optimizer: int
  constants: int
  temporaries: int
  collectives: Mapping[str, hlo.Collective]
  operations: int
  devices: int

  @property
  def total(self) -> int:
    """Bytes of a device, at most: temporaries may be smaller in bfloat16."""
    held = self.weights + self.phi + self.optimizer + self.constants
    return held + self.temporaries


def make(step: Step, mesh: Mesh) -> Plan:
  """Compiles a step for a mesh of simulated devices; runs nothing.

  Raises:
    ValueError: the mesh does not divide the rows.
  """
  if step.rows % mesh.shape['row']:
    raise ValueError(
      f'rows: expected a multiple of {mesh.shape["row"]}, the size of the mesh '
      f'on `row`, found {step.rows}.'
    )
  config = step.config.replace(
    dtype='float32', weight_dtype='float32', dropout_rate=0.0, scan_layers=True
  )
  frozen = _frozen(config, mesh)
  setting, method = _bound(step.method, config)
  phi = _phi(method, setting)
  state = jax.eval_shape(
    lambda p: rows.start([p] * step.rows, step.optimizer), phi
  )
  there = meshes.state_shardings(mesh, state, frozen)
  state = jax.tree.map(_at, state, there)
  constants = jax.tree.map(
    lambda x: _shape(x.shape, x.dtype, mesh), method.constants
  )
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), step.rows))
  # an accelerator runs the parts of an episode whole
  split = None
  if not step.algorithm.episodes:
    split = lambda _: step.microbatch or step.batch_size  # noqa: E731
  run = rows.make_step(
    lambda f: step.algorithm.objective(
      engines.task_loss(config, method, f), split, f.constants
    ),
    step.optimizer,
    chunk=lambda _: step.rows // mesh.shape['row'],
    split=split,
    mesh=mesh,
  )
  traced = run.trace(
    state,
    Frozen(frozen, constants),
    _batch(step, mesh),
    _shape((step.rows,), jnp.float32, mesh, 'row'),
    _at(keys, meshes.sharding(mesh, 'row')),
    0,
  )
  compiled = traced.lower().compile()
  held = jnp.dtype(step.config.weight_dtype).itemsize
  return Plan(
    weights=_bytes(frozen) * held // 4,
    phi=_bytes((state.phi, state.best)),
    optimizer=_bytes(state.optimizer),
    constants=_bytes(constants),
    temporaries=int(compiled.memory_analysis().temp_size_in_bytes),
    collectives=hlo.collectives(compiled.as_text()),
    operations=hlo.operations(traced.jaxpr),
    devices=mesh.size,
  )


def _frozen(config: configs.T5Config, mesh: Mesh) -> dict:
  """The shapes of the stacked weights, and where they lie."""
  shapes = jax.eval_shape(
    lambda tree: sites.stack_layers(tree, forward.layer_counts(config)),
    weights.expected(config),
  )
  return jax.tree.map(_at, shapes, meshes.weight_shardings(mesh, shapes))


def _bound(method: Method, config) -> tuple[Setting, Method]:
  """The method on a backbone without values, all that it may read of it."""
  known = weights.expected(config.replace(scan_layers=False))
  setting = Setting(config, known, config.vocab_size, (), None)
  if method.bind is None:
    return setting, method
  # constants may be made of the token table: of this one weight there is one
  table = known['token_embedder']['embedding']
  values = {'token_embedder': {'embedding': jnp.zeros(table.shape)}}
  return setting, base.bound(
    method, setting._replace(weights={**known, **values})
  )


def _phi(method: Method, setting: Setting) -> Any:
  def init(key, table):
    known = {**setting.weights, 'token_embedder': {'embedding': table}}
    return method.init(key, setting._replace(weights=known))

  table = setting.weights['token_embedder']['embedding']
  return jax.eval_shape(init, jax.random.key(0), table)


def _batch(step: Step, mesh: Mesh) -> dict:
  """The shapes of a batch [W, ..., B, L], spread as `mesh.put_batch` does."""

  def make():
    batch = {
      'inputs': jnp.zeros((step.batch_size, step.inputs), jnp.int32),
      'targets': jnp.zeros((step.batch_size, step.targets), jnp.int32),
    }
    if step.algorithm.episodes:
      batch['task'] = jnp.zeros((step.batch_size, 1), jnp.int32)
      return features.episodes(batch, step.algorithm, step.shots)
    return batch

  def place(x):
    axes: list = ['row'] + [None] * x.ndim
    if x.shape[-2] % mesh.shape['data'] == 0:
      axes[-2] = 'data'
    return _shape((step.rows, *x.shape), x.dtype, mesh, *axes)

  return jax.tree.map(place, jax.eval_shape(make))


def _at(x: Any, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _shape(shape, dtype, mesh, *axes) -> jax.ShapeDtypeStruct:
  there = meshes.sharding(mesh, *axes)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=there)


def _bytes(tree: Any) -> int:
  """What one device holds of a tree."""
  return sum(
    math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )


def of_t5x(
  backbone: str,
  method: Method,
  lengths: Mapping[str, int],
  batch_size: int,
  microbatches: int | None = None,
  algorithm: Algorithm = algorithms.TUNING,
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  shots: int = 8,
  dtype: str = 'float32',
  weight_dtype: str = 'float32',
  remat: bool = False,
  **other,
) -> Step:
  """Returns the step of a gin file for T5X.

  Args:
    backbone: a folder at hand, or one with the name of a size in it.
    method: what is trained.
    lengths: of `inputs` and `targets`, in tokens.
    batch_size: of all devices together.
    microbatches: in how many parts the batch is run.
    algorithm: what is minimised.
    optimizer: rate -> transform.
    shots: examples of a support batch.
    dtype: of activations.
    weight_dtype: of frozen weights.
    remat: recompute each layer's activations.
    **other: arguments of the model that change no shape.

  Raises:
    ValueError: nothing tells the backbone's shape.
  """
  del other
  changes = {'dtype': dtype, 'weight_dtype': weight_dtype, 'remat': remat}
  return Step(
    shape_of(backbone).replace(**changes),
    method,
    algorithm,
    optimizer,
    batch_size=batch_size,
    inputs=lengths['inputs'],
    targets=lengths['targets'],
    microbatch=batch_size // (microbatches or 1),
    shots=shots,
  )


def shape_of(backbone: str) -> configs.T5Config:
  """Returns the shape of a backbone by a size in its name, or its files.

  Raises:
    ValueError: there is neither.
  """
  words = re.split(r'[^a-z0-9]+', str(backbone).lower())
  if found := [w for w in words if w in configs.SIZES]:
    return configs.sized(found[-1])
  if pathlib.Path(backbone).exists():
    return weights.load(backbone).config
  raise ValueError(
    f'backbone: expected a folder, or a name with one of '
    f'{", ".join(configs.SIZES)} in it, found {backbone!r}.'
  )


def resized(config: configs.T5Config, size: str | None) -> configs.T5Config:
  """Returns the shape of a size, with layers recomputed; None: as it is."""
  if size is None:
    return config
  types = {'dtype': config.dtype, 'weight_dtype': config.weight_dtype}
  return configs.sized(size, remat=True, **types)


def of_stage(
  where: stages.Stage, inputs: int, targets: int, size: str | None, rows: int
) -> list[Step]:
  """Returns the steps of a stage of the local engine, one for each method.

  Args:
    where: the stage.
    inputs: longest input in tokens.
    targets: longest target in tokens.
    size: plan for this size of backbone instead of its own.
    rows: W.

  Raises:
    ValueError: another size, for a method whose constants are of the stage's
      backbone.
  """
  config = resized(where.backbone.config, size)
  out = []
  for name, method in where.library.items():
    if size is not None and method.constants is not None:
      raise ValueError(
        f'size: expected methods that fit any backbone, found {name}, which is '
        f'bound to {where.backbone.name}. Name the backbone in the gin file.'
      )
    batch, settings = where.settings.batch_size, where.settings
    if where.algorithm.episodes:
      each = features.episode_size(where.algorithm, settings.batch_size)
      batch = where.algorithm.settings['tasks'] * each
    out.append(
      Step(
        config,
        method,
        where.algorithm,
        where.optimizer,
        rows,
        batch,
        inputs,
        targets,
        settings.microbatch,
        settings.batch_size,
      )
    )
  return out


def describe(
  step: Step, plan: Plan, mesh: Mesh, memory: float | None = None
) -> str:
  """Returns the plan for people.

  Args:
    step: what was planned.
    plan: of it.
    mesh: the devices.
    memory: of a device, in GiB, if it shall be said whether the step fits.
  """
  config = step.config
  lines = [
    f'mesh       {meshes.describe(mesh)}: {plan.devices} devices',
    f'step       {step.method.name}, {step.algorithm.name}: {step.rows} rows, '
    f'{step.batch_size} examples each'
    + (f' ({step.microbatch} at once)' if step.microbatch else '')
    + f', {step.inputs} input and {step.targets} target tokens',
    f'weights    {_gib(plan.weights)} a device, {config.weight_dtype}',
    f'phi        {_gib(plan.phi)}, with the best one so far',
    f'optimiser  {_gib(plan.optimizer)}',
  ]
  if plan.constants:
    lines.append(f'constants  {_gib(plan.constants)} of the method')
  lines.append(
    f'activations and temporaries  {_gib(plan.temporaries)}, all in float32'
    + ('; in bfloat16 down to half' if config.dtype == 'bfloat16' else '')
  )
  for kind, found in plan.collectives.items():
    lines.append(
      f'{kind}  {found.count} a step, {_gib(found.bytes)} to each device, in '
      'float32'
    )
  each = plan.operations / plan.devices
  lines.append(
    f'products   {plan.operations:.3g} operations a step, {each:.3g} a device'
  )
  total = f'together   at most {_gib(plan.total)} a device'
  if memory is not None:
    fits = 'it fits' if plan.total <= memory * GIB else 'it DOES NOT fit'
    total += f' of {memory:g} GiB: {fits}'
  return '\n'.join([*lines, total])


def _gib(count: int) -> str:
  if count < 0.1 * GIB:
    return f'{count / 2**20:.1f} MiB'
  return f'{count / GIB:.2f} GiB'


def simulate(sizes: Sequence[int]) -> Mesh:
  """Returns a mesh of devices that are not there; before JAX is used.

  Raises:
    ValueError: it is too late.
  """
  count = math.prod(sizes)
  try:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', count)
  except RuntimeError as error:
    raise ValueError(f'mesh: {error}') from error
  return meshes.lay(sizes, jax.devices()[:count])
