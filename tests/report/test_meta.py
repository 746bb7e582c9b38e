"""The report of a meta-learning study, from files as a study writes them."""

import csv
import html.parser
import json
import math
import shutil

import pytest

from prompt_subspace.meta import columns
from prompt_subspace.report import meta, meta_pictures, meta_tables, tables
from prompt_subspace.training import results

SPLITS = (0, 1)
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


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def text(folder):
  return meta.report(folder)


class Words(html.parser.HTMLParser):
  """The visible words of a page."""

  def __init__(self):
    super().__init__()
    self.words, self.skip = [], False

  def handle_starttag(self, tag, attrs):
    self.skip = tag in ('style', 'script')

  def handle_data(self, data):
    if not self.skip:
      self.words.append(' '.join(data.split()))


def shown(folder):
  words = Words()
  words.feed((folder / 'report.html').read_text(encoding='utf-8'))
  return ' '.join(words.words)


def read(path):
  with open(path, encoding='utf-8') as file:
    return list(csv.DictReader(file))


def pictures(folder):
  return {p.stem for p in (folder / 'pictures').glob('*.png')}


def test_averages_and_scores_are_printed(text, folder):
  lines = [line.split() for line in text.splitlines()]
  header = next(line for line in lines if line[:1] == ['target'])
  assert header == 'target metric majority PT MAML Reptile'.split()
  books = next(line for line in lines if line[:1] == ['books'])
  # 50, 40 and 60, 50, whose deviations are sqrt(50)
  assert ' '.join(books[2:]) == '30.0 45.0 ± 7.1 55.0 ± 7.1* 36.0 ± 5.7'
  facts = next(line for line in lines if line[:1] == ['facts'])
  assert facts[:3] == ['facts', 'qa_f1', '-']
  # (45 + 50 + 15 + 2.5) / 4 and (55 + 45 + 25 + 7.5) / 4
  average = next(line for line in lines if line[:1] == ['average'])
  assert average[1:4] == ['-', '28.1', '33.1*']
  maml = next(line for line in lines if line[:1] == ['MAML'])
  # (20 + 50) / 2 and (25 - 25) / 2, over books and verses
  assert maml[4:7] == ['17.5', '±', '24.7']
  assert '2 of 4' in text
  assert (
    'no relative gain: grammar, as matthews can be negative; facts, as prompt '
    'tuning scores 0 on a split'
  ) in text
  assert str(folder / 'report.html') in text


def test_the_averages_are_written_for_programs(text, folder):
  pt, maml, reptile = read(folder / 'arg.csv')
  assert (pt['algorithm'], pt['arg'], pt['targets']) == ('pt', '', '0')
  assert float(maml['arg']) == 17.5 and maml['targets'] == '2'
  assert float(maml['arg_low']) < 17.5 < float(maml['arg_high'])
  # by split (10 + 10 + 10 + 5) / 4 and (10 - 20 + 10 + 5) / 4
  assert float(maml['points']) == pytest.approx((35 + 5) / 8)
  assert float(reptile['arg']) == pytest.approx(-15.0)
  assert float(reptile['arg_deviation']) == pytest.approx(0.0, abs=1e-9)
  # resamples have both targets, or one of them twice
  assert float(reptile['arg_low']) == pytest.approx(-20.0)
  assert float(reptile['arg_high']) == pytest.approx(-10.0)
  assert 'facts: prompt tuning scores 0' in maml['left_out']
  for row in (pt, maml, reptile):
    assert not {'nan', 'inf', '-inf'} & set(row.values())


def test_gains_by_target_are_written(text, folder):
  gains = (folder / 'gains.md').read_text(encoding='utf-8')
  relative, points = gains.split('Gain in points')
  (books,) = [line for line in relative.splitlines() if '| books' in line]
  assert [c.strip() for c in books.split('|')[2:4]] == [
    '**22.5 ± 3.5**',
    '-20.0 ± 0.0',
  ]
  (grammar,) = [line for line in relative.splitlines() if '| grammar' in line]
  assert [c.strip() for c in grammar.split('|')[2:4]] == ['-', '-']
  (grammar,) = [line for line in points.splitlines() if '| grammar' in line]
  assert '**10.0 ± 0.0**' in grammar and ' 0.0 ± 0.0 ' in grammar
  scores = (folder / 'scores.md').read_text(encoding='utf-8')
  assert (
    '**55.0 ± 7.1**' in scores and '**45.0' not in scores.split('verses')[0]
  )


