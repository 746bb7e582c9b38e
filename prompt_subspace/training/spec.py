"""What is asked of a stack: how its rows train, and each row's own values."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from prompt_subspace.data import batches
from prompt_subspace.deltas.base import positive


class Settings(NamedTuple):
  """How the rows of a stack are trained; the same for all of them.

  Attributes:
    steps: updates.
    batch_size: examples per update, B.
    evaluate_every: updates between evaluations on the validation split.
    validation_examples: how many of it are used; None all.
    embedding_step: after how many updates phi is also kept as the embedding of
      its task (Vu et al. 2022, section 3.2.1); a multiple of evaluate_every.
    test_examples: how many of the test split are used; None all.
    evaluation_batch: examples at once in evaluation.
    buckets: how many different widths a task's inputs are padded to.
    widths: what these are chosen from; each is a shape that is compiled once,
      so a short job does well with few.
    microbatch: examples in flight at once; None suits the device.
    chunk: rows computed at once; None suits the device.
    cache_encoder: compute a frozen encoder's output once per example where
      the method allows it and dropout is off; None: if it fits in
      `cache_bytes`.
    cache_bytes: limit of that cache.
    checkpoint_seconds: least time between checkpoints.
  """

  steps: int = 500
  batch_size: int = 16
  evaluate_every: int = 100
  validation_examples: int | None = 200
  test_examples: int | None = None
  embedding_step: int | None = None
  evaluation_batch: int = 32
  buckets: int = 3
  widths: Sequence[int] = batches.EDGES
  microbatch: int | None = None
  chunk: int | None = None
  cache_encoder: bool | None = None
  cache_bytes: int = 2**30
  checkpoint_seconds: float = 60.0


# settings that change how fast a row is computed, but not what it computes
SPEED_ONLY = (
  'evaluation_batch',
  'microbatch',
  'chunk',
  'cache_encoder',
  'cache_bytes',
  'checkpoint_seconds',
)


def check(settings: Settings) -> None:
  """Raises ValueError if a setting is out of range."""
  for name in (
    'steps',
    'batch_size',
    'evaluate_every',
    'evaluation_batch',
    'buckets',
  ):
    positive(name, getattr(settings, name))
  for name in ('validation_examples', 'test_examples', 'microbatch', 'chunk'):
    if getattr(settings, name) is not None:
      positive(name, getattr(settings, name))
  at = settings.embedding_step
  if at is not None and not (
    0 < at <= settings.steps
    and (at % settings.evaluate_every == 0 or at == settings.steps)
  ):
    raise ValueError(
      f'embedding_step: expected a multiple of evaluate_every = '
      f'{settings.evaluate_every} up to steps = {settings.steps}, found {at}.'
    )
  if settings.microbatch and settings.batch_size % settings.microbatch:
    raise ValueError(
      f'microbatch: expected a divisor of batch_size = {settings.batch_size}, '
      f'found {settings.microbatch}.'
    )


def check_same_tests(name: str, found: Settings, other: Settings) -> None:
  """Raises ValueError unless both are scored on as many test examples.

  Args:
    name: of the first.
    found: whose scores stand beside those of the other, or are divided by them.
    other: the other.
  """
  if found.test_examples != other.test_examples:
    raise ValueError(
      f'{name}.test_examples: expected {other.test_examples}, those of what it '
      f'is compared with, found {found.test_examples}.'
    )


class RowSpec(NamedTuple):
  """One run of a stack.

  Attributes:
    id: names the run; its random keys are folded from it and the seed.
    task: name of its task.
    seed: of its draws.
    rate: learning rate.
    phi: where it starts.
  """

  id: str
  task: str
  seed: int
  rate: float
  phi: Any
