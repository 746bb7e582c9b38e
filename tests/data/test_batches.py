"""The plan of batches: fair, the same alone and beside others, few paddings."""

import itertools

import numpy as np
import pytest

from prompt_subspace.data import batches


def lengths_of(count: int, seed: int = 0, longest: int = 60):
  """Lengths with a long tail, as those of sentences."""
  random = np.random.default_rng(seed)
  drawn = np.round(np.exp(random.normal(2.5, 0.6, count))).astype(int)
  return np.clip(drawn, 2, longest)


def make_plan(lengths, steps, key=(0, 7), batch_size=4, count=3):
  edges = batches.choose_edges(lengths, count)
  return batches.plan(lengths, edges, batch_size, steps, key)


def test_every_example_fits_the_width_of_its_step():
  lengths = lengths_of(90)
  plan = make_plan(lengths, 200)
  assert plan.indices.shape == (200, 4) and plan.widths.shape == (200,)
  assert (lengths[plan.indices] <= plan.widths[:, None]).all()
  assert len(set(plan.widths.tolist())) == 3


def test_each_example_of_a_bucket_is_seen_once_before_any_is_seen_again():
  lengths = lengths_of(90)
  plan = make_plan(lengths, 300)
  for width in set(plan.widths.tolist()):
    stream = plan.indices[plan.widths == width].reshape(-1)
    members = np.unique(stream)
    assert len(stream) > 2 * len(members)
    epochs = len(stream) // len(members)
    for epoch in range(epochs):
      seen = stream[epoch * len(members) : (epoch + 1) * len(members)]
      np.testing.assert_array_equal(np.sort(seen), members)
    first, second = (
      stream[: len(members)],
      stream[len(members) :][: len(members)],
    )
    assert (first != second).any(), 'each epoch has an order of its own'
  assert set(plan.indices.reshape(-1).tolist()) == set(range(90))


def test_buckets_are_used_as_often_as_they_have_examples():
  lengths = lengths_of(90)
  groups = batches.buckets(lengths, batches.choose_edges(lengths, 3), 4)
  plan = make_plan(lengths, 500)
  for edge, members in groups:
    share = (plan.widths == edge).mean()
    assert share == pytest.approx(len(members) / 90, abs=0.01)


def test_a_longer_plan_starts_with_the_shorter_one():
  lengths = lengths_of(50)
  short, long = make_plan(lengths, 37), make_plan(lengths, 400)
  np.testing.assert_array_equal(long.indices[:37], short.indices)
  np.testing.assert_array_equal(long.widths[:37], short.widths)


def test_the_key_alone_decides_the_order():
  lengths = lengths_of(50)
  plan = make_plan(lengths, 30, key=(3, 11))
  np.random.default_rng(0).random(5)  # nothing global plays a part
  again = make_plan(lengths, 30, key=(3, 11))
  np.testing.assert_array_equal(plan.indices, again.indices)
  for other in ((4, 11), (3, 12), (11, 3)):
    different = make_plan(lengths, 30, key=other)
    assert (plan.indices != different.indices).any()
    # runs that share a step need the same width at the same time
    np.testing.assert_array_equal(plan.widths, different.widths)


def test_fewer_examples_than_a_batch_are_repeated():
  plan = make_plan(np.array([3, 9, 4]), 6, batch_size=8)
  counts = np.bincount(plan.indices.reshape(-1), minlength=3)
  np.testing.assert_array_equal(counts, [16, 16, 16])


def test_no_examples_are_an_error():
  with pytest.raises(ValueError, match='examples: expected at least one'):
    batches.plan(np.zeros(0, int), (8,), 4, 3, (0, 0))


@pytest.mark.parametrize('count', [1, 2, 3, 4])
@pytest.mark.parametrize('seed', range(4))
def test_edges_have_the_least_padding(count, seed):
  lengths = lengths_of(40, seed, longest=100)
  known = [e for e in batches.EDGES if e <= 128]

  def padded(edges):
    return sum(min(e for e in edges if e >= n) for n in lengths)

  every = (
    edges
    for size in range(1, count + 1)
    for edges in itertools.combinations(known, size)
    if max(edges) >= max(lengths)
  )
  least = min(padded(edges) for edges in every)
  chosen = batches.choose_edges(lengths, count)
  assert len(chosen) <= count and list(chosen) == sorted(chosen)
  assert padded(chosen) == least


def test_an_input_beyond_the_last_edge_gets_its_own():
  longest = batches.EDGES[-1] + 5
  lengths = np.array([longest, 7])
  assert batches.choose_edges(lengths, 2) == (8, longest)
  assert batches.round_up(longest) == longest
  assert batches.round_up(8) == 8 and batches.round_up(9) == 16


def test_small_buckets_join_the_next_larger_one():
  lengths = np.array([5, 6, 7, 20, 30, 31, 60])
  groups = batches.buckets(lengths, (8, 24, 32, 64), 2)
  assert [(e, m.tolist()) for e, m in groups] == [
    (8, [0, 1, 2]),
    # one of 20 tokens, with those of 30 and 31; and the longest, alone
    (64, [3, 4, 5, 6]),
  ]


def test_examples_that_no_edge_holds_are_an_error():
  with pytest.raises(ValueError, match='edges: .* 9 tokens'):
    batches.buckets(np.array([3, 9]), (4, 8), 1)


def test_padding_share_counts_positions():
  widths = np.array([[8, 8], [16, 16]])
  used = np.array([[8, 4], [10, 2]])
  assert batches.padding_share(used, widths) == pytest.approx(1 - 24 / 48)
  assert batches.padding_share(np.zeros(0), np.zeros(0)) == 0.0


@pytest.mark.parametrize('count', [1, 3, 40])
def test_in_order_holds_every_example_once_but_for_what_fills_up(count):
  lengths = lengths_of(count)
  found = batches.in_order(lengths, 4, batches.choose_edges(lengths, 3))
  seen = []
  for width, indices in found:
    assert indices.shape == (4,)
    assert (lengths[indices] <= width).all()
    kept = list(dict.fromkeys(indices.tolist()))
    filled = indices.tolist()[len(kept) :]
    assert filled == [kept[0]] * len(filled)
    seen += kept
  assert sorted(seen) == list(range(count))