def test_the_page_says_what_was_found(text, folder):
  said = shown(folder)
  assert 'gains +17.5 % over prompt tuning on average' in said
  assert said.index('+17.5') < said.index('Averages over targets')
  assert '10,000 bootstrap resamples' in said
  # PT: 28.1 at step 100; MAML has 0.9 * 33.1 = 29.8 at 50
  assert "PT's mean score is best, 28.1, at update 100." in said
  assert 'It is reached by MAML at 50, Reptile never.' in said
  # 3e-5 / 4 in percent; 1.9996 - 2
  assert (
    "At the paper's inner rate of 3e-05, the inner step moves the prompt by "
    '0.00075 % of its norm and the query loss by -0.0004 nats (of 2).'
  ) in said
  assert 'falls by 1 % or more first at 0.1' in said
  assert '(cosine below 0.99) first at 1.' in said
  page = (folder / 'report.html').read_text(encoding='utf-8')
  assert 'mini <b>' in said and 'mini <b>' not in page, 'texts are escaped'
  assert pictures(folder) == {
    'arg',
    'points',
    'relative',
    'scores',
    'curves',
    'displacement',
    'query_loss',
    'cosine',
  }
  assert page.count('data:image/png') == len(pictures(folder))


def test_rates_and_times_are_counted(folder):
  found = meta_tables.read(folder)
  # split 0 of each of 4 targets chose 0.5, split 1 chose 0.3
  assert meta_tables.rate_grid(found) == [
    ['algorithm', '0.3', '0.5'],
    *[[name, 4, 4] for name in ('PT', 'MAML', 'Reptile')],
  ]
  grid = meta_tables.speed_grid(found)
  assert ['upstream', 'MAML', 1, 9, 400, 25.0] in grid
  assert ['downstream', 'PT', 16, 144, 400, 25.0] in grid


def test_an_early_end_and_no_diagnostics_leave_gaps(folder, tmp_path):
  small = shutil.copytree(folder, tmp_path / 'small')
  (small / 'diagnostics.csv').unlink()
  (small / 'record.json').unlink()
  shutil.rmtree(small / 'pictures', ignore_errors=True)
  rows = results.read_csv(small / 'chosen.csv', columns.CHOSEN)
  for row in rows:
    if (row['target'], row['algorithm'], row['seed']) == ('books', 'maml', 1):
      row['test'] = None
  results.write_csv(small / 'chosen.csv', rows, columns.CHOSEN)
  text = meta.report(small)
  lines = [line.split() for line in text.splitlines()]
  # the one score of books is shown, with how many splits it is over
  books = next(line for line in lines if line[:1] == ['books'])
  assert ' '.join(books[6:8]) == '60.0 (1)*'
  maml = next(line for line in lines if line[:1] == ['MAML'])
  assert maml[1] == '-', 'no average over fewer targets than others have'
  assert 'books (MAML), as a score is missing' in text
  assert 'displacement' not in pictures(small)
  assert 'What the inner steps do' not in shown(small)


def test_one_split_and_one_target_are_shown(tmp_path):
  scores = {('books', 'pt'): (50.0,), ('books', 'maml'): (60.0,)}
  text = meta.report(write(tmp_path, scores))
  assert '±' not in text and '[' not in text and 'nan' not in text
  assert ['MAML', '60.0', '20.0', '-', '1', 'of', '1', '10.0', '-'] in [
    line.split() for line in text.splitlines()
  ]
  assert '1 target, 1 few-shot split of each' in shown(tmp_path)


def test_without_prompt_tuning_there_are_scores_alone(tmp_path):
  scores = {k: v for k, v in SCORES.items() if k[1] != 'pt'}
  text = meta.report(write(tmp_path, scores))
  assert 'ARG' not in text and 'has no prompt tuning (pt)' in text
  assert not pictures(tmp_path) & {'arg', 'points', 'relative'}
  assert not (tmp_path / 'gains.md').exists()
  assert 'no gains' in shown(tmp_path)
  assert [r['arg'] for r in read(tmp_path / 'arg.csv')] == ['', '']


def test_prompt_tuning_alone_is_shown(tmp_path):
  scores = {k: v for k, v in SCORES.items() if k[1] == 'pt'}
  text = meta.report(write(tmp_path, scores))
  assert 'no relative gain' not in text and '28.1' in text


def test_where_no_relative_gain_is_defined_points_are(tmp_path):
  scores = {k: v for k, v in SCORES.items() if k[0] in ('grammar', 'facts')}
  meta.report(write(tmp_path, scores))
  said = shown(tmp_path)
  # 10, 10 and 5, 5
  assert 'by MAML, gains +7.5 points over prompt tuning' in said
  assert 'points' in pictures(tmp_path)
  assert not pictures(tmp_path) & {'arg', 'relative'}


def test_a_study_without_results_is_refused(folder, tmp_path):
  empty = shutil.copytree(folder, tmp_path / 'empty')
  results.write_csv(empty / 'chosen.csv', [], columns.CHOSEN)
  with pytest.raises(ValueError, match='a row per target, split and algorithm'):
    meta.report(empty)


def test_many_targets_are_spread_over_pictures():
  targets = [f'target-{i}' for i in range(45)]
  values = {(a, t): (1.0, None) for a in 'abc' for t in targets}
  parts = list(meta_pictures._groups('abc', targets, values))
  assert [len(groups) for _, _, groups, _ in parts] == [15, 15, 15]
  assert sum((groups for _, _, groups, _ in parts), []) == targets
  assert [(end, title) for end, _, _, title in parts][0] == ('_1', ' (1 of 3)')
  (alone,) = meta_pictures._groups('a', targets[:2], values)
  assert alone == ('', {'a': ((1.0, 1.0), None)}, targets[:2], '')


