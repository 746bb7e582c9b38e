"""Cells: runs that end on disk. What is there is not made again.

A recipe lists the cells that it wants; those that are missing are trained as
rows of stacks, and each is stored, delta first, as soon as its stack ends.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from prompt_subspace import trees
from prompt_subspace.bank import store
from prompt_subspace.data import fewshot
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.data.templates import Template
from prompt_subspace.evaluation.predict import shown
from prompt_subspace.training import hosts, job, results, spec, stack, stage
from prompt_subspace.training.stage import Stage

STATE_BYTES = 3 * 2**30
METRICS = {'cell': str, 'metric': str, 'test': float}
PREDICTIONS = {'example': int, 'target': str, 'output': str}
# on a CPU rows are computed one by one: larger stacks gain nothing, and end
# later
CPU_ROWS = 32


class Cell(NamedTuple):
  """One run, by everything that decides it beside its stage.

  Attributes:
    id: names its files, its bank entry and its random keys.
    task: what it is reported under.
    data: what it trains on and is scored on.
    method: name in the stage's library.
    seed: of its batches and dropout.
    rate: learning rate.
    start: makes the phi that it starts from.
    template: of the task, for the card.
    facts: what else its row holds: majority, source, ...
    parents: places of the bank entries that `start` is made from.
  """

  id: str
  task: str
  data: TaskArrays
  method: str
  seed: int
  rate: float
  start: Callable[[], Any]
  template: Template | None = None
  facts: Mapping[str, Any] = {}
  parents: tuple[epath.Path, ...] = ()


def path(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the file of a finished cell."""
  return folder / 'rows' / f'{name}.json'


def known(folder: pathlib.Path) -> list[str]:
  """Returns the names of all finished cells of a folder, sorted."""
  return sorted(p.stem for p in (folder / 'rows').glob('*.json'))


def is_done(folder: pathlib.Path, name: str) -> bool:
  """Whether a cell is finished."""
  return path(folder, name).exists()


def finished(
  folder: pathlib.Path, cells: Sequence[Cell], others: bool = False
) -> list[str]:
  """Returns the names of cells that are finished, in order.

  Args:
    folder: of the cells.
    cells: a recipe's.
    others: also those of the folder that are not among them: a study that is
      interrupted then leaves a table of all that it has.
  """
  names = list(dict.fromkeys(c.id for c in cells))
  if others:
    names = list(dict.fromkeys([*names, *known(folder)]))
  return [n for n in names if is_done(folder, n)]


def check_ids(ids: Sequence[str]) -> None:
  """Raises ValueError if two runs have the same name."""
  if twice := [n for n, count in Counter(ids).items() if count > 1]:
    raise ValueError(
      f'tasks, methods, rates: two runs would have the name {min(twice)}. Give '
      'tasks other names than those that differ in punctuation alone, and '
      'rates of up to 6 digits.'
    )


