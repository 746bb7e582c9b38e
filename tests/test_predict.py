"""The command that predicts: many deltas, one batch, each its own answers."""

import io
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace import deltas, predict, reparams
from prompt_subspace.backbone import decode, forward, weights
from prompt_subspace.bank import store
from prompt_subspace.instance import methods as strategies
from prompt_subspace.reparams import subspace
from tests import sample

PROMPT = deltas.prompt(length=2, start='uniform')
HEAD = deltas.full(only=('decoder/logits_dense',))
TEXTS = ['the ferry left', 'snow in may, and in june too', 'tea', 'who is it']
TEMPLATE = {'input': 'film: {title} year: {year}', 'target': '{label}'}


def make_card(backbone, method, **fields):
  return {
    'task': 'films',
    'method': method.name,
    'settings': dict(method.settings),
    'backbone': backbone.name,
    'fingerprint': backbone.fingerprint,
    'label_texts': list(sample.LABELS),
    'template': TEMPLATE | {'labels': {'0': 'yes', '1': 'never'}},
    **fields,
  }


@pytest.fixture(scope='module')
def bank(small, tmp_path_factory):
  """Three classifications, two of one method, and a generation."""
  folder = tmp_path_factory.mktemp('bank')
  weights.write(folder / 'backbone', small)
  random = np.random.default_rng(0)

  def write(name, method, **fields):
    phi = method.init(jax.random.key(0), sample.setting(small))
    phi = jax.tree.map(
      lambda x: x + random.standard_normal(x.shape).astype('float32'), phi
    )
    card = make_card(small, method, **fields)
    store.write(folder / name, phi, card)

  write('one', PROMPT)
  write('two', PROMPT)
  write('head', HEAD)
  write('writer', HEAD, task='stories', label_texts=None)
  return folder


@pytest.fixture(scope='module')
def entries(bank):
  return [store.read(bank / name) for name in ('one', 'two', 'head', 'writer')]


@pytest.fixture
def command(bank, capsys, monkeypatch):
  """Runs the command; returns its exit code, its lines and its errors."""

  def run(*args, deltas=('one',), lines=(), backbone='backbone'):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('\n'.join(lines)))
    named = [word for d in deltas for word in ('--delta', str(bank / d))]
    code = predict.main([*named, '--backbone', str(bank / backbone), *args])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err

  return run


@pytest.fixture(scope='module')
def together(entries, small):
  """All texts, answered by all deltas at once."""
  requests = predict.read_requests(TEXTS, entries)
  assert len(requests) == 16
  return requests, predict.answer(
    requests, entries, small, batch_size=3, length=6
  )


def test_deltas_in_one_batch_answer_as_one_by_one(together, entries, small):
  requests, found = together
  for number, entry in enumerate(entries[:2]):
    alone = predict.read_requests(TEXTS, [entry])
    wanted = predict.answer(alone, [entry], small, batch_size=4)
    mine = [
      a for r, a in zip(requests, found, strict=True) if r.delta == number
    ]
    for a, b in zip(mine, wanted, strict=True):
      for label in sample.LABELS:
        assert a['scores'].pop(label) == pytest.approx(
          b['scores'].pop(label), abs=1e-3
        )
      assert a == b


def test_labels_are_scored_by_the_backbone_with_the_delta(
  together, entries, small
):
  """Against each label's log-probability, decoded by itself."""
  requests, found = together
  tokens = sample.pad([small.vocabulary.encode(t) for t in TEXTS])
  phi = jax.tree.map(jnp.asarray, entries[2].phi)

  @jax.jit
  def score(target):
    batch = {'inputs': tokens, 'targets': target}
    logits = jax.nn.log_softmax(
      forward.logits(small.config, small.weights, phi, batch)
    )
    return jnp.take_along_axis(logits, target[..., None], -1).sum((1, 2))

  for label in sample.LABELS:
    target = np.repeat(sample.pad([small.vocabulary.encode(label)]), 4, axis=0)
    mine = [
      a['scores'][label]
      for r, a in zip(requests, found, strict=True)
      if r.delta == 2
    ]
    np.testing.assert_allclose(mine, score(target), atol=1e-3)
  for answer in found[2::4]:
    scores = answer['scores']
    assert answer['output'] == max(scores, key=scores.get)


def test_a_task_without_labels_is_answered_in_words(together, entries, small):
  requests, found = together
  tokens = sample.pad([small.vocabulary.encode(t) for t in TEXTS])
  phi = jax.tree.map(jnp.asarray, entries[3].phi)
  wanted = jax.jit(
    lambda phi: decode.greedy(small.config, small.weights, phi, tokens, 6)
  )(phi)
  assert [a['output'] for a in found[3::4]] == [
    small.vocabulary.decode(t) for t in wanted.tolist()
  ]
  assert any(a['output'] for a in found[3::4])
  assert all('scores' not in a for a in found[3::4])


