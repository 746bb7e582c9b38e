"""What both sides are given: weights, starting points, batches, as files.

The weights are random, as timing does not depend on them, and written as a
Hugging Face folder, which ours reads too. A starting point is written twice,
under our names and under PEFT's, so that the other side need not import JAX.
"""

import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from safetensors import numpy as safetensors_numpy

from benchmarks.cases import CHOICES, Case
from prompt_subspace import deltas, trees
from prompt_subspace.backbone import config as configs
from prompt_subspace.backbone import huggingface, weights
from prompt_subspace.data import batches
from prompt_subspace.instance import encoders, methods
from prompt_subspace.training import rows

METHODS = {
  'prompt of 100': deltas.prompt(length=100, start='uniform'),
  'prompt of 20': deltas.prompt(length=20, start='uniform'),
  'lora': deltas.lora(rank=8, scale=1.6),
  # what PEFT's prefix does on T5: keys, values of the decoder's self-attention
  'decoder prefix': deltas.prefix(length=20, hidden=None, where=('decoder',)),
  'full': deltas.full(),
  'prefix': deltas.prefix(length=20),
  'adapter': deltas.adapter(rank=12),
}
METHODS |= {
  f'ipt {strategy} on {against}': make(length=length, base=base)
  for against, base, length in (
    ('prompt of 20', 'prompt', 20),
    ('prompt of 100', 'prompt', 100),
    ('prefix', 'prefix', 20),
  )
  for strategy, make in {
    'random': methods.random,
    'pretrained': methods.pretrained,
    **{k: functools.partial(methods.encoder, k) for k in encoders.ENCODERS},
  }.items()
}
EXAMPLES = 512


def config(size: str) -> configs.T5Config:
  """Returns the shape of a size as it is measured: without dropout.

  Prefix keys take the positions before the sequence, as in Transformers. `tiny`
  is so small that the time is that of dispatching operations.
  """
  measured = {'dropout_rate': 0.0, 'prefix_positions': True}
  if size != 'tiny':
    return configs.sized(size, **measured)
  return configs.sized(
    'mini',
    vocab_size=512,
    emb_dim=64,
    num_heads=2,
    head_dim=32,
    mlp_dim=128,
    num_encoder_layers=2,
    num_decoder_layers=2,
    **measured,
  )


def write(folder: pathlib.Path, case: Case) -> None:
  """Writes what a case needs and the folder does not have yet."""
  place = folder / case.size
  if not (place / 'config.json').exists():
    huggingface.write(
      place, weights.random(config(case.size)).weights, config(case.size)
    )
  for name in {case.method, case.against} & METHODS.keys():
    start = place / f'{name}.safetensors'
    if not start.exists():
      phi = starting_point(case.size, name)
      safetensors_numpy.save_file(trees.flatten(phi), start)
      safetensors_numpy.save_file(
        for_peft(name, phi), place / f'{name}.peft.safetensors'
      )
  np.savez(folder / f'{case.slug}.npz', **data(case))


def starting_point(size: str, name: str) -> dict:
  """Draws a phi with nothing in it zero, as an untrained LoRA would have."""
  setting = weights.setting(weights.random(config(size)))
  phi = deltas.bound(METHODS[name], setting).init(jax.random.key(1), setting)
  random = np.random.default_rng(2)

  def draw(x):
    x = np.asarray(x)
    if name == 'full' or np.any(x):
      return x
    return 0.02 * random.standard_normal(x.shape).astype(np.float32)

  phi = jax.tree.map(draw, phi)
  if name == 'decoder prefix':
    # PEFT hands layer i the pair 2 i modulo the layers, so two layers share
    # one; ours starts with equal ones there to compute the same loss
    pairs = phi['decoder']['pairs']
    used = 2 * np.arange(len(pairs)) % len(pairs)
    phi['decoder']['pairs'] = pairs[used]
  return phi


def for_peft(method: str, phi: Mapping) -> dict[str, np.ndarray]:
  """Returns a starting point under PEFT's names.

  Names are those of the trained parameters, from the base model on; the table
  of a prompt or a prefix is `table`.
  """
  if method.startswith('prompt'):
    return {'table': phi['encoder']}
  if method == 'decoder prefix':
    pairs = phi['decoder']['pairs']
    count, _, length, joined = pairs.shape
    own = np.zeros_like(pairs)
    own[2 * np.arange(count) % count] = pairs
    table = own.transpose(2, 0, 1, 3).reshape(length, 2 * count * joined)
    return {'table': np.ascontiguousarray(table)}
  if method != 'lora':
    return {}
  out = {}
  for path, x in trees.flatten(phi).items():
    site, _, leaf = path.rpartition('/')
    name = huggingface.name_of(f'{site}/kernel').removesuffix('weight')
    out[f'{name}lora_{leaf[-1].upper()}.default.weight'] = np.ascontiguousarray(
      x.T
    )
  return out


def data(case: Case) -> dict[str, np.ndarray]:
  """Draws the token arrays of a case."""
  random = np.random.default_rng(3)
  vocab = config(case.size).vocab_size

  def tokens(*shape):
    # 0 is padding, 1 the end
    return random.integers(2, vocab, shape, dtype=np.int32)

  if case.work == 'runs':
    return _training_set(case, tokens, random)
  out = {
    f'{part}{name}': tokens(case.batch, length)
    for part in (('support ', 'query ') if case.work == 'meta' else ('',))
    for name, length in (('inputs', case.length), ('targets', case.target))
  }
  if case.work == 'rank':
    out['choices'] = tokens(CHOICES, case.target)
  for x in out.values():
    x[..., -1] = 1
  return out


def _training_set(case, tokens, random):
  """Examples of lengths as a task's are, and what each run sees when.

  Batches are those of `batches.plan`: of similar length, in an order of each
  run's own.
  """
  lengths = random.lognormal(np.log(20), 0.45, EXAMPLES).astype(np.int64)
  lengths = np.clip(lengths, 4, case.length)
  inputs = tokens(EXAMPLES, case.length)
  inputs[np.arange(EXAMPLES), lengths - 1] = 1
  inputs[np.arange(case.length) >= lengths[:, None]] = 0
  targets = tokens(EXAMPLES, case.target)
  targets[:, -1] = 1
  plans = [
    batches.plan(
      lengths,
      batches.choose_edges(lengths, 3),
      case.batch,
      case.steps,
      rows.row_key(seed, case.name),
    )
    for seed in range(case.rows)
  ]
  return {
    'inputs': inputs,
    'targets': targets,
    'indices': np.stack([p.indices for p in plans], axis=1),
    'widths': np.stack([p.widths for p in plans]).max(axis=0),
  }
