"""Tables: rates are chosen by validation, and every cell says what it is."""

import math

import pytest

from prompt_subspace.report import tables


def run(task='sst2', method='prompt', seed=0, rate=0.3, **scores):
  row = {'task': task, 'method': method, 'seed': seed, 'rate': rate}
  return row | {'validation': 70.0, 'test': 60.0, 'majority': 50.0} | scores


def test_the_rate_is_chosen_by_validation_never_by_test():
  rows = [
    run(seed=0, rate=0.1, validation=80, test=60),
    run(seed=1, rate=0.1, validation=70, test=64),
    run(seed=2, rate=0.1, validation=75, test=65),
    # The better test score, and the better single validation score.
    run(seed=0, rate=0.5, validation=90, test=90),
    run(seed=1, rate=0.5, validation=60, test=91),
    run(seed=2, rate=0.5, validation=70, test=92),
  ]
  for order in (rows, rows[::-1]):
    (cell,) = tables.summarise(order).cells.values()
    assert cell.rate == 0.1 and cell.seeds == 3
    assert cell.mean == pytest.approx(63)
    # Deviations -3, 1, 2: sqrt(14 / 2).
    assert cell.deviation == pytest.approx(math.sqrt(7))


def test_a_rate_that_lost_seeds_goes_after_one_that_did_not():
  rows = [
    run(seed=0, rate=0.1, validation=60, test=50),
    run(seed=1, rate=0.1, validation=60, test=52),
    run(seed=0, rate=0.5, validation=95, test=94),
    run(seed=1, rate=0.5, validation=math.nan, test=None),
  ]
  (cell,) = tables.summarise(rows).cells.values()
  assert (cell.rate, cell.mean, cell.seeds) == (0.1, 51, 2)


def test_of_equal_rates_the_smaller_is_taken():
  rows = [run(rate=rate, test=rate) for rate in (0.3, 0.1, 0.5)]
  (cell,) = tables.summarise(rows).cells.values()
  assert cell == tables.Cell(mean=0.1, deviation=None, seeds=1, rate=0.1)


def test_rows_that_contradict_each_other_are_refused():
  with pytest.raises(ValueError, match='seed 0 and rate 0.3 occurs twice'):
    tables.summarise([run(), run(test=10.0)])
  with pytest.raises(ValueError, match='majority score of sst2 is both'):
    tables.summarise([run(), run(seed=1, majority=51.0)])


ROWS = [
  run('sst2', 'prompt', seed=0, test=60.0),
  run('sst2', 'prompt', seed=1, test=62.0),
  run('sst2', 'full', seed=0, test=81.25),
  run('squad', 'prompt', seed=0, test=8.0, majority=None),
  run('squad', 'prompt', seed=1, test=10.0, majority=None),
  run('squad', 'full', seed=0, test=None, validation=None, majority=None),
]


def test_one_line_per_task_with_the_averages_last():
  assert tables.lay_out(tables.summarise(ROWS)) == [
    ['task', 'majority', 'prompt', 'full'],
    ['sst2', '50.0', '61.0 ± 1.4', '81.2 (1)'],
    ['squad', '-', '9.0 ± 1.4', '-'],
    ['average', '-', '35.0', '-'],
  ]


def test_one_line_per_method_with_the_averages_last():
  assert tables.lay_out(tables.summarise(ROWS), tasks_across=True) == [
    ['method', 'sst2', 'squad', 'average'],
    ['majority', '50.0', '-', '-'],
    ['prompt', '61.0 ± 1.4', '9.0 ± 1.4', '35.0'],
    ['full', '81.2 (1)', '-', '-'],
  ]


def test_a_single_seed_everywhere_shows_neither_deviation_nor_count():
  summary = tables.summarise([run(test=60.0), run('cola', test=-3.04)])
  assert tables.lay_out(summary) == [
    ['task', 'majority', 'prompt'],
    ['sst2', '50.0', '60.0'],
    ['cola', '50.0', '-3.0'],
    ['average', '50.0', '28.5'],
  ]


def test_text_is_aligned():
  grid = tables.lay_out(tables.summarise(ROWS))
  assert tables.as_text(grid).splitlines() == [
    'task     majority      prompt      full',
    '-------  --------  ----------  --------',
    'sst2         50.0  61.0 ± 1.4  81.2 (1)',
    'squad           -   9.0 ± 1.4         -',
    'average         -        35.0         -',
  ]


def test_markdown_is_a_table_with_numbers_to_the_right():
  grid = [['task', 'n'], ['a|b', '12.5']]
  assert tables.as_markdown(grid).splitlines() == [
    '| task |    n |',
    '| ---- | ---: |',
    '| a\\|b | 12.5 |',
  ]


def test_no_rows_give_an_empty_table():
  grid = tables.lay_out(tables.summarise([]))
  assert grid == [['task', 'majority'], ['average', '-']]
