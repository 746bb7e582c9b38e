"""T5X's view of a frozen backbone with a method: phi is all that it trains.

T5X differentiates, optimises and writes its `params`: these are phi. The frozen
weights, and the constants of a method, travel beside them in `flax_mutables`.
They are read from BACKBONE by `Initializer` and `PhiCheckpointer`, never from a
run's checkpoint: checkpoints hold phi and its optimiser's state alone, and no
weight can be filled at random, as there is no draw for one. This is the only
file that imports T5X; `gin/sizes/xxl.gin` shows how its parts are bound.
"""

import functools
from collections.abc import Mapping

import flax
import jax
import jax.numpy as jnp
import numpy as np
import t5x.checkpoints
import t5x.metrics
import t5x.models
import t5x.optimizers
import t5x.train_state
import t5x.trainer
import t5x.utils
from flax import traverse_util
from flax.linen import partitioning

from prompt_subspace import objectives, trees
from prompt_subspace.backbone import decode, forward, stored
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.bank import store, t5x_run
from prompt_subspace.deltas import base
from prompt_subspace.deltas.base import Frozen, Method
from prompt_subspace.training import algorithm as algorithms
from prompt_subspace.training import features, optimizers
from prompt_subspace.training.algorithm import Algorithm
from prompt_subspace.training.engine import task_loss

WEIGHTS, CONSTANTS = 'frozen', 'constants'
TABLE = 'token_embedder/embedding'
# gin makes a model for each place that it is bound in: all share the backbone,
# which may be in the host's memory
_find = functools.lru_cache(maxsize=1)(stored.find)


