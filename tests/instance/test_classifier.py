"""The classifier of text: what it learns, what it leaves, what it refuses."""

import json

import numpy as np
import pytest

from prompt_subspace import deltas, trees
from prompt_subspace.instance import classifier, methods
from tests import sample

CATEGORIES = {
  'culture and the arts': ['reviews'],
  'society and social sciences': ['emails'],
  'history and events': ['topics'],
}


@pytest.fixture(scope='module')
def plan(small):
  """Plans a small training, with some arguments changed."""
  known = {
    'categories': CATEGORIES,
    'backbone': small,
    'steps': 120,
    'batch_size': 24,
    'rate': 0.01,
    'width': 8,
    'length': 24,
  }
  return lambda out, **changes: classifier.train(
    out=str(out), **known | changes
  )


@pytest.fixture(scope='module')
def finished(plan, tmp_path_factory):
  folder = tmp_path_factory.mktemp('classifier')
  plan(folder).run()
  return folder


def card(folder):
  return json.loads((folder / 'card.json').read_text())


def test_held_out_texts_are_told_apart_far_above_chance(finished):
  found = card(finished)
  assert 30 <= found['majority'] < 60
  assert found['accuracy'] > found['majority'] + 25
  assert found['texts']['validation'] > 50


def test_the_table_has_moved(finished, small):
  """In the paper it receives gradients; in the released code it does not."""
  table = classifier.read_table(finished)
  start = np.asarray(small.weights['token_embedder']['embedding'])
  assert table.shape == start.shape
  moved = np.linalg.norm(table - start) / np.linalg.norm(start)
  assert moved == pytest.approx(card(finished)['moved'], rel=1e-4)
  assert moved > 0.02
  # rows of tokens that occur nowhere stay: sentinels
  np.testing.assert_array_equal(table[-50:], start[-50:])


def test_the_card_says_what_is_covered(finished, small):
  found = card(finished)
  assert found['categories'] == CATEGORIES
  assert len(found['not_covered']) == 10
  assert found['vocabulary'] == small.vocabulary.sha256
  assert found['backbone'] == small.fingerprint


def test_strategies_start_from_the_table(finished, small):
  import jax

  setting = sample.setting(small)
  table = classifier.read_table(finished)
  made = deltas.bound(methods.pretrained(str(finished), length=2), setting)
  phi = made.init(jax.random.key(0), setting)
  np.testing.assert_array_equal(phi['table'], table)
  # which table it was is part of a folder's identity, not of what phi means
  mark = trees.fingerprint({'table': phi['table']})
  assert made.settings['start_table'] == mark
  assert 'start_table' in made.starting
  frozen = deltas.bound(
    methods.encoder('mlp', str(finished), length=2, budget=0.2), setting
  )
  np.testing.assert_array_equal(frozen.constants['table'], table)
  own = deltas.bound(methods.encoder('mlp', length=2, budget=0.2), setting)
  assert own.settings['table'] != frozen.settings['table']


def test_text_files_are_corpora_too(plan, tmp_path):
  words = np.random.default_rng(0).permutation(
    ['boat', 'tea', 'snow', 'road', 'letter', 'may', 'two', 'long']
  )
  text = tmp_path / 'novel.txt'
  text.write_text('\n'.join(' '.join(words) for _ in range(120)) + '\n')
  folder = tmp_path / 'out'
  plan(
    folder,
    categories=CATEGORIES | {'people and self': [str(text)]},
    steps=2,
  ).run()
  found = card(folder)
  assert found['categories']['people and self'] == [str(text)]


def test_what_all_texts_of_a_corpus_share_is_left_out(plan, small, tmp_path):
  """It is the template; it would tell corpora apart, and not what they say."""
  from prompt_subspace.data import tasks

  held = classifier._read(
    tasks.find('reviews', None), small.vocabulary, tmp_path, 24, 1000
  )
  for tokens in held.values():
    for word in small.vocabulary.encode('review:'):
      share = np.mean((tokens == word).any(axis=1))
      assert share < 0.81


def test_mistakes(plan, finished, tmp_path):
  for changes, said in (
    ({'categories': {'culture and the arts': ['reviews']}}, 'two or more'),
    ({'categories': {'sports': ['reviews']}}, 'categories: .*history'),
    (
      {'categories': {**CATEGORIES, 'people and self': ['reviews']}},
      "each corpus under one category, found .'reviews'",
    ),
    (
      {'categories': {**CATEGORIES, 'people and self': ['/none.txt']}},
      'a file of plain text, found /none.txt',
    ),
    ({'steps': 0}, 'steps: expected a whole number'),
  ):
    with pytest.raises(ValueError, match=said):
      plan(tmp_path, **changes)
  (tmp_path / 'card.json').write_text(json.dumps({'table': 'other'}))
  (tmp_path / classifier.ARRAYS).write_bytes(
    (finished / classifier.ARRAYS).read_bytes()
  )
  with pytest.raises(ValueError, match='not the one that its card describes'):
    classifier.read_table(tmp_path)
