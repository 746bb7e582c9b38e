"""The bank on the command line: what is in it, and what is like what.

  python -m prompt_subspace.bank --bank DIR ls
  python -m prompt_subspace.bank --bank DIR show ENTRY
  python -m prompt_subspace.bank --bank DIR similar ENTRY --top 5
  python -m prompt_subspace.bank --bank DIR add prompt.npy --task NAME
  python -m prompt_subspace.bank --bank DIR add --t5x RUN --task NAME
  python -m prompt_subspace.bank --bank DIR export ENTRY OUT --format peft
  python -m prompt_subspace.bank --bank DIR import FOLDER --task NAME
  python -m prompt_subspace.bank --bank DIR verify

A bank is a folder of entries, for instance runs/tune/bank; it may be remote
(gs://...).
"""

import argparse
import csv
import json
import pathlib
import re
import sys
from collections.abc import Sequence

from etils import epath

from prompt_subspace import deltas, reparams, trees
from prompt_subspace import vocabulary as vocabularies
from prompt_subspace.backbone import weights
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import (
  exchange,
  peft_read,
  peft_write,
  retrieve,
  similarity,
  store,
  t5x_run,
)
from prompt_subspace.reparams import subspace

EXPORTS = {
  'safetensors': exchange.to_safetensors,
  'npy': exchange.to_npy,
  'peft': peft_write.write,
}
COLUMNS = ('task', 'method', 'seed', 'rate', 'steps', 'validation', 'test')
CHECKPOINTS = {'embedding': 'task embeddings', 'phi': 'best checkpoints'}


def ls(known) -> int:
  """Prints a line for each entry; a damaged one does not hide the others."""
  rows, problems = [['entry', *COLUMNS, 'backbone']], []
  for name in store.names(known.bank):
    try:
      card = store.read_card(epath.Path(known.bank) / name)
    except ValueError as error:
      problems.append(f'error: {error}')
      continue
    texts = [_text(card.get(column)) for column in COLUMNS]
    mark = f' {card["fingerprint"][:8]}' if card['fingerprint'] else ''
    rows.append([name, *texts, f'{card["backbone"]}{mark}'])
  print(_table(rows))
  print('\n'.join(problems), end='\n' * bool(problems), file=sys.stderr)
  return int(bool(problems))


def show(known) -> int:
  """Prints the card of an entry and the shapes of its arrays."""
  entry = store.read(_entry(known))
  print(json.dumps(entry.card, indent=2, sort_keys=True, ensure_ascii=False))
  for name in store.FILES:
    if tree := getattr(entry, name):
      print(f'\n{name}\n{trees.describe(tree)}')
  return 0


def similar(known) -> int:
  """Prints the entries that are most like one."""
  query = known.query
  if query not in store.names(known.bank):
    query = _foreign_prompt(known)
  found, left_out = retrieve.similar(
    known.bank, query, known.metric, known.foreign
  )
  rows = [['rank', 'entry', 'task', 'similarity', 'compared']]
  for rank, each in enumerate(found[: known.top], start=1):
    score = f'{each.similarity:.4f}'
    rows.append([str(rank), each.entry, each.task, score, each.checkpoint])
  if known.csv:
    csv.writer(sys.stdout, lineterminator='\n').writerows(rows)
  else:
    print(_table(rows))
  used = sorted({each.checkpoint for each in found})
  notes = ['compared: ' + ', '.join(CHECKPOINTS[name] for name in used)]
  notes += [f'left out: {n} {reason}' for reason, n in left_out.items()]
  print('\n'.join(notes), file=sys.stderr)
  return 0


def _foreign_prompt(known) -> store.Entry:
  path = epath.Path(known.query)
  if not path.exists():
    raise ValueError(
      f'query: expected an entry of {known.bank} or a .npy file, found '
      f'{known.query!r}. The entries: {store.names(known.bank)[:10]}.'
    )
  found = exchange.from_npy(path)
  card = {'method': found.method, 'backbone': '', 'fingerprint': None}
  return store.Entry(path.name, found.phi, card)


def add(known) -> int:
  """Stores a prompt from a .npy file, or the delta of a run of T5X."""
  if (known.path is None) == (known.t5x is None):
    raise ValueError(
      'add: expected a .npy file or --t5x with the folder of a run, found '
      f'{known.path} and {known.t5x}. Give one of the two.'
    )
  if known.embedding and known.t5x is None:
    raise ValueError(
      f'embedding: expected --t5x, whose earlier checkpoint it is, found '
      f'{known.embedding} with {known.path}.'
    )
  if known.t5x is None:
    backbone = _loaded(known.backbone)
    return _store(known, exchange.from_npy(known.path), backbone)
  known.path = known.t5x
  found, card = t5x_run.read(known.t5x)
  backbone = _loaded(known.backbone or card['backbone'], card['vocabulary'])
  embedding = None
  if known.embedding:
    early, other = t5x_run.read(known.embedding)
    if other != card:
      raise ValueError(
        f'embedding: expected a checkpoint of a run like {known.t5x}, found '
        f'one of another kind in {known.embedding}.'
      )
    trees.check_same(early.phi, found.phi, f'embedding {known.embedding}')
    found.facts['embedding_step'] = early.facts['steps']
    embedding = early.phi
  return _store(known, found, backbone, embedding)


def import_(known) -> int:
  """Stores a delta from a PEFT folder."""
  backbone = _loaded(known.backbone)
  layers = backbone and backbone.config.num_decoder_layers
  return _store(known, peft_read.read(known.path, layers), backbone)


def _loaded(name: str | None, vocabulary: str | None = None) -> Backbone | None:
  """Loads a backbone if this names one; else it is only noted."""
  if name in weights.BUNDLED or (name and pathlib.Path(name).is_dir()):
    known = vocabulary and (
      vocabulary == vocabularies.BYTES or pathlib.Path(vocabulary).is_file()
    )
    return weights.load(name, vocabulary if known else None)
  return None