class Model(t5x.models.EncoderDecoderModel):
  """A model of T5X over our backbone, with any method and any objective.

  Args:
    backbone: see `stored.find`.
    method: how phi becomes a delta.
    algorithm: what is minimised: plain tuning, or one of `meta.algorithms`.
    optimizer: rate -> optax transform.
    rate: the learning rate. That of T5X's trainer goes nowhere.
    vocabulary: a sentencepiece model, where the backbone has none.
    shots: for algorithms over episodes, examples of a support batch.
    start: folder of a bank entry whose phi is the start; None draws it. If its
      card has a fingerprint, all weights are read once to compare it.
    dropout: of the backbone while training.
    beams: sequences of beam search in prediction; 1 is greedy.
    alpha: length penalty of beam search.
    **changes: fields of the backbone's configuration (dtype, ...).

  Raises:
    ValueError: see `stored.find`; a bank entry of another method, shape
      or backbone.
  """

  def __init__(
    self,
    backbone: str,
    method: Method,
    algorithm: Algorithm = algorithms.TUNING,
    optimizer: optimizers.Optimizer = optimizers.adafactor,
    rate: float = 0.3,
    vocabulary: str | None = None,
    shots: int = 8,
    start: str | None = None,
    dropout: float = 0.0,
    beams: int = 1,
    alpha: float = 0.6,
    **changes,
  ):
    self.stored = _find(backbone, vocabulary, dropout_rate=dropout, **changes)
    tokens = self.stored.vocabulary.seqio()
    self.algorithm, self.shots = algorithm, shots
    self.beams, self.alpha = beams, alpha
    self.config = self.stored.config
    self._setting = functools.partial(stored.setting, self.stored)
    self.method = method
    if method.bind is not None:
      table = jnp.asarray(stored.read(self.stored, TABLE))
      self.method = base.bound(method, self._setting(table))
    leaves = jax.tree.leaves(self.method.constants)
    self.constants = {str(i): x for i, x in enumerate(leaves)}
    self.phi_shapes = jax.eval_shape(
      lambda key, table: self.method.init(key, self._setting(table)),
      jax.random.key(0),
      trees.flatten(self.stored.shapes)[TABLE],
    )
    if not isinstance(self.phi_shapes, Mapping):
      raise ValueError(
        'method: expected a phi that is a dict, as T5X has parameters by name, '
        f'found {type(self.phi_shapes).__name__}.'
      )
    self._start = None if start is None else self._from_bank(start)
    super().__init__(
      module=T5(self.config),
      input_vocabulary=tokens,
      output_vocabulary=tokens,
      optimizer_def=Optax(optimizer(rate)),
    )

  def _from_bank(self, folder: str):
    entry = store.read(folder)
    card = entry.card
    if other := base.differing(self.method, card['method'], card['settings']):
      raise ValueError(
        f'start: expected a delta of method {self.method.name!r} with '
        f'{ {n: own for n, (_, own) in other.items()} }, found '
        f'{ {n: theirs for n, (theirs, _) in other.items()} } in {folder}. '
        'Bind Model.method to that one.'
      )
    if wanted := card['fingerprint']:  # else it is of unknown weights
      mark = stored.fingerprint(self.stored)
      if mark != wanted:
        raise ValueError(
          f'start: expected a delta of the backbone {self.stored.name} with '
          f'fingerprint {mark[:16]}, found one of {card["backbone"]} '
          f'with {wanted[:16]} in {folder}. Bind BACKBONE to that one.'
        )
    trees.check_same(entry.phi, self.phi_shapes, f'start {folder}')
    return entry.phi

  def initial_phi(self, rng, embedding) -> dict:
    """Returns phi as the method draws it, or that of the bank."""
    if self._start is not None:
      return jax.tree.map(jnp.asarray, self._start)
    return dict(self.method.init(rng, self._setting(embedding)))

  def frozen_axes(self) -> dict:
    """Returns the names of the axes of all that is frozen."""
    flat = trees.flatten(self.stored.shapes)
    named = {f'{p}_axes': _metadata(*stored.axes(p)) for p in flat}
    out = {f'{WEIGHTS}_axes': trees.unflatten(named)}
    if self.constants:
      out[f'{CONSTANTS}_axes'] = {
        f'{name}_axes': _metadata(*[None] * x.ndim)
        for name, x in self.constants.items()
      }
    return out

  def phi_axes(self) -> dict:
    """Returns the names of phi's axes; offsets on weights have theirs."""
    weights = trees.flatten(self.stored.shapes)
    return trees.unflatten(
      {
        f'{path}_axes': _metadata(
          *(
            stored.axes(path)
            if path in weights and weights[path].shape == x.shape
            else [None] * x.ndim
          )
        )
        for path, x in trees.flatten(self.phi_shapes).items()
      }
    )

  def get_initial_variables(self, rng, input_shapes=None, input_types=None):
    """Returns all variables; within a trace, weights are read by callbacks."""
    del input_shapes, input_types

    def read(path, like):
      return jax.pure_callback(
        lambda: stored.read(self.stored, path), like, vmap_method=None
      )

    flat = trees.flatten(self.stored.shapes)
    weights = trees.unflatten({p: read(p, x) for p, x in flat.items()})
    frozen = {WEIGHTS: weights}
    if self.constants:
      frozen[CONSTANTS] = self.constants
    return self._variables(rng, frozen)

  def _variables(self, rng, frozen: Mapping):
    embedding = frozen[WEIGHTS]['token_embedder']['embedding']
    return flax.core.freeze(
      {
        'params': self.initial_phi(rng, embedding),
        'params_axes': self.phi_axes(),
        **frozen,
        **self.frozen_axes(),
      }
    )

  def _frozen(self, flax_mutables) -> Frozen:
    held = flax.core.unfreeze(flax_mutables)
    if self.method.constants is None:
      return Frozen(held[WEIGHTS])
    kind = jax.tree.structure(self.method.constants)
    found = held[CONSTANTS]
    leaves = [found[str(i)] for i in range(len(found))]
    return Frozen(held[WEIGHTS], jax.tree.unflatten(kind, leaves))

  def _delta(self, params, batch, frozen: Frozen):
    phi = flax.core.unfreeze(params)
    return self.method.delta(phi, batch, frozen.constants)

  def loss_fn(self, params, batch, dropout_rng, flax_mutables):
    """Returns (the objective's loss, (metrics, the mutables as they were)).

    As part of a larger batch (`Trainer` says so), the loss is the part that
    this batch adds to the mean over the whole one.
    """
    frozen = self._frozen(flax_mutables)
    task = task_loss(self.config, self.method, frozen)
    objective = self.algorithm.objective(task, None, frozen.constants)
    held = features.examples(batch)
    if self.algorithm.episodes:
      held = features.episodes(held, self.algorithm, self.shots)
    phi = flax.core.unfreeze(params)
    loss, found = objective(phi, held, dropout_rng)
    found = dict(found)
    weight = found.pop('weight')
    if features.WHOLE in batch:
      loss = loss * weight / batch[features.WHOLE][0]
    return loss, (_metrics(loss, weight, found, batch), flax_mutables)

  def eval_fn(self, params, batch, flax_mutables):
    """Returns the task loss without dropout, and T5X's metrics."""
    frozen = self._frozen(flax_mutables)
    held = features.examples(batch)
    delta = self._delta(params, held, frozen)
    logits = forward.logits(self.config, frozen.weights, delta, held)
    loss, weight = objectives.cross_entropy(logits, held['targets'])
    total = loss * weight
    metrics = t5x.models.compute_base_metrics(
      logits=logits,
      targets=held['targets'],
      mask=held['targets'] > 0,
      loss=total,
    )
    metrics['loss'] = t5x.metrics.AveragePerStep(total=loss)
    return loss, metrics

  def predict_batch(self, params, batch, rng=None, flax_mutables=None):
    """Returns the tokens of the best sequences [B, T]."""
    found = self.predict_batch_with_aux(
      params, batch, rng, flax_mutables=flax_mutables
    )
    return found[0]

  def predict_batch_with_aux(
    self,
    params,
    batch,
    rng=None,
    decoder_params=None,
    return_all_decodes=False,
    num_decodes=None,
    prompt_with_targets=False,
    flax_mutables=None,
  ):
    """Returns the best sequences and their scores, by our own search.

    Raises:
      ValueError: all sequences, a prompt of targets or other parameters than
        `alpha` are asked for.
    """
    del rng
    options = dict(decoder_params or {})
    alpha = options.pop('alpha', self.alpha)
    if return_all_decodes or prompt_with_targets or options:
      raise ValueError(
        'predict: expected the best sequence by beam search (num_decodes, '
        f'alpha), found return_all_decodes={return_all_decodes}, '
        f'prompt_with_targets={prompt_with_targets}, {sorted(options)}.'
      )
    frozen = self._frozen(flax_mutables)
    inputs = batch['encoder_input_tokens']
    length = batch['decoder_input_tokens'].shape[1]
    delta = self._delta(params, {'inputs': inputs}, frozen)
    tokens, scores = decode.beam(
      self.config,
      frozen.weights,
      delta,
      inputs,
      length,
      num_decodes or self.beams,
      alpha,
    )
    return tokens, {'scores': scores}

  def score_batch(
    self, params, batch, return_intermediates=False, flax_mutables=None
  ):
    """Returns log p(targets | inputs) of each example [B]."""
    if return_intermediates:
      raise ValueError('return_intermediates: expected False, found True.')
    frozen = self._frozen(flax_mutables)
    held = features.examples(batch)
    delta = self._delta(params, held, frozen)
    logits = forward.logits(self.config, frozen.weights, delta, held)
    each = objectives.token_log_likelihood(logits, held['targets'])
    return jnp.sum(each, axis=-1)


