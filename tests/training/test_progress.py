"""Progress: what people see, and what TensorBoard reads back."""

import io
import json
import subprocess
import sys
import time
import types

import jax.numpy as jnp
import pytest

from prompt_subspace.training import progress
from prompt_subspace.training.progress import EventFile, Progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands still until it is set."""
  clock = types.SimpleNamespace(now=100.0)
  fake = types.SimpleNamespace(
    monotonic=lambda: clock.now,
    monotonic_ns=time.monotonic_ns,
    time=time.time,
  )
  monkeypatch.setattr(progress, 'time', fake)
  return clock


def test_without_a_terminal_there_is_a_line_now_and_then(clock):
  stream = io.StringIO()
  with Progress(200, 'prompt, 4 rows', interval=30, stream=stream) as shown:
    for step in range(10, 101, 10):
      clock.now += 5
      shown.update(step, examples=160, scalars={'loss': 2.0 - step / 100})
  # Every 5 s 10 steps and 160 examples: 32 examples/s and 2 steps/s.
  assert stream.getvalue().splitlines() == [
    'prompt, 4 rows 5% 10/200, loss 1.9, 32 examples/s, 01:35 left',
    'prompt, 4 rows 35% 70/200, loss 1.3, 32 examples/s, 01:05 left',
    'prompt, 4 rows 50% 100/200, loss 1, 32 examples/s, 00:50 left',
  ]


def test_on_a_terminal_there_is_a_bar(clock):
  stream = Terminal()
  with Progress(200, 'prompt', start=50, stream=stream) as shown:
    clock.now += 10
    shown.update(100, examples=400, scalars={'loss': jnp.float32(1.5)})
  last = stream.getvalue().split('\r')[-1]
  assert last.startswith('prompt  50%|')
  assert last.endswith('| 100/200, loss 1.5, 40 examples/s, 00:20 left\n')


def test_speeds_forget_the_compilation(clock):
  stream = io.StringIO()
  with Progress(1000, 'p', interval=0, stream=stream) as shown:
    clock.now += 600
    shown.update(1, examples=8, scalars={})
    assert '0.0133 examples/s' in stream.getvalue()
    for step in range(2, 40):
      clock.now += 1
      shown.update(step, examples=8, scalars={})
  assert stream.getvalue().splitlines()[-1] == (
    'p 3% 39/1000, 8 examples/s, 16:01 left'
  )


def test_what_has_no_examples_has_no_speed(clock):
  stream = io.StringIO()
  with Progress(10, 'codes', interval=0, stream=stream) as shown:
    clock.now += 3
    shown.update(1, 0, {})
  assert stream.getvalue() == 'codes 10% 1/10, 00:27 left\n'


def test_steps_go_forward_within_the_total():
  with pytest.raises(ValueError, match='start.*0 to total = 10, found 11'):
    Progress(10, 'p', start=11, stream=io.StringIO())
  with Progress(10, 'p', stream=io.StringIO()) as shown:
    shown.update(5, 1, {})
    shown.update(5, 0, {'validation': 50.0})
    with pytest.raises(ValueError, match='found 4'):
      shown.update(4, 1, {})
    with pytest.raises(ValueError, match='found 11'):
      shown.update(11, 1, {})


def test_closing_twice_says_nothing_more():
  stream = io.StringIO()
  shown = Progress(10, 'p', interval=0, stream=stream)
  shown.update(10, 1, {'loss': 0.5})
  said = stream.getvalue()
  shown.close()
  shown.close()
  assert stream.getvalue() == said


def test_a_failing_job_still_shows_and_keeps_its_last_state(tmp_path):
  stream = io.StringIO()
  with pytest.raises(KeyboardInterrupt):
    with Progress(10, 'p', tmp_path, interval=1e9, stream=stream) as shown:
      shown.update(1, 1, {'loss': 0.5})
      shown.update(2, 1, {'loss': 0.25})
      raise KeyboardInterrupt
  assert '2/10, loss 0.25' in stream.getvalue()
  assert read_events(tmp_path)['loss'] == [[1, 0.5], [2, 0.25]]


def test_tensorboard_reads_back_every_scalar(tmp_path):
  with Progress(10, 'p', tmp_path / 'new', stream=io.StringIO()) as shown:
    shown.update(1, 8, {'loss': 1.5, 'rows/0/loss': 2.5})
    shown.update(3, 8, {'loss': jnp.float32(0.5), 'bad': float('nan')})
    # Visible while the job runs, not only after it.
    during = read_events(tmp_path / 'new')
  assert during['loss'] == [[1, 1.5], [3, 0.5]]
  assert during['rows/0/loss'] == [[1, 2.5]]
  assert [step for step, _ in during['examples_per_second']] == [1, 3]
  assert during['bad'][0][1] != during['bad'][0][1]


def test_a_resumed_job_replaces_the_steps_that_were_lost(tmp_path):
  with Progress(10, 'p', tmp_path, stream=io.StringIO()) as shown:
    for step in (2, 4, 6):
      shown.update(step, 0, {'loss': float(step)})
  # Files are read in the order of their names, which begin with the second.
  time.sleep(1.1)
  with Progress(10, 'p', tmp_path, start=4, stream=io.StringIO()) as shown:
    shown.update(5, 0, {'loss': 50.0})
  assert read_events(tmp_path)['loss'] == [
    [2, 2.0],
    [4, 4.0],
    [5, 50.0],
  ]


def test_two_files_of_one_moment_do_not_collide(tmp_path):
  first, second = EventFile(tmp_path), EventFile(tmp_path)
  first.write(1, {'a': 1.0})
  second.write(1, {'b': 2.0})
  first.close()
  second.close()
  assert len(list(tmp_path.iterdir())) == 2


def test_tensorflow_is_not_imported(tmp_path):
  script = """
import sys
from prompt_subspace.training.progress import Progress
with Progress(2, 'p', sys.argv[1]) as shown:
  shown.update(1, 8, {'loss': 1.0})
loaded = [name for name in sys.modules if name.split('.')[0] == 'tensorflow']
sys.exit(f'imported: {loaded[:3]}' if loaded else 0)
"""
  done = subprocess.run(
    [sys.executable, '-c', script, str(tmp_path)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('p 50% 1/2, loss 1, ')


def read_events(folder):
  """name -> [[step, value], ...], as TensorBoard's own reader sees a folder.

  In another process, where TensorBoard takes its stand-in for TensorFlow: it
  reads the same, and importing the real one takes many seconds.
  """
  script = """
import json, sys, types
sys.modules['tensorboard.compat.notf'] = types.ModuleType('notf')
from tensorboard.backend.event_processing import event_accumulator
events = event_accumulator.EventAccumulator(sys.argv[1])
events.Reload()
print(json.dumps({
  tag: [[event.step, event.value] for event in events.Scalars(tag)]
  for tag in events.Tags()['scalars']
}))
"""
  done = subprocess.run(
    [sys.executable, '-c', script, str(folder)],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
