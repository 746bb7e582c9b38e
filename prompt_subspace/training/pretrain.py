"""Pre-trains a small T5 1.1 on plain text and, at the end, on tasks.

Half span corruption, half prefix-LM (Raffel et al. 2020; Lester et al. 2021
for the prefix-LM part, without which a frozen T5 answers in sentinels). Token
embeddings start from a PPMI-SVD of the corpus; the layers' matrices are
trained with Muon (Jordan et al. 2024), everything else with AdamW.
"""

import functools
import json
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import config as backbone_config
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.data import corpus
from prompt_subspace.data.vocabulary import Vocabulary
from prompt_subspace.training.checkpoints import Checkpoints


class State(NamedTuple):
  """What a checkpoint of pre-training holds."""

  weights: dict
  optimizer: optax.OptState
  step: jax.Array


def is_layer_matrix(path: str) -> bool:
  """Whether Muon trains a weight: the matrices inside the layers."""
  return '/layers_' in path and path.endswith('/kernel')


def optimizer(
  rate: float, warmup: int, decay_from: int, decay_to: int
) -> optax.GradientTransformation:
  """Muon and AdamW at one rate: warm-up, constant, then linear to zero.

  Muon's updates are scaled to the root mean square of AdamW's (0.2), so that
  one rate serves both (Liu et al. 2025, "Muon is Scalable").
  """
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(0.0, rate, warmup),
      optax.constant_schedule(rate),
      optax.linear_schedule(rate, 0.02 * rate, max(1, decay_to - decay_from)),
    ],
    [warmup, decay_from],
  )

  def dimensions(params):
    flat = trees.flatten(params)
    return trees.unflatten(
      {
        path: contrib.MuonDimensionNumbers() if is_layer_matrix(path) else None
        for path in flat
      }
    )

  return optax.chain(
    optax.clip_by_global_norm(1.0),
    contrib.muon(
      schedule,
      adam_b2=0.98,
      weight_decay=0.01,
      consistent_rms=0.2,
      muon_weight_dimension_numbers=dimensions,
    ),
  )


def initial_weights(
  model: T5, stream: corpus.Stream, seed: int
) -> dict:
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


def loss(model: T5, weights: dict, batch: dict) -> jax.Array:
  """Returns token cross-entropy plus 1e-4 log(Z)^2 (keeps logits bounded)."""
  targets = batch['targets']
  logits = model.apply(
    {'params': weights},
    batch['inputs'],
    objectives.shift_right(targets),
    enable_dropout=False,
  )
  value, weight = objectives.cross_entropy(logits, targets)
  log_z = jax.nn.logsumexp(logits, axis=-1) * (targets > 0)
  return value + 1e-4 * jnp.sum(jnp.square(log_z)) / weight


def make_step(model: T5, tx: optax.GradientTransformation):
  """Returns the compiled update (state, batch) -> (state, loss)."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state: State, batch):
    value, grads = jax.value_and_grad(functools.partial(loss, model))(
      state.weights, batch
    )
    updates, inner = tx.update(grads, state.optimizer, state.weights)
    weights = optax.apply_updates(state.weights, updates)
    return State(weights, inner, state.step + 1), value

  return step


def validation(model: T5, weights, batches: dict[str, dict]) -> dict:
  """Returns the mean token loss of each named batch."""
  evaluate = jax.jit(
    lambda w, b: objectives.cross_entropy(
      model.apply(
        {'params': w},
        b['inputs'],
        objectives.shift_right(b['targets']),
        enable_dropout=False,
      ),
      b['targets'],
    )[0]
  )
  return {name: float(evaluate(weights, b)) for name, b in batches.items()}
