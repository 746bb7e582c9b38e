"""Runs a transfer study: sources, baselines, rankings, transfers, tables."""

import collections
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from prompt_subspace import trees
from prompt_subspace.bank import store
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import differing
from prompt_subspace.spot import plan, policies, ranking
from prompt_subspace.spot.plan import Study
from prompt_subspace.spot.policies import Outcome, Policy
from prompt_subspace.spot.ranking import Ranked, Source
from prompt_subspace.training import cells, job, results, stage
from prompt_subspace.training.cells import Cell
from prompt_subspace.training.stage import Stage

CELLS = {
  'cell': str,
  'stage': str,
  'source': str,
  **results.COLUMNS,
}
SIMILARITIES = {
  'target': str,
  'seed': int,
  'metric': str,
  'rank': int,
  'source': str,
  'source_task': str,
  'similarity': float,
}
OUTCOMES = {
  'target': str,
  'seed': int,
  'policy': str,
  'metric': str,
  'validation': float,
  'test': float,
  'scratch': float,
  'chosen': str,
}

# (metric, target, seed) -> source prompts
Rankings = dict[tuple[str, str, int], Ranked]


class Work(NamedTuple):
  """What is asked of a study.

  Attributes:
    study: what its cells share.
    sources: tasks and mixtures that source prompts are tuned on.
    targets: tasks that they are transferred to.
    prompts: the source prompts, tuned here or found in a bank.
    policies: see `spot.policies`.
    baselines: of `full`, `multitask`.
    metrics: similarities; the first decides averages and mixtures.
    pairing: see `ranking.candidates`.
  """

  study: Study
  sources: tuple[str, ...]
  targets: tuple[str, ...]
  prompts: tuple[Source, ...]
  policies: tuple[Policy, ...]
  baselines: tuple[str, ...]
  metrics: tuple[str, ...]
  pairing: str

  def pairs(self) -> list[tuple[str, int]]:
    """Every target with every seed."""
    return [(t, s) for t in self.targets for s in self.study.seeds]


def describe(
  work: Work, whole: Mapping[str, TaskArrays], overlaps: Sequence[str] = ()
) -> str:
  """The plan for people; overlaps as `data.overlap.told` says them."""
  study = work.study
  first = next(iter(whole.values()))
  phi = stage.shapes(study.source, study.method, first)
  lines = [stage.describe_backbone(study.source)]
  lines += [
    stage.describe_task(n, a, study.target.settings) for n, a in whole.items()
  ]
  lines += [f'mixture    {n}: {", ".join(m)}' for n, m in study.members.items()]
  lines += [f'overlap    {text}' for text in overlaps]
  known = known_cells(work)
  left = sum(not cells.is_done(study.source.folder, c.id) for c in known)
  tries = len(policies.tried(work.policies, work.prompts))
  most = len(work.pairs()) * min(tries, candidates_least(work))
  lines += [
    f'method     {study.method}: {trees.size(phi):,} trained parameters',
    f'sources    {len(work.prompts)} prompts, '
    f'{study.source.settings.steps} steps each',
    f'targets    {len(work.targets)} x {len(study.seeds)} seeds, '
    f'{study.target.settings.steps} steps each',
    f'policies   {", ".join(p.name for p in work.policies)}',
    f'runs       {len(known)} without transfer, {left} of them to do; up to '
    f'{most} from single source prompts; results in {study.source.folder}',
  ]
  return '\n'.join(lines)


def candidates_least(work: Work) -> int:
  """Returns the smallest number of source prompts that a target has."""
  return min(
    len(ranking.candidates(work.prompts, t, s, work.pairing))
    for t, s in work.pairs()
  )


def known_cells(work: Work) -> list[Cell]:
  """Returns the cells that do not depend on a ranking."""
  study = work.study
  out = plan.source_cells(study, work.sources)
  out += plan.scratch_cells(study, work.targets)
  if 'full' in work.baselines:
    out += plan.full_cells(study, work.targets)
  return out


