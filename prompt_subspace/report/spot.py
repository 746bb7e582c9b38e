"""The report of a transfer study: tables, pictures, and one page.

Of Vu et al. 2022: table 3 (policies), figure 3 (relative error reduction of
every pair), figures 4 and 7 (similarity of tasks and of runs), figures 5 and 8
(similarity against transfer).
"""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from prompt_subspace.bank import store
from prompt_subspace.evaluation import intervals
from prompt_subspace.report import page, spot_pictures, spot_tables, tables
from prompt_subspace.report.page import (
  Details,
  Headline,
  Page,
  Section,
  Table,
)
from prompt_subspace.report.spot_tables import Found
from prompt_subspace.spot import analysis

LARGE = 10.0  # percent: pairs above it are listed, as in the paper
FACTS = (
  'task',
  'method',
  'settings',
  'backbone',
  'seed',
  'rate',
  'steps',
  'best_step',
  'embedding_step',
  'validation',
  'test',
  'template',
)


def report(folder: pathlib.Path) -> str:
  """Returns the table of policies; writes tables, pictures and report.html.

  Args:
    folder: that the study wrote.
  """
  found = spot_tables.read(pathlib.Path(folder))
  gains = analysis.gains(found.outcomes)
  grid = spot_tables.policy_grid(gains)
  pairs = analysis.pairs(found.cells, found.similarities)
  points = {
    m: analysis.correlations(found.cells, found.similarities, m)
    for m in dict.fromkeys(r['metric'] for r in found.similarities)
  }
  pictures = spot_pictures.draw(found, gains, pairs, points)
  spot_tables.write(found, grid, pairs, points)
  path = found.folder / 'report.html'
  page.write(path, _page(found, gains, pairs, points, pictures))
  return (
    f'{tables.as_text(spot_tables.target_grid(found))}\n\n{tables.as_text(grid)}\n\n'
    f'report     {path}'
  )


def _page(found: Found, gains, pairs, points, pictures) -> Page:
  """Puts the page together."""
  first = [
    Table(
      'Test score by target', spot_tables.target_grid(found), best='row', foot=1
    ),
    Table('Policies, averaged over targets', spot_tables.policy_grid(gains)),
  ]
  first += [pictures[n] for n in ('methods', 'policies') if n in pictures]
  sections = [
    Section('What transfer gains', _explain(found), first),
    Section(
      'Which source helps which target',
      'Positive: fewer errors than when the target is tuned from scratch.',
      [pictures[n] for n in ('error_reduction',) if n in pictures]
      + _large(pairs),
    ),
    Section(
      'Does similarity tell?',
      'The embedding of a task is its prompt after a fixed number of updates.',
      [
        *(
          pictures[n]
          for n in ('transfer', 'similarity', 'similarity_runs')
          if n in pictures
        ),
        Table(
          'Correlation with transfer', spot_tables.correlation_grid(points), 2
        ),
      ],
    ),
    Section(
      'Sources for each target',
      'Ranked by similarity, averaged over runs.',
      _targets(found),
    ),
    Section(
      'Time', '', [Table('Runs by stage', spot_tables.speed_grid(found))]
    ),
  ]
  return Page(
    'Soft prompt transfer',
    _lead(gains, found.metric),
    _headline(gains, found.metric, points[found.metric]),
    sections,
    found.record,
  )


def _best(gains: Sequence[analysis.Gain], metric: str) -> analysis.Gain | None:
  """The policy that gains most, by the similarity that the study ranks by."""
  chosen = [g for g in gains if g.policy not in ('scratch', 'oracle')]
  chosen = [g for g in chosen if g.metric in (None, '', metric)]
  chosen = [g for g in chosen if not g.policy.startswith('random')]
  return max(chosen, key=lambda g: g.gain[0], default=None)


def _lead(gains: Sequence[analysis.Gain], metric: str) -> str:
  best = _best(gains, metric)
  base = next(g for g in gains if g.policy == 'scratch')
  if best is None:
    return f'Tuned from scratch, the targets score {base.score[0]:.1f}.'
  return (
    f'Tuned from scratch, the targets score {base.score[0]:.1f} on average; '
    f'with {best.policy}, of the policies the best on test examples, '
    f'{best.score[0]:.1f}.'
  )


