"""A small meta-learning study as files, and how its report is read."""

import csv
import json

from prompt_subspace.meta import columns
from prompt_subspace.training import results

# test scores by split
SCORES = {
  ('books', 'pt'): (50.0, 40.0),
  ('books', 'maml'): (60.0, 50.0),  # + 20 %, + 25 %
  ('books', 'reptile'): (40.0, 32.0),  # - 20 % twice
  ('verses', 'pt'): (20.0, 80.0),
  ('verses', 'maml'): (30.0, 60.0),  # + 50 %, - 25 %
  ('verses', 'reptile'): (18.0, 72.0),  # - 10 % twice
  ('grammar', 'pt'): (10.0, 20.0),
  ('grammar', 'maml'): (20.0, 30.0),
  ('grammar', 'reptile'): (10.0, 20.0),
  ('facts', 'pt'): (0.0, 5.0),
  ('facts', 'maml'): (5.0, 10.0),
  ('facts', 'reptile'): (0.0, 5.0),
}
METRICS = {
  'books': 'accuracy',
  'verses': 'accuracy',
  'grammar': 'matthews',
  'facts': 'qa_f1',
}
RATES = (0.5, 0.3)
# inner rate -> query loss after one step, cosine; before it 2.0
INNER = {3e-5: (1.9996, 1.0), 0.1: (1.97, 0.995), 1.0: (1.5, 0.9)}


def cell(stage, algorithm, task, seed, rate, test=None, majority=None):
  return {
    'cell': f'{stage}-{task}-{algorithm}-s{seed}-r{rate}',
    'stage': stage,
    'algorithm': algorithm,
    'learned': None if algorithm == 'pt' else 0,
    'task': task,
    'method': 'prompt',
    'seed': seed,
    'rate': rate,
    'steps': 100,
    'best_step': 50,
    'validation': test,
    'test': test,
    'majority': majority,
    'seconds': 9.0,
    'trained_parameters': 12,
    'padding': 0.25,
    'loss': 1.25,
    'displacement': 0.0625 if algorithm == 'maml' else None,
    'cosine': 0.875 if algorithm == 'maml' else None,
  }


def write(folder, scores=None):
  """A study with these scores."""
  scores = scores or SCORES
  cells, chosen, curves = [], [], []
  for name in dict.fromkeys(a for _, a in scores if a != 'pt'):
    cells.append(cell('upstream', name, 'sources', 0, 0.5))
  for (target, algorithm), tests in scores.items():
    for seed, test in enumerate(tests):
      majority = 30.0 if METRICS[target] == 'accuracy' else None
      for rate in RATES:
        cells.append(
          cell('downstream', algorithm, target, seed, rate, test, majority)
        )
      key = {
        'target': target,
        'algorithm': algorithm,
        'learned': cells[-1]['learned'],
        'seed': seed,
      }
      chosen.append(
        {
          **key,
          'metric': METRICS[target],
          'rate': RATES[seed],
          'validation': test,
          'test': test,
          'best_step': 50,
          'cell': cells[-1]['cell'],
        }
      )
      for step, part in ((0, 0.1), (50, 0.9), (100, 1.0)):
        loss = None if step == 0 else 1.0 / step
        curves.append(
          {**key, 'step': step, 'loss': loss, 'validation': part * test}
        )
  inner = [
    {
      'inner_rate': rate,
      'inner_steps': 1,
      'episodes': 8,
      'displacement': rate,
      'relative': rate / 4,
      'loss_before': 2.0,
      'loss_after': after,
      'cosine': cosine,
    }
    for rate, (after, cosine) in INNER.items()
  ]
  results.write_csv(folder / 'results.csv', cells, columns.CELLS)
  results.write_csv(folder / 'chosen.csv', chosen, columns.CHOSEN)
  results.write_csv(folder / 'curves.csv', curves, columns.CURVES)
  results.write_csv(folder / 'diagnostics.csv', inner, columns.DIAGNOSTICS)
  record = {'backbone': 'mini <b>', 'sources': ['films', 'news']}
  (folder / 'record.json').write_text(json.dumps(record))
  return folder


def read(path):
  with open(path, encoding='utf-8') as file:
    return list(csv.DictReader(file))


def pictures(folder):
  return {p.stem for p in (folder / 'pictures').glob('*.png')}
