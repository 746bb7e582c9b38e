"""The main recipe: tasks x methods x seeds x rates as rows."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_subspace import trees
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import fewshot
from prompt_subspace.data import tasks as task_names
from prompt_subspace.deltas import variants
from prompt_subspace.deltas.base import (
  Method,
  check_list,
  check_rates,
  check_seeds,
)
from prompt_subspace.evaluation import predict
from prompt_subspace.training import (
  cells,
  job,
  optimizers,
  results,
  spec,
  stack,
  stage,
)
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage


class Run(NamedTuple):
  """One cell of the sweep."""

  task: str
  method: str
  seed: int
  rate: float

  @property
  def id(self) -> str:
    """Names the run, in files and for its random keys."""
    task = re.sub(r'[^\w.-]', '_', self.task)
    return f'{task}-{self.method}-s{self.seed}-r{self.rate:g}'


def tune(
  tasks: Sequence[str],
  out: str,
  methods: Sequence[str] | None = None,
  library: Mapping[str, Method] | None = None,
  rates: Sequence[float] | Mapping[str, Sequence[float]] = (0.3,),
  seeds: Sequence[int] = (0, 1, 2),
  data_dir: str | None = None,
  backbone: str | Backbone = 'mini',
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  settings: spec.Settings = spec.Settings(),
  max_input: int = 128,
  max_target: int = 32,
  dropout: float = 0.0,
  shots: int | None = None,
  limit: int | None = None,
  cache: str | None = None,
  keep_deltas: Sequence[str] | None = None,
) -> job.Job:
  """Plans the tuning of every method on every task.

  Args:
    tasks: names, see `data.tasks.find`.
    out: folder of the results. A folder with results of the same settings is
      continued: only missing runs are made.
    methods: names in `library`; None: all of it.
    library: name -> method; by default every method with its own defaults.
    rates: learning rates, for all methods or by method; those of `cnn` are
      also for `cnn 5` and other variants without an entry.
    seeds: one run each.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    backbone: name, folder or a loaded backbone.
    optimizer: rate -> transform.
    settings: steps, batch size, evaluation.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    dropout: of the backbone while training.
    shots: train and validate on so many examples per class (per set, where
      there are no classes), drawn by the run's seed; None uses all.
    limit: at most so many examples of each split, the first ones; a mixture of
      SeqIO, which has no end, needs one.
    cache: folder of prepared arrays; by default `cache` beside `out`.
    keep_deltas: methods whose trained deltas are stored; None: all.

  Returns:
    The job. Running it writes to `out`: results.csv (a line per run), rows/
    (all metrics of each run), bank/ (the trained deltas), identity.json.

  Raises:
    ValueError: an unknown name, bad data, or a folder of other results.
  """
  check_list('tasks', tasks, of='name')
  if methods is not None:
    check_list('methods', methods, of='name')
  found = {name: task_names.find(name, data_dir) for name in tasks}
  where = stage.make(
    out, backbone, library, methods, optimizer, settings, dropout, keep_deltas
  )
  loaded = stage.prepare(where, found, cache, max_input, max_target, limit)
  runs = _runs(tasks, where.library, seeds, rates)
  identity = _identity(where, loaded, shots)
  job.check(where.folder, identity)
  planned = _cells(where, found, loaded, runs, shots)
  return job.Job(
    folder=where.folder,
    plan=_describe(where, loaded, planned),
    record={
      'backbone': where.backbone.name,
      'fingerprint': where.backbone.fingerprint,
      'data': {t: a.record['checksum'] for t, a in loaded.items()},
      'runs': len(runs),
    },
    run=lambda: _run(where, planned, identity),
    stages={'runs': (where, max_input, max_target)},
  )


def rates_of(rates, method: str) -> Sequence[float]:
  """Returns the rates of a method: one list for all, its own, or its line's."""
  if not isinstance(rates, Mapping):
    check_rates('rates', rates)
    return rates
  named = [n for n in (method, variants.line(method)) if n in rates]
  if not named:
    raise ValueError(
      f'rates: expected an entry for method {method!r}, found only '
      f'{sorted(rates)}. Add one, or give one list for all methods.'
    )
  check_rates(f'rates, {named[0]}', rates[named[0]])
  return rates[named[0]]


def _runs(tasks, library, seeds, rates) -> list[Run]:
  check_seeds('seeds', seeds)
  runs = [
    Run(task, method, int(seed), float(rate))
    for method in library
    for task in tasks
    for seed in seeds
    for rate in rates_of(rates, method)
  ]
  runs = list(dict.fromkeys(runs))
  cells.check_ids([run.id for run in runs])
  return runs


def _identity(where: Stage, loaded, shots) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  return {
    'recipe': 'tune',
    **stage.identity(where),
    'shots': shots,
    'tasks': {n: a.record['checksum'] for n, a in loaded.items()},
  }


def _cells(where: Stage, found, loaded, runs, shots) -> list[Cell]:
  """Plans a cell for every run."""
  limit = where.settings.test_examples
  majority = {
    name: predict.majority(arrays, 'test', limit)['score']
    for name, arrays in loaded.items()
  }
  shown = fewshot.splits(
    loaded,
    dict.fromkeys(loaded, shots),
    dict.fromkeys(run.seed for run in runs),
    where.folder / 'splits',
  )
  out = []
  for run in runs:
    whole = loaded[run.task]
    start = functools.partial(
      stage.initial, where, run.method, whole, run.seed, run.id
    )
    out.append(
      Cell(
        id=run.id,
        task=run.task,
        data=shown[run.task, run.seed],
        method=run.method,
        seed=run.seed,
        rate=run.rate,
        start=start,
        template=found[run.task].template,
        facts={'majority': majority[run.task]},
      )
    )
  return out


def _describe(where: Stage, loaded, planned: Sequence[Cell]) -> str:
  """The plan for people: data, rows, memory."""
  lines = [stage.describe_backbone(where)]
  lines += [
    stage.describe_task(n, a, where.settings) for n, a in loaded.items()
  ]
  first = next(iter(loaded.values()))
  weights = trees.nbytes(where.backbone.weights)
  stacks = cells.stacks(where, planned)
  for name in where.library:
    phi = stage.shapes(where, name, first)
    mine = [s for s in stacks if s[0].method == name]
    most = max(len(s) for s in mine)
    state = stack.state_bytes(phi, where.optimizer, most)
    lines.append(
      f'method     {name}: {trees.size(phi):,} trained parameters, '
      f'{len(mine)} stacks of up to {most} rows, '
      f'{(weights + state) / 2**20:,.0f} MiB of weights and state'
      + ('' if name in where.keep else '; not stored')
    )
  left = sum(not cells.is_done(where.folder, c.id) for c in planned)
  lines.append(
    f'runs       {len(planned)} of {where.settings.steps} steps, {left} to do, '
    f'results in {where.folder}'
  )
  return '\n'.join(lines)


def _run(where: Stage, planned: Sequence[Cell], identity) -> None:
  job.claim(where.folder, identity)

  def collect():
    # what was asked for before stays in the table
    names = dict.fromkeys([c.id for c in planned] + cells.known(where.folder))
    rows = cells.read(where.folder, list(names))
    results.write_csv(where.folder / 'results.csv', rows)

  cells.run(where, planned, collect)
  collect()
