"""The report of a transfer study, from files as a study writes them."""

import csv
import shutil

import numpy as np
import pytest

from prompt_subspace.bank import store
from prompt_subspace.report import spot, spot_tables
from prompt_subspace.spot import work
from prompt_subspace.training import results
from tests.report import words

SOURCES = ('films', 'news', 'spam')
TARGETS = ('books', 'verses')
SEEDS = (0, 1)
# gains in points of each source for each target
GAINS = {
  'films': (20.0, 4.0),
  'news': (2.0, -10.0),
  'spam': (-4.0, 1.0),
}
SCRATCH = {
  ('books', 0): 50,
  ('books', 1): 60,
  ('verses', 0): 70,
  ('verses', 1): 70,
}


def cell(name, stage, task, seed, test, source=''):
  return {
    'cell': name,
    'stage': stage,
    'source': source,
    'task': task,
    'method': 'prompt',
    'seed': seed,
    'rate': 0.3,
    'steps': 10,
    'best_step': 10,
    'validation': float(test),
    'test': float(test),
    'majority': 40.0,
    'seconds': 2.0,
    'trained_parameters': 12,
    'padding': 0.25,
  }


def entry(folder, name, task, direction):
  random = np.random.default_rng(len(name))
  phi = {
    'encoder': np.float32(direction + 0.1 * random.standard_normal((3, 4)))
  }
  card = {
    'task': task,
    'method': 'prompt',
    'settings': {'length': 3},
    'backbone': 'mini <b>',
    'fingerprint': 'f',
    'seed': 0,
    'test': 40.0,
  }
  store.write(folder / name, phi, card, embedding=phi)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('study')
  axes = np.eye(4)
  rows, similarities, outcomes = [], [], []
  for i, source in enumerate(SOURCES):
    for seed in SEEDS:
      name = f'source-{source}-s{seed}'
      rows.append(cell(name, 'source', source, seed, 90))
      entry(folder / 'bank', name, source, axes[i])
  for (target, seed), score in SCRATCH.items():
    name = f'scratch-{target}-s{seed}'
    rows.append(cell(name, 'scratch', target, seed, score))
    entry(folder / 'tuned', name, target, axes[0 if target == 'books' else 3])
    for rank, (source, gains) in enumerate(GAINS.items(), start=1):
      name = f'source-{source}-s{seed}'
      new = score + gains[TARGETS.index(target)]
      rows.append(
        cell(f't-{target}-{name}', 'transfer', target, seed, new, name)
      )
      for metric in ('average', 'token'):
        similarities.append(
          {
            'target': target,
            'seed': seed,
            'metric': metric,
            'rank': rank,
            'source': name,
            'source_task': source,
            'similarity': 1 - 0.2 * rank,
          }
        )
    gains = [g[TARGETS.index(target)] for g in GAINS.values()]
    for policy, metric, gain in (
      ('best-1', 'average', gains[0]),
      ('best-1', 'token', gains[0]),
      ('best-3', 'average', max(gains)),
      ('oracle', '', max(gains)),
    ):
      outcomes.append(
        {
          'target': target,
          'seed': seed,
          'policy': policy,
          'metric': metric,
          'validation': 0.0,
          'test': score + gain,
          'scratch': float(score),
          'chosen': 'x',
        }
      )
  results.write_csv(folder / 'results.csv', rows, work.CELLS)
  results.write_csv(
    folder / 'similarities.csv', similarities, work.SIMILARITIES
  )
  results.write_csv(folder / 'policies.csv', outcomes, work.OUTCOMES)
  return folder


@pytest.fixture(scope='module')
def text(folder):
  return spot.report(folder)


def test_targets_and_policies_are_printed(text, folder):
  lines = [line.split() for line in text.splitlines()]
  # books: 50, 60 from scratch; films gain 20 in both seeds
  books = next(line for line in lines if line[:1] == ['books'])
  assert books[:5] == ['books', '40.0', '55.0', '±', '7.1']
  assert books[5:8] == ['75.0', '±', '7.1']
  average = next(line for line in lines if line[:1] == ['average'])
  assert average == ['average', '40.0', '62.5', '74.5', '74.5', '74.5']
  best = next(line for line in lines if line[:2] == ['best-1', 'average'])
  assert best[2:8] == ['74.5', '±', '3.5', '12.0', '±', '0.0']
  assert best[-1] == '100'
  assert str(folder / 'report.html') in text


def test_tables_are_written_for_programs_too(text, folder):
  with open(folder / 'pairs.csv', encoding='utf-8') as file:
    pairs = {(r['source'], r['target']): r for r in csv.DictReader(file)}
  assert len(pairs) == 6
  # (20 / 50 + 20 / 40) / 2
  assert float(pairs['films', 'books']['error_reduction']) == 45.0
  assert float(pairs['news', 'verses']['gain']) == -10.0
  with open(folder / 'correlations.csv', encoding='utf-8') as file:
    found = list(csv.DictReader(file))
  assert [(r['metric'], r['target'], r['n']) for r in found] == [
    (m, t, '3') for m in ('average', 'token') for t in TARGETS
  ]
  assert float(found[0]['r']) > 0.9
  assert '| books ' in (folder / 'targets.md').read_text()


