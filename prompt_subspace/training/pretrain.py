"""Pre-trains a small T5 1.1 on plain text and, at the end, on tasks.

Half span corruption, half prefix-LM (Raffel et al. 2020; Lester et al. 2021
for the prefix-LM part, without which a frozen T5 answers in sentinels). Token
embeddings start from a PPMI-SVD of the corpus; the layers' matrices are
trained with Muon (Jordan et al. 2024), everything else with AdamW.
"""

import contextlib
import csv
import functools
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from prompt_subspace import objectives, trees
from prompt_subspace import vocabulary as vocabularies
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import forward, sites
from prompt_subspace.backbone import weights as backbones
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.data import arrays as task_arrays
from prompt_subspace.data import corpus, pretraining
from prompt_subspace.data import tasks as task_names
from prompt_subspace.data.pretraining import Mix
from prompt_subspace.training import job, muon
from prompt_subspace.training.checkpoints import Checkpoints
from prompt_subspace.training.progress import Progress
from prompt_subspace.vocabulary import Vocabulary


class State(NamedTuple):
  """What a checkpoint of pre-training holds."""

  weights: dict
  optimizer: optax.OptState
  step: jax.Array


def initial_weights(model: T5, stream: corpus.Stream, seed: int) -> dict:
  """Draws weights; embedding and head from the corpus's co-occurrences."""
  cfg = model.config
  tokens = jnp.ones((1, 8), jnp.int32)
  weights = jax.jit(functools.partial(model.init, enable_dropout=False))(
    jax.random.key(seed), tokens, tokens
  )['params']
  table = corpus.ppmi_embeddings(stream, cfg.vocab_size, cfg.emb_dim)
  weights['token_embedder']['embedding'] = jnp.asarray(table)
  if not cfg.logits_via_embedding:
    head = table.T / np.sqrt(cfg.emb_dim)
    weights['decoder']['logits_dense']['kernel'] = jnp.asarray(head)
  return weights


def loss(
  model: T5, weights: dict, batch: dict, key: jax.Array
) -> Float[Array, '']:
  """Returns token cross-entropy plus 1e-4 log(Z)^2 (keeps logits bounded).

  Args:
    model: whose configuration says the rate of dropout.
    weights: all of them are trained.
    batch: `inputs` [B, L] and `targets` [B, T], padded with 0.
    key: of the dropout.
  """
  targets = batch['targets']
  logits = model.apply(
    {'params': weights},
    batch['inputs'],
    objectives.shift_right(targets),
    enable_dropout=model.config.dropout_rate > 0,
    rngs={'dropout': key},
  )
  value, weight = objectives.cross_entropy(logits, targets)
  log_z = jax.nn.logsumexp(logits, axis=-1) * (targets > 0)
  return value + 1e-4 * jnp.sum(jnp.square(log_z)) / weight


