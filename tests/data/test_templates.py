"""Templates: rendering, what is derived, and every refusal."""

import json

import pytest

from prompt_subspace.data.templates import (
  DEFAULT_METRICS,
  METRICS,
  Example,
  Template,
)

SENTIMENT = Template('s: {text}', '{y}', {'0': 'bad', '1': 'good', '2': 'good'})
CHOICE = Template('{q} or {b}', '{answer}', choices=('{a}', '{b}', '{c}'))
PLAIN = Template('q: {q} {{literally}}', '{a}')
SCORE = Template('{a}', '{score}', kind='regression')


def test_classification():
  assert SENTIMENT.kind == 'classification'
  assert SENTIMENT.label_texts == ('bad', 'good')
  assert SENTIMENT.columns == ('text', 'y')
  row = {'text': 'so {good} "it" is', 'y': '2', 'more': ''}
  assert SENTIMENT.render(row) == Example(
    's: so {good} "it" is', 'good', 1, None
  )


def test_multiple_choice_leaves_empty_candidates_out():
  assert CHOICE.kind == 'multiple_choice'
  assert CHOICE.columns == ('q', 'b', 'answer', 'a', 'c')
  row = {'q': 'x', 'a': ' ', 'b': 'two', 'c': 'three', 'answer': 'three'}
  assert CHOICE.render(row) == Example('x or two', 'three', 1, ('two', 'three'))


def test_generation_and_regression():
  assert PLAIN.kind == 'generation'
  row = {'q': 'who', 'a': 'me'}
  assert PLAIN.render(row) == Example('q: who {literally}', 'me', -1, None)
  assert SCORE.render({'a': 'x', 'score': '4.5'}) == Example(
    'x', '4.5', -1, None
  )


def test_default_metrics_are_defined_for_their_kind():
  for template in (SENTIMENT, CHOICE, PLAIN, SCORE):
    assert template.metrics == DEFAULT_METRICS[template.kind]
    assert set(template.metrics) <= set(METRICS[template.kind])


def test_metric_names_are_those_of_the_evaluation():
  from prompt_subspace.evaluation.metrics import METRICS as functions

  assert {m for names in METRICS.values() for m in names} == set(functions)


def test_hash_is_stable_and_sees_what_matters():
  same = Template('q: {q} {{literally}}', '{a}', description='only for people')
  assert same.hash == PLAIN.hash
  assert PLAIN.hash.startswith('13e913db47181a43')
  reordered = Template(
    's: {text}', '{y}', {'1': 'good', '0': 'bad', '2': 'good'}
  )
  others = [
    reordered,
    Template('t: {text}', '{y}', SENTIMENT.labels),
    Template('s: {text}', '{y}', SENTIMENT.labels, metrics=('f1_macro',)),
    SENTIMENT,
  ]
  assert len({t.hash for t in others}) == len(others)


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'input': 'no column'}, 'input: expected at least one'),
    ({'target': 'no column'}, 'target: expected at least one'),
    ({'input': '{'}, 'input: .* is no format string'),
    ({'input': '{}'}, 'input: expected plain'),
    ({'input': '{0}'}, 'input: expected plain'),
    ({'input': '{a.b}'}, 'input: expected plain'),
    ({'input': '{a[0]}'}, 'input: expected plain'),
    ({'input': '{a!r}'}, 'input: expected plain'),
    ({'input': '{a:>9}'}, 'input: expected plain'),
    ({'choices': ('{a}', '{b!r}')}, 'choices: expected plain'),
    ({'choices': ('{a}',)}, 'choices: expected at least two'),
    ({'labels': {'0': 'no'}}, 'at least two different label texts'),
    ({'labels': {'0': 'no', '1': 'no'}}, 'at least two different label texts'),
    ({'labels': {'0': 'no', '1': ' '}}, 'none empty'),
    (
      {'labels': {'0': 'no', '1': 'yes'}, 'target': 'it is {y}'},
      'target: with labels, expected one column',
    ),
    (
      {'labels': {'0': 'no', '1': 'yes'}, 'choices': ('{a}', '{b}')},
      'labels and choices',
    ),
    ({'kind': 'ranking'}, 'kind: expected one of classification'),
    ({'kind': 'classification'}, 'labels and choices make it generation'),
    (
      {'kind': 'regression', 'choices': ('{a}', '{b}')},
      'a regression has neither',
    ),
    ({'metrics': ('acuracy',)}, "'acuracy' is not defined for generation"),
    ({'metrics': ('pearson',)}, 'the known ones are exact_match, qa_f1'),
  ],
)
def test_refuses_contradictions(fields, message):
  with pytest.raises(ValueError, match=message):
    Template(**{'input': '{x}', 'target': '{y}'} | fields)


@pytest.mark.parametrize(
  'template, row, message',
  [
    (PLAIN, {'a': 'x'}, "column 'q' is missing; the columns are a"),
    (PLAIN, {'q': ' ', 'a': 'x'}, "'q' is empty, but the input needs it"),
    (PLAIN, {'q': 'x', 'a': ''}, "'a' is empty, but the target needs it"),
    (SENTIMENT, {'text': 'x', 'y': '3'}, "label '3' is not .* '0', '1', '2'"),
    (
      CHOICE,
      {'q': 'x', 'a': 'k', 'b': 'l', 'c': 'm', 'answer': 'L'},
      "'L' is none of the choices 'k', 'l', 'm'",
    ),
    (SCORE, {'a': 'x', 'score': 'high'}, "'high' of a regression is no number"),
  ],
)
def test_refuses_rows(template, row, message):
  with pytest.raises(ValueError, match=message):
    template.render(row)


def test_from_json(tmp_path):
  path = tmp_path / 'task.json'
  fields = {
    'input': 'q: {q}',
    'target': '{answer}',
    'choices': ['{a}', '{b}'],
    'metrics': ['accuracy'],
    'description': 'Which one?',
  }
  path.write_text(json.dumps(fields), encoding='utf-8')
  template = Template.from_json(path)
  assert template == Template(
    'q: {q}', '{answer}', choices=('{a}', '{b}'), metrics=('accuracy',)
  )
  assert template.description == 'Which one?'


@pytest.mark.parametrize(
  'text, message',
  [
    (b'{', 'task.json: Expecting'),
    (b'\xff\xfe', "task.json: 'utf-8' codec"),
    (b'[]', 'task.json: expected an object with input and target'),
    (b'{"input": "{x}"}', 'expected an object with input and target'),
    (
      b'{"input": "{x}", "target": "{y}", "labls": {}}',
      "unknown key 'labls'; the known ones are input, target, labels",
    ),
    (b'{"input": 3, "target": "{y}"}', 'input: expected a text, found 3'),
    (
      b'{"input": "{x}", "target": "{y}", "labels": ["a"]}',
      'labels: expected an object',
    ),
    (
      b'{"input": "{x}", "target": "{y}", "labels": {"0": 1}}',
      'labels: expected an object',
    ),
    (
      b'{"input": "{x}", "target": "{y}", "choices": "{a}"}',
      'choices: expected a list of texts',
    ),
    (
      b'{"input": "{x}", "target": "{y}", "metrics": ["bleu"]}',
      "task.json: metrics: 'bleu' is not defined",
    ),
  ],
)
def test_from_json_names_the_file(tmp_path, text, message):
  path = tmp_path / 'task.json'
  path.write_bytes(text)
  with pytest.raises(ValueError, match=message):
    Template.from_json(path)
