"""Metrics against values worked out by hand or by another formula."""

import math

import numpy as np
import pytest

from prompt_subspace.evaluation import metrics
from prompt_subspace.evaluation.metrics import METRICS, UndefinedMetric

# 3 classes. Right: 0 twice of 3, 1 once of 2, 2 once of 1.
TARGETS = [0, 0, 0, 1, 1, 2]
PREDICTIONS = [0, 0, 1, 1, 2, 2]


def test_accuracy_counts_equal_classes():
  assert METRICS['accuracy'](TARGETS, PREDICTIONS) == pytest.approx(400 / 6)


def test_f1_macro_is_the_mean_over_classes():
  # 0: P 1, R 2/3 -> 4/5; 1: P 1/2, R 1/2 -> 1/2; 2: P 1/2, R 1 -> 2/3.
  expected = 100 * (4 / 5 + 1 / 2 + 2 / 3) / 3
  assert METRICS['f1_macro'](TARGETS, PREDICTIONS) == pytest.approx(expected)


def test_f1_macro_counts_a_class_never_predicted_as_zero():
  # 0: P 1/2, R 1 -> 2/3; 1: 0.
  score = METRICS['f1_macro']([0, 1], [0, 0])
  assert score == pytest.approx(100 / 3)


def test_matthews_equals_the_formula_of_the_four_counts():
  targets = [1, 1, 1, 1, 0, 0, 0, 0, 0]
  predictions = [1, 1, 1, 0, 1, 0, 0, 0, 0]
  tp, fn, fp, tn = 3, 1, 1, 4
  expected = (tp * tn - fp * fn) / math.sqrt(
    (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
  )
  score = METRICS['matthews'](targets, predictions)
  assert score == pytest.approx(100 * expected)
  flipped = [1 - p for p in predictions]
  assert METRICS['matthews'](targets, flipped) == pytest.approx(-100 * expected)


def test_matthews_of_a_constant_model_is_zero_and_of_one_class_undefined():
  assert METRICS['matthews']([0, 1, 1], [1, 1, 1]) == 0
  with pytest.raises(UndefinedMetric, match='at least two classes'):
    METRICS['matthews']([1, 1, 1], [0, 1, 1])


@pytest.mark.parametrize('name', ['accuracy', 'f1_macro', 'matthews'])
def test_class_metrics_take_texts_arrays_and_lists_of_one(name):
  texts = ['zero', 'one', 'two']
  score = METRICS[name](TARGETS, PREDICTIONS)
  assert score == METRICS[name](np.array(TARGETS), np.array(PREDICTIONS))
  assert score == METRICS[name](
    [[texts[t]] for t in TARGETS], [texts[p] for p in PREDICTIONS]
  )


def test_class_metrics_refuse_what_is_not_one_class_per_example():
  with pytest.raises(ValueError, match='label texts on both'):
    METRICS['accuracy']([0, 1], ['0', '1'])
  with pytest.raises(ValueError, match=r'targets\[1\] is -1'):
    METRICS['accuracy']([0, -1], [0, 1])
  with pytest.raises(ValueError, match='2 references'):
    METRICS['accuracy']([['a', 'b']], ['a'])
  with pytest.raises(ValueError, match='one class'):
    METRICS['accuracy']([0.5, 1.0], [0.5, 1.0])


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('The Cat!', 'cat'),
    ('  an  apple,\ta day ', 'apple day'),
    ("it's 3.5", 'its 35'),
    ('theatre', 'theatre'),
    ('A', ''),
  ],
)
def test_answers_are_normalised_as_in_squad(text, expected):
  assert metrics.normalise_answer(text) == expected


def test_exact_match_takes_any_accepted_reference():
  targets = [['New York', 'NYC'], ['The Beatles'], '1969', ['blue']]
  predictions = ['nyc.', 'beatles', 'in 1969', 'Blue']
  assert METRICS['exact_match'](targets, predictions) == 75


def test_qa_f1_counts_shared_words_with_multiplicity():
  # one shared word of 1 and 2: P 1/2, R 1 -> 2/3; best of two references.
  assert METRICS['qa_f1'](['1969'], ['in 1969']) == pytest.approx(200 / 3)
  targets = [['red fox', 'quick brown fox']]
  # 'brown fox' shares 1 of (2, 2) -> 1/2, and 2 of (3, 2) -> 4/5.
  assert METRICS['qa_f1'](targets, ['the brown fox']) == pytest.approx(80)
  # 'ho ho ho' and 'ho ho': 2 shared -> 4/5.
  assert METRICS['qa_f1'](['ho ho ho'], ['ho ho']) == pytest.approx(80)


