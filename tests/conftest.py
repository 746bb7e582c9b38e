"""What all tests share: JAX on the CPU, and where the real data lies."""

import os
from pathlib import Path

import pytest

# Before any test imports JAX. JAX_PLATFORMS=cuda pytest runs them elsewhere.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

REAL_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def real_data() -> Path:
  """Folder of real tasks, corpora and checkpoints beside the repository."""
  if not REAL_DATA.is_dir():
    pytest.skip('needs the real data at ../shared/data, which is not there')
  return REAL_DATA
