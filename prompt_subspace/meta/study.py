"""The meta-learning study: algorithms x targets x splits x rates.

Qin et al. 2023 (MPT). Upstream, every algorithm learns an initialisation from
the source tasks; downstream, every target is tuned from it on few examples, and
from nothing learned at all (prompt tuning, full fine-tuning).
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_subspace import deltas, trees
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import crossfit_places, mixtures, overlap
from prompt_subspace.deltas.base import (
  Method,
  check_list,
  check_names,
  check_rates,
  check_seeds,
)
from prompt_subspace.evaluation import predict
from prompt_subspace.meta import (
  algorithms,
  columns,
  diagnostics,
  partitions,
  plan,
  suite,
  work,
)
from prompt_subspace.meta.diagnostics import Look
from prompt_subspace.meta.plan import FULL, FULL_METHOD, PLAIN, Study
from prompt_subspace.training import (
  cells,
  job,
  optimizers,
  results,
  spec,
  stage,
)
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.stage import Stage

BASELINES = (PLAIN, FULL)


class Learner(NamedTuple):
  """How an algorithm learns from the source tasks.

  Attributes:
    algorithm: see `meta.algorithms`.
    settings: steps, and the batch size of inner steps and of queries (of plain
      batches for multi-task learning). How often it is evaluated decides how
      often it is logged: nothing is validated upstream, the last state counts.
    rate: outer learning rate.
  """

  algorithm: Algorithm
  settings: spec.Settings = spec.Settings()
  rate: float = 0.5


class Downstream(NamedTuple):
  """How targets are tuned.

  Attributes:
    settings: steps, batches and evaluation.
    rates: all are tried on every target and split; validation chooses.
  """

  settings: spec.Settings = spec.Settings()
  rates: Sequence[float] = (0.5, 0.4, 0.3, 0.2)


def learn(
  out: str,
  sources: Sequence[str] | None = None,
  targets: Sequence[str] | None = None,
  partition: str | None = None,
  subset: int | None = None,
  skip_missing: bool = False,
  algorithm_names: Sequence[str] = (PLAIN, *algorithms.ALGORITHMS),
  learners: Mapping[str, Learner] | None = None,
  learned: Sequence[int] = (0,),
  splits: Sequence[int] = (0, 1, 2, 3, 4),
  shots: int | None = 16,
  source_shots: int | None = 16,
  target: Downstream = Downstream(),
  wide: Downstream = Downstream(rates=(5e-4, 3e-4, 2e-4, 1e-4)),
  look: Look = Look(),
  method: Method | None = None,
  full: Method | None = None,
  data_dir: str | None = None,
  backbone: str | Backbone = 'mini',
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  max_input: int = 128,
  max_target: int = 32,
  dropout: float = 0.0,
  cache: str | None = None,
) -> job.Job:
  """Plans a meta-learning study.

  Args:
    out: folder of the results. What is there is not made again: more targets,
      algorithms, splits or rates add to it.
    sources: tasks to learn from, see `suite`; without a partition.
    targets: tasks to tune; without a partition.
    partition: of `partitions.PARTITIONS`, instead of both.
    subset: 12 or 24 of its sources.
    skip_missing: leave out tasks of the partition that have no data; otherwise
      they are an error that lists them.
    algorithm_names: of `learners`, `pt` (plain tuning, which gains are over)
      and `ft` (full fine-tuning).
    learners: algorithm -> how it learns; by default those of
      `algorithms.ALGORITHMS`, with the defaults of `Learner`.
    learned: seeds of the upstream runs; each draws its own few-shot splits of
      the sources, and is tuned on every split of the targets.
    splits: few-shot splits of the targets.
    shots: of the targets, see `suite.Suite.split`; None for all examples.
    source_shots: of the sources.
    target: how targets are tuned by the method.
    wide: how all weights are tuned, for `ft`.
    look: what the inner steps are looked at with, for diagnostics.csv.
    method: what is learned and tuned; by default a prompt.
    full: full fine-tuning.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    backbone: name, folder or a loaded backbone.
    optimizer: rate -> transform, upstream (outside) and downstream.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    dropout: of the backbone while training.
    cache: folder of prepared arrays; by default `cache` beside `out`.

  Returns:
    The job. Running it writes to `out` the tables of `meta.columns`, bank/
    (what was learned), rows/, splits/, identity.json.

  Raises:
    ValueError: an unknown name, missing or bad data, a task that is source and
      target, or a folder of other results.
  """
  sources, targets = _sides(sources, targets, partition, subset)
  learners = learners or {
    name: Learner(make()) for name, make in algorithms.ALGORITHMS.items()
  }
  names = _check_algorithms(algorithm_names, learners, learned, splits)
  method = method or deltas.prompt()
  library = {method.name: method}
  if FULL in names:
    library[FULL_METHOD] = full or deltas.full()
  base = stage.make(
    out,
    backbone,
    library,
    optimizer=optimizer,
    settings=target.settings,
    dropout=dropout,
    keep=(),
  )
  for each in (*learners.values(), wide):
    spec.check(each.settings)
  for name, how in learners.items():
    check_rates(f'rate of {name!r}', [how.rate])
  if FULL in names:
    spec.check_same_tests('wide.settings', wide.settings, target.settings)
  check_rates('rates', target.rates)
  check_rates('rates of full tuning', wide.rates)
  check_seeds('learned', learned)
  check_seeds('splits', splits)
  diagnostics.check(look)
  found = crossfit_places.places((*sources, *targets), data_dir, skip_missing)
  missing = [n for n in (*sources, *targets) if n not in found]
  sources, targets = (
    tuple(dict.fromkeys(n for n in side if n in found))
    for side in (sources, targets)
  )
  _check_sides(sources, targets)
  tasks = suite.prepare(base, found, data_dir, cache, max_input, max_target)
  learned, splits = (
    tuple(dict.fromkeys(map(int, x))) for x in (learned, splits)
  )
  side = tasks.splits(sources, learned, source_shots)
  sides = {seed: [side[n, seed] for n in sources] for seed in learned}
  study = Study(
    upstream={
      n: plan.Learning(_upstream(base, method, learners[n]), learners[n].rate)
      for n in names
      if n in learners
    },
    prompt=plan.Tuning(base, tuple(map(float, target.rates))),
    full=plan.Tuning(
      base._replace(settings=wide.settings), tuple(map(float, wide.rates))
    ),
    method=method.name,
    algorithms=names,
    learned=learned,
    splits=splits,
    sources=sources,
    targets=targets,
    suite=tasks,
    data=tasks.splits(targets, splits, shots),
    unions={
      s: mixtures.join(side, name='sources') for s, side in sides.items()
    },
    majority={
      n: predict.majority(
        tasks.whole[n][0], 'test', target.settings.test_examples
      )['score']
      for n in targets
    },
  )
  cells.check_ids([cell.id for cell in work.known_cells(study)])
  identity = _identity(study, shots, source_shots, look)
  job.check(base.folder, identity)
  single = crossfit_places.tasks(found, data_dir)
  overlaps = overlap.told(
    {n: single[n] for n in sources}, {n: single[n] for n in targets}
  )
  return job.Job(
    folder=base.folder,
    plan=work.describe(
      study, crossfit_places.notes(sources, targets, missing), overlaps
    ),
    record={
      'backbone': base.backbone.name,
      'fingerprint': base.backbone.fingerprint,
      'parameters': trees.size(base.backbone.weights),
      'data': {
        n: [a.record['checksum'] for a in held]
        for n, held in tasks.whole.items()
      },
      'overlaps': overlaps,
    },
    run=lambda: work.run(
      study,
      identity,
      [arrays for side in sides.values() for arrays in side],
      functools.partial(_look, study, look) if look.inner_rates else None,
    ),
    stages={
      **{
        n: (x.where, max_input, max_target) for n, x in study.upstream.items()
      },
      'targets': (base, max_input, max_target),
    },
  )


def _sides(sources, targets, partition, subset):
  """Returns the names of sources and targets."""
  if partition is not None:
    if sources is not None or targets is not None:
      raise ValueError(
        f'partition: expected a partition, or sources and targets, found both: '
        f'{partition!r}. Leave one out.'
      )
    chosen = partitions.partition(partition, subset)
    return chosen.sources, chosen.targets
  check_list('sources', sources, of='task, or a partition')
  check_list('targets', targets, of='task, or a partition')
  if subset is not None:
    raise ValueError(
      f'subset: expected it with a partition only, found {subset}.'
    )
  return tuple(sources), tuple(targets)


def _check_algorithms(names, learners, learned, splits) -> tuple[str, ...]:
  check_list('algorithm_names', names, of='name')
  check_list('learned', learned, of='seed')
  check_list('splits', splits, of='number')
  if taken := sorted(set(learners) & set(BASELINES)):
    raise ValueError(
      f'learners: expected other names than those of the baselines, found '
      f'{taken}. Rename them.'
    )
  check_names('algorithm_names', tuple(names), (*BASELINES, *learners))
  return tuple(dict.fromkeys(names))


def _check_sides(sources, targets) -> None:
  """Raises ValueError if a side is empty, or a task is on both."""
  for side, found in (('sources', sources), ('targets', targets)):
    if not found:
      raise ValueError(
        f'{side}: expected data for at least one of them, found none in '
        'data_dir.'
      )
  if both := sorted(set(sources) & set(targets)):
    raise ValueError(
      f'targets: expected tasks that are no sources, found {both} on both '
      'sides. Take them out of one.'
    )


def _upstream(base: Stage, method: Method, learner: Learner) -> Stage:
  """The stage of an algorithm; what it learns goes to the bank."""
  return base._replace(
    settings=learner.settings,
    algorithm=learner.algorithm,
    keep=(method.name,),
    engines={},
  )


def _look(study: Study, look: Look, folder) -> None:
  """Writes diagnostics.csv, once: of MAML, or the first with inner steps."""
  path = folder / 'diagnostics.csv'
  inner = [
    name for name, how in study.upstream.items() if how.where.algorithm.episodes
  ]
  if not inner or path.exists():
    return
  how = study.upstream['maml' if 'maml' in inner else inner[0]]
  union = study.unions[study.learned[0]]
  found = diagnostics.look(how.where, study.method, union, look)
  results.write_csv(path, found, columns.DIAGNOSTICS)


def _identity(study: Study, shots, source_shots, look: Look) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  stages = {
    n: stage.identity(how.where) | {'rate': how.rate}
    for n, how in study.upstream.items()
  }
  stages['targets'] = stage.identity(study.prompt.where)
  stages['full'] = stage.identity(study.full.where)
  shared = stages['targets']
  return {
    'recipe': 'learn',
    **{n: shared[n] for n in ('fingerprint', 'backbone', 'methods')},
    'stages': {
      n: {k: v for k, v in found.items() if k not in ('backbone', 'methods')}
      for n, found in stages.items()
    },
    'shots': shots,
    'source_shots': source_shots,
    'look': {
      n: list(v) if isinstance(v, Sequence) else v
      for n, v in look._asdict().items()
    },
    'unions': {str(s): u.record['checksum'] for s, u in study.unions.items()},
    'tasks': {
      n: [a.record['checksum'] for a in held]
      for n, held in study.suite.whole.items()
    },
  }
