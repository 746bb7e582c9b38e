"""Predicts with stored deltas: text in, label or generated text out.

  python -m prompt_subspace.predict --delta runs/tune/bank/RUN < texts.txt
  python -m prompt_subspace.predict --delta A --delta B --input texts.txt

One input per line. A line is the text that the task's template makes, or a
JSON object of the task's columns, which the template then renders; for a
multiple choice it brings the candidates, which are then ranked. Inputs are cut
to the length that training cut them to. With several deltas every input is
answered by each of them; a line that begins with the name of a delta and a tab
is answered by that one alone. Deltas of one method run in one batch, each
example with its own.
"""

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_subspace import deltas, trees
from prompt_subspace.backbone import decode, forward, sites
from prompt_subspace.backbone.weights import Backbone
from prompt_subspace.bank import store
from prompt_subspace.data import batches, files
from prompt_subspace.data.templates import Template
from prompt_subspace.deltas.base import positive
from prompt_subspace.evaluation import predict
from prompt_subspace.instance import stored
from prompt_subspace.training import mesh as meshes
from prompt_subspace.vocabulary import EOS


class Request(NamedTuple):
  """One input for one delta.

  Attributes:
    delta: number of the delta.
    text: what the model reads.
    choices: texts that the answer is one of, for this input alone; the labels
      of the task are not listed here.
  """

  delta: int
  text: str
  choices: tuple[str, ...] = ()


def read_requests(
  lines: Iterable[str], entries: Sequence[store.Entry]
) -> list[Request]:
  """Reads the lines of the input.

  Raises:
    ValueError: naming the line: bad JSON, a missing column, no text; or two
      deltas of one name.
  """
  names = {entry.name: i for i, entry in enumerate(entries)}
  if len(names) < len(entries):
    raise ValueError(
      f'delta: expected different names, found {[e.name for e in entries]}. '
      'Rename a folder: lines and answers name their delta by it.'
    )
  out = []
  for number, line in enumerate(lines, start=1):
    line = line.rstrip('\n')
    name, tab, rest = line.partition('\t')
    chosen = list(range(len(entries)))
    if tab and name in names:
      chosen, line = [names[name]], rest
    for i in chosen:
      try:
        out.append(Request(i, *_rendered(line, entries[i])))
      except ValueError as error:
        raise ValueError(f'input line {number}: {error}') from error
  return out


def _rendered(line: str, entry: store.Entry) -> tuple[str, tuple[str, ...]]:
  """Returns the text of a line and the choices that it brings."""
  if not line.lstrip().startswith('{'):
    if not line.strip():
      raise ValueError('expected a text, found an empty line.')
    return line, ()
  if not entry.card.get('template'):
    raise ValueError(
      f'expected a text, found columns, and {entry.name} has no template.'
    )
  template = Template(**_tuples(entry.card['template']))
  try:
    row = {n: files.as_text(x) for n, x in json.loads(line).items()}
  except json.JSONDecodeError as error:
    raise ValueError(
      f'expected a JSON object of columns, as it begins with a brace: {error}.'
    ) from error
  if missing := [c for c in _input_columns(template) if c not in row]:
    raise ValueError(f'expected the columns of the task, missing {missing}.')
  # as in training, where such a row is an error
  if empty := [c for c in template.input_columns if not row[c].strip()]:
    raise ValueError(f'expected a text in every column, {empty} is empty.')
  choices = [c.format_map(row) for c in template.choices or ()]
  return template.input.format_map(row), tuple(c for c in choices if c.strip())


def _input_columns(template: Template) -> tuple[str, ...]:
  # the target's columns, which hold the answer, are not asked for
  asked = (template.input, *(template.choices or ()))
  return Template(' '.join(asked), template.input).columns


