"""One measurement of this library's meta-learning, in a process of its own.

python -m benchmarks.meta FOLDER CASE [fomaml|plain]
"""

import json
import pathlib
import sys

from benchmarks import clock, ours
from benchmarks.cases import INNER_RATE, Case
from prompt_subspace.meta import algorithms
from prompt_subspace.training import algorithm


def measure(folder: pathlib.Path, case: Case, name: str) -> dict:
  """Times outer steps of an algorithm, one episode each.

  Plain tuning takes the query's examples, as many as the inner step has.
  """
  if name == 'plain':
    trained_by = algorithm.TUNING
  else:
    build = algorithms.ALGORITHMS[name]
    trained_by = build(inner_rate=INNER_RATE, inner_steps=case.inner_steps)
  side, loading = clock.timed(lambda: ours.Side(folder, case, trained_by))
  loaded = clock.peak_mib()
  parts = {
    part: {k: side.data[f'{part} {k}'] for k in ('inputs', 'targets')}
    for part in ('support', 'query')
  }
  if name == 'plain':
    batch = parts['query']
  else:
    batch = {
      part: {k: x[None] for k, x in content.items()}
      for part, content in parts.items()
    }
  return ours.repeated(side, batch) | clock.costs(loading, loaded)


if __name__ == '__main__':
  place, fields = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
  which = (sys.argv[3:] or ['maml'])[0]
  print(json.dumps(measure(place, Case(**fields), which)))
