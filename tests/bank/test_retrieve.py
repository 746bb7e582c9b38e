"""What is most like a delta: the right checkpoints, backbones, shapes."""

import numpy as np
import pytest

from prompt_subspace.bank import retrieve, similarity, store

random = np.random.default_rng(0)
# of one backbone: a and b are alike, c is not; their embeddings say otherwise
A, C = random.standard_normal((2, 3, 8)).astype(np.float32)
B = A + 0.1 * random.standard_normal((3, 8)).astype(np.float32)


def put(bank, name, prompt, embedding=None, method='prompt', **card):
  card = {
    'task': f'task of {name}',
    'method': method,
    'settings': {},
    'backbone': 'one',
    'fingerprint': '1' * 64,
    **card,
  }
  early = None if embedding is None else {'encoder': embedding}
  store.write(bank / name, {'encoder': prompt}, card, early)


@pytest.fixture
def bank(tmp_path):
  put(tmp_path, 'a', A)
  put(tmp_path, 'b', B)
  put(tmp_path, 'c', C)
  return tmp_path


def query(prompt, backbone='', fingerprint=None, **fields):
  card = {'method': 'prompt', 'backbone': backbone, 'fingerprint': fingerprint}
  return store.Entry('query', {'encoder': prompt}, card, **fields)


def order(ranking):
  return [each.entry for each in ranking.found]


@pytest.mark.parametrize('metric', similarity.SIMILARITIES)
def test_entries_are_ranked(bank, metric):
  ranking = retrieve.similar(bank, 'a', metric)
  assert order(ranking) == ['b', 'c'] and ranking.left_out == {}
  wanted = similarity.SIMILARITIES[metric](A, np.stack([B, C]))
  found = [each.similarity for each in ranking.found]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  assert ranking.found[0][:2] == ('b', 'task of b')
  assert {each.checkpoint for each in ranking.found} == {'phi'}


def test_embeddings_are_compared_where_both_have_one(bank):
  put(bank, 'a', A, embedding=C)
  put(bank, 'c', -A, embedding=C)
  ranking = retrieve.similar(bank, 'a')
  assert [(f.entry, f.checkpoint) for f in ranking.found] == [
    ('c', 'embedding'),
    ('b', 'phi'),
  ]
  assert ranking.found[0].similarity == pytest.approx(1)
  # without an embedding of its own, the query is compared by the best ones
  assert {f.checkpoint for f in retrieve.similar(bank, 'b').found} == {'phi'}


def test_equals_stand_in_the_order_of_their_names(bank):
  for name in ('z', 'd'):
    put(bank, name, B)
  assert order(retrieve.similar(bank, 'a')) == ['b', 'd', 'z', 'c']


def test_batches_do_not_matter(bank, monkeypatch):
  for i in range(5):
    put(bank, f'n{i}', random.standard_normal((3, 8)).astype(np.float32))
  whole = retrieve.similar(bank, 'a')
  monkeypatch.setattr(similarity, 'CHUNK_BYTES', 2 * A.nbytes)
  parts = retrieve.similar(bank, 'a')
  assert order(parts) == order(whole) and len(whole.found) == 7
  np.testing.assert_allclose(
    [f.similarity for f in parts.found],
    [f.similarity for f in whole.found],
    rtol=1e-5,
  )


def test_other_backbones_are_compared_on_request_only(bank):
  put(bank, 'foreign', A, backbone='two', fingerprint='2' * 64)
  put(bank, 'noted', A, backbone='two', fingerprint=None)
  ranking = retrieve.similar(bank, 'a')
  assert order(ranking) == ['b', 'c']
  assert ranking.left_out == {'of another backbone': 2}
  ranking = retrieve.similar(bank, 'a', foreign=True)
  assert order(ranking) == ['foreign', 'noted', 'b', 'c']
  assert ranking.left_out == {}


def test_backbones_that_are_only_noted_are_told_apart_by_their_names(bank):
  for name, backbone in (('d', 'two'), ('e', 'two'), ('f', 'three')):
    put(bank, name, A, backbone=backbone, fingerprint=None)
  assert order(retrieve.similar(bank, 'd')) == ['e']


@pytest.mark.parametrize('mark', ['fingerprint', 'table'])
def test_codes_of_other_spaces_are_left_out(bank, mark):
  for name, space in (('d', 'one'), ('e', 'one'), ('f', 'another')):
    put(bank, name, A, settings={mark: space})
  ranking = retrieve.similar(bank, 'd')
  assert order(ranking) == ['e']
  # a, b and c lie in none
  assert ranking.left_out == {'of another space': 4}


def test_other_shapes_and_methods_are_left_out(bank):
  put(bank, 'longer', np.ones((4, 8), np.float32))
  put(bank, 'other', A, method='lora')
  ranking = retrieve.similar(bank, 'a', foreign=True)
  assert order(ranking) == ['b', 'c']
  assert ranking.left_out == {'of another shape': 1, 'of another method': 1}
  with pytest.raises(ValueError, match=r"'of another shape': 3.*\(4, 8\)"):
    retrieve.similar(bank, 'longer')


def test_a_query_from_elsewhere(bank):
  # of a backbone that is not known, in a bank of one: the bank's
  assert order(retrieve.similar(bank, query(A))) == ['a', 'b', 'c']
  put(bank, 'foreign', C, backbone='two', fingerprint=None)
  with pytest.raises(ValueError, match='entries of 2.*--foreign'):
    retrieve.similar(bank, query(A))
  assert len(retrieve.similar(bank, query(A), foreign=True).found) == 4
  assert order(retrieve.similar(bank, query(A, 'two'))) == ['foreign']
  known = query(A, fingerprint='1' * 64, embedding={'encoder': C})
  assert order(retrieve.similar(bank, known)) == ['a', 'b', 'c']


def test_unknown_names_are_refused(bank):
  with pytest.raises(ValueError, match="entry: .*'a', 'b', 'c'.*nosuch"):
    retrieve.similar(bank, 'nosuch')
  with pytest.raises(ValueError, match='metric: .*subspace.*nosuch'):
    retrieve.similar(bank, 'a', 'nosuch')
