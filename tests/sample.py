"""A small vocabulary, backbone and tasks, for the tests of what trains.

Nothing here needs TensorFlow, and hardly anything compiles.
"""

import pathlib

import jax.numpy as jnp
import numpy as np

from prompt_subspace import trees
from prompt_subspace.backbone import weights
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import arrays, corpus, tasks
from prompt_subspace.data.arrays import Arrays, TaskArrays
from prompt_subspace.deltas.base import Setting
from prompt_subspace.training.job import Job
from prompt_subspace.vocabulary import EOS, Vocabulary

COUNTS = {'train': 24, 'validation': 10, 'test': 14}
METRICS = {
  'classification': ('accuracy', 'f1_macro'),
  'multiple_choice': ('accuracy',),
  'generation': ('exact_match', 'qa_f1'),
  'regression': ('pearson',),
}
LABELS = ('yes', 'never')
WORDS = ('tea', 'a red boat', 'snow in may', 'the long road', 'two')


def train_vocabulary(folder) -> Vocabulary:
  """120 pieces from the embedded tasks' texts, and 100 sentinels."""
  texts = sorted(tasks.DEMO.glob('*/train.tsv'))
  return corpus.train_vocabulary(texts, folder / 'vocab.model', pieces=120)


def backbone(vocabulary: Vocabulary, seed: int = 0, **changes) -> Backbone:
  """A T5 of 1 + 1 layers with random weights, scaled as trained ones are."""
  shape = T5Config(
    vocab_size=vocabulary.size,
    emb_dim=16,
    num_heads=2,
    head_dim=6,
    mlp_dim=20,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.0,
  )
  config, random = shape.replace(**changes), np.random.default_rng(seed)

  def draw(path, x):
    if path.endswith('scale'):
      return np.ones(x.shape, np.float32)
    noise = random.standard_normal(x.shape).astype(np.float32)
    fan_in = x.shape[0] * (shape.head_dim if 'query' in path else 1)
    return noise if path.endswith('embedding') else noise / fan_in**0.5

  shapes = trees.flatten(weights.expected(config))
  drawn = {path: jnp.asarray(draw(path, x)) for path, x in shapes.items()}
  return weights.assemble('small', config, trees.unflatten(drawn), vocabulary)


def setting(found: Backbone, **fields) -> Setting:
  """What initialisations read of a backbone."""
  return Setting(found.config, found.weights, vocab_limit=120, **fields)


def pad(rows: list[list[int]]) -> np.ndarray:
  """Token rows as one array, each with its end token."""
  out = np.zeros((len(rows), max(map(len, rows)) + 1), np.int32)
  for i, row in enumerate(rows):
    out[i, : len(row) + 1] = [*row, EOS]
  return out


def task(
  vocabulary: Vocabulary,
  kind: str = 'classification',
  name: str = 'invented',
  seed: int = 0,
  counts: dict = COUNTS,
  longest: int = 13,
) -> TaskArrays:
  """A task of random inputs; one token of each tells the answer.

  Args:
    vocabulary: of the backbone.
    kind: of the task.
    name: of the task.
    seed: of the draws.
    counts: split -> examples.
    longest: most tokens of an input, without its end.
  """
  random = np.random.default_rng((seed, len(kind)))
  splits = {
    split: _split(vocabulary, kind, random, count, longest)
    for split, count in counts.items()
  }
  request = {
    'task': name,
    'kind': kind,
    'metrics': list(METRICS[kind]),
    'label_texts': list(LABELS) if kind == 'classification' else None,
    'vocabulary': vocabulary.sha256,
    'extra_ids': vocabulary.extra_ids,
  }
  return arrays.assemble(request, splits, {'rows': dict.fromkeys(splits, '')})


def _split(vocabulary, kind, random, count, longest) -> Arrays:
  answers = random.integers(0, 2, count)
  inputs = []
  for answer in answers:
    tokens = random.integers(3, 100, random.integers(3, longest + 1))
    tokens[random.integers(len(tokens))] = 100 + answer
    inputs.append(tokens.tolist())
  choices, labels = None, np.full(count, -1, np.int32)
  if kind == 'classification':
    texts, labels = [LABELS[a] for a in answers], answers.astype(np.int32)
    choices = pad([vocabulary.encode(text) for text in LABELS])
  elif kind == 'multiple_choice':
    given = [random.permutation(WORDS)[: 2 + n % 2] for n in range(count)]
    texts = [str(g[a]) for g, a in zip(given, answers, strict=True)]
    width = max(len(vocabulary.encode(w)) for w in WORDS) + 1
    choices = np.zeros((count, 3, width), np.int32)
    for n, words in enumerate(given):
      rows = pad([vocabulary.encode(str(w)) for w in words])
      choices[n, : len(rows), : rows.shape[1]] = rows
    labels = answers.astype(np.int32)
  elif kind == 'regression':
    texts = [f'{a + random.integers(3) / 2:g}' for a in answers]
  else:
    texts = [WORDS[a] for a in answers]
  targets = pad([vocabulary.encode(text) for text in texts])
  return Arrays(pad(inputs), targets, labels, choices, [[t] for t in texts])


def note(out: str, word: str = 'nothing', number: int = 1) -> Job:
  """A recipe for the command line: it writes a word so many times."""
  folder = pathlib.Path(out)

  def run():
    if number < 0:
      raise ValueError(f'number: expected 0 or more, found {number}.')
    (folder / 'note.txt').write_text(word * number)

  return Job(folder, f'plan       {word} x {number}', {'word': word}, run)


def read(folder: pathlib.Path) -> str:
  """The report of `note`."""
  return f'it says {(folder / "note.txt").read_text()}'


def backwards(word: str) -> str:
  """A word for `note`, which no gin file names."""
  return word[::-1]
