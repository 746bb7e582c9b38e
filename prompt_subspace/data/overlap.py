"""Texts that tasks share: what one is tested with, another may have trained on.

Corpora are cut from one another: SST from Rotten Tomatoes, QNLI from SQuAD. A
target whose test texts are among those of a source is no unseen task, and its
gain is no transfer. Only folders are looked into, not tasks of SeqIO's
registries.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.tasks import Task

# shorter ones ("yes", "the movie is bad") are alike by chance
WORDS = 5
# of the target's test examples; less is not worth a line
SHARE = 0.01


class Shared(NamedTuple):
  """What a source and a target share.

  Attributes:
    source: task whose training split has the texts.
    target: task whose test split has them, too.
    count: test examples with one or more of these texts.
    examples: test examples in all.
  """

  source: str
  target: str
  count: int
  examples: int


def shared(
  sources: Mapping[str, Task], targets: Mapping[str, Task]
) -> list[Shared]:
  """Counts test examples of targets whose texts are in training splits.

  A text is what one column holds, without the template; two are the same if
  their letters and digits are, whatever the case and the signs between them.
  Columns of labels, and texts of fewer than `WORDS` words, do not count.

  Args:
    sources: tasks that are trained on, by the names they are asked for.
    targets: tasks that are tested.

  Returns:
    one for each pair of different tasks that shares anything, the largest
    share first.

  Raises:
    ValueError: a file cannot be read.
  """
  known = {n: _texts(t, 'train') for n, t in sources.items() if t.folder}
  trained = {name: set().union(*rows) for name, rows in known.items()}
  out = []
  for target, task in targets.items():
    tested = _texts(task, 'test') if task.folder else []
    for source, texts in trained.items():
      count = sum(not texts.isdisjoint(row) for row in tested)
      if count and source != target:
        out.append(Shared(source, target, count, len(tested)))
  return sorted(out, key=lambda x: -x.count / x.examples)


def told(sources: Mapping[str, Task], targets: Mapping[str, Task]) -> list[str]:
  """Returns a sentence for each pair that shares `SHARE` or more."""
  return [
    f'{100 * found.count / found.examples:.0f} % of the test examples of '
    f'{found.target} have a text that {found.source} trains on'
    for found in shared(sources, targets)
    if found.count >= SHARE * found.examples
  ]


def _texts(task: Task, split: str) -> list[set[str]]:
  """Returns the texts of each example of a split."""
  return [_plain(row) for row in task_names.texts(task, split)]


def _plain(texts: Sequence[str]) -> set[str]:
  words = (re.findall(r'[^\W_]+', text.casefold()) for text in texts)
  return {' '.join(found) for found in words if len(found) >= WORDS}
