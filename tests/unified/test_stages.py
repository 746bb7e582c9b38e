"""Stages 1 and 2 by themselves: what a gin file for T5X binds."""

import jax
import numpy as np
import pytest

from prompt_subspace import deltas, reparams, trees
from prompt_subspace.bank import store
from prompt_subspace.unified import joint, spaces, stages
from prompt_subspace.unified.joint import Joint
from tests import tiny

SPACE = stages.Space(
  {'lora': deltas.lora(rank=2), 'prompt': deltas.prompt(length=3)},
  reparams.fastfood(block=16),
  size=5,
  tasks=3,
  seed=4,
)


def bound(space=SPACE):
  return deltas.bound(stages.method(space), tiny.setting())


def written(folder, method, phi):
  """An entry as `bank add --t5x` leaves it."""
  card = {
    'task': 'space',
    'method': method.name,
    'settings': dict(method.settings),
    'backbone': 'tiny',
    'fingerprint': None,
  }
  store.write(folder, phi, card)
  return str(folder)


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  """The bound method of stage 1, a phi that training has moved, its entry."""
  method = bound()
  phi = method.init(jax.random.key(1), tiny.setting())
  phi = jax.tree.map(lambda x: np.asarray(x) + 0.5, phi)
  folder = tmp_path_factory.mktemp('bank') / 'space'
  return method, phi, written(folder, method, phi)


def test_stage_1_trains_the_maps_of_all_types_and_a_code_for_each_task(found):
  method, phi, _ = found
  held = spaces.sides(
    SPACE.types, dict.fromkeys(SPACE.types, SPACE.kind), tiny.setting(), 4
  )
  wanted = joint.shared(held, 5, 4, 3, Joint(pipeline='short'))
  assert method.settings == wanted.settings
  trees.check_same(phi, wanted.init(jax.random.key(1), None), 'phi')
  assert phi['codes'].shape == (3, 5)
  assert stages.algorithm(SPACE).settings == SPACE.how._asdict()


@pytest.mark.parametrize('kind', ['lora', 'prompt'])
def test_a_code_inside_uses_the_maps_that_were_found(kind, found):
  method, phi, entry = found
  inside = stages.inside(SPACE, entry, kind, spread=1.0)
  inside = deltas.bound(inside, tiny.setting())
  code = inside.init(jax.random.key(2), tiny.setting())
  basis = joint.bases_of(method.constants, phi)[kind]
  np.testing.assert_array_equal(basis['gauss'], phi['maps'][kind]['gauss'])
  theta = SPACE.kind.expand(basis, code['code'])
  # stage 1 makes the same delta of that displacement
  one, other = (
    inside.delta(code, tiny.batch(), inside.constants),
    method.delta({kind: theta}, tiny.batch(), method.constants),
  )
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    np.testing.assert_array_equal(x, y)


def test_a_space_that_is_another_is_refused(found):
  entry = found[2]
  for other in (
    SPACE._replace(seed=5),
    SPACE._replace(types={**SPACE.types, 'lora': deltas.lora(rank=3)}),
  ):
    made = stages.inside(other, entry, 'lora')
    with pytest.raises(ValueError, match='entry: expected the space of'):
      deltas.bound(made, tiny.setting())


def test_mistakes(found, tmp_path):
  with pytest.raises(ValueError, match='kind: expected names among'):
    stages.inside(SPACE, found[2], 'adapter')
  prompt = tiny.VARIANTS['prompt']
  entry = written(tmp_path / 'prompt', prompt, tiny.phi('prompt'))
  with pytest.raises(ValueError, match='entry: expected what stage 1 leaves'):
    stages.inside(SPACE, entry, 'lora')
  for make in (stages.method, stages.algorithm):
    with pytest.raises(ValueError, match="pipeline: expected 'short'"):
      make(SPACE._replace(how=Joint()))
  with pytest.raises(ValueError, match='tasks: '):
    stages.method(SPACE._replace(tasks=0))
