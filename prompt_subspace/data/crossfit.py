"""CrossFit's few-shot sets: files without header, found by CrossFit's names.

Ye et al. 2021. Each task has a folder with three files for each of five seeds:

  glue-sst2/glue-sst2_16_13_{train,dev,test}.tsv

`glue-sst2_16_13` is a task for `tasks.find`: glue-sst2 with 16 examples of each
class (32 in all where CrossFit knows no classes), drawn with seed 13; the other
seeds are 21, 42, 87 and 100. A line has the input and, behind tabs, every
accepted output. Nothing is quoted.
"""

import pathlib
import re

from prompt_subspace.data import crossfit_tasks
from prompt_subspace.data.templates import METRICS, Example, Template

# CrossFit evaluates on so many rows of a test file, the first ones.
MOST_TESTED = 10_000
ENDINGS = {'train': 'train', 'validation': 'dev', 'test': 'test'}


def place(name: str, root: str | pathlib.Path) -> pathlib.Path | None:
  """The common beginning of a set's files; None if there is no such set.

  Args:
    name: of the set, such as 'glue-sst2_16_13'.
    root: holds the folders of the tasks.
  """
  beginning = pathlib.Path(root) / task_of(name) / name
  return beginning if is_set(beginning) else None


def is_set(folder: str | pathlib.Path) -> bool:
  """Whether this is the beginning of a set's files, as `place` returns it."""
  folder = pathlib.Path(folder)
  named = task_of(folder.name) == folder.parent.name
  return named and _file(folder, 'train').is_file()


def task_of(name: str) -> str:
  """The task of a set, 'glue-sst2' of 'glue-sst2_16_13'; others as given."""
  return re.sub(r'_\d+_\d+$', '', name)


def sets(task: str, root: str | pathlib.Path) -> dict[int, str]:
  """The sets of a task: seed -> name, in the order of the seeds.

  Raises:
    ValueError: two sets of one seed, as with other numbers of examples.
  """
  folder, found = pathlib.Path(root) / task, {}
  for path in sorted(folder.glob(f'{task}_*_train.tsv')):
    name = path.name.removesuffix('_train.tsv')
    if task_of(name) != task:
      continue
    seed = int(name.rpartition('_')[2])
    if seed in found:
      raise ValueError(
        f'{folder}: {found[seed]} and {name} are sets of one seed; keep sets '
        f'of other sizes in another folder of tasks.'
      )
    found[seed] = name
  return dict(sorted(found.items()))


def template(folder: str | pathlib.Path) -> Template:
  """How the rows of a set read; the files say which labels there are.

  Inputs begin with the task's name, "[glue-sst2] ...", as in CrossFit. The
  labels of a classification are the outputs of train and validation, in the
  order of the alphabet: the same for all seeds.

  CrossFit scores an answer to a multiple choice, which is generated, by its
  equality but for case; here it is by exact match, which ignores punctuation
  and articles too (and so takes 1.5 for 15 in aqua_rat and math_qa). The same
  goes for codah, whose metric there is the macro-F1 over all answers.

  Args:
    folder: the beginning of the set's files.

  Raises:
    ValueError: the task is none of CrossFit's; bad lines; fewer than two
      labels.
  """
  folder = pathlib.Path(folder)
  task = task_of(folder.name)
  row = crossfit_tasks.row(task)
  labels = None
  if row.kind == 'classification':
    texts = {
      answers[0]
      for split in ('train', 'validation')
      for _, _, answers in read(split_path(folder, split))
    }
    labels = {text: text for text in sorted(texts)}
    if len(labels) < 2:
      raise ValueError(
        f'{folder}_*.tsv: expected at least two different outputs in train and '
        f'dev, as {task} is a classification, found {list(labels)}.'
      )
  known = METRICS[row.kind]
  return Template(
    f'[{task}] {{input}}',
    '{output}',
    labels,
    metrics=(row.metric if row.metric in known else 'exact_match',),
    kind=row.kind,
  )


def examples(
  folder: str | pathlib.Path, split: str, template: Template
) -> list[tuple[Example, list[str]]]:
  """The rows of a split as text, each with its accepted targets.

  Args:
    folder: the beginning of the set's files.
    split: 'train', 'validation' or 'test'; of the last, the first 10,000 rows.
    template: see `template`.

  Raises:
    ValueError: beginning with `file:line:`, for a missing file, a line that is
      not UTF-8 or has no output, several outputs where one can be right, and
      everything that `Template.render` refuses.
  """
  path = split_path(folder, split)
  rows = read(path)
  found = []
  for line, text, answers in rows[: MOST_TESTED if split == 'test' else None]:
    try:
      if len(answers) > 1 and template.kind != 'generation':
        raise ValueError(
          f'expected one output for a {template.kind}, found {len(answers)}; '
          f'was there a tab within the input?'
        )
      example, *others = (
        template.render({'input': text, 'output': a}) for a in answers
      )
    except ValueError as error:
      raise ValueError(f'{path}:{line}: {error}') from error
    found.append((example, [e.target for e in (example, *others)]))
  return found


def read(path: pathlib.Path) -> list[tuple[int, str, list[str]]]:
  """(line number, input, different accepted outputs) of each line of a file.

  Spaces around a field and empty outputs beside others are dropped.

  Raises:
    ValueError: see `examples`.
  """
  rows = []
  for number, line in enumerate(_lines(path), start=1):
    text, *answers = (field.strip() for field in line.split('\t'))
    answers = list(dict.fromkeys(answer for answer in answers if answer))
    if not text or not answers:
      raise ValueError(
        f'{path}:{number}: expected an input, a tab and an output, found '
        f'{line[:40]!r}; was there a line break within the input? CrossFit '
        f'passes over such lines: delete it.'
      )
    rows.append((number, text, answers))
  if not rows:
    raise ValueError(f'{path}:1: no examples; expected at least one row.')
  return rows


def split_path(folder: str | pathlib.Path, split: str) -> pathlib.Path:
  """The file of a split of the set whose files begin so."""
  if split not in ENDINGS:
    raise ValueError(
      f'split {split!r}: a set of CrossFit has {", ".join(ENDINGS)}.'
    )
  path = _file(pathlib.Path(folder), split)
  if not path.is_file():
    raise ValueError(
      f'{path}: there is no such file, which is the {split} split of a set of '
      f'CrossFit; build the set again.'
    )
  return path


def present(folder: str | pathlib.Path) -> list[str]:
  """Returns the splits that a set has a file of."""
  return [s for s in ENDINGS if _file(pathlib.Path(folder), s).is_file()]


def _file(folder: pathlib.Path, split: str) -> pathlib.Path:
  return folder.with_name(f'{folder.name}_{ENDINGS[split]}.tsv')


def _lines(path: pathlib.Path) -> list[str]:
  try:
    text = path.read_bytes().decode('utf-8-sig')
  except UnicodeDecodeError as error:
    number = error.object.count(b'\n', 0, error.start) + 1
    raise ValueError(
      f'{path}:{number}: not UTF-8 ({error.reason}); save the file as UTF-8.'
    ) from error
  # Not splitlines: a text may hold other characters that end lines in Python.
  return text.removesuffix('\n').split('\n') if text else []
