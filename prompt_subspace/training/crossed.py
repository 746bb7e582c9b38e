"""The few-shot recipe: hyper-parameters by cross-validation, then one test.

For each task, method and seed, k examples per class are cut into folds. Every
setting (variant of the method x rate x number of updates) is trained on all
folds but one and scored on that one, for each fold in turn. The setting with
the best mean is trained again on all k, stopped early by k others, and tested:
the test split is seen by chosen runs alone.

Source: Jiang et al. 2022 (IPT), section 5.1, after Gao et al. 2021 (LM-BFF).
They cross-validate over the 2 k examples that they then train and stop on;
here the k to stop on take no part in the choice.
"""

import functools
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import fewshot
from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas import METHODS
from prompt_subspace.deltas.base import Method, check_list, positive
from prompt_subspace.evaluation import predict
from prompt_subspace.training import (
  cells,
  job,
  optimizers,
  results,
  spec,
  stage,
  tune,
)
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage

# settings.csv: a line for each setting that was tried
SETTINGS = {
  'task': str,
  'method': str,
  'seed': int,
  'variant': str,
  'rate': float,
  'steps': int,
  'folds': int,
  'validation': float,
  'chosen': int,
}
Methods = Sequence[str] | Mapping[str, Sequence[str]]


class Choice(NamedTuple):
  """What a setting is chosen for: it has one result."""

  task: str
  method: str
  seed: int


class Trial(NamedTuple):
  """A setting without its number of updates: trained once for each fold."""

  variant: str
  rate: float


class Plan(NamedTuple):
  """All that is trained, and what decides it.

  Attributes:
    where: stage of all runs.
    steps: numbers of updates to choose from.
    folds: how many there are.
    data: (task, seed) -> its few-shot arrays.
    trials: choice -> what is tried for it.
    tasks: name -> task.
    loaded: name -> its arrays.
    majority: name -> score of the most frequent answer.
  """

  where: Stage
  steps: tuple[int, ...]
  folds: int
  data: Mapping[tuple[str, int], TaskArrays]
  trials: Mapping[Choice, Sequence[Trial]]
  tasks: Mapping[str, task_names.Task]
  loaded: Mapping[str, TaskArrays]
  majority: Mapping[str, float]


def cross_validate(
  tasks: Sequence[str],
  out: str,
  shots: int | Mapping[str, int],
  methods: Methods | None = None,
  library: Mapping[str, Method] | None = None,
  rates: Sequence[float] | Mapping[str, Sequence[float]] = (0.3,),
  steps: Sequence[int] | None = None,
  folds: int = 4,
  seeds: Sequence[int] = (0, 1, 2),
  data_dir: str | None = None,
  backbone: str | Backbone = 'mini',
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  settings: spec.Settings = spec.Settings(),
  max_input: int = 128,
  max_target: int = 32,
  dropout: float = 0.0,
  cache: str | None = None,
  keep_deltas: Sequence[str] | None = None,
) -> job.Job:
  """Plans few-shot tuning with hyper-parameters chosen by cross-validation.

  Args:
    tasks: names, see `data.tasks.find`.
    out: folder of the results. It is continued as that of `tune.tune` is:
      with more rates, variants, or numbers of updates below the largest, only
      runs that are new are made, and the choice is among all that is asked for.
    shots: k, examples per class (per set, where there are no classes) to train
      on, and as many to stop by; for all tasks or by task.
    methods: names in `library`; or {name in the results: its variants, names
      in `library`, one of which is chosen}. None: all of the library.
    library: name -> method; by default every method with its own defaults.
    rates: learning rates to choose from, for all methods or by method.
    steps: numbers of updates to choose from, multiples of `evaluate_every`;
      None: `settings.steps` alone. Fewer updates cost no runs: each fold's run
      is scored on its way.
    folds: parts of the k-shot set.
    seeds: one split, one choice and one result each.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    backbone: name, folder or a loaded backbone.
    optimizer: rate -> transform.
    settings: batch size, evaluation; without `embedding_step`.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    dropout: of the backbone while training.
    cache: folder of prepared arrays; by default `cache` beside `out`.
    keep_deltas: of the library, those whose chosen runs' deltas are stored;
      None: all.

  Returns:
    The job. Running it writes to `out`: results.csv (a line for each task,
    method and seed, at what was chosen), settings.csv (a line for each setting
    with its mean score over folds), rows/, splits/, bank/, identity.json.

  Raises:
    ValueError: an unknown name, bad data, too few examples for folds, numbers
      of updates at which nothing is evaluated, or a folder of other results.
  """
  check_list('tasks', tasks, of='name')
  found = {name: task_names.find(name, data_dir) for name in tasks}
  variants = _variants(methods, library)
  steps = _steps(steps, settings)
  settings = settings._replace(steps=max(steps))
  used = tuple(dict.fromkeys(v for x in variants.values() for v in x))
  where = stage.make(
    out, backbone, library, used, optimizer, settings, dropout, keep_deltas
  )
  trials = _trials(tasks, variants, seeds, rates)
  loaded = stage.prepare(where, found, cache, max_input, max_target)
  known = {name: _shots_of(shots, name) for name in tasks}
  identity = _identity(where, loaded, known, folds)
  job.check(where.folder, identity)
  data = {
    (name, seed): fewshot.stored(
      loaded[name], known[name], seed, where.folder / 'splits'
    )
    for name, seed in dict.fromkeys((c.task, c.seed) for c in trials)
  }
  majority = {
    name: predict.majority(x, 'test', settings.test_examples)['score']
    for name, x in loaded.items()
  }
  plan = Plan(where, steps, folds, data, trials, found, loaded, majority)
  crossed = _crossed(plan)
  return job.Job(
    folder=where.folder,
    plan=_describe(plan, crossed, variants),
    record={
      'backbone': where.backbone.name,
      'fingerprint': where.backbone.fingerprint,
      'data': {t: a.record['checksum'] for t, a in loaded.items()},
      'runs': len(crossed) + len(trials),
    },
    run=lambda: _run(plan, crossed, identity),
  )


