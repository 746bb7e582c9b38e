"""SeqIO mixtures by name, and streams whose episodes are of one task each."""

import json
import types

import numpy as np
import pytest

from prompt_subspace.backbone import weights
from prompt_subspace.data import seqio_streams

seqio = pytest.importorskip('seqio')

VOCABULARY = str(weights.BUNDLED['mini'] / 'vocab.model')
TASKS = ('reviews', 'topics', 'moods')


def mixed(name='streams', sources=TASKS, **fields):
  return seqio_streams.mixture(name, sources, VOCABULARY, 'demo', **fields)


def test_a_mixture_is_registered_once_and_has_proportional_rates():
  assert mixed(limit=60) == 'streams'
  assert mixed(limit=60) == 'streams'
  found = seqio.MixtureRegistry.get('streams')
  assert sorted(t.name for t in found.tasks) == sorted(
    f'{name}__files' for name in TASKS
  )
  for task in found.tasks:
    size = task.num_input_examples('train')
    assert found.get_rate(task) == min(size, 60)
  data = found.get_dataset({'inputs': 24, 'targets': 6}, 'train', shuffle=False)
  example = next(data.as_numpy_iterator())
  assert example['targets'][-1] == 1
  with pytest.raises(ValueError, match="name: 'streams' is registered"):
    mixed(sources=('reviews',))


def test_mistakes_are_named():
  with pytest.raises(ValueError, match='expected a list of task names'):
    mixed('other', 'reviews')
  with pytest.raises(ValueError, match='no_such_task'):
    mixed('other', ['no_such_task'])


def test_more_tasks_are_registered_by_a_function():
  asked = []

  def register(vocabulary, tfds_data_dir):
    asked.append((vocabulary.size, tfds_data_dir))

  for _ in range(2):
    mixed('with more', register=register, tfds_data_dir='there')
  assert len(asked) == 1
  assert asked[0][1] == 'there'


def config(**fields):
  mixed()
  known = {
    'mixture_or_task_name': 'streams',
    'task_feature_lengths': {'inputs': 24, 'targets': 6},
    'split': 'train',
    'batch_size': 16,
    'shuffle': True,
    'seed': 3,
    'use_cached': False,
  }
  return types.SimpleNamespace(**{**known, **fields})


def stream(cfg, shard=0, shards=1, size=4):
  made = seqio_streams.episodes(
    cfg, shard, shards, seqio.EncDecFeatureConverter, size=size
  )
  return made.as_numpy_iterator()


def owners():
  """First tokens of each example -> its task."""
  known = {}
  for name in TASKS:
    task = seqio.TaskRegistry.get(f'{name}__files')
    lengths = {'inputs': 24, 'targets': 6}
    for example in task.get_dataset(lengths, 'train', shuffle=False):
      known[tuple(example['inputs'].numpy()[:24].tolist())] = name
  return known


def test_the_examples_of_an_episode_are_of_one_task():
  known, seen, distinct = None, [], set()
  batches = stream(config())
  known = owners()
  for _ in range(20):
    batch = next(batches)
    assert batch['encoder_input_tokens'].shape == (16, 24)
    texts = [
      tuple(row[row > 0].tolist()) for row in batch['encoder_input_tokens']
    ]
    distinct.update(texts)
    tasks = [known[text] for text in texts]
    for first in range(0, 16, 4):
      assert len(set(tasks[first : first + 4])) == 1
      seen.append(tasks[first])
    # numbered in the order of their names
    numbers = [sorted(TASKS).index(task) for task in tasks]
    assert batch['task_number'].tolist() == [[n] for n in numbers]
  # 80 episodes, uniformly from three tasks
  counts = [seen.count(name) for name in TASKS]
  assert min(counts) > 13
  assert len(distinct) > 60


def test_the_number_of_tasks_must_be_the_one_asked_for():
  with pytest.raises(ValueError, match='tasks: expected 2 sources, found 3'):
    seqio_streams.episodes(
      config(), 0, 1, seqio.EncDecFeatureConverter, size=4, tasks=2
    )


def test_shards_differ_and_a_seed_repeats():
  one, again = (next(stream(config())) for _ in range(2))
  np.testing.assert_array_equal(
    one['encoder_input_tokens'], again['encoder_input_tokens']
  )
  parts = [next(stream(config(), shard, 2)) for shard in range(2)]
  assert parts[0]['encoder_input_tokens'].shape == (8, 24)
  assert not np.array_equal(*(p['encoder_input_tokens'] for p in parts))
  other = next(stream(config(seed=4)))
  assert not np.array_equal(
    one['encoder_input_tokens'], other['encoder_input_tokens']
  )


def test_batches_are_whole_episodes_on_every_shard():
  with pytest.raises(ValueError, match='multiple of 4 shards x episodes of 8'):
    stream(config(), 0, 4, 8)


def test_every_kind_of_file_keeps_its_splits(tmp_path):
  """As JSONL, and as CrossFit's sets, whose validation file is named dev."""
  rows = tmp_path / 'rows'
  rows.mkdir()
  task = {'input': '{text}', 'target': '{answer}'}
  (rows / 'task.json').write_text(json.dumps(task))
  for split in ('train', 'validation'):
    line = json.dumps({'text': f'of {split}', 'answer': 'yes'})
    (rows / f'{split}.jsonl').write_text(line + '\n')
  crossfit = tmp_path / 'glue-sst2'
  crossfit.mkdir()
  for part in ('train', 'dev', 'test'):
    lines = 'a warm film\tpositive\na dull film\tnegative\n'
    (crossfit / f'glue-sst2_16_13_{part}.tsv').write_text(lines)
  seqio_streams.mixture(
    'of files', ['rows', 'glue-sst2_16_13'], VOCABULARY, str(tmp_path)
  )
  found = seqio.MixtureRegistry.get('of files')
  assert {t.name: sorted(t.splits) for t in found.tasks} == {
    'rows__files': ['train', 'validation'],
    'glue_sst2_16_13__files': ['test', 'train', 'validation'],
  }
