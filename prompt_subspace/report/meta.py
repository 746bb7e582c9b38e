"""The report of a meta-learning study: tables, pictures, and one page.

Of Qin et al. 2023, in kind: tables 2 and 3 (ARG) and figures 4 to 23 (every
target). `sweep` is the report of several studies, see `meta_sweep`.
"""

import math
import pathlib
from collections.abc import Mapping

from prompt_subspace.evaluation import intervals
from prompt_subspace.meta import analysis, diagnostics
from prompt_subspace.report import (
  meta_pictures,
  meta_sweep,
  meta_tables,
  page,
  tables,
)
from prompt_subspace.report.meta_pictures import PAPER_RATE
from prompt_subspace.report.meta_tables import Found, label
from prompt_subspace.report.page import Headline, Page, Picture, Section, Table


def report(folder: pathlib.Path) -> str:
  """Returns the tables; writes scores.md, gains.md, arg.csv and report.html.

  Args:
    folder: that the study wrote.
  """
  found = meta_tables.read(pathlib.Path(folder))
  meta_tables.write(found)
  pictures = meta_pictures.draw(found)
  path = found.folder / 'report.html'
  page.write(path, _page(found, pictures))
  scores = meta_tables.mark(meta_tables.score_grid(found), 2, '{}*', '{} ')
  without = meta_tables.left_out(found)
  parts = [
    tables.as_text(scores) + '\n* the best of a line',
    tables.as_text(meta_tables.arg_grid(found)),
    f'no relative gain: {without}' * bool(without),
    f'report     {path}',
  ]
  return '\n\n'.join(part for part in parts if part)


def sweep(folder: pathlib.Path) -> str:
  """Returns the table of a sweep's ARG; writes its tables and its page, and
  those of each of its studies.

  Args:
    folder: with sweep.json and the studies.

  Raises:
    ValueError: see `meta_sweep.read`.
  """
  for study in meta_sweep.read(pathlib.Path(folder)).studies:
    report(study.folder)
  return meta_sweep.sweep(folder)


def _page(found: Found, pictures: Mapping[str, Picture]) -> Page:
  """Puts the page together."""
  gains = any(g.points for g in found.gains)
  curves = meta_tables.in_order(analysis.curves(found.curves))

  def some(*starts: str) -> list[Picture]:
    return [p for n, p in pictures.items() if n.startswith(starts)]

  sections = [
    Section(
      'What a learned start gains',
      _explain(found),
      [
        Table('Averages over targets', meta_tables.arg_grid(found)),
        *some('arg', 'points'),
      ],
    ),
    Section(
      'Target by target',
      'Test scores, mean and deviation over splits.',
      [
        Table(
          'Test score by target',
          meta_tables.score_grid(found),
          best='row',
          foot=1,
        ),
        *some('scores'),
        *(_gain_tables(found) if gains else []),
        *some('relative'),
      ],
    ),
  ]
  if any(c.steps for c in curves):
    sections.append(
      Section(
        'Does it make tuning faster?',
        f'{_faster(curves)} Validation scores, {len(curves[0].targets)} '
        'targets.',
        [
          *some('curves'),
          Table('Updates on the target', meta_tables.curve_grid(curves)),
        ],
      )
    )
  if found.diagnostics:
    sections.append(
      Section(
        'What the inner steps do',
        _inner(found),
        [
          *some('displacement', 'query_loss', 'cosine'),
          Table('By inner rate', meta_tables.diagnostic_grid(found), digits=4),
        ],
      )
    )
  upstream = meta_tables.upstream_grid(found)
  if len(upstream) > 1:
    sections.append(
      Section(
        'Learning from the sources',
        "Each algorithm's own objective (of Reptile half the squared distance "
        'moved), what its inner steps move, and the cosine of the gradients '
        'of MAML and FoMAML.',
        [Table('At the end of learning', upstream, digits=4)],
      )
    )
  sections += [
    Section(
      'Learning rates',
      'A rate at the end of its range that is often the best one asks for a '
      'wider range.',
      [
        Table(
          'How often each rate was the best by validation score',
          meta_tables.rate_grid(found),
        )
      ],
    ),
    Section('Time', '', [Table('Runs', meta_tables.speed_grid(found))]),
  ]
  return Page(
    'Meta-learned prompts',
    _lead(found),
    _headline(found, curves),
    sections,
    found.record,
  )


def _gain_tables(found: Found) -> list[Table]:
  return [
    Table(
      f'{what} by target',
      meta_tables.gain_grid(found, points),
      best='row',
      foot=1,
    )
    for what, points in (('Relative gain, %,', False), ('Gain in points', True))
  ]


def _best(found: Found) -> analysis.Gain | None:
  """The learned start with the highest ARG, or points where there is none."""
  learned = [g for g in found.gains if g.algorithm != 'ft' and g.points]
  by_share = [g for g in learned if g.relative]
  if by_share:
    return max(by_share, key=lambda g: g.relative.mean)
  return max(learned, key=lambda g: g.points.mean, default=None)


