"""The tables that a meta-learning study writes: their columns and types."""

from prompt_subspace.training import results

# What an algorithm reports while it trains, at the end of a run: the objective,
# how far the inner steps move phi, the cosine of MAML's and FoMAML's gradients.
WATCHED = {'loss': float, 'displacement': float, 'cosine': float}

# results.csv, a line per run. `stage` is upstream (learning an initialisation)
# or downstream (tuning a target from it), `algorithm` what learned it, or PT
# and FT for tuning without it; `learned` is the seed of the upstream run (None
# without one), `seed` that of the run itself, downstream of its few-shot split.
CELLS = {
  'cell': str,
  'stage': str,
  'algorithm': str,
  'learned': int,
  **results.COLUMNS,
  **WATCHED,
}

# chosen.csv: of each target, split and algorithm, the run of the rate with the
# best validation score.
CHOSEN = {
  'target': str,
  'metric': str,
  'algorithm': str,
  'learned': int,
  'seed': int,
  'rate': float,
  'validation': float,
  'test': float,
  'best_step': int,
  'cell': str,
}

# curves.csv: how the chosen runs went; `loss` is the mean training loss since
# the evaluation before. At step 0 there is none.
CURVES = {
  'target': str,
  'algorithm': str,
  'learned': int,
  'seed': int,
  'step': int,
  'loss': float,
  'validation': float,
}

# diagnostics.csv: what the inner steps do, over a range of inner rates around
# the plain initialisation: displacement |phi_k - phi|, and its share of |phi|,
# query loss (nats) before and after them, and the cosine of the MAML and the
# FoMAML gradient. Means over `episodes`.
DIAGNOSTICS = {
  'inner_rate': float,
  'inner_steps': int,
  'episodes': int,
  'displacement': float,
  'relative': float,
  'loss_before': float,
  'loss_after': float,
  'cosine': float,
}
