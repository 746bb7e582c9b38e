"""Training a stack of rows: one compiled step advances many runs.

The rows share the backbone and the method's structure. Their learning rates,
seeds, initialisations and data differ by array, not by code. A row's result
does not depend on the rows beside it.
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PyTree

from prompt_subspace.backbone.config import T5Config
from prompt_subspace.objectives import Objective
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training.optimizers import Optimizer

# positions x width of what is in flight at once on a CPU
MICROBATCH_ACTIVATIONS = 5 * 2**16
# float32 bytes that a step keeps of each position, layer and channel until its
# gradient has passed: 58 on an H200 (prompt of 20, 60 rows of 16 x 128 tokens,
# mini), and room for methods that need more
CHANNEL_BYTES = 100


class State(NamedTuple):
  """What is carried from step to step; every leaf has a leading axis W.

  Attributes:
    phi: what is trained.
    optimizer: its optimiser state.
    best: phi with the best validation score so far.
    best_score: that score; -inf before the first evaluation.
    best_step: after how many steps it was reached.
    alive: False from the step on whose loss or update was not finite; phi is
      then the last good one and stays.
    stopped: the step at which the row stopped, -1 if it runs.
  """

  phi: PyTree
  optimizer: PyTree
  best: PyTree
  best_score: Float[Array, ' W']
  best_step: Int[Array, ' W']
  alive: Bool[Array, ' W']
  stopped: Int[Array, ' W']


def row_key(seed: int, row_id: str) -> tuple[int, int]:
  """Returns the numbers that name a row, whatever stack it is in."""
  return int(seed), zlib.crc32(row_id.encode())


def random_key(key: tuple[int, int]) -> Array:
  """Returns JAX's random key of a row."""
  return jax.random.fold_in(jax.random.key(key[0]), key[1])