def make_step(model: T5, tx: optax.GradientTransformation, seed: int):
  """Returns the compiled update (state, batch) -> (state, loss)."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: State, batch):
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    value, grads = jax.value_and_grad(functools.partial(loss, model))(
      state.weights, batch, key
    )
    updates, inner = tx.update(grads, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return State(weights, inner, state.step + 1), value

  return step


def make_validation(model: T5):
  """Returns the compiled token loss (weights, batch) -> loss."""

  @jax.jit
  def evaluate(weights, batch):
    logits = model.apply(
      {'params': weights},
      batch['inputs'],
      objectives.shift_right(batch['targets']),
      enable_dropout=False,
    )
    return objectives.cross_entropy(logits, batch['targets'])[0]

  return evaluate


def pretrain(
  texts: Sequence[str],
  held_out: Sequence[str],
  out: str,
  steps: int,
  size: str = 'mini',
  vocabulary: str | None = None,
  pieces: int = 8000,
  start: str | None = None,
  mix: Mix = Mix(),
  tasks: Sequence[str] = (),
  data_dir: str | None = None,
  rate: float = 2e-3,
  warmup: int = 100,
  decay: float = 0.3,
  dropout: float = 0.0,
  dtype: str = 'float32',
  scan: bool = False,
  workers: int = 0,
  seed: int = 0,
  evaluate_every: int = 250,
  store: str = 'bfloat16',
) -> job.Job:
  """Plans the pre-training of a backbone from plain text.

  Args:
    texts: files of plain text, blank lines between documents.
    held_out: files for the validation loss.
    out: folder of checkpoints, log and the finished backbone.
    steps: updates; more of them continue a folder that has fewer.
    size: name of a configuration; its vocabulary size bounds the pieces.
    vocabulary: sentencepiece model; None trains one on `texts`.
    pieces: of the trained vocabulary.
    start: a backbone, by name or folder, whose weights and vocabulary are
      trained further instead of drawn ones; `size` names it afterwards.
    mix: shapes and shares of the batches.
    tasks: supervised tasks to mix in. No study should use them as targets.
    data_dir: their folder.
    rate: learning rate.
    warmup: updates of linear warm-up.
    decay: share of the updates, at the end, over which the rate falls to 2%.
    dropout: rate while pre-training; the finished backbone has none.
    dtype: of activations; weights and optimiser stay in float32.
    scan: run the layers as one scanned layer, which compiles in a fraction of
      the time; on a CPU the steps take longer.
    workers: processes that draw batches ahead, for an accelerator that would
      wait for them; 0 draws in this process. The batches are the same.
    seed: of weights and batches.
    evaluate_every: updates between validation losses and checkpoints.
    store: how the finished weights are stored, see `weights.write`.

  Returns:
    The job. It leaves `out/log.csv` and `out/backbone/`, a folder that
    `weights.load` reads.

  Raises:
    ValueError: an argument is out of range, or the folder holds a backbone
      that is pre-trained otherwise.
  """
  folder = pathlib.Path(out)
  for path in (*texts, *held_out):
    if not pathlib.Path(path).is_file():
      raise ValueError(
        f'texts: expected a file of plain text, found no {path}.'
      )
  config = configs.sized(size, dropout_rate=0.0)
  trained = config.replace(dropout_rate=dropout, dtype=dtype, scan_layers=scan)
  given = _given(start, config, vocabulary)
  if given is not None:
    vocabulary = given.vocabulary.path
  known = vocabularies.find(vocabulary).size if vocabulary else pieces + 100
  if known > config.vocab_size:
    raise ValueError(
      f'pieces: expected at most {config.vocab_size} tokens, the rows of the '
      f'embedding of {size!r}, found {known} with the sentinels. Take fewer '
      'pieces or another size.'
    )
  if mix.length < 16:
    raise ValueError(
      f'length: expected at least 16 tokens, of which 8 are a beginning and 8 '
      f'its continuation, found {mix.length}.'
    )
  found = {name: task_names.find(name, data_dir) for name in tasks}
  sums = {pathlib.Path(t).name: _sha256(t) for t in texts}
  identity = {
    'recipe': 'pretrain',
    'config': trained.to_json(),
    'vocabulary': vocabularies.find(vocabulary).sha256 if vocabulary else None,
    'pieces': None if vocabulary else pieces,
    'start': given and given.fingerprint,
    'texts': sorted(sums.values()),
    'held_out': sorted(_sha256(t) for t in held_out),
    'batches': mix._asdict(),
    'task names': sorted(found),
    'rates': [rate, warmup, decay],
    'seed': seed,
  }
  job.check(folder, identity)
  plan = (
    f'backbone   {size}, {trees.size(backbones.expected(config)):,} parameters'
    f'\ntext       {len(texts)} files, {len(held_out)} held out'
    f'\nstart      {start or "drawn"}'
    f'\ntasks      {", ".join(found) or "none"}'
    f'\nsteps      {steps}, checkpoints in {folder}'
  )

  def run():
    tokens = (
      vocabularies.find(vocabulary)
      if vocabulary
      else _vocabulary(texts, folder / 'vocab.model', pieces)
    )
    arrays = {
      name: task_arrays.prepare(
        task, tokens, folder / 'cache', mix.task_length, mix.task_target
      )
      for name, task in found.items()
    }
    checksums = {n: a.record['checksum'] for n, a in arrays.items()}
    job.claim(folder, identity | {'tasks': checksums})
    train, check = (
      pretraining.read_sources(
        files, arrays, split, tokens, folder, mix.task_limit
      )
      for files, split in ((texts, 'train'), (held_out, 'validation'))
    )
    tx = muon.optimizer(rate, warmup, int(steps * (1 - decay)), steps)
    model = T5(trained)

    def begin():
      weights = given.weights if given is not None else None
      if weights is None:
        weights = initial_weights(T5(config), train.stream, seed)
      return _stacked(weights, trained)

    checks = pretraining.validation_batches(check, mix)
    feed = functools.partial(
      pretraining.stream, train, mix, seed, workers=workers
    )
    weights = _train(
      model, tx, feed, checks, folder, steps, seed, evaluate_every, begin
    )
    if scan:
      weights = sites.unstack_layers(weights, forward.layer_counts(config))
    backbone = backbones.assemble(size, config, weights, tokens)
    backbones.write(folder / 'backbone', backbone, store)
    card = {
      'size': size,
      'parameters': trees.size(backbone.weights),
      'fingerprint': backbones.load(folder / 'backbone').fingerprint,
      'vocabulary': tokens.sha256,
      'start': given and given.fingerprint,
      'steps': steps,
      'batches': mix._asdict(),
      'dropout': dropout,
      'dtype': dtype,
      'validation': _last_losses(folder / 'log.csv'),
      'texts': sums,
      'tasks': checksums,
      'seed': seed,
      **job.environment(),
    }
    job.write_json(folder / 'backbone' / 'card.json', card)

  record = {'texts': list(texts), 'tasks': list(tasks), 'steps': steps}
  return job.Job(folder, plan, record, run)


def _last_losses(log: pathlib.Path) -> dict[str, float]:
  with log.open(encoding='utf-8') as file:
    *_, last = csv.DictReader(file)
  return {name: float(value) for name, value in last.items()}


def _keep_until(log: pathlib.Path, step: int) -> None:
  """Drops the lines of a log after a step, which are written once more."""
  if not log.exists():
    return
  head, *rows = log.read_text(encoding='utf-8').splitlines()
  kept = [row for row in rows if int(row.split(',')[0]) <= step]
  log.write_text('\n'.join([head, *kept, '']), encoding='utf-8')


def _sha256(path) -> str:
  return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def _vocabulary(texts, path: pathlib.Path, pieces: int) -> Vocabulary:
  if path.exists():
    return Vocabulary(path)
  return corpus.train_vocabulary(texts, path, pieces)


def _given(start, config, vocabulary) -> backbones.Backbone | None:
  """Returns the backbone to start from, if any; it must be of this shape."""
  if start is None:
    return None
  if vocabulary is not None:
    raise ValueError(
      'vocabulary: expected None beside start, whose vocabulary is kept, '
      f'found {vocabulary!r}. Give one of the two.'
    )
  given = backbones.load(start, dropout_rate=0.0)
  if given.vocabulary is None or given.config != config:
    raise ValueError(
      f'start: expected a backbone with a vocabulary and the shape {config}, '
      f'found {given.config}. Name the size that it has.'
    )
  return given


def _stacked(weights: Mapping, config: configs.T5Config) -> dict:
  """Returns weights in the form that the configuration reads."""
  if not config.scan_layers:
    return dict(weights)
  return sites.stack_layers(dict(weights), forward.layer_counts(config))


def _train(model, tx, feed, held_out, folder, steps, seed, every, begin):
  """Runs the updates from the last checkpoint on; returns the weights."""
  checkpoints = Checkpoints(folder / 'checkpoints')
  blank = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), backbones.expected(model.config)
  )
  blank = _stacked(blank, model.config)
  zero = jnp.zeros((), jnp.int32)
  stored = checkpoints.restore(State(blank, tx.init(blank), zero))
  if stored:
    state = stored[1]
  else:
    weights = begin()
    state = State(weights, tx.init(weights), zero)
  step, evaluate = make_step(model, tx, seed), make_validation(model)
  at, losses, examples = int(state.step), [], 0
  log = folder / 'log.csv'
  _keep_until(log, at)
  bar = Progress(steps, 'pre-training', folder / 'tensorboard', start=at)
  batches = feed(start=at, stop=steps)
  with contextlib.closing(checkpoints), contextlib.closing(batches), bar:
    for batch in batches:
      state, value = step(state, batch)
      losses.append(value)
      examples += len(batch['inputs'])
      at += 1
      if at % every and at < steps:
        if len(losses) >= 25:
          bar.update(at, examples, {'loss': jnp.stack(losses).mean()})
          losses, examples = [], 0
        continue
      found = {
        name: float(evaluate(state.weights, b)) for name, b in held_out.items()
      }
      bar.update(at, 0, {f'validation/{n}': v for n, v in found.items()})
      new = not log.exists()
      with log.open('a', encoding='utf-8') as file:
        if new:
          file.write(','.join(['step', *found]) + '\n')
        file.write(','.join([str(at), *(f'{v:.4f}' for v in found.values())]))
        file.write('\n')
      # behind its line: a run that ends has all of them
      checkpoints.save(at, state)
  return state.weights
