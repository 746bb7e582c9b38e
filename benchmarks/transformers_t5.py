"""Hugging Face's T5 on the weights of a case.

It is apart so that no side pays for a library that it does not measure.
"""

import pathlib

import torch
import transformers
from safetensors import torch as safetensors_torch


def base_model(folder: pathlib.Path, **settings):
  """Loads T5 1.1, with its own head, without dropout.

  Transformers 5 ties the head whatever the configuration says.
  """
  model = transformers.T5ForConditionalGeneration.from_pretrained(
    folder, dropout_rate=0.0, **settings
  )
  stored = safetensors_torch.load_file(folder / 'model.safetensors')
  head = stored['lm_head.weight']
  if model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr():
    model.lm_head.weight = torch.nn.Parameter(head)
    model.shared.weight.data.copy_(stored['shared.weight'])
  model.config.scale_decoder_outputs = False
  return model
