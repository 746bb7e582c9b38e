"""Task names: which folder, template or SeqIO task a name stands for.

A name is looked up as a folder with a `task.json`, in the tables of templates,
among the small tasks that the package carries, and in SeqIO's registries.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from prompt_subspace.data import crossfit, files
from prompt_subspace.data.templates import Example, Template
from prompt_subspace.vocabulary import Vocabulary

if TYPE_CHECKING:
  import seqio

DEMO = pathlib.Path(__file__).parent / 'demo'
# A SeqIO task brings its own text: its template only adds labels and metrics.
PLAIN = Template('{inputs}', '{targets}')

_templates: dict[str, Template] = {}
# Tasks that `text_task` registered: what each is made from.
_identities: dict[str, str] = {}
# Tasks of SeqIO that are registered when they are read: how.
_later: dict[str, Callable[[Vocabulary], None]] = {}


class Task(NamedTuple):
  """What a name stands for.

  Attributes:
    name: as the user gives it.
    folder: of the split files; for a set of CrossFit what their names begin
      with, see `crossfit.place`; None for a task of SeqIO's registries.
    template: how rows read; over `inputs` and `targets` when folder is None.
  """

  name: str
  folder: pathlib.Path | None
  template: Template


def register_templates(table: Mapping[str, Template]) -> None:
  """Makes the tasks of a table known by name.

  Args:
    table: task name -> template. A name stands for the folder of that name in
      the user's data_dir, or for the SeqIO task of that name; for the latter
      the template is Template('{inputs}', '{targets}', labels=..., ...).

  Raises:
    ValueError: another template has the name already.
  """
  for name, template in table.items():
    if _templates.setdefault(name, template) != template:
      raise ValueError(
        f'table: {name!r} is registered with another template already; rename '
        f'one of the two tasks.'
      )


def register_later(
  table: Mapping[str, tuple[Template, str | None]],
  register: Callable[[Vocabulary], None],
) -> None:
  """Makes tasks known that are in SeqIO's registry once they are read.

  SeqIO's tasks have a vocabulary, which nobody knows where a table is written.

  Args:
    table: task name -> its template, over `inputs` and `targets`, and what it
      is made from, see `text_task`.
    register: vocabulary -> None, adds all of them to SeqIO's registry; called
      when the first of them is tokenised.

  Raises:
    ValueError: see `register_templates`.
  """
  register_templates({name: template for name, (template, _) in table.items()})
  _identities.update({n: made for n, (_, made) in table.items() if made})
  _later.update(dict.fromkeys(table, register))


def ensure_registered(task: Task, vocabulary: Vocabulary) -> None:
  """Registers a task of `register_later` with SeqIO, unless somebody has."""
  if task.folder is None and task.name not in _seqio_names():
    if register := _later.get(task.name):
      register(vocabulary)


def find(name: str, data_dir: str | pathlib.Path | None = None) -> Task:
  """Resolves a task name; the first of these that exists.

  1. the folder `data_dir/name` with a `task.json`;
  2. the folder `data_dir/name` with a template registered under the name;
  3. with data_dir None or 'demo': a task that the package carries;
  4. a few-shot set of CrossFit in data_dir, such as 'glue-sst2_16_13';
  5. a task of `register_later`, or a task or mixture of SeqIO's registries
     (its module must be imported).

  Args:
    name: of the task.
    data_dir: folder of task folders; None or 'demo' for the embedded ones.

  Raises:
    ValueError: no such data_dir, a task.json with a mistake, a folder without
      template, a template without folder, or an unknown name.
  """
  root = _root(data_dir)
  folder = root / name
  if name and (folder / 'task.json').is_file():
    return Task(name, folder, Template.from_json(folder / 'task.json'))
  template = _templates.get(name)
  if template and folder.is_dir():
    return Task(name, folder, template)
  if few_shot := crossfit.place(name, root):
    return Task(name, few_shot, crossfit.template(few_shot))
  if name in _later or name in _seqio_names():
    return Task(name, None, template or PLAIN)
  raise ValueError(_not_found(name, root))


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

  `find` then knows the name, and `arrays.prepare` needs no more than that: it
  reads candidates and accepted targets where the examples have them.

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

  register_templates({name: template})
  task = _provider(name, source, preprocessors, template, vocabulary)
  seqio.TaskRegistry.add_provider(name, task)
  _identities[name] = identity
  return task


def identity(task: Task) -> str | None:
  """What `text_task` was told that a task is made from, else None."""
  return _identities.get(task.name) if task.folder is None else None


def source(task: Task, splits: Sequence[str]) -> str | None:
  """What the texts of these splits are made from, for a cache to compare.

  The sha256 of the files; of a task of SeqIO what `identity` says.

  Raises:
    ValueError: a file is missing.
  """
  if task.folder is None:
    return identity(task)
  place = _files_of(task.folder)
  return files.checksum(place.split_path(task.folder, s) for s in splits)


def splits(task: Task) -> list[str]:
  """Returns the splits that a task's folder has a file of."""
  return _files_of(task.folder).present(task.folder)


