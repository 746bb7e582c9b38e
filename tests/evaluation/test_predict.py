"""Predictions of many rows: those of one example, choice and row at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas
from prompt_subspace.backbone import decode, forward
from prompt_subspace.data import templates
from prompt_subspace.evaluation import metrics, predict
from tests import sample

# an offset on the head is quick to compile; it changes every answer
METHOD = deltas.full(only=('decoder/logits_dense',))
ROWS = 3


@pytest.fixture(scope='module')
def phi(small):
  """Three rows."""
  shapes = METHOD.init(jax.random.key(0), sample.setting(small))
  random = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: jnp.asarray(random.standard_normal((ROWS, *x.shape)), 'float32'),
    shapes,
  )


def run(backbone, phi, task, rows=(0, 1, 2), predictor=None, **options):
  split = task.splits['test']
  return predict.predict(
    predictor or predict.make_predictor(backbone.config, METHOD.delta),
    deltas.Frozen(backbone.weights),
    phi,
    rows,
    task,
    'test',
    {
      'inputs': jnp.asarray(split.inputs),
      'targets': jnp.asarray(split.targets),
    },
    backbone.vocabulary,
    backbone.config.vocab_size,
    **options,
  )


@pytest.mark.parametrize('kind', ['classification', 'multiple_choice'])
def test_ranked_answers_are_the_most_likely_ones(small, phi, kind):
  """Against sums of log-probabilities, each choice decoded by itself."""
  task = sample.task(small.vocabulary, kind)
  split = task.splits['test']

  @jax.jit
  def score(row, choice):
    batch = {'inputs': jnp.asarray(split.inputs), 'targets': choice}
    logits = forward.logits(small.config, small.weights, row, batch)
    each = jnp.take_along_axis(
      jax.nn.log_softmax(logits), choice[..., None], axis=-1
    )[..., 0]
    return jnp.where(choice > 0, each, 0).sum(axis=1)

  found = run(small, phi, task, rows=[2, 0], batch_size=4)
  texts = predict.choice_texts(task, 'test')
  answers = set()
  for row, predictions in zip((2, 0), found, strict=True):
    scores = []
    for c in range(split.choices.shape[-2]):
      choice = np.broadcast_to(
        split.choices[..., c, :], (14, split.choices.shape[-1])
      )
      scores.append(
        np.where(
          choice.any(axis=1),
          score(jax.tree.map(lambda x, r=row: x[r], phi), choice),
          -np.inf,
        )
      )
    wanted = np.argmax(scores, axis=0)
    assert predictions == [texts(n, c) for n, c in enumerate(wanted)]
    answers |= set(wanted.tolist())
  assert len(answers) > 1 and found[0] != found[1]


def test_generated_answers_are_those_of_greedy_decoding(small, phi):
  task = sample.task(small.vocabulary, 'generation', counts={'test': 6})
  found = run(small, phi, task, batch_size=4, length=5)
  for row, texts in enumerate(found):
    delta = jax.tree.map(lambda x, r=row: x[r], phi)
    tokens = jax.jit(
      lambda delta: decode.greedy(
        small.config, small.weights, delta, task.splits['test'].inputs, 5
      )
    )(delta)
    assert texts == [small.vocabulary.decode(t) for t in tokens.tolist()]
  assert found[0] != found[1] and any(found[0])


def test_beams_are_searched_when_asked_for(small, phi, monkeypatch):
  asked = []

  def beam(config, weights, delta, inputs, length, beams, encoded=None):
    asked.append(beams)
    return jnp.full((inputs.shape[0], length), 7), None

  monkeypatch.setattr(decode, 'beam', beam)
  task = sample.task(small.vocabulary, 'generation', counts={'test': 3})
  predictor = predict.make_predictor(small.config, METHOD.delta, beams=3)
  found = run(small, phi, task, predictor=predictor, length=2)
  assert set(asked) == {3}
  assert found == [[small.vocabulary.decode([7, 7])] * 3] * ROWS


class Fake:
  """A predictor whose answers tell examples apart: even or odd sums.

  Its phi says whether they are turned round.
  """

  PHI = {'turned': np.arange(2)}
  mesh = None

  def __init__(self, chunk=None):
    self.shapes, self.rows, self.chunk = [], [], chunk

  def rank(self, frozen, phi, batch, choices):
    self.rows.append(len(phi['turned']))
    self.shapes.append((batch['inputs'].shape, choices.shape))
    answers = np.asarray(batch['inputs']).sum(axis=1) % 2
    return np.stack([answers ^ int(turned) for turned in phi['turned']])


@pytest.mark.parametrize('kind', ['classification', 'multiple_choice'])
@pytest.mark.parametrize('examples', [None, 17, 100])
@pytest.mark.parametrize('chunk', [1, 2])
def test_every_example_is_answered_once_whatever_the_batches(
  small, kind, examples, chunk
):
  fake = Fake(chunk)
  task = sample.task(small.vocabulary, kind, counts={'test': 30})
  found = run(
    small, Fake.PHI, task, (0, 1), fake, examples=examples, batch_size=4
  )
  odd = task.splits['test'].inputs.sum(axis=1)[: examples or 30] % 2
  texts = predict.choice_texts(task, 'test')
  assert found == [
    [texts(n, choice) for n, choice in enumerate(row)] for row in (odd, 1 - odd)
  ]
  assert {inputs[0] for inputs, _ in fake.shapes} == {4}
  assert len({inputs[1] for inputs, _ in fake.shapes}) > 1
  if kind == 'multiple_choice':
    assert all(c[0] == 4 for _, c in fake.shapes), 'each has choices of its own'


@pytest.mark.parametrize('count, calls', [(3, [3]), (8, [8]), (19, [8] * 3)])
def test_on_an_accelerator_all_calls_have_as_many_rows(
  small, monkeypatch, count, calls
):
  monkeypatch.setattr(predict.stack_rows, 'chunk_size', lambda rows: rows)
  task = sample.task(small.vocabulary, 'classification', counts={'test': 4})
  fake = Fake()
  rows = np.arange(count) % 2
  found = run(small, Fake.PHI, task, rows, fake, batch_size=4, buckets=1)
  assert fake.rows == calls
  one, other = run(small, Fake.PHI, task, (0, 1), Fake(1), batch_size=4)
  assert one != other
  assert found == [(one, other)[row] for row in rows]


@pytest.mark.parametrize(
  'count, length, padded', [(2, 2, 2), (3, 4, 4), (5, 5, 8)]
)
def test_choices_are_padded_to_few_shapes(count, length, padded):
  for lead in ((), (6,)):
    choices = np.ones((*lead, count, length), np.int32)
    found = predict.few_shapes(choices)
    assert found.shape[:-2] == lead and found.shape[-2] == padded
    np.testing.assert_array_equal(found[..., :count, :length], choices)
    assert found.sum() == choices.sum()


def test_batches_shrink_where_the_logits_would_not_fit(small, monkeypatch):
  task, fake = sample.task(small.vocabulary), Fake()
  choices = predict.few_shapes(task.splits['test'].choices)
  monkeypatch.setattr(predict, 'LOGITS_BYTES', 3 * choices.size * 4 * 220)
  run(small, Fake.PHI, task, (0,), fake, batch_size=8)
  assert {inputs[0] for inputs, _ in fake.shapes} == {3}


def test_scores_that_are_no_numbers_choose_nothing(small, phi):
  task = sample.task(small.vocabulary, counts={'train': 4, 'test': 6})
  broken = jax.tree.map(lambda x: x.at[1].set(np.nan), phi)
  found = run(small, broken, task)
  assert found[1] == [''] * 6
  assert predict.score(task, 'test', found[1])['accuracy'] == 0
  assert '' not in found[0] and '' not in found[2]


def test_score_is_the_mean_of_the_tasks_metrics(small):
  task = sample.task(small.vocabulary)
  right = [r[0] for r in task.splits['test'].references]
  assert predict.score(task, 'test', right) == {
    'accuracy': 100,
    'f1_macro': 100,
    'score': 100,
  }
  one = predict.score(task, 'test', [sample.LABELS[0]] * 14)
  assert one['score'] == (one['accuracy'] + one['f1_macro']) / 2 < 60
  # fewer predictions are of the first examples
  assert predict.score(task, 'test', right[:3])['score'] == 100


@pytest.mark.parametrize('metric', ['exact_match', 'qa_f1', 'rouge_l'])
def test_a_wrong_choice_reads_like_no_reference(small, metric):
  task = sample.task(small.vocabulary, 'multiple_choice')
  # right answers that read like the number of a choice
  split = task.splits['test']._replace(
    references=[['1'], ['2']] * 7, labels=np.array([2, 1] * 7)
  )
  task = task._replace(splits=task.splits | {'test': split}, metrics=(metric,))
  texts = predict.choice_texts(task, 'test')
  for chosen, score in ((split.labels, 100), ([1, 2] * 7, 0)):
    answers = [texts(n, choice) for n, choice in enumerate(chosen)]
    assert predict.score(task, 'test', answers)[metric] == score


def test_a_metric_of_ones_own_is_scored(small, monkeypatch):
  def mine(targets, predictions):
    return 100.0 * sum(p == 'never' for p in predictions) / len(targets)

  monkeypatch.setitem(metrics.METRICS, 'mine', mine)
  known = templates.METRICS['classification']
  monkeypatch.setitem(templates.METRICS, 'classification', (*known, 'mine'))
  labels = {'0': 'yes', '1': 'never'}
  asked = templates.Template('{a}', '{b}', labels, metrics=('accuracy', 'mine'))
  task = sample.task(small.vocabulary)._replace(metrics=asked.metrics)
  found = predict.score(task, 'test', ['never', 'yes'] * 7)
  assert found['mine'] == 50
  assert found['score'] == (found['accuracy'] + 50) / 2


def test_a_metric_that_is_undefined_is_a_nan(small):
  task = sample.task(small.vocabulary, 'regression')
  found = predict.score(task, 'test', ['0.5'] * 14)
  assert np.isnan(found['pearson']) and np.isnan(found['score'])
  right = [r[0] for r in task.splits['test'].references]
  assert predict.score(task, 'test', right)['score'] == pytest.approx(100)


def with_train(task, **fields):
  train = task.splits['train']._replace(**fields)
  return task._replace(splits=task.splits | {'train': train})


def test_the_majority_of_a_classification_is_that_of_training(small):
  task = sample.task(small.vocabulary)
  # in training the second label is the frequent one, whatever the test says
  train = [[sample.LABELS[1]]] * 3 + [[sample.LABELS[0]]] * 2
  share = np.mean(task.splits['test'].labels == 1)
  found = predict.majority(with_train(task, references=train), 'test')
  assert found['accuracy'] == pytest.approx(100 * share)
  assert 0.1 < share < 0.9
  first = predict.majority(with_train(task, references=train), 'test', 3)
  labels = task.splits['test'].labels[:3]
  assert first['accuracy'] == pytest.approx(100 * np.mean(labels == 1))


def test_the_majority_of_multiple_choice_is_a_position(small):
  task = sample.task(small.vocabulary, 'multiple_choice')
  labels = task.splits['test'].labels
  for place in (0, 1):
    train = np.array([place, place, 1 - place])
    found = predict.majority(with_train(task, labels=train), 'test')
    assert found['accuracy'] == pytest.approx(100 * np.mean(labels == place))


def test_the_majority_of_generation_and_regression(small):
  task = sample.task(small.vocabulary, 'generation')
  train = [['tea']] * 2 + [['a red boat', 'snow']]
  found = predict.majority(with_train(task, references=train), 'test')
  share = np.mean([r == ['tea'] for r in task.splits['test'].references])
  assert found['exact_match'] == pytest.approx(100 * share)
  # a constant has no correlation
  task = sample.task(small.vocabulary, 'regression')
  assert np.isnan(predict.majority(task, 'test')['score'])
