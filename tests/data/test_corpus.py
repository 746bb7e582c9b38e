"""Plain text for pre-training: what is corrupted can be put together again."""

import re

import numpy as np
import pytest

from prompt_subspace.data import corpus, tasks
from prompt_subspace.vocabulary import EOS, Vocabulary

SENTENCES = [
  line.split('\t')[0]
  for name in ('reviews', 'topics', 'questions')
  for line in (tasks.DEMO / name / 'train.tsv').read_text('utf-8').splitlines()
  # no letter so rare that it gets no piece
  if re.match(r"[A-Za-z ,.?']+\t", line)
]


@pytest.fixture(scope='module')
def text(tmp_path_factory):
  """Two files, with documents of several paragraphs."""
  folder = tmp_path_factory.mktemp('text')
  random = np.random.default_rng(0)
  paths = []
  for name in ('a.txt', 'b.txt'):
    documents = []
    for _ in range(20):
      paragraphs = random.choice(SENTENCES, (random.integers(2, 5), 2))
      documents.append('\n'.join(' '.join(p) for p in paragraphs))
    paths.append(folder / name)
    paths[-1].write_text('\n\n'.join(documents) + '\n', encoding='utf-8')
  return paths


@pytest.fixture(scope='module')
def trained(text, tmp_path_factory) -> Vocabulary:
  path = tmp_path_factory.mktemp('vocabulary') / 'new' / 'vocab.model'
  return corpus.train_vocabulary(text, path, pieces=100)


@pytest.fixture(scope='module')
def stream(text, trained, tmp_path_factory):
  return corpus.tokenise(text, trained, tmp_path_factory.mktemp('cache'))


def test_documents_are_blocks_of_paragraphs(tmp_path):
  path = tmp_path / 'text.txt'
  path.write_text('\none\ntwo\n\n\n\nthree\n\n', encoding='utf-8')
  assert corpus.documents([path]) == ['one two', 'three']
  path.write_text('\n\n', encoding='utf-8')
  with pytest.raises(ValueError, match='corpus: .* found none in .*text.txt'):
    corpus.documents([path])


def test_a_trained_vocabulary_has_the_special_tokens_of_t5(trained):
  assert trained.size == 100 + 100
  assert trained.sentinel(0) == 199
  ids = trained.encode('The ferry left in time.')
  assert min(ids) > 2, 'nothing is padding, end or unknown'
  assert trained.decode([*ids, EOS, 5]) == 'the ferry left in time.'
  assert trained.path.parent.name == 'new'
  assert sorted(p.name for p in trained.path.parent.iterdir()) == [
    'vocab.model'
  ]


def test_a_vocabulary_does_not_name_the_files_it_was_trained_on(trained):
  content = trained.path.read_bytes()
  assert str(trained.path.parents[1]).encode() not in content


def test_too_many_pieces_for_the_texts_are_refused(tmp_path):
  path = tmp_path / 'text.txt'
  path.write_text('one two three\n' * 20, encoding='utf-8')
  with pytest.raises(ValueError, match='pieces: 5000 do not fit'):
    corpus.train_vocabulary([path], tmp_path / 'vocab.model', pieces=5000)
  assert list(tmp_path.iterdir()) == [path]


def test_the_stream_holds_all_documents(text, trained, stream):
  documents = corpus.documents(text)
  assert len(stream.ends) == len(documents) == 40
  assert stream.tokens.dtype == np.uint16
  starts = [0, *stream.ends[:-1]]
  for start, end, document in zip(starts, stream.ends, documents, strict=True):
    assert trained.decode(stream.tokens[start:end]) == document.lower()


def test_the_stream_is_read_from_the_cache(
  text, trained, tmp_path, monkeypatch
):
  first = corpus.tokenise(text, trained, tmp_path)
  calls = []
  encode = Vocabulary.encode
  monkeypatch.setattr(
    Vocabulary, 'encode', lambda *a: calls.append(a) or encode(*a)
  )
  again = corpus.tokenise(text, trained, tmp_path)
  assert not calls
  np.testing.assert_array_equal(first.tokens, again.tokens)
  np.testing.assert_array_equal(first.ends, again.ends)
  # other text is not answered from it
  other = tmp_path / 'other.txt'
  other.write_text(text[0].read_text() + '\n\n' + ' '.join(SENTENCES))
  assert len(corpus.tokenise([other], trained, tmp_path).ends) == 21
  assert calls
  assert not list(tmp_path.glob('*.tmp.npz'))


def test_a_corpus_of_short_texts_is_refused(trained, tmp_path):
  path = tmp_path / 'short.txt'
  path.write_text('Yes.\n\nNo.\n\nMaybe.\n')
  with pytest.raises(ValueError, match='at least 32 tokens.*short.txt.* has'):
    corpus.tokenise([path], trained, tmp_path)


def test_a_vocabulary_beyond_16_bits_is_refused(text, trained, tmp_path):
  big = Vocabulary(trained.path, extra_ids=2**16)
  with pytest.raises(ValueError, match='vocabulary: expected at most 65536'):
    corpus.tokenise(text, big, tmp_path)


