"""A program for test_t5x_model: losses on a mesh of (data, model) devices.

python -m tests.training.t5x_mesh BACKBONE DATA MODEL
"""

import functools
import json
import sys

import jax
import numpy as np
from t5x import partitioning

from prompt_subspace import trees
from tests.training import test_t5x_model as tools


class Partitioner(partitioning.PjitPartitioner):
  """T5X's, which on CPUs has no model axis, with the mesh that is asked for."""

  @functools.cached_property
  def mesh(self):
    shape = int(sys.argv[2]), int(sys.argv[3])
    devices = np.asarray(jax.devices()).reshape(shape)
    return jax.sharding.Mesh(devices, ('data', 'model'))


if __name__ == '__main__':
  _, trainer, _ = tools.started(
    sys.argv[1],
    Partitioner(num_partitions=1),
    tools.METHODS['lora'],
    microbatches=2,
    rate=0.01,
  )
  flat = trees.flatten(trainer.train_state.flax_mutables['frozen'])
  whole = sum(x.nbytes for x in flat.values())
  held = sum(x.addressable_shards[0].data.nbytes for x in flat.values())
  batches = [tools.batch_of(seed) for seed in range(4)]
  losses = tools.advance(trainer, batches).tolist()
  print(json.dumps({'losses': losses, 'share': held / whole}))
