"""A template: how one row of named columns reads as text in, text out.

Text-to-text in the manner of T5 (Raffel et al. 2020, appendix D): the input
names its fields, a class is a word. A template is a literal value: a row of a
table in Python, or the `task.json` of a user's own folder.
"""

import dataclasses
import hashlib
import json
import pathlib
import string
from collections.abc import Mapping
from typing import NamedTuple

# The metrics that are defined for each kind of task.
METRICS = {
  'classification': ('accuracy', 'f1_macro', 'matthews', 'exact_match'),
  'multiple_choice': ('accuracy', 'exact_match'),
  'generation': ('exact_match', 'qa_f1', 'rouge_l'),
  'regression': ('pearson', 'spearman'),
}
KINDS = tuple(METRICS)
DEFAULT_METRICS = {
  'classification': ('accuracy',),
  'multiple_choice': ('accuracy',),
  'generation': ('rouge_l',),
  'regression': ('pearson', 'spearman'),
}


class Example(NamedTuple):
  """One row as text.

  Attributes:
    input: what the encoder reads.
    target: what the decoder should write.
    label: index of the target among the choices; -1 where there are none.
    choices: this row's own candidates (multiple choice), else None.
  """

  input: str
  target: str
  label: int
  choices: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Template:
  """How a row of columns becomes an `Example`.

  Attributes:
    input: format string over the columns, "question: {question}".
    target: format string over the columns. With `labels` it is one column,
      "{label}", whose value is looked up.
    labels: column value -> label text; makes the task a classification over
      the distinct texts, in this order.
    choices: format strings of the candidates of a row; an empty candidate is
      left out, the target must be one of the others.
    metrics: names; by default those of the kind.
    kind: classification, multiple_choice, generation or regression. Derived
      from `labels` and `choices`; only regression has to be named.
    description: one sentence for people; changes nothing.

  Raises:
    ValueError: fields that contradict each other or unknown names.
  """

  input: str
  target: str
  labels: Mapping[str, str] | None = None
  choices: tuple[str, ...] | None = None
  metrics: tuple[str, ...] = ()
  kind: str = ''
  description: str = dataclasses.field(default='', compare=False)

  def __post_init__(self):
    kind = self.kind or self._derived_kind()
    if kind not in KINDS:
      raise ValueError(
        f'kind: expected one of {", ".join(KINDS)}, found {kind!r}.'
      )
    # The dataclass is frozen once these two are filled in.
    object.__setattr__(self, 'kind', kind)
    object.__setattr__(self, 'metrics', self.metrics or DEFAULT_METRICS[kind])
    _check_kind(self)
    _check_metrics(self)

  def _derived_kind(self) -> str:
    if self.labels is not None:
      return 'classification'
    return 'generation' if self.choices is None else 'multiple_choice'

  @property
  def label_texts(self) -> tuple[str, ...] | None:
    """The distinct label texts of a classification, in order, else None."""
    return tuple(dict.fromkeys(self.labels.values())) if self.labels else None

  @property
  def columns(self) -> tuple[str, ...]:
    """The columns that a row must have, in order of use."""
    texts = (self.input, self.target, *(self.choices or ()))
    return tuple(dict.fromkeys(c for t in texts for c in _columns('', t)))

  @property
  def input_columns(self) -> tuple[str, ...]:
    """The columns of the input, none of which may be empty."""
    return tuple(dict.fromkeys(_columns('input', self.input)))

  @property
  def hash(self) -> str:
    """sha256 in hex of everything that changes the text or the scores."""
    fields = dataclasses.asdict(self) | {
      # A list of pairs: the order of the labels is the order of the classes.
      'labels': self.labels and list(self.labels.items())
    }
    del fields['description']
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

  def render(self, row: Mapping[str, str]) -> Example:
    """The text of one row.

    Args:
      row: column -> value.

    Returns:
      the `Example`; nothing is stripped or changed in the values.

    Raises:
      ValueError: a column is missing, or empty where the input or target
        needs it; a label that is not in the table; a target that is none of
        the choices; a regression target that is no number.
    """
    _check_row(self, row)
    text, target = self.input.format_map(row), self.target.format_map(row)
    if self.labels is not None:
      target = _label_text(self, target)
      return Example(text, target, self.label_texts.index(target), None)
    if self.choices is not None:
      choices = tuple(c.format_map(row) for c in self.choices)
      choices = tuple(c for c in choices if c.strip())
      return Example(text, target, _choice_index(choices, target), choices)
    if self.kind == 'regression':
      _check_number(target)
    return Example(text, target, -1, None)

  @classmethod
  def from_json(cls, path: str | pathlib.Path) -> 'Template':
    """Reads a `task.json`: an object with the names of the attributes above.

    Raises:
      ValueError: naming the file: not JSON, unknown keys, wrong types, or
        what the constructor says.
    """
    path = pathlib.Path(path)
    try:
      fields = json.loads(path.read_text(encoding='utf-8-sig'))
      return cls(**_checked_fields(fields))
    except ValueError as error:  # also JSON and UTF-8 errors
      raise ValueError(f'{path}: {error}') from error


