"""Every task that the package carries loads, is balanced and has no repeats."""

from collections import Counter

import pytest

from prompt_subspace.data import files, tasks

NAMES = sorted(p.parent.name for p in tasks.DEMO.glob('*/task.json'))


def test_there_are_enough():
  assert len(NAMES) >= 8


@pytest.mark.parametrize('name', NAMES)
def test_embedded_task(name):
  task = tasks.find(name)
  assert task.folder == tasks.DEMO / name and task.template.description
  texts = Counter()
  for split in files.SPLITS:
    rows = files.examples(task.folder, split, task.template)
    texts.update(row.input.casefold() for row in rows)
    if task.template.kind == 'classification':
      counts = Counter(row.label for row in rows)
      assert set(counts) == set(range(len(task.template.label_texts)))
      assert max(counts.values()) <= 1.3 * min(counts.values()) + 1
  assert max(texts.values()) == 1
  assert 150 <= len(texts) <= 300
