"""The tables that a study of the unified subspace writes: columns and types."""

from prompt_subspace.training import results

# results.csv, a line per run. `stage` is original (a type tuned on a task),
# maps (stage 1) or inside (a code tuned in a space). `group`, `maps` and `size`
# say in which space.
CELLS = {
  'cell': str,
  'stage': str,
  'group': str,
  'maps': str,
  'size': int,
  **results.COLUMNS,
}

# recovery.csv: what a code reaches, in a space, on a task, with a type.
# `stage` is approximation (a task that the space was found on, its own code),
# inside (an unseen task, a code tuned with the type itself) or transfer (a code
# that was tuned with the type `source`). `original` is the score of the type's
# own solution, None where there is none. Scores are of the test split, chosen
# by `validation`.
RECOVERY = {
  'stage': str,
  'group': str,
  'maps': str,
  'size': int,
  'seed': int,
  'task': str,
  'source': str,
  'type': str,
  'validation': float,
  'test': float,
  'original': float,
  'majority': float,
  'cell': str,
  'step': int,
}

# landscape.csv: the solutions in a plane of codes, see `landscape`: a line for
# each type of each plane, with its coordinates in units of the axes, the score
# of the type's own solution that values are shares of, and the file of the
# plane's points.
LANDSCAPES = {
  'name': str,
  'group': str,
  'maps': str,
  'size': int,
  'seed': int,
  'task': str,
  'type': str,
  'x': float,
  'y': float,
  'original': float,
  'majority': float,
  'examples': int,
  'file': str,
}
