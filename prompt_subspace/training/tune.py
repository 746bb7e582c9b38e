"""The main recipe: tasks x methods x seeds x rates as rows."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from prompt_subspace import trees
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import store
from prompt_subspace.data import arrays as task_arrays
from prompt_subspace.data import fewshot
from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.templates import Template
from prompt_subspace.deltas import METHODS
from prompt_subspace.deltas.base import Method, Setting, check_names
from prompt_subspace.evaluation import predict
from prompt_subspace.training import job, optimizers, results, spec, stack
from prompt_subspace.training import rows as stack_rows

STATE_BYTES = 3 * 2**30


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
  methods: Sequence[str] = tuple(METHODS),
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
  cache: str | None = None,
  keep_deltas: Sequence[str] | None = None,
) -> job.Job:
  """Plans the tuning of every method on every task.

  Args:
    tasks: names, see `data.tasks.find`.
    out: folder of the results. A folder with results of the same settings is
      continued: only missing runs are made.
    methods: names in `library`.
    library: name -> method; by default every method with its own defaults.
    rates: learning rates, for all methods or by method.
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
    cache: folder of prepared arrays; by default `cache` beside `out`.
    keep_deltas: methods whose trained deltas are stored; None: all.

  Returns:
    The job. Running it writes to `out`: results.csv (a line per run), rows/
    (all metrics of each run), deltas/, identity.json.

  Raises:
    ValueError: an unknown name, bad data, or a folder of other results.
  """
  for argument, names in (('tasks', tasks), ('methods', methods)):
    if isinstance(names, str) or not names:
      raise ValueError(
        f'{argument}: expected a list of at least one name, found {names!r}.'
      )
  spec.check(settings)
  found = {name: task_names.find(name, data_dir) for name in tasks}
  backbone = _load(backbone, dropout)
  library = library or {name: make() for name, make in METHODS.items()}
  check_names('methods', tuple(methods), tuple(library))
  check_names('keep_deltas', tuple(keep_deltas or ()), tuple(library))
  sweep = _Sweep(
    folder=pathlib.Path(out),
    backbone=backbone,
    setting=backbones.setting(backbone),
    library={name: library[name] for name in methods},
    optimizer=optimizer,
    settings=settings,
    keep=tuple(methods if keep_deltas is None else keep_deltas),
    templates={name: task.template for name, task in found.items()},
  )
  loaded = _prepare(
    found,
    sweep.backbone,
    cache or sweep.folder.parent / 'cache',
    max_input,
    max_target,
  )
  runs = _runs(tasks, sweep.library, seeds, rates)
  identity = _identity(sweep, loaded, shots, dropout)
  job.check(sweep.folder, identity)
  shown = _by_seed(loaded, shots, seeds, sweep.folder)
  return job.Job(
    folder=sweep.folder,
    plan=_describe(sweep, loaded, runs),
    record={
      'backbone': sweep.backbone.name,
      'fingerprint': sweep.backbone.fingerprint,
      'data': {t: a.record['checksum'] for t, a in loaded.items()},
      'runs': len(runs),
    },
    run=lambda: _run(sweep, loaded, shown, runs, identity),
  )


class _Sweep(NamedTuple):
  """What all runs of a sweep share."""

  folder: pathlib.Path
  backbone: Backbone
  setting: Setting
  library: dict[str, Method]
  optimizer: optimizers.Optimizer
  settings: spec.Settings
  keep: tuple[str, ...]
  templates: dict[str, Template]


def _load(backbone, dropout) -> Backbone:
  if not isinstance(backbone, Backbone):
    backbone = backbones.load(backbone)
  if backbone.vocabulary is None:
    raise ValueError(
      f'backbone: {backbone.name} has no vocabulary. Load it with '
      'weights.load(folder, vocabulary=...).'
    )
  return backbone._replace(config=backbone.config.replace(dropout_rate=dropout))


def _prepare(found, backbone, cache, max_input, max_target):
  """Returns {task: arrays}; every mistake in the data shows here."""
  return {
    name: task_arrays.prepare(
      task, backbone.vocabulary, cache, max_input, max_target
    )
    for name, task in found.items()
  }


def _by_seed(loaded, shots, seeds, folder) -> dict[tuple[str, int], TaskArrays]:
  """Returns what each (task, seed) trains on; few-shot splits are stored."""
  if shots is None:
    return {(n, s): a for n, a in loaded.items() for s in seeds}
  out = {}
  for name, arrays in loaded.items():
    for seed in seeds:
      file = folder / 'splits' / f'{Run(name, f"k{shots}", seed, 0).id}.json'
      if file.exists():
        split = fewshot.load(file, arrays)
      else:
        split = fewshot.draw(arrays, shots, seed)
        fewshot.save(split, file)
      out[name, seed] = fewshot.apply(arrays, split)
  return out


def _rates_of(rates, method: str) -> Sequence[float]:
  if not isinstance(rates, Mapping):
    return rates
  if method not in rates:
    raise ValueError(
      f'rates: expected an entry for method {method!r}, found only '
      f'{sorted(rates)}. Add one, or give one list for all methods.'
    )
  return rates[method]


def _runs(tasks, library, seeds, rates) -> list[Run]:
  runs = [
    Run(task, method, int(seed), float(rate))
    for method in library
    for task in tasks
    for seed in seeds
    for rate in _rates_of(rates, method)
  ]
  if not runs:
    raise ValueError(
      'seeds, rates, methods: expected at least one of each, found none.'
    )
  runs = list(dict.fromkeys(runs))
  ids = [run.id for run in runs]
  if twice := sorted({i for i in ids if ids.count(i) > 1}):
    raise ValueError(
      f'tasks, rates: two runs would have the name {twice[0]}. Give tasks '
      'other names than those that differ in punctuation alone, and rates '
      'of up to 6 digits.'
    )
  return runs


def _identity(sweep, loaded, shots, dropout) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  decisive = {
    name: value
    for name, value in sweep.settings._asdict().items()
    if name not in spec.SPEED_ONLY
  }
  return {
    'fingerprint': sweep.backbone.fingerprint,
    'backbone': sweep.backbone.config.to_json(),
    'settings': decisive,
    'optimizer': _name(sweep.optimizer),
    'optimizer_behaviour': optimizers.behaviour(sweep.optimizer),
    'shots': shots,
    'dropout': dropout,
    'tasks': {n: a.record['checksum'] for n, a in loaded.items()},
    'methods': {
      n: {'name': m.name, **m.settings} for n, m in sweep.library.items()
    },
  }


def _name(optimizer: optimizers.Optimizer) -> str:
  """Of the function, without its address; of a `partial`, that inside it."""
  inner = getattr(optimizer, 'func', optimizer)
  return getattr(inner, '__name__', type(inner).__name__)


def _setting(sweep: _Sweep, arrays: TaskArrays) -> Setting:
  """What an initialisation may read of backbone and task."""
  encode = sweep.backbone.vocabulary.encode
  labels = tuple(tuple(encode(text)) for text in arrays.label_texts or ())
  return sweep.setting._replace(labels=labels)


def _initial(sweep: _Sweep, run: Run, arrays: TaskArrays):
  key = stack_rows.random_key(stack_rows.row_key(run.seed, run.id))
  method = sweep.library[run.method]
  return method.init(jax.random.fold_in(key, 1), _setting(sweep, arrays))


def _shapes(sweep: _Sweep, method: str, arrays: TaskArrays):
  setting = _setting(sweep, arrays)
  return jax.eval_shape(
    lambda key: sweep.library[method].init(key, setting), jax.random.key(0)
  )


def _stacks(sweep, loaded, runs) -> list[list[Run]]:
  """Groups runs whose rows share a compiled step.

  On a CPU the rows of one task, so that none is padded to the length of
  another task; on an accelerator those of all tasks. The state of a stack
  stays below `STATE_BYTES`.
  """
  by_task = jax.default_backend() == 'cpu'
  groups: dict = {}
  for run in runs:
    groups.setdefault((run.method, run.task if by_task else ''), []).append(run)
  out = []
  for (method, _), members in groups.items():
    phi = _shapes(sweep, method, loaded[members[0].task])
    each = stack.state_bytes(phi, sweep.optimizer, 1)
    most = max(1, STATE_BYTES // each)
    out += [members[i : i + most] for i in range(0, len(members), most)]
  return out


def _done(folder: pathlib.Path, run: Run) -> pathlib.Path:
  return folder / 'rows' / f'{run.id}.json'


def _describe(sweep: _Sweep, loaded, runs) -> str:
  """The plan for people: data, rows, memory."""
  config = sweep.backbone.config
  lines = [
    f'backbone   {sweep.backbone.name}, '
    f'{trees.size(sweep.backbone.weights):,} parameters, {config.dtype}, '
    f'fingerprint {sweep.backbone.fingerprint[:12]}',
    f'device     {jax.devices()[0].device_kind} x {jax.device_count()}',
  ]
  for name, arrays in loaded.items():
    counts = '/'.join(str(len(a.labels)) for a in arrays.splits.values())
    cut = sum(_truncated(arrays.record))
    lines.append(
      f'task       {name}: {arrays.kind}, {counts} examples, '
      f'longest input {arrays.splits["train"].inputs.shape[1]} tokens'
      + (f', {cut} inputs cut' if cut else '')
    )
  first = next(iter(loaded.values()))
  weights = trees.nbytes(sweep.backbone.weights)
  for name in sweep.library:
    phi = _shapes(sweep, name, first)
    mine = [s for s in _stacks(sweep, loaded, runs) if s[0].method == name]
    most = max(len(s) for s in mine)
    state = stack.state_bytes(phi, sweep.optimizer, most)
    lines.append(
      f'method     {name}: {trees.size(phi):,} trained parameters, '
      f'{len(mine)} stacks of up to {most} rows, '
      f'{(weights + state) / 2**20:,.0f} MiB of weights and state'
    )
  left = sum(not _done(sweep.folder, r).exists() for r in runs)
  lines.append(
    f'runs       {len(runs)} of {sweep.settings.steps} steps, {left} to do, '
    f'results in {sweep.folder}'
  )
  return '\n'.join(lines)


def _truncated(record) -> list[int]:
  return [
    counts.get('inputs', 0) for counts in record.get('truncated', {}).values()
  ]


def _run(sweep, loaded, shown, runs, identity) -> None:
  job.claim(sweep.folder, identity)
  baselines = {
    name: predict.majority(arrays, 'test', sweep.settings.test_examples)
    for name, arrays in loaded.items()
  }
  missing = [r for r in runs if not _done(sweep.folder, r).exists()]
  engines: dict[str, stack.Engine] = {}
  stacks = _stacks(sweep, loaded, missing) if missing else []
  for number, members in enumerate(stacks, start=1):
    specs, used = [], {}
    for run in members:
      arrays = shown[run.task, run.seed]
      # only few-shot splits differ by seed; all else is held once
      whole = arrays is loaded[run.task]
      name = run.task if whole else f'{run.task}/{run.seed}'
      used[name] = arrays
      phi = _initial(sweep, run, loaded[run.task])
      specs.append(spec.RowSpec(run.id, name, run.seed, run.rate, phi))
    method = members[0].method
    if method not in engines:
      engines[method] = stack.make_engine(
        sweep.backbone,
        sweep.library[method],
        sweep.optimizer,
        sweep.settings,
        specs[0].phi,
      )
    ids = json.dumps([r.id for r in members]).encode()
    place = sweep.folder / 'stacks' / hashlib.sha256(ids).hexdigest()[:12]
    label = f'[{number}/{len(stacks)}] {method} on {members[0].task}'
    found = stack.train_stack(
      engines[method],
      sweep.backbone,
      sweep.optimizer,
      specs,
      used,
      sweep.settings,
      place,
      label,
    )
    for run, result in zip(members, found, strict=True):
      _store(sweep, run, result, loaded[run.task], baselines[run.task])
    stack.remove_checkpoints(place)
    _collect(sweep.folder, runs)
  _collect(sweep.folder, runs)


def _store(sweep: _Sweep, run: Run, result, arrays, baseline) -> None:
  """Writes the delta, then the row: a row that is there is complete."""
  row = {
    **run._asdict(),
    'steps': sweep.settings.steps,
    'best_step': result.best_step,
    'validation': result.validation,
    'test': result.test['score'],
    'majority': baseline['score'],
    'seconds': round(result.seconds, 3),
    'trained_parameters': trees.size(result.phi),
    'padding': round(result.padding, 4),
  }
  if run.method in sweep.keep:
    method = sweep.library[run.method]
    card = {
      **row,
      'method': method.name,
      'settings': dict(method.settings),
      'backbone': sweep.backbone.name,
      'fingerprint': sweep.backbone.fingerprint,
      'vocabulary': sweep.backbone.vocabulary.sha256,
      'label_texts': arrays.label_texts,
      'template': dataclasses.asdict(sweep.templates[run.task]),
      'data': arrays.record['checksum'],
      'metrics': result.test,
      'environment': job.environment()['versions'],
    }
    store.write(sweep.folder / 'deltas' / run.id, result.phi, card)
  extra = {'metrics': result.test, 'stopped': result.stopped}
  job.write_json(_done(sweep.folder, run), {'row': row, **extra})
  if result.stopped >= 0:
    print(
      f'{run.id}: stopped at step {result.stopped}, where its loss or update '
      'was not finite; its best state before that is kept. A lower rate may '
      'help.'
    )


def _collect(folder: pathlib.Path, runs: Sequence[Run]) -> None:
  """Writes results.csv of the runs so far."""
  rows = [
    json.loads(_done(folder, r).read_text(encoding='utf-8'))['row']
    for r in runs
    if _done(folder, r).exists()
  ]
  results.write_csv(folder / 'results.csv', rows)