def test_windows_stay_within_one_document():
  # each document is of one token, its number
  sizes = [40, 3, 33, 80, 32]
  tokens = np.repeat(np.arange(10, 15), sizes).astype(np.uint16)
  stream = corpus.Stream(tokens, np.cumsum(sizes))
  random, seen = np.random.default_rng(0), set()
  for _ in range(300):
    run = corpus.window(stream, random, 36)
    assert len(set(run.tolist())) == 1
    assert 32 <= len(run) <= 36
    seen.add(int(run[0]))
  assert seen == {10, 12, 13, 14}, 'all but the one that is too short'


def put_together(inputs, targets, first_sentinel):
  """Undoes span corruption, from its definition."""
  spans, current = {}, None
  for token in targets:
    if token > first_sentinel - 100:
      current = spans.setdefault(int(token), [])
    else:
      current.append(int(token))
  out = []
  for token in inputs:
    out += spans.pop(int(token), [int(token)])
  assert not spans, 'every sentinel of the target stands in the input'
  return out


@pytest.mark.parametrize('density, mean_span', [(0.15, 3.0), (0.45, 4.0)])
@pytest.mark.parametrize('length', [12, 33, 90])
def test_span_corruption_can_be_undone(trained, length, density, mean_span):
  random = np.random.default_rng(length)
  tokens = random.integers(3, 100, length)
  inputs, targets = corpus.span_corruption(
    tokens, random, trained, density, mean_span
  )
  assert inputs[-1] == targets[-1] == EOS
  inputs, targets = inputs[:-1], targets[:-1]
  found = put_together(inputs, targets, trained.sentinel(0))
  np.testing.assert_array_equal(found, tokens)
  marks = inputs[inputs >= 100]
  np.testing.assert_array_equal(
    marks, [trained.sentinel(i) for i in range(len(marks))]
  )
  hidden = (targets < 100).sum()
  assert hidden == max(1, round(length * density))
  assert len(marks) == max(1, round(hidden / mean_span))


def test_prefix_and_rest_make_the_text():
  random = np.random.default_rng(0)
  cuts = set()
  for _ in range(40):
    tokens = random.integers(3, 100, 60)
    inputs, targets = corpus.prefix_lm(tokens, random, 40)
    assert inputs[-1] == EOS
    assert len(inputs) <= 40 and len(targets) <= 40
    np.testing.assert_array_equal([*inputs[:-1], *targets], tokens)
    cuts.add(len(targets))
  assert len(cuts) > 5, 'the text is cut at many places'


@pytest.mark.parametrize('length', [16, 24, 48, 128])
def test_batches_lose_nothing_to_their_length(stream, trained, length):
  """Whatever stands in a batch was cut from the text, whole."""
  batch = corpus.denoising_batch(
    stream, trained, np.random.default_rng(1), size=12, length=length
  )
  text = ' '.join(map(str, stream.tokens.tolist()))
  assert batch['inputs'].shape == batch['targets'].shape == (12, length)
  kinds = []
  for inputs, targets in zip(batch['inputs'], batch['targets'], strict=True):
    inputs, targets = inputs[inputs > 0], targets[targets > 0]
    assert inputs[-1] == EOS
    spans = bool((inputs >= 100).any())
    if spans:
      assert targets[-1] == EOS
      whole = put_together(inputs[:-1], targets[:-1], trained.sentinel(0))
    else:
      whole = [*inputs[:-1], *targets]
    assert ' '.join(map(str, whole)) in text
    kinds.append(spans)
  assert kinds == [True] * 6 + [False] * 6


def test_pad_cuts_and_fills():
  rows = [np.array([5, 6, 7]), np.array([8])]
  np.testing.assert_array_equal(corpus.pad(rows, 2), [[5, 6], [8, 0]])


def test_tokens_that_occur_together_lie_together():
  """Ten topics of four words; a text is of one topic, with common words."""
  random = np.random.default_rng(0)
  words = np.arange(10, 50).reshape(10, 4)
  parts = []
  for _ in range(600):
    topic = random.choice(words[random.integers(10)], 30)
    common = random.integers(3, 10, 30)
    parts.append(np.where(random.random(30) < 0.3, common, topic))
  ends = np.cumsum([30] * 600)
  stream = corpus.Stream(np.concatenate(parts).astype(np.uint16), ends)
  table = corpus.ppmi_embeddings(stream, 60, 16)
  assert table.shape == (60, 16) and table.dtype == np.float32
  assert table.std() == pytest.approx(1, abs=1e-3)
  unit = table / np.linalg.norm(table, axis=1, keepdims=True)
  near = unit[words.reshape(-1)] @ unit[words.reshape(-1)].T
  same = np.kron(np.eye(10), np.ones((4, 4))).astype(bool)
  other = ~same
  np.fill_diagonal(same, False)
  assert near[same].min() > near[other].max()
  # what never occurs is close to 0
  assert np.linalg.norm(table[50:], axis=1).max() < 0.2 * (
    np.linalg.norm(table[10:50], axis=1).min()
  )