def _variants(methods, library) -> dict[str, tuple[str, ...]]:
  """Returns {name in the results: names in the library}."""
  if methods is None:
    methods = tuple(library or METHODS)
  check_list('methods', methods, of='name')
  if not isinstance(methods, Mapping):
    return {name: (name,) for name in methods}
  for name, given in methods.items():
    check_list(f'methods, {name}', given, of='name in the library')
  return {name: tuple(given) for name, given in methods.items()}


def _steps(steps, settings: spec.Settings) -> tuple[int, ...]:
  """The numbers of updates, all of which are evaluated on the way."""
  if settings.embedding_step is not None:
    raise ValueError(
      'embedding_step: expected None, as the number of updates is a choice '
      f'here, found {settings.embedding_step}.'
    )
  if steps is None:
    return (settings.steps,)
  check_list('steps', steps, of='number of updates')
  for number in steps:
    positive('steps', number)
  longest, every = max(steps), settings.evaluate_every
  if wrong := [s for s in steps if s % every and s != longest]:
    raise ValueError(
      f'steps: expected multiples of evaluate_every = {every}, where runs are '
      f'scored, found {wrong}.'
    )
  return tuple(sorted(set(steps)))


def _shots_of(shots, task: str) -> int:
  if not isinstance(shots, Mapping):
    positive('shots', shots)
    return shots
  if task not in shots:
    raise ValueError(
      f'shots: expected an entry for task {task!r}, found only '
      f'{sorted(shots)}. Add one, or give one number for all tasks.'
    )
  positive(f'shots, {task}', shots[task])
  return shots[task]


def _trials(tasks, variants, seeds, rates) -> dict[Choice, list[Trial]]:
  out = {
    Choice(task, method, int(seed)): list(
      dict.fromkeys(
        Trial(variant, float(rate))
        for variant in given
        for rate in tune.rates_of(rates, method)
      )
    )
    for method, given in variants.items()
    for task in tasks
    for seed in seeds
  }
  if not out or not all(out.values()):
    raise ValueError('seeds, rates: expected at least one of each, found none.')
  ids = [_name(c, t) for c, trials in out.items() for t in trials]
  if twice := sorted({i for i in ids if ids.count(i) > 1}):
    raise ValueError(
      f'tasks, methods, rates: two runs would have the name {twice[0]}. Give '
      'tasks other names than those that differ in punctuation alone, and '
      'rates of up to 6 digits.'
    )
  return out


def _name(choice: Choice, trial: Trial) -> str:
  """Names a trial, in files and for its random keys."""
  task = re.sub(r'[^\w.-]', '_', choice.task)
  method = choice.method
  if trial.variant != method:
    method = f'{method}-{trial.variant}'
  return f'{task}-{method}-s{choice.seed}-r{trial.rate:g}'


def _identity(where: Stage, loaded, shots, folds) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  return {
    **stage.identity(where),
    'shots': shots,
    'folds': folds,
    'tasks': {n: a.record['checksum'] for n, a in loaded.items()},
  }


def _cell(plan: Plan, choice: Choice, trial: Trial, name: str, data) -> Cell:
  whole = plan.loaded[choice.task]
  return Cell(
    id=name,
    task=choice.task,
    data=data,
    method=trial.variant,
    seed=choice.seed,
    rate=trial.rate,
    start=functools.partial(
      stage.initial, plan.where, trial.variant, whole, choice.seed, name
    ),
    template=plan.tasks[choice.task].template,
    facts={
      'method': choice.method,
      'majority': plan.majority[choice.task],
    },
  )


