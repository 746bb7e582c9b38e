"""SeqIO tasks: of folders of split files, and over any source of texts."""

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prompt_subspace.data import crossfit, files, tasks
from prompt_subspace.data.templates import Example, Template
from prompt_subspace.vocabulary import Vocabulary

if TYPE_CHECKING:
  import seqio


def seqio_task(
  name: str,
  folder: str | pathlib.Path,
  template: Template,
  vocabulary: Vocabulary,
  splits: Sequence[str] = files.SPLITS,
  register: bool = True,
) -> 'seqio.Task':
  """Turns a folder of split files into a SeqIO task (imports TensorFlow).

  Examples have the features `inputs` and `targets` (token ids that end with
  EOS, trimmed to the sequence length asked for), their texts as
  `inputs_pretokenized` and `targets_pretokenized`, and for evaluation `label`
  (index of the right choice or -1), `choices` (texts; empty unless multiple
  choice) and `references` (accepted target texts).

  Args:
    name: for SeqIO: letters, digits and `_.:#`.
    folder: see `Task`.
    template: how rows read, and the metrics.
    vocabulary: of the backbone.
    splits: which files to offer.
    register: whether to add it to `seqio.TaskRegistry`.

  Raises:
    ValueError: bad data, see `files.examples`; SeqIO's own for the name.
  """
  import seqio

  counts = {s: len(_rows(folder, s, template)) for s in splits}
  source = seqio.FunctionDataSource(
    _dataset_fn(folder, template), splits, num_input_examples=counts
  )
  task = _provider(name, source, (), template, vocabulary)
  if register:
    seqio.TaskRegistry.add_provider(name, task)
  return task


def text_task(
  name: str,
  source: 'seqio.DataSource',
  preprocessors: Sequence[Callable],
  template: Template,
  vocabulary: Vocabulary,
  identity: str,
) -> 'seqio.Task':
  """Registers a SeqIO task over any source (imports TensorFlow).

  `tasks.find` then knows the name, and `arrays.prepare` needs no more than
  that: it reads candidates and accepted targets where the examples have them.

  Args:
    name: for SeqIO: letters, digits and `_.:#`.
    source: of the rows.
    preprocessors: dataset -> dataset; they leave the texts `inputs` and
      `targets`, for generation `references` and for multiple choice `choices`
      (lists of texts, see `seqio_task`), and whatever else a user wants.
    template: Template('{inputs}', '{targets}', ...): labels, or as many choices
      as a row has at most, and the metrics.
    vocabulary: of the backbone.
    identity: says what the texts are made from and how; prepared arrays of
      another identity are not taken from the cache.

  Raises:
    ValueError: the name has another template; SeqIO's own for the name.
  """
  import seqio

  tasks.register_templates({name: template})
  task = _provider(name, source, preprocessors, template, vocabulary)
  seqio.TaskRegistry.add_provider(name, task)
  tasks.note_identity(name, identity)
  return task


def _provider(
  name: str,
  source: 'seqio.DataSource',
  preprocessors: Sequence[Callable],
  template: Template,
  vocabulary: Vocabulary,
) -> 'seqio.Task':
  """The SeqIO task that tokenises and scores the texts of a source."""
  import seqio

  feature = seqio.Feature(vocabulary.seqio(), add_eos=True)
  return seqio.Task(
    name,
    source=source,
    output_features={'inputs': feature, 'targets': feature},
    preprocessors=[
      *preprocessors,
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos_after_trim,
    ],
    postprocess_fn=_postprocess_fn(template.kind),
    metric_fns=[_metric_fn(metric) for metric in template.metrics],
  )


def _rows(
  folder: str | pathlib.Path, split: str, template: Template
) -> list[tuple[Example, list[str]]]:
  """The examples of a split of `Task.folder`, with their accepted targets."""
  if crossfit.is_set(folder):
    return crossfit.examples(folder, split, template)
  rows = files.examples(folder, split, template)
  return list(zip(rows, _references(rows, template.kind), strict=True))


def _references(examples: Sequence[Example], kind: str) -> list[list[str]]:
  """The accepted target texts of each example.

  For generation: the targets of every example with the same input, its own
  first, as sets with several answers per question spread them over rows.
  """
  if kind != 'generation':
    return [[e.target] for e in examples]
  accepted: dict[str, dict[str, None]] = {}
  for e in examples:
    accepted.setdefault(e.input, {})[e.target] = None
  return [list({e.target: None} | accepted[e.input]) for e in examples]


def _dataset_fn(folder: str | pathlib.Path, template: Template):
  """A function for `seqio.FunctionDataSource` that yields rendered rows."""

  def dataset_fn(split: str, shuffle_files: bool = False, seed=None):
    import tensorflow as tf

    def texts(lists):
      return tf.ragged.constant(lists, tf.string, ragged_rank=1)

    # SeqIO shuffles examples itself; a split is one file, so neither
    # shuffle_files nor seed has anything left to do.
    rows = _rows(folder, split, template)
    return tf.data.Dataset.from_tensor_slices(
      {
        'inputs': [row.input for row, _ in rows],
        'targets': [row.target for row, _ in rows],
        'label': tf.constant([row.label for row, _ in rows], tf.int32),
        'choices': texts([row.choices or () for row, _ in rows]),
        'references': texts([accepted for _, accepted in rows]),
      }
    )

  return dataset_fn


def _postprocess_fn(kind: str):
  """Targets for the metrics: accepted texts in generation, else one text."""

  def postprocess(decoded, example=None, is_target=False):
    if not is_target or kind != 'generation':
      return decoded.decode() if isinstance(decoded, bytes) else decoded
    return [text.decode() for text in example['references']]

  return postprocess


def _metric_fn(name: str):
  """One metric as SeqIO calls it."""

  def metric(targets, predictions):
    from prompt_subspace.evaluation.metrics import METRICS

    return {name: METRICS[name](targets, predictions)}

  return metric
