"""The command line: gin files in, a checked job and its record out."""

import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

import gin
from prompt_subspace import check, run
from prompt_subspace.backbone import weights

ROOT = pathlib.Path(__file__).parents[1]
NOTE = """
from __gin__ import dynamic_registration
from prompt_subspace import run
from tests import sample

OUT = {out!r}
WORD = "tea"
NUMBER = 2

run.job.job = @sample.note()
run.job.report = @sample.read
sample.note.out = %OUT
sample.note.word = %WORD
sample.note.number = %NUMBER
"""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
  """gin files name each other from the root of the repository."""
  monkeypatch.chdir(ROOT)


@pytest.fixture
def note(tmp_path):
  """The arguments for a job that writes a few words."""
  path = tmp_path / 'note.gin'
  path.write_text(NOTE.format(out=str(tmp_path / 'out')))
  return [f'--gin_file={path}']


# -- gin files and bindings


def test_a_gin_file_makes_a_job(note, tmp_path):
  job, report = run.parse(note, 'run')
  assert job.folder == tmp_path / 'out'
  assert job.plan == 'plan       tea x 2'
  assert callable(report)
  assert not job.folder.exists()


def test_bindings_of_the_command_line_win(note):
  words = ['--gin.NUMBER=3', '--gin.WORD="two words = one"']
  job, _ = run.parse([*note, *words], 'run')
  assert job.plan == 'plan       two words = one x 3'
  job, _ = run.parse([*note, '--gin.NUMBER=3', '--gin.NUMBER=4'], 'run')
  assert job.plan == 'plan       tea x 4'
  job, _ = run.parse([*note, '--gin.sample.note.number=5'], 'run')
  assert job.plan == 'plan       tea x 5'
  # and are gone the next time
  job, _ = run.parse(note, 'run')
  assert job.plan == 'plan       tea x 2'


def test_a_binding_may_name_what_no_file_uses(note):
  words = [
    '--gin.sample.note.word=@sample.backwards()',
    '--gin.sample.backwards.word="milk"',
  ]
  job, _ = run.parse([*note, *words], 'run')
  assert job.plan == 'plan       klim x 2'


def test_a_binding_may_take_another_optimizer(tmp_path):
  words = [
    '--gin.TASKS=["moods"]',
    f'--gin.OUT="{tmp_path}"',
    '--gin.tune.tune.optimizer=@optimizers.adam',
  ]
  run.parse(['--gin_file=gin/tune.gin', *words], 'run')
  assert 'tune.tune.optimizer = @optimizers.adam\n' in gin.config_str()


def test_a_later_file_wins_and_files_include_others(note, tmp_path):
  later = tmp_path / 'later.gin'
  later.write_text("include 'note.gin'\nWORD = 'milk'\n")
  job, _ = run.parse(
    [f'--gin_file={later.name}', f'--gin_search_paths=.,{tmp_path}'], 'run'
  )
  assert job.plan == 'plan       milk x 2'
  more = tmp_path / 'more.gin'
  more.write_text('NUMBER = 7\n')
  job, _ = run.parse([*note, f'--gin_file={more}'], 'run')
  assert job.plan == 'plan       tea x 7'


# -- the commands


def test_a_job_is_run_recorded_and_reported(note, tmp_path, capsys):
  argv = [*note, '--gin.NUMBER=3']
  assert run.main(argv) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines == ['plan       tea x 3', 'it says teateatea']
  record = json.loads((tmp_path / 'out' / 'record.json').read_text())
  assert record['command'] == argv and record['word'] == 'tea'
  assert 'NUMBER = 3' in record['gin']
  assert 'sample.note.number = %NUMBER' in record['gin']
  assert record['versions']['jax'] == jax.__version__
  assert record['devices'] == [str(d) for d in jax.devices()]
  # the starts before it are not forgotten
  assert run.main([*note, '--gin.NUMBER=4']) == 0
  text = (tmp_path / 'out' / 'starts.jsonl').read_text(encoding='utf-8')
  first, second = map(json.loads, text.splitlines())
  assert first.pop('started') <= second['started'] and first == record
  assert 'NUMBER = 4' in second['gin']


def test_an_error_of_the_job_is_a_line_and_not_a_trace(note, capsys):
  assert run.main([*note, '--gin.NUMBER=-1']) == 2
  assert (
    capsys.readouterr().err == 'error: number: expected 0 or more, found -1.\n'
  )