def test_a_delta_in_a_subspace_is_made_again(small, tmp_path):
  """Its code and the card are enough; another draw of the map is refused."""
  inner = deltas.prompt(length=2, start='vocabulary')
  made = subspace.subspace(inner, reparams.fastfood(block=16), 5, seed=3)
  setting = weights.setting(small)
  method = deltas.bound(made, setting)
  phi = {'code': np.arange(5, dtype=np.float32)}
  store.write(tmp_path / 'inside', phi, make_card(small, method))
  plain = method.delta(phi, {}, method.constants)['encoder']['prompt']
  store.write(
    tmp_path / 'plain', {'encoder': np.asarray(plain)}, make_card(small, PROMPT)
  )
  held = [store.read(tmp_path / n) for n in ('inside', 'plain')]
  requests = predict.read_requests(TEXTS, held)
  found = predict.answer(requests, held, small)
  for one, other in zip(found[::2], found[1::2], strict=True):
    assert (one['delta'], other['delta']) == ('inside', 'plain')
    for label, value in one['scores'].items():
      assert value == pytest.approx(other['scores'][label], abs=1e-4)
  held[0].card['settings']['seed'] = 4
  with pytest.raises(ValueError, match='fingerprint: .* drawn otherwise'):
    predict.answer(requests, held, small)


def test_a_strategy_in_a_subspace_is_made_again(small, tmp_path):
  made = subspace.subspace(
    strategies.random(length=2), reparams.fastfood(block=16), 5
  )
  method = deltas.bound(made, weights.setting(small))
  phi = {'code': np.ones(5, np.float32)}
  store.write(tmp_path / 'inside', phi, make_card(small, method))
  held = [store.read(tmp_path / 'inside')]
  found = predict.answer(predict.read_requests(TEXTS, held), held, small)
  tokens = jnp.asarray([[*small.vocabulary.encode(TEXTS[0]), 1]])
  delta = method.delta(phi, {'inputs': tokens}, method.constants)
  choices = jnp.asarray(predict._tokens([sample.LABELS], small.vocabulary)[0])
  scores = forward.choice_scores(
    small.config, small.weights, delta, {'inputs': tokens}, choices
  )
  np.testing.assert_allclose(list(found[0]['scores'].values()), scores[0], 1e-3)


def test_the_label_of_the_files_is_told_where_it_reads_otherwise(
  entries, small
):
  found = predict.answer(
    predict.read_requests(TEXTS, entries[:1]), entries[:1], small
  )
  # the template reads '0' as 'yes' and '1' as 'never'
  values = {'yes': '0', 'never': '1'}
  assert [a['label'] for a in found] == [values[a['output']] for a in found]


def test_answers_come_in_the_order_of_the_lines(together):
  requests, found = together
  assert [a['input'] for a in found] == [t for t in TEXTS for _ in range(4)]
  assert [a['delta'] for a in found] == ['one', 'two', 'head', 'writer'] * 4
  assert [a['task'] for a in found][:4] == ['films'] * 3 + ['stories']


def test_lines_are_texts_rows_or_addressed(entries):
  row = json.dumps({'title': 'Jaws {2}', 'year': 1978, 'more': ''})
  lines = ['plain text\n', f'{row}\n', f'two\t{row}', 'other\ttab stays']
  found = predict.read_requests(lines, entries[:2])
  rendered = 'film: Jaws {2} year: 1978'
  assert [(r.delta, r.text) for r in found] == [
    (0, 'plain text'),
    (1, 'plain text'),
    (0, rendered),
    (1, rendered),
    (1, rendered),
    (0, 'other\ttab stays'),
    (1, 'other\ttab stays'),
  ]


def test_values_of_a_row_read_as_in_training(entries):
  row = json.dumps({'title': 2.50, 'year': True})
  (found,) = predict.read_requests([row], entries[:1])
  assert found.text == 'film: 2.5 year: true'


