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
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import fewshot
from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Method, check_list
from prompt_subspace.evaluation import predict
from prompt_subspace.training import (
  cells,
  job,
  optimizers,
  results,
  spec,
  stage,
  trials,
)
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage
from prompt_subspace.training.trials import Choice, Trial

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
  methods: trials.Methods | None = None,
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
  variants = trials.variants_of(methods, library)
  steps = trials.steps_of(steps, settings)
  settings = settings._replace(steps=max(steps))
  used = tuple(dict.fromkeys(v for x in variants.values() for v in x))
  where = stage.make(
    out, backbone, library, used, optimizer, settings, dropout, keep_deltas
  )
  asked = trials.trials_of(tasks, variants, seeds, rates)
  loaded = stage.prepare(where, found, cache, max_input, max_target)
  known = {name: trials.shots_of(shots, name) for name in tasks}
  identity = _identity(where, loaded, known, folds)
  job.check(where.folder, identity)
  data = fewshot.splits(
    loaded,
    known,
    dict.fromkeys(c.seed for c in asked),
    where.folder / 'splits',
  )
  majority = {
    name: predict.majority(x, 'test', settings.test_examples)['score']
    for name, x in loaded.items()
  }
  plan = Plan(where, steps, folds, data, asked, found, loaded, majority)
  crossed = _crossed(plan)
  return job.Job(
    folder=where.folder,
    plan=_describe(plan, crossed, variants),
    record={
      'backbone': where.backbone.name,
      'fingerprint': where.backbone.fingerprint,
      'data': {t: a.record['checksum'] for t, a in loaded.items()},
      'runs': len(crossed) + len(asked),
    },
    run=lambda: _run(plan, crossed, identity),
  )


def _identity(where: Stage, loaded, shots, folds) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  return {
    'recipe': 'cross_validate',
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
    for choice, tried in plan.trials.items()
    for trial in tried
    for number, part in enumerate(parts[choice.task, choice.seed])
  ]


def _fold_name(choice: Choice, trial: Trial, number: int) -> str:
  return f'{trials.trial_name(choice, trial)}-fold{number}'


def _scored(plan: Plan, choice: Choice) -> list[dict[str, Any]]:
  """Returns a line of settings.csv for each setting, none chosen."""
  out = []
  for trial in plan.trials[choice]:
    records = [
      cells.record(plan.where.folder, _fold_name(choice, trial, i))
      for i in range(plan.folds)
    ]
    for steps in plan.steps:
      scores = [trials.score_at(record, steps) for record in records]
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


def _chosen(plan: Plan, choice: Choice, line: Mapping[str, Any]) -> Cell:
  """Plans the run of a setting on all shots."""
  trial = Trial(line['variant'], line['rate'])
  name = f'{trials.trial_name(choice, trial)}-n{line["steps"]}'
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
    line = lines[trials.best(lines)]
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
  lines += [
    stage.describe_task(n, a, where.settings) for n, a in plan.loaded.items()
  ]
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
