"""Similarities: against their definitions in plain loops; on real prompts."""

import time

import numpy as np
import pytest

from prompt_subspace.bank import similarity


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def by_definition(metric, one, two):
  """The formulas, in float64 and with loops."""
  one, two = one.astype(np.float64), two.astype(np.float64)
  if metric == 'average':
    return cosine(one.mean(axis=0), two.mean(axis=0))
  if metric == 'token':
    return np.mean([cosine(a, b) for a in one for b in two])
  bases = []
  for x in (one, two):
    values, columns = np.linalg.eigh(x.T @ x)
    order = np.argsort(values)[::-1]
    total, kept = 0.0, []
    for i in order:
      kept.append(columns[:, i])
      total += values[i]
      if total >= similarity.ENERGY * values.sum():
        break
    bases.append(np.array(kept))
  products = [(a @ b) ** 2 for a in bases[0] for b in bases[1]]
  return np.sqrt(np.sum(products) / min(map(len, bases)))


@pytest.fixture(scope='module')
def prompts():
  random = np.random.default_rng(0)
  scale = np.exp(random.standard_normal((7, 1, 12)))
  shift = random.standard_normal((7, 1, 12))
  noise = random.standard_normal((7, 5, 12))
  return (noise * scale + shift).astype(np.float32)


@pytest.mark.parametrize('metric', similarity.SIMILARITIES)
def test_similarities_are_what_their_formulas_say(prompts, metric, monkeypatch):
  # two prompts at a time, so that the last chunk is not full
  monkeypatch.setattr(similarity, 'CHUNK_BYTES', 2 * prompts[0].nbytes)
  wanted = [[by_definition(metric, a, b) for b in prompts] for a in prompts]
  function = similarity.SIMILARITIES[metric]
  for query, row in zip(prompts, wanted, strict=True):
    # the Gram matrices are float32
    np.testing.assert_allclose(function(query, prompts), row, atol=1e-5)
  found = similarity.matrix(prompts, metric)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  np.testing.assert_array_equal(found, found.T)


def test_a_subspace_in_another_is_entirely_similar():
  random = np.random.default_rng(1)
  axes = np.linalg.qr(random.standard_normal((20, 20)))[0].T
  wide, narrow, apart = axes[:6], axes[2:5], axes[6:9]
  one = similarity.bases(wide[None].astype(np.float32), energy=1.0)
  many = np.stack([narrow, apart]).astype(np.float32)
  found = similarity.overlap(one, similarity.bases(many, energy=1.0))
  assert one.ranks == [6]
  np.testing.assert_allclose(found[0], [1.0, 0.0], atol=1e-6)


def test_scale_does_not_matter(prompts):
  for function in similarity.SIMILARITIES.values():
    np.testing.assert_allclose(
      function(3 * prompts[0], 0.1 * prompts),
      function(prompts[0], prompts),
      atol=1e-5,
    )


def test_vectors_of_a_prompt_and_of_anything_else():
  encoder, decoder = np.ones((3, 4)), np.zeros((2, 4))
  assert similarity.vectors({'encoder': encoder}).shape == (3, 4)
  both = similarity.vectors({'decoder': decoder, 'encoder': encoder})
  assert both.shape == (5, 4) and both[:3].all() and not both[3:].any()
  lora = {'encoder': {'a': np.ones((2, 3))}, 'decoder': {'b': np.ones(5)}}
  assert similarity.vectors(lora).shape == (1, 11)


def test_different_shapes_are_refused():
  with pytest.raises(
    ValueError, match=r'one shape, found .*\(2, 4\), \(3, 4\)'
  ):
    similarity.matrix([np.ones((2, 4)), np.ones((3, 4))])
  with pytest.raises(ValueError, match='metric: expected one of .*subspace'):
    similarity.matrix(np.ones((2, 3, 4)), 'nosuch')


def test_a_large_bank_is_ranked_quickly():
  """A tenth of 10,000 prompts of [100, 768], in less than a tenth of 2 s."""
  random = np.random.default_rng(0)
  bank = random.standard_normal((1000, 100, 768), dtype=np.float32)
  found = similarity.bases(bank)
  ways = {
    'average': lambda: similarity.average(bank[0], bank),
    'token': lambda: similarity.token(bank[0], bank),
    # after loading, which decomposes every prompt
    'subspace': lambda: similarity.overlap(similarity.bases(bank[:1]), found),
  }
  for metric, rank in ways.items():
    seconds = []
    for _ in range(5):
      began = time.perf_counter()
      rank()
      seconds.append(time.perf_counter() - began)
    # twice the time, for a machine that is busy with other tests
    assert min(seconds) < 0.4, metric


GROUPS = [
  ('sst2', 'imdb', 'movierationales'),
  ('laptop', 'restaurant', 'tweetevalsentiment'),
  ('mrpc', 'qqp'),
  ('mnli', 'snli'),
  ('ethicsdeontology', 'ethicsjustice'),
  ('samsum', 'multi_news'),
]


@pytest.fixture(scope='module')
def real(real_data):
  """{task: prompt} of T5-base."""
  folder = real_data / 'prompts' / 't5_base'
  return {p.stem: np.load(p, allow_pickle=False) for p in folder.glob('*.npy')}


# the per-token average keeps all groups but the first together
@pytest.mark.parametrize(
  'metric, group',
  [
    (metric, group)
    for metric in similarity.SIMILARITIES
    for group in (GROUPS[1:] if metric == 'token' else GROUPS)
  ],
)
def test_known_groups_are_nearest_neighbours(real, group, metric):
  names = sorted(real)
  scores = similarity.matrix([real[n] for n in names], metric)
  for name in group:
    i = names.index(name)
    order = [names[j] for j in np.argsort(-scores[i]) if j != i]
    assert set(order[: len(group) - 1]) == set(group) - {name}, order[:4]