def test_check_plans_and_runs_nothing(note, tmp_path, capsys):
  assert check.main(note) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == 'plan       tea x 2' and lines[-1].startswith('ok ')
  assert not (tmp_path / 'out').exists()


def test_the_command_runs_as_a_module(note, tmp_path):
  """gin knows `run.job` by its module, and a script is `__main__`."""
  done = subprocess.run(
    [sys.executable, '-m', 'prompt_subspace.run', *note],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'it says teatea'


TUNE = '--gin_file=gin/tune.gin'
MISTAKES = {
  'no file': (
    ['--gin_file=gin/none.gin'],
    'gin: Unable to open .*gin/none.gin',
  ),
  'no such macro': (
    [TUNE, '--gin.STEP=3'],
    '--gin.STEP: .* STEPS, .* found STEP',
  ),
  'no module': (
    [TUNE, '--gin.tune.optimizer=@optimizers.adam'],
    'by module and function, .* found tune.optimizer',
  ),
  'no such function': (
    [TUNE, '--gin.tune.nosuch.x=1'],
    'tune.nosuch; .*training.tune.* has no attribute nosuch',
  ),
  'no such module': (
    [TUNE, '--gin.spec.Settings.steps=@nosuch.steps()'],
    "'nosuch' was not provided .*expected one of deltas, .*, spec, .*, tune",
  ),
  'no such parameter': (
    [TUNE, '--gin.spec.Settings.stepz=3'],
    "doesn't have a parameter named 'stepz'",
  ),
  'no quotes': (
    [TUNE, '--gin.TASKS=[sst2]'],
    '--gin.TASKS: .* found .sst2.* has quotes of its own',
  ),
  'a text without quotes': (
    [TUNE, '--gin.DATA_DIR=../x'],
    '--gin.DATA_DIR: .* found ../x. A text has quotes',
  ),
  'a rate and no list': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.RATES=0.1'],
    'rates: expected a list of at least one rate, found 0.1',
  ),
  'a rate below 0': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.RATES={"prompt": [-0.1]}'],
    'rates, prompt: expected numbers above 0, found -0.1',
  ),
  'a seed and no list': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.SEEDS=0'],
    'seeds: expected a list of at least one seed, found 0',
  ),
  'half a seed': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.SEEDS=[0.5]'],
    'seeds: expected whole numbers, found 0.5',
  ),
  'too much dropout': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.tune.tune.dropout=2'],
    'dropout: expected a share .* found 2',
  ),
  'shots as a text': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.SHOTS="8"'],
    "shots: expected a whole number >= 1 of examples, found '8'",
  ),
  'no such macro in a value': (
    [TUNE, '--gin.TASKS=%NONE'],
    "No bindings specified for 'NONE",
  ),
  'no such folder': (
    [TUNE, '--gin.DATA_DIR="/none"'],
    'data_dir: .*none at /none',
  ),
  'no such task': (
    [TUNE, '--gin.DATA_DIR="demo"', '--gin.TASKS=["reviews", "none"]'],
    "unknown task 'none'; the known ones .*causes.*reviews",
  ),
  'data that is elsewhere': (
    [TUNE, '--gin.TASKS=["sst2"]'],
    "task 'sst2' needs data: pass data_dir",
  ),
  'no such method': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.METHODS=["lorax"]'],
    "methods: expected names among .*'lora'.*found .'lorax'",
  ),
  'no such backbone': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.BACKBONE="maxi"'],
    "backbone: expected one of .'mini'.*found 'maxi'",
  ),
  'no backbone': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.BACKBONE=None'],
    'backbone: expected a name or a folder of a checkpoint, found None',
  ),
  'a wrong value': (
    [TUNE, '--gin.TASKS=["reviews"]', '--gin.STEPS="many"'],
    "steps: expected a whole number >= 1, found 'many'",
  ),
}


