"""A text classifier over kinds of text, for the table that it learns.

The embedding table of instance-wise prompts is the first layer of a classifier
that tells categories of text apart (the 13 of Wikipedia's taxonomy in the
paper). Corpora are labelled as a whole: every text of a task or a file belongs
to the category that it is listed under.

Source: Jiang et al. 2022 (IPT), section 3.2. There the table
receives gradients; in the released code it does not.
"""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int
from safetensors import numpy as safetensors_numpy

from prompt_subspace import trees
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.data import arrays as task_arrays
from prompt_subspace.data import corpus, orders
from prompt_subspace.data import tasks as task_names
from prompt_subspace.deltas.base import check_list, check_names, positive
from prompt_subspace.evaluation import batched
from prompt_subspace.instance import encoders
from prompt_subspace.training import job
from prompt_subspace.training.progress import Progress
from prompt_subspace.vocabulary import Vocabulary

CATEGORIES = (
  'general reference',
  'culture and the arts',
  'geography and places',
  'health and fitness',
  'history and events',
  'human activities',
  'mathematics and logic',
  'natural and physical sciences',
  'people and self',
  'philosophy and thinking',
  'religion and belief systems',
  'society and social sciences',
  'technology and applied sciences',
)
# a token in so many of a corpus's texts is its template, not its content
SHARED = 0.8
ARRAYS, CARD = 'classifier.safetensors', 'card.json'


class Texts(NamedTuple):
  """Labelled texts.

  Attributes:
    tokens: [N, L], padded with 0.
    labels: numbers of the categories [N].
  """

  tokens: Int[np.ndarray, 'N L']
  labels: Int[np.ndarray, ' N']


class Classifier(nn.Module):
  """Table, TextCNN, and a linear layer over the categories."""

  width: int
  categories: int

  @nn.compact
  def __call__(self, table: Float[Array, 'V D'], tokens: Int[Array, 'B L']):
    """Returns logits [B, C]."""
    used = jnp.maximum((tokens > 0).sum(axis=1), 1)
    rows = jnp.take(table, tokens, axis=0)
    found = encoders.TextCNN(self.width, 1, name='encoder')(rows, used)
    return nn.Dense(self.categories, name='head')(nn.relu(found[:, 0]))


