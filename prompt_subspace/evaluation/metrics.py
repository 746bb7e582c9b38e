"""Metrics: a task's targets and predictions become one number in percent.

`METRICS` maps a name to a function `(targets, predictions) -> float`. One entry
per example on both sides, in the same order. Every metric is better when it is
higher; 100 is perfect, and those that can be negative go down to -100.

| names                          | a target is           | a prediction is   |
| ------------------------------ | --------------------- | ----------------- |
| accuracy, f1_macro, matthews   | class (int or text)   | the same          |
| exact_match, qa_f1, rouge_l    | text, or list of them | text              |
| pearson, spearman              | number, or its text   | text, or a number |

A list of one accepted reference stands for that reference, everywhere.

One of your own, in a module that a gin file imports, is an entry here, and its
name one for its kind of task, after which a template may ask for it:

  metrics.METRICS['mine'] = mine
  templates.METRICS['classification'] += ('mine',)
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# scikit-learn, scipy and rouge-score take 160 MiB and more than a second to
# import: each function imports what it needs, so that training does not pay
# for metrics of other tasks

Metric = Callable[[Sequence[Any], Sequence[Any]], float]


class UndefinedMetric(ValueError):
  """The metric's formula has no value for these targets and predictions."""


def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Share of predictions that equal their target, in percent."""
  from sklearn import metrics as sklearn_metrics

  targets, predictions = _classes(targets, predictions)
  return 100.0 * float(sklearn_metrics.accuracy_score(targets, predictions))


def f1_macro(targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Unweighted mean over classes of 2 P R / (P + R), in percent.

  The classes are those that occur among targets or predictions; one that is
  never predicted rightly counts 0.
  """
  from sklearn import metrics as sklearn_metrics

  targets, predictions = _classes(targets, predictions)
  return 100.0 * float(
    sklearn_metrics.f1_score(
      targets, predictions, average='macro', zero_division=0
    )
  )


