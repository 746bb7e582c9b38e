"""Hugging Face PEFT folders, read without PEFT or PyTorch; see `peft_write`."""

import json
import math
import re
import types
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np
import safetensors
from etils import epath

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import huggingface
from prompt_subspace.bank.exchange import Adapter, float32, prompt_adapter
from prompt_subspace.bank.peft_write import ARRAYS, CONFIG, MODEL, TABLE
from prompt_subspace.deltas.base import ATTENTIONS, attention_sites
from prompt_subspace.deltas.lora import PROJECTIONS

TYPES = {
  'F16': np.float16,
  'BF16': ml_dtypes.bfloat16,
  'F32': np.float32,
  'F64': np.float64,
}
SITES = tuple(ATTENTIONS.items())

# fields of a LoRA folder that change what it computes in ways we do not have,
# with the values at which they do not
PLAIN_LORA: dict[str, tuple] = {
  'bias': ('none', None),
  'init_lora_weights': (True, False, None, 'gaussian', 'orthogonal', 'eva'),
  **dict.fromkeys(
    (
      'alora_invocation_tokens',
      'alpha_pattern',
      'arrow_config',
      'fan_in_fan_out',
      'kasa_config',
      'layer_replication',
      'lora_bias',
      'modules_to_save',
      'monteclora_config',
      'rank_pattern',
      'target_parameters',
      'trainable_token_indices',
      'use_bdlora',
      'use_dora',
      'use_qalora',
      'velora_config',
    ),
    (None, False, [], {}),
  ),
}


def read(folder: epath.PathLike, layers: int | None = None) -> Adapter:
  """Reads a PEFT folder that was trained on a T5.

  Args:
    folder: with adapter_config.json and adapter_model.safetensors.
    layers: of the backbone's decoder; a prefix needs it.

  Raises:
    ValueError: it is of another kind, or has something that would be lost.
  """
  folder = epath.Path(folder)
  for name in (CONFIG, ARRAYS):
    if not (folder / name).exists():
      raise ValueError(
        f'{folder}: expected a PEFT folder, found no {name}. Pickled weights '
        '(.bin) are not read: save them with safe_serialization=True.'
      )
  try:
    fields = json.loads((folder / CONFIG).read_text())
  except ValueError as error:
    raise ValueError(f'{folder / CONFIG}: expected JSON, {error}.') from error
  if fields.get('task_type') not in ('SEQ_2_SEQ_LM', None):
    raise ValueError(
      f'{folder}: expected task_type SEQ_2_SEQ_LM, found '
      f'{fields["task_type"]!r}. Other families are not supported.'
    )
  readers: dict[str, Callable] = {
    'PROMPT_TUNING': _prompt_from_peft,
    'LORA': _lora_from_peft,
    'PREFIX_TUNING': _prefix_from_peft,
  }
  kind = fields.get('peft_type')
  if kind not in readers:
    raise ValueError(
      f'{folder}: expected peft_type of {sorted(readers)}, found {kind!r}. '
      'Other methods cannot be imported.'
    )
  arrays = _arrays(folder / ARRAYS)
  if kind != 'LORA' and set(arrays) != {TABLE}:
    raise ValueError(
      f'{folder}: expected {TABLE} alone, found {sorted(arrays)[:5]}.'
    )
  try:
    found = readers[kind](str(folder), fields, arrays, layers)
  except KeyError as error:
    raise ValueError(f'{folder / CONFIG}: missing {error}.') from error
  return found._replace(backbone=fields.get('base_model_name_or_path') or '')