def _crossed(plan: Plan) -> list[Cell]:
  """Plans a run for each trial and fold."""
  parts = {
    place: fewshot.folds(data, plan.folds) for place, data in plan.data.items()
  }
  return [
    _cell(plan, choice, trial, _fold_name(choice, trial, number), part)
    for choice, trials in plan.trials.items()
    for trial in trials
    for number, part in enumerate(parts[choice.task, choice.seed])
  ]


def _fold_name(choice: Choice, trial: Trial, number: int) -> str:
  return f'{_name(choice, trial)}-fold{number}'


def _scored(plan: Plan, choice: Choice) -> list[dict[str, Any]]:
  """Returns a line of settings.csv for each setting, none chosen."""
  out = []
  for trial in plan.trials[choice]:
    records = [
      cells.record(plan.where.folder, _fold_name(choice, trial, i))
      for i in range(plan.folds)
    ]
    for steps in plan.steps:
      scores = [_at(record, steps) for record in records]
      kept = [s for s in scores if not math.isnan(s)]
      out.append(
        {
          **choice._asdict(),
          'variant': trial.variant,
          'rate': trial.rate,
          'steps': steps,
          'folds': len(kept),
          'validation': statistics.fmean(kept) if kept else math.nan,
          'chosen': 0,
        }
      )
  return out


def _at(record: Mapping[str, Any], steps: int) -> float:
  """The score of a fold's run after so many updates; NaN if it had stopped."""
  if 0 <= record['stopped'] < steps:
    return math.nan
  return {x['step']: x['validation'] for x in record['history']}[steps]


def best(lines: Sequence[Mapping[str, Any]]) -> int:
  """Returns which setting is chosen, as an index.

  That with the highest mean among those that came through most folds. Small
  folds give equal means often: then fewer updates, a lower rate, the variant
  that was named first.
  """

  def rank(i):
    line = lines[i]
    mean = line['validation'] if line['folds'] else -math.inf
    # a sum of thirds in another order is the same score
    return line['folds'], round(mean, 6), -line['steps'], -line['rate'], -i

  return max(range(len(lines)), key=rank)


def _chosen(plan: Plan, choice: Choice, line: Mapping[str, Any]) -> Cell:
  """Plans the run of a setting on all shots."""
  trial = Trial(line['variant'], line['rate'])
  name = f'{_name(choice, trial)}-n{line["steps"]}'
  data = plan.data[choice.task, choice.seed]
  return _cell(plan, choice, trial, name, data)


def _run(plan: Plan, crossed: Sequence[Cell], identity) -> None:
  where = plan.where
  job.claim(where.folder, identity)
  # deltas of parts of the examples are of no use
  cells.run(where._replace(keep=()), crossed, title='folds ')
  tried, chosen = [], []
  for choice in plan.trials:
    lines = _scored(plan, choice)
    line = lines[best(lines)]
    line['chosen'] = 1
    tried += lines
    chosen.append((line['steps'], _chosen(plan, choice, line)))
  results.write_csv(where.folder / 'settings.csv', tried, SETTINGS)

  def collect():
    rows = cells.read(where.folder, [cell.id for _, cell in chosen])
    results.write_csv(where.folder / 'results.csv', rows)

  for steps in plan.steps:
    mine = [cell for number, cell in chosen if number == steps]
    # they differ in steps alone, so compiled functions serve all
    settings = where.settings._replace(steps=steps)
    each = where._replace(settings=settings)
    cells.run(each, mine, collect, f'{steps} updates ')
  collect()


def _describe(plan: Plan, crossed: Sequence[Cell], variants) -> str:
  """The plan for people: data, settings, runs."""
  where = plan.where
  lines = [stage.describe_backbone(where)]
  lines += [stage.describe_task(n, a) for n, a in plan.loaded.items()]
  for name, given in variants.items():
    mine = [t for c, t in plan.trials.items() if c.method == name]
    rates = ', '.join(f'{r:g}' for r in dict.fromkeys(t.rate for t in mine[0]))
    lines.append(f'method     {name}: {", ".join(given)}; rates {rates}')
  left = sum(not cells.is_done(where.folder, c.id) for c in crossed)
  numbers = ' or '.join(map(str, plan.steps))
  lines.append(
    f'runs       {len(crossed)} of {max(plan.steps)} steps on {plan.folds} '
    f'folds, {left} to do, then {len(plan.trials)} of {numbers}; results in '
    f'{where.folder}'
  )
  return '\n'.join(lines)
