"""What tests of pictures share: nothing may stay behind a drawing."""

import warnings

import matplotlib
import matplotlib.pyplot
import pytest


@pytest.fixture
def nothing_leaks():
  """No warning, no open figure, no changed setting."""
  settings = dict(matplotlib.rcParams)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    yield
  assert matplotlib.pyplot.get_fignums() == []
  assert dict(matplotlib.rcParams) == settings
