"""Generation equals what the whole forward pass says."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_subspace.backbone import decode, forward
from prompt_subspace.backbone.t5 import T5
from prompt_subspace.deltas.base import touches_encoder
from tests import tiny

LENGTH = 6


@functools.partial(jax.jit, static_argnames=('name', 'config', 'length'))
def greedy(name, config, weights, own, inputs, length=LENGTH):
  delta = tiny.expand(name, own)
  return decode.greedy(config, weights, delta, inputs, length)


@functools.partial(
  jax.jit, static_argnames=('config', 'length', 'beams', 'alpha')
)
def beam(config, weights, delta, inputs, length, beams, alpha):
  return decode.beam(config, weights, delta, inputs, length, beams, alpha)


def uncached(name, config, weights, own, inputs, length=LENGTH):
  """Greedy search by the whole forward pass, anew for every token."""
  tokens = np.zeros((inputs.shape[0], length), np.int32)
  done = np.zeros(inputs.shape[0], bool)
  for i in range(length):
    batch = {'inputs': inputs, 'targets': jnp.asarray(tokens)}
    logits = tiny.logits(name, config, weights, own, batch)
    tokens[:, i] = np.where(done, 0, np.argmax(logits[:, i], axis=-1))
    done |= tokens[:, i] == decode.EOS
  return tokens


def with_head(weights, end):
  """Weights whose column of the head for the end token goes through `end`."""
  head = weights['decoder']['logits_dense']['kernel']
  head = head.at[:, decode.EOS].set(end(head[:, decode.EOS]))
  decoder = {**weights['decoder'], 'logits_dense': {'kernel': head}}
  return {**weights, 'decoder': decoder}


def often_ending(weights):
  """Weights that end some sequences early: that logit is far from 0."""
  return with_head(weights, lambda column: 4 * column)


@pytest.mark.parametrize('name', [tiny.PLAIN, *tiny.TABLE])
def test_cached_greedy_search_equals_the_whole_forward_pass(name):
  inputs, own = tiny.batch()['inputs'], tiny.phi(name)
  # an end token that is likely enough to come in some sequences
  weights = often_ending(tiny.frozen())
  found = greedy(name, tiny.CONFIG, weights, own, inputs)
  np.testing.assert_array_equal(
    found, uncached(name, tiny.CONFIG, weights, own, inputs)
  )
  if name != tiny.PLAIN:
    plain = greedy(tiny.PLAIN, tiny.CONFIG, weights, {}, inputs)
    assert (np.asarray(found) != np.asarray(plain)).any()


@pytest.mark.parametrize('name', [tiny.PLAIN, tiny.EVERYTHING])
def test_scanned_layers_generate_the_same(name):
  config = tiny.CONFIG.replace(scan_layers=True, remat=True)
  inputs, own = tiny.batch()['inputs'], tiny.phi(name)
  np.testing.assert_array_equal(
    greedy(name, config, tiny.frozen(config), own, inputs),
    greedy(name, tiny.CONFIG, tiny.frozen(), own, inputs),
  )


@pytest.mark.parametrize('name', ['prompt, decoder too', 'prefix'])
def test_generation_with_prefix_positions_and_a_tied_head(name):
  config = tiny.TIED.replace(prefix_positions=True)
  inputs = tiny.batch()['inputs']
  own, weights = tiny.phi(name), tiny.frozen(config)
  np.testing.assert_array_equal(
    greedy(name, config, weights, own, inputs),
    uncached(name, config, weights, own, inputs),
  )


def test_generation_with_a_delta_for_each_example_equals_a_shared_one():
  name = 'lora, everywhere'
  inputs = tiny.batch()['inputs']

  def search(own):
    delta = tiny.expand(name, own)
    args = tiny.CONFIG, tiny.frozen()
    wide, _ = beam(*args, delta, inputs, LENGTH, 2, 0.0)
    return np.asarray(greedy(name, *args, own, inputs)), np.asarray(wide)

  each = [tiny.phi(name, seed) for seed in range(3)]
  together = search(jax.tree.map(lambda *xs: jnp.stack(xs), *each))
  for i, own in enumerate(each):
    for found, shared in zip(together, search(own), strict=True):
      np.testing.assert_array_equal(found[i], shared[i])


def test_a_known_encoder_output_is_used():
  name = 'prefix, flat, cross too'
  own = {'decoder': tiny.phi(name)['decoder']}
  delta = tiny.expand(name, own)
  assert not touches_encoder(delta)
  inputs = tiny.batch()['inputs']

  @jax.jit
  def search(encoded):
    args = tiny.CONFIG, tiny.frozen(), delta, inputs, 4
    tokens = decode.greedy(*args, encoded=encoded)
    return tokens, *decode.beam(*args, beams=2, encoded=encoded)

  @jax.jit
  def encode(inputs):
    return forward.encode(tiny.CONFIG, tiny.frozen(), {}, inputs)

  alone, given = search(None), search(encode(inputs))
  for found, expected in zip(given, alone, strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)
  other = search(encode(inputs) + 1)
  assert (np.abs(other[2] - alone[2]) > 1e-3).all()


def counted(monkeypatch, config, weights, inputs, length):
  """Tokens of greedy and beam search, and how often each ran the decoder."""
  calls = []
  original = T5.decode

  def decode_and_count(self, *args, **kwargs):
    jax.debug.callback(lambda: calls.append(1))
    return original(self, *args, **kwargs)

  @jax.jit
  def run(weights, inputs):
    return decode.greedy(config, weights, {}, inputs, length)

  @jax.jit
  def run_beam(weights, inputs):
    return decode.beam(config, weights, {}, inputs, length, 2, 0.0)[0]

  found = []
  with monkeypatch.context() as patch:
    patch.setattr(T5, 'decode', decode_and_count)
    for search in (run, run_beam):
      tokens = np.asarray(search(weights, inputs))
      jax.effects_barrier()
      found.append((tokens, len(calls)))
      calls.clear()
  return found


def test_search_stops_when_all_sequences_have_ended(monkeypatch):
  inputs = tiny.batch()['inputs']
  # one direction of the hidden states is the same everywhere, so that the
  # end token can be made certain or impossible
  table = tiny.frozen()['token_embedder']['embedding'].at[:, 0].set(100.0)
  weights = {**tiny.frozen(), 'token_embedder': {'embedding': table}}

  def run(end):
    changed = with_head(weights, lambda column: column.at[0].set(end))
    return counted(monkeypatch, tiny.CONFIG, changed, inputs, LENGTH)

  for tokens, calls in run(10.0):
    assert calls == 1
    assert (tokens[:, 0] == decode.EOS).all() and (tokens[:, 1:] == 0).all()
  for tokens, calls in run(-10.0):
    assert calls == LENGTH
    assert (tokens != decode.EOS).all()


def test_search_goes_on_until_the_last_sequence_has_ended(monkeypatch):
  inputs = tiny.batch(4, inputs=(7, 4, 1, 5, 6, 3, 7, 7))['inputs']
  weights = often_ending(tiny.frozen())
  (tokens, calls), _ = counted(
    monkeypatch, tiny.CONFIG, weights, inputs, LENGTH
  )
  ends = [
    int(np.argmax(row == decode.EOS)) + 1 if decode.EOS in row else LENGTH
    for row in tokens
  ]
  assert calls == max(ends) and len(set(ends)) > 2
  for row, end in zip(tokens, ends, strict=True):
    assert (row[end:] == 0).all()


SMALL = tiny.CONFIG.replace(vocab_size=5)
SMALL_INPUTS = jnp.asarray([[2, 3, 4, 1], [4, 1, 0, 0], [2, 2, 4, 1]])


@functools.cache
def peaked(config):
  """Weights with a larger head, so that some tokens are nearly certain."""
  weights = tiny.frozen(config)
  head = {'kernel': 3 * weights['decoder']['logits_dense']['kernel']}
  decoder = {**weights['decoder'], 'logits_dense': head}
  return {**weights, 'decoder': decoder}


@functools.cache
def all_sequences(name, length):
  """{tokens: log p of each token}, for each example, by brute force."""
  every = np.asarray(
    list(itertools.product(range(SMALL.vocab_size), repeat=length)), np.int32
  )
  tables = []
  for row in SMALL_INPUTS:
    batch = {
      'inputs': jnp.broadcast_to(row, (len(every), row.shape[0])),
      'targets': jnp.asarray(every),
    }
    logits = tiny.logits(
      name, SMALL, peaked(SMALL), tiny.phi(name, config=SMALL), batch
    )
    logits = np.asarray(logits, np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, every[..., None], axis=-1)[..., 0]
    tables.append({tuple(k): v for k, v in zip(every, chosen, strict=True)})
  return tables


def penalised(log_p, alpha):
  return sum(log_p) / ((5 + len(log_p)) / 6) ** alpha


def finished(table):
  """{sequence as generated: log p of its tokens up to its end}."""
  found = {}
  for tokens, log_p in table.items():
    end = tokens.index(1) + 1 if 1 in tokens else len(tokens)
    padded = (*tokens[:end], *[0] * (len(tokens) - end))
    found[padded] = log_p[:end]
  return found


def search_by_hand(table, length, beams, alpha):
  """Beam search over a table of all sequences, in lists."""
  live, ended = [()], []
  for i in range(length):
    options = []
    for prefix in live:
      for token in range(SMALL.vocab_size):
        tokens = (*prefix, token)
        rest = (0,) * (length - len(tokens))
        log_p = table[(*tokens, *rest)][: len(tokens)]
        options.append((sum(log_p), tokens, log_p))
    options.sort(key=lambda option: -option[0])
    for _, tokens, log_p in options[:beams]:
      if tokens[-1] == 1 or i + 1 == length:
        rest = (0,) * (length - len(tokens))
        ended.append((penalised(log_p, alpha), (*tokens, *rest)))
    live = [tokens for _, tokens, _ in options if tokens[-1] != 1][:beams]
  return max(ended)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
@pytest.mark.parametrize('name', [tiny.PLAIN, 'prompt, decoder too'])
def test_a_beam_wide_enough_finds_the_best_of_all_sequences(name, alpha):
  length = 3
  delta = tiny.expand(name, tiny.phi(name, config=SMALL))
  # as many beams as there are sequences without an end before the last token
  beams = (SMALL.vocab_size - 1) ** (length - 1)
  tokens, scores = beam(
    SMALL, peaked(SMALL), delta, SMALL_INPUTS, length, beams, alpha
  )
  for i, table in enumerate(all_sequences(name, length)):
    choices = finished(table)
    best = max(choices, key=lambda key: penalised(choices[key], alpha))
    assert tuple(np.asarray(tokens[i])) == best
    expected = penalised(choices[best], alpha)
    np.testing.assert_allclose(scores[i], expected, atol=1e-5)


@pytest.mark.parametrize(('beams', 'alpha'), [(2, 0.0), (3, 1.0)])
@pytest.mark.parametrize('scan', [False, True])
def test_a_narrow_beam_keeps_what_a_search_by_hand_keeps(beams, alpha, scan):
  length = 4
  config = SMALL.replace(scan_layers=scan)
  tokens, scores = beam(
    config, peaked(config), {}, SMALL_INPUTS, length, beams, alpha
  )
  for i, table in enumerate(all_sequences(tiny.PLAIN, length)):
    score, best = search_by_hand(table, length, beams, alpha)
    assert tuple(np.asarray(tokens[i])) == best
    np.testing.assert_allclose(scores[i], score, atol=1e-5)


def test_an_early_end_does_not_stop_a_longer_and_better_sequence():
  # alone, so that no other example keeps the search going
  length, beams, alpha = 4, 2, 2.0
  table = all_sequences(tiny.PLAIN, length)[2]
  score, best = search_by_hand(table, length, beams, alpha)
  tokens, found = beam(
    SMALL, peaked(SMALL), {}, SMALL_INPUTS[2:], length, beams, alpha
  )
  assert tuple(np.asarray(tokens[0])) == best
  np.testing.assert_allclose(found[0], score, atol=1e-5)
  # there is an earlier and worse end to be misled by
  ends = {sum(x > 0 for x in sequence) for sequence in finished(table)}
  assert 1 in ends and sum(x > 0 for x in best) > 1


def test_one_beam_without_penalty_is_greedy():
  # of 5 tokens the end is often the second best, and a short sequence the more
  # likely one: greedy search does not end there
  args = SMALL, tiny.frozen(SMALL), {}, SMALL_INPUTS, LENGTH
  found, _ = beam(*args, 1, 0.0)
  np.testing.assert_array_equal(found, greedy(tiny.PLAIN, *args))


def test_bad_lengths_and_beams_are_named():
  args = tiny.CONFIG, tiny.frozen(), {}, tiny.batch()['inputs']
  with pytest.raises(ValueError, match='length: expected'):
    decode.greedy(*args, 0)
  with pytest.raises(ValueError, match='beams: expected'):
    decode.beam(*args, 3, beams=0)
  with pytest.raises(ValueError, match='alpha: expected'):
    decode.beam(*args, 3, alpha=-1.0)


def test_a_decoder_prompt_cannot_be_left_out_by_mistake():
  name = 'prompt, decoder too'
  tokens = tiny.batch()['inputs']
  with pytest.raises(ValueError, match='prefill: expected True'):
    T5(tiny.CONFIG).apply(
      forward.variables(
        tiny.CONFIG, tiny.frozen(), tiny.expand(name, tiny.phi(name))
      ),
      jnp.zeros((3, 10, 16)),
      tokens,
      tokens,
      enable_dropout=False,
      decode=True,
      method=T5.decode,
      mutable=['cache'],
    )