# The keys of a task.json: the type, and how an error names it.
_JSON_KEYS = {
  'input': (str, 'a text'),
  'target': (str, 'a text'),
  'labels': (dict, 'an object of column value -> label text'),
  'choices': (list, 'a list of texts'),
  'metrics': (list, 'a list of texts'),
  'kind': (str, 'a text'),
  'description': (str, 'a text'),
}


def _checked_fields(fields: object) -> dict:
  """The fields of a task.json with lists as tuples, or a ValueError."""
  if not isinstance(fields, dict) or not {'input', 'target'} <= set(fields):
    raise ValueError(
      'expected an object with input and target: format strings over the '
      'columns, such as "question: {question}".'
    )
  for key, value in fields.items():
    if key not in _JSON_KEYS:
      raise ValueError(
        f'unknown key {key!r}; the known ones are {", ".join(_JSON_KEYS)}.'
      )
    of_type, expected = _JSON_KEYS[key]
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, of_type) or not all(
      isinstance(v, str) for v in inner
    ):
      raise ValueError(f'{key}: expected {expected}, found {value!r}.')
  return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def _columns(argument: str, text: str) -> list[str]:
  """The columns that a format string names; only plain {column} is allowed."""
  try:
    parts = list(string.Formatter().parse(text))
  except ValueError as error:
    raise ValueError(
      f'{argument}: {text!r} is no format string ({error}); write a brace that '
      f'belongs to the text twice.'
    ) from error
  names = []
  for _, name, spec, conv in parts:
    if name is None:
      continue
    if not name or name.isdigit() or set(name) & set('.[') or spec or conv:
      raise ValueError(
        f'{argument}: expected plain {{column}} fields, without position, '
        f'attribute, index, conversion or format, found {text!r}.'
      )
    names.append(name)
  return names


def _check_kind(template: Template) -> None:
  """Raises unless input, target, labels, choices and kind fit together."""
  labels, choices, kind = template.labels, template.choices, template.kind
  if labels is not None and choices is not None:
    raise ValueError(
      'labels and choices: give labels for one label set of all rows, or '
      'choices for candidates of each row, not both.'
    )
  if not _columns('input', template.input):
    raise ValueError(
      f'input: expected at least one {{column}}, found {template.input!r}.'
    )
  target = _columns('target', template.target)
  for choice in choices or ():
    _columns('choices', choice)
  if kind != 'regression' and kind != template._derived_kind():
    raise ValueError(
      f'kind: {kind} was named, but labels and choices make it '
      f'{template._derived_kind()}; drop one of the two.'
    )
  if kind == 'regression' and (labels is not None or choices is not None):
    raise ValueError('kind: a regression has neither labels nor choices.')
  if not target:
    raise ValueError(
      f'target: expected at least one {{column}}, found {template.target!r}.'
    )
  if labels is not None:
    if template.target != f'{{{target[0]}}}':
      raise ValueError(
        f'target: with labels, expected one column such as "{{label}}", whose '
        f'value is looked up, found {template.target!r}.'
      )
    if len(set(labels.values())) < 2 or not all(
      t.strip() for t in labels.values()
    ):
      raise ValueError(
        f'labels: expected at least two different label texts and none empty, '
        f'found {dict(labels)}.'
      )
  if choices is not None and len(choices) < 2:
    raise ValueError(f'choices: expected at least two, found {choices}.')


def _check_metrics(template: Template) -> None:
  known = METRICS[template.kind]
  for metric in template.metrics:
    if metric not in known:
      raise ValueError(
        f'metrics: {metric!r} is not defined for {template.kind}; the known '
        f'ones are {", ".join(known)}.'
      )


def _check_row(template: Template, row: Mapping[str, str]) -> None:
  """Raises when a column is missing or, in input or target, empty."""
  for column in template.columns:
    if column not in row:
      raise ValueError(
        f'column {column!r} is missing; the columns are {", ".join(row)}.'
      )
  for field in ('input', 'target'):
    for column in _columns(field, getattr(template, field)):
      if not row[column].strip():
        raise ValueError(
          f'column {column!r} is empty, but the {field} needs it; fill it or '
          f'drop the row.'
        )


def _label_text(template: Template, value: str) -> str:
  if value not in template.labels:
    raise ValueError(
      f'label {value!r} is not in the table of labels; the known ones are '
      f'{", ".join(map(repr, template.labels))}.'
    )
  return template.labels[value]


def _choice_index(choices: tuple[str, ...], target: str) -> int:
  if target not in choices:
    raise ValueError(
      f'the target {target!r} is none of the choices '
      f'{", ".join(map(repr, choices))}.'
    )
  return choices.index(target)


def _check_number(target: str) -> None:
  try:
    float(target)
  except ValueError as error:
    raise ValueError(
      f'the target {target!r} of a regression is no number.'
    ) from error