def test_the_page_says_what_was_found(text, folder):
  page = (folder / 'report.html').read_text(encoding='utf-8')
  said = words.shown(folder)
  assert said.index('+12.0') < said.index('Test score by target')
  assert 'films → books' in said and 'news → verses' not in said
  assert 'Card of source-films-s0' in said
  assert 'mini <b>' in said and 'mini <b>' not in page, 'texts are escaped'
  # ranked sources of each target, the most similar first
  part = said[said.index('Sources for books') :]
  assert part.index('films') < part.index('news') < part.index('spam')
  pictures = {p.stem for p in (folder / 'pictures').glob('*.png')}
  assert pictures == {
    'error_reduction',
    'similarity',
    'similarity_runs',
    'transfer',
    'policies',
    'methods',
  }
  assert page.count('data:image/png') >= len(pictures)


def test_tasks_that_are_alike_are_drawn_beside_one_another(text, folder):
  from prompt_subspace.report import spot_pictures

  found = spot_tables.read(folder)
  by_task, names, runs, labels = spot_pictures._task_similarities(found)
  assert names == [*SOURCES, *TARGETS] and len(labels) == len(runs) == 10
  near = by_task[names.index('books'), names.index('films')]
  assert near > 0.9 > 0.5 > by_task[names.index('books'), names.index('spam')]
  np.testing.assert_array_equal(np.diag(by_task), 1.0)


def changed(folder, place, change):
  """A copy of a study with other outcomes."""
  copy = shutil.copytree(folder, place)
  rows = results.read_csv(copy / 'policies.csv', work.OUTCOMES)
  results.write_csv(copy / 'policies.csv', change(rows), work.OUTCOMES)
  return copy


def test_the_best_policy_is_by_the_similarity_of_the_study(folder, tmp_path):
  def change(rows):
    return [r | {'test': 99.0} if r['metric'] == 'token' else r for r in rows]

  other = changed(folder, tmp_path / 'new', change)
  spot.report(other)
  shown = words.shown(other)
  assert '+12.0' in shown[: shown.index('Test score by target')]


def test_an_average_is_of_all_targets_or_none(folder, tmp_path):
  def change(rows):
    return [
      r for r in rows if (r['target'], r['policy']) != (TARGETS[0], 'best-3')
    ]

  found = spot_tables.read(changed(folder, tmp_path / 'new', change))
  head, *_, last = spot_tables.target_grid(found)
  assert last[head.index('best-3')] == '-' != last[head.index('best-1')]


def test_a_task_on_both_sides_is_shown_by_its_source_prompt(folder, tmp_path):
  from prompt_subspace.report import spot_pictures

  copy = shutil.copytree(folder, tmp_path / 'new')
  rows = results.read_csv(copy / 'results.csv', work.CELLS)
  for row in rows:
    if row['stage'] == 'scratch' and row['task'] == 'books':
      row['task'] = 'films'
  results.write_csv(copy / 'results.csv', rows, work.CELLS)
  *_, labels = spot_pictures._task_similarities(spot_tables.read(copy))
  assert len(labels) == len(set(labels)) == 8


def test_a_study_of_one_seed_and_one_policy_is_shown(folder, tmp_path):
  small = shutil.copytree(folder, tmp_path / 'small')
  cells = results.read_csv(small / 'results.csv', work.CELLS)
  kept = [
    c
    for c in cells
    if c['seed'] == 0 and (c['stage'] != 'transfer' or 'films' in c['source'])
  ]
  results.write_csv(small / 'results.csv', kept, work.CELLS)
  for name, columns in (
    ('similarities', work.SIMILARITIES),
    ('policies', work.OUTCOMES),
  ):
    rows = results.read_csv(small / f'{name}.csv', columns)
    rows = [r for r in rows if r['seed'] == 0]
    if name == 'policies':
      rows = [r for r in rows if r['policy'] == 'best-1']
    results.write_csv(small / f'{name}.csv', rows, columns)
  text = spot.report(small)
  assert 'oracle' not in text and '±' not in text
  assert 'share of' not in text


def test_studies_are_compared_by_the_size_of_their_backbones(
  folder, tmp_path, capsys
):
  import json
  import shutil

  from prompt_subspace.report import spot_sizes

  studies = []
  for i, size in enumerate((2_000_000, 1_000_000)):
    studies.append(shutil.copytree(folder, tmp_path / str(size)))
    (studies[i] / 'record.json').write_text(json.dumps({'parameters': size}))
  # the smaller one gains less
  rows = results.read_csv(studies[1] / 'policies.csv', work.OUTCOMES)
  rows = [{**r, 'test': r['test'] - 10} for r in rows]
  results.write_csv(studies[1] / 'policies.csv', rows, work.OUTCOMES)
  found = spot_sizes.sizes(studies)
  assert found['scratch'] == {
    2_000_000: found['scratch'][1_000_000],
    1_000_000: (62.5, pytest.approx(3.5355, abs=1e-3)),
  }
  assert found['best-1'][2_000_000][0] == 74.5
  assert found['best-1'][1_000_000][0] == 64.5
  (axes, *_) = spot_sizes.draw(found).axes
  assert axes.get_xscale() == 'log'
  out = tmp_path / 'sizes.png'
  assert spot_sizes.main([*map(str, studies), '--out', str(out)]) == 0
  printed = capsys.readouterr().out.splitlines()
  assert printed[0].split() == ['policy', '1,000,000', '2,000,000']
  assert ['best-1', '64.5', '74.5'] in [line.split() for line in printed]
  assert out.stat().st_size > 1000
  assert spot_sizes.main([str(studies[0])] * 2) == 2
  assert 'second one of 2,000,000' in capsys.readouterr().err
  assert spot_sizes.main([str(folder)]) == 2
  assert 'record.json with the size' in capsys.readouterr().err
