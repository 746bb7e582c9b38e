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
    add(f'source-{task}', task, {'encoder': prompt})
  # the one of seed 0 counts; an embedding, where all have one
  add('a-later-one', '30', {'encoder': rotated(1.57)}, seed=1)
  add('target', 'own', {'encoder': TARGET}, embedding={'encoder': rotated(1.5)})
  # nor does what was transferred
  add('a', 'own', {'encoder': rotated(1.5)}, parents=['source-10'])
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


def test_embeddings_count_where_all_have_one(bank):
  own = selection.prompts({'own': bank})['own']
  np.testing.assert_array_equal(own, rotated(1.5))
  both = selection.prompts({'own': bank, '10': bank})
  np.testing.assert_array_equal(both['own'], TARGET)


def test_a_task_without_prompt_is_named(bank):
  with pytest.raises(ValueError, match=r"of 'other' in .* found none; it has"):
    selection.prompts({'10': bank, 'other': bank})


def test_prompts_of_two_backbones_are_not_compared(bank):
  entry = store.read(f'{bank}/source-10')
  card = {**entry.card, 'task': 'far', 'fingerprint': 'g'}
  store.write(f'{bank}/far', entry.phi, card)
  with pytest.raises(ValueError, match="found 2: f of '10', g of 'far'"):
    selection.prompts({'10': bank, 'far': bank})
