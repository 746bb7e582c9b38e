"""The submission has the leaderboard's lines, and nothing else gets through."""

import hashlib
import pathlib
import zipfile

import numpy as np
import pytest

import tasks.english as english
import tasks.spot as spot
from prompt_subspace.spot import superglue

PREDICTIONS = {
  # not in the order of the idx
  'boolq': [(1, 'False'), (0, 'True'), (2, 'yes')],
  'cb': [(0, 'neutral'), (1, 'entailment'), (2, 'contradiction')],
  'copa': [(0, 'It rained.'), (1, 'choice1')],
  'multirc': [
    ((0, 0, 0), 'False'),
    ({'paragraph': 0, 'question': 0, 'answer': 1}, 'True'),
    ((1, 2, 3), 'no'),
    ((0, 1, 2), 'yes'),
  ],
  'record': [({'passage': 4, 'query': 1}, 'St. John\'s "Bay"'), (0, 'Élan')],
  'rte': [(0, 'not_entailment'), (1, 'entailment'), (2, 'not entailment')],
  'wic': [(0, 'True'), (1, 'False')],
  'wsc': [(0, 'False'), (1, 'true')],
}
CHOICES = {0: ['It was warm.', 'It rained.']}
# Written by hand from the leaderboard's description of each file.
LINES = {
  'BoolQ': [
    '{"idx": 0, "label": true}',
    '{"idx": 1, "label": false}',
    '{"idx": 2, "label": true}',
  ],
  'CB': [
    '{"idx": 0, "label": "neutral"}',
    '{"idx": 1, "label": "entailment"}',
    '{"idx": 2, "label": "contradiction"}',
  ],
  'COPA': ['{"idx": 0, "label": 1}', '{"idx": 1, "label": 0}'],
  'MultiRC': [
    '{"idx": 0, "passage": {"questions": ['
    '{"idx": 0, "answers": [{"idx": 0, "label": 0}, {"idx": 1, "label": 1}]}, '
    '{"idx": 1, "answers": [{"idx": 2, "label": 1}]}]}}',
    '{"idx": 1, "passage": {"questions": ['
    '{"idx": 2, "answers": [{"idx": 3, "label": 0}]}]}}',
  ],
  'ReCoRD': [
    r'{"idx": 0, "label": "\u00c9lan"}',
    r'{"idx": 1, "label": "St. John' + r"'s \"Bay\"" + '"}',
  ],
  'RTE': [
    '{"idx": 0, "label": "not_entailment"}',
    '{"idx": 1, "label": "entailment"}',
    '{"idx": 2, "label": "not_entailment"}',
  ],
  'WiC': ['{"idx": 0, "label": true}', '{"idx": 1, "label": false}'],
  'WSC': ['{"idx": 0, "label": "False"}', '{"idx": 1, "label": "True"}'],
  'AX-b': ['{"idx": 0, "label": "entailment"}'],
  'AX-g': ['{"idx": 0, "label": "not_entailment"}'],
}
DIAGNOSTICS = {'axb': [(0, 'entailment')], 'axg': [(0, 'not_entailment')]}


def write(folder, predictions=PREDICTIONS, expected=None, **changes):
  """Writes a few answers; by default all that are given are expected."""
  predictions = predictions | changes
  superglue.submission(
    folder,
    predictions,
    CHOICES,
    {t: [idx for idx, _ in a] for t, a in predictions.items()}
    | (expected or {}),
  )


def test_every_file_has_the_leaderboards_lines(tmp_path):
  write(tmp_path / 'all', PREDICTIONS | DIAGNOSTICS)
  found = {
    path.stem: path.read_text(encoding='utf-8')
    for path in (tmp_path / 'all').iterdir()
  }
  assert found == {
    name: ''.join(f'{line}\n' for line in lines)
    for name, lines in LINES.items()
  }
  assert {p.suffix for p in (tmp_path / 'all').iterdir()} == {'.jsonl'}
  # nothing but the folder is left
  assert [path.name for path in tmp_path.iterdir()] == ['all']


def test_diagnostic_sets_may_be_left_out_or_empty_folders_be_there(tmp_path):
  write(tmp_path)
  assert {path.name for path in tmp_path.iterdir()} == {
    f'{name}.jsonl' for name in LINES if not name.startswith('AX')
  }


@pytest.mark.parametrize('suite', [english, spot])
def test_every_label_text_has_its_label(suite, tmp_path):
  prefix = 'spot_' if suite is spot else ''
  seen = {}
  for task in PREDICTIONS:
    row = suite.TASKS.get(prefix + task)
    template = getattr(row, 'template', row)
    if template is not None and template.label_texts:
      seen[task] = template.label_texts
      texts = list(enumerate(template.label_texts))
      if task == 'multirc':
        texts = [((0, 0, n), text) for n, text in texts]
      write(tmp_path / task, **{task: texts})
  assert set(seen) >= {'boolq', 'cb', 'multirc', 'rte', 'wsc'}


def test_numbers_may_come_from_numpy(tmp_path):
  idx = np.arange(2)
  write(
    tmp_path / 'out',
    wic=[(idx[0], 'True'), (idx[1], 'False')],
    multirc=[(np.array([0, 0, 0]).tolist(), 'True')],
  )
  found = (tmp_path / 'out' / 'WiC.jsonl').read_text().splitlines()
  assert found == LINES['WiC']