def test_qa_f1_of_an_empty_answer():
  assert METRICS['qa_f1']([''], ['']) == 100
  assert METRICS['qa_f1']([''], ['word']) == 0
  assert METRICS['qa_f1'](['word'], ['the']) == 0


def test_rouge_l_is_the_longest_common_subsequence():
  # The sentences S1, S2 and S3 of Lin 2004, section 3.1.
  reference = 'police killed the gunman'
  # 'police the gunman': LCS 3 of 4 and 4 words -> 3/4.
  assert METRICS['rouge_l'](
    [reference], ['police kill the gunman']
  ) == pytest.approx(75)
  # 'the gunman': LCS 2 -> 1/2; as one of two references the better counts.
  assert METRICS['rouge_l'](
    [reference], ['the gunman kill police']
  ) == pytest.approx(50)
  assert METRICS['rouge_l'](
    [[reference, 'the gunman kill police']], ['The gunman kill police.']
  ) == pytest.approx(100)
  # No stemming: 'kills' is another word.
  assert METRICS['rouge_l'](['kill'], ['kills']) == 0


def test_pearson_equals_the_covariance_formula():
  targets, predictions = [1.0, 2.5, 4.0, 5.0], ['1.5', ' 2.0', '4.5', '3.5']
  t, p = np.array(targets), np.array([1.5, 2.0, 4.5, 3.5])
  t, p = t - t.mean(), p - p.mean()
  expected = 100 * (t @ p) / math.sqrt((t @ t) * (p @ p))
  assert METRICS['pearson'](targets, predictions) == pytest.approx(expected)
  texts = [[str(target)] for target in targets]
  assert METRICS['pearson'](texts, predictions) == pytest.approx(expected)


def test_spearman_equals_the_rank_difference_formula():
  # Ranks 1 2 3 4 5 and 2 1 3 5 4: 1 - 6 sum(d^2) / (n (n^2 - 1)) = 0.8.
  targets, predictions = [1, 2, 30, 400, 5000], [0.2, 0.1, 0.3, 9, 4]
  assert METRICS['spearman'](targets, predictions) == pytest.approx(80)


@pytest.mark.parametrize('name', ['pearson', 'spearman'])
def test_an_unreadable_prediction_counts_as_the_lowest_target(name):
  targets = [1.0, 3.0, 4.0, 5.0]
  for unreadable in ('', 'very similar', 'nan', 'inf', '4.0 or 5.0'):
    assert METRICS[name](targets, ['2', unreadable, '4', '5']) == pytest.approx(
      METRICS[name](targets, [2, 1, 4, 5])
    )
  with pytest.raises(ValueError, match=r"targets\[1\].*'high'"):
    METRICS[name](['1.0', 'high'], ['1', '2'])


@pytest.mark.parametrize('name', ['pearson', 'spearman'])
def test_correlation_with_a_constant_is_undefined(name):
  with pytest.raises(UndefinedMetric, match='3 predictions are 2'):
    METRICS[name]([1, 2, 3], ['2', '2', '2'])
  with pytest.raises(UndefinedMetric, match='targets are 2'):
    METRICS[name]([2, 2, 2], ['1', '2', '3'])
  with pytest.raises(UndefinedMetric, match='3 predictions were no numbers'):
    METRICS[name]([1, 2, 3], ['a', 'b', 'c'])


@pytest.mark.parametrize('name', list(METRICS))
def test_every_metric_refuses_nothing_and_unequal_lengths(name):
  with pytest.raises(ValueError, match='found none'):
    METRICS[name]([], [])
  with pytest.raises(ValueError, match='2 targets and 1 predictions'):
    METRICS[name](['1', '2'], ['1'])


@pytest.mark.parametrize('name', list(METRICS))
def test_every_metric_gives_a_perfect_model_100_percent(name):
  targets = ['1', '2', '4', '2']
  score = METRICS[name](targets, list(targets))
  assert isinstance(score, float)
  assert score == pytest.approx(100)


def test_an_unknown_metric_lists_the_known_ones():
  assert metrics.metric('qa_f1') is METRICS['qa_f1']
  with pytest.raises(ValueError, match="'f1'.*accuracy.*spearman"):
    metrics.metric('f1')


def test_a_text_metric_needs_a_reference():
  with pytest.raises(ValueError, match=r'targets\[0\].*one reference'):
    METRICS['exact_match']([[]], ['a'])
