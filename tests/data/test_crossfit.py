"""CrossFit's files become tasks: labels, several answers, errors with lines."""

import pytest

from prompt_subspace.data import arrays, crossfit, tasks
from prompt_subspace.data.crossfit_tasks import TASKS
from prompt_subspace.evaluation import metrics

FILMS = ['the film was warm\tpositive', 'a dull evening\tnegative']


def write_set(root, name, train, dev=None, test=None, task=None):
  """The three files of a set; dev and test are like train by default."""
  folder = root / (task or crossfit.task_of(name))
  folder.mkdir(parents=True, exist_ok=True)
  for split, lines in (('train', train), ('dev', dev), ('test', test)):
    text = '\n'.join(train if lines is None else lines) + '\n'
    (folder / f'{name}_{split}.tsv').write_text(text, encoding='utf-8')
  return folder / name


def rows(task, split='train'):
  return crossfit.examples(task.folder, split, task.template)


def test_a_set_is_found_by_its_name(tmp_path):
  beginning = write_set(tmp_path, 'glue-sst2_16_13', FILMS)
  task = tasks.find('glue-sst2_16_13', str(tmp_path))
  assert task[:2] == ('glue-sst2_16_13', beginning)
  assert task.template.metrics == ('accuracy',)
  (first, accepted), _ = rows(task)
  assert first == ('[glue-sst2] the film was warm', 'positive', 1, None)
  assert accepted == ['positive']


def test_labels_are_those_of_train_and_dev_in_order(tmp_path):
  write_set(
    tmp_path,
    'anli_16_13',
    ['a\tneutral', 'b\tneutral'],
    ['c\tentailment'],
    ['d\tneutral', 'e\tcontradiction'],
  )
  task = tasks.find('anli_16_13', tmp_path)
  assert task.template.label_texts == ('entailment', 'neutral')
  assert task.template.metrics == ('f1_macro',)
  assert [e.label for e, _ in rows(task, 'validation')] == [0]
  with pytest.raises(
    ValueError, match="_test.tsv:2: label 'contradiction' is .*'entailment', "
  ):
    rows(task, 'test')


@pytest.mark.parametrize(
  'name, metric, kind',
  [
    ('quoref', 'qa_f1', 'generation'),
    ('ai2_arc', 'exact_match', 'generation'),
    ('xsum', 'rouge_l', 'generation'),
    ('mocha', 'pearson', 'regression'),
  ],
)
def test_tasks_without_labels(tmp_path, name, metric, kind):
  write_set(tmp_path, f'{name}_32_21', ['question\t3'])
  task = tasks.find(f'{name}_32_21', tmp_path)
  assert task.template.kind == kind and task.template.metrics == (metric,)


def test_every_task_of_the_table_has_a_template(tmp_path):
  for name, row in TASKS.items():
    beginning = write_set(tmp_path, f'{name}_16_13', ['text\t1', 'text\t2'])
    template = crossfit.template(beginning)
    assert template.kind == row.kind
    generated = row.kind == 'generation' and row.metric in (
      'accuracy',
      'f1_macro',
    )
    assert template.metrics == ('exact_match' if generated else row.metric,)


def test_further_columns_are_accepted_outputs(tmp_path):
  write_set(
    tmp_path,
    'kilt_nq_32_13',
    [' who woke up \tthe children\tthey\tthe children\t', 'who\t\tshe'],
  )
  first, second = rows(tasks.find('kilt_nq_32_13', tmp_path))
  assert first[0][:2] == ('[kilt_nq] who woke up', 'the children')
  assert first[1] == ['the children', 'they']
  assert second[1] == ['she']


def test_quotes_and_odd_line_ends_are_data(tmp_path):
  beginning = write_set(tmp_path, 'xsum_32_13', ['x\ty'])
  path = beginning.with_name('xsum_32_13_train.tsv')
  path.write_bytes('\ufeff"a" b\x0bc\u2028d\t"e"\r\nf\tg'.encode())
  found = crossfit.read(path)
  assert found == [(1, '"a" b\x0bc\u2028d', ['"e"']), (2, 'f', ['g'])]


def test_a_test_file_counts_up_to_ten_thousand_rows(tmp_path, monkeypatch):
  assert crossfit.MOST_TESTED == 10_000
  monkeypatch.setattr(crossfit, 'MOST_TESTED', 3)
  write_set(tmp_path, 'xsum_32_13', [f'{i}\t{i}' for i in range(5)])
  task = tasks.find('xsum_32_13', tmp_path)
  assert [len(rows(task, s)) for s in crossfit.ENDINGS] == [5, 5, 3]