def run(work: Work, identity: Mapping[str, Any]) -> None:
  """Makes what is missing, stage by stage; then writes the tables."""
  study = work.study
  job.claim(study.source.folder, identity)
  made: list[Cell] = []

  def finish(where, wanted, title):
    made.extend(wanted)
    after = functools.partial(_collect, work, made, others=True)
    cells.run(where, wanted, after, title)

  finish(study.source, plan.source_cells(study, work.sources), 'sources ')
  finish(study.target, plan.scratch_cells(study, work.targets), 'scratch ')
  tuned = study.target._replace(
    settings=study.target.settings._replace(embedding_step=None)
  )
  rankings = rank_all(work)
  results.write_csv(
    study.source.folder / 'similarities.csv',
    _similarity_rows(rankings),
    SIMILARITIES,
  )
  finish(tuned, _transfers(work, rankings), 'transfer ')
  finish(tuned, _averages(work, rankings), 'averages ')
  mixed = _mixtures(work, rankings)
  # not among the source prompts: each has seen its target
  plain = study.source._replace(
    bank=study.mixed, settings=_without_embedding(study.source)
  )
  finish(plain, [first for first, _ in mixed], 'mixtures ')
  finish(tuned, [second for _, second in mixed], 'mixed ')
  _full(work, finish)
  _collect(work, made)
  results.write_csv(
    study.source.folder / 'policies.csv', outcomes(work, rankings), OUTCOMES
  )


def _without_embedding(where):
  return where.settings._replace(embedding_step=None)


def _full(work: Work, finish) -> None:
  """The baselines that tune the whole backbone."""
  study = work.study
  if 'full' in work.baselines:
    # nothing starts from these
    alone = study.wide._replace(keep=())
    finish(alone, plan.full_cells(study, work.targets), 'full ')
  if 'multitask' in work.baselines:
    first, second = plan.multitask_cells(study, work.sources, work.targets)
    finish(study.wide, first, 'multitask ')
    finish(study.wide._replace(keep=()), second, 'multitask ')


def _collect(work: Work, made: list[Cell], others: bool = False) -> None:
  """Writes results.csv of the cells so far."""
  folder = work.study.source.folder
  done = cells.finished(folder, made, others)
  rows = [
    {'cell': name, **row}
    for name, row in zip(done, cells.read(folder, done), strict=True)
  ]
  results.write_csv(folder / 'results.csv', rows, CELLS)


def rank_all(work: Work) -> Rankings:
  """Ranks the source prompts for every target, seed and metric."""
  study = work.study
  found = ranking.entries(study.source.bank, [s.entry for s in work.prompts])
  scratch = {
    (c.task, c.seed): c.id for c in plan.scratch_cells(study, work.targets)
  }
  own = ranking.entries(study.target.bank, list(scratch.values()))
  return {
    (metric, t, s): ranking.rank(
      own[scratch[t, s]],
      ranking.candidates(work.prompts, t, s, work.pairing),
      found,
      metric,
    )
    for metric in work.metrics
    for t, s in work.pairs()
  }


def _similarity_rows(rankings: Rankings):
  for (metric, target, seed), ranked in rankings.items():
    pairs = zip(ranked.sources, ranked.similarities, strict=True)
    for number, (source, value) in enumerate(pairs, start=1):
      yield {
        'target': target,
        'seed': seed,
        'metric': metric,
        'rank': number,
        'source': source.entry,
        'source_task': source.task,
        'similarity': value,
      }


def _transfers(work: Work, rankings: Rankings) -> list[Cell]:
  """The targets from every source prompt that a policy tries."""
  out = {}
  for (_, target, seed), ranked in rankings.items():
    by_name = {s.entry: s for s in ranked.sources}
    for name in policies.tried(work.policies, list(by_name)):
      cell = plan.transfer_cell(work.study, target, seed, by_name[name])
      out[cell.id] = cell
  return list(out.values())


def _of_kind(work: Work, kind: str) -> list[int]:
  return [p.k for p in work.policies if p.kind == kind]


def _averages(work: Work, rankings: Rankings) -> list[Cell]:
  out = [
    plan.average_cell(work.study, t, s, rankings[work.metrics[0], t, s], k)
    for k in _of_kind(work, 'average')
    for t, s in work.pairs()
  ]
  return list({c.id: c for c in out}.values())


def _mixtures(work: Work, rankings: Rankings) -> list[tuple[Cell, Cell]]:
  out = [
    plan.mixture_cells(work.study, t, s, rankings[work.metrics[0], t, s], k)
    for k in _of_kind(work, 'mixture')
    for t, s in work.pairs()
  ]
  return list({first.id: (first, second) for first, second in out}.values())


