"""The one command: every case, both sides in turn, medians and ratios.

  python -m benchmarks.run [--only WORDS] [--rounds 3] [--folder DIR]

Each measurement is a process of its own, and the two sides alternate (A B A B),
so that a change in the machine's speed meets both. The other side needs torch,
transformers and peft or higher; without them only ours is measured.
"""

import argparse
import importlib.util
import json
import pathlib
import platform
import statistics
import subprocess
import sys
from importlib import metadata

from benchmarks import clock, inputs
from benchmarks.cases import CASES, TORCH_WAYS, Case

README = pathlib.Path(__file__).parent / 'README.md'
BEGIN, END = '<!-- results -->', '<!-- /results -->'
PEERS = ('torch', 'transformers', 'peft', 'higher')
# what is measured -> the libraries without which it cannot be
NEEDED = {
  'peft': ('torch', 'transformers', 'peft'),
  **dict.fromkeys(TORCH_WAYS, ('torch', 'transformers')),
  'higher': ('torch', 'transformers', 'higher'),
}
# losses of the same float32 work in another order of sums
TOLERANCE = 1e-4


def commands(folder: pathlib.Path, case: Case) -> dict[str, list[str]]:
  """Returns {side: command}; our side comes first."""
  fields = [str(folder), json.dumps(case._asdict())]
  python = [sys.executable, '-m']
  modules = ('meta', 'meta_peer') if case.work == 'meta' else ('ours', 'peer')
  ours, other = ([*python, f'benchmarks.{m}', *fields] for m in modules)
  sides = {'ours': ours}
  if case.against in ('one by one', 'fomaml', 'plain', *inputs.METHODS):
    sides['other'] = [*ours, case.against]
  elif case.against and all(
    map(importlib.util.find_spec, NEEDED[case.against])
  ):
    sides['other'] = other
  return sides


def measure(folder: pathlib.Path, case: Case, rounds: int) -> dict:
  """Measures a case; returns {side: [a result of each round]}."""
  inputs.write(folder, case)
  found: dict = {side: [] for side in commands(folder, case)}
  for _ in range(rounds):
    for side, command in commands(folder, case).items():
      found[side].append(json.loads(_call(command).splitlines()[-1]))
  return found


def _call(command: list[str]) -> str:
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    raise RuntimeError(
      f'{" ".join(command[:4])} failed:\n{done.stderr[-2000:]}'
    )
  return done.stdout


def summarise(case: Case, found: dict) -> dict:
  """Returns medians and ratios of a case, and whether both did the same."""
  out: dict = {'case': case.name}
  for side, results in found.items():
    walls = [t['wall'] for r in results for t in r['times']]
    out[side] = {
      'seconds': statistics.median(walls),
      'peak_mib': statistics.median(r['peak_mib'] for r in results),
    }
  if 'other' in found:
    for name in ('seconds', 'peak_mib'):
      out[f'{name}_ratio'] = out['ours'][name] / out['other'][name]
    # plain tuning has another loss than what learns to learn, as have methods
    if case.against not in ('plain', *inputs.METHODS):
      out['same'] = same(found['ours'][0], found['other'][0])
  return out


def same(ours: dict, other: dict) -> bool:
  """Whether two results are of the same work: first losses, or answers."""
  if 'losses' in ours:
    return abs(ours['losses'][0] - other['losses'][0]) <= TOLERANCE
  return ours['answers'] == other['answers']


def table(rows: list[dict]) -> str:
  """Returns the results as Markdown."""
  limits = {c.name: c for c in CASES}
  lines = [
    '| work | ours | other | time | at most | memory | at most | same |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  for row in rows:
    case = limits[row['case']]
    cells = [row['case'], _side(row['ours'])]
    if 'other' in row:
      cells += [
        f'{case.against}: {_side(row["other"])}',
        f'{row["seconds_ratio"]:.2f}',
        _limit(case.time_limit),
        f'{row["peak_mib_ratio"]:.2f}',
        _limit(case.memory_limit),
        {True: 'yes', False: 'NO', None: ''}[row.get('same')],
      ]
    else:
      cells += ['', '', '', '', '', '']
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def _side(side: dict) -> str:
  return f'{1e3 * side["seconds"]:.0f} ms, {side["peak_mib"]:.0f} MiB'


def _limit(value: float | None) -> str:
  return '' if value is None else f'{value:g}'


def machine() -> str:
  """Returns versions and cores, for the line above the table."""
  versions = []
  for name in ('jax', *PEERS):
    try:
      versions.append(f'{name} {metadata.version(name)}')
    except metadata.PackageNotFoundError:
      versions.append(f'no {name}')
  return f'{platform.machine()}, {clock.cores()} cores; {", ".join(versions)}'


def write_readme(rows: list[dict]) -> None:
  """Replaces the part of README.md between the two marks."""
  text = README.read_text(encoding='utf-8')
  before, rest = text.split(BEGIN)
  after = rest.split(END)[1]
  body = f'{BEGIN}\n{machine()}\n\n{table(rows)}\n{END}'
  README.write_text(f'{before}{body}{after}', encoding='utf-8')


def main() -> None:
  """Reads the command line, measures, prints and writes the table."""
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.run',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--only', default='', help='cases whose name has this')
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--folder', default='runs/benchmarks')
  known = parser.parse_args()
  folder = pathlib.Path(known.folder)
  folder.mkdir(parents=True, exist_ok=True)
  chosen = [c for c in CASES if known.only in c.name]
  if not chosen:
    parser.error(f'--only: no case has {known.only!r} in its name')
  rows, raw = [], {}
  for case in chosen:
    raw[case.name] = measure(folder, case, known.rounds)
    rows.append(summarise(case, raw[case.name]))
    print(table(rows[-1:]).splitlines()[-1], flush=True)
  text = json.dumps({'machine': machine(), 'rows': rows, 'raw': raw}, indent=1)
  (folder / 'results.json').write_text(text + '\n', encoding='utf-8')
  print(table(rows))
  if not known.only:
    write_readme(rows)


if __name__ == '__main__':
  main()