def read(folder: pathlib.Path, names: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the rows of the cells that are finished, in order."""
  return [record(folder, n)['row'] for n in names if is_done(folder, n)]


def record(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """Returns all that is stored of a finished cell beside its delta.

  Its `row`; all test `metrics`; the update at which it `stopped`; its
  `history`, see `stack.RowResult`.
  """
  return json.loads(path(folder, name).read_text(encoding='utf-8'))


def stacks(where: Stage, cells: Sequence[Cell]) -> list[list[Cell]]:
  """Groups cells whose rows share a compiled step.

  On a CPU the rows of one task, so that none is padded to the length of
  another task; on an accelerator those of all tasks. The state of a stack
  stays below `STATE_BYTES`.
  """
  cpu = jax.default_backend() == 'cpu'
  groups: dict = {}
  for cell in cells:
    key = (cell.method, cell.task if cpu else '')
    groups.setdefault(key, []).append(cell)
  out = []
  for (method, _), members in groups.items():
    phi = stage.shapes(where, method, members[0].data)
    each = stack.state_bytes(phi, where.optimizer, 1)
    most = max(1, STATE_BYTES // each)
    most = min(most, CPU_ROWS) if cpu else most
    out += [members[i : i + most] for i in range(0, len(members), most)]
  return out


def run(
  where: Stage,
  cells: Sequence[Cell],
  after: Callable[[], None] = lambda: None,
  title: str = '',
) -> None:
  """Makes the cells that are missing; keeps the few-shot splits they use.

  Args:
    where: their stage.
    cells: all that are wanted.
    after: called whenever a stack is stored.
    title: what the progress line begins with.
  """
  hosts.check_shared(where.folder)
  _check_done(where, cells)
  missing = [c for c in cells if not is_done(where.folder, c.id)]
  for cell in missing if hosts.leads() else []:
    fewshot.keep(cell.data, where.folder / 'splits')
  planned = stacks(where, missing)
  for number, members in enumerate(planned, start=1):
    label = f'[{title}{number}/{len(planned)}] {members[0].method} on ' + (
      members[0].task
      if len({c.task for c in members}) == 1
      else f'{len(members)} rows'
    )
    ids = json.dumps([c.id for c in members]).encode()
    place = where.folder / 'stacks' / hashlib.sha256(ids).hexdigest()[:12]
    results = _train(where, members, place, label)
    if hosts.leads():
      for cell, result in zip(members, results, strict=True):
        _store(where, cell, result)
      stack.remove_checkpoints(place)
    hosts.wait('stored')
    after()
  if planned and hosts.leads():
    _write_metrics(where.folder)


def _check_done(where: Stage, cells: Sequence[Cell]) -> None:
  """Raises ValueError if finished cells had other data; says what lacks."""
  unkept = 0
  # one listing: a bank may be remote
  exists = where.bank.is_dir()
  stored = {p.name for p in where.bank.iterdir()} if exists else set()
  for cell in cells:
    if not is_done(where.folder, cell.id):
      continue
    checksum = cell.data.record['checksum']
    found = record(where.folder, cell.id).get('data', checksum)
    if found != checksum:
      raise ValueError(
        f'{path(where.folder, cell.id)}: expected a run on the data with '
        f'checksum {checksum[:16]}, found one with {found[:16]}: examples of '
        f'{cell.task!r} are others now, as those of a mixture with a task that '
        'has become a target with few shots. Name another folder.'
      )
    if cell.method in where.keep and cell.id not in stored:
      unkept += 1
  if unkept:
    print(
      f'{unkept} finished runs have no delta in {where.bank}, and will get '
      f'none: they were made with other keep_deltas, or it was removed.'
    )


def check_parents(
  folder: pathlib.Path, bank: epath.Path, entries: Iterable[str]
) -> None:
  """Raises ValueError if finished cells started from other entries.

  Two banks may have entries of the same names.

  Args:
    folder: of the cells.
    bank: where new cells will find what they start from.
    entries: names in it; those that are not there yet do not count.
  """
  sums = {n: store.phi_sum(bank / n) for n in entries if (bank / n).exists()}
  for name in known(folder):
    for entry, found in record(folder, name).get('parents', {}).items():
      # entries from before sums cannot be told apart
      if found and (sums.get(entry) or found) != found:
        raise ValueError(
          f'bank: expected the {entry} that {path(folder, name)} started from, '
          f'with checksum {found[:16]}, found one in {bank} with '
          f'{sums[entry][:16]}. Name the bank that it was, or another folder.'
        )


def _write_metrics(folder: pathlib.Path) -> None:
  """Writes metrics.csv: every test metric of every finished cell."""
  rows = [
    {'cell': name, 'metric': metric, 'test': value}
    for name in known(folder)
    for metric, value in record(folder, name)['metrics'].items()
    if metric != 'score'
  ]
  results.write_csv(folder / 'metrics.csv', rows, METRICS)


def _write_predictions(where: Stage, cell: Cell, texts: Sequence[str]) -> None:
  """Writes what a run answers to each test example, beside what is right."""
  if not texts:
    return
  references = cell.data.splits['test'].references
  rows = [
    {'example': number, 'target': references[number][0], 'output': shown(text)}
    for number, text in enumerate(texts)
  ]
  place = where.folder / 'predictions' / f'{cell.id}.csv'
  results.write_csv(place, rows, PREDICTIONS)


def _train(where: Stage, members: Sequence[Cell], place, label: str):
  """Trains the rows of one stack; returns a result for each."""
  specs, used = [], {}
  for cell in members:
    # cells with the same arrays share them on the device
    name = f'{cell.task}/{cell.data.record["checksum"]}'
    used[name] = cell.data
    phi = cell.start()
    specs.append(spec.RowSpec(cell.id, name, cell.seed, cell.rate, phi))
  return stack.train_stack(
    stage.engine(where, members[0].method, specs[0].phi),
    where.backbone,
    where.optimizer,
    specs,
    used,
    where.settings,
    place,
    label,
    where.library[members[0].method].constants,
  )


def _store(where: Stage, cell: Cell, result: stack.RowResult) -> None:
  """Writes the delta, then the row: a row that is there is complete."""
  row = {
    'task': cell.task,
    'method': cell.method,
    'seed': cell.seed,
    'rate': cell.rate,
    'steps': where.settings.steps,
    'best_step': result.best_step,
    'validation': result.validation,
    'test': result.test['score'],
    'seconds': round(result.seconds, 3),
    'trained_parameters': trees.size(result.phi),
    'padding': round(result.padding, 4),
    **cell.facts,
  }
  if cell.method in where.keep:
    store.write(
      where.bank / cell.id,
      result.phi,
      _card(where, cell, row, result.test),
      embedding=result.embedding,
    )
  _write_predictions(where, cell, result.predictions)
  extra = {
    'data': cell.data.record['checksum'],
    'parents': {p.name: store.phi_sum(p) for p in cell.parents},
    'metrics': result.test,
    'stopped': result.stopped,
    'history': result.history,
  }
  job.write_json(path(where.folder, cell.id), {'row': row, **extra})
  if result.stopped >= 0:
    print(
      f'{cell.id}: stopped at step {result.stopped}, where its loss or update '
      'was not finite; its best state before that is kept. A lower rate may '
      'help.'
    )


def _card(where: Stage, cell: Cell, row, metrics) -> dict[str, Any]:
  method = where.library[cell.method]
  template = cell.template
  return {
    **row,
    'method': method.name,
    'settings': dict(method.settings),
    'parents': [place.name for place in cell.parents],
    'backbone': where.backbone.name,
    'fingerprint': where.backbone.fingerprint,
    'vocabulary': where.backbone.vocabulary.sha256,
    'prefix_positions': where.backbone.config.prefix_positions,
    'label_texts': cell.data.label_texts,
    'template': template and dataclasses.asdict(template),
    'template_hash': template and template.hash,
    'data': cell.data.record['checksum'],
    'max_input': cell.data.record['request'].get('max_input'),
    'metrics': metrics,
    'embedding_step': where.settings.embedding_step,
    'environment': job.environment()['versions'],
  }
