"""The report of a look at instance-wise prompts: map, silhouettes, words.

Jiang et al. 2022 (IPT), figure 4 and table 4 in kind.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from prompt_subspace.instance import understand
from prompt_subspace.report import figures, page, tables
from prompt_subspace.report.page import Headline, Page, Picture, Section, Table
from prompt_subspace.training import results

NAMES = {'backbone': "the backbone's embeddings", 'prompt': 'the prompts'}


def report(folder: pathlib.Path) -> str:
  """Returns the tables; writes pictures/map.png, words.md and report.html.

  Args:
    folder: that `understand.look` wrote.
  """
  folder = pathlib.Path(folder)
  points = results.read_csv(folder / 'map.csv', understand.MAP)
  apart = results.read_csv(folder / 'silhouettes.csv', understand.SILHOUETTES)
  words = results.read_csv(folder / 'words.csv', understand.WORDS)
  figure = draw(points, {r['embedding']: r['silhouette'] for r in apart})
  data = figures.encode(figure)
  figures.save(figure, folder / 'pictures' / 'map.png')
  near = word_grid(words)
  scores = [['embedding', 'silhouette', 'sentences']] + [
    [NAMES[r['embedding']], f'{r["silhouette"]:.3f}', str(r['sentences'])]
    for r in apart
  ]
  path = folder / 'words.md'
  path.write_text(tables.as_markdown(near) + '\n', encoding='utf-8')
  best = {r['embedding']: r['silhouette'] for r in apart}
  counts = {n: len({p[n] for p in points}) for n in ('task', 'category')}
  what = 'task' if counts['task'] == counts['category'] else 'category'
  caption = f'Each point is an input; its colour is its {what}.'
  whole = Page(
    'What prompts know of their inputs',
    f'{apart[0]["sentences"]} inputs of {counts["task"]} tasks'
    + f' in {counts["category"]} categories.' * (what == 'category'),
    [
      Headline('silhouette', f'{best[kind]:.3f}', f'by {NAMES[kind]}')
      for kind in reversed(best)
    ],
    [
      Section(
        'A map of sentences',
        'Two principal components of the directions of embeddings. The '
        'silhouette is taken in all dimensions: 1 when colours are far apart, '
        '0 when they overlap.',
        [
          Picture(data, caption, caption),
          Table('How well colours are apart', scores, digits=3),
        ],
      ),
      Section(
        'Nearest words',
        'The words of an input whose embeddings are most similar to its '
        'prompt are in [brackets].',
        [Table('Inputs', near)],
      ),
    ],
    {},
  )
  page.write(folder / 'report.html', whole)
  return '\n\n'.join(
    [
      tables.as_text(scores),
      tables.as_text(near),
      f'report     {folder / "report.html"}',
    ]
  )


@figures.styled
def draw(
  points: Sequence[Mapping[str, Any]], silhouettes: Mapping[str, float]
) -> Figure:
  """The maps side by side, coloured by category."""
  figure = figures.blank('Sentences in two dimensions', height=4.4)
  names = list(dict.fromkeys(p['category'] for p in points))
  kinds = list(silhouettes)
  for axes, kind in zip(
    figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True
  ):
    for number, name in enumerate(names):
      mine = [
        (p['x'], p['y'])
        for p in points
        if p['category'] == name and p['embedding'] == kind
      ]
      colour = figures.COLOURS[number % len(figures.COLOURS)]
      axes.scatter(*np.array(mine).T, s=9, alpha=0.6, color=colour, label=name)
    axes.set_title(f'{NAMES[kind]}: silhouette {silhouettes[kind]:.2f}')
    axes.set_xticks([])
    axes.set_yticks([])
  figure.legend(
    *axes.get_legend_handles_labels(),
    loc='outside lower center',
    ncols=min(4, len(names)),
    markerscale=2,
  )
  return figure


def word_grid(words: Sequence[Mapping[str, Any]]) -> tables.Grid:
  """A line for each input, its nearest words in brackets."""
  grid = [['task', 'input']]
  for number in dict.fromkeys(w['example'] for w in words):
    own = [w for w in words if w['example'] == number]
    texts = [f'[{w["token"]}]' if w['nearest'] else w['token'] for w in own]
    grid.append([own[0]['task'], ' '.join(texts)])
  return grid
