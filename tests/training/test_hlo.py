"""Collectives and operations are counted as often as their loops run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.training import hlo

# two all-reduces of 8 numbers, run three times by a loop inside a call, and an
# all-gather that was started, outside of it
TEXT = """HloModule m, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} all-reduce(%in), channel_id=1, to_apply=%add
  %y = (f32[8]{0}, bf16[4,2]{1,0}) all-reduce(%x, %z), to_apply=%add
  ROOT %t = (s32[], f32[8]) tuple(%i, %x)
}

%condition (p: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%outer (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%init), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %g = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), dimensions={0}
  %c = f32[8]{0} call(%p), to_apply=%outer
}
"""


def test_collectives_in_loops_count_as_often_as_they_run():
  assert hlo.collectives(TEXT) == {
    # 3 x (8 x 4 bytes + 8 x 4 + 8 x 2)
    'all-reduce': hlo.Collective(6, 3 * 80),
    # what arrives, not what is sent
    'all-gather': hlo.Collective(1, 64),
  }
  with pytest.raises(ValueError, match='expected an HLO module'):
    hlo.collectives('nothing')


def test_operations_are_those_of_the_products():
  x, w = jnp.zeros((3, 5)), jnp.zeros((5, 5))

  def layers(x, w):
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=7)[0]

  one = 2 * 3 * 5 * 5
  assert hlo.operations(jax.make_jaxpr(layers)(x, w)) == 7 * one
  # with respect to x, the way back is as dear as the way there
  grad = jax.make_jaxpr(jax.grad(lambda x: layers(x, w).sum()))(x)
  assert hlo.operations(grad) == 2 * 7 * one
  # inside jit, vmap and a branch
  many = jnp.zeros((4, 3, 5))

  def branch(x):
    return jax.lax.cond(x.sum() > 0, lambda: layers(x, w), lambda: x)

  assert hlo.operations(jax.make_jaxpr(jax.jit(branch))(x)) == 7 * one
  batched = jax.make_jaxpr(jax.vmap(lambda x: layers(x, w)))(many)
  assert hlo.operations(batched) == 4 * 7 * one


def test_operations_are_those_of_xla_where_nothing_loops():
  random = np.random.default_rng(0)
  a, b = random.normal(size=(2, 6, 8)), random.normal(size=(2, 8, 10))

  def f(a, b):
    return jnp.einsum('bij,bjk->bik', a, b)

  found = jax.jit(f).lower(a, b).compile().cost_analysis()['flops']
  assert hlo.operations(jax.make_jaxpr(f)(a, b)) == found
