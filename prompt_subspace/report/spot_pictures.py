"""The pictures of a transfer study."""

import math
from collections.abc import Sequence

import numpy as np

from prompt_subspace.bank import retrieve, similarity
from prompt_subspace.report import plots, spot_tables, tables
from prompt_subspace.report.page import Picture
from prompt_subspace.report.spot_tables import Found, Points
from prompt_subspace.spot import analysis, ranking


def draw(
  found: Found,
  gains: Sequence[analysis.Gain],
  pairs: analysis.Pairs,
  points: Points,
) -> dict[str, Picture]:
  """Draws everything that there is data for; writes pictures/NAME.png."""
  figures = {}
  if pairs.sources:
    figures['error_reduction'] = (
      plots.heatmap(
        pairs.reduction,
        pairs.sources,
        pairs.targets,
        'What each source prompt does for each target',
        'relative error reduction, %',
        center=0.0,
        limits=(-50.0, 50.0),
      ),
      'Rows are source tasks, columns targets: how much of the error that '
      'tuning from scratch leaves is gone.',
    )
  by_task, names, runs, labels = _task_similarities(found)
  if len(names) > 2:
    figures['similarity'] = (
      plots.clustered(by_task, names, 'Similarity of task embeddings'),
      'Mean over all pairs of runs of two tasks; neighbours in the tree are '
      'similar.',
    )
  if len(labels) > len(names):
    figures['similarity_runs'] = (
      plots.clustered(runs, labels, 'Similarity of all runs'),
      'Runs of one task that lie together: its embedding depends on the task '
      'more than on the seed.',
    )
  panels = {
    p.target: (p.similarity, p.reduction)
    for p in points[found.metric]
    if len(p.sources) > 1
  }
  if panels:
    figures['transfer'] = (
      plots.scatters(
        panels,
        f'similarity of task embeddings ({found.metric})',
        'relative error reduction, %',
        'Does similarity tell what will help?',
      ),
      'A point is a source task, averaged over runs; r is Pearson’s '
      'correlation, p its two-sided p-value.',
    )
  if curves := _curves(gains, found.metric):
    scratch = next(g for g in gains if g.policy == 'scratch').score[0]
    reference = {'from scratch': scratch}
    for g in gains:
      if g.policy == 'oracle':
        reference['oracle'] = g.score[0]
    figures['policies'] = (
      plots.curves(
        curves,
        'k, source prompts tried or mixed',
        'test score, mean over targets',
        'Policies',
        reference=reference,
      ),
      'Bands are one standard deviation over seeds.',
    )
  grid = spot_tables.target_grid(found)
  figures['methods'] = (_bars(grid), 'Error bars: deviation over seeds.')
  out = {}
  for name, (figure, caption) in figures.items():
    data = plots.encode(figure)
    plots.save(figure, found.folder / 'pictures' / f'{name}.png')
    out[name] = Picture(data, caption, caption)
  return out


def _curves(gains: Sequence[analysis.Gain], metric: str) -> dict:
  """{policy: (k, mean, deviation)}, if one has more than one k."""
  lines: dict[str, list] = {}
  for g in gains:
    kind, _, k = g.policy.partition('-')
    if k and g.metric in ('', metric):
      lines.setdefault(f'{kind}-k', []).append((int(k), *g.score))
  out = {}
  for name, values in lines.items():
    k, mean, deviation = zip(*sorted(values), strict=True)
    spread = None if None in deviation else list(deviation)
    out[name] = (list(k), list(mean), spread)
  return out if any(len(v[0]) > 1 for v in out.values()) else {}


def _bars(grid: tables.Grid):
  """Scores by target, as the grid shows them."""
  names, lines = grid[0][2:], grid[1:-1]
  series = {}
  for i, name in enumerate(names, start=2):
    parts = [line[i].split(' ± ') for line in lines]
    means = [float(p[0]) if p[0] != '-' else math.nan for p in parts]
    spread = [float(p[1]) if len(p) > 1 else 0.0 for p in parts]
    series[name] = (means, spread if any(spread) else None)
  return plots.bars(
    [line[0] for line in lines],
    series,
    'test score',
    'Scores by target',
    baseline=[float(line[1]) for line in lines],
    baseline_label='majority',
  )


def _task_similarities(found: Found):
  """Returns similarity by task and by run, with their names."""
  # entry -> task, and how the picture names it
  held: dict[str, tuple[str, str]] = {}
  own: dict[str, tuple[str, str]] = {}
  for stage, place in (('source', held), ('scratch', own)):
    for r in found.cells:
      if r['stage'] == stage:
        place[r['cell']] = (r['task'], f'{r["task"]} {r["seed"]}')
  ranked = {r['source']: r['source_task'] for r in found.similarities}
  for name, task in ranked.items():
    # of a bank that the study did not make
    if name not in held and (found.bank / name).exists():
      held[name] = (task, name)
  # of a task on both sides, what all of its data has taught
  known = {task for task, _ in held.values()}
  own = {name: x for name, x in own.items() if x[0] not in known}
  read = ranking.entries(found.bank, list(held))
  read |= ranking.entries(found.folder / 'tuned', list(own))
  entries = held | own
  alike = retrieve.comparable([read[n] for n in entries])
  runs = similarity.matrix(alike, found.metric)
  tasks = [task for task, _ in entries.values()]
  names = list(dict.fromkeys(tasks))
  member = np.array([[t == n for t in tasks] for n in names], np.float64)
  share = member / member.sum(axis=1, keepdims=True)
  by_task = share @ runs @ share.T
  for x in (by_task, runs):
    np.fill_diagonal(x, 1.0)
  labels = [label for _, label in entries.values()]
  return (by_task + by_task.T) / 2, names, runs, labels