def _store(
  known,
  found: exchange.Adapter,
  backbone: Backbone | None,
  embedding: dict | None = None,
) -> int:
  file = epath.Path(known.path).name.removesuffix('.npy')
  name = known.name or re.sub(r'[^\w.-]', '_', file)
  if not re.fullmatch(r'\w[\w.-]*', name):
    raise ValueError(
      f'name: expected letters, digits and . _ -, found {name!r}. Choose '
      'another with --name.'
    )
  if backbone is not None:
    _check_shapes(found, backbone)
  card = {
    'task': known.task,
    'method': found.method,
    'settings': found.settings,
    'backbone': known.backbone or found.backbone,
    'fingerprint': backbone and backbone.fingerprint,
    'parents': [],
    'origin': epath.Path(known.path).name,
    **found.facts,
  }
  folder = epath.Path(known.bank) / name
  store.write(folder, found.phi, card, embedding, known.replace)
  print(f'added {name}: {found.method} for {known.task}')
  if backbone is None:
    print(
      'its backbone is only noted, so that it can be compared but not used; '
      'name or path of the backbone with --backbone makes it usable',
      file=sys.stderr,
    )
  return 0


def _check_shapes(found: exchange.Adapter, backbone: Backbone) -> None:
  import jax

  settings = found.settings
  if found.method == 'prompt':  # its start is the prompt itself
    settings = {
      'length': settings['length'],
      'start': 'uniform',
      'decoder_length': settings.get('decoder_length', 0),
    }
  setting = weights.setting(backbone)
  if found.method not in (*deltas.METHODS, 'subspace'):
    return  # of a room, which nothing here may know
  if found.method == 'subspace':
    made = subspace.again(settings, _made, reparams.make)
  else:
    made = _made(found.method, **settings)
  method = deltas.bound(made, setting)
  expected = jax.eval_shape(
    lambda key: method.init(key, setting), jax.random.key(0)
  )
  trees.check_same(found.phi, expected, f'delta for {backbone.name}')


def _made(name: str, **settings) -> deltas.Method:
  """Makes a method of settings as JSON has them."""
  fields = {
    k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()
  }
  return deltas.make(name, **fields)


def export(known) -> int:
  """Writes an entry as a file or folder of others."""
  entry = store.read(_entry(known))
  if known.prefix_positions:
    entry.card['prefix_positions'] = True
  EXPORTS[known.format](entry, known.out, known.replace)
  print(f'wrote {known.out}')
  return 0


def verify(known) -> int:
  """Prints what is wrong with the bank; the exit code says whether it is."""
  problems = store.verify(known.bank)
  count = len(store.names(known.bank))
  print('\n'.join(problems) or f'{count} entries, all as they were written')
  return int(bool(problems))


def _entry(known) -> epath.Path:
  deltas.check_names('entry', (known.entry,), tuple(store.names(known.bank)))
  return epath.Path(known.bank) / known.entry


def _text(value) -> str:
  if value is None:
    return '-'
  if isinstance(value, float):
    return f'{value:.4g}'
  return str(value)


def _table(rows: Sequence[Sequence[str]]) -> str:
  """Aligns columns: numbers to the right, text to the left."""
  out = []
  for column in zip(*rows, strict=True):
    width = max(map(len, column))
    number = all(re.fullmatch(r'-|[-+.\de]+|nan', x) for x in column[1:])
    align = str.rjust if number else str.ljust
    out.append([align(text, width) for text in column])
  return '\n'.join('  '.join(row).rstrip() for row in zip(*out, strict=True))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m prompt_subspace.bank',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--bank', required=True, metavar='DIR')
  commands = parser.add_subparsers(required=True, metavar='COMMAND')

  def command(function, name=None):
    found = commands.add_parser(
      name or function.__name__, help=function.__doc__
    )
    found.set_defaults(function=function)
    return found

  command(ls)
  command(show).add_argument('entry')
  one = command(similar)
  one.add_argument('query', metavar='ENTRY|FILE.npy')
  one.add_argument(
    '--metric', default='average', choices=similarity.SIMILARITIES
  )
  one.add_argument('--top', type=int, help='default: all')
  one.add_argument('--csv', action='store_true')
  one.add_argument(
    '--foreign', action='store_true', help='other backbones, too'
  )
  for function, name_of in ((add, None), (import_, 'import')):
    one = command(function, name_of)
    if name_of is None:
      one.add_argument('path', metavar='FILE.npy', nargs='?')
      one.add_argument(
        '--t5x', metavar='RUN', help='folder of a run of T5X, or a checkpoint_N'
      )
      one.add_argument(
        '--embedding',
        metavar='RUN/checkpoint_N',
        help='the early checkpoint that is the embedding of the task',
      )
    else:
      one.add_argument('path', metavar='FOLDER')
    one.add_argument('--task', required=True)
    one.add_argument('--name', help='of the entry; default: that of the file')
    one.add_argument(
      '--backbone',
      help='name or folder of the one that it was trained on, else any text',
    )
    one.add_argument('--replace', action='store_true')
  one = command(export)
  one.add_argument('entry')
  one.add_argument('out')
  one.add_argument('--format', required=True, choices=EXPORTS)
  one.add_argument('--replace', action='store_true')
  one.add_argument(
    '--prefix_positions',
    action='store_true',
    help='say that a prefix was trained with it, see peft_write',
  )
  command(verify)
  return parser


def main(argv: Sequence[str]) -> int:
  """Reads the command line and does as it says; returns the exit code."""
  known = _parser().parse_args(argv)
  try:
    return known.function(known)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
