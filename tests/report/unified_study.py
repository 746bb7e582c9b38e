"""A small study of the unified subspace as files, whose truth is known by hand.

Majority is 50 and originals are 70 everywhere, but on `coins`, where they are
52. Of the 20 points, codes recover SHARES, whatever the seed or the size; with
seed 1 they are 1 point better, and with size 8 they are 2 points better.
"""

import itertools
import json
import math

from prompt_subspace.training import results
from prompt_subspace.unified import columns, landscape

TYPES = ('adapter', 'lora', 'prefix')
GROUPS = {'reading': ('films', 'books'), 'luck': ('dice', 'coins')}
ORIGINAL = {'films': 70.0, 'books': 70.0, 'dice': 70.0, 'coins': 52.0}
MAJORITY = 50.0
POINTS = {'approximation': 18.0, 'inside': 16.0, 'transfer': 10.0}
MARKS = {'adapter': (0.0, 0.0), 'lora': (1.0, 0.0), 'prefix': (0.5, 1.0)}


def reached(stage, task, seed, size):
  """Test score of a code."""
  if task == 'coins':
    return 51.0
  return MAJORITY + POINTS[stage] + seed + 2.0 * (size == 8)


def cell(name, stage, task, method, seed, score, **space):
  return {
    'cell': name,
    'stage': stage,
    'group': None,
    'maps': None,
    'size': None,
    'task': task,
    'method': method,
    'seed': seed,
    'rate': 0.5,
    'steps': 100,
    'best_step': 50,
    'validation': score,
    'test': score,
    'majority': MAJORITY,
    'seconds': 9.0,
    'trained_parameters': 12,
    'padding': 0.25,
    **space,
  }


def rows(maps=('linear',), sizes=(4, 8), seeds=(0, 1), groups=GROUPS):
  """Of recovery.csv."""
  out = []
  for name, kind, size, seed in itertools.product(groups, maps, sizes, seeds):
    space = {'group': name, 'maps': kind, 'size': size, 'seed': seed}
    train, unseen = groups[name]
    tried = [('approximation', train, t, t) for t in TYPES]
    tried += [
      ('inside' if s == t else 'transfer', unseen, s, t)
      for s, t in itertools.product(TYPES, TYPES)
    ]
    for stage, task, source, type_ in tried:
      score = reached(stage, task, seed, size)
      out.append(
        {
          'stage': stage,
          **space,
          'task': task,
          'source': source,
          'type': type_,
          'validation': score,
          'test': score,
          'original': ORIGINAL[task],
          'majority': MAJORITY,
          'cell': f'inside-{task}-{source}',
          'step': 20,
        }
      )
  return out


def write(folder, found=None):
  """A study with these rows, and a history of the maps of each space."""
  found = rows() if found is None else found
  seeds = sorted({r['seed'] for r in found})
  cells = [
    cell(f'original-{t}-{k}-{s}', 'original', t, k, s, ORIGINAL[t])
    for t, k, s in itertools.product(ORIGINAL, TYPES, seeds)
  ]
  spaces = dict.fromkeys(
    (r['group'], r['maps'], r['size'], r['seed']) for r in found
  )
  (folder / 'rows').mkdir(parents=True)
  for group, kind, size, seed in spaces:
    name = f'maps-{group}-{kind}-z{size}-s{seed}'
    space = {'group': group, 'maps': kind, 'size': size}
    own = cell(name, 'maps', group, 'joint', seed, math.nan, **space)
    cells.append(own | {'majority': None})
    history = [
      {
        'step': step,
        'loss': 100.0 / step,
        'validation': math.nan,
        **{f'loss {t}': 1.0 + seed for t in TYPES},
        **{f'distance {t}': 400.0 / step for t in TYPES},
      }
      for step in (50, 100)
    ]
    text = json.dumps({'history': history})
    (folder / 'rows' / f'{name}.json').write_text(text)
  results.write_csv(folder / 'results.csv', cells, columns.CELLS)
  results.write_csv(folder / 'recovery.csv', found, columns.RECOVERY)
  record = {'backbone': 'mini <b>', 'types': list(TYPES)}
  (folder / 'record.json').write_text(json.dumps(record))
  return folder


def plane(folder, name, scores, original=70.0, majority=50.0):
  """Lines of landscapes.csv; writes the points, [x, y] -> score by type."""
  path = folder / 'landscapes' / f'{name}.csv'
  where = landscape.plane([(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])
  points = landscape.grid(1.0, 0.5)

  def score(kind, codes):
    return [scores(kind, float(x), float(y)) for x, y in codes]

  landscape.evaluate(path, where, points, score, TYPES)
  return [
    {
      'name': name,
      'group': 'reading',
      'maps': 'linear',
      'size': 8,
      'seed': 0,
      'task': 'books',
      'type': kind,
      'x': MARKS[kind][0],
      'y': MARKS[kind][1],
      'original': original,
      'majority': majority,
      'examples': 64,
      'file': f'landscapes/{name}.csv',
    }
    for kind in TYPES
  ]
