"""One measurement of MAML with PyTorch, in a process of its own.

python -m benchmarks.meta_peer FOLDER CASE

A prompt before the inputs of Hugging Face's T5, whose weights are frozen; its
attention is the one that has a second derivative. As in `peer`, nothing of JAX
or of this library is imported.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from safetensors import torch as safetensors_torch

from benchmarks import clock
from benchmarks.cases import INNER_RATE, Case
from benchmarks.transformers_t5 import base_model

RATE = 1e-3


class Prompted(torch.nn.Module):
  """A frozen model with a trained prompt; returns its loss."""

  def __init__(self, model, prompt: torch.Tensor):
    super().__init__()
    self.model = model.requires_grad_(False)
    self.prompt = torch.nn.Parameter(prompt)

  def forward(self, inputs, targets):
    embedded = self.model.get_input_embeddings()(inputs)
    prompt = self.prompt.expand(len(inputs), -1, -1)
    mask = torch.ones(prompt.shape[:2], dtype=torch.long)
    return self.model(
      inputs_embeds=torch.cat([prompt, embedded], dim=1),
      attention_mask=torch.cat([mask, (inputs > 0).long()], dim=1),
      labels=targets.masked_fill(targets == 0, -100),
      use_cache=False,
    ).loss


class Side:
  """A prompted model, and the data of a case."""

  def __init__(self, folder: pathlib.Path, case: Case):
    self.case = case
    with np.load(folder / f'{case.slug}.npz') as stored:
      data = {k: torch.from_numpy(np.array(v)) for k, v in stored.items()}
    self.support, self.query = (
      tuple(data[f'{part} {k}'].long() for k in ('inputs', 'targets'))
      for part in ('support', 'query')
    )
    place = folder / case.size
    model = base_model(place, attn_implementation='eager')
    start = safetensors_torch.load_file(
      place / f'{case.method}.peft.safetensors'
    )
    self.module = Prompted(model, start['table']).train()

  def loss(self, prompt, batch):
    """The loss of a prompt that is not the module's own."""
    return torch.func.functional_call(self.module, {'prompt': prompt}, batch)


def by_autograd(side: Side, second_order: bool = True):
  """Gradients of gradients by torch.autograd, or constant inner ones."""
  prompt = start = side.module.prompt
  for _ in range(side.case.inner_steps):
    loss = side.loss(prompt, side.support)
    (grads,) = torch.autograd.grad(loss, prompt, create_graph=second_order)
    prompt = prompt - INNER_RATE * grads
  loss = side.loss(prompt, side.query)
  loss.backward(inputs=[start])
  return loss


def by_first_order(side: Side):
  """FoMAML."""
  return by_autograd(side, second_order=False)


def by_func(side: Side):
  """Nested torch.func.grad."""

  def adapted(prompt):
    for _ in range(side.case.inner_steps):
      grads = torch.func.grad(side.loss)(prompt, side.support)
      prompt = prompt - INNER_RATE * grads
    return side.loss(prompt, side.query)

  prompt = side.module.prompt
  prompt.grad, loss = torch.func.grad_and_value(adapted)(prompt.detach())
  return loss


def by_higher(side: Side):
  """A differentiable inner loop of `higher` over the prompt."""
  import higher

  inner = torch.optim.SGD([side.module.prompt], lr=INNER_RATE)
  with higher.innerloop_ctx(side.module, inner, copy_initial_weights=False) as (
    module,
    optimizer,
  ):
    for _ in range(side.case.inner_steps):
      optimizer.step(module(*side.support))
    loss = module(*side.query)
    loss.backward(inputs=[side.module.prompt])
  return loss.detach()


WAYS = {
  'autograd': by_autograd,
  'torch, first order': by_first_order,
  'torch.func': by_func,
  'higher': by_higher,
}


def measure(folder: pathlib.Path, case: Case) -> dict:
  """Times outer steps and returns what was measured."""
  side, loading = clock.timed(lambda: Side(folder, case))
  loaded = clock.peak_mib()
  outer = torch.optim.Adam([side.module.prompt], lr=RATE)

  def step():
    outer.zero_grad()
    loss = WAYS[case.against](side)
    outer.step()
    return float(loss.detach())

  steps = [clock.timed(step) for _ in range(1 + case.steps)]
  losses, times = zip(*steps, strict=True)
  return {
    'first': times[0],
    'times': times[1:],
    'losses': losses,
    **clock.costs(loading, loaded),
    'threads': torch.get_num_threads(),
  }


if __name__ == '__main__':
  place, fields = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  print(json.dumps(measure(place, Case(**fields))))