@pytest.mark.parametrize(
  ('changes', 'expected', 'message'),
  [
    ({'glue': []}, {}, "unknown task 'glue'; the known ones are boolq, cb"),
    ({}, {'spot_cb': []}, "expected: unknown task 'spot_cb'"),
    ({'cb': [(0, 'neutral'), (0, 'neutral')]}, {}, 'cb: idx 0 is answered tw'),
    (
      {'record': [(1, 'a'), ({'passage': 0, 'query': 1}, 'b')]},
      {},
      'record: idx .* is answered twice',
    ),
    (
      {'multirc': [((0, 1, 2), 'yes'), ((0, 1, 2), 'no')]},
      {},
      r'multirc: idx \(0, 1, 2\) is answered twice',
    ),
    ({}, {'wic': [0, 1, 2, 3]}, 'wic: .* missing idx 2, 3, unknown idx none'),
    ({}, {'wic': [0]}, 'wic: .* missing idx none, unknown idx 1'),
    ({}, {'rte': range(20)}, 'missing idx 3, 4, 5, 6, 7 and 12 more'),
    (
      {},
      {'rte': None},
      'rte: expected answers to the 3000 examples .* found 3',
    ),
    ({'wic': [(0, 'maybe')]}, {}, "wic: the answer 'maybe' to idx 0 is no lab"),
    ({'wic': [(0, 'yes')]}, {}, "wic: the answer 'yes' .* 'False', 'True'"),
    ({'rte': [(0, 'neutral')]}, {}, "rte: the answer 'neutral'"),
    ({'wsc': [(0, True)]}, {}, 'wsc: expected a text as answer to idx 0'),
    ({'record': [(0, ' ')]}, {}, 'record: expected a text as answer to idx 0'),
    ({'copa': [(1, 'It rained.')]}, {}, "copa: .*'choice2'; pass copa_choices"),
    ({'cb': [('a', 'neutral')]}, {}, 'cb: expected an idx that is a whole num'),
    ({'cb': [(0.5, 'neutral')]}, {}, 'cb: expected an idx that is a whole num'),
    ({'multirc': [((0, 1), 'yes')]}, {}, r'multirc: .*\(paragraph, question, '),
    ({'multirc': [(3, 'yes')]}, {}, 'multirc: expected an idx that is'),
    ({'multirc': [({'answer': 0}, 'yes')]}, {}, 'multirc: expected an idx'),
  ],
)
def test_mistakes_write_nothing(changes, expected, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    superglue.submission(
      tmp_path / 'out',
      PREDICTIONS | changes,
      CHOICES,
      {
        t: [idx for idx, _ in a]
        for t, a in (PREDICTIONS | changes).items()
        if t != 'glue' and t not in changes and expected.get(t, 0) is not None
      }
      | {t: wanted for t, wanted in expected.items() if wanted is not None},
    )
  assert not list(tmp_path.iterdir())


def test_all_eight_tasks_are_needed(tmp_path):
  few = {t: a for t, a in PREDICTIONS.items() if t not in ('rte', 'wsc')}
  with pytest.raises(ValueError, match='all eight tasks, found none of rte, w'):
    write(tmp_path / 'out', few)


def test_equal_choices_need_a_name(tmp_path):
  with pytest.raises(ValueError, match="copa: the answer 'same'"):
    superglue.submission(
      tmp_path / 'out',
      PREDICTIONS | {'copa': [(0, 'same')]},
      {0: ['same', 'same']},
      {t: [idx for idx, _ in a] for t, a in PREDICTIONS.items()},
    )


def test_a_folder_with_files_is_left_alone(tmp_path):
  write(tmp_path / 'out')
  before = (tmp_path / 'out' / 'WiC.jsonl').read_bytes()
  with pytest.raises(ValueError, match='folder: expected none or an empty one'):
    write(tmp_path / 'out', wic=[(0, 'False')])
  assert (tmp_path / 'out' / 'WiC.jsonl').read_bytes() == before


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
  whole = pathlib.Path.write_text

  def fails(self, *args, **kwargs):
    if self.name == 'RTE.jsonl':
      raise OSError('disk full')
    return whole(self, *args, **kwargs)

  monkeypatch.setattr(pathlib.Path, 'write_text', fails)
  with pytest.raises(OSError, match='disk full'):
    write(tmp_path / 'out')
  assert not list(tmp_path.iterdir())


def test_the_archive_is_the_same_for_the_same_answers(tmp_path):
  digests = []
  for name, order in (('a', 1), ('b', -1)):
    answers = {t: a[::order] for t, a in PREDICTIONS.items()}
    write(tmp_path / name, dict(list(answers.items())[::order]))
    (tmp_path / name / 'notes.txt').write_text('not for the leaderboard')
    path = superglue.zipped(tmp_path / name)
    assert path == tmp_path / f'{name}.zip'
    digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
  assert digests[0] == digests[1]
  with zipfile.ZipFile(tmp_path / 'a.zip') as archive:
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == sorted(
      f'{name}.jsonl' for name in LINES if not name.startswith('AX')
    )
    found = archive.read('MultiRC.jsonl').decode().splitlines()
  assert found == LINES['MultiRC']


def test_an_incomplete_folder_is_not_packed(tmp_path):
  write(tmp_path / 'out')
  (tmp_path / 'out' / 'CB.jsonl').unlink()
  with pytest.raises(ValueError, match='found no CB.jsonl'):
    superglue.zipped(tmp_path / 'out')
  assert not (tmp_path / 'out.zip').exists()