def test_candidates_of_a_row_are_ranked(entries, small):
  """As many as each row has, among rows with other candidates and texts."""
  card = entries[3].card | {
    'template': {
      'input': 'which? {hint}',
      'target': '{answer}',
      'choices': ['{a}', '{b}', '{c}'],
    }
  }
  several = [entries[3]._replace(card=card)]
  rows = [
    {'hint': 'x', 'a': 'tea', 'b': 'the long road', 'c': ''},
    {'hint': 'snow', 'a': 'snow in may', 'b': 'two', 'c': 'a red boat'},
  ]
  lines = [json.dumps(rows[0]), 'which? x', json.dumps(rows[1])]
  requests = predict.read_requests(lines, several)
  assert [r.choices for r in requests] == [
    ('tea', 'the long road'),
    (),
    ('snow in may', 'two', 'a red boat'),
  ]
  found = predict.answer(requests, several, small, length=4)
  assert 'scores' not in found[1]
  for answer, request in zip(found[::2], requests[::2], strict=True):
    assert tuple(answer['scores']) == request.choices
    assert answer['output'] == max(answer['scores'], key=answer['scores'].get)
    phi = jax.tree.map(jnp.asarray, several[0].phi)
    for text, value in answer['scores'].items():
      batch = {
        'inputs': sample.pad([small.vocabulary.encode(request.text)]),
        'targets': sample.pad([small.vocabulary.encode(text)]),
      }
      logits = jax.nn.log_softmax(
        forward.logits(small.config, small.weights, phi, batch)
      )
      alone = jnp.take_along_axis(logits, batch['targets'][..., None], -1)
      assert value == pytest.approx(float(alone.sum()), abs=1e-3)
  with pytest.raises(ValueError, match="line 1: .* missing .'c'"):
    predict.read_requests(['{"hint": "", "a": "1", "b": "2"}'], several)


@pytest.mark.parametrize(
  'line, message',
  [
    ('{"title": "x"}', "columns of the task, missing .'year'"),
    ('{"title": ', 'input line 2: .*delimiter|Expecting'),
    ('  ', 'input line 2: expected a text, found an empty line'),
    ('two\t', 'input line 2: expected a text'),
    ('{"title": "x", "year": " "}', "every column, .'year'. is empty"),
    ('{"title": null, "year": 1}', "every column, .'title'. is empty"),
  ],
)
def test_a_bad_line_is_named(entries, line, message):
  with pytest.raises(ValueError, match=message) as error:
    predict.read_requests(['fine', line], entries[:2])
  assert str(error.value).startswith('input line 2: ')


@pytest.mark.parametrize('layers', ['all', 'first'])
def test_prefixes_made_for_inputs_answer_together_as_alone(
  small, tmp_path, layers
):
  # two layers, so that the first is not all; as many positions as inputs
  backbone = sample.backbone(
    small.vocabulary, num_encoder_layers=2, num_decoder_layers=2
  )
  method = strategies.random(len(TEXTS), base='prefix', layers=layers, hidden=4)
  method = deltas.bound(method, weights.setting(backbone))
  random = np.random.default_rng(0)
  for name in ('a', 'b'):
    phi = jax.tree.map(
      lambda x: x + random.standard_normal(x.shape).astype('float32'),
      method.init(jax.random.key(0), weights.setting(backbone)),
    )
    card = make_card(backbone, method, template=None)
    store.write(tmp_path / name, phi, card)
  both = [store.read(tmp_path / name) for name in ('a', 'b')]
  found = predict.answer(predict.read_requests(TEXTS, both), both, backbone)
  for number, one in enumerate(both):
    alone = predict.answer(predict.read_requests(TEXTS, [one]), [one], backbone)
    for a, b in zip(found[number::2], alone, strict=True):
      assert a['scores'] == pytest.approx(b['scores'], abs=1e-3)


def changed(entry, phi=None, **card):
  return entry._replace(phi=phi or entry.phi, card=entry.card | card)


def test_a_delta_of_no_numbers_gives_no_answer(entries, small):
  phi = jax.tree.map(lambda x: np.full_like(x, np.nan), entries[0].phi)
  broken = [changed(entries[0], phi)]
  with pytest.raises(ValueError, match=r"of \['one'\]: its arrays are no num"):
    predict.answer(predict.read_requests(TEXTS, broken), broken, small)


def test_what_the_card_contradicts_is_refused(entries, small):
  def answers(entry, **fields):
    requests = predict.read_requests(TEXTS, [entry])
    return predict.answer(requests, [entry], small, **fields)

  same = changed(entries[0], vocabulary=small.vocabulary.sha256)
  assert answers(same) == answers(entries[0])
  with pytest.raises(ValueError, match='one: trained with the vocabulary 000'):
    answers(changed(entries[0], vocabulary='0' * 64))
  settings = dict(entries[0].card['settings']) | {'colour': 1}
  with pytest.raises(ValueError, match="settings of prompt, .*'colour'"):
    answers(changed(entries[0], settings=settings))
  for name in ('batch_size', 'length'):
    with pytest.raises(ValueError, match=f'{name}: expected a whole number'):
      answers(entries[0], **{name: 0})


