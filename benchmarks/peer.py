"""One measurement of Hugging Face PEFT, in a process of its own.

python -m benchmarks.peer FOLDER CASE

It runs on what `inputs` wrote and imports neither JAX nor this library.
"""

import json
import pathlib
import sys

import numpy as np
import peft
import torch
from safetensors import torch as safetensors_torch

from benchmarks import clock
from benchmarks.cases import Case
from benchmarks.transformers_t5 import base_model

RATE = 1e-3
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'


def peft_config(method: str, config):
  """Returns PEFT's settings of one of our methods."""
  task = {'task_type': 'SEQ_2_SEQ_LM'}
  if method.startswith('prompt'):
    return peft.PromptTuningConfig(
      num_virtual_tokens=int(method.split()[-1]),
      num_transformer_submodules=1,  # by default a decoder prompt, too
      **task,
    )
  if method == 'lora':
    return peft.LoraConfig(
      r=8,
      lora_alpha=12.8,
      lora_dropout=0.0,
      target_modules=['q', 'v'],
      **task,
    )
  return peft.PrefixTuningConfig(
    num_virtual_tokens=20,
    token_dim=config.num_heads * config.d_kv,  # else the width, which differs
    num_layers=config.num_decoder_layers,
    num_attention_heads=config.num_heads,
    **task,
  )


class Side:
  """A model with its trained parameters, and the data of a case."""

  def __init__(self, folder: pathlib.Path, case: Case):
    self.case = case
    with np.load(folder / f'{case.slug}.npz') as stored:
      self.data = {
        k: torch.from_numpy(np.array(v)).to(DEVICE) for k, v in stored.items()
      }
    place = folder / case.size
    self.model = base_model(place)
    if case.method != 'full':
      settings = peft_config(case.method, self.model.config)
      self.model = peft.get_peft_model(self.model, settings)
    self.model.to(DEVICE).train()
    self.start_file = place / f'{case.method}.peft.safetensors'
    self.trained = {
      name: p for name, p in self.model.named_parameters() if p.requires_grad
    }
    self.restart()

  def restart(self):
    """Puts the starting point in; returns a fresh optimiser."""
    start = safetensors_torch.load_file(self.start_file)
    with torch.no_grad():
      for name, p in self.trained.items():
        short = name.removeprefix('base_model.model.')
        if self.case.method == 'full':
          continue
        p.copy_(start['table' if 'table' in start else short])
    return torch.optim.Adam(self.trained.values(), lr=RATE)

  def advance(self, optimizer, inputs, targets) -> float:
    """One step."""
    optimizer.zero_grad()
    out = self.model(
      input_ids=inputs,
      attention_mask=(inputs > 0).long(),
      labels=targets.masked_fill(targets == 0, -100),
    )
    out.loss.backward()
    optimizer.step()
    return float(out.loss.detach())


def step(side: Side) -> dict:
  """Times single training steps."""
  optimizer = side.restart()
  inputs, targets = (side.data[k].long() for k in ('inputs', 'targets'))
  times, losses = [], []
  for _ in range(1 + side.case.steps):
    loss, seconds = clock.timed(
      lambda: side.advance(optimizer, inputs, targets)
    )
    times.append(seconds)
    losses.append(loss)
  return {'first': times[0], 'times': times[1:], 'losses': losses}


def runs(side: Side) -> dict:
  """Times training runs one after another; a batch is as wide as it must be."""
  case = side.case
  inputs, targets = (side.data[k].long() for k in ('inputs', 'targets'))
  indices = side.data['indices'].long()
  lengths = (inputs > 0).sum(dim=1)

  def train(row, numbers):
    optimizer, losses = side.restart(), []
    for number in numbers:
      members = indices[number, row]
      width = int(lengths[members].max())
      losses.append(
        side.advance(optimizer, inputs[members, :width], targets[members])
      )
    return losses

  _, first = clock.timed(lambda: train(0, range(2)))
  losses, seconds = clock.timed(
    lambda: [train(row, range(case.steps)) for row in range(case.rows)]
  )
  return {'first': first, 'times': [seconds], 'losses': sum(losses, [])}


def generate(side: Side) -> dict:
  """Times greedy generation."""
  inputs = side.data['inputs'].long()

  def once():
    out = side.model.generate(
      input_ids=inputs,
      attention_mask=(inputs > 0).long(),
      max_new_tokens=side.case.target,
      do_sample=False,
      num_beams=1,
    )
    return out[:, 1:]  # without the start token

  return _answers(side, once)


def rank(side: Side) -> dict:
  """Times the scoring of choices: one forward pass for each, as PEFT offers."""
  inputs, choices = side.data['inputs'].long(), side.data['choices'].long()

  def once():
    scores = []
    for choice in choices:
      labels = choice.expand(len(inputs), -1).contiguous()
      logits = side.model(
        input_ids=inputs, attention_mask=(inputs > 0).long(), labels=labels
      ).logits
      each = torch.log_softmax(logits, dim=-1)
      each = each.gather(-1, labels[..., None])[..., 0]
      scores.append(each.sum(dim=1))
    return torch.stack(scores, dim=1).argmax(dim=1)

  return _answers(side, once)


def _answers(side, once) -> dict:
  side.model.eval()
  with torch.no_grad():
    # to the host, so that the clock sees the end of the work
    _, first = clock.timed(lambda: once().cpu())
    calls = [clock.timed(lambda: once().cpu()) for _ in range(side.case.steps)]
  return {
    'first': first,
    'times': [seconds for _, seconds in calls],
    'answers': calls[-1][0].tolist(),
  }


def measure(folder: pathlib.Path, case: Case) -> dict:
  """Does the work of a case and returns what was measured."""
  side, loading = clock.timed(lambda: Side(folder, case))
  loaded = clock.peak_mib()
  works = {'step': step, 'runs': runs, 'rank': rank, 'generate': generate}
  found = works[case.work](side)
  on_device = DEVICE == 'cuda' and torch.cuda.max_memory_allocated()
  return {
    **found,
    **clock.costs(loading, loaded, on_device),
    'threads': torch.get_num_threads(),
  }


if __name__ == '__main__':
  place, fields = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  print(json.dumps(measure(place, Case(**fields))))