def matthews(targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Matthews correlation of the classes, -100 to 100 (Gorodkin 2004 for > 2).

  Predictions of one class only score 0, the limit that scikit-learn and GLUE
  use: such a model tells nothing.

  Raises:
    UndefinedMetric: all targets are of one class, so no prediction can be told
      from a better one.
  """
  from sklearn import metrics as sklearn_metrics

  targets, predictions = _classes(targets, predictions)
  if len(np.unique(targets)) == 1:
    raise UndefinedMetric(
      f'matthews is undefined: all {len(targets)} targets are of the class '
      f'{targets[0]!r}. Evaluate on examples of at least two classes.'
    )
  return 100.0 * float(sklearn_metrics.matthews_corrcoef(targets, predictions))


def exact_match(targets: Sequence[Any], predictions: Sequence[str]) -> float:
  """Share of predictions equal to an accepted reference, in percent.

  Both sides are normalised as in SQuAD (Rajpurkar et al. 2016): lower case,
  without punctuation and articles, single spaces.
  """
  return _best_reference(
    lambda reference, text: float(
      normalise_answer(reference) == normalise_answer(text)
    ),
    targets,
    predictions,
  )


def qa_f1(targets: Sequence[Any], predictions: Sequence[str]) -> float:
  """Mean of the best 2 P R / (P + R) over shared words, in percent.

  P and R count words with multiplicity after SQuAD's normalisation; the best
  accepted reference counts. Where a side is empty, 1 if both are, else 0
  (SQuAD 2.0, Rajpurkar et al. 2018).
  """
  return _best_reference(_word_f1, targets, predictions)


def rouge_l(targets: Sequence[Any], predictions: Sequence[str]) -> float:
  """Mean F-measure of the longest common subsequence of words, in percent.

  Lin 2004, section 3, as in Google's rouge-score: lower case, letters and
  digits only, no stemming; the best accepted reference counts.
  """
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(['rougeL'], use_stemmer=False)
  return _best_reference(
    lambda reference, text: scorer.score(reference, text)['rougeL'].fmeasure,
    targets,
    predictions,
  )


def pearson(targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Pearson correlation cov(t, p) / (sd(t) sd(p)), times 100.

  A prediction that is not a finite number counts as the lowest target, as an
  unreadable answer counts as the bottom of the scale in T5's STS-B (Raffel et
  al. 2020, whose constant is -1 for a scale from 0 to 5).

  Raises:
    UndefinedMetric: targets or predictions are constant, one example included.
  """
  from scipy import stats

  return 100.0 * float(
    stats.pearsonr(*_numbers('pearson', targets, predictions))[0]
  )


def spearman(targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Pearson correlation of the ranks (ties share their mean rank), times 100.

  Unreadable predictions and errors are those of `pearson`.
  """
  from scipy import stats

  return 100.0 * float(
    stats.spearmanr(*_numbers('spearman', targets, predictions))[0]
  )


METRICS: dict[str, Metric] = {
  'accuracy': accuracy,
  'f1_macro': f1_macro,
  'matthews': matthews,
  'exact_match': exact_match,
  'qa_f1': qa_f1,
  'rouge_l': rouge_l,
  'pearson': pearson,
  'spearman': spearman,
}


def metric(name: str) -> Metric:
  """The function of this name in `METRICS`; an unknown name lists them."""
  if name not in METRICS:
    raise ValueError(
      f'metrics: {name!r} is not a metric; use one of {", ".join(METRICS)}.'
    )
  return METRICS[name]


def normalise_answer(text: str) -> str:
  """Lower case, no ASCII punctuation, no a/an/the, single spaces (SQuAD)."""
  text = text.lower().translate(str.maketrans('', '', string.punctuation))
  return ' '.join(re.sub(r'\b(a|an|the)\b', ' ', text).split())


def _word_f1(reference: str, text: str) -> float:
  expected = normalise_answer(reference).split()
  found = normalise_answer(text).split()
  if not expected or not found:
    return float(expected == found)
  shared = sum((Counter(expected) & Counter(found)).values())
  return 2.0 * shared / (len(expected) + len(found))


def _best_reference(
  score: Callable[[str, str], float],
  targets: Sequence[Any],
  predictions: Sequence[str],
) -> float:
  """100 x the mean over examples of the best `score(reference, text)`."""
  _check_lengths(targets, predictions)
  best = []
  for i, (target, text) in enumerate(zip(targets, predictions, strict=True)):
    references = [target] if isinstance(target, str) else list(target)
    if not references:
      raise ValueError(f'targets[{i}]: expected at least one reference text.')
    best.append(max(score(reference, text) for reference in references))
  return 100.0 * float(np.mean(best))


def _classes(
  targets: Sequence[Any], predictions: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Both sides as arrays of int or of text; never one of each."""
  _check_lengths(targets, predictions)
  targets, predictions = np.array(_single(targets)), np.array(predictions)
  for name, values in (('targets', targets), ('predictions', predictions)):
    if values.ndim != 1 or values.dtype.kind not in 'biuU':
      raise ValueError(
        f'{name}: expected one class (int or text) per example, found an array '
        f'of shape {values.shape} and type {values.dtype}.'
      )
  if (targets.dtype.kind == 'U') != (predictions.dtype.kind == 'U'):
    raise ValueError(
      f'targets are {targets.dtype} and predictions {predictions.dtype}: give '
      'class numbers on both sides, or label texts on both.'
    )
  if targets.dtype.kind == 'i' and targets.min() < 0:
    raise ValueError(
      f'targets[{int(targets.argmin())}] is {targets.min()}, which stands for '
      'an example without a class; use a text metric for such a task.'
    )
  return targets, predictions


def _numbers(
  name: str, targets: Sequence[Any], predictions: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
  """Both sides as float64, neither constant."""
  _check_lengths(targets, predictions)
  expected = np.array([_number(target) for target in _single(targets)])
  found = np.array([_number(prediction) for prediction in predictions])
  if np.isnan(expected).any():
    i = int(np.isnan(expected).argmax())
    raise ValueError(
      f'targets[{i}]: {name} needs numbers, found {targets[i]!r}.'
    )
  unreadable = np.isnan(found)
  found = np.where(unreadable, expected.min(), found)
  for side, values in (('targets', expected), ('predictions', found)):
    if np.ptp(values) == 0:
      raise UndefinedMetric(
        f'{name} is undefined: all {len(values)} {side} are {values[0]:g} '
        f'({int(unreadable.sum())} predictions were no numbers and count as '
        'the lowest target). It needs at least two different values.'
      )
  return expected, found


def _number(value: Any) -> float:
  """The finite number that `value` is or spells, else nan."""
  try:
    number = float(value)
  except (TypeError, ValueError):
    return math.nan
  return number if math.isfinite(number) else math.nan


def _single(targets: Sequence[Any]) -> list[Any]:
  """Each target itself, where it may come as a list of one reference."""
  singles = []
  for i, target in enumerate(targets):
    if isinstance(target, list | tuple):
      if len(target) != 1:
        raise ValueError(
          f'targets[{i}]: expected one target, found {len(target)} references; '
          'use exact_match, qa_f1 or rouge_l for tasks with several.'
        )
      target = target[0]
    singles.append(target)
  return singles


def _check_lengths(targets: Sequence[Any], predictions: Sequence[Any]) -> None:
  if len(targets) != len(predictions):
    raise ValueError(
      f'expected one prediction per target, found {len(targets)} targets and '
      f'{len(predictions)} predictions.'
    )
  if len(targets) == 0:
    raise ValueError(
      'targets: expected at least one example, found none; a score over '
      'nothing has no meaning. Check that the split is not empty.'
    )
