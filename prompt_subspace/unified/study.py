"""The study of the unified subspace: types x tasks x spaces, and transfer.

Yi et al. 2022 (UDT), section 3: solutions of several delta types (stage 0),
maps from one space of codes to them (stage 1), codes of unseen tasks (stage 2),
and codes that other types found (stage 3).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_subspace import deltas, reparams
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import crossfit_places, mixtures, overlap
from prompt_subspace.deltas.base import (
  Method,
  check_list,
  check_names,
  check_rates,
  check_seeds,
  positive,
)
from prompt_subspace.evaluation import predict
from prompt_subspace.reparams.base import Reparam
from prompt_subspace.training import cells, job, optimizers, spec, stage
from prompt_subspace.unified import joint, spaces, transfer, work
from prompt_subspace.unified.joint import Joint
from prompt_subspace.unified.landscape import Look
from prompt_subspace.unified.plan import Group, Study

TYPES = ('adapter', 'lora', 'prefix')


def unify(
  groups: Mapping[str, Mapping[str, Sequence[str]]],
  out: str,
  sizes: Sequence[int] = (4, 8, 16),
  seeds: Sequence[int] = (0,),
  library: Mapping[str, Method] | None = None,
  maps: Mapping[str, Reparam | Mapping[str, Reparam]] | None = None,
  map_names: Sequence[str] | None = None,
  original: spec.Settings = spec.Settings(),
  rates: Sequence[float] | Mapping[str, Sequence[float]] = (0.01,),
  approximation: spec.Settings = spec.Settings(),
  rate: float = 1e-3,
  how: Joint = Joint(),
  inside: spec.Settings = spec.Settings(),
  inside_rates: Sequence[float] = (5e-2, 1e-2),
  spread: float = 0.02,
  choose_by: str = 'target',
  skip_missing: bool = False,
  look: Look = Look(),
  data_dir: str | None = None,
  backbone: str | Backbone = 'mini',
  optimizer: optimizers.Optimizer = optimizers.adafactor,
  max_input: int = 128,
  max_target: int = 32,
  dropout: float = 0.0,
  cache: str | None = None,
) -> job.Job:
  """Plans a study of the unified subspace.

  Args:
    groups: name -> {'train': tasks, 'unseen': tasks}; the space of a group is
      found on the former and used on the latter. With one training task each it
      is the paper's single-task setting. Tasks are names of `data.tasks.find`
      or of CrossFit; those of the paper are in `unified.tables`.
    out: folder of the results. What is there is not made again: more groups,
      sizes, seeds, kinds of maps add to it.
    sizes: Z of the spaces.
    seeds: of origins, maps, batches.
    library: types by name; by default adapter, LoRA and prefix.
    maps: name -> how codes are expanded, for all types or {type: reparam}; by
      default `linear`, with a down-projection in the whole pipeline.
    map_names: which of `maps` are used; None: all.
    original: settings of stage 0.
    rates: of stage 0, for all types or by type; validation chooses.
    approximation: settings of stage 1; the batch size is that of an episode,
      whose examples are of one task.
    rate: of the maps.
    how: the pipeline of stage 1, with its switches.
    inside: settings of stage 2; evaluations are what transfer chooses among.
    inside_rates: of the codes.
    spread: standard deviation of a code at the start of stage 2.
    choose_by: see `transfer.transfer`.
    skip_missing: leave out tasks of CrossFit that have no data, and groups of
      which nothing is left on one side; otherwise they are an error that lists
      them.
    look: which landscapes are drawn.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    backbone: name, folder or a loaded backbone.
    optimizer: rate -> transform.
    max_input: longest input in tokens; longer ones are cut.
    max_target: longest target in tokens.
    dropout: of the backbone while training.
    cache: folder of prepared arrays; by default `cache` beside `out`.

  Returns:
    The job. Running it writes to `out` the tables of `unified.columns`, bank/
    (solutions and maps), rows/, landscapes/, identity.json.

  Raises:
    ValueError: an unknown name, bad data, a task on both sides of a group, maps
      that do not go with the pipeline, or a folder of other results.
  """
  asked = {name: _group(name, group) for name, group in groups.items()}
  check_list('groups', list(asked), of='group')
  check_list('sizes', sizes, of='number')
  check_seeds('seeds', seeds)
  sizes, seeds = list(dict.fromkeys(sizes)), list(dict.fromkeys(seeds))
  check_rates('inside_rates', inside_rates)
  check_rates('rate', [rate])
  if spread < 0:
    raise ValueError(f'spread: expected at least 0, found {spread!r}.')
  check_names('choose_by', (choose_by,), transfer.CHOICES)
  for size in sizes:
    positive('sizes', size)
  for settings in (approximation, inside):
    spec.check(settings)
  # recovery divides the scores of the one by those of the other
  spec.check_same_tests('inside', inside, original)
  names = tuple(
    dict.fromkeys(n for g in asked.values() for n in (*g.train, *g.unseen))
  )
  places = crossfit_places.places(names, data_dir, skip_missing)
  found = crossfit_places.tasks(places, data_dir)
  chosen = _present(asked, found)
  library = library or {n: deltas.make(n) for n in TYPES}
  base = stage.make(
    out,
    backbone,
    library,
    optimizer=optimizer,
    settings=original,
    dropout=dropout,
  )
  default = reparams.make('linear', down=how.pipeline == 'whole')
  kinds = _maps(maps or {'linear': default}, base.library, map_names)
  held = {
    int(seed): spaces.sides(
      base.library, next(iter(kinds.values())), base.setting, int(seed)
    )
    for seed in seeds
  }
  loaded = stage.prepare(base, found, cache, max_input, max_target)
  study = Study(
    base=base,
    rates={n: _rates(rates, n) for n in base.library},
    joint=approximation,
    joint_rate=float(rate),
    how=how,
    inside=inside,
    inside_rates=tuple(map(float, inside_rates)),
    spread=spread,
    choose_by=choose_by,
    groups=chosen,
    sizes=tuple(map(int, sizes)),
    maps=kinds,
    types=tuple(base.library),
    seeds=tuple(map(int, seeds)),
    held=held,
    data=loaded,
    unions={
      n: mixtures.join([loaded[task] for task in g.train], ('train',), n)
      for n, g in chosen.items()
    },
    templates={n: t.template for n, t in found.items()},
    majority={
      n: predict.majority(a, 'test', original.test_examples)['score']
      for n, a in loaded.items()
    },
    engines={},
  )
  for by_type in kinds.values():
    some = next(iter(held.values()))
    joint.check(
      how, {n: s._replace(reparam=by_type[n]) for n, s in some.items()}
    )
  _check_look(look, study)
  cells.check_ids([cell.id for cell in work.known_cells(study)])
  identity = _identity(study)
  job.check(base.folder, identity)
  overlaps, notes = [], []
  for group in chosen.values():
    sides = [{n: found[n] for n in side} for side in group]
    overlaps += overlap.told(*sides)
    notes += crossfit_places.notes(*group)
  notes += crossfit_places.notes((), (), [n for n in names if n not in found])
  return job.Job(
    folder=base.folder,
    plan=work.describe(study, look, overlaps, notes),
    record={
      'backbone': base.backbone.name,
      'fingerprint': base.backbone.fingerprint,
      'parameters': work.sizes(study),
      'data': {n: a.record['checksum'] for n, a in loaded.items()},
      'groups': {n: g._asdict() for n, g in chosen.items()},
      'types': list(study.types),
      'maps': list(study.maps),
      'pipeline': how.pipeline,
      'overlaps': overlaps,
    },
    run=lambda: work.run(study, identity, look),
  )


def _group(name: str, group: Mapping[str, Sequence[str]]) -> Group:
  if sorted(group) != ['train', 'unseen']:
    raise ValueError(
      f"groups: expected {{'train': tasks, 'unseen': tasks}} for {name!r}, "
      f'found the entries {sorted(group)}.'
    )
  for side in ('train', 'unseen'):
    check_list(f'groups, {name}, {side}', group[side], of='task')
  if both := sorted(set(group['train']) & set(group['unseen'])):
    raise ValueError(
      f'groups: expected unseen tasks of {name!r} that its space is not found '
      f'on, found {both} on both sides. Take them out of one.'
    )
  return Group(tuple(group['train']), tuple(group['unseen']))


def _present(asked: Mapping[str, Group], found) -> dict[str, Group]:
  """Returns the groups without tasks that have no data, if any is left."""
  there = {
    name: Group(*(tuple(n for n in side if n in found) for side in group))
    for name, group in asked.items()
  }
  whole = {n: g for n, g in there.items() if g.train and g.unseen}
  if not whole:
    raise ValueError(
      f'groups: expected data for a training and an unseen task of one of '
      f'{list(asked)}, found none such in data_dir.'
    )
  return whole


def _maps(maps, library, names) -> dict[str, dict[str, Reparam]]:
  """Returns the maps of every type, by kind."""
  if names is not None:
    check_list('map_names', names)
    check_names('map_names', tuple(names), tuple(maps))
    maps = {n: maps[n] for n in names}
  out = {}
  for name, kind in maps.items():
    by_type = (
      dict.fromkeys(library, kind) if isinstance(kind, Reparam) else kind
    )
    if missing := sorted(set(library) - set(by_type)):
      raise ValueError(
        f'maps: expected an entry for every type in {name!r}, missing '
        f'{missing}. Add them, or give one reparameterisation for all.'
      )
    out[name] = {n: by_type[n] for n in library}
  return out


def _rates(rates, kind: str) -> tuple[float, ...]:
  if isinstance(rates, Mapping):
    if kind not in rates:
      raise ValueError(
        f'rates: expected an entry for type {kind!r}, found only '
        f'{sorted(rates)}. Add one, or give one list for all types.'
      )
    rates = rates[kind]
  check_rates('rates', rates)
  return tuple(map(float, rates))


def _check_look(look: Look, study: Study) -> None:
  """Raises ValueError if a landscape is asked for that cannot be drawn."""
  if not look.maps:
    return
  check_names('look.maps', tuple(look.maps), tuple(study.maps))
  types = look.types or study.types[:3]
  check_names('look.types', tuple(types), study.types)
  if len(types) != 3:
    raise ValueError(
      f'look.types: expected three types, whose solutions span a plane, found '
      f'{list(types)}.'
    )
  if look.sizes is None and min(study.sizes) < 2:
    raise ValueError(
      'look.sizes: expected spaces of two dimensions or more, found one of 1.'
    )
  if look.examples != study.base.settings.validation_examples:
    raise ValueError(
      'look.examples: expected the validation_examples of original, '
      f'{study.base.settings.validation_examples}, found {look.examples}: '
      'points are shown beside the scores of own solutions.'
    )
  _ = look.points


def _identity(study: Study) -> dict[str, Any]:
  """What decides the numbers; a folder of others is not continued."""
  shared = stage.identity(study.base)
  settings = {
    name: {k: v for k, v in s._asdict().items() if k not in spec.SPEED_ONLY}
    for name, s in (('maps', study.joint), ('inside', study.inside))
  }
  return {
    'recipe': 'unify',
    **shared,
    # maps are found for all types together, in this order
    'types': list(study.base.library),
    'pipeline': study.how._asdict(),
    'stages': settings,
    # maps are found from the best solutions, transfer chooses among all codes
    'rates': study.rates,
    'inside_rates': study.inside_rates,
    'joint_rate': study.joint_rate,
    'spread': study.spread,
    'choose_by': study.choose_by,
    'kinds': {
      name: {n: {'name': r.name, **r.settings} for n, r in by_type.items()}
      for name, by_type in study.maps.items()
    },
    'groups': {n: g._asdict() for n, g in study.groups.items()},
    'tasks': {n: a.record['checksum'] for n, a in study.data.items()},
  }
