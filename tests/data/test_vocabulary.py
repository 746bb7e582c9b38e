"""The vocabulary equals seqio's and refuses files that are none."""

import hashlib

import numpy as np
import pytest

from prompt_subspace.vocabulary import EOS, PAD, UNK, Bytes, Vocabulary

TEXTS = [
  'The film was warm.',
  'a <extra_id_0> and <extra_id_99>ly, <extra_id_100> too',
  'naïve \u3000 “quotes”  💕',
  '',
]


def test_size_counts_the_sentinels(vocabulary):
  without = Vocabulary(vocabulary.path, extra_ids=0)
  assert vocabulary.size == without.size + 100
  assert vocabulary.sentinel(0) == vocabulary.size - 1
  assert vocabulary.sentinel(99) == without.size
  assert 'extra_ids=100' in repr(vocabulary)


def test_sha256_is_of_the_file(vocabulary):
  content = vocabulary.path.read_bytes()
  assert vocabulary.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize('text', TEXTS)
def test_encodes_and_decodes_as_seqio_does(vocabulary, text):
  seqio_vocabulary = vocabulary.seqio()
  ids = vocabulary.encode(text)
  assert ids == list(seqio_vocabulary.encode(text))
  assert ids == seqio_vocabulary.encode_tf(text).numpy().tolist()
  assert vocabulary.decode(ids) == seqio_vocabulary.decode(ids)


def test_real_vocabulary_encodes_as_seqio_does(real_data):
  vocabulary = Vocabulary(real_data / 'vocab' / 't5.model')
  assert vocabulary.size == 32100
  for text in TEXTS:
    assert vocabulary.encode(text) == list(vocabulary.seqio().encode(text))


def test_a_text_comes_back(vocabulary):
  text = 'The film was warm and funny'
  assert vocabulary.decode(vocabulary.encode(text)) == text


def test_decode_stops_at_eos_and_drops_padding(vocabulary):
  ids = vocabulary.encode('warm milk')
  padded = np.array([PAD, *ids, PAD, EOS, *ids, PAD], np.int32)
  assert vocabulary.decode(padded) == 'warm milk'


def test_decode_shows_sentinels_and_ids_without_piece(vocabulary):
  ids = vocabulary.encode('milk')
  text = vocabulary.decode([vocabulary.sentinel(3), *ids])
  assert text == '<extra_id_3> milk'
  unknown = vocabulary.decode([UNK])
  assert vocabulary.decode([vocabulary.size + 27]) == unknown


def test_no_such_sentinel(vocabulary):
  with pytest.raises(ValueError, match='expected a sentinel from 0 to 99'):
    vocabulary.sentinel(100)


def test_bad_files(tmp_path, vocabulary, train_model):
  with pytest.raises(ValueError, match='found nothing at'):
    Vocabulary(tmp_path / 'none.model')
  (tmp_path / 'text.model').write_text('no model at all')
  with pytest.raises(ValueError, match='a file that is none'):
    Vocabulary(tmp_path / 'text.model')
  (tmp_path / 'empty.model').write_bytes(b'')
  with pytest.raises(ValueError, match='path: expected a'):
    Vocabulary(tmp_path / 'empty.model')
  other = train_model(
    tmp_path / 'other.model', pad_id=-1, unk_id=0, bos_id=1, eos_id=2
  )
  with pytest.raises(ValueError, match='padding 0, end of sequence 1'):
    Vocabulary(other)
  with pytest.raises(ValueError, match='0 or more sentinels, found -1'):
    Vocabulary(vocabulary.path, extra_ids=-1)


LETTERS = ('', 'plain words', 'Zürich, naïve — 日本語 🙂', 'tab\tand\nline')


def test_bytes_are_those_of_seqio():
  import seqio

  theirs, ours = seqio.ByteVocabulary(125), Bytes()
  assert ours.size == theirs.vocab_size == 384
  assert ours.reads_as(theirs) and ours.reads_as(seqio.ByteVocabulary())
  assert ours.seqio() == theirs
  for text in LETTERS:
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids) == text
    # cut within a letter, with padding, specials and sentinels among it
    odd = [0, 2, *ids[:-1], 300, ours.sentinel(0), 1, 90]
    assert ours.decode(odd) == theirs.decode(odd[:-2])
  assert ours.sentinel(0) == 383
  with pytest.raises(ValueError, match='sentinel from 0 to 124, found 125'):
    ours.sentinel(125)


def test_bytes_are_those_of_transformers():
  transformers = pytest.importorskip('transformers')
  theirs, ours = transformers.ByT5Tokenizer(), Bytes()
  for text in LETTERS:
    assert theirs.encode(text) == [*ours.encode(text), 1]