def texts(task: Task, split: str) -> list[list[str]]:
  """Returns what the columns of each row hold, without the template.

  Labels of a classification are left out.

  Args:
    task: with a folder.
    split: that it has a file of.

  Raises:
    ValueError: the file is missing or cannot be read.
  """
  path = _files_of(task.folder).split_path(task.folder, split)
  if crossfit.is_set(task.folder):
    return [[text] for _, text, _ in crossfit.read(path)]
  template = task.template
  label = {template.target.strip('{}')} if template.labels else set()
  columns = [c for c in template.columns if c not in label]
  return [[row[c] for c in columns] for _, row in files.read(path, columns)]


def _files_of(folder: pathlib.Path):
  return crossfit if crossfit.is_set(folder) else files


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


def _root(data_dir: str | pathlib.Path | None) -> pathlib.Path:
  if data_dir is None or str(data_dir) == 'demo':
    return DEMO
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(
      f'data_dir: expected a folder of task folders, found none at {root}; '
      f"give its path, or 'demo' for the tasks that the package carries."
    )
  return root


def _seqio_names() -> list[str]:
  # Whoever registered a task has imported seqio: if nobody has, its
  # registries are empty and importing it (and TensorFlow) would tell nothing.
  seqio = sys.modules.get('seqio')
  if seqio is None:
    return []
  return sorted(seqio.TaskRegistry.names() | seqio.MixtureRegistry.names())


def _not_found(name: str, root: pathlib.Path) -> str:
  """The error for a name that stands for nothing, with the fix."""
  folder = root / name
  if name in _templates and root == DEMO:
    return (
      f'task {name!r} needs data: pass data_dir, the folder that holds '
      f'{name}/train.tsv; without it only the embedded tasks are found: '
      f'{", ".join(_folders(DEMO))}.'
    )
  if name in _templates:
    return (
      f'task {name!r}: expected its split files in {folder}, found no such '
      f'folder; its template is known, data_dir must be the folder above it.'
    )
  if few_shot := crossfit.sets(crossfit.task_of(name), root):
    return (
      f'task {name!r}: {root / crossfit.task_of(name)} holds few-shot sets of '
      f'CrossFit; name one of them: {", ".join(few_shot.values())}.'
    )
  if name and folder.is_dir():
    return (
      f'task {name!r}: {folder} has no task.json and no template of this name '
      f'is registered; write a task.json with input and target, or import the '
      f'module that registers its template.'
    )
  known = {
    f'in {"the package" if root == DEMO else root}': _folders(root),
    "in SeqIO's registries": _seqio_names(),
  }
  listed = '; '.join(f'{k}: {", ".join(v)}' for k, v in known.items() if v)
  return (
    f'unknown task {name!r}; the known ones are {listed or "none"}. A task of '
    f'your own is a folder in data_dir with a task.json; a task of SeqIO is '
    f'known once its module is imported.'
  )


def _folders(root: pathlib.Path) -> list[str]:
  """The names of the task folders in root that `find` resolves."""
  return sorted(
    path.name
    for path in root.glob('*')
    if (path / 'task.json').is_file()
    or (path.is_dir() and path.name in _templates)
  )
