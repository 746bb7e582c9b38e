"""Episodes: tasks and examples of each outer step."""

import collections

import numpy as np
import pytest

from prompt_subspace.data import mixtures
from prompt_subspace.training import algorithm, episodes
from prompt_subspace.training.spec import RowSpec, Settings
from tests import sample

NAMES = ('one', 'two', 'three')
COUNTS = {'train': 6, 'validation': 4, 'test': 3}
SETTINGS = Settings(steps=12, batch_size=2, buckets=2)
# where each task's examples stand in the union
SUPPORT = [set(range(n, n + 6)) for n in (0, 10, 20)]
QUERY = [set(range(n, n + 4)) for n in (6, 16, 26)]


@pytest.fixture(scope='module')
def union(small):
  return mixtures.join(
    [
      sample.task(small.vocabulary, name=name, seed=i, counts=COUNTS)
      for i, name in enumerate(NAMES)
    ]
  )


def row(name='maml-s0', seed=0):
  return RowSpec(name, 'union', seed, 0.3, None)


def owner(numbers, sides):
  """Which task all of these examples are of."""
  (found,) = [i for i, s in enumerate(sides) if set(np.ravel(numbers)) <= s]
  return found


@pytest.mark.parametrize('tasks, steps', [(1, 1), (2, 3), (5, 1)])
def test_an_episode_is_of_one_task(union, tasks, steps):
  plan = episodes.plan(row(), union, SETTINGS, tasks, steps)
  assert plan.indices['support'].shape == (12, tasks, steps, 2)
  assert plan.indices['query'].shape == (12, tasks, 2)
  for support, query in zip(*plan.indices.values(), strict=True):
    for s, q in zip(support, query, strict=True):
      assert owner(s, SUPPORT) == owner(q, QUERY)


def test_tasks_come_in_rounds(union):
  plan = episodes.plan(row(), union, SETTINGS)
  found = [owner(s, SUPPORT) for s in plan.indices['support']]
  assert all(set(found[i : i + 3]) == {0, 1, 2} for i in range(0, 12, 3))
  assert found[:3] != found[3:6] or found[3:6] != found[6:9]


def test_tasks_of_one_step_differ(union):
  plan = episodes.plan(row(), union, SETTINGS, tasks=3)
  for step in plan.indices['support']:
    assert {owner(s, SUPPORT) for s in step} == {0, 1, 2}


def test_tasks_of_one_step_differ_where_rounds_end_within_it(union):
  plan = episodes.plan(row(), union, SETTINGS, tasks=2)
  found = [
    [owner(s, SUPPORT) for s in step] for step in plan.indices['support']
  ]
  assert all(len(set(step)) == 2 for step in found)
  # and each task as often
  assert np.bincount(np.ravel(found)).tolist() == [8, 8, 8]


def test_a_task_shows_all_examples_before_any_twice(union):
  # 12 steps, 3 tasks: 4 episodes of each, of 3 batches of 2: 24 = 4 x 6
  plan = episodes.plan(row(), union, SETTINGS, steps=3)
  seen = collections.Counter(plan.indices['support'].ravel().tolist())
  assert set(seen) == set.union(*SUPPORT) and set(seen.values()) == {4}
  first = [s for s in plan.indices['support'] if owner(s, SUPPORT) == 0][0]
  assert set(first.ravel()) == SUPPORT[0]


def test_without_a_query_support_is_everything(union):
  plan = episodes.plan(row(), union, SETTINGS, steps=5, query=False)
  assert set(plan.indices) == {'support'}
  both = [s | q for s, q in zip(SUPPORT, QUERY, strict=True)]
  assert all(owner(s, both) in range(3) for s in plan.indices['support'])
  assert set(plan.indices['support'].ravel()) == set(range(30))


def test_a_plan_is_of_its_row_and_grows_with_the_steps(union):
  def indices(*name, **changes):
    settings = SETTINGS._replace(**changes)
    return episodes.plan(row(*name), union, settings).indices['support']

  np.testing.assert_array_equal(indices(), indices())
  assert (indices('maml-s1') != indices()).any()
  assert (indices('maml-s0', 1) != indices()).any()
  np.testing.assert_array_equal(indices(steps=30)[:12], indices())


def test_widths_hold_every_example_of_a_step(union):
  settings = SETTINGS._replace(widths=(4, 8, 12, 16))
  plan = episodes.plan(row(), union, settings, tasks=2)
  lengths = algorithm.lengths(union.splits['train'].inputs)
  for step, width in enumerate(plan.widths):
    used = [x[step].ravel() for x in plan.indices.values()]
    assert lengths[np.concatenate(used)].max() <= width
  assert len(set(plan.widths.tolist())) <= 2


def test_a_task_alone_has_no_episodes(small):
  task = sample.task(small.vocabulary)
  with pytest.raises(ValueError, match=r'union of tasks .*, found .invented.'):
    episodes.plan(row(), task, SETTINGS)


def test_a_union_without_validation_has_no_queries(small):
  tasks = [sample.task(small.vocabulary, name=n, counts=COUNTS) for n in 'ab']
  union = mixtures.join(tasks, splits=['train'])
  with pytest.raises(ValueError, match=r"validation .* found only \['train'\]"):
    episodes.plan(row(), union, SETTINGS)
