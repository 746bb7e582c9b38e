"""Fastfood against one elementwise product that writes a fresh array.

  python -m benchmarks.fastfood [--size 60000000] [--code 100] [--rounds 5]

A map from a code to as many numbers as a T5-small has, its transpose (the
gradient of the code), and the product of two arrays of that size, in turn:
three times of the same memory and the same machine. It prints medians, ratios,
and the temporary memory that XLA reports.
"""

import argparse
import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import clock
from prompt_subspace import reparams

# what the ratios should not exceed
LIMITS = {'expand': 3.5, 'transpose': 5.0}


def works(size: int, code: int) -> dict[str, tuple[Callable, tuple]]:
  """Returns {name: (compiled function, its arguments)}."""
  found = reparams.fastfood()
  basis = found.init(jax.random.key(0), size, code)
  short = jax.random.normal(jax.random.key(1), (code,))
  long = jax.random.normal(jax.random.key(2), (size,))

  def transpose(basis, c, x):
    return jax.vjp(lambda c: found.expand(basis, c), c)[1](x)[0]

  chosen = {
    'product': (jnp.multiply, (long, long)),
    'expand': (found.expand, (basis, short)),
    'transpose': (transpose, (basis, short, long)),
  }
  return {
    name: (jax.jit(work).lower(*given).compile(), given)
    for name, (work, given) in chosen.items()
  }


def measure(size: int, code: int, rounds: int) -> dict[str, dict[str, float]]:
  """Returns {name: seconds, temporary MiB, and ratio to the product}."""
  found = works(size, code)
  seconds: dict[str, list[float]] = {name: [] for name in found}
  for number in range(rounds + 1):
    for name, (run, given) in found.items():
      _, time = clock.timed(lambda r=run, g=given: jax.block_until_ready(r(*g)))
      if number:  # the first one warms up
        seconds[name].append(time['wall'])
  medians = {n: statistics.median(s) for n, s in seconds.items()}
  return {
    name: {
      'seconds': medians[name],
      'temporary_mib': run.memory_analysis().temp_size_in_bytes / 2**20,
      'ratio': medians[name] / medians['product'],
    }
    for name, (run, _) in found.items()
  }


def main() -> None:
  """Reads the command line, measures and prints."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.fastfood',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--size', type=int, default=60_000_000)
  parser.add_argument('--code', type=int, default=100)
  parser.add_argument('--rounds', type=int, default=5)
  known = parser.parse_args()
  print('| work | seconds | temporary MiB | ratio | at most |')
  print('| --- | --- | --- | --- | --- |')
  for name, x in measure(known.size, known.code, known.rounds).items():
    print(
      f'| {name} | {x["seconds"]:.3f} | {x["temporary_mib"]:.0f} | '
      f'{x["ratio"]:.2f} | {LIMITS.get(name, "")} |'
    )


if __name__ == '__main__':
  main()
