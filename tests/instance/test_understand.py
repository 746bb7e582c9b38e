"""The map of sentences and the nearest words: their numbers, and the report."""

import csv

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, predict
from prompt_subspace.bank import store
from prompt_subspace.instance import methods, understand
from prompt_subspace.report import instance
from tests import sample

TASKS = ['reviews', 'topics', 'emails']


def card_of(method, backbone):
  return {
    'task': 'reviews',
    'method': method.name,
    'settings': dict(method.settings),
    'backbone': backbone.name,
    'fingerprint': backbone.fingerprint,
  }


@pytest.fixture(scope='module')
def entry(small, tmp_path_factory):
  """A stored strategy whose table is the backbone's: prompts are the words."""
  folder = tmp_path_factory.mktemp('bank') / 'one'
  method = deltas.bound(methods.pretrained(length=4), sample.setting(small))
  phi = method.init(jax.random.key(0), sample.setting(small))
  card = card_of(method, small)
  store.write(folder, jax.tree.map(np.asarray, phi), card)
  return folder


@pytest.fixture(scope='module')
def finished(entry, small, tmp_path_factory):
  folder = tmp_path_factory.mktemp('look') / 'out'
  understand.look(
    str(entry), TASKS, str(folder), small, examples=12, shown=3, max_input=24
  ).run()
  return folder