def test_a_row_needs_a_template(entries):
  card = {k: v for k, v in entries[0].card.items() if k != 'template'}
  with pytest.raises(ValueError, match='line 1: .* one has no template'):
    predict.read_requests(['{"a": 1}'], [entries[0]._replace(card=card)])


def test_two_deltas_of_one_name_are_refused(entries):
  with pytest.raises(ValueError, match='delta: expected different names'):
    predict.read_requests(['text'], [entries[0], entries[0]])


def test_the_command_reads_lines_and_prints_answers(command, together, bank):
  one = [a['output'] for a in together[1][0::4]]
  assert command(lines=TEXTS)[:2] == (0, one)
  # a byte order mark is no part of the first text
  (bank / 'texts.txt').write_text('\n'.join(TEXTS[:2]) + '\n', 'utf-8-sig')
  assert command('--input', str(bank / 'texts.txt'))[:2] == (0, one[:2])
  # the template makes a text of a row
  row = json.dumps({'title': 'Jaws', 'year': '1978'})
  code, lines, _ = command('--json', lines=[row, 'film: Jaws year: 1978'])
  found = [json.loads(line) for line in lines]
  assert code == 0 and found[0] == found[1]
  assert found[0]['output'] in sample.LABELS and set(found[0]['scores']) == set(
    sample.LABELS
  )
  # several deltas are told apart
  code, lines, _ = command(deltas=('one', 'two'), lines=[f'two\t{TEXTS[0]}'])
  assert lines == [f'two\t{together[1][1]["output"]}']


def test_the_command_answers_on_a_mesh(bank, entries, small):
  words = [sys.executable, '-m', 'prompt_subspace.predict', '--json']
  words += ['--backbone', str(bank / 'backbone'), '--mesh', '1,2,4']
  for name in ('one', 'two', 'writer'):
    words += ['--delta', str(bank / name)]
  found = subprocess.run(
    words,
    input='\n'.join(TEXTS),
    cwd=pathlib.Path(__file__).parents[1],
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': os.environ.get('XLA_FLAGS', '')
      + ' --xla_force_host_platform_device_count=8',
    },
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr[-2000:]
  answers = [json.loads(line) for line in found.stdout.splitlines()]
  chosen = [entries[0], entries[1], entries[3]]
  wanted = predict.answer(predict.read_requests(TEXTS, chosen), chosen, small)
  assert len(answers) == len(wanted) == 3 * len(TEXTS)
  for answer, one in zip(answers, wanted, strict=True):
    scores, others = answer.pop('scores', {}), one.pop('scores', {})
    assert answer == one
    assert scores == pytest.approx(others, abs=1e-4)


def test_the_command_refuses_another_backbone(command, bank, small):
  other = sample.backbone(small.vocabulary, seed=1)
  weights.write(bank / 'other', other)
  code, lines, error = command(backbone='other', lines=['text'])
  assert code == 2 and not lines
  assert error.startswith('error: one: trained on backbone')
  assert small.fingerprint[:16] in error and other.fingerprint[:16] in error


def test_a_method_of_ones_own_answers_once_its_module_is_imported(
  command, bank, tmp_path, monkeypatch
):
  entry = store.read(bank / 'one')
  card = entry.card | {'method': 'mine'}
  monkeypatch.setattr(deltas, 'METHODS', dict(deltas.METHODS))
  store.write(bank / 'mine', entry.phi, card)
  code, _, error = command(deltas=['mine'], lines=TEXTS)
  assert code == 2 and re.search("found 'mine'.*--import", error)
  (tmp_path / 'my_methods.py').write_text(
    'from prompt_subspace import deltas\n'
    'deltas.METHODS["mine"] = deltas.prompt\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  word = ('--import', 'my_methods')
  code, lines, _ = command(*word, deltas=['mine'], lines=TEXTS)
  assert code == 0 and lines == command(lines=TEXTS)[1]
  code, _, error = command('--import', 'none_such', lines=TEXTS)
  assert code == 2 and "No module named 'none_such'" in error


def test_the_command_says_what_is_missing(command, bank, small):
  code, _, error = command(deltas=('nothing',))
  assert code == 2 and 'expected a stored delta' in error
  code, _, error = command('--input', str(bank / 'nothing.txt'))
  assert code == 2 and 'nothing.txt' in error
  # a backbone without a vocabulary is given one
  weights.write(bank / 'bare', small._replace(vocabulary=None))
  code, _, error = command(backbone='bare', lines=['tea'])
  assert code == 2 and 'vocabulary' in error
  vocabulary = str(small.vocabulary.path)
  code, lines, _ = command(
    '--vocabulary', vocabulary, backbone='bare', lines=['tea']
  )
  assert code == 0 and lines[0] in sample.LABELS
