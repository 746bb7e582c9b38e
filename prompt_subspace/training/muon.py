"""The optimiser of pre-training: Muon for matrices, AdamW for everything else.

Source: Jordan et al. 2024, "Muon"; Liu et al. 2025, "Muon is Scalable for LLM
Training".
"""

import optax
from optax import contrib

from prompt_subspace import trees

# Axes before the last two, such as that of scanned layers, are a stack.
MATRIX = contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)


def is_layer_matrix(path: str) -> bool:
  """Whether Muon trains a weight: the matrices inside the layers.

  Layers that are scanned have theirs stacked under one name.
  """
  inside = '/layers_' in path or '/layers/' in path
  return inside and path.endswith('/kernel')


def optimizer(
  rate: float, warmup: int, decay_from: int, decay_to: int
) -> optax.GradientTransformation:
  """Muon and AdamW at one rate: warm-up, constant, then linear to zero.

  Muon's updates are scaled to the root mean square of AdamW's (0.2), so that
  one rate serves both (Liu et al. 2025, "Muon is Scalable").
  """
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(0.0, rate, warmup),
      optax.constant_schedule(rate),
      optax.linear_schedule(rate, 0.02 * rate, max(1, decay_to - decay_from)),
    ],
    [warmup, decay_from],
  )

  def dimensions(params):
    flat = trees.flatten(params)
    return trees.unflatten(
      {path: MATRIX if is_layer_matrix(path) else None for path in flat}
    )

  return optax.chain(
    optax.clip_by_global_norm(1.0),
    contrib.muon(
      schedule,
      adam_b2=0.98,
      weight_decay=0.01,
      consistent_rms=0.2,
      muon_weight_dimension_numbers=dimensions,
    ),
  )