def _tuples(fields: dict) -> dict:
  return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def answer(
  requests: Sequence[Request],
  entries: Sequence[store.Entry],
  backbone: Backbone,
  *,
  batch_size: int = 32,
  length: int = 32,
) -> list[dict[str, Any]]:
  """Answers requests; those whose deltas have one shape share batches.

  Args:
    requests: inputs, each with the number of its delta.
    entries: stored deltas, all trained on this backbone.
    backbone: frozen model.
    batch_size: examples at once.
    length: longest generated text in tokens.

  Returns:
    For each request {'delta', 'task', 'input', 'output'}, and `scores` (text
    -> log-probability) where the task has labels or the request has choices;
    `label`, what the column of the task's files holds, where its template maps
    that to other texts. Inputs are cut to `max_input` of the card; of those
    that were, `cut` is True.
  """
  positive('batch_size', batch_size)
  positive('length', length)
  for entry in entries:
    store.check_backbone(entry, backbone)
  if backbone.vocabulary is None:
    raise ValueError(
      f'vocabulary: {backbone.name} has none of its own. Name its '
      'sentencepiece model with --vocabulary.'
    )
  out: list = [None] * len(requests)
  for members, given in itertools.product(_alike(entries), (False, True)):
    place = {number: i for i, number in enumerate(members)}
    wanted = [
      i
      for i, r in enumerate(requests)
      if r.delta in place and bool(r.choices) == given
    ]
    if not wanted:
      continue
    tokens = [backbone.vocabulary.encode(requests[i].text) for i in wanted]
    whole = [len(t) + 1 for t in tokens]
    tokens = [
      _cut(t, entries[requests[i].delta].card.get('max_input'))
      for t, i in zip(tokens, wanted, strict=True)
    ]
    lengths = np.array([len(t) for t in tokens])
    cut = {i for i, n in enumerate(lengths) if n < whole[i]}
    run = _runner([entries[i] for i in members], backbone, length)
    edges = batches.choose_edges(lengths, 3)
    for width, chosen in batches.in_order(lengths, batch_size, edges):
      inputs = np.zeros((len(chosen), width), np.int32)
      for row, i in enumerate(chosen):
        inputs[row, : lengths[i]] = tokens[i]
      owner = [place[requests[wanted[i]].delta] for i in chosen]
      choices = [requests[wanted[i]].choices for i in chosen]
      for i, result in zip(chosen, run(inputs, owner, choices), strict=True):
        request = requests[wanted[i]]
        entry = entries[request.delta]
        out[wanted[i]] = {
          'delta': entry.name,
          'task': entry.card['task'],
          'input': request.text,
          **result,
          **_label(entry, result['output']),
          **({'cut': True} if i in cut else {}),
        }
  return out


def _label(entry: store.Entry, output: str) -> dict[str, str]:
  """What a task's files have in place of an answer, if that differs."""
  labels = (entry.card.get('template') or {}).get('labels') or {}
  found = [value for value, text in labels.items() if text == output]
  return {'label': found[0]} if found and found[0] != output else {}


def _cut(tokens: list[int], longest: int | None) -> list[int]:
  """The input as in training: cut to so many tokens, the end token included."""
  return [*tokens[: longest and longest - 1], EOS]


def _alike(entries: Sequence[store.Entry]) -> list[list[int]]:
  """Groups entries that one compiled call can answer."""
  groups: dict = {}
  for i, entry in enumerate(entries):
    shapes = str(jax.tree.map(np.shape, entry.phi))
    labels = entry.card.get('label_texts')
    settings = json.dumps(entry.card['settings'], sort_keys=True)
    key = (entry.card['method'], settings, shapes, str(labels))
    groups.setdefault(key, []).append(i)
  return list(groups.values())


