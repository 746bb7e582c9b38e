"""Vocabularies of T5, without TensorFlow: sentencepiece, and ByT5's bytes.

Sentencepiece encodes and decodes exactly as `seqio.SentencePieceVocabulary`
does: the sentinels `<extra_id_0>` ... are appended to the model as pieces, in
reverse order, so that `<extra_id_0>` has the highest id (Raffel et al. 2020,
3.1.4).
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

PAD, EOS, UNK = 0, 1, 2
FIRST_BYTE = 3
BYTES = 'bytes'
# in the folder of a backbone
OWN, HUGGING_FACE = 'vocab.model', 'spiece.model'
TOKENIZER, BYTE_TOKENIZER = 'tokenizer_config.json', 'ByT5Tokenizer'


class Vocabulary:
  """The pieces of a sentencepiece model followed by `extra_ids` sentinels.

  Args:
    path: the sentencepiece `.model` file; its ids 0, 1, 2 must be padding, end
      of sequence and unknown.
    extra_ids: how many sentinels follow the pieces (T5: 100).

  Attributes:
    path: the file, as given.
    extra_ids: as given.
    size: pieces + extra_ids. A backbone's embedding may have more rows.
    sha256: of the file's bytes, in hex.

  Raises:
    ValueError: no such file, not a sentencepiece model, or other special ids.
  """

  def __init__(self, path: str | pathlib.Path, extra_ids: int = 100):
    self.path = pathlib.Path(path)
    self.extra_ids = extra_ids
    if extra_ids < 0:
      raise ValueError(
        f'extra_ids: expected 0 or more sentinels, found {extra_ids}; T5 has '
        f'100.'
      )
    if not self.path.is_file():
      raise ValueError(
        f'path: expected a sentencepiece .model file, found nothing at '
        f'{self.path}; give the vocabulary that belongs to the backbone.'
      )
    content = self.path.read_bytes()
    self.sha256 = hashlib.sha256(content).hexdigest()
    self._model = _with_sentinels(content, extra_ids, self.path)
    self.size: int = self._model.GetPieceSize()

  def encode(self, text: str) -> list[int]:
    """Token ids of a text, without an end-of-sequence id."""
    return self._model.EncodeAsIds(text)

  def decode(self, ids: Iterable[int]) -> str:
    """Text of token ids up to the first EOS; padding is dropped.

    Sentinels read `<extra_id_i>`; ids that no piece has (rows that pad an
    embedding) read as unknown.
    """
    kept = []
    for i in ids:
      if i == EOS:
        break
      if i != PAD:
        kept.append(int(i) if 0 <= i < self.size else UNK)
    return self._model.DecodeIds(kept)

  def sentinel(self, i: int) -> int:
    """The id of `<extra_id_i>`: size - 1 - i."""
    if not 0 <= i < self.extra_ids:
      raise ValueError(
        f'i: expected a sentinel from 0 to {self.extra_ids - 1}, found {i}; '
        f'a vocabulary with more is Vocabulary(path, extra_ids=...).'
      )
    return self.size - 1 - i

  def seqio(self):
    """The equal `seqio.SentencePieceVocabulary` (imports TensorFlow)."""
    import seqio

    return seqio.SentencePieceVocabulary(str(self.path), self.extra_ids)

  def reads_as(self, other: Any) -> bool:
    """Whether a vocabulary of SeqIO gives texts the same tokens."""
    return getattr(other, 'sp_model', None) == self.seqio().sp_model

  def write(self, folder: pathlib.Path) -> None:
    """Writes what `of_folder` finds again."""
    (folder / OWN).write_bytes(self.path.read_bytes())

  def __repr__(self) -> str:
    return f'Vocabulary({str(self.path)!r}, extra_ids={self.extra_ids})'


class Bytes:
  """ByT5's vocabulary: the token of a byte of UTF-8 is its value + 3.

  Equal to `seqio.ByteVocabulary`. Source: Xue et al. 2022, "ByT5: Towards a
  Token-Free Future with Pre-trained Byte-to-Byte Models".

  Args:
    extra_ids: sentinels behind the bytes; the published models have room for
      125.

  Attributes:
    path: 'bytes', which `find` takes for the name of this vocabulary.
    extra_ids: as given.
    size: 3 special tokens, 256 bytes, `extra_ids`.
    sha256: of what the tokens mean, in hex.
  """

  def __init__(self, extra_ids: int = 125):
    self.path = pathlib.Path(BYTES)
    self.extra_ids = extra_ids
    self.size = FIRST_BYTE + 256 + extra_ids
    self.sha256 = hashlib.sha256(b'utf-8 bytes + 3').hexdigest()

  def encode(self, text: str) -> list[int]:
    """Token ids of a text, without an end-of-sequence id."""
    return [x + FIRST_BYTE for x in text.encode('utf-8')]

  def decode(self, ids: Iterable[int]) -> str:
    """Text of token ids up to the first EOS; what is no byte is dropped."""
    kept = []
    for i in ids:
      if i == EOS:
        break
      if FIRST_BYTE <= i < FIRST_BYTE + 256:
        kept.append(int(i) - FIRST_BYTE)
    return bytes(kept).decode('utf-8', errors='ignore')

  def sentinel(self, i: int) -> int:
    """The id of the i-th sentinel: size - 1 - i."""
    if not 0 <= i < self.extra_ids:
      raise ValueError(
        f'i: expected a sentinel from 0 to {self.extra_ids - 1}, found {i}.'
      )
    return self.size - 1 - i

  def seqio(self):
    """The equal `seqio.ByteVocabulary` (imports TensorFlow)."""
    import seqio

    return seqio.ByteVocabulary(self.extra_ids)

  def reads_as(self, other: Any) -> bool:
    """Whether a vocabulary of SeqIO gives texts the same tokens."""
    import seqio

    return isinstance(other, seqio.ByteVocabulary)

  def write(self, folder: pathlib.Path) -> None:
    """Writes what `of_folder` finds again."""
    text = json.dumps({'tokenizer_class': BYTE_TOKENIZER})
    (folder / TOKENIZER).write_text(text + '\n', encoding='utf-8')

  def __repr__(self) -> str:
    return f'Bytes(extra_ids={self.extra_ids})'


def find(name: str | pathlib.Path) -> Vocabulary | Bytes:
  """Returns the vocabulary of that name: `bytes`, or a sentencepiece model."""
  return Bytes() if str(name) == BYTES else Vocabulary(name)


def of_folder(folder: pathlib.Path) -> Vocabulary | Bytes | None:
  """Returns the vocabulary that lies in the folder of a backbone, if any."""
  for name in (OWN, HUGGING_FACE):
    if (folder / name).exists():
      return Vocabulary(folder / name)
  if (folder / TOKENIZER).exists():
    known = json.loads((folder / TOKENIZER).read_text(encoding='utf-8'))
    if known.get('tokenizer_class') == BYTE_TOKENIZER:
      return Bytes()
  return None


def _with_sentinels(
  content: bytes, extra_ids: int, path: pathlib.Path
) -> sentencepiece.SentencePieceProcessor:
  """The model with a piece per sentinel appended, as seqio appends them."""
  processor = sentencepiece.SentencePieceProcessor()
  try:
    model = sentencepiece_model_pb2.ModelProto.FromString(content)
    for i in reversed(range(extra_ids)):
      model.pieces.add(
        piece=f'▁<extra_id_{i}>',
        score=0.0,
        type=model.SentencePiece.USER_DEFINED,
      )
    processor.LoadFromSerializedProto(model.SerializeToString())
  except Exception as error:  # protobuf and sentencepiece raise their own types
    raise ValueError(
      f'path: expected a sentencepiece model, found a file that is none at '
      f'{path} ({error}); give the vocabulary that belongs to the backbone.'
    ) from error
  found = processor.pad_id(), processor.eos_id(), processor.unk_id()
  if found != (PAD, EOS, UNK):
    raise ValueError(
      f'path: expected a model with padding 0, end of sequence 1 and unknown '
      f'2, found {found} in {path}; train it with --pad_id=0 --eos_id=1 '
      f'--unk_id=2 --bos_id=-1.'
    )
  return processor