def _arrays(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads safetensors of any floating-point type as float32."""
  try:
    stored = dict(safetensors.deserialize(path.read_bytes()))
  except safetensors.SafetensorError as error:
    raise ValueError(f'{path}: expected safetensors, found {error}.') from error
  out = {}
  for name, x in stored.items():
    if x['dtype'] not in TYPES:
      raise ValueError(
        f'{path}: expected one of {sorted(TYPES)}, found {x["dtype"]} in '
        f'{name}.'
      )
    array = np.frombuffer(x['data'], TYPES[x['dtype']]).reshape(x['shape'])
    out[name] = float32(f'{path}: {name}', array)
  return out


def _prompt_from_peft(folder, fields, arrays, layers):
  del layers
  length, table = fields['num_virtual_tokens'], arrays[TABLE]
  if table.ndim != 2 or len(table) not in (length, 2 * length):
    raise ValueError(
      f'{folder}: expected {length} prompt vectors, or twice as many, found '
      f'{table.shape}.'
    )
  return prompt_adapter(table[:length])


def _lora_from_peft(folder, fields, arrays, layers):
  del layers
  for name, plain in PLAIN_LORA.items():
    if fields.get(name) not in plain:
      raise ValueError(
        f'{folder}: expected a plain LoRA, found {name}={fields[name]!r}, '
        'which cannot be imported.'
      )
  rank, phi, lost = fields['r'], {}, []
  for name, x in arrays.items():
    module, _, leaf = name.removeprefix(MODEL).rpartition('.lora_')
    site = _site_of(module)
    if site is None or leaf not in ('A.weight', 'B.weight'):
      lost.append(name)
    else:
      phi[f'{site}/lora_{leaf[0].lower()}'] = np.ascontiguousarray(x.T)
  if lost or not phi:
    raise ValueError(
      f'{folder}: expected lora_A and lora_B of projections of a T5, found '
      f'{sorted(lost)[:3] or "nothing"}. Anything else would be lost.'
    )
  root = math.sqrt(rank) if fields.get('use_rslora') else rank
  settings = {
    'rank': rank,
    'scale': fields['lora_alpha'] / root,
    **_lora_settings(folder, phi, rank),
  }
  return Adapter(trees.unflatten(phi), 'lora', settings)


def _prefix_from_peft(folder, fields, arrays, layers):
  if layers is None:
    raise ValueError(
      f'{folder}: a prefix needs the number of layers of its backbone. Name '
      'the backbone.'
    )
  length, count = fields['num_virtual_tokens'], fields['num_layers']
  rows, columns = arrays[TABLE].shape
  if rows != length or columns % (2 * count) or count < layers:
    raise ValueError(
      f'{folder}: expected [{length}, 2 n H K] for the {layers} layers of the '
      f'backbone, found {(rows, columns)} with n = {count}.'
    )
  table = arrays[TABLE].reshape(length, count, 2, -1).transpose(1, 2, 0, 3)
  pairs = np.ascontiguousarray(table[2 * np.arange(layers) % count])
  method = deltas.prefix(length, hidden=None, where=('decoder',))
  return Adapter(
    {'decoder': {'pairs': pairs}},
    'prefix',
    dict(method.settings),
    facts={'prefix_positions': True},
  )


def _site_of(module: str) -> str | None:
  """Returns our site of a Hugging Face projection, None for other modules."""
  found = re.fullmatch(
    r'(encoder|decoder)\.block\.(\d+)\.layer\.(\d)\.(\w+)'
    r'\.(q|k|v|o|wi|wi_0|wi_1|wo)',
    module,
  )
  if not found:
    return None
  stack, layer, number, kind, inner = found.groups()
  ours = {theirs: name for name, theirs in huggingface.ATTENTION.items()}
  for name, place in huggingface.SUBLAYERS[stack].items():
    if place == (int(number), kind):
      return f'{stack}/layers_{layer}/{name}/{ours.get(inner, inner)}'
  return None


def _lora_settings(
  folder: str, phi: Mapping[str, np.ndarray], rank: int
) -> dict[str, tuple[str, ...]]:
  """Returns which projections a LoRA is at, as the arguments of our method.

  Raises:
    ValueError: they are not all that these arguments select, or a factor is
      missing or of another rank.
  """
  sites = sorted({path.rpartition('/')[0] for path in phi})
  for site in sites:
    shapes = [np.shape(phi.get(f'{site}/lora_{n}', ())) for n in 'ab']
    if (shapes[0][1:], shapes[1][:1]) != ((rank,), (rank,)):
      raise ValueError(
        f'{folder}: expected factors [I, {rank}] and [{rank}, O] at {site}, '
        f'found {shapes}.'
      )
  parts = [site.split('/') for site in sites]
  inner = {p for _, _, sublayer, p in parts if sublayer == 'mlp'}
  heads = {p for _, _, sublayer, p in parts if sublayer != 'mlp'}
  sublayers = {(stack, sublayer) for stack, _, sublayer, _ in parts}
  settings = {
    'projections': tuple(
      p for p in PROJECTIONS if p in heads or (p == 'mlp' and inner)
    ),
    'attentions': tuple(
      kind
      for kind in ('self', 'cross')
      if any((s, names.get(kind)) in sublayers for s, names in SITES)
    )
    or ('self', 'cross'),
    'where': tuple(s for s, _ in SITES if any(p[0] == s for p in parts)),
  }
  if differing := sorted(_selected(settings, parts, inner) ^ set(sites)):
    raise ValueError(
      f'{folder}: expected a LoRA at just the projections that {settings} '
      f'selects, as ours are, missing or left over {differing[:3]}.'
    )
  return settings


def _selected(settings, parts, inner) -> set[str]:
  """Lists the sites of a backbone with as many layers as were found."""
  layers = {
    stack: 1 + max((int(p[1][7:]) for p in parts if p[0] == stack), default=-1)
    for stack in ATTENTIONS
  }
  config = types.SimpleNamespace(
    **{f'num_{stack}_layers': n for stack, n in layers.items()}
  )
  heads = [p for p in settings['projections'] if p != 'mlp']
  out = set()
  if heads:
    where = attention_sites(config, settings['attentions'], settings['where'])
    out |= {f'{site}/{p}' for site in where for p in heads}
  if inner:
    wanted = {'wi', 'wo'} if 'wi' in inner else {'wi_0', 'wi_1', 'wo'}
    out |= {
      f'{stack}/layers_{i}/mlp/{p}'
      for stack in settings['where']
      for i in range(layers[stack])
      for p in wanted
    }
  return out
