"""One measurement of this library, in a process of its own.

python -m benchmarks.ours FOLDER CASE [one by one | another method]
"""

import json
import pathlib
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import numpy as safetensors_numpy

from benchmarks import clock, inputs
from benchmarks.cases import Case
from prompt_subspace import deltas, trees
from prompt_subspace.backbone import forward, weights
from prompt_subspace.deltas import Frozen
from prompt_subspace.training import algorithm, optimizers, rows, spec
from prompt_subspace.training import engine as engines

RATE = 1e-3


class Side:
  """A backbone, a method's engine, and the data of a case."""

  def __init__(
    self,
    folder: pathlib.Path,
    case: Case,
    trained_by: algorithm.Algorithm = algorithm.TUNING,
  ):
    self.case = case
    with np.load(folder / f'{case.slug}.npz') as stored:
      self.data = {k: jnp.asarray(v) for k, v in stored.items()}
    place = folder / case.size
    config = inputs.config(case.size)
    self.backbone = weights.load(place, **_changes(config, case.compact))
    start = safetensors_numpy.load_file(place / f'{case.method}.safetensors')
    self.phi = jax.tree.map(jnp.asarray, trees.unflatten(start))
    method = deltas.bound(
      inputs.METHODS[case.method], weights.setting(self.backbone)
    )
    self.frozen = Frozen(self.backbone.weights, method.constants)
    self.optimizer = optimizers.OPTIMIZERS[case.optimizer]
    self.engine = engines.make(
      self.backbone,
      method,
      self.optimizer,
      spec.Settings(),
      self.phi,
      trained_by,
    )
    self.random = [
      rows.random_key(rows.row_key(i, 'bench')) for i in range(case.rows)
    ]

  def start(self, count: int) -> rows.State:
    return rows.start([self.phi] * count, self.optimizer)

  def advance(self, state, batch, members, number):
    """One step of the rows `members`."""
    return self.engine.step(
      state,
      self.frozen,
      batch,
      jnp.full((len(members),), RATE),
      jnp.stack([self.random[i] for i in members]),
      number,
    )


def _changes(config, compact: bool) -> dict:
  return {
    'dropout_rate': config.dropout_rate,
    'prefix_positions': config.prefix_positions,
    'scan_layers': compact,
    'remat': compact,
  }


def step(side: Side) -> dict:
  """Times single training steps."""
  batch = {k: side.data[k] for k in ('inputs', 'targets')}
  if side.case.cached:
    config = side.backbone.config
    run = jax.jit(lambda w, x: forward.encode(config, w, {}, x))
    batch['encoded'] = run(side.backbone.weights, batch['inputs'])
  return repeated(side, batch)


def repeated(side: Side, batch: Mapping) -> dict:
  """Times single steps of one row on a batch."""
  batch = jax.tree.map(lambda x: x[None], batch)
  state, times, losses = side.start(1), [], []
  for number in range(1 + side.case.steps):

    def once(state=state, number=number):
      state, metrics = side.advance(state, batch, [0], number)
      return state, float(metrics['loss'][0])

    (state, loss), seconds = clock.timed(once)
    times.append(seconds)
    losses.append(loss)
  return {'first': times[0], 'times': times[1:], 'losses': losses}


def runs(side: Side, together: bool) -> dict:
  """Times whole training runs: all in one compiled step, or one by one."""
  case, data = side.case, side.data
  examples = {k: data[k] for k in ('inputs', 'targets')}
  widths = np.asarray(data['widths'])
  indices = np.asarray(data['indices'])
  groups = [list(range(case.rows))]
  if not together:
    groups = [[row] for row in groups[0]]

  def train(members, numbers):
    state, losses = side.start(len(members)), []
    for number in numbers:
      batch = rows.gather(
        examples,
        jnp.asarray(indices[number][members]),
        int(widths[number]),
        case.target,
      )
      state, metrics = side.advance(state, batch, members, number)
      losses.append(metrics['loss'])
    return np.stack(losses)

  first = sorted({w: n for n, w in enumerate(widths)}.values())
  _, compiled = clock.timed(lambda: train(groups[0], first))
  losses, seconds = clock.timed(
    lambda: [train(members, range(case.steps)) for members in groups]
  )
  return {
    'first': compiled,
    'times': [seconds],
    'losses': np.concatenate(losses, axis=1).T.ravel().tolist(),
  }


def text(side: Side) -> dict:
  """Times generation, or the ranking of choices."""
  case, data = side.case, side.data
  batch = {'inputs': data['inputs']}
  phi = jax.tree.map(lambda x: jnp.asarray(x)[None], side.phi)
  predictor, frozen = side.engine.predictor, side.frozen

  def once():
    if case.work == 'rank':
      out = predictor.rank(frozen, phi, batch, data['choices'])
    else:
      out = predictor.generate(frozen, phi, batch, case.target)
    return np.asarray(out[0])

  _, first = clock.timed(once)
  calls = [clock.timed(once) for _ in range(case.steps)]
  return {
    'first': first,
    'times': [seconds for _, seconds in calls],
    'answers': calls[-1][0].tolist(),
  }


def measure(folder: pathlib.Path, case: Case, together: bool) -> dict:
  """Does the work of a case and returns what was measured."""
  side, loading = clock.timed(lambda: Side(folder, case))
  loaded = clock.peak_mib()
  if case.work == 'runs':
    found = runs(side, together)
  else:
    found = {'step': step, 'rank': text, 'generate': text}[case.work](side)
  known = jax.devices()[0].memory_stats() or {}
  return found | clock.costs(loading, loaded, known.get('peak_bytes_in_use'))


if __name__ == '__main__':
  place, fields = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  work, other = Case(**fields), (sys.argv[3:] or [None])[0]
  if other in inputs.METHODS:
    work = work._replace(method=other)
  print(json.dumps(measure(place, work, other != 'one by one')))