@pytest.mark.parametrize(
  'lines, message',
  [
    (
      ['a\tnegative', 'no tab'],
      "train.tsv:2: .* found 'no tab'; .* line break",
    ),
    (['a\tnegative', '', 'b\tpositive'], 'train.tsv:2: expected an input'),
    (['a\tnegative', 'b\t \t'], 'train.tsv:2: expected an input, a tab and an'),
    (['\tnegative'], 'train.tsv:1: expected an input, a tab and an output'),
    ([''], 'train.tsv:1: expected an input'),
    (
      ['a\tnegative', 'a\tb\tpositive'],
      'train.tsv:2: expected one output for a classification, found 2; .* tab',
    ),
  ],
)
def test_errors_name_file_and_line(tmp_path, lines, message):
  beginning = write_set(tmp_path, 'imdb_16_13', lines, FILMS, FILMS)
  with pytest.raises(ValueError, match=message):
    crossfit.examples(beginning, 'train', crossfit.template(beginning))


def test_numbers_must_be_numbers(tmp_path):
  write_set(tmp_path, 'mocha_16_13', ['a\t1', 'b\tfive'])
  task = tasks.find('mocha_16_13', tmp_path)
  with pytest.raises(
    ValueError, match="train.tsv:2: the target 'five' of a re"
  ):
    rows(task)


def test_errors_of_whole_files(tmp_path):
  beginning = write_set(tmp_path, 'imdb_16_13', ['a\tpositive'])
  with pytest.raises(
    ValueError, match=r"two different outputs.*\['positive'\]"
  ):
    tasks.find('imdb_16_13', tmp_path)
  path = beginning.with_name('imdb_16_13_dev.tsv')
  path.write_bytes('a\tb\nna\xefve\tb\n'.encode('latin-1'))
  with pytest.raises(ValueError, match='_dev.tsv:2: not UTF-8'):
    tasks.find('imdb_16_13', tmp_path)
  path.write_text('')
  with pytest.raises(ValueError, match='_dev.tsv:1: no examples'):
    tasks.find('imdb_16_13', tmp_path)
  path.unlink()
  with pytest.raises(ValueError, match='_dev.tsv: there is no such file'):
    tasks.find('imdb_16_13', tmp_path)
  with pytest.raises(
    ValueError, match="split 'dev': .*train, validation, test"
  ):
    crossfit.split_path(beginning, 'dev')


def test_other_names_say_which_sets_there_are(tmp_path):
  for seed in (100, 13):
    write_set(tmp_path, f'blimp-ellipsis_n_bar_1_16_{seed}', FILMS)
  for name in ('blimp-ellipsis_n_bar_1', 'blimp-ellipsis_n_bar_1_16_14'):
    with pytest.raises(
      ValueError, match='name one of them: .*_16_13, .*_16_100'
    ):
      tasks.find(name, tmp_path)
  write_set(tmp_path, 'mine_16_13', FILMS)
  with pytest.raises(ValueError, match="'mine' is no task of CrossFit"):
    tasks.find('mine_16_13', tmp_path)
  with pytest.raises(ValueError, match='unknown task'):
    tasks.find('yours_16_13', tmp_path)


def test_sets_by_seed(tmp_path):
  for name in ('trec_16_100', 'trec_16_13', 'trec-finegrained_16_13'):
    write_set(tmp_path, name, FILMS, task='trec')
  assert crossfit.sets('trec', tmp_path) == {
    13: 'trec_16_13',
    100: 'trec_16_100',
  }
  assert crossfit.sets('trec-finegrained', tmp_path) == {}
  write_set(tmp_path, 'trec_32_13', FILMS)
  with pytest.raises(ValueError, match='trec_16_13 and trec_32_13 are sets of'):
    crossfit.sets('trec', tmp_path)


def test_prepared_like_other_tasks(tmp_path, vocabulary):
  write_set(tmp_path, 'emo_16_13', FILMS)
  write_set(tmp_path, 'kilt_nq_32_13', ['who\tshe\tthe children', 'who\tmilk'])
  write_set(tmp_path, 'mocha_16_13', ['warm\t4', 'dull\t2'])

  def prepare(name):
    task = tasks.find(name, tmp_path)
    return arrays.prepare(task, vocabulary, tmp_path / 'cache')

  films = prepare('emo_16_13')
  test = films.splits['test']
  assert films.kind == 'classification' and films.metrics == ('f1_macro',)
  assert films.label_texts == ('negative', 'positive')
  assert test.labels.tolist() == [1, 0] and len(test.choices) == 2
  assert test.references == [['positive'], ['negative']]
  assert 'the film was warm' in vocabulary.decode(test.inputs[0].tolist())

  answers = prepare('kilt_nq_32_13')
  test = answers.splits['test']
  assert answers.kind == 'generation' and test.choices is None
  # equal inputs of different lines do not lend each other their answers
  assert test.references == [['she', 'the children'], ['milk']]
  score = metrics.METRICS[answers.metrics[0]]
  assert score(test.references, ['Children', 'she']) == 50.0

  numbers = prepare('mocha_16_13')
  assert numbers.kind == 'regression' and numbers.metrics == ('pearson',)
  assert numbers.splits['train'].references == [['4'], ['2']]

  # a cache of other files does not answer
  write_set(tmp_path, 'emo_16_13', FILMS, test=FILMS[:1])
  again = prepare('emo_16_13')
  assert len(again.splits['test'].labels) == 1
  assert again.record['key'] != films.record['key']
