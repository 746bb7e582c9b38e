"""Progress of a long job: a bar or log lines for people, scalars on disk.

On a terminal, a tqdm bar with the loss, examples per second and time left;
elsewhere (a log file, CI) the same as a line now and then. With a folder, all
scalars also go to a TensorBoard event file there. That file is written with
tensorboard's record writer directly: its `Writer` and `EventFileWriter` import
TensorFlow wherever it is installed, which the training path must not.
"""

import collections
import math
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

import tqdm
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

# Speeds are taken over this many updates, so that they follow changes and
# forget the first, which contains the compilation.
WINDOW = 20


class EventFile:
  """A TensorBoard event file that takes scalars.

  Args:
    folder: where the file goes; made where it is missing. Every `EventFile`
      has a file of its own, and TensorBoard joins those of one folder.
    start: the steps done when a job resumes. What earlier files hold beyond
      them is what an interrupted job did not keep, and TensorBoard drops it.
  """

  def __init__(self, folder: str | os.PathLike[str], start: int = 0):
    os.makedirs(folder, exist_ok=True)
    # Named as TensorFlow does; the nanoseconds keep two files of one second
    # and one process apart.
    name = (
      f'events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.'
      f'{os.getpid()}.{time.monotonic_ns()}'
    )
    self._records = RecordWriter(open(os.path.join(folder, name), 'xb'))
    self._write(file_version='brain.Event:2')
    if start:
      session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(step=start + 1, session_log=session)
    self.flush()

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Adds name -> value at this step; values are turned into floats."""
    values = [
      summary_pb2.Summary.Value(tag=name, simple_value=float(value))
      for name, value in scalars.items()
    ]
    self._write(step=step, summary=summary_pb2.Summary(value=values))

  def flush(self) -> None:
    """Makes what was written visible to a reader."""
    self._records.flush()

  def close(self) -> None:
    self._records.close()

  def _write(self, **fields: Any) -> None:
    event = event_pb2.Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())


class Progress:
  """Shows and records how far a job is; a context manager that closes itself.

  Args:
    total: steps of the whole job.
    description: what the line starts with, such as 'prompt, 16 rows'.
    log_dir: folder for TensorBoard scalars, of this job only; None writes none.
    start: the steps done when the job resumes; 0 for a fresh one.
    interval: seconds between lines where there is no terminal.
    stream: where the bar or the lines go; standard output by default. A
      stream that is a terminal gets the bar.

  Raises:
    ValueError: a start outside 0..total.
  """

  def __init__(
    self,
    total: int,
    description: str,
    log_dir: str | os.PathLike[str] | None = None,
    *,
    start: int = 0,
    interval: float = 30.0,
    stream: TextIO | None = None,
  ):
    if not 0 <= start <= total:
      raise ValueError(
        f'start: expected a step from 0 to total = {total}, found {start}.'
      )
    self._total, self._description = total, description
    self._step, self._shown_step = start, -1
    self._loss: float | None = None
    # (time, step, examples so far) at the start and after each update.
    self._window = collections.deque(
      [(time.monotonic(), start, 0)], maxlen=WINDOW + 1
    )
    self._interval, self._next_line = interval, -math.inf
    self._stream = sys.stdout if stream is None else stream
    self._events = None if log_dir is None else EventFile(log_dir, start)
    self._closed = False
    self._bar = None
    if self._stream.isatty():
      self._bar = tqdm.tqdm(
        total=total,
        initial=start,
        desc=description,
        file=self._stream,
        dynamic_ncols=True,
        bar_format='{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}'
        '{postfix}',
      )

  def update(
    self, step: int, examples: int, scalars: Mapping[str, Any]
  ) -> None:
    """Reports that `step` steps of the job are done.

    Reading a scalar waits for the device, so call it every few steps rather
    than after each.

    Args:
      step: steps done so far, counted from the start of the whole job.
      examples: how many were trained on since the update before.
      scalars: name -> number (0-d arrays too); 'loss' is the one shown.

    Raises:
      ValueError: a step before the last one, or beyond the total.
    """
    if not self._step <= step <= self._total:
      raise ValueError(
        f'step: expected one from {self._step}, the last update, to total = '
        f'{self._total}; found {step}.'
      )
    scalars = {name: float(value) for name, value in scalars.items()}
    now, seen = time.monotonic(), self._window[-1][2] + examples
    self._step, self._loss = step, scalars.get('loss', self._loss)
    self._window.append((now, step, seen))
    if self._events is not None:
      if examples:
        scalars['examples_per_second'] = self._speeds()[1]
      self._events.write(step, scalars)
      self._events.flush()
    if self._bar is not None:
      self._bar.set_postfix_str(self._status(), refresh=False)
      self._bar.update(step - self._bar.n)
    elif now >= self._next_line:
      self._next_line = now + self._interval
      self._print_line()

  def close(self) -> None:
    """Shows the last state and closes the event file; again: does nothing."""
    if self._closed:
      return
    self._closed = True
    if self._bar is not None:
      self._bar.close()
    elif self._step != self._shown_step:
      self._print_line()
    if self._events is not None:
      self._events.close()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def _speeds(self) -> tuple[float, float]:
    """Steps and examples per second over the window; 0 where unknown."""
    (began, first, seen_first), *_, (now, last, seen_last) = self._window
    seconds = now - began
    if seconds <= 0:
      return 0.0, 0.0
    return (last - first) / seconds, (seen_last - seen_first) / seconds

  def _status(self) -> str:
    """Loss, speed and time left, as far as they are known."""
    parts = [] if self._loss is None else [f'loss {self._loss:.4g}']
    if len(self._window) > 1:
      steps, examples = self._speeds()
      if examples:
        parts.append(f'{examples:.3g} examples/s')
      if steps:
        left = (self._total - self._step) / steps
        parts.append(f'{tqdm.tqdm.format_interval(left)} left')
    return ', '.join(parts)

  def _print_line(self) -> None:
    self._shown_step = self._step
    share = 100 * self._step // max(self._total, 1)
    start = f'{self._description} {share}% {self._step}/{self._total}'
    print(
      ', '.join(filter(None, [start, self._status()])),
      file=self._stream,
      flush=True,
    )
