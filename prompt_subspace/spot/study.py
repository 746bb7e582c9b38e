"""The transfer study: sources x targets x seeds, and what each policy gains.

Vu et al. 2022. Generic SPoT (section 2) is one source, for instance a mixture,
and the policy best-1; targeted SPoT (section 3) is many sources and retrieval.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from prompt_subspace import deltas, trees
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import similarity
from prompt_subspace.data import fewshot, overlap
from prompt_subspace.data import mixtures as task_mixtures
from prompt_subspace.data import tasks as task_names
from prompt_subspace.deltas.base import (
  Method,
  check_list,
  check_names,
  check_rates,
  check_seeds,
  positive,
)
from prompt_subspace.evaluation import predict
from prompt_subspace.spot import mixtures as paper
from prompt_subspace.spot import plan, policies, work
from prompt_subspace.spot.plan import Study
from prompt_subspace.spot.work import Work
from prompt_subspace.training import cells, job, optimizers, spec, stage
from prompt_subspace.training.stage import Stage

BASELINES = ('full', 'multitask')


class Side(NamedTuple):
  """How one side of a study is tuned: sources, targets, or all weights.

  Attributes:
    settings: steps, batches and evaluation. Of sources and targets,
      `embedding_step` decides which phi is the task embedding.
    rate: learning rate.
    shots: train on so many examples per class (per set, where there are no
      classes), drawn by the run's seed; None uses all.
    held: validate on so many, likewise; None: as many as shots. What policies
      choose by is the validation score, so that few examples make choices
      that are little better than chance.
  """

  settings: spec.Settings = spec.Settings()
  rate: float = 0.3
  shots: int | None = None
  held: int | None = None


def transfer(
  targets: Sequence[str],
  out: str,
  sources: Sequence[str] | None = None,
  bank: str | None = None,
  policy_names: Sequence[str] = ('best-1', 'best-3', 'oracle'),
  baselines: Sequence[str] = (),
  seeds: Sequence[int] = (0, 1, 2),
  source: Side = Side(),
  target: Side = Side(),
  wide: Side = Side(rate=1e-3),
  method: Method | None = None,
  scratch: Method | None = None,
  full: Method | None = None,
  data_dir: str | None = None,
  backbone: str | Backbone = 'mini',
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  metrics: Sequence[str] = ('average', 'token', 'subspace'),
  pairing: str = 'seed',
  mixtures: Mapping[str, Sequence[str]] = paper.PAPER,
  limit: int = paper.LIMIT,
  held_out: int = 32,
  max_input: int = 128,
  max_target: int = 32,
  dropout: float = 0.0,
  cache: str | None = None,
) -> job.Job:
  """Plans a transfer study.

  Args:
    targets: tasks, see `data.tasks.find`.
    out: folder of the results. What is there is not made again: more sources,
      targets, seeds or policies add to it.
    sources: tasks, or names in `mixtures`, to tune source prompts on. None
      takes the entries of `bank` that fit backbone and method.
    bank: folder of the source prompts; by default `out/bank`.
    policy_names: see `spot.policies`.
    baselines: beside tuning from scratch, of `full` (full tuning) and
      `multitask` (full tuning on all sources, then on the target).
    seeds: runs of every source and target.
    source: how sources are tuned.
    target: how targets are tuned, with and without transfer.
    wide: how the full-tuning baselines are tuned; shots are those of the
      sides.
    method: what is tuned and transferred; by default a prompt.
    scratch: how a target starts without transfer: as `method` by default; the
      paper's baseline starts from the embeddings of the labels.
    full: full tuning, for the baselines.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    backbone: name, folder or a loaded backbone.
    optimizer: rate -> transform.
    metrics: similarities to rank by. The first decides what average-k and
      mixture-k are made of; best-k is reported for each.
    pairing: see `ranking.candidates`; a given bank is always used whole.
    mixtures: name -> tasks, of which those that have data are mixed.
    limit: K of examples-proportional mixing.
    held_out: validation examples per task of a mixture.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    dropout: of the backbone while training.
    cache: folder of prepared arrays; by default `cache` beside `out`.

  Returns:
    The job. Running it writes to `out`: results.csv (a line per run),
    similarities.csv, policies.csv, bank/ (source prompts), tuned/ (those of
    the targets), rows/, splits/, identity.json.

  Raises:
    ValueError: an unknown name, bad data, or a folder of other results.
  """
  asked = _check(
    targets, sources, bank, policy_names, baselines, seeds, metrics
  )
  targets, seeds = dict.fromkeys(targets), dict.fromkeys(map(int, seeds))
  targets, seeds, metrics = list(targets), list(seeds), dict.fromkeys(metrics)
  sources = sources if sources is None else list(dict.fromkeys(sources))
  for name, value in (('limit', limit), ('held_out', held_out)):
    positive(name, value)
  method = method or deltas.prompt()
  library = {method.name: method}
  if baselines:
    library['full'] = full or deltas.full()
  base = stage.make(
    out,
    backbone,
    library,
    optimizer=optimizer,
    settings=source.settings,
    dropout=dropout,
  )
  plain_start = deltas.bound(scratch or method, base.setting)
  for side in (target, wide):
    spec.check(side.settings)
  for name, side in (('source', source), ('target', target), ('wide', wide)):
    check_rates(f'{name}, rate', [side.rate])
  if baselines:
    spec.check_same_tests('wide.settings', wide.settings, target.settings)
  members = _mixtures(sources or (), mixtures, data_dir)
  plain = [s for s in sources or () if s not in members]
  prompts = ()
  if sources is None:
    prompts = work.prompts_of(bank, base, method.name)
    if any(p.kind == 'mixture' for p in asked):
      plain = _tasks_of(prompts, data_dir)
  names = dict.fromkeys([*plain, *sum(members.values(), ()), *targets])
  found = {name: task_names.find(name, data_dir) for name in names}
  whole = stage.prepare(base, found, cache, max_input, max_target)
  identity = _identity(base, source, target, wide, plain_start, whole) | {
    'mixtures': {n: list(m) for n, m in members.items()},
    'limit': limit,
    'held_out': held_out,
  }
  job.check(base.folder, identity)
  pool = _few(whole, [*plain, *sum(members.values(), ())], seeds, source, base)
  data = _few(whole, targets, seeds, target, base)
  pool |= _mixed(pool | data, members, seeds, limit, held_out)
  study = Study(
    source=base._replace(bank=epath.Path(bank) if bank else base.bank),
    target=_stage(base, 'tuned', target.settings),
    wide=_stage(base, 'full', wide.settings) if baselines else None,
    method=method.name,
    scratch=plain_start,
    rates={'source': source.rate, 'target': target.rate, 'full': wide.rate},
    seeds=tuple(int(s) for s in seeds),
    found=found,
    data=data,
    pool=pool,
    majority={
      n: predict.majority(a, 'test', target.settings.test_examples)['score']
      for n, a in whole.items()
    },
    members=members,
    limit=limit,
    held_out=held_out,
  )
  _check_scratch(study, data[targets[0], seeds[0]])
  if sources is not None:
    made = plan.source_cells(study, sources)
    work.check_bank(study, made)
    prompts = [plan.as_source(cell) for cell in made]
  cells.check_parents(
    base.folder, study.source.bank, [p.entry for p in prompts]
  )
  asked_work = Work(
    study=study,
    sources=tuple(sources or ()),
    targets=tuple(targets),
    prompts=tuple(prompts),
    policies=asked,
    baselines=tuple(baselines),
    metrics=tuple(metrics),
    # the prompts of a given bank have no seeds to pair with
    pairing='all' if sources is None else pairing,
  )
  cells.check_ids([cell.id for cell in work.known_cells(asked_work)])
  policies.check(asked, work.candidates_least(asked_work))
  trained = {n: found[n] for n in (*plain, *sum(members.values(), ()))}
  if sources is None:  # of the bank's prompts, the tasks whose data is here
    names = {p.task for p in prompts if _has_data(p.task, data_dir)}
    trained = {n: task_names.find(n, data_dir) for n in sorted(names)}
  overlaps = overlap.told(trained, {n: found[n] for n in targets})
  return job.Job(
    folder=base.folder,
    plan=work.describe(asked_work, whole, overlaps),
    record={
      'backbone': base.backbone.name,
      'fingerprint': base.backbone.fingerprint,
      'parameters': trees.size(base.backbone.weights),
      'bank': str(study.source.bank),
      'data': {t: a.record['checksum'] for t, a in whole.items()},
      'overlaps': overlaps,
    },
    run=lambda: work.run(asked_work, identity),
    stages={
      'sources': (study.source, max_input, max_target),
      'targets': (study.target, max_input, max_target),
    },
  )


def _check(targets, sources, bank, names, baselines, seeds, metrics):
  """Checks what needs no data; returns the policies."""
  for argument, value in (
    ('targets', targets),
    ('metrics', metrics),
    ('policy_names', names),
    *([] if sources is None else [('sources', sources)]),
  ):
    check_list(argument, value)
  check_seeds('seeds', seeds)
  if sources is None and bank is None:
    raise ValueError(
      'sources: expected tasks to tune source prompts on, or a bank that has '
      'some, found neither.'
    )
  check_names('baselines', tuple(baselines), BASELINES)
  if sources is None and 'multitask' in baselines:
    raise ValueError(
      "baselines: 'multitask' tunes all weights on the sources, expected "
      'their names in sources, found None.'
    )
  check_names('metrics', tuple(metrics), tuple(similarity.SIMILARITIES))
  return tuple(policies.parse(name) for name in dict.fromkeys(names))


def _check_scratch(study: Study, arrays) -> None:
  """Raises ValueError if a start without transfer is of another shape."""
  library = study.target.library
  where = study.target._replace(
    library={**library, study.method: study.scratch}
  )
  wanted, found = (
    stage.shapes(s, study.method, arrays) for s in (study.target, where)
  )
  if trees.describe(wanted) != trees.describe(found):
    raise ValueError(
      f'scratch: expected a method whose phi is that of {study.method!r}, '
      f'{trees.describe(wanted)}, found {trees.describe(found)}. It differs in '
      'where phi starts, and in nothing else.'
    )


def _stage(base: Stage, bank: str, settings: spec.Settings) -> Stage:
  return base._replace(bank=base.folder / bank, settings=settings)


def _mixtures(sources, mixtures, data_dir) -> dict[str, tuple[str, ...]]:
  """Returns the sources that are mixtures, with the tasks that have data.

  A name that is both is the task.
  """
  out = {}
  for name in sources:
    if name in mixtures and not _has_data(name, data_dir):
      have = [t for t in mixtures[name] if _has_data(t, data_dir)]
      out[name] = paper.members(name, have, mixtures)
  return out


def _has_data(name: str, data_dir) -> bool:
  try:
    task_names.find(name, data_dir)
  except ValueError:
    return False
  return True


def _tasks_of(prompts, data_dir) -> list[str]:
  """Returns the tasks of a bank's prompts, whose data a mixture is made of."""
  names = dict.fromkeys(p.task for p in prompts)
  if missing := [n for n in names if not _has_data(n, data_dir)]:
    raise ValueError(
      'policies: expected data of every source, of which mixture-k takes some, '
      f'found none of {missing}. Leave mixture-k out of the policies, or add '
      'the data to data_dir.'
    )
  return list(names)