def _metadata(*names) -> partitioning.AxisMetadata:
  return partitioning.AxisMetadata(names=names)


def _metrics(loss, weight, found: Mapping, batch: Mapping) -> dict:
  """Returns metrics of T5X: the mean loss per step, and an objective's own."""
  rows = jnp.asarray(batch['decoder_target_tokens'].shape[0])
  return {
    'loss': t5x.metrics.AveragePerStep(total=loss),
    'weight': t5x.metrics.AveragePerStep(total=weight),
    'timing/steps_per_second': t5x.metrics.StepsPerTime.from_model_output(),
    'timing/seqs_per_second': t5x.metrics.TimeRate.from_model_output(
      numerator=rows
    ),
    **{
      name: t5x.models.clu_metrics.Average(total=x * weight, count=weight)
      for name, x in found.items()
    },
  }


class Optax(t5x.optimizers.OptaxWrapper):
  """Any optax transform: its state lies whole on every device, as phi does.

  T5X knows how to spread the states of some transforms only, and Adafactor's
  is not among them.
  """

  def derive_logical_axes(self, optimizer, param_logical_axes):
    """Returns the axes: phi's as given, none of the state."""
    flat = traverse_util.flatten_dict(
      optimizer.state_dict(), keep_empty_nodes=True
    )
    axes = traverse_util.unflatten_dict(dict.fromkeys(flat))
    axes['target'] = flax.core.unfreeze(param_logical_axes)
    return optimizer.restore_state(axes)


def _bare(state):
  """A state without what is frozen."""
  return state.replace(
    flax_mutables=flax.core.freeze({}), flax_mutables_axes=None
  )


def load_frozen(model: Model, state, partitioner) -> flax.core.FrozenDict:
  """Reads the frozen weights onto the devices, each host its own part.

  Args:
    model: whose backbone it is.
    state: a state of T5X, or its shapes; its mutables say what is expected.
    partitioner: of T5X.

  Raises:
    ValueError: the state expects other names, shapes or types.
  """
  axes = partitioner.get_mesh_axes(state).flax_mutables
  shardings = jax.tree.map(
    lambda spec: jax.sharding.NamedSharding(partitioner.mesh, spec),
    flax.core.unfreeze(axes),
    is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
  )
  out = {WEIGHTS: stored.place(model.stored, shardings[WEIGHTS])}
  if model.constants:
    out[CONSTANTS] = jax.tree.map(
      lambda x, sharding: jax.make_array_from_callback(
        x.shape, sharding, lambda index, x=x: np.asarray(x[index])
      ),
      model.constants,
      shardings[CONSTANTS],
    )
  wanted = flax.core.unfreeze(state.flax_mutables)
  trees.check_same(out, wanted, f'frozen weights of {model.stored.name}')
  return flax.core.freeze(out)


