"""The report of a sweep: from its results.csv to a table for people."""

from prompt_subspace.report import sweep
from prompt_subspace.training import results
from tests import made_up


def test_a_table_of_means_at_the_best_rates(tmp_path):
  runs = [
    made_up.line('prompt', 0, 0.3, 80.0, 71.0),
    made_up.line('prompt', 1, 0.3, 70.0, 75.0),
    # better on the test split, but that is not what is asked
    made_up.line('prompt', 0, 0.1, 60.0, 99.0),
    made_up.line('prompt', 1, 0.1, 60.0, 99.0),
    # a row that stopped
    made_up.line('full', 0, 0.3, float('nan'), 50.0),
    made_up.line('full', 0, 0.1, 75.0, 88.0),
  ]
  results.write_csv(tmp_path / 'results.csv', runs)
  text = sweep.report(str(tmp_path))
  (line,) = [x for x in text.splitlines() if x.startswith('reviews')]
  assert '52.5' in line and '73.0 ± 2.8' in line and '88.0' in line
  assert '99' not in text and 'prompt' in text.splitlines()[0]
  written = (tmp_path / 'table.md').read_text(encoding='utf-8')
  assert '| reviews |' in written and '73.0 ± 2.8' in written
