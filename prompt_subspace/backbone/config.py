"""The shape of a T5 backbone, and the published sizes.

T5 1.0: Raffel et al. 2020, table 14. T5 1.1: the T5 repository's release notes
of 2020 (gated GELU, untied output head, no dropout in pre-training). `mini` is
the bundled backbone of this project.
"""

import dataclasses
import json
import pathlib


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Everything that decides what a T5 backbone computes.

  Attributes:
    vocab_size: rows of the embedding table, V.
    emb_dim: width of the residual stream, D.
    num_heads: attention heads, H.
    head_dim: width of one head, K (D need not be H * K).
    mlp_dim: width of the feed-forward block, F.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    mlp_activations: one activation (T5 1.0) or a gated pair (T5 1.1).
    logits_via_embedding: tie the output head to the embedding and scale its
      input by 1 / sqrt(D) (T5 1.0).
    dropout_rate: dropout of activations and attention weights while training.
    dtype: of activations.
    weight_dtype: of the weights as they are stored in memory.
    scan_layers: run the layers as one scanned layer with stacked weights.
    remat: recompute each layer's activations in the backward pass.
    fold_cross_attention: multiply the encoder's output by the key and value
      projections never (False), always (True), or when it saves arithmetic
      (None); exact up to rounding.
    prefix_positions: let prefix keys take the positions before the sequence
      in the relative bias; by default their bias is 0.
    relpos_buckets: buckets of the relative position bias.
    relpos_max_distance: distance from which all positions share a bucket.
    norm_epsilon: added to the mean square in the layer norm.
  """

  vocab_size: int = 32128
  emb_dim: int = 512
  num_heads: int = 6
  head_dim: int = 64
  mlp_dim: int = 1024
  num_encoder_layers: int = 8
  num_decoder_layers: int = 8
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  logits_via_embedding: bool = False
  dropout_rate: float = 0.1
  dtype: str = 'float32'
  weight_dtype: str = 'float32'
  scan_layers: bool = False
  remat: bool = False
  fold_cross_attention: bool | None = None
  prefix_positions: bool = False
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  norm_epsilon: float = 1e-6

  def replace(self, **changes) -> 'T5Config':
    """Returns a copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def to_json(self) -> dict:
    """Returns the fields as plain JSON values."""
    return dataclasses.asdict(self)

  @property
  def joined_dim(self) -> int:
    """Width of all heads together, H * K."""
    return self.num_heads * self.head_dim


def _sizes() -> dict[str, T5Config]:
  fields = ('emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
  v1_1 = {
    'small': (512, 6, 64, 1024, 8),
    'base': (768, 12, 64, 2048, 12),
    'large': (1024, 16, 64, 2816, 24),
    'xl': (2048, 32, 64, 5120, 24),
    'xxl': (4096, 64, 64, 10240, 24),
  }
  v1_0 = {
    't5_small': (512, 8, 64, 2048, 6),
    't5_base': (768, 12, 64, 3072, 12),
    't5_large': (1024, 16, 64, 4096, 24),
    't5_3b': (1024, 32, 128, 16384, 24),
    't5_11b': (1024, 128, 128, 65536, 24),
  }
  table = {
    'mini': T5Config(
      vocab_size=8192,
      emb_dim=256,
      num_heads=4,
      mlp_dim=704,
      num_encoder_layers=6,
      num_decoder_layers=2,
    )
  }
  for names, extra in (
    (v1_1, {}),
    (v1_0, {'mlp_activations': ('relu',), 'logits_via_embedding': True}),
  ):
    for name, (*dims, layers) in names.items():
      table[name] = T5Config(
        **dict(zip(fields, dims, strict=True)),
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        **extra,
      )
  return table


SIZES = _sizes()


def sized(name: str, **changes) -> T5Config:
  """Returns the configuration of a published size, with fields changed.

  Args:
    name: mini, small, base, large, xl, xxl (T5 1.1), or t5_small, t5_base,
      t5_large, t5_3b, t5_11b (T5 1.0).
    **changes: fields of `T5Config` to replace.

  Raises:
    ValueError: the size is unknown.
  """
  if name not in SIZES:
    raise ValueError(
      f'size: expected one of {sorted(SIZES)}, found {name!r}. Name one of '
      'them, or build a T5Config with the dimensions you want.'
    )
  return SIZES[name].replace(**changes)


def read(path: str | pathlib.Path) -> T5Config:
  """Reads a configuration from a JSON file; unknown fields are errors."""
  fields = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  known = {f.name for f in dataclasses.fields(T5Config)}
  if unknown := sorted(set(fields) - known):
    raise ValueError(
      f'{path}: expected fields of T5Config ({sorted(known)}), found also '
      f'{unknown}. Remove or rename them.'
    )
  if 'mlp_activations' in fields:
    fields['mlp_activations'] = tuple(fields['mlp_activations'])
  return T5Config(**fields)
