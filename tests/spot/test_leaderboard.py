"""From what T5X wrote to what the leaderboard takes."""

import json
import re
import zipfile

import pytest

from prompt_subspace.spot import leaderboard, superglue
from tests.spot.test_superglue import CHOICES, LINES, PREDICTIONS


@pytest.fixture
def files(tmp_path, monkeypatch):
  """A file for each task as T5X names and writes it; copa's in two parts."""
  counts = {
    n: t._replace(count=len(PREDICTIONS.get(n, ())))
    for n, t in superglue._TASKS.items()
  }
  monkeypatch.setattr(superglue, '_TASKS', counts)
  made = []
  for task, answers in PREDICTIONS.items():
    parts = [answers[:1], answers[1:]] if task == 'copa' else [answers]
    for i, part in enumerate(parts):
      name = f'spot_{task}-predict.jsonl-{i:05}-of-{len(parts):05}'
      lines = []
      for idx, text in part:
        inputs = {'idx': idx, 'inputs_pretokenized': 'read'}
        if task == 'copa':
          inputs['choices'] = CHOICES.get(idx, ['a', 'b'])
        lines.append(json.dumps({'inputs': inputs, 'prediction': text}))
      (tmp_path / name).write_text('\n'.join(lines) + '\n')
      made.append(str(tmp_path / name))
  return made


def test_answers_become_the_leaderboards_lines(files, tmp_path, capsys):
  out = tmp_path / 'mine'
  assert leaderboard.main([str(out), *files]) == 0
  names = [superglue._TASKS[task].file for task in PREDICTIONS]
  for name in names:
    lines = LINES[name]
    assert (out / f'{name}.jsonl').read_text().splitlines() == lines
  assert f'wrote {out}.zip' in capsys.readouterr().out
  with zipfile.ZipFile(f'{out}.zip') as archive:
    assert {f'{name}.jsonl' for name in names} == set(archive.namelist())


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    ('answers.jsonl', '{}', 'name such as spot_boolq-predict.jsonl'),
    ('spot_cb-predict.jsonl', '{"inputs": {}}', "jsonl:1: .*KeyError: 'idx'"),
    ('spot_cb-predict.jsonl', '{', 'jsonl:1: .*JSONDecodeError'),
    (
      'spot_copa-predict.jsonl',
      '{"inputs": {"idx": 1}, "prediction": "a"}',
      "KeyError: 'choices'",
    ),
    ('spot_cb-predict.jsonl', None, 'expected a file, No such file'),
  ],
)
def test_files_of_another_kind_are_refused(
  name, text, message, tmp_path, capsys
):
  path = tmp_path / name
  if text is not None:
    path.write_text(text)
  assert leaderboard.main([str(tmp_path / 'out'), str(path)]) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and re.search(message, error)
  assert not (tmp_path / 'out').exists()
