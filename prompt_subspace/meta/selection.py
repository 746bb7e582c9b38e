"""Sources chosen by similarity to a target: the highest, any, the lowest.

Qin et al. 2023 (MPT), appendix A.7, table 8: a prompt tuned on a task is its
embedding, the overlap of the subspaces that two prompts span their similarity
(`bank.similarity.subspace`; Lin et al. 2022, Saha et al. 2021). For one target,
an initialisation is learned from the k most similar sources, from k drawn at
random, and from the k least similar.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from etils import epath

from prompt_subspace.bank import retrieve, similarity, store
from prompt_subspace.data.orders import order
from prompt_subspace.deltas.base import check_names, positive
from prompt_subspace.meta import sweep
from prompt_subspace.training.job import Job

HOW = ('highest', 'random', 'lowest')


def select(
  target: np.ndarray,
  sources: dict[str, np.ndarray],
  count: int,
  how: str,
  metric: str = 'subspace',
  seed: int = 0,
) -> list[str]:
  """Returns the names of `count` sources.

  Args:
    target: its prompt [P, D].
    sources: task -> prompt [P, D].
    count: k.
    how: of `HOW`.
    metric: of `bank.similarity.SIMILARITIES`.
    seed: of the random ones.

  Raises:
    ValueError: an unknown name, or fewer sources than k.
  """
  check_names('how', (how,), HOW)
  check_names('metric', (metric,), tuple(similarity.SIMILARITIES))
  positive('count', count)
  if count > len(sources):
    raise ValueError(
      f'count: expected at most {len(sources)}, the number of sources, found '
      f'{count}.'
    )
  names = list(sources)
  if how == 'random':
    places = order(len(names), 'selection', seed)
  else:
    bank = np.stack(list(sources.values()))
    found = np.asarray(similarity.SIMILARITIES[metric](target, bank))
    places = np.argsort(-found if how == 'highest' else found, kind='stable')
  return [names[i] for i in places[:count]]


def compare(
  study: Callable[..., Job],
  target: str,
  sources: Sequence[str],
  out: str,
  bank: str,
  targets_bank: str | None = None,
  count: int = 5,
  metric: str = 'subspace',
  seed: int = 0,
) -> Job:
  """Plans a study of one target for each way to choose its sources.

  Args:
    study: `study.learn`, with everything that they share.
    target: the task.
    sources: tasks to choose from.
    out: folder of the studies' folders; see `sweep.sweep`.
    bank: of prompts of the sources, such as a transfer study's OUT/bank.
    targets_bank: of a prompt of the target, such as its OUT/tuned; by default
      `bank`.
    count: k.
    metric: see `select`.
    seed: of the random choice.

  Raises:
    ValueError: a task without a prompt in its bank, and as of `select`.
  """
  known = prompts(
    {**dict.fromkeys(sources, bank), target: targets_bank or bank}
  )
  own = known.pop(target)
  variants = {
    how: {
      'sources': select(own, known, count, how, metric, seed),
      'targets': [target],
    }
    for how in HOW
  }
  return sweep.sweep(study, 'similarity', variants, out)


def prompts(banks: Mapping[str, str]) -> dict[str, np.ndarray]:
  """Returns a prompt [P, D] of each task.

  What of them is compared says `retrieve.comparable`. Of several entries of a
  task, the one of the lowest seed counts; those that started from other entries
  do not.

  Args:
    banks: task -> bank that has a prompt of it.

  Raises:
    ValueError: a task has none; says which ones there are. Or they are of
      several backbones.
  """
  found = {task: _entry(bank, task) for task, bank in banks.items()}
  marks: dict[str, str] = {}
  for task, entry in found.items():
    marks.setdefault(str(retrieve.backbone_of(entry.card))[:16], task)
  if len(marks) > 1:
    raise ValueError(
      f'bank: expected prompts of one backbone, found {len(marks)}: '
      + ', '.join(f'{mark} of {task!r}' for mark, task in marks.items())
      + '. Prompts of different backbones cannot be compared.'
    )
  alike = retrieve.comparable(list(found.values()))
  return dict(zip(found, alike, strict=True))


def _entry(bank: str, task: str) -> store.Entry:
  cards = {
    name: card
    for name, card in store.cards(bank).items()
    if card['method'] == 'prompt' and not card.get('parents')
  }
  mine = [n for n, card in cards.items() if card['task'] == task]
  if not mine:
    known = sorted({card['task'] for card in cards.values()})
    raise ValueError(
      f'bank: expected a prompt of {task!r} in {bank}, found none; it has '
      f'{known}. Tune one with gin/spot.gin.'
    )
  name = min(mine, key=lambda n: (cards[n].get('seed') or 0, n))
  return store.read(epath.Path(bank) / name)