@pytest.mark.parametrize('command', [check, run], ids=['check', 'run'])
@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_end_with_code_2_and_say_what_to_do(
  name, command, tmp_path, capsys
):
  argv, message = MISTAKES[name]
  out = [] if name == 'no file' else [f'--gin.OUT="{tmp_path / "out"}"']
  assert command.main([*argv, *out]) == 2
  printed = capsys.readouterr()
  assert not printed.out
  last = printed.err[printed.err.index('error: ') :]
  assert re.search(message, last, re.S), last
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'text, message',
  [
    ('', 'gin_file: expected a file that binds run.job.job'),
    (
      'from __gin__ import dynamic_registration\nfrom t5x import trainer\n',
      'T5X is started by T5X, .*: python -m t5x.train',
    ),
    (
      'from __gin__ import dynamic_registration\n'
      'from prompt_subspace import nothing\n',
      "gin: .*'?nothing'?",
    ),
    ('X = = 3\n', 'gin: .*'),
    # a module that the file does not import
    (
      'from __gin__ import dynamic_registration\ntune.tune.out = "a"\n',
      "gin: 'tune' was not provided by an import statement",
    ),
  ],
  ids=['no job', 'of T5X', 'no such module', 'no gin', 'no import'],
)
def test_a_file_with_a_mistake_is_named(text, message, tmp_path, capsys):
  path = tmp_path / 'bad.gin'
  path.write_text(text)
  assert check.main([f'--gin_file={path}']) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert re.search(message, error) and 'bad.gin' in error


@pytest.mark.parametrize('word', ['STEPS=3', '--STEPS=3', '--gin.STEPS'])
def test_a_word_that_is_no_binding_is_refused(note, word, capsys):
  with pytest.raises(SystemExit) as error:
    run.parse([*note, word], 'check')
  assert error.value.code == 2
  assert 'expected --gin.NAME=VALUE' in capsys.readouterr().err


# -- the files that come with the package


@pytest.fixture(scope='module')
def sweep(small, tmp_path_factory):
  """Arguments for a very small sweep by gin/tune.gin."""
  folder = tmp_path_factory.mktemp('sweep')
  weights.write(folder / 'backbone', small)
  return folder / 'out', [
    TUNE,
    f'--gin.BACKBONE="{folder / "backbone"}"',
    f'--gin.OUT="{folder / "out"}"',
    '--gin.DATA_DIR="demo"',
    '--gin.TASKS=["reviews"]',
    '--gin.METHODS=["lora"]',
    '--gin.SEEDS=[0]',
    '--gin.RATES=[0.01, 0.1]',
    '--gin.STEPS=2',
    '--gin.tune.tune.max_input=16',
    '--gin.spec.Settings.batch_size=4',
    '--gin.spec.Settings.test_examples=8',
    '--gin.spec.Settings.validation_examples=8',
    '--gin.spec.Settings.evaluation_batch=8',
  ]