def _runner(entries: Sequence[store.Entry], backbone: Backbone, length: int):
  """Returns (inputs, owners, choices) -> results, for entries of one shape."""
  method = stored.method(entries[0].card, backbone)
  phi = jax.tree.map(lambda *xs: jnp.stack(xs), *(e.phi for e in entries))
  labels = entries[0].card.get('label_texts')
  config, vocabulary = backbone.config, backbone.vocabulary

  def delta_of(frozen, phi, inputs, owner):
    batch = {'inputs': inputs}
    delta = jax.vmap(lambda p: method.delta(p, batch, frozen.constants))(phi)
    if len(entries) == 1:
      return jax.tree.map(lambda x: x[0], delta)
    # each example takes its delta, of leaves made for each input its own
    own = (owner, jnp.arange(len(owner)))
    picked = {
      path: x[own if sites.per_example(path, x[0]) else owner]
      for path, x in trees.flatten(delta).items()
    }
    return trees.unflatten(picked)

  @jax.jit
  def rank(frozen, phi, inputs, owner, choices):
    delta = delta_of(frozen, phi, inputs, owner)
    batch = {'inputs': inputs}
    return forward.choice_scores(config, frozen.weights, delta, batch, choices)

  @jax.jit
  def generate(frozen, phi, inputs, owner):
    delta = delta_of(frozen, phi, inputs, owner)
    return decode.greedy(config, frozen.weights, delta, inputs, length)

  def placed(x):
    parts = 1 if backbone.mesh is None else backbone.mesh.shape['data']
    return meshes.put(backbone.mesh, x, *['data'] * (len(x) % parts == 0))

  def results(inputs, owner, choices):
    arguments = (
      deltas.Frozen(backbone.weights, method.constants),
      phi,
      placed(inputs),
      placed(np.asarray(owner)),
    )
    if not (labels or choices[0]):
      for row in np.asarray(generate(*arguments)):
        yield {'output': vocabulary.decode(row.tolist())}
      return
    texts = [c or labels for c in choices]
    if choices[0]:
      tokens = predict.few_shapes(_tokens(texts, vocabulary))
    else:
      tokens = _tokens([labels], vocabulary)[0]
    found = np.asarray(rank(*arguments, jnp.asarray(tokens)))
    for names, row in zip(texts, found, strict=True):
      scores = dict(zip(names, map(float, row), strict=False))
      if np.isnan(row).any():
        raise ValueError(
          f'delta: expected log-probabilities, found {scores} with one of '
          f'{[e.name for e in entries]}: its arrays are no numbers or too '
          'large. Take another run; `bank verify` looks for it.'
        )
      yield {'output': max(scores, key=scores.get), 'scores': scores}

  return results


def _tokens(texts: Sequence[Sequence[str]], vocabulary) -> np.ndarray:
  """Returns choices [B, C, T] with their end tokens; unused slots are zero."""
  ids = [[[*vocabulary.encode(t), EOS] for t in row] for row in texts]
  width = max(len(t) for row in ids for t in row)
  out = np.zeros((len(ids), max(map(len, ids)), width), np.int32)
  for i, row in enumerate(ids):
    for j, tokens in enumerate(row):
      out[i, j, : len(tokens)] = tokens
  return out


def main(argv: Sequence[str]) -> int:
  """Reads the command line and answers; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m prompt_subspace.predict',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--delta', action='append', required=True, metavar='DIR')
  parser.add_argument('--backbone', help='default: the one in the card')
  parser.add_argument('--vocabulary', help='where the backbone has none')
  parser.add_argument(
    '--mesh',
    default='1,1,1',
    metavar='ROW,DATA,MODEL',
    help='devices for examples and weights, such as 1,2,4; default: one',
  )
  parser.add_argument('--input', default='-', help='file; - standard input')
  parser.add_argument('--length', type=int, default=32)
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--json', action='store_true', help='a JSON line each')
  parser.add_argument(
    '--import',
    dest='modules',
    action='append',
    default=[],
    metavar='MODULE',
    help='of yours, which adds a method to `deltas.METHODS`',
  )
  known = parser.parse_args(argv)
  try:
    for module in known.modules:
      importlib.import_module(module)
    entries = [store.read(folder) for folder in known.delta]
    with meshes.use(meshes.parse(known.mesh)):
      backbone = meshes.load(
        known.backbone or entries[0].card['backbone'], known.vocabulary
      )
    if known.input == '-':
      requests = read_requests(sys.stdin, entries)
    else:
      with open(known.input, encoding='utf-8-sig') as file:
        requests = read_requests(file, entries)
    answers = answer(
      requests,
      entries,
      backbone,
      batch_size=known.batch_size,
      length=known.length,
    )
  except (ValueError, OSError, ModuleNotFoundError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  if cut := sum('cut' in result for result in answers):
    print(f'{cut} inputs were cut, as in training', file=sys.stderr)
  for result in answers:
    if known.json:
      print(json.dumps(result, ensure_ascii=False))
    elif len(entries) == 1:
      print(result['output'])
    else:
      print(f'{result["delta"]}\t{result["output"]}')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
