"""Sources by similarity: subspaces that are known, and banks that lack them."""

import numpy as np
import pytest

from prompt_subspace.bank import store
from prompt_subspace.meta import selection
from prompt_subspace.training.job import Job

TARGET = np.eye(6, dtype=np.float32)[:3]


def rotated(angle):
  """The target's space, each direction turned by an angle out of it."""
  return (np.cos(angle) * np.eye(6)[:3] + np.sin(angle) * np.eye(6)[3:]).astype(
    np.float32
  )


# in no order: 30, 80, 10, 60 degrees
SOURCES = {str(a): rotated(np.deg2rad(a)) for a in (30, 80, 10, 60)}


def test_the_nearest_and_the_farthest_are_found():
  def chosen(how, k, **options):
    return selection.select(TARGET, SOURCES, k, how, **options)

  assert chosen('highest', 2) == ['10', '30']
  assert chosen('lowest', 2) == ['80', '60']
  assert chosen('highest', 4) == ['10', '30', '60', '80']
  random = [tuple(chosen('random', 2, seed=s)) for s in range(20)]
  assert random == [tuple(chosen('random', 2, seed=s)) for s in range(20)]
  assert len(set(random)) > 5 and all(len(set(r)) == 2 for r in random)


@pytest.mark.parametrize(
  'k, how, message',
  [
    (5, 'highest', 'count: expected at most 4, .* found 5'),
    (0, 'highest', 'count: expected'),
    (2, 'best', 'how: expected names among'),
  ],
)
def test_bad_choices_are_refused(k, how, message):
  with pytest.raises(ValueError, match=message):
    selection.select(TARGET, SOURCES, k, how)


@pytest.fixture
def bank(tmp_path):
  """Prompts of the sources, two of one task, and a LoRA."""

  def add(entry, task, phi, embedding=None, **fields):
    card = {
      'task': task,
      'method': 'prompt',
      'settings': {},
      'backbone': 'b',
      'fingerprint': 'f',
      **fields,
    }
    store.write(tmp_path / 'bank' / entry, phi, card, embedding=embedding)

  for task, prompt in SOURCES.items():
    add(f'source-{task}', task, {'prompt': prompt})
  # the one of seed 0 counts, and of it the embedding
  add('a-later-one', '30', {'prompt': rotated(1.57)}, seed=1)
  add('target', 'own', {'prompt': rotated(1.5)}, embedding={'prompt': TARGET})
  # nor does what was transferred
  add('a', 'own', {'prompt': rotated(1.5)}, parents=['source-10'])
  add('lora', 'other', {'a': np.ones((2, 2), np.float32)}, method='lora')
  return str(tmp_path / 'bank')


def test_three_studies_of_one_target(bank, tmp_path):
  asked = []

  def learn(out, sources, targets):
    asked.append((out, sources, targets))
    return Job(tmp_path / out, '', {}, lambda: None)

  out = tmp_path / 'out'
  selection.compare(learn, 'own', list(SOURCES), str(out), bank, count=2)
  assert [(s, t) for _, s, t in asked][::2] == [
    (['10', '30'], ['own']),
    (['80', '60'], ['own']),
  ]
  assert [o for o, *_ in asked] == [
    str(out / f'similarity={how}') for how in selection.HOW
  ]


def test_a_task_without_prompt_is_named(bank):
  with pytest.raises(ValueError, match=r"found none of \['other'\]; it has"):
    selection.prompts(bank, ['10', 'other'])