def _lead(found: Found) -> str:
  best = _best(found)
  targets, splits = len(found.names), found.splits
  over = (
    f'{targets} {"target" if targets == 1 else "targets"}, {splits} few-shot '
    f'{"split" if splits == 1 else "splits"} of each'
  )
  if best is None:
    return f'{over}. Nothing to compare: see the scores.'
  if best.relative is None:
    return (
      f'{over}. The best learned start, by {label(best.algorithm)}, gains '
      f'{best.points.mean:+.1f} points over plain tuning.'
    )
  return (
    f'{over}. The best learned start, by {label(best.algorithm)}, gains '
    f'{best.relative.mean:+.1f} % over plain tuning on average.'
  )


def _headline(found: Found, curves) -> list[Headline]:
  out = []
  best = _best(found)
  averages = best and (
    ('best ARG', '%', best.relative),
    ('in points', 'points', best.points),
  )
  for title, unit, average in averages or ():
    if average:
      between = average.interval and _between(average.interval)
      shown = f', 95 % interval {between}' if between else ''
      note = f'by {label(best.algorithm)}{shown}'
      out.append(Headline(title, f'{average.mean:+.1f} {unit}', note))
  reached = analysis.steps_to_base(curves)
  base = reached.get(analysis.BASE)
  step = reached.get(best.algorithm) if best else None
  if base and step is not None:
    out.append(
      Headline(
        "to PT's best score",
        f'{step:,} updates',
        f'from the start of {label(best.algorithm)}; PT takes {base:,}',
      )
    )
  found_rates = diagnostics.matters(found.diagnostics)
  if found_rates:
    rate = found_rates[0].loss
    out.append(
      Headline(
        'inner steps matter from',
        'none tried' if rate is None else f'{rate:g}',
        f'inner rate; the paper has {PAPER_RATE:g}',
      )
    )
  return out


def _between(interval: tuple[float, float]) -> str:
  return f'{interval[0]:+.1f} to {interval[1]:+.1f}'


def _explain(found: Found) -> str:
  """What the numbers are, and what is missing among them."""
  if not any(g.points for g in found.gains):
    return (
      'Scores are in percent; rates were chosen by validation score. There are '
      'no gains: that takes plain tuning (pt) and another algorithm.'
    )
  without = meta_tables.left_out(found)
  return (
    'Scores are in percent; rates were chosen by validation score. The '
    'relative gain of a target is 100 (score − PT) / PT, with PT the score of '
    'plain tuning on the same few-shot split; ARG is its mean over '
    'targets. Mean ± deviation over splits. The intervals say how far the mean '
    'may be off for other targets and splits of the kind: '
    f'{intervals.RESAMPLES:,} bootstrap resamples of targets, and of splits '
    'within each.\n\n'
  ) + (f'Without relative gain: {without}.' if without else '')


def _faster(curves) -> str:
  """Whether PT's best mean score is reached earlier from a learned start."""
  reached = analysis.steps_to_base(curves)
  if not reached:
    return ''
  base = next(c for c in curves if c.algorithm == analysis.BASE)
  others = [
    f'{label(c.algorithm)} '
    + (
      'never'
      if reached[c.algorithm] is None
      else f'at {reached[c.algorithm]:,}'
    )
    for c in curves
    if c.algorithm != analysis.BASE
  ]
  said = (
    f"PT's mean score is best, {base.mean.max():.1f}, at update "
    f'{reached[analysis.BASE]:,}.'
  )
  if others:
    said += f' It is reached by {", ".join(others)}.'
  return said


def _inner(found: Found) -> str:
  """What the inner step does at the paper's rate, and where it matters."""
  parts = []
  at = [
    r
    for r in found.diagnostics
    if math.isclose(r['inner_rate'], PAPER_RATE, rel_tol=1e-6)
  ]
  for row in at:
    change = row['loss_after'] - row['loss_before']
    parts.append(
      f"At the paper's inner rate of {PAPER_RATE:g}, {_steps(row)} the prompt "
      f'by {_far(row)} and the query loss by {change:+.2g} nats (of '
      f'{row["loss_before"]:.3g}).'
    )
  for found_rates in diagnostics.matters(found.diagnostics):
    steps = f'With {found_rates.inner_steps} inner '
    steps += 'step' if found_rates.inner_steps == 1 else 'steps'
    loss, cosine = (
      'at no rate tried' if rate is None else f'first at {rate:g}'
      for rate in found_rates[1:]
    )
    parts.append(
      f'{steps}, of the rates tried, the query loss falls by 1 % or more '
      f'{loss}, and the gradients of MAML and FoMAML differ (cosine below '
      f'0.99) {cosine}.'
    )
  episodes = found.diagnostics[0]['episodes']
  parts.append(f'Means over {episodes} episodes at the plain initialisation.')
  return ' '.join(parts)


def _far(row) -> str:
  if math.isnan(row['relative']):  # of nothing, such as a new LoRA
    return f'{row["displacement"]:.2g}'
  return f'{100 * row["relative"]:.2g} % of its norm'


def _steps(row) -> str:
  if row['inner_steps'] == 1:
    return 'the inner step moves'
  return f'{row["inner_steps"]} inner steps move'