def _few(whole, names, seeds, side: Side, base: Stage):
  """Returns (task, seed) -> what it is trained on, as a side asks."""
  tasks = {name: whole[name] for name in names}
  shots = dict.fromkeys(tasks, side.shots)
  return fewshot.splits(tasks, shots, seeds, base.folder / 'splits', side.held)


def _mixed(pool, members, seeds, limit, held_out):
  """Returns (mixture, seed) -> what it is trained on.

  A part that is also a target has no more examples than the target.
  """
  return {
    (name, seed): task_mixtures.mix(
      [pool[part, seed] for part in parts],
      limit,
      seed,
      name=name,
      held_out=held_out,
    )
    for name, parts in members.items()
    for seed in map(int, seeds)
  }


def _identity(
  base: Stage, source: Side, target: Side, wide: Side, scratch: Method, whole
) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  sides = {'source': source, 'target': target, 'full': wide}
  return {
    'recipe': 'transfer',
    **stage.identity(base),
    'settings': {
      n: stage.identity(base._replace(settings=s.settings))['settings']
      for n, s in sides.items()
    },
    'rates': {n: s.rate for n, s in sides.items()},
    'shots': {n: [s.shots, s.held] for n, s in sides.items()},
    'scratch': {'name': scratch.name, **scratch.settings},
    'tasks': {n: a.record['checksum'] for n, a in whole.items()},
  }