def test_the_main_job_from_file_to_table(sweep, small, capsys):
  folder, argv = sweep
  assert check.main(argv) == 0 and not folder.exists()
  assert run.main(argv) == 0
  printed = capsys.readouterr().out
  assert 'lora' in printed.splitlines()[-1] or 'majority' in printed
  with open(folder / 'results.csv', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [r['rate'] for r in rows] == ['0.01', '0.1']
  assert 'reviews' in (folder / 'table.md').read_text(encoding='utf-8')
  record = json.loads((folder / 'record.json').read_text(encoding='utf-8'))
  assert record['fingerprint'] == small.fingerprint
  assert record['runs'] == 2 and len(record['data']['reviews']) == 64
  assert 'STEPS = 2' in record['gin'] and 'tune.tune.rates' in record['gin']
  # other settings are refused, before the record is touched
  before = (folder / 'record.json').read_bytes()
  for command in (check, run):
    assert command.main([*argv, '--gin.STEPS=3']) == 2
    error = capsys.readouterr().err
    assert 'settings.steps: it was 2, asked for is 3' in error
  assert (folder / 'record.json').read_bytes() == before


def test_the_demo_is_a_job(sweep, tmp_path, capsys):
  words = [w for w in sweep[1] if w.startswith('--gin.BACKBONE')]
  out = f'--gin.OUT="{tmp_path / "demo"}"'
  assert check.main(['--gin_file=gin/demo.gin', out, *words]) == 0
  plan = capsys.readouterr().out
  assert re.search(r'runs +(\d+) without transfer, \1 of them to do', plan), (
    plan
  )


def test_the_transfer_study_is_a_job(sweep, real_data, tmp_path, capsys):
  words = [
    '--gin_file=gin/spot.gin',
    *(w for w in sweep[1] if w.startswith('--gin.BACKBONE')),
    f'--gin.OUT="{tmp_path / "spot"}"',
    f'--gin.DATA_DIR="{real_data / "tasks"}"',
    '--gin.SOURCES=["paraphrase", "cola"]',
    '--gin.TARGETS=["mpqa"]',
    '--gin.POLICIES=["best-1", "oracle"]',
    '--gin.BASELINES=["full", "multitask"]',
  ]
  assert check.main(words) == 0
  plan = capsys.readouterr().out
  # of the paper's mixture, what there is data for
  assert 'mixture    paraphrase: mrpc, sts' in plan
  assert 'sources    6 prompts, 2000 steps each' in plan
  assert check.main([*words, '--gin.POLICIES=["best-9"]']) == 2
  assert 'expected k up to 2' in capsys.readouterr().err


def test_pre_training_is_a_job(real_data, tmp_path, capsys):
  words = [
    f'--gin.OUT="{tmp_path / "out"}"',
    f'--gin.DATA_DIR="{real_data / "tasks"}"',
  ]
  assert check.main(['--gin_file=gin/pretrain.gin', *words]) == 0
  assert 'yelp_sentences' in capsys.readouterr().out


@pytest.fixture(scope='module')
def meta(sweep):
  """Arguments for a very small study by gin/meta.gin on embedded tasks."""
  return [
    *(w for w in sweep[1] if w.startswith('--gin.BACKBONE')),
    '--gin.SOURCES=["reviews", "topics", "formality"]',
    '--gin.TARGETS=["questions"]',
    '--gin.SPLITS=[0]',
    '--gin.SHOTS=4',
    '--gin.SOURCE_SHOTS=4',
    '--gin.OUTER_STEPS=2',
    '--gin.STEPS=2',
    '--gin.study.learn.max_input=16',
    '--gin.study.learn.max_target=8',
    '--gin.deltas.prompt.length=3',
    '--gin.diagnostics.Look.inner_rates=[0.1]',
    '--gin.diagnostics.Look.episodes=1',
    '--gin.target/spec.Settings.test_examples=8',
  ]


def test_a_meta_learning_study_from_file_to_page(meta, tmp_path, capsys):
  out = f'--gin.OUT="{tmp_path / "meta"}"'
  argv = ['--gin_file=gin/meta.gin', *meta, out]
  assert run.main([*argv, '--gin.ALGORITHMS=["pt", "maml"]']) == 0
  printed = capsys.readouterr().out
  assert 'maml' in printed.splitlines()[-1] or 'report' in printed
  assert {p.name for p in (tmp_path / 'meta' / 'bank').iterdir()} == {'maml-s0'}
  text = (tmp_path / 'meta' / 'report.html').read_text(encoding='utf-8')
  assert 'questions' in text and 'maml' in text


@pytest.mark.parametrize(
  'name, words',
  [
    ('meta_sources', ['--gin.FOUR=["reviews"]', '--gin.EIGHT=["topics"]']),
    ('meta_sensitivity', []),
  ],
)
def test_studies_of_its_settings_are_jobs(meta, name, words, tmp_path, capsys):
  argv = [f'--gin_file=gin/{name}.gin', *meta, *words]
  out = f'--gin.OUT="{tmp_path / "out"}"'
  assert check.main([*argv, out]) == 0, capsys.readouterr().err
  plan = capsys.readouterr().out
  assert 'maml' in plan and 'questions' in plan


@pytest.fixture(scope='module')
def instance(sweep):
  """Arguments for very small studies of instance-wise prompts."""
  return [
    *(w for w in sweep[1] if w.split('=')[0] not in DIFFERENT),
    '--gin.TABLE=None',
    '--gin.SHARE=0.5',
    # 0.5 % of a small backbone does not make an encoder
    '--gin.methods.encoder.budget=0.2',
  ]


DIFFERENT = (
  '--gin_file',
  '--gin.RATES',
  '--gin.METHODS',
  '--gin.STEPS',
  '--gin.tune.tune.max_input',
)


def test_few_shots_with_cross_validation_from_file_to_table(
  instance, tmp_path, capsys
):
  argv = [
    '--gin_file=gin/ipt_fewshot.gin',
    *instance,
    f'--gin.OUT="{tmp_path / "out"}"',
    '--gin.METHODS=["mlp"]',
    '--gin.STEPS=[2, 4]',
    '--gin.SHOTS=4',
    '--gin.FOLDS=2',
    '--gin.LENGTH=3',
    '--gin.spec.Settings.evaluate_every=2',
    '--gin.crossed.cross_validate.max_input=16',
  ]
  assert run.main(argv) == 0, capsys.readouterr().err
  assert 'chosen' in capsys.readouterr().out
  with open(tmp_path / 'out' / 'results.csv', encoding='utf-8') as file:
    assert [r['method'] for r in csv.DictReader(file)] == ['mlp']


def test_a_sweep_of_lengths_from_file_to_picture(instance, tmp_path, capsys):
  argv = [
    '--gin_file=gin/ipt_lengths.gin',
    *instance,
    f'--gin.OUT="{tmp_path / "out"}"',
    '--gin.METHODS=["prompt 5", "prompt 10"]',
    '--gin.STEPS=2',
    '--gin.tune.tune.max_input=16',
  ]
  assert run.main(argv) == 0, capsys.readouterr().err
  assert 'reviews by length' in capsys.readouterr().out
  assert (tmp_path / 'out' / 'pictures' / 'reviews.png').exists()


def test_any_setting_of_any_method_is_swept(tmp_path, capsys):
  argv = [
    '--gin_file=gin/vary.gin',
    f'--gin.OUT="{tmp_path / "out"}"',
    '--gin.TASKS=["reviews"]',
    '--gin.VARY={"prompt": @deltas.prompt, "prefix": @deltas.prefix}',
    '--gin.SETTING="length"',
    '--gin.VALUES=[3, 7]',
    '--gin.RATES={"prompt": [0.1], "prefix": [0.01], "prefix 3": [0.02]}',
    '--gin.SEEDS=[0]',
    '--gin.STEPS=2',
    '--gin.tune.tune.max_input=16',
  ]
  assert run.main(argv) == 0, capsys.readouterr().err
  assert 'reviews by length' in capsys.readouterr().out
  with open(tmp_path / 'out' / 'results.csv', encoding='utf-8') as file:
    rows = {r['method']: r for r in csv.DictReader(file)}
  assert {n: float(r['rate']) for n, r in rows.items()} == {
    'prompt 3': 0.1,
    'prompt 7': 0.1,
    'prefix 3': 0.02,
    'prefix 7': 0.01,
  }
  counts = [int(rows[f'prompt {n}']['trained_parameters']) for n in (3, 7)]
  assert counts[0] * 7 == counts[1] * 3


@pytest.mark.parametrize(
  'path', sorted(ROOT.glob('gin/meta*.gin')), ids=lambda p: p.stem
)
def test_no_source_of_a_study_is_its_target(path, monkeypatch):
  monkeypatch.chdir(ROOT)
  gin.clear_config()
  gin.parse_config_file(str(path))
  named = re.findall(r'^(\w+) = ', path.read_text(encoding='utf-8'), re.M)
  sources = {*gin.query_parameter('%SOURCES')}
  for name, count in {'FOUR': 4, 'EIGHT': 8}.items():
    if name in named:
      part = gin.query_parameter(f'%{name}')
      assert len(part) == count and sources.issuperset(part)
  if 'TARGET' in named:
    assert gin.query_parameter('%TARGET') not in sources
  else:
    assert sources.isdisjoint(gin.query_parameter('%TARGETS'))


def test_a_unified_subspace_from_file_to_page(sweep, tmp_path, capsys):
  argv = [
    '--gin_file=gin/unified.gin',
    *(w for w in sweep[1] if w.startswith('--gin.BACKBONE')),
    f'--gin.OUT="{tmp_path / "out"}"',
    '--gin.GROUPS={"words": {"train": ["reviews"], "unseen": ["formality"]}}',
    '--gin.SIZES=[2]',
    '--gin.SEEDS=[0]',
    '--gin.STEPS=2',
    '--gin.MAP_STEPS=2',
    '--gin.CODE_STEPS=2',
    '--gin.CODE_RATES=[0.05]',
    '--gin.study.unify.max_input=16',
    '--gin.study.unify.max_target=8',
    '--gin.deltas.prefix.length=3',
    '--gin.original/spec.Settings.test_examples=8',
    '--gin.original/spec.Settings.validation_examples=8',
    '--gin.inside/spec.Settings.test_examples=8',
    '--gin.inside/spec.Settings.validation_examples=8',
    '--gin.landscape.Look.sizes=[2]',
    '--gin.landscape.Look.tasks=["formality"]',
    '--gin.landscape.Look.reach=1.0',
    '--gin.landscape.Look.step=1.0',
    '--gin.landscape.Look.examples=8',
  ]
  assert run.main(argv) == 0, capsys.readouterr().err
  assert 'used by prefix' in capsys.readouterr().out
  text = (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')
  assert 'formality, linear maps of 2 dimensions, seed 0' in text
