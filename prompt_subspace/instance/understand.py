"""What instance-wise prompts know: a map of sentences, and nearest words.

The map puts the sentences of several tasks into two dimensions, once by the
backbone's own embeddings (mean of the encoder's output over an input's tokens)
and once by their prompts (mean of the vectors t): does the prompt tell kinds of
input apart? The silhouette says so by a number, from -1 to 1. The nearest words
are those tokens of an input whose embeddings are most similar to its prompt.

Source: Jiang et al. 2022 (IPT), figure 4 and table 4.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from prompt_subspace.backbone import forward
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import store
from prompt_subspace.data import arrays as task_arrays
from prompt_subspace.data import corpus
from prompt_subspace.data import tasks as task_names
from prompt_subspace.deltas.base import check_list, check_names, positive
from prompt_subspace.evaluation import batched
from prompt_subspace.instance import methods, stored
from prompt_subspace.training import job, results

# map.csv: a line for each sentence and kind of embedding
MAP = {
  'embedding': str,
  'task': str,
  'category': str,
  'x': float,
  'y': float,
}
# silhouettes.csv: how well categories are apart
SILHOUETTES = {'embedding': str, 'silhouette': float, 'sentences': int}
# words.csv: a line for each token of the inputs that are shown
WORDS = {
  'example': int,
  'task': str,
  'token': str,
  'similarity': float,
  'nearest': int,
}
KINDS = ('backbone', 'prompt')
# the same vectors for every input: it has nearest words, but no map
PLAIN = 'prompt'
BATCH = 64


def look(
  delta: str,
  tasks: Sequence[str],
  out: str,
  backbone: str | Backbone = 'mini',
  data_dir: str | None = None,
  examples: int = 200,
  shown: int = 8,
  nearest: int = 3,
  max_input: int = 64,
  categories: Mapping[str, Sequence[str]] | None = None,
  cache: str | None = None,
) -> job.Job:
  """Plans a look at what a trained strategy makes of the inputs of tasks.

  Args:
    delta: folder of a bank entry: a strategy on prompt tuning, or a plain
      prompt, of which there is no map.
    tasks: whose validation inputs are mapped.
    out: folder of the tables.
    backbone: the one that the delta was trained on.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    examples: of each task.
    shown: inputs whose words are marked.
    nearest: words that are marked in each.
    max_input: longest input in tokens.
    categories: name -> tasks, as of `classifier.train`; the map is coloured by
      them, and the silhouette is theirs. None: each task is its own.
    cache: folder of prepared arrays; by default `cache` beside `out`.

  Returns:
    The job. It writes map.csv, silhouettes.csv and words.csv.

  Raises:
    ValueError: no prompt or strategy on prompt tuning, another backbone, an
      unknown task, or one without a category.
  """
  check_list('tasks', tasks, of='task')
  if len(tasks) < 2:
    raise ValueError(
      f'tasks: expected two or more, which are to be told apart, found '
      f'{list(tasks)}.'
    )
  for name, value in (
    ('examples', examples),
    ('shown', shown),
    ('nearest', nearest),
  ):
    positive(name, value)
  category = _category(tasks, categories)
  entry = store.read(delta)
  check_names('delta', (entry.card['method'],), (PLAIN, *methods.METHODS))
  plain = entry.card['method'] == PLAIN
  if not plain and entry.card['settings']['base'] != 'prompt':
    raise ValueError(
      f'delta: expected a strategy on prompt tuning, found base='
      f'{entry.card["settings"]["base"]!r} in {delta}.'
    )
  if not isinstance(backbone, Backbone):
    backbone = backbones.load(backbone)
  store.check_backbone(entry, backbone)
  found = {name: task_names.find(name, data_dir) for name in tasks}
  folder = pathlib.Path(out)
  place = cache or folder.parent / 'cache'

  def run():
    held = {
      name: task_arrays.prepare(task, backbone.vocabulary, place, max_input)
      .splits['validation']
      .inputs[:examples]
      for name, task in found.items()
    }
    tokens = np.concatenate([corpus.pad(x, max_input) for x in held.values()])
    labels = np.repeat(list(held), [len(x) for x in held.values()])
    groups = np.array([category[task] for task in labels])
    setting = backbones.setting(backbone)
    if plain:
      fixed = np.asarray(entry.phi['encoder'])
      vectors = np.broadcast_to(fixed, (len(tokens), *fixed.shape))
    else:
      method = stored.method(entry.card, backbone)
      # without the words before them, which are the same for all
      vectors = prompts(method, entry.phi, tokens)
      vectors = vectors[:, len(method.constants['hard']) :]
    embeddings = {'backbone': sentences(backbone, tokens)}
    if not plain:
      embeddings['prompt'] = vectors.mean(axis=1)
    points, apart = [], []
    for kind in embeddings:
      places, silhouette = flat_map(embeddings[kind], groups)
      apart.append(
        {'embedding': kind, 'silhouette': silhouette, 'sentences': len(labels)}
      )
      points += [
        {
          'embedding': kind,
          'task': str(task),
          'category': category[task],
          'x': float(x),
          'y': float(y),
        }
        for task, (x, y) in zip(labels, places, strict=True)
      ]
    results.write_csv(folder / 'map.csv', points, MAP)
    results.write_csv(folder / 'silhouettes.csv', apart, SILHOUETTES)
    chosen = np.linspace(0, len(tokens) - 1, shown).astype(int)
    table = setting.embedding
    words = [
      {'example': number, 'task': str(labels[i]), **word}
      for number, i in enumerate(chosen)
      for word in near(tokens[i], vectors[i], table, backbone, nearest)
    ]
    results.write_csv(folder / 'words.csv', words, WORDS)

  plan = (
    f'delta      {entry.name}: {entry.card["method"]}\n'
    f'tasks      {", ".join(found)}, {examples} inputs each'
  )
  record = {'delta': entry.name, 'fingerprint': backbone.fingerprint}
  return job.Job(folder, plan, record, run)


def _category(tasks, categories) -> dict[str, str]:
  """Returns the category of each task."""
  if categories is None:
    return {task: task for task in tasks}
  found = {t: name for name, members in categories.items() for t in members}
  if missing := [t for t in tasks if t not in found]:
    raise ValueError(
      f'categories: expected one for each of the tasks, found none for '
      f'{missing}. Add them, or leave the tasks out.'
    )
  if len({found[t] for t in tasks}) < 2:
    raise ValueError(
      'categories: expected tasks of two or more, which are to be told apart, '
      f'found {found[tasks[0]]!r} alone.'
    )
  return {task: found[task] for task in tasks}


def prompts(method, phi, tokens) -> Float[np.ndarray, 'N k D']:
  """Returns the prompt of every input."""

  @jax.jit
  def run(batch):
    made = method.delta(phi, {'inputs': batch}, method.constants)
    return made['encoder']['prompt']

  return np.asarray(batched.over(run, tokens, BATCH))


def sentences(backbone: Backbone, tokens) -> Float[np.ndarray, 'N D']:
  """Returns the mean of the encoder's output over each input's tokens."""

  @jax.jit
  def run(batch):
    out = forward.encode(backbone.config, backbone.weights, {}, batch)
    mask = (batch > 0)[..., None]
    return (out * mask).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)

  return np.asarray(batched.over(run, tokens, BATCH))


def flat_map(vectors: Float[np.ndarray, 'N D'], labels):
  """Returns places [N, 2] by PCA of the directions, and the silhouette.

  The silhouette, by cosine distance in all dimensions, is the mean over
  sentences of (b - a) / max(a, b), with a the mean distance to those of the
  same label and b that to the nearest other label.
  """
  from sklearn.decomposition import PCA
  from sklearn.metrics import silhouette_score

  # what all have in common says nothing of how they differ
  moved = vectors - vectors.mean(axis=0)
  unit = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
  places = PCA(2, random_state=0).fit_transform(unit)
  return places, float(silhouette_score(unit, labels, metric='cosine'))


def near(
  tokens: Int[np.ndarray, ' L'],
  vectors: Float[np.ndarray, 'k D'],
  table,
  backbone: Backbone,
  nearest: int,
) -> list[dict[str, Any]]:
  """Returns each token with its highest cosine to any prompt vector.

  `nearest` of them, of different words, are marked.
  """
  decode = backbone.vocabulary.decode
  # without the padding, the end, and pieces that are a space alone
  own = [int(t) for t in tokens if t > 1 and decode([int(t)])]
  rows = np.asarray(table, np.float32)[own]
  highest = (_unit(rows) @ _unit(vectors).T).max(axis=1)
  marked: dict[int, int] = {}
  for i in np.argsort(-highest, kind='stable'):
    if len(marked) < nearest:
      marked.setdefault(own[i], int(i))
  places = set(marked.values())
  return [
    {
      'token': decode([t]),
      'similarity': float(s),
      'nearest': int(i in places),
    }
    for i, (t, s) in enumerate(zip(own, highest, strict=True))
  ]


def _unit(x):
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
