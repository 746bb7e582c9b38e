"""Plain text for pre-training: documents, vocabulary, denoising examples.

A corpus file holds one paragraph a line and a blank line between documents.
"""

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt16

from prompt_subspace.vocabulary import EOS, Vocabulary

# shorter runs of text teach little
LEAST = 32


class Stream(NamedTuple):
  """All tokens of a corpus in one row, and where each document ends."""

  tokens: UInt16[np.ndarray, ' N']
  ends: Int[np.ndarray, ' D']


def documents(paths: Sequence[str | pathlib.Path]) -> list[str]:
  """Reads documents; paragraphs of one document are joined by a space."""
  texts = []
  for path in paths:
    text = pathlib.Path(path).read_text(encoding='utf-8')
    blocks = (b.strip() for b in text.split('\n\n'))
    texts += [b.replace('\n', ' ') for b in blocks if b]
  if not texts:
    raise ValueError(
      f'corpus: expected text files with documents, found none in {paths}. '
      'Name files with one paragraph a line, blank lines between documents.'
    )
  return texts


def train_vocabulary(
  paths: Sequence[str | pathlib.Path],
  path: str | pathlib.Path,
  pieces: int = 8000,
) -> Vocabulary:
  """Trains a sentencepiece unigram model with T5's special tokens.

  Text is normalised by NFKC and case-folded: a small vocabulary then spends
  no pieces on capital forms.

  Args:
    paths: text files.
    path: where the model is written (`.model`).
    pieces: number of pieces, with padding 0, end 1, and unknown 2.

  Raises:
    ValueError: the texts have too few words, or too many letters, for this
      number of pieces.
  """
  import sentencepiece

  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = path.with_suffix('.draft')
  try:
    with open(draft, 'wb') as file:
      sentencepiece.SentencePieceTrainer.train(
        input=','.join(map(str, paths)),
        model_writer=file,
        vocab_size=pieces,
        model_type='unigram',
        normalization_rule_name='nmt_nfkc_cf',
        character_coverage=0.9998,
        split_digits=True,
        input_sentence_size=400_000,
        shuffle_input_sentence=True,
        max_sentence_length=8000,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=1,
      )
  except RuntimeError as error:
    draft.unlink()
    raise ValueError(
      f'pieces: {pieces} do not fit the texts: sentencepiece says {error}'
    ) from error
  _forget_paths(draft)
  os.replace(draft, path)
  return Vocabulary(path)


def _forget_paths(file: pathlib.Path) -> None:
  """Removes the names of the text files, which the trainer keeps."""
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto()
  model.ParseFromString(file.read_bytes())
  model.trainer_spec.ClearField('input')
  file.write_bytes(model.SerializeToString())


def tokenise(
  paths: Sequence[str | pathlib.Path],
  vocabulary: Vocabulary,
  cache: str | pathlib.Path,
) -> Stream:
  """Returns the tokens of a corpus, cached under a hash of text and model.

  Raises:
    ValueError: no documents, none long enough to draw from, or a vocabulary of
      more than 65,536 tokens.
  """
  if vocabulary.size > 2**16:
    raise ValueError(
      f'vocabulary: expected at most {2**16} tokens, which are stored in 16 '
      f'bits, found {vocabulary.size}. Give a smaller one.'
    )
  digest = hashlib.sha256(vocabulary.sha256.encode())
  for path in paths:
    digest.update(pathlib.Path(path).read_bytes())
  file = pathlib.Path(cache) / f'corpus-{digest.hexdigest()[:16]}.npz'
  if not file.exists():
    rows = [vocabulary.encode(text) for text in documents(paths)]
    ends = np.cumsum([len(r) for r in rows])
    if (longest := max(map(len, rows))) < LEAST:
      raise ValueError(
        f'corpus: expected documents of at least {LEAST} tokens, the longest '
        f'in {list(map(str, paths))} has {longest}. Join short texts into '
        'documents.'
      )
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f'{file.stem}-{os.getpid()}.tmp.npz')
    np.savez(draft, tokens=np.concatenate(rows).astype(np.uint16), ends=ends)
    os.replace(draft, file)
  with np.load(file, allow_pickle=False) as stored:
    return Stream(stored['tokens'], stored['ends'])