def train(
  categories: Mapping[str, Sequence[str]],
  out: str,
  backbone: str | Backbone = 'mini',
  data_dir: str | None = None,
  steps: int = 400,
  batch_size: int = 64,
  rate: float = 1e-3,
  width: int = 64,
  length: int = 48,
  limit: int = 4000,
  seed: int = 0,
) -> job.Job:
  """Plans the training of a classifier of text.

  Args:
    categories: of `CATEGORIES` -> what belongs to it: names of tasks (see
      `data.tasks.find`) or paths of text files that end in .txt.
    out: folder for the table, the encoder and the card.
    backbone: whose vocabulary counts, and whose token table is the start.
    data_dir: folder of the tasks' folders.
    steps: updates.
    batch_size: texts of an update, of all categories equally often.
    rate: of Adam, for the table too.
    width: of the encoder.
    length: tokens of a text; longer ones are cut.
    limit: most texts of a corpus.
    seed: of the batches and the weights.

  Returns:
    The job. It leaves `classifier.safetensors`, `card.json` and `vocab.model`
    in `out`, which `methods.pretrained` and `methods.encoder` read.

  Raises:
    ValueError: an unknown category, fewer than two, a corpus in two of them, or
      no data.
  """
  check_names('categories', tuple(categories), CATEGORIES)
  if len(categories) < 2:
    raise ValueError(
      f'categories: expected two or more to tell apart, found '
      f'{list(categories)}.'
    )
  for name, given in categories.items():
    check_list(f'categories, {name}', given, of='task or text file')
  every = [x for given in categories.values() for x in given]
  if twice := sorted({x for x in every if every.count(x) > 1}):
    raise ValueError(
      f'categories: expected each corpus under one category, found {twice} '
      'under two.'
    )
  for name, value in (('steps', steps), ('limit', limit), ('length', length)):
    positive(name, value)
  if not isinstance(backbone, Backbone):
    backbone = backbones.load(backbone)
  folder, vocabulary = pathlib.Path(out), backbone.vocabulary
  found = {x: _source(x, data_dir) for x in every}
  names = tuple(categories)
  plan = (
    f'categories {len(names)}: {", ".join(names)}\n'
    f'corpora    {", ".join(pathlib.Path(x).name for x in every)}\n'
    f'table      {backbone.name}, {vocabulary.size} tokens\n'
    f'steps      {steps} of {batch_size} texts'
  )

  def run():
    splits: dict[str, list[Texts]] = {'train': [], 'validation': []}
    for number, name in enumerate(names):
      for corpus_name in categories[name]:
        for split, tokens in _read(
          found[corpus_name], vocabulary, folder, length, limit
        ).items():
          labels = np.full(len(tokens), number, np.int32)
          splits[split].append(Texts(tokens, labels))
    data = {s: _joined(x) for s, x in splits.items()}
    start = jnp.asarray(backbone.weights['token_embedder']['embedding'])
    model = Classifier(width, len(names))
    phi = _fit(model, start, data['train'], steps, batch_size, rate, seed)
    held = data['validation']
    right = accuracy(model, phi, held)
    counts = np.bincount(held.labels, minlength=len(names))
    card = {
      'categories': {n: list(c) for n, c in categories.items()},
      'not_covered': [c for c in CATEGORIES if c not in names],
      'vocabulary': vocabulary.sha256,
      'backbone': backbone.fingerprint,
      'steps': steps,
      'rate': rate,
      'width': width,
      'length': length,
      'seed': seed,
      'texts': {s: len(x.labels) for s, x in data.items()},
      'accuracy': right,
      'majority': 100 * float(counts.max() / counts.sum()),
      'moved': float(
        optax.global_norm(phi['table'] - start) / optax.global_norm(start)
      ),
      **job.environment(),
    }
    write(folder, phi, card)
    print(
      f'{right:.1f} % of {len(held.labels)} held-out texts are told apart '
      f'(majority {card["majority"]:.1f} %); the table has moved by '
      f'{100 * card["moved"]:.1f} % of its norm'
    )

  return job.Job(folder, plan, {'categories': list(names)}, run)


def _joined(parts: Sequence[Texts]) -> Texts:
  return Texts(
    np.concatenate([p.tokens for p in parts]),
    np.concatenate([p.labels for p in parts]),
  )


def accuracy(model: Classifier, phi: Mapping, held: Texts) -> float:
  """Returns how many texts are put where they belong, in percent."""
  run = jax.jit(
    lambda p, x: model.apply({'params': p['rest']}, p['table'], x).argmax(-1)
  )
  found = batched.over(functools.partial(run, phi), held.tokens, size=256)
  return 100 * float(np.mean(np.asarray(found) == held.labels))


def write(folder: pathlib.Path, phi: Mapping, card: Mapping[str, Any]) -> None:
  """Writes table and encoder, then the card: without it there is nothing."""
  folder.mkdir(parents=True, exist_ok=True)
  flat = {p: np.asarray(x, np.float32) for p, x in trees.flatten(phi).items()}
  safetensors_numpy.save_file(flat, folder / ARRAYS)
  mark = trees.fingerprint({'table': phi['table']})
  job.write_json(folder / CARD, {**card, 'table': mark})


def read_table(folder: str | pathlib.Path) -> Float[np.ndarray, 'V D']:
  """Reads the table of a classifier.

  Raises:
    ValueError: there is none, or it is not the one that the card describes.
  """
  folder = pathlib.Path(folder)
  if not (folder / CARD).exists():
    raise ValueError(
      f'source: expected a folder with {CARD} and {ARRAYS}, found no card in '
      f'{folder}. Make it by gin/ipt_pretrain.gin.'
    )
  card = json.loads((folder / CARD).read_text(encoding='utf-8'))
  table = safetensors_numpy.load_file(folder / ARRAYS)['table']
  if trees.fingerprint({'table': table}) != card['table']:
    raise ValueError(
      f'source: the table in {folder} is not the one that its card describes. '
      'Make it again by gin/ipt_pretrain.gin.'
    )
  return table


