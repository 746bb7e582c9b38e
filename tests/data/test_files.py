"""Reading split files: what comes out, and errors that name file and line."""

import pytest

from prompt_subspace.data import files
from prompt_subspace.data.templates import Template

LABELLED = Template('{text}', '{label}', {'0': 'no', '1': 'yes'})
PAIR = Template('{text}', '{label}')


def read(folder, content, name='train.tsv', template=PAIR):
  (folder / name).write_bytes(
    content if isinstance(content, bytes) else content.encode()
  )
  return files.examples(folder, 'train', template)


def test_tsv_quotes_are_data(tmp_path):
  rows = read(tmp_path, 'text\tlabel\tmore\n"a" b\'\tx\t\n" \ty\tz\n')
  assert [(r.input, r.target) for r in rows] == [('"a" b\'', 'x'), ('" ', 'y')]


@pytest.mark.parametrize(
  'content',
  [
    'text\tlabel\nnaïve\t1',
    'text\tlabel\r\nnaïve\t1\r\n',
    '\ufefftext\tlabel\nnaïve\t1\n',
  ],
  ids=['no last newline', 'CRLF', 'byte order mark'],
)
def test_tsv_of_other_editors(tmp_path, content):
  (row,) = read(tmp_path, content, template=LABELLED)
  assert (row.input, row.target, row.label) == ('naïve', 'yes', 1)


def test_jsonl_values_become_text(tmp_path):
  rows = read(
    tmp_path,
    '{"text": "a\\tb", "label": 1, "more": [1]}\n{"text": 2.50, "label": true}',
    'train.jsonl',
  )
  assert [(r.input, r.target) for r in rows] == [('a\tb', '1'), ('2.5', 'true')]


@pytest.mark.parametrize(
  'content, message',
  [
    ('text\tlable\na\t1\n', "train.tsv:1: column 'label' is missing; .*lable"),
    ('text\ttext\na\t1\n', 'train.tsv:1: two columns have one name'),
    ('text\tlabel\n', 'train.tsv:1: no examples'),
    ('', "train.tsv:1: column 'text' is missing; .* an empty file"),
    (
      'text\tlabel\na\t1\nb\n',
      r'train.tsv:3: expected 2 fields .*\(text, label\), found 1',
    ),
    ('text\tlabel\na\t1\t1\n', 'train.tsv:2: expected 2 fields .* found 3'),
    ('text\tlabel\na\t1\n\nb\t1\n', 'train.tsv:3: expected 2 fields'),
    ('text\tlabel\na\t\n', "train.tsv:2: column 'label' is empty"),
    ('text\tlabel\n \t1\n', "train.tsv:2: column 'text' is empty"),
    (
      'text\tlabel\na\t1\na\t2\n',
      "train.tsv:3: label '2' is not in the table .* '0', '1'",
    ),
    (
      'text\tlabel\na\t1\nna\xefve\t1\n'.encode('latin-1'),
      'train.tsv:3: not UTF-8 at byte 2 of the line',
    ),
    ('text\tlabel\na\t1\n'.encode('utf-16'), 'train.tsv:1: not UTF-8'),
  ],
)
def test_tsv_errors_name_file_and_line(tmp_path, content, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, content, template=LABELLED)


@pytest.mark.parametrize(
  'content, message',
  [
    ('{"text": "a"}\n', "train.jsonl:1: column 'label' is missing; .* text"),
    ('{}\n', 'train.jsonl:1: .* no keys'),
    ('{"text": "a", "label": "1"}\n{"tex', 'train.jsonl:2: not JSON'),
    ('["a"]\n', 'train.jsonl:1: expected an object'),
    ('{"text": ["a"], "label": "1"}', "train.jsonl:1: column 'text': expected"),
    ('{"text": "a", "label": null}', "train.jsonl:1: column 'label' is empty"),
    ('{"text": "a", "label": "2"}', "train.jsonl:1: label '2' is not"),
    (b'{"text": "\xff", "label": "1"}', 'train.jsonl:1: not UTF-8'),
    ('', 'train.jsonl:1: no examples'),
  ],
)
def test_jsonl_errors_name_file_and_line(tmp_path, content, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, content, 'train.jsonl', LABELLED)


def test_missing_and_double_splits(tmp_path):
  with pytest.raises(ValueError, match='no such files in this folder'):
    files.examples(tmp_path, 'train', PAIR)
  read(tmp_path, 'text\tlabel\na\tb\n')
  with pytest.raises(ValueError, match="'test' is missing.*found train.tsv"):
    files.examples(tmp_path, 'test', PAIR)
  with pytest.raises(ValueError, match='train.jsonl: keep one of the two'):
    read(tmp_path, '{"text": "a", "label": "b"}', 'train.jsonl')


def test_checksum_sees_content_and_name(tmp_path):
  read(tmp_path, 'text\tlabel\na\tb\n')
  train, test = tmp_path / 'train.tsv', tmp_path / 'test.tsv'
  first = files.checksum([train])
  assert files.checksum([train]) == first
  read(tmp_path, 'text\tlabel\na\tc\n')
  assert files.checksum([train]) != first
  read(tmp_path, 'text\tlabel\na\tb\n')
  train.rename(test)
  assert files.checksum([test]) != first
