"""Task names: which folder, template or SeqIO task a name stands for.

A name is looked up as a folder with a `task.json`, in the tables of templates,
among the small tasks that the package carries, and in SeqIO's registries.
"""

import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from prompt_subspace.data import crossfit, files
from prompt_subspace.data.templates import Template
from prompt_subspace.vocabulary import Vocabulary

DEMO = pathlib.Path(__file__).parent / 'demo'
# A SeqIO task brings its own text: its template only adds labels and metrics.
PLAIN = Template('{inputs}', '{targets}')

_templates: dict[str, Template] = {}
# Tasks of SeqIO: what each is made from, where that is known.
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
      is made from, see `seqio_tasks.text_task`.
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


def note_identity(name: str, identity: str) -> None:
  """Notes what a task of SeqIO is made from and how, see `identity`."""
  _identities[name] = identity


def identity(task: Task) -> str | None:
  """What a task of SeqIO is said to be made from, else None."""
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
