"""Freed memory goes back to the system, at once and after compilations."""

import jax
import jax.numpy as jnp
import pytest

from prompt_subspace import heap


def test_compilations_are_heard_of(monkeypatch):
  calls = []
  monkeypatch.setattr(heap, '_trim', lambda: calls.append)
  monkeypatch.setattr(heap, 'LITTLE', 0.0)
  heap.give_back()
  assert calls == [0]
  jax.jit(lambda x: jnp.sin(x) + len(calls))(jnp.arange(3.0))
  assert len(calls) > 1
  monkeypatch.setattr(heap, 'LITTLE', 1e9)
  heard = len(calls)
  jax.jit(lambda x: jnp.cos(x) + heard)(jnp.arange(3.0))
  assert len(calls) == heard


def test_nothing_is_done_without_glibc(monkeypatch):
  monkeypatch.setattr(heap, '_trim', lambda: None)
  monkeypatch.setattr(
    heap, '_listen', lambda: pytest.fail('nothing to do after compilations')
  )
  heap.give_back()


@pytest.mark.skipif(heap._trim() is None, reason='no malloc_trim')
def test_freed_memory_leaves_the_process():
  def resident():
    with open('/proc/self/statm', encoding='ascii') as file:
      return int(file.read().split()[1]) * 4096

  # some of many small blocks stay, in every part of the heap: malloc keeps it
  blocks = [bytearray(1000) for _ in range(60_000)]
  kept = blocks[::40]
  del blocks
  before = resident()
  heap.give_back()
  assert before - resident() > 30e6, len(kept)


# -- mappings


@pytest.mark.skipif(not heap.MAPPED.exists(), reason='no Linux')
def test_programs_are_dropped_before_the_mappings_run_out(
  tmp_path, monkeypatch
):
  allowed = tmp_path / 'max_map_count'
  monkeypatch.setattr(heap, 'ALLOWED', allowed)
  traced = []

  @jax.jit
  def double(x):
    traced.append(x.shape)
    return 2 * x

  def run():
    return double(jnp.arange(3.0)).tolist()

  mapped = heap.MAPPED.read_bytes().count(b'\n')
  assert run() == run() == [0.0, 2.0, 4.0]
  allowed.write_text(f'{4 * mapped}\n')
  assert not heap.drop_programs()
  assert run() == [0.0, 2.0, 4.0] and len(traced) == 1
  allowed.write_text(f'{mapped}\n')
  assert heap.drop_programs()
  assert run() == [0.0, 2.0, 4.0] and len(traced) == 2


def test_programs_are_kept_where_mappings_are_not_counted(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(heap, 'ALLOWED', tmp_path / 'none')
  assert not heap.drop_programs()
