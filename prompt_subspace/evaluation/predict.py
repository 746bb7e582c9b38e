"""Predictions of many rows: ranked choices or generated text, and scores."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int

from prompt_subspace.backbone import decode, forward
from prompt_subspace.backbone.config import T5Config
from prompt_subspace.data import batches
from prompt_subspace.data.arrays import TaskArrays
from prompt_subspace.deltas.base import Frozen
from prompt_subspace.evaluation.metrics import METRICS, UndefinedMetric
from prompt_subspace.training import mesh as meshes
from prompt_subspace.training import rows as stack_rows
from prompt_subspace.vocabulary import Vocabulary

# float32 logits of one evaluation batch stay below this many bytes
LOGITS_BYTES = 128 * 2**20
# the first of the signs that stand for wrong choices without a text
PRIVATE = 0xE000
# rows of a call on an accelerator: tasks with other numbers of rows than this
# share what is compiled
ROWS = 8


class Predictor(NamedTuple):
  """The two compiled functions that evaluate a method.

  Attributes:
    rank: (frozen, stacked phi, batch, choices) -> index of the most likely
      choice, or -1 if the scores are no numbers, [W, B].
    generate: (frozen, stacked phi, batch, length) -> tokens [W, B, T].
    chunk: rows of one call; None suits the device.
    mesh: of the devices that all lies on.
  """

  rank: Callable[..., Array]
  generate: Callable[..., Array]
  chunk: int | None = None
  mesh: Mesh | None = None


def make_predictor(
  config: T5Config,
  expand: Callable[[Any, Mapping, Any], Mapping],
  chunk: int | None = None,
  beams: int = 1,
  mesh: Mesh | None = None,
  at_once: Callable[[Mapping], int | None] = lambda _: None,
) -> Predictor:
  """Compiles (on first use) the evaluation of a method on a backbone.

  Args:
    config: of the backbone.
    expand: (phi, batch, constants) -> delta, `Method.delta`.
    chunk: rows of one call; None suits the device.
    beams: width of beam search; 1 generates greedily.
    mesh: of several devices.
    at_once: batch -> rows of a call computed at once; None is all on an
      accelerator.
  """

  def each_row(function, phi, batch):
    size = chunk or at_once(batch)
    found = stack_rows.map_rows(function, phi, size, mesh)
    return meshes.everywhere(mesh, found)

  @jax.jit
  def rank(frozen, phi, batch, choices):
    def one(row_phi):
      delta = expand(row_phi, batch, frozen.constants)
      scores = forward.choice_scores(
        config, frozen.weights, delta, batch, choices
      )
      # else the first choice would be the answer of a phi that went wrong
      broken = jnp.any(jnp.isnan(scores), axis=-1)
      return jnp.where(broken, -1, jnp.argmax(scores, axis=-1))

    return each_row(one, phi, batch)

  @functools.partial(jax.jit, static_argnames='length')
  def generate(frozen, phi, batch, length):
    def one(row_phi):
      delta = expand(row_phi, batch, frozen.constants)
      args = (config, frozen.weights, delta, batch['inputs'], length)
      encoded = batch.get('encoded')
      if beams > 1:
        return decode.beam(*args, beams, encoded=encoded)[0]
      return decode.greedy(*args, encoded=encoded)

    return each_row(one, phi, batch)

  return Predictor(rank, generate, chunk, mesh)


def predict(
  predictor: Predictor,
  frozen: Frozen,
  phi: Any,
  rows: Sequence[int],
  task: TaskArrays,
  split: str,
  data: Mapping[str, Array],
  vocabulary: Vocabulary,
  vocab_size: int,
  *,
  examples: int | None = None,
  batch_size: int = 32,
  buckets: int = 3,
  widths: Sequence[int] = batches.EDGES,
  length: int | None = None,
) -> list[list[str]]:
  """Returns each row's predicted texts for the first examples of a split.

  Args:
    predictor: of the method.
    frozen: weights of the backbone, and the method's constants.
    phi: stacked, one entry per row of the stack.
    rows: which rows of the stack to evaluate.
    task: the task.
    split: one of its splits.
    data: the split's arrays on the device: `inputs`, `targets`, and maybe
      `encoded`.
    vocabulary: decodes generated tokens.
    vocab_size: columns of the logits, which bound the batch's memory.
    examples: how many examples to use; None all.
    batch_size: examples at once.
    buckets: how many different widths inputs are padded to.
    widths: what these are chosen from.
    length: longest generated text in tokens; by default that of the targets.

  Returns:
    One list of texts for each of `rows`; label or choice texts where the task
    has choices.
  """
  arrays = task.splits[split]
  count = min(examples or len(arrays.labels), len(arrays.labels))
  lengths = np.asarray((arrays.inputs[:count] > 0).sum(axis=1))
  edges = batches.choose_edges(lengths, buckets, widths)
  longest = length or arrays.targets.shape[1]
  choices = None
  if arrays.choices is not None:
    choices = few_shapes(arrays.choices)
    batch_size = _fitting(choices, batch_size, vocab_size)
  out = np.zeros((len(rows), count, longest), np.int32)
  found = np.zeros((len(rows), count), np.int32)
  mesh = predictor.mesh
  size, parts = _parts(predictor, len(rows))
  for part in parts:
    # as many in each, and as many as a mesh divides; the last is run again
    filled = np.minimum(np.arange(meshes.padded(mesh, size)), len(part) - 1)
    filled = np.asarray(rows, np.int32)[part][filled]
    taken = _take(phi, filled)
    for width, indices in batches.in_order(lengths, batch_size, edges):
      chosen = meshes.put_batch(mesh, indices, rows=False)
      batch = stack_rows.gather(data, chosen, width, 1)
      where = np.ix_(part, indices)
      if choices is None:
        tokens = predictor.generate(frozen, taken, batch, longest)
        out[where] = np.asarray(tokens)[: len(part)]
      else:
        mine = choices if choices.ndim == 2 else choices[indices]
        best = predictor.rank(frozen, taken, batch, meshes.put(mesh, mine))
        found[where] = np.asarray(best)[: len(part)]
  if arrays.choices is None:
    return [[vocabulary.decode(t.tolist()) for t in row] for row in out]
  texts = choice_texts(task, split)
  return [
    [texts(n, choice) for n, choice in enumerate(row.tolist())] for row in found
  ]


def _parts(predictor: Predictor, count: int) -> tuple[int, list[np.ndarray]]:
  """How many rows a call has, and which: all calls are compiled once.

  Where rows are computed one by one, each has calls of its own.
  """
  if predictor.mesh is not None:
    size = count
  else:
    size = predictor.chunk or stack_rows.chunk_size(ROWS)
    size = min(size, count)
  return size, np.split(np.arange(count), range(size, count, size))


@jax.jit
def _take(phi: Any, rows: Int[Array, ' w']) -> Any:
  """Takes rows of a stack."""
  return jax.tree.map(lambda x: x[rows], phi)


def choice_texts(task: TaskArrays, split: str) -> Callable[[int, int], str]:
  """Returns (example, choice) -> text; no choice, -1, has no text.

  The choices of a multiple-choice example are kept as tokens only, so its
  right choice reads as its reference, and any other as a sign of Unicode's
  private use: a number, say, could be what some reference reads like.
  """
  if task.label_texts is not None:
    names = task.label_texts
    return lambda example, choice: names[choice] if choice >= 0 else ''
  arrays = task.splits[split]

  def text(example: int, choice: int) -> str:
    if choice == arrays.labels[example]:
      return arrays.references[example][0]
    return chr(PRIVATE + choice) if choice >= 0 else ''

  return text


def shown(text: str) -> str:
  """A prediction for people: a wrong choice without a text is `#<number>`."""
  if len(text) == 1 and PRIVATE <= ord(text) <= 0xF8FF:
    return f'#{ord(text) - PRIVATE}'
  return text


def few_shapes(
  choices: Int[np.ndarray, '*N C T'],
) -> Int[np.ndarray, '*N C2 T2']:
  """Pads choices to a power of two of them, and to few lengths.

  Tasks then share compiled shapes. The slots added are empty and never win.
  """
  count, length = choices.shape[-2:]
  more = 2 ** (count - 1).bit_length() - count
  longer = batches.round_up(length, batches.TARGET_EDGES) - length
  widths = [(0, 0)] * (choices.ndim - 2) + [(0, more), (0, longer)]
  return np.pad(choices, widths)


def _fitting(
  choices: Int[np.ndarray, '*N C T'], batch_size: int, vocab_size: int
) -> int:
  each = choices.shape[-2] * choices.shape[-1] * vocab_size * 4
  return int(max(1, min(batch_size, LOGITS_BYTES // each)))


def score(
  task: TaskArrays, split: str, predictions: Sequence[str]
) -> dict[str, float]:
  """Returns every metric of the task, and their mean as `score`, in percent.

  A metric that is undefined for these predictions (a correlation of constant
  answers) is NaN, and so is the mean: such a row is never the best, and the
  table shows it as it is.
  """
  references = task.splits[split].references[: len(predictions)]
  out = {}
  for name in task.metrics:
    try:
      out[name] = METRICS[name](references, predictions)
    except UndefinedMetric:
      out[name] = float('nan')
  out['score'] = float(np.mean(list(out.values())))
  return out


def majority(
  task: TaskArrays, split: str, examples: int | None = None
) -> dict[str, float]:
  """Scores the constant answer: the most frequent training target.

  For multiple choice, whose targets differ by example, the most frequent
  position of the right choice.
  """
  train, arrays = task.splits['train'], task.splits[split]
  count = min(examples or len(arrays.labels), len(arrays.labels))
  if task.kind == 'multiple_choice':
    place = int(np.bincount(train.labels).argmax())
    texts = choice_texts(task, split)
    return score(task, split, [texts(n, place) for n in range(count)])
  targets = [r[0] for r in train.references]
  names, counts = np.unique(targets, return_counts=True)
  return score(task, split, [str(names[counts.argmax()])] * count)