class Initializer(t5x.utils.TrainStateInitializer):
  """Starts from phi as it is drawn and the weights of BACKBONE.

  Bind it as `train_state_initializer_cls`.
  """

  def __init__(self, optimizer_def, init_fn, input_shapes, partitioner, **rest):
    super().__init__(
      optimizer_def=optimizer_def,
      init_fn=init_fn,
      input_shapes=input_shapes,
      partitioner=partitioner,
      **rest,
    )
    self._model = init_fn.__self__
    self._optimizer = optimizer_def

  def from_scratch(self, init_rng):
    """Returns a state; only phi and its optimiser's state are computed."""
    frozen = load_frozen(
      self._model, self.global_train_state_shape, self._partitioner
    )

    def start(rng, table):
      variables = self._model._variables(rng, table)
      if self._optimizer:
        made = t5x.train_state.FlaxOptimTrainState.create(
          self._optimizer, variables
        )
      else:
        made = t5x.train_state.InferenceState.create(variables)
      return made.replace_flax_mutables(flax.core.freeze({}))

    axes = self.train_state_axes
    bare = axes.replace_flax_mutables(flax.core.freeze({}))
    run = self._partitioner.partition(
      start,
      in_axis_resources=(None, axes.flax_mutables),
      out_axis_resources=bare,
    )
    return run(init_rng, frozen).replace_flax_mutables(frozen)


class PhiCheckpointer(t5x.checkpoints.Checkpointer):
  """Writes phi and its optimiser's state; what is frozen comes from BACKBONE.

  Bind it as `checkpointer_cls` of SaveCheckpointConfig and
  RestoreCheckpointConfig.

  Args:
    model: the one that is trained.
    train_state: see T5X.
    partitioner: see T5X.
    **rest: see T5X.
  """

  def __init__(self, train_state, partitioner, *args, model: Model, **rest):
    super().__init__(_bare(train_state), partitioner, *args, **rest)
    self._model, self._whole = model, train_state

  def save(self, train_state, *args, **rest):
    """Writes a checkpoint, and what the bank wants to know of the run."""
    super().save(_bare(train_state), *args, **rest)
    if jax.process_index() == 0:
      model = self._model
      card = {
        'method': model.method.name,
        'settings': dict(model.method.settings),
        'backbone': model.stored.name,
        'vocabulary': str(model.stored.vocabulary.path),
        'algorithm': model.algorithm.name,
        'prefix_positions': model.config.prefix_positions,
      }
      t5x_run.write_card(self.checkpoints_dir, card)

  def restore(self, *args, **rest):
    """Restores phi strictly, and reads the frozen weights."""
    found = super().restore(*args, **rest)
    phi = flax.core.unfreeze(found.params)
    trees.check_same(phi, self._model.phi_shapes, 'phi of the checkpoint')
    frozen = load_frozen(self._model, self._whole, self._partitioner)
    return found.replace(
      flax_mutables=frozen,
      flax_mutables_axes=self._whole.flax_mutables_axes,
    )


def refuse_orbax(*args, **rest):
  """Takes the place of T5X's Orbax manager, which would write all weights.

  Raises:
    ValueError: always.
  """
  raise ValueError(
    'use_orbax: expected False, found True. T5X writes phi alone in its legacy '
    'format: bind use_orbax = False.'
  )


class Trainer(t5x.trainer.Trainer):
  """T5X's trainer, with microbatches that add up to the whole batch.

  Each knows the weight of the batch that it is a part of, so that the gradient
  is that of the mean over all target tokens, however they are divided.
  """

  @functools.cached_property
  def _partitioned_train_step(self):
    model, spec = self._model, self._partitioner.data_partition_spec

    def step(train_state, batch):
      return t5x.trainer.train_with_lr(
        train_state,
        features.with_weight(batch, model.algorithm, model.shots),
        learning_rate=jnp.asarray(self._learning_rate_fn(train_state.step)),
        dropout_rng=self._get_step_rng(train_state.step),
        model=model,
        num_microbatches=self._num_microbatches,
        weight_metrics_computer=self._weight_metrics_computer,
        data_partition_spec=spec,
      )

    return self._partitioner.partition(
      step,
      in_axis_resources=(self._train_state_axes, spec),
      out_axis_resources=(self._train_state_axes, None),
      donate_argnums=(0,),
    )