def _source(name: str, data_dir):
  """A task, or the path of a text file."""
  if not name.endswith('.txt'):
    return task_names.find(name, data_dir)
  if not pathlib.Path(name).is_file():
    raise ValueError(f'categories: expected a file of plain text, found {name}')
  return pathlib.Path(name)


def _read(source, vocabulary: Vocabulary, folder, length: int, limit: int):
  """Returns {split: tokens [N, length]} of a corpus."""
  if isinstance(source, pathlib.Path):
    return _from_file(source, vocabulary, folder, length, limit)
  held = task_arrays.prepare(
    source, vocabulary, folder / 'cache', max_input=2 * length, max_target=64
  )
  rows = {s: held.splits[s].inputs[:limit] for s in ('train', 'validation')}
  seen = np.zeros(vocabulary.size)
  for row in rows['train']:
    seen[np.unique(row)] += 1
  shared = seen > SHARED * len(rows['train'])
  return {
    split: corpus.pad([row[(row > 0) & ~shared[row]] for row in found], length)
    for split, found in rows.items()
  }


def _from_file(path, vocabulary, folder, length, limit):
  """Pieces of a text; the last tenth of it is held out."""
  tokens = corpus.tokenise([path], vocabulary, folder / 'cache').tokens
  count = min(limit, len(tokens) // length)
  if count < 20:
    raise ValueError(
      f'categories: expected a text of at least {20 * length} tokens, found '
      f'{len(tokens)} in {path}.'
    )
  first = np.linspace(0, len(tokens) - length, count).astype(int)
  rows = np.stack([tokens[i : i + length] for i in first]).astype(np.int32)
  cut = count - max(1, count // 10)
  # no text of one side overlaps one of the other
  return {'train': rows[: cut - 1], 'validation': rows[cut:]}


def _fit(model, start, data: Texts, steps, batch_size, rate, seed):
  """Trains table and classifier; returns {'table', 'rest'}."""
  tokens = jnp.ones((1, data.tokens.shape[1]), jnp.int32)
  rest = model.init(jax.random.key(seed), start, tokens)['params']
  phi = {'table': start.astype(jnp.float32), 'rest': rest}
  tx = optax.adam(rate)

  def loss(phi, tokens, labels):
    logits = model.apply({'params': phi['rest']}, phi['table'], tokens)
    each = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return each.mean()

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(phi, state, tokens, labels):
    value, grads = jax.value_and_grad(loss)(phi, tokens, labels)
    updates, state = tx.update(grads, state, phi)
    return optax.apply_updates(phi, updates), state, value

  phi = jax.tree.map(jnp.array, phi)
  state = tx.init(phi)
  members = [np.flatnonzero(data.labels == k) for k in np.unique(data.labels)]
  with Progress(steps, 'classifier of text') as bar:
    for number in range(steps):
      chosen = _balanced(members, batch_size, seed, number)
      phi, state, value = step(
        phi, state, data.tokens[chosen], data.labels[chosen]
      )
      if number % 25 == 24 or number == steps - 1:
        bar.update(number + 1, 25 * batch_size, {'loss': value})
  return phi


def _balanced(members, size: int, seed: int, number: int) -> np.ndarray:
  """Which texts an update sees: categories in turn, texts at random.

  Args:
    members: the numbers of the texts of each category.
    size: of the update.
    seed: of the draw.
    number: of the update.
  """
  turn = orders.order(len(members), 'categories', seed, number)
  rng = np.random.default_rng((seed, number))
  return np.array(
    [rng.choice(members[turn[i % len(members)]]) for i in range(size)]
  )
