"""The report of a meta-learning study, from files as a study writes them."""

import math
import shutil

import pytest

from prompt_subspace.meta import columns
from prompt_subspace.report import meta, meta_pictures, meta_tables, tables
from prompt_subspace.training import results
from tests.report.meta_study import SCORES, pictures, read, write
from tests.report.words import shown


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return write(tmp_path_factory.mktemp('study'))


@pytest.fixture(scope='module')
def text(folder):
  return meta.report(folder)


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
    'no relative gain: grammar, as matthews can be negative; facts, as plain '
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
  assert 'facts: plain tuning scores 0' in maml['left_out']
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
  assert 'gains +17.5 % over plain tuning on average' in said
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
  ended = said[said.index('At the end of learning') :]
  assert '0.0625' in ended and '0.8750' in ended
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


def test_a_start_of_zeros_has_no_share_of_its_norm(folder, tmp_path):
  zeros = shutil.copytree(folder, tmp_path / 'zeros')
  shutil.rmtree(zeros / 'pictures', ignore_errors=True)
  rows = results.read_csv(zeros / 'diagnostics.csv', columns.DIAGNOSTICS)
  rows = [{**r, 'relative': math.nan} for r in rows]
  results.write_csv(zeros / 'diagnostics.csv', rows, columns.DIAGNOSTICS)
  meta.report(zeros)
  assert 'the inner step moves the prompt by 3e-05 and' in shown(zeros)
  assert 'displacement' not in pictures(zeros)
  assert 'query_loss' in pictures(zeros)


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
  assert 'ARG' not in text and 'has no plain tuning (pt)' in text
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
  assert 'by MAML, gains +7.5 points over plain tuning' in said
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
