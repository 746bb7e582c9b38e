"""The plane goes through three codes; what is evaluated is evaluated once."""

import numpy as np
import pytest

from prompt_subspace.unified import landscape


def solutions():
  return np.random.default_rng(0).standard_normal((3, 7))


def test_the_plane_goes_through_the_three_solutions():
  a, b, c = solutions()
  found = landscape.plane([a, b, c])
  assert abs(np.dot(found.u, found.v)) < 1e-12
  np.testing.assert_allclose(
    landscape.codes(found, found.marks), [a, b, c], atol=1e-6
  )
  # v is what of the third is orthogonal to the first axis
  q, _ = np.linalg.qr(np.stack([b - a, c - a], axis=1))
  np.testing.assert_allclose(
    np.abs(found.v @ q[:, 1]), np.linalg.norm(found.v), rtol=1e-10
  )


def test_three_codes_on_a_line_span_no_plane():
  a = np.ones(4)
  with pytest.raises(ValueError, match='not on a line'):
    landscape.plane([a, 2 * a, 3 * a])
  with pytest.raises(ValueError, match='three types.*found 2'):
    landscape.plane([a, 2 * a])


def test_the_grid_is_the_papers():
  points = landscape.grid()
  assert points.shape == (441, 2)
  np.testing.assert_allclose(points[0], [-4, -4])
  np.testing.assert_allclose(points[1], [-3.6, -4])
  np.testing.assert_allclose(points[-1], [4, 4])
  with pytest.raises(ValueError, match='multiple of the step'):
    landscape.grid(1.0, 0.3)


class Count:
  """Scores that only the code decides; counts what is asked."""

  def __init__(self, limit=None):
    self.asked, self.limit = 0, limit

  def __call__(self, kind, codes):
    if self.limit is not None and self.asked >= self.limit:
      raise KeyboardInterrupt
    self.asked += len(codes)
    return [self.value(kind, c) for c in codes]

  @staticmethod
  def value(kind, code):
    return float(np.abs(code).sum()) + {'a': 0, 'b': 100}[kind]


def test_points_are_scored_with_every_type(tmp_path):
  where, points = landscape.plane(solutions()), landscape.grid(1.0, 0.25)
  score = Count()
  path = tmp_path / 'new' / 'points.csv'
  rows = landscape.evaluate(path, where, points, score, ['a', 'b'])
  assert len(rows) == score.asked == 2 * 81
  assert rows == landscape.read(path)
  for row in rows[::17]:
    code = landscape.codes(where, np.array([[row['x'], row['y']]]))[0]
    assert row['score'] == Count.value(row['type'], code)
  # nothing is left to do
  again = Count(limit=0)
  assert landscape.evaluate(path, where, points, again, ['a', 'b']) == rows


def test_a_killed_landscape_goes_on(tmp_path):
  where, points = landscape.plane(solutions()), landscape.grid(1.0, 0.25)
  whole = landscape.evaluate(
    tmp_path / 'whole.csv', where, points, Count(), ['a', 'b']
  )
  path = tmp_path / 'part.csv'
  with pytest.raises(KeyboardInterrupt):
    landscape.evaluate(path, where, points, Count(limit=100), ['a', 'b'])
  done = len(landscape.read(path))
  assert 0 < done < len(whole)
  with path.open('a') as file:
    file.write('0.25,0.')  # half a line
  score = Count()
  assert landscape.evaluate(path, where, points, score, ['a', 'b']) == whole
  assert score.asked == len(whole) - done
  assert path.read_text() == (tmp_path / 'whole.csv').read_text()


def test_a_file_of_another_grid_is_refused(tmp_path):
  where, path = landscape.plane(solutions()), tmp_path / 'points.csv'
  landscape.evaluate(path, where, landscape.grid(1.0, 0.5), Count(), ['a'])
  with pytest.raises(ValueError, match='expected the points of this grid'):
    landscape.evaluate(path, where, landscape.grid(1.0, 0.25), Count(), ['a'])


def test_values_are_means_of_shares():
  rows = [
    {'x': 0.0, 'y': 1.0, 'type': 'a', 'score': 60.0},
    {'x': 0.0, 'y': 1.0, 'type': 'b', 'score': 80.0},
  ]
  best = {'a': 80.0, 'b': 90.0}
  (plain,) = landscape.values(rows, best)
  assert plain == {
    'x': 0.0,
    'y': 1.0,
    'value': pytest.approx((60 / 80 + 80 / 90) / 2),
  }
  (above,) = landscape.values(rows, best, majority=50.0)
  assert above['value'] == pytest.approx((10 / 30 + 30 / 40) / 2)