def _headline(
  gains: Sequence[analysis.Gain],
  metric: str,
  points: Sequence[analysis.Points],
) -> list[Headline]:
  out = []
  if best := _best(gains, metric):
    out.append(
      Headline(
        'gain of transfer', f'{best.gain[0]:+.1f} points', f'by {best.policy}'
      )
    )
  for g in gains:
    if g.policy == 'oracle':
      out.append(
        Headline('gain of the oracle', f'{g.gain[0]:+.1f} points', 'all tried')
      )
    if (g.policy, g.metric) == ('best-3', metric) and g.share is not None:
      out.append(
        Headline(
          'kept by three tries',
          f'{100 * g.share:.0f} %',
          f"of the oracle's gain, ranked by {g.metric}",
        )
      )
  known = [p for p in points if not math.isnan(p.r)]
  if known:
    clear = sum(p.p < 0.05 and p.r > 0 for p in known)
    out.append(
      Headline(
        'similarity predicts transfer',
        f'{clear} of {len(known)}',
        'targets with r > 0 and p < 0.05',
      )
    )
  return out


def _explain(found: Found) -> str:
  seeds = len({r['seed'] for r in found.cells})
  return (
    'Every target is tuned from scratch and from source prompts, with the same '
    f'data and updates. Test scores in percent over {seeds} '
    f'{"seed" if seeds == 1 else "seeds"}; what was chosen, was chosen by '
    'validation score. best-k: the best of the k most similar source prompts; '
    'average-k: one start, their weighted average; mixture-k: one start, a '
    'prompt tuned on their mixed data; random-k: k drawn at random; oracle: '
    'all tried. Intervals of gains are of 95 %, from '
    f'{intervals.RESAMPLES:,} bootstrap resamples of targets, and of seeds '
    'within each.'
  )


def _large(pairs: analysis.Pairs) -> list[Table]:
  """The pairs whose error reduction is above `LARGE`."""
  lines = [
    [f'{s} → {t}', float(pairs.gain[i, j]), float(pairs.reduction[i, j])]
    for i, s in enumerate(pairs.sources)
    for j, t in enumerate(pairs.targets)
    if pairs.reduction[i, j] > LARGE
  ]
  lines.sort(key=lambda line: -line[2])
  if not lines:
    return []
  header = ['source → target', 'gain, points', 'error reduction, %']
  caption = f'Pairs with an error reduction above {LARGE:.0f} %'
  return [Table(caption, [header, *lines])]


def _targets(found: Found) -> list[Details]:
  """For each target its ranked sources, with the card of each."""
  pairs = analysis.pairs(found.cells, found.similarities)
  groups: dict[str, dict[str, list]] = {}
  for row in found.similarities:
    if row['metric'] == found.metric:
      by_source = groups.setdefault(row['target'], {})
      by_source.setdefault(row['source_task'], []).append(row)
  out = []
  for target, by_source in groups.items():
    lines, cards = [], []
    for task, rows in by_source.items():
      tried = task in pairs.sources and target in pairs.targets
      place = tried and (pairs.sources.index(task), pairs.targets.index(target))
      lines.append(
        [
          task,
          float(np.mean([r['similarity'] for r in rows])),
          float(pairs.gain[place]) if tried else None,
          float(pairs.reduction[place]) if tried else None,
        ]
      )
      cards.append(_card(found, rows[0]['source']))
    order = sorted(range(len(lines)), key=lambda i: -lines[i][1])
    header = ['source', 'similarity', 'gain, points', 'error reduction, %']
    table = Table(
      f'Sources for {target}', [header, *(lines[i] for i in order)], digits=2
    )
    out.append(Details(target, [table, *(cards[i] for i in order if cards[i])]))
  return out


def _card(found: Found, entry: str) -> Details | None:
  """The main fields of a source's card, where it is in the bank."""
  if not (found.bank / entry).exists():
    return None
  card = store.read_card(found.bank / entry)
  fields = {name: card[name] for name in FACTS if card.get(name) is not None}
  return Details(f'Card of {entry}', [fields])