def test_long_names_lose_their_middle_unless_they_become_equal():
  long = 'blimp-sentential_negation_npi_scope'
  assert meta_pictures._short(['books', long]) == [
    'books',
    'blimp-senten…on_npi_scope',
  ]
  alike = [long, long.replace('tial_neg', 'tial_pos')]
  assert meta_pictures._short(alike) == alike


def test_the_best_of_a_line_is_marked():
  grid = [
    ['target', 'a', 'b'],
    ['x', '-1.0 ± 2.0', '-3.0'],
    ['y', '-', '1.0'],
    ['z', '1.0', '1.0'],
  ]
  assert meta_tables.mark(grid, 1, '{}*', '{} ') == [
    ['target', 'a ', 'b '],
    ['x', '-1.0 ± 2.0*', '-3.0 '],
    ['y', '- ', '1.0 '],
    ['z', '1.0 ', '1.0 '],
  ]
  assert meta_tables.spread_text((-0.01, None)) == '0.0'
  assert meta_tables.spread_text((math.nan, 1.0)) == tables.MISSING


# sweeps


def sweep_folder(folder, values, name='shots'):
  """Studies in which MAML gains 10 points more from value to value."""
  folders = [f'{name}={value}' for value in values]
  for i, study in enumerate(folders):
    (folder / study).mkdir(parents=True)
    scores = {
      (t, a): tuple(x + 10 * i * (a == 'maml') for x in tests)
      for (t, a), tests in SCORES.items()
    }
    write(folder / study, scores)
  record = {'name': name, 'values': values, 'folders': folders}
  (folder / 'sweep.json').write_text(json.dumps(record))
  return folder


def test_a_sweep_shows_gains_against_the_value(tmp_path):
  text = meta.sweep(sweep_folder(tmp_path, [128, 16]))
  lines = [line.split() for line in text.splitlines()]
  assert ['ARG', '%', 'by', 'shots', '16', '128'] in lines, 'sorted'
  maml = next(line for line in lines if line[:1] == ['MAML'])
  # at 16 the scores are 10 points higher than at 128:
  # by split (40 + 100) / 2 and (50 - 12.5) / 2
  assert maml[1] == '44.4' and maml[4] == '17.5'
  rows = read(tmp_path / 'sweep.csv')
  found = {(r['value'], r['algorithm']): r['arg'] for r in rows}
  assert float(found['16', 'maml']) == pytest.approx(44.375)
  assert float(found['128', 'maml']) == 17.5
  assert rows[0]['name'] == 'shots' and found['16', 'pt'] == ''
  assert '| MAML' in (tmp_path / 'sweep.md').read_text()
  assert pictures(tmp_path) == {'sweep'}
  assert '+44.4 %' in shown(tmp_path)


def test_numbers_are_on_an_axis_and_other_values_in_groups(tmp_path):
  from prompt_subspace.report import meta_sweep

  def axes(values, name):
    folder = sweep_folder(tmp_path / name, values)
    return meta_sweep.draw(meta_sweep.read(folder)).axes[0]

  found = axes([16, 32, 128], 'shots')
  assert found.get_xscale() == 'log'
  assert [t.get_text() for t in found.get_xticklabels()] == ['16', '32', '128']
  line = next(k for k in found.lines if k.get_label() == 'MAML')
  assert line.get_xdata().tolist() == [16, 32, 128]
  # 22.5 of books, and of verses 12.5, then 10 points more
  assert line.get_ydata()[0] == 17.5
  assert axes([0.2, 0.3], 'rate').get_xscale() == 'linear'
  found = axes([16, 'all'], 'mixed')
  assert [t.get_text() for t in found.get_xticklabels()] == ['16', 'all']
  assert len(found.patches) == 4, 'two values, two algorithms'


def test_averages_over_different_targets_are_said(tmp_path):
  folder = sweep_folder(tmp_path, [16, 32])
  scores = {k: v for k, v in SCORES.items() if k[0] != 'books'}
  write(folder / 'shots=32', scores)
  text = meta.sweep(folder)
  assert 'Not all averages are over the same targets' in text
  assert 'MAML: 2 at 16, 1 at 32' in text
  assert 'MAML: 2 at 16, 1 at 32' in (folder / 'sweep.md').read_text()


def test_a_sweep_that_does_not_fit_is_refused(tmp_path):
  folder = sweep_folder(tmp_path, [16, 32])
  path = folder / 'sweep.json'
  record = json.loads(path.read_text())
  for change, said in (
    ({'values': [16]}, 'found 1 values and 2 folders'),
    ({'folders': ['shots=16', 'gone']}, 'a finished study in gone'),
  ):
    path.write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=said):
      meta.sweep(folder)
  path.write_text(json.dumps({'name': 'shots'}))
  with pytest.raises(ValueError, match='name, values, folders, found name'):
    meta.sweep(folder)