def outcomes(work: Work, rankings: Rankings) -> list[dict[str, Any]]:
  """Returns what every policy gave, by target and seed."""
  study = work.study
  folder = study.source.folder
  scratch = {
    (c.task, c.seed): c for c in plan.scratch_cells(study, work.targets)
  }
  out = []
  for target, seed in work.pairs():
    (base,) = cells.read(folder, [scratch[target, seed].id])
    for policy in work.policies:
      # what does not depend on the metric is listed once
      once = policy.kind in ('oracle', 'random', 'average', 'mixture')
      for metric in work.metrics[:1] if once else work.metrics:
        ranked = rankings[metric, target, seed]
        found = _outcome(work, policy, target, seed, ranked)
        out.append(
          {
            'target': target,
            'seed': seed,
            'policy': policy.name,
            'metric': '' if policy.kind in ('oracle', 'random') else metric,
            'validation': found.validation,
            'test': found.test,
            'scratch': base['test'],
            'chosen': found.chosen,
          }
        )
  return out


def _outcome(
  work: Work, policy: Policy, target: str, seed: int, ranked: Ranked
) -> Outcome:
  study, folder = work.study, work.study.source.folder
  if policy.kind in ('average', 'mixture'):
    cell = (
      plan.average_cell(study, target, seed, ranked, policy.k)
      if policy.kind == 'average'
      else plan.mixture_cells(study, target, seed, ranked, policy.k)[1]
    )
    (row,) = cells.read(folder, [cell.id])
    return Outcome(row['validation'], row['test'], cell.id)
  names = [s.entry for s in ranked.sources]
  by_name = {s.entry: s for s in ranked.sources}
  runs = {}
  for name in policies.tried([policy], names):
    cell = plan.transfer_cell(study, target, seed, by_name[name])
    (row,) = cells.read(folder, [cell.id])
    runs[name] = (row['validation'], row['test'], cell.id)
  if policy.kind == 'random':
    return policies.at_random(names, runs, policy.k, seed)
  return policies.best(list(runs), runs)


def prompts_of(bank: epath.PathLike, where: Stage, method: str) -> list[Source]:
  """Returns the entries of a bank that fit the backbone and the method.

  Raises:
    ValueError: there is none; says what was found.
  """
  cards = store.cards(bank)
  wanted, mark = where.library[method], where.backbone.fingerprint
  fits, reasons = [], collections.Counter()
  for name, card in cards.items():
    other = differing(wanted, card['method'], card['settings'])
    if card['fingerprint'] != mark:
      reasons[f'of the backbone {(card["fingerprint"] or "unknown")[:16]}'] += 1
    elif other:
      texts = [f'{n} {theirs!r}' for n, (theirs, _) in sorted(other.items())]
      reasons[f'with {", ".join(texts)}'] += 1
    else:
      fits.append(Source(name, card['task'], int(card.get('seed') or 0)))
  if not fits:
    found = '; '.join(f'{n} {why}' for why, n in reasons.most_common(5))
    raise ValueError(
      f'bank: expected entries of method {wanted.name!r} with '
      f'{dict(wanted.settings)} for the backbone with fingerprint '
      f'{mark[:16]}, found none of these among the {len(cards)} entries of '
      f'{bank}: {found or "it is empty"}. Name sources to tune them, or '
      'another bank.'
    )
  return fits


def check_bank(study: Study, wanted: Sequence[Cell]) -> None:
  """Raises ValueError if sources would replace another study's prompts, or
  what has been tuned from them would be taken for theirs."""
  where = study.source
  for cell in wanted:
    place = where.bank / cell.id
    if not place.exists():
      if cells.is_done(where.folder, cell.id):
        raise ValueError(
          f'bank: expected the prompts that {where.folder} has tuned, found '
          f'no {place}. Name the bank that they are in, or another folder.'
        )
      continue
    method, card = where.library[cell.method], store.read_card(place)
    same = {
      'method': method.name,
      'settings': json.loads(json.dumps(dict(method.settings))),
      'rate': cell.rate,
      'steps': where.settings.steps,
      'fingerprint': where.backbone.fingerprint,
      'data': cell.data.record['checksum'],
    }
    if other := {n: card.get(n) for n, x in same.items() if card.get(n) != x}:
      raise ValueError(
        f'bank: expected no prompt of {cell.task!r} with seed {cell.seed}, or '
        f'the one that this study makes, found {place} with {other}. It would '
        'be replaced: name another bank, or sources = None to start from it.'
      )
