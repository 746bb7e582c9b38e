"""Everything that is measured: a literal table, a case per row.

A case is one piece of work done in two ways: by this library, and by what it
is measured against, Hugging Face PEFT or this library used another way.
"""

from typing import NamedTuple


class Case(NamedTuple):
  """One piece of work.

  Attributes:
    name: unique; `--only` selects by it.
    work: what is timed. `step`: one training step. `runs`: `rows` whole
      training runs of `steps` steps. `rank`: scoring of `CHOICES` label texts
      of `target` tokens. `generate`: greedy generation of `target` tokens.
      `meta`: one outer step of second-order MAML on one episode.
    size: of the backbone.
    method: name in `inputs.METHODS`.
    against: `peft`; `one by one`, our own runs in a row; a method, our own step
      of that one; or None. Of `meta`:
      `fomaml` or `plain`, our own first-order or tuning step, or one of
      `TORCH_WAYS` on Hugging Face's T5.
    batch: examples at once; of `meta`, in support and query each.
    length: input tokens.
    target: target tokens.
    rows: runs.
    steps: timed steps or calls in a process; of `runs`, steps of each run.
    inner_steps: of `meta`.
    optimizer: name in `optimizers.OPTIMIZERS`; the other libraries use Adam.
    compact: whether ours runs its layers as one scanned layer and computes
      their activations again, which takes time to save memory.
    cached: whether ours takes the encoder's output, computed once per example
      before the clock starts.
    time_limit: what time of ours / time of the other should not exceed.
    memory_limit: likewise, for the peak memory of the processes.
  """

  name: str
  work: str
  size: str
  method: str
  against: str | None = 'peft'
  batch: int = 8
  length: int = 128
  target: int = 8
  rows: int = 1
  steps: int = 8
  inner_steps: int = 1
  optimizer: str = 'adam'
  compact: bool = False
  cached: bool = False
  time_limit: float | None = None
  memory_limit: float | None = None

  @property
  def slug(self) -> str:
    """The name as part of a file name."""
    return ''.join(c if c.isalnum() else '-' for c in self.name)


# how the other side of `meta` differentiates
TORCH_WAYS = ('torch.func', 'autograd', 'higher', 'torch, first order')
# of the inner steps of `meta`: large enough to move the loss
INNER_RATE = 0.1
CHOICES = 4  # label texts that a `rank` case scores


def _small(name, method, **more):
  return Case(f'{name} step, small', 'step', 'small', method, **more)


def _mini(name, method, **more):
  shape = {'batch': 16, 'length': 48, 'target': 8, **more}
  return Case(f'{name} step, mini', 'step', 'mini', method, **shape)


def _runs(rows, against, **more):
  return Case(
    f'{rows} rows against {against}, mini',
    'runs',
    'mini',
    'prompt of 20',
    against,
    batch=16,
    length=48,
    target=4,
    rows=rows,
    **more,
  )


def _small_text(work, batch, target, limit=None):
  name = f'{work}, batch {batch}, small'
  shape = {'batch': batch, 'target': target}
  return Case(name, work, 'small', 'prompt of 100', time_limit=limit, **shape)


def _mini_text(work, batch, target):
  name = f'{work}, batch {batch}, mini'
  shape = {'batch': batch, 'length': 48, 'target': target}
  return Case(name, work, 'mini', 'prompt of 20', **shape)


def _instance(size, strategy, base='prompt', limit=1.15):
  """A strategy of instance-wise prompts against the same without instances.

  By the optimiser of gin/ipt.gin, which a large table is slow for, if any is.
  """
  make, length = {'mini': (_mini, 20), 'small': (_small, 100)}[size]
  against = base if base == 'prefix' else f'prompt of {length}'
  return make(
    f'ipt {strategy} on {base}',
    f'ipt {strategy} on {against}',
    against=against,
    optimizer='adafactor',
    time_limit=limit,
  )


def _meta(size, inner_steps, against, compact=False, **more):
  """As many examples for each as MPT's published settings: 4."""
  shapes = {
    'tiny': ('prompt of 20', 32),
    'mini': ('prompt of 20', 48),
    'small': ('prompt of 100', 128),
  }
  method, length = shapes[size]
  name = f'meta, {inner_steps} inner{", compact" * compact}'
  return Case(
    f'{name} against {against}, {size}',
    'meta',
    size,
    method,
    against,
    batch=4,
    length=length,
    inner_steps=inner_steps,
    compact=compact,
    steps=8 if inner_steps == 1 else 3,
    **more,
  )


CASES = (
  _small('prompt', 'prompt of 100', time_limit=0.85, memory_limit=0.8),
  _small('lora', 'lora', time_limit=0.85, memory_limit=0.8),
  _small('decoder prefix', 'decoder prefix'),
  _small(
    'decoder prefix, cached encoder',
    'decoder prefix',
    cached=True,
    time_limit=0.35,
  ),
  _small('full', 'full'),
  _small('prefix', 'prefix', against=None),
  _small('adapter', 'adapter', against=None),
  _mini('prompt', 'prompt of 20'),
  _mini('lora', 'lora'),
  _mini('decoder prefix', 'decoder prefix'),
  _mini('decoder prefix, cached encoder', 'decoder prefix', cached=True),
  _mini('full', 'full'),
  _mini('prefix', 'prefix', against=None),
  _mini('adapter', 'adapter', against=None),
  _runs(1, 'one by one'),
  _runs(4, 'one by one'),
  _runs(16, 'one by one'),
  _runs(16, 'peft', time_limit=0.5),
  _small_text('generate', 1, 16, 0.4),
  _small_text('generate', 32, 16, 0.8),
  _small_text('rank', 1, 4),
  _small_text('rank', 32, 4),
  _mini_text('generate', 1, 16),
  _mini_text('generate', 32, 16),
  _mini_text('rank', 1, 4),
  _mini_text('rank', 32, 4),
  *(
    _instance('mini', strategy, base)
    for base in ('prompt', 'prefix')
    for strategy in ('random', 'pretrained', 'mlp', 'cnn')
  ),
  _instance('mini', 'lstm', limit=1.5),
  _instance('mini', 'lstm', 'prefix', limit=1.5),
  _instance('small', 'random'),
  _instance('small', 'cnn'),
  *(
    _meta(size, inner_steps, against)
    for size in ('mini', 'small')
    for inner_steps in (1, 5, 10)
    for against in ('plain', 'fomaml')
  ),
  *(
    _meta('mini', inner_steps, against)
    for inner_steps in (1, 5, 10)
    for against in ('higher', 'torch.func')
  ),
  _meta('small', 1, 'torch, first order', compact=True, memory_limit=1.0),
  _meta('small', 1, 'autograd', time_limit=1.1),
  _meta('small', 1, 'higher', time_limit=1.1),
  # with more inner steps it needs more memory than most machines have
  _meta('small', 1, 'torch.func', time_limit=1.1),
  _meta('small', 5, 'higher'),
  _meta('small', 10, 'higher'),
  _meta('tiny', 1, 'higher', time_limit=0.5),
  _meta('tiny', 1, 'torch.func', time_limit=0.5),
)
