"""What all tests share: JAX on the CPU, and where the real data lies."""

import importlib.metadata
import os
import shutil
from pathlib import Path

import pytest

# Before any test imports JAX. JAX_PLATFORMS=cuda pytest runs them elsewhere.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# The tests compile much and run little; these make compiling three times as
# fast. XLA ends the process on a flag that it does not know, so that they are
# for the version alone that they were tried with.
if importlib.metadata.version('jax').startswith('0.10.'):
  os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_backend_optimization_level=0 '
    '--xla_llvm_disable_expensive_passes=true '
    '--xla_cpu_use_fusion_emitters=false '
    '--xla_cpu_parallel_codegen_split_count=1',
  )

REAL_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(scope='session')
def real_data() -> Path:
  """Folder of real tasks, corpora and checkpoints beside the repository."""
  if not REAL_DATA.is_dir():
    pytest.skip('needs the real data at ../shared/data, which is not there')
  return REAL_DATA


@pytest.fixture(scope='session')
def small(tmp_path_factory):
  """A small backbone with its vocabulary, see tests/sample.py."""
  from tests import sample

  folder = tmp_path_factory.mktemp('small')
  return sample.backbone(sample.train_vocabulary(folder))


@pytest.fixture
def overlapping(tmp_path) -> Path:
  """The embedded tasks, and `copied`, tested with what `reviews` trains on.

  Some two of a hundred of its texts are too short to count.
  """
  from prompt_subspace.data.tasks import DEMO

  folder = tmp_path / 'tasks'
  shutil.copytree(DEMO, folder)
  shutil.copytree(DEMO / 'reviews', folder / 'copied')
  shutil.copy(folder / 'reviews/train.tsv', folder / 'copied/test.tsv')
  return folder