def ppmi_embeddings(
  stream: Stream, vocab_size: int, dim: int, window: int = 4
) -> Float[np.ndarray, 'V D']:
  """Embeds tokens by the leading directions of their co-occurrence.

  PPMI[i, j] = max(0, log p(i, j) - log p(i) - log p(j)^0.75-smoothed); rows
  are U sqrt(S) of its truncated SVD, scaled to unit variance. Tokens that
  never occur stay close to 0, with a little noise.

  Source: Levy and Goldberg 2014, "Neural Word Embedding as Implicit Matrix
  Factorization"; Levy, Goldberg and Dagan 2015 for context smoothing.
  """
  from scipy import sparse
  from scipy.sparse.linalg import svds

  tokens = stream.tokens.astype(np.int64)
  counts = sparse.csr_matrix((vocab_size, vocab_size))
  for distance in range(1, window + 1):
    pair = tokens[:-distance] * vocab_size + tokens[distance:]
    index, number = np.unique(pair, return_counts=True)
    part = sparse.csr_matrix(
      (number / distance, (index // vocab_size, index % vocab_size)),
      shape=counts.shape,
    )
    counts = counts + part + part.T
  row = np.asarray(counts.sum(1)).ravel()
  context = row**0.75
  coo = counts.tocoo()
  value = np.log(coo.data) - np.log(row[coo.row])
  value -= np.log(context[coo.col] / context.sum())
  keep = value > 0
  ppmi = sparse.csr_matrix(
    (value[keep], (coo.row[keep], coo.col[keep])), shape=counts.shape
  )
  u, s, _ = svds(ppmi, k=dim, random_state=0)
  table = u * np.sqrt(s)
  table += 0.01 * np.random.default_rng(0).normal(size=table.shape)
  return (table / table.std()).astype(np.float32)


def window(
  stream: Stream, rng: np.random.Generator, length: int, least: int = LEAST
) -> Int[np.ndarray, ' L']:
  """Draws a run of at most `length` tokens from within one document."""
  while True:
    start = int(rng.integers(len(stream.tokens)))
    end = stream.ends[np.searchsorted(stream.ends, start, side='right')]
    if end - start >= least:
      return stream.tokens[start : min(start + length, end)].astype(np.int32)


def prefix_lm(
  tokens: Int[np.ndarray, ' L'], rng: np.random.Generator, longest: int
) -> tuple[np.ndarray, np.ndarray]:
  """Splits a run: the input is its beginning, the target what follows."""
  low = max(8, len(tokens) - longest)
  high = min(len(tokens) - 8, longest - 1)
  cut = int(rng.integers(low, high + 1))
  return np.append(tokens[:cut], EOS), tokens[cut:]


def _partition(total: int, parts: int, rng: np.random.Generator):
  """Random positive lengths that sum to `total`."""
  cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False) + 1)
  return np.diff(np.concatenate([[0], cuts, [total]]))


def span_corruption(
  tokens: Int[np.ndarray, ' L'],
  rng: np.random.Generator,
  vocabulary: Vocabulary,
  density: float,
  mean_span: float,
) -> tuple[np.ndarray, np.ndarray]:
  """Replaces random spans by sentinels; the target spells the spans out.

  Source: Raffel et al. 2020, section 3.1.4.
  """
  noise = max(1, round(len(tokens) * density))
  spans = min(max(1, round(noise / mean_span)), len(tokens) - noise, noise)
  kept = _partition(len(tokens) - noise, spans, rng)
  lost = _partition(noise, spans, rng)
  inputs, targets, at = [], [], 0
  for i, (keep, lose) in enumerate(zip(kept, lost, strict=True)):
    sentinel = vocabulary.sentinel(i)
    inputs += [*tokens[at : at + keep], sentinel]
    targets += [sentinel, *tokens[at + keep : at + keep + lose]]
    at += keep + lose
  return np.array([*inputs, EOS]), np.array([*targets, EOS])


def pad(rows: Sequence[np.ndarray], length: int) -> Int[np.ndarray, 'B L']:
  """Stacks rows, cut or padded with 0 to one length."""
  out = np.zeros((len(rows), length), np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row)] = row[:length]
  return out


def denoising_batch(
  stream: Stream,
  vocabulary: Vocabulary,
  rng: np.random.Generator,
  *,
  size: int,
  length: int,
  span_share: float = 0.5,
  density: float = 0.45,
  mean_span: float = 4.0,
) -> dict[str, Int[np.ndarray, 'B L']]:
  """Draws examples: `span_share` span corruption, the rest prefix-LM.

  The spans are dense, so that inputs and targets both fill `length`.
  """
  inputs, targets = [], []
  spans = round(size * span_share)
  per_token = 1 - density + density / mean_span
  for i in range(size):
    if i < spans:
      run = window(stream, rng, int((length - 2) / per_token))
      pair = span_corruption(run, rng, vocabulary, density, mean_span)
    else:
      pair = prefix_lm(window(stream, rng, 2 * length - 2), rng, length)
    inputs.append(pair[0])
    targets.append(pair[1])
  return {'inputs': pad(inputs, length), 'targets': pad(targets, length)}
