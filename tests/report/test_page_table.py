"""Tables of a page: numbers are known as such, gaps too, the best marked."""

import html.parser
import math
import re

import numpy as np
import pytest

from prompt_subspace.report import page_table, tables
from prompt_subspace.report.page_table import Table


class Cells(html.parser.HTMLParser):
  """Rows of [text, attributes], the head first."""

  def __init__(self, text):
    super().__init__()
    self.rows, self.inside = [], False
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    if tag == 'tr':
      self.rows.append([])
    elif tag in ('th', 'td'):
      self.rows[-1].append(['', dict(attributes)])
      self.inside = True

  def handle_endtag(self, tag):
    self.inside = self.inside and tag not in ('th', 'td')

  def handle_data(self, data):
    if self.inside:
      self.rows[-1][-1][0] += data


def cells(table):
  return Cells(page_table.render(table)).rows


def test_cells_have_their_text_and_their_number():
  grid = [
    ['name', 'float', 'int', 'text', 'mixed'],
    ['x', -1.25, np.int64(-7), '71.3 ± 0.4', 'no'],
    ['y', np.float32(2), 1200, '1,024 (2)', 3],
    ['z', -0.04, True, '12 %', None],
  ]
  head, *rows = cells(Table('t', grid))
  assert [h[0] for h in head] == grid[0]
  assert [[text for text, _ in row] for row in rows] == [
    ['x', '−1.2', '−7', '71.3 ± 0.4', 'no'],
    ['y', '2.0', '1200', '1,024 (2)', '3'],
    ['z', '0.0', 'yes', '12 %', '–'],
  ]
  values = [[a.get('data-value') for _, a in row] for row in rows]
  assert [v[1] for v in values] == ['-1.25', '2.0', '-0.04']
  assert [v[3] for v in values] == ['71.3', '1024.0', '12.0']
  # a column with another text is one of texts
  assert [v[2] for v in values] == [v[4] for v in values] == [None] * 3
  numeric = ['n' in a['class'].split() for _, a in head]
  assert numeric == [False, True, False, True, False]
  for row in rows:
    assert ['n' in a['class'].split() for _, a in row] == numeric


@pytest.mark.parametrize('gap', [None, math.nan, '', '-', '–'])
def test_gaps_are_dashes_without_a_number(gap):
  _, (_, (text, attributes)), _ = cells(
    Table('t', [['a', 'b'], ['x', gap], ['y', 1]])
  )
  assert text == '–' and 'data-value' not in attributes
  assert attributes['class'].split() == ['n', 'none']


@pytest.mark.parametrize(
  'text', ['20 newsgroups', '1.2.3', '12,34', '3 ± ', '(2)', 'e5', '+', '1 2']
)
def test_texts_that_only_begin_like_numbers_are_none(text):
  _, (_, (shown, attributes)) = cells(Table('t', [['a', 'b'], ['x', text]]))
  assert shown == text.strip() and 'data-value' not in attributes


def marked(rows):
  return [
    [text for text, attributes in row if 'best' in attributes['class'].split()]
    for row in rows
  ]


def test_the_best_of_a_row_or_column_is_marked():
  grid = [
    ['k', 'one', 'two', 'note'],
    [9, 1.0, 2.0, 'a'],
    [1, 5.04, 5.01, 'b'],
    [2, None, 3.0, 'c'],
    ['average', 99.0, 98.0, ''],
  ]
  table = Table('t', grid, best='row', foot=1)
  assert marked(cells(table)[1:]) == [['2.0'], ['5.0', '5.0'], [], []]
  table = table._replace(best='column')
  assert marked(cells(table)[1:]) == [[], ['5.0', '5.0'], [], []]
  assert marked(cells(table._replace(best=None))[1:]) == [[], [], [], []]


def test_the_foot_is_apart_from_the_body():
  grid = [['a', 'b'], ['x', 1], ['y', 2], ['mean', 1.5]]
  drawn = page_table.render(Table('t', grid, foot=1))
  body, foot = (
    re.search(f'<{part}>(.*)</{part}>', drawn, re.DOTALL)[1]
    for part in ('tbody', 'tfoot')
  )
  assert re.findall('>([^<\n]+)<', body) == ['x', '1', 'y', '2']
  assert re.findall('>([^<\n]+)<', foot) == ['mean', '1.5']


@pytest.mark.parametrize(('count', 'filtered'), [(12, False), (13, True)])
def test_long_tables_alone_have_a_filter(count, filtered):
  grid = [['a'], *[[f'x{i}'] for i in range(count)], ['all']]
  drawn = page_table.render(Table('t', grid, foot=1))
  assert ('data-filter' in drawn) == filtered


def test_grids_of_texts_of_our_tables_will_do():
  row = {'task': 'sst2', 'rate': 0.3, 'validation': 70.0, 'majority': 50.9}
  runs = [
    row | {'method': 'prompt', 'seed': 0, 'test': 60.0},
    row | {'method': 'prompt', 'seed': 1, 'test': 62.0},
    row | {'method': 'full', 'seed': 0, 'test': 81.2},
  ]
  grid = tables.lay_out(tables.summarise(runs))
  _, (task, majority, prompt, full), _ = cells(
    Table('t', grid, best='row', foot=1)
  )
  assert prompt[0] == '61.0 ± 1.4' and prompt[1]['data-value'] == '61.0'
  assert full[0] == '81.2 (1)' and full[1]['class'].split() == ['n', 'best']


@pytest.mark.parametrize(
  ('table', 'said'),
  [
    (Table('x', [['a', 'b'], ['c']]), r"table 'x': .* lengths \[1, 2\]"),
    (Table('x', []), r'found the lengths \[\]'),
    (Table('x', [['a'], [1]], best='most'), "found 'most'"),
    (Table('x', [['a'], [1]], foot=2), 'foot of 0 to 1 lines, found 2'),
  ],
)
def test_tables_that_cannot_be_laid_out_are_refused(table, said):
  with pytest.raises(ValueError, match=said):
    page_table.render(table)


def test_a_table_without_lines_is_a_head():
  assert [[t for t, _ in row] for row in cells(Table('t', [['a', 'b']]))] == [
    ['a', 'b']
  ]
