"""A program for test_mesh: the same rows on several meshes of 8 devices.

python -m tests.training.mesh_program VOCABULARY FOLDER METHOD ROW,DATA,MODEL...

Prints a line of JSON: mesh -> what came of the rows; `one` is without a mesh.
"""

import json
import pathlib
import sys

import jax
import numpy as np

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.deltas.base import bound
from prompt_subspace.meta import algorithms
from prompt_subspace.reparams import subspace
from prompt_subspace.training import algorithm, mesh, optimizers, spec, stack
from prompt_subspace.training import engine as engines
from prompt_subspace.vocabulary import Vocabulary
from tests import sample

METHODS = {
  'prompt': deltas.prompt(length=3, start='uniform'),
  'lora': deltas.lora(rank=2),
  'full': deltas.full(),
  'subspace': subspace.subspace(
    deltas.lora(rank=2), reparams.linear(), 5, spread=0.1
  ),
  'maml': deltas.prompt(length=2, start='uniform'),
}
SETTINGS = spec.Settings(
  steps=4,
  batch_size=8,
  evaluate_every=2,
  evaluation_batch=8,
  checkpoint_seconds=0,
)
# no mesh divides three rows; the heads are fewer than 8 devices
ROWS = 3
SHAPE = {
  'num_heads': 4,
  'head_dim': 8,
  'mlp_dim': 24,
  'vocab_size': 256,
}


def train(backbone, name, kind='classification', folder=None, steps=4):
  """Trains the rows; returns all that counts as lists."""
  method = bound(METHODS[name], sample.setting(backbone))
  # evaluation is the same for all methods: one of them is enough
  counts = sample.COUNTS if name == 'prompt' else {'train': 24}
  own = sample.task(backbone.vocabulary, kind, counts=counts)
  how = algorithm.TUNING
  if name == 'maml':
    how = algorithms.maml(inner_rate=0.1, inner_steps=1, tasks=4)
    own = own._replace(record={**own.record, 'parts': parts(own)})
  specs = [
    spec.RowSpec(
      id=f'row {i}',
      task='invented',
      seed=i,
      rate=0.01 * (1 + i),
      phi=method.init(jax.random.key(i), sample.setting(backbone)),
    )
    for i in range(ROWS)
  ]
  microbatch = 4 if name == 'prompt' else None
  settings = SETTINGS._replace(steps=steps, microbatch=microbatch)
  engine = engines.make(
    backbone, method, optimizers.adafactor, settings, specs[0].phi, how
  )
  results = stack.train_stack(
    engine,
    backbone,
    optimizers.adafactor,
    specs,
    {'invented': own},
    settings,
    folder,
  )
  return [
    {
      'phi': np.asarray(trees.ravel(r.phi)[0]).tolist(),
      'loss': [h['loss'] for h in r.history],
      'validation': [h['validation'] for h in r.history],
      'test': r.test,
    }
    for r in results
  ]


def parts(task):
  """Two tasks of a union, with support and query."""
  part = len(task.splits['train'].labels) // 4
  return [[t, s, part] for t in ('a', 'b') for s in ('train', 'validation')]


def share(backbone) -> float:
  """How much of the weights the first device holds."""
  held = jax.tree.leaves(backbone.weights)
  first = sum(x.addressable_shards[0].data.nbytes for x in held)
  return first / sum(x.nbytes for x in held)


def main(vocabulary, folder, name, *meshes):
  plain = sample.backbone(Vocabulary(vocabulary), **SHAPE)
  out = {'one': {'rows': train(plain, name)}}
  for text in meshes:
    there = mesh.spread(plain, mesh.make(mesh.parse(text)))
    out[text] = {'rows': train(there, name), 'share': share(there)}
  if name == 'prompt':
    # the last mesh has all three axes: what is generated there
    out['one, generation'] = {'rows': train(plain, name, 'generation')}
    out['generation'] = {'rows': train(there, name, 'generation')}
  if len(meshes) > 1:
    # begun on one mesh, ended on another, and on none
    first, second = (
      mesh.spread(plain, mesh.make(mesh.parse(t))) for t in meshes[-2:]
    )
    for label, before, after in (
      ('moved', first, second),
      ('gathered', second, plain),
    ):
      place = pathlib.Path(folder) / label
      train(before, name, folder=place, steps=2)
      out[label] = {'rows': train(after, name, folder=place)}
  print(json.dumps(out))


if __name__ == '__main__':
  main(*sys.argv[1:])