def start(phis: list[PyTree], optimizer: Optimizer) -> State:
  """Returns the state of rows that start from the given phis.

  Raises:
    ValueError: the phis differ in structure, shapes or types.
  """
  kinds = {
    (
      jax.tree.structure(p),
      tuple((jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(p)),
    )
    for p in phis
  }
  if len(kinds) != 1:
    raise ValueError(
      f'rows: expected phis of one structure in a stack, found {len(kinds)} '
      'different ones. Put rows of different methods or sizes into different '
      'stacks.'
    )

  @jax.jit
  def make(phis):
    phi = jax.tree.map(lambda *xs: jnp.stack(xs), *phis)
    count = len(phis)
    return State(
      phi=phi,
      # the rate plays no part in an optimiser's initial state
      optimizer=jax.vmap(lambda p: optimizer(0.0).init(p))(phi),
      best=jax.tree.map(jnp.copy, phi),
      best_score=jnp.full((count,), -jnp.inf),
      best_step=jnp.zeros((count,), jnp.int32),
      alive=jnp.ones((count,), bool),
      stopped=jnp.full((count,), -1, jnp.int32),
    )

  return make(tuple(phis))


def chunk_size(count: int) -> int:
  """Returns how many rows are computed at once.

  One on a CPU, where batching rows costs memory and gains nothing; all on an
  accelerator.
  """
  return 1 if jax.default_backend() == 'cpu' else count


def rows_at_once(positions: int, config: T5Config) -> int | None:
  """Returns how many rows an accelerator computes at once.

  As many as fit into half of its memory, with what a step keeps for the
  gradient.

  Args:
    positions: of a row's batch, padding and prompts included.
    config: of the backbone.

  Returns:
    At least 1; None where nothing is known of the device's memory.
  """
  known = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' not in known:
    return None
  layers = config.num_encoder_layers + config.num_decoder_layers
  each = positions * layers * config.emb_dim * CHANNEL_BYTES
  return max(1, known['bytes_limit'] // 2 // each)


def map_rows(
  function: Callable,
  rows: PyTree,
  chunk: int | None = None,
  mesh: Mesh | None = None,
) -> PyTree:
  """Applies a function to every row, `chunk` rows at a time.

  Args:
    function: of one row.
    rows: stacked.
    chunk: rows computed at once, on each part of the mesh; None suits the
      device. Down to half of it are, where none are left over then: a remainder
      is a second program to compile.
    mesh: its axis `row` divides the rows.
  """

  def run(rows):
    count = jax.tree.leaves(rows)[0].shape[0]
    size = _even(count, chunk or chunk_size(count))
    if size >= count > 1:
      return jax.vmap(function)(rows)
    if size == 1:
      return jax.lax.map(function, rows)
    return jax.lax.map(function, rows, batch_size=size)

  return meshes.over_rows(mesh, run, rows)


def _even(count: int, chunk: int) -> int:
  """Returns the largest divisor of `count` from chunk / 2 on, or `chunk`."""
  sizes = range(min(chunk, count), (chunk - 1) // 2, -1)
  return next((n for n in sizes if count % n == 0), chunk)


def microbatch_size(
  batch: Mapping[str, Array], extra: int = 0, width: int = 512
) -> int:
  """Returns how many examples are in flight at once within a step.

  On a CPU about 640 positions of width 512, or more of a smaller width: that
  keeps the matrix units busy and the activations small. On an accelerator the
  whole batch.

  Args:
    batch: of one row.
    extra: positions that the method adds to each input.
    width: of the backbone, D.
  """
  size, length = batch['inputs'].shape
  if jax.default_backend() != 'cpu':
    return size
  fits = max(1, MICROBATCH_ACTIVATIONS // (width * (length + extra)))
  return max(d for d in range(1, size + 1) if size % d == 0 and d <= fits)


def value_and_grad(
  objective: Objective,
  phi: PyTree,
  batch: Mapping[str, Array],
  key: Array,
  microbatch: int | None,
  mesh: Mesh | None = None,
) -> tuple[Float[Array, ''], dict, PyTree]:
  """Returns loss, metrics and the gradient with respect to phi alone.

  The batch is run in microbatches of `microbatch` examples (None: whole); only
  phi's small gradient is accumulated, weighted by the metric `weight` (tokens),
  so that the result is that of the whole batch, dropout included. Each
  microbatch is spread over the axis `data` of the mesh.
  """
  run = jax.value_and_grad(objective, has_aux=True)
  if microbatch is None:
    (loss, metrics), grads = run(phi, batch, key)
    return loss, metrics, grads
  size = batch['targets'].shape[0]
  if size % microbatch:
    raise ValueError(
      f'microbatch: expected a divisor of the batch size {size}, found '
      f'{microbatch}.'
    )
  if microbatch == size:
    return value_and_grad(objective, phi, batch, key, None)
  # dropout of an example is that in the whole batch
  batch = {**batch, 'examples': jnp.arange(size)}
  parts = jax.tree.map(
    lambda x: x.reshape(size // microbatch, microbatch, *x.shape[1:]), batch
  )

  def add(carry, content):
    content = meshes.on_data(mesh, content)
    (loss, metrics), grads = run(phi, content, key)
    weight = metrics['weight']
    new = {**metrics, 'loss': loss}
    del new['weight']
    weighted = jax.tree.map(lambda x: x * weight, (new, grads))
    return jax.tree.map(jnp.add, carry, (weight, weighted)), None

  first = jax.tree.map(lambda x: x[0], parts)
  (_, metrics), _ = jax.eval_shape(run, phi, first, key)
  zero = (0.0, ({m: 0.0 for m in ('loss', *metrics) if m != 'weight'}, phi))
  zero = jax.tree.map(jnp.zeros_like, zero)
  (weight, total), _ = jax.lax.scan(add, zero, parts)
  safe = jnp.maximum(weight, 1e-9)
  means, grads = jax.tree.map(lambda x: x / safe, total)
  return means.pop('loss'), {**means, 'weight': weight}, grads


def make_step(
  objective_of: Callable[[Any], Objective],
  optimizer: Optimizer,
  *,
  chunk: Callable[[Mapping], int | None] = lambda _: None,
  split: Callable[[Mapping], int] | None = microbatch_size,
  mesh: Mesh | None = None,
) -> Callable:
  """Returns the compiled step that advances all rows of a stack.

  Args:
    objective_of: frozen weights -> objective. The weights are an argument of
      the compiled step, so that they are shared and never copied into it.
    optimizer: rate -> transform.
    chunk: batch of a row -> rows computed at once; None is as many as
      `chunk_size` says.
    split: batch of a row -> examples in flight at once; None leaves batches
      whole, whatever axes they have.
    mesh: of several devices.

  Returns:
    step(state, frozen, batch, rates [W], keys [W], number) ->
    (state, metrics); every leaf of `batch` has leading axes W, B. The state
    is donated.
  """

  def advance(frozen, number, row):
    state, batch, rate, key = row
    size = None if split is None else split(batch)
    loss, metrics, grads = value_and_grad(
      objective_of(frozen),
      state.phi,
      batch,
      jax.random.fold_in(key, number),
      size,
      mesh,
    )
    updates, inner = optimizer(rate).update(grads, state.optimizer, state.phi)
    phi = optax.apply_updates(state.phi, updates)
    finite = jnp.isfinite(loss)
    for leaf in jax.tree.leaves(phi):
      finite &= jnp.all(jnp.isfinite(leaf))
    alive = state.alive & finite
    # a select for every leaf would take half of the time to compile
    phi, inner = jax.lax.cond(
      alive,
      lambda: (phi, inner),
      lambda: (state.phi, state.optimizer),
    )
    stopped = jnp.where(state.alive & ~finite, number, state.stopped)
    new = state._replace(phi=phi, optimizer=inner, alive=alive, stopped=stopped)
    return new, {**metrics, 'loss': loss}

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, frozen, batch, rates, keys, number):
    run = functools.partial(advance, frozen, number)
    found = map_rows(run, (state, batch, rates, keys), chunk(_one(batch)), mesh)
    if mesh is None:
      return found
    # where the state lies stays the same, and every host sees the numbers
    there = meshes.state_shardings(mesh, state, frozen.weights)
    there = (there, meshes.sharding(mesh))
    return jax.lax.with_sharding_constraint(found, there)

  return step


def _one(batch: PyTree) -> PyTree:
  """Shapes of a row's batch."""
  return jax.eval_shape(lambda b: jax.tree.map(lambda x: x[0], b), batch)


def make_probe(
  probe_of: Callable[[Any], Callable],
  chunk: Callable[[Mapping], int | None] = lambda _: None,
  mesh: Mesh | None = None,
) -> Callable:
  """Returns what looks at all rows of a stack and changes nothing.

  Args:
    probe_of: frozen weights -> ((phi, batch, key) -> numbers).
    chunk: as of `make_step`.
    mesh: of several devices.

  Returns:
    probe(phi, frozen, batch, keys [W], number) -> {name: [W]}.
  """

  @jax.jit
  def probe(phi, frozen, batch, keys, number):
    def look(row):
      phi, batch, key = row
      return probe_of(frozen)(phi, batch, jax.random.fold_in(key, number))

    found = map_rows(look, (phi, batch, keys), chunk(_one(batch)), mesh)
    return meshes.everywhere(mesh, found)

  return probe


def choose(which: Bool[Array, ' W'], yes: PyTree, no: PyTree) -> PyTree:
  """Takes each row from one of two stacks."""
  return jax.tree.map(
    lambda x, y: jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y),
    yes,
    no,
  )


@functools.partial(jax.jit, donate_argnums=0)
def keep_best(
  state: State, scores: Float[Array, ' W'], number: Int[Array, '']
) -> State:
  """Keeps phi of the rows whose validation score is above their best."""
  better = (scores > state.best_score) & state.alive
  return state._replace(
    best=choose(better, state.phi, state.best),
    best_score=jnp.where(better, scores, state.best_score),
    best_step=jnp.where(better, number, state.best_step),
  )


@functools.partial(jax.jit, static_argnames=('width', 'target_width'))
def gather(
  data: Mapping[str, Array],
  indices: Int[Array, 'W ...'],
  width: int,
  target_width: int,
) -> dict[str, Array]:
  """Takes batches out of arrays that stay on the device.

  `inputs` and `encoded` are cut to `width` positions, `targets` to
  `target_width`; what is cut off is padding.
  """
  cut = {'targets': target_width}
  return {
    name: jnp.take(x[:, : cut.get(name, width)], indices, axis=0)
    for name, x in data.items()
  }


def to_rows(tree: PyTree) -> list[PyTree]:
  """Returns the rows of a stacked tree, as numpy arrays."""
  held = meshes.fetch(tree)
  count = len(jax.tree.leaves(held)[0])
  return [jax.tree.map(lambda x, i=i: x[i], held) for i in range(count)]
