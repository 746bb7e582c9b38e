"""Hugging Face PEFT folders, written without PEFT or PyTorch.

How PEFT 0.21 computes on T5 what such a folder holds:

- PROMPT_TUNING: the table [P, D] goes before the encoder's input. By default
  the table has another P rows for the decoder, which PEFT never reads.
- LORA: x W + alpha / r (x A^T) B^T (alpha / sqrt(r) with `use_rslora`).
- PREFIX_TUNING: keys and values of the decoder's self-attention alone, at the
  positions before the sequence (`prefix_positions` of our backbones). The
  table [P, 2 n H K] holds n pairs, and layer i reads pair 2 i mod n. We write
  two pairs for each layer, of which the second is not read. On Transformers
  5.24 PEFT's `generate` does not follow its own logits here; for prompts and
  LoRA it does.
"""

import json
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath
from jaxtyping import Float
from safetensors import numpy as safetensors_numpy

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import huggingface
from prompt_subspace.bank import exchange, files, store

CONFIG, ARRAYS = 'adapter_config.json', 'adapter_model.safetensors'
TABLE, MODEL = 'prompt_embeddings', 'base_model.model.'


def write(
  entry: store.Entry, folder: epath.PathLike, replace: bool = False
) -> None:
  """Writes a folder that PEFT loads on the same backbone as a T5.

  Raises:
    ValueError: PEFT has nothing that computes the same.
  """
  writers: dict[str, Callable] = {
    'prompt': _prompt_to_peft,
    'lora': _lora_to_peft,
    'prefix': _prefix_to_peft,
  }
  if entry.card['method'] not in writers:
    raise ValueError(
      f'{entry.name}: expected one of {sorted(writers)}, which PEFT can '
      f'compute on T5, found {entry.card["method"]!r}. Export it as '
      'safetensors.'
    )
  fields, arrays = writers[entry.card['method']](entry)
  fields = {
    'base_model_name_or_path': entry.card['backbone'],
    'inference_mode': True,
    'task_type': 'SEQ_2_SEQ_LM',
    **fields,
  }
  arrays = {n: np.ascontiguousarray(x, np.float32) for n, x in arrays.items()}
  content = {
    ARRAYS: safetensors_numpy.save(arrays, {'format': 'pt'}),
    CONFIG: (json.dumps(fields, indent=2) + '\n').encode(),
  }
  files.write_folder(folder, content, {ARRAYS, CONFIG}, replace)


def _prompt_to_peft(entry):
  table = exchange.encoder_prompt(entry, 'PEFT')
  fields = {
    'peft_type': 'PROMPT_TUNING',
    'num_transformer_submodules': 1,
    'num_virtual_tokens': table.shape[0],
    'token_dim': table.shape[1],
    'prompt_tuning_init': 'RANDOM',
  }
  return fields, {TABLE: table}


def _lora_to_peft(entry):
  rank, arrays, modules = entry.card['settings']['rank'], {}, []
  for path, x in trees.flatten(entry.phi).items():
    site, _, leaf = path.rpartition('/')
    module = huggingface.name_of(f'{site}/kernel').removesuffix('.weight')
    arrays[f'{MODEL}{module}.lora_{leaf[-1].upper()}.weight'] = x.T
    modules += [module] if leaf == 'lora_a' else []
  fields = {
    'peft_type': 'LORA',
    'r': rank,
    'lora_alpha': entry.card['settings']['scale'] * rank,
    'lora_dropout': 0.0,
    'bias': 'none',
    # in full: the last part alone would take in both kinds of attention and
    # both stacks
    'target_modules': modules,
  }
  return fields, arrays


def _prefix_to_peft(entry):
  if set(_delta_kinds(entry)) != {'decoder/self_attention'}:
    raise ValueError(
      f"{entry.name}: expected a prefix of the decoder's self-attention, "
      'which is all that PEFT reaches on T5 (where=("decoder",), '
      f'attentions=("self",)), found {_delta_kinds(entry)}. Export it as '
      'safetensors.'
    )
  if not entry.card.get('prefix_positions'):
    raise ValueError(
      f'{entry.name}: expected a prefix that was trained on a backbone with '
      'prefix_positions=True, as PEFT computes it, found none noted in its '
      'card. If it was, say so (--prefix_positions).'
    )
  pairs = _pairs(entry)
  layers, _, length, joined = pairs.shape
  table = np.zeros((2 * layers, 2, length, joined), np.float32)
  table[::2] = pairs
  fields = {
    'peft_type': 'PREFIX_TUNING',
    'num_virtual_tokens': length,
    'num_layers': 2 * layers,
    'num_transformer_submodules': 2,
    'token_dim': joined,
    'prefix_projection': False,
  }
  table = table.transpose(2, 0, 1, 3).reshape(length, 4 * layers * joined)
  return fields, {TABLE: table}


def _delta_kinds(entry) -> list[str]:
  delta = trees.flatten(_expand(entry))
  parts = [path.split('/') for path in delta]
  return sorted({f'{stack}/{kind}' for stack, _, kind, _ in parts})


def _pairs(entry) -> Float[np.ndarray, 'N 2 P J']:
  layers = _expand(entry)['decoder']
  names = ('prefix_key', 'prefix_value')
  return np.stack(
    [
      [np.asarray(layers[f'layers_{i}']['self_attention'][n]) for n in names]
      for i in range(len(layers))
    ]
  )


def _expand(entry) -> dict:
  return deltas.make('prefix', **_tuples(entry.card['settings'])).expand(
    entry.phi, None
  )


def _tuples(fields: Mapping) -> dict:
  return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
