"""The next-sentence task: pairs are what their labels say."""

import jax
import numpy as np
import pytest

from prompt_subspace import deltas
from prompt_subspace.bank import store
from prompt_subspace.data import arrays, tasks
from prompt_subspace.instance import ppt
from tests import tiny


@pytest.fixture
def texts(tmp_path):
  """Thirty documents; each sentence says where it stands."""
  documents = [
    ' '.join(f'In document {d} this is sentence {s}.' for s in range(6))
    for d in range(30)
  ]
  path = tmp_path / 'texts.txt'
  path.write_text('\n\n'.join(documents) + '\n')
  return [str(path)]


def rows(folder, split):
  lines = (folder / f'{split}.tsv').read_text().splitlines()
  assert lines[0] == 'first\tsecond\tlabel'
  return [line.split('\t') for line in lines[1:]]


def place(sentence):
  words = sentence.rstrip('.').split()
  return int(words[2]), int(words[-1])


def test_labels_are_true_and_balanced(texts, tmp_path):
  folder = tmp_path / 'next'
  ppt.next_sentences(texts, str(folder), train=60, held_out=12).run()
  for split, count in (('train', 60), ('validation', 12), ('test', 12)):
    found = rows(folder, split)
    labels = [r[2] for r in found]
    assert [labels.count(x) for x in ppt.LABELS] == [count // 3] * 3
    for first, second, label in found:
      (d, s), (e, t) = place(first), place(second)
      truth = 'no' if d != e else 'yes' if t == s + 1 else 'maybe'
      assert label == truth and (d, s) != (e, t)


@pytest.mark.parametrize('count', [10, 12, 16, 20, 23, 200])
def test_few_documents_are_divided_too(count):
  documents = [[f'{d} {s}' for s in range(4)] for d in range(count)]
  found = ppt._divide(
    documents, {'train': 2000, 'validation': 200, 'test': 200}, seed=0
  )
  each = {split: {d[0] for d in part} for split, part in found.items()}
  assert len(set.union(*each.values())) == sum(map(len, each.values())) == count
  assert min(map(len, each.values())) >= 2
  assert len(each['train']) >= count - 2 * max(2, round(count / 12) + 1)


def test_splits_share_no_document(texts, tmp_path):
  folder = tmp_path / 'next'
  ppt.next_sentences(texts, str(folder), train=60, held_out=30).run()
  seen = {
    split: {place(s)[0] for r in rows(folder, split) for s in r[:2]}
    for split in ('train', 'validation', 'test')
  }
  assert not seen['train'] & seen['validation']
  assert not (seen['train'] | seen['validation']) & seen['test']


def test_it_is_a_task_like_any_other(texts, tmp_path, small):
  folder = tmp_path / 'next'
  ppt.next_sentences(texts, str(folder), train=9, held_out=6).run()
  held = arrays.prepare(
    tasks.find('next', tmp_path), small.vocabulary, tmp_path / 'cache'
  )
  assert held.kind == 'classification'
  assert set(held.label_texts) == set(ppt.LABELS)
  assert len(held.splits['train'].labels) == 9


def test_a_seed_draws_the_same_pairs(texts, tmp_path):
  for name, seed in (('a', 0), ('b', 0), ('c', 1)):
    ppt.next_sentences(texts, str(tmp_path / name), 30, 6, seed).run()
  one, same, other = (rows(tmp_path / n, 'train') for n in 'abc')
  assert one == same != other


@pytest.fixture
def entry(tmp_path):
  """A stored prompt of four vectors for the tiny backbone."""
  vectors = np.arange(4 * tiny.CONFIG.emb_dim, dtype=np.float32)
  card = {'task': 'next_sentence', 'method': 'prompt', 'settings': {}}
  card |= {'backbone': 'tiny', 'fingerprint': 'f' * 64}
  folder = tmp_path / 'bank' / 'next'
  phi = {'encoder': vectors.reshape(4, -1)}
  store.write(folder, phi, card)
  return str(folder), phi


def bound(source, length, mark='f' * 64):
  setting = tiny.setting(fingerprint=mark)
  return deltas.bound(ppt.prompt(source, length), setting), setting


def test_a_prompt_starts_where_the_stored_one_ended(entry):
  source, phi = entry
  method, setting = bound(source, 4)
  for seed in (0, 1):
    found = method.init(jax.random.key(seed), setting)
    np.testing.assert_array_equal(found['encoder'], phi['encoder'])
  delta = method.expand(found, None)
  np.testing.assert_array_equal(delta['encoder']['prompt'], phi['encoder'])


def test_another_prompt_under_the_same_name_is_another_method(entry):
  source, phi = entry
  before = bound(source, 4)[0].settings
  assert bound(source, 4)[0].settings == before
  card = store.read(source).card
  store.write(source, {'encoder': phi['encoder'] + 1}, card)
  assert bound(source, 4)[0].settings != before


def test_a_prompt_of_another_kind_is_refused(entry):
  source, phi = entry
  with pytest.raises(ValueError, match='source: .* for ffffffffffffffff'):
    bound(source, 4, mark='e' * 64)
  method, setting = bound(source, 5)
  with pytest.raises(ValueError, match=r'expected a prompt of shape \(5'):
    method.init(jax.random.key(0), setting)
  with pytest.raises(ValueError, match='expected a stored delta'):
    bound(source + '-none', 4)
  card = store.read(source).card
  store.write(source, {**phi, 'decoder': phi['encoder']}, card)
  with pytest.raises(ValueError, match=r"with \['decoder', 'encoder'\]"):
    bound(source, 4)


def test_mistakes(texts, tmp_path):
  with pytest.raises(ValueError, match='texts: .* found no /none.txt'):
    ppt.next_sentences(['/none.txt'], str(tmp_path))
  with pytest.raises(ValueError, match='train: expected a whole number'):
    ppt.next_sentences(texts, str(tmp_path), train=0)
  short = tmp_path / 'short.txt'
  short.write_text('This is a text of few words.\n')
  job = ppt.next_sentences([str(short)], str(tmp_path / 'x'))
  with pytest.raises(ValueError, match='texts: expected at least 10 documents'):
    job.run()
  assert not (tmp_path / 'x' / 'task.json').exists()