def rows(folder, name):
  with open(folder / name, encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_every_sentence_is_on_both_maps(finished):
  points = rows(finished, 'map.csv')
  for kind in understand.KINDS:
    own = [p for p in points if p['embedding'] == kind]
    assert [sum(p['task'] == t for p in own) for t in TASKS] == [12] * 3
    assert np.std([float(p['x']) for p in own]) > 0.01


def test_the_map_is_coloured_by_category(entry, small, tmp_path):
  kinds = {'opinions': ['reviews', 'nowhere'], 'others': ['topics', 'emails']}
  understand.look(
    str(entry),
    TASKS,
    str(tmp_path),
    small,
    examples=12,
    max_input=24,
    categories=kinds,
  ).run()
  points = rows(tmp_path, 'map.csv')
  of = {(p['task'], p['category']) for p in points}
  assert of == {
    ('reviews', 'opinions'),
    ('topics', 'others'),
    ('emails', 'others'),
  }
  own = [p for p in points if p['embedding'] == 'prompt']
  assert len(own) == 36
  assert 'in 2 categories' in _page(tmp_path)


def _page(folder):
  instance.report(folder)
  return (folder / 'report.html').read_text()


def test_a_plain_prompt_has_nearest_words_and_no_map(small, tmp_path):
  table = np.asarray(sample.setting(small).embedding)
  method = deltas.prompt(length=2)
  card = card_of(method, small)
  word = small.vocabulary.encode('the')[-1]
  phi = {'encoder': table[[word, word]] * 3}
  store.write(tmp_path / 'plain', phi, card)
  out = tmp_path / 'out'
  understand.look(
    str(tmp_path / 'plain'), TASKS, str(out), small, examples=12, max_input=24
  ).run()
  words = rows(out, 'words.csv')
  near = {w['token'] for w in words if float(w['similarity']) > 0.9999}
  assert near == {small.vocabulary.decode([word])}
  assert {p['embedding'] for p in rows(out, 'map.csv')} == {'backbone'}
  assert 'by the backbone' in _page(out)


def test_words_of_the_prompt_are_its_nearest(finished):
  """A prompt is the first four rows of its input: these are at cosine 1."""
  words = rows(finished, 'words.csv')
  for number in range(3):
    own = [w for w in words if w['example'] == str(number)]
    assert all(w['token'] for w in own)
    same = {w['token'] for w in own if float(w['similarity']) > 0.9999}
    # pieces that are a space alone are not shown
    assert 1 <= len(same) <= 4 < len(own)
    assert float(own[0]['similarity']) > 0.9999
    marked = [w for w in own if w['nearest'] == '1']
    assert len(marked) == 3
    lowest = min(float(w['similarity']) for w in marked)
    others = {w['token'] for w in own} - {w['token'] for w in marked}
    assert all(
      float(w['similarity']) <= lowest + 1e-6
      for w in own
      if w['token'] in others
    )


def test_words_before_the_prompt_are_not_among_its_nearest(small, tmp_path):
  settings = sample.setting(small, encode=small.vocabulary.encode)
  method = deltas.bound(methods.random(length=3, hard='snow'), settings)
  card = card_of(method, small)
  phi = method.init(jax.random.key(0), settings)
  store.write(tmp_path / 'one', jax.tree.map(np.asarray, phi), card)
  out = tmp_path / 'out'
  understand.look(
    str(tmp_path / 'one'), TASKS, str(out), small, examples=12, max_input=24
  ).run()
  assert max(float(w['similarity']) for w in rows(out, 'words.csv')) < 0.999


def test_a_delta_is_not_read_with_another_table(small, tmp_path):
  settings = sample.setting(small)
  method = deltas.bound(methods.encoder(length=3, budget=0.2), settings)
  card = card_of(method, small)
  card['settings'] |= {'table': 'another'}
  phi = method.init(jax.random.key(0), settings)
  store.write(tmp_path / 'one', jax.tree.map(np.asarray, phi), card)
  found = store.read(tmp_path / 'one')
  said = "ipt_encoder as it was .* table was 'another', is '"
  with pytest.raises(ValueError, match=said):
    understand.look(
      str(tmp_path / 'one'), TASKS, str(tmp_path / 'out'), small, examples=12
    ).run()
  with pytest.raises(ValueError, match=said):
    predict.answer([predict.Request(0, 'tea')], [found], small)


def test_the_silhouette_is_that_of_known_groups():
  random = np.random.default_rng(0)
  labels = np.repeat(['a', 'b'], 40)
  apart = random.standard_normal((80, 6)) * 0.1
  apart[:40, 0] += 5
  places, far = understand.flat_map(apart, labels)
  assert far > 0.8 and places.shape == (80, 2)
  # the first component is the one that tells them apart
  assert np.sign(places[:40, 0]).std() == 0
  assert np.sign(places[0, 0]) != np.sign(places[-1, 0])
  _, near = understand.flat_map(random.standard_normal((80, 6)), labels)
  assert abs(near) < 0.1


def test_the_report_shows_map_and_words(finished):
  text = instance.report(finished)
  assert 'silhouette' in text and '[' in text
  assert (finished / 'pictures' / 'map.png').stat().st_size > 10_000
  page = (finished / 'report.html').read_text()
  assert 'Nearest words' in page and 'data:image/png' in page
  assert (finished / 'words.md').read_text().count('|') > 6


def test_mistakes(entry, small, tmp_path):
  def look(**changes):
    known = {'delta': str(entry), 'tasks': TASKS, 'backbone': small}
    return understand.look(out=str(tmp_path), **known | changes)

  for changes, said in (
    ({'tasks': ['reviews']}, 'tasks: expected two or more'),
    ({'examples': 0}, 'examples: expected a whole number'),
    ({'delta': str(tmp_path)}, 'expected a stored delta'),
    ({'tasks': ['reviews', 'nosuch']}, 'nosuch'),
    ({'categories': {'a': TASKS[:2]}}, "none for .'emails'"),
    ({'categories': {'a': TASKS}}, "two or more, .* 'a' alone"),
  ):
    with pytest.raises(ValueError, match=said):
      look(**changes)
  card = store.read_card(entry)
  card.pop('files', None)
  held = store.read(entry).phi
  store.write(tmp_path / 'other', held, {**card, 'method': 'lora'})
  with pytest.raises(ValueError, match='delta: .*ipt_random'):
    look(delta=str(tmp_path / 'other'))
  settings = {**card['settings'], 'base': 'prefix'}
  store.write(tmp_path / 'third', held, {**card, 'settings': settings})
  with pytest.raises(ValueError, match='a strategy on prompt tuning, found'):
    look(delta=str(tmp_path / 'third'))
