"""What a stack writes beside its checkpoints."""

import numpy as np

from prompt_subspace.training import journal


def test_history_is_read_back_up_to_a_step(tmp_path):
  for step in (2, 4, 6):
    journal.append(tmp_path, step, {'loss': np.array([step, step + 0.5])})
  assert journal.history(tmp_path, 4) == {
    2: {'loss': [2, 2.5]},
    4: {'loss': [4, 4.5]},
  }
  assert journal.history(tmp_path / 'none', 4) == {}
  assert journal.history(None, 4) == {}


def test_what_is_done_again_counts_and_a_cut_line_does_not(tmp_path):
  journal.append(tmp_path, 2, {'loss': [1.0]})
  journal.append(tmp_path, 4, {'loss': [9.0]})
  path = tmp_path / journal.HISTORY
  # killed within the next line, then started again from step 2
  path.write_text(path.read_text() + '{"step": 6, "lo')
  assert journal.history(tmp_path, 6) == {2: {'loss': [1]}, 4: {'loss': [9]}}
  journal.append(tmp_path, 4, {'loss': [float('nan')]})
  again = journal.history(tmp_path, 6)
  assert list(again) == [2, 4] and np.isnan(again[4]['loss'][0])


def test_embeddings_are_read_back(tmp_path):
  phis = [{'a': {'b': np.full((2, 3), i, np.float32)}} for i in range(3)]
  journal.write_embeddings(tmp_path, phis)
  np.testing.assert_equal(journal.read_embeddings(tmp_path, 3), phis)
  journal.remove(tmp_path)
  assert not list(tmp_path.iterdir())
