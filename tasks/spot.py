"""The 26 public tasks of SPoT's transfer study, as SeqIO tasks over TFDS.

Vu et al. 2022, table 2: 16 source tasks and 10 target tasks. A literal row each
says which data set of tensorflow-datasets it is and how it reads as text: as in
T5 (Raffel et al. 2020, appendix D) where T5 has it, in the same manner where it
has not. Nothing is downloaded before a task is prepared.

  arrays.prepare(tasks.find('spot_sst2'), backbone.vocabulary, cache_dir)

TFDS reads from its own default folder, or from that of TFDS_DATA_DIR in the
environment; `register` takes another.

Names are those of `prompt_subspace.spot.mixtures`, with `spot_` before them, as
`tasks.english` has some of the plain ones. Two tasks are not in TFDS, CxC and
CR: put their split files, with the columns of the row, into the folders
`spot_cxc` and `spot_cr` of data_dir (a task.json there goes before the row).

Deviations from T5: multiple choice (COPA) is answered with the text of the
choice, candidates being ranked, not with its name; WSC is a classification of
all 554 rows, as table 2 counts them; ReCoRD has an example per query, with the
other answers as references, not an example per answer; no spaces are put around
punctuation. F1 of MRPC, QQP and MultiRC is macro-F1, MultiRC has accuracy over
answers where the leaderboard has the exact match of questions.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from prompt_subspace.data.seqio_tasks import text_task
from prompt_subspace.data.tasks import PLAIN, register_later, register_templates
from prompt_subspace.data.templates import Template
from tasks import spot_columns as columns


class Row(NamedTuple):
  """Where a task comes from and how it reads.

  Attributes:
    tfds: data sets of TFDS with their versions; their examples are joined.
      Empty for a task that TFDS does not have.
    size: training examples of table 2, as rounded there.
    template: over the features of the data set. `labels` has its class names
      in their order; with `choices`, its number `label` says which is right.
    splits: our name -> its name, labelled ones.
    columns: what turns the data set's examples into the template's columns,
      where features are not the columns already.
  """

  tfds: tuple[str, ...]
  size: int
  template: Template
  splits: Mapping[str, str]
  columns: Callable | None = None


def words(*texts):
  """Labels that are good words as they stand."""
  return {text: text for text in texts}


TRUTH = words('False', 'True')
INFERENCE = words('entailment', 'neutral', 'contradiction')
ENTAILED = words('entailment', 'not_entailment')
SENTIMENT = words('negative', 'positive')
NLI = 'hypothesis: {hypothesis} premise: {premise}'
PAIR = 'sentence1: {sentence1} sentence2: {sentence2}'
TWO_CHOICES = ('{choice1}', '{choice2}')
FOUR_CHOICES = (*TWO_CHOICES, '{choice3}', '{choice4}')
FOUR = (
  'choice1: {choice1} choice2: {choice2} choice3: {choice3} choice4: {choice4}'
)
WITH_F1 = ('accuracy', 'f1_macro')
QA = ('exact_match', 'qa_f1')
# The test labels are kept by the benchmarks: as in the paper, the score is that
# of the best checkpoint on the validation split, which is the test split too.
PUBLIC = {'train': 'train', 'validation': 'validation', 'test': 'validation'}
# `unlabelled` is what a submission answers; its targets are empty.
SUPERGLUE = PUBLIC | {'unlabelled': 'test'}
OWN = {'train': 'train', 'validation': 'validation', 'test': 'test'}

SOURCES = {
  # To be prepared with a limit.
  'spot_c4_prefix_lm': Row(
    ('c4/en:3.1.0',),
    365_000_000,
    PLAIN,
    PUBLIC,
    columns.prefix_lm,
  ),
  'spot_docnli': Row(
    ('doc_nli:1.0.0',),
    942_000,
    Template(f'docnli {NLI}', '{label}', words('not_entailment', 'entailment')),
    OWN,
  ),
  'spot_yelp_polarity': Row(
    ('yelp_polarity_reviews:0.2.0',),
    560_000,
    Template(
      'yelp_polarity text: {text}',
      '{label}',
      {'1': 'negative', '2': 'positive'},
    ),
    PUBLIC | {'validation': 'test', 'test': 'test'},
  ),
  'spot_mnli': Row(
    ('glue/mnli:2.0.0',),
    393_000,
    Template(f'mnli {NLI}', '{label}', INFERENCE),
    {
      'train': 'train',
      'validation': 'validation_matched',
      'test': 'validation_mismatched',
    },
  ),
  'spot_qqp': Row(
    ('glue/qqp:2.0.0',),
    364_000,
    Template(
      'qqp question1: {question1} question2: {question2}',
      '{label}',
      words('not_duplicate', 'duplicate'),
      metrics=WITH_F1,
    ),
    PUBLIC,
  ),
  'spot_qnli': Row(
    ('glue/qnli:2.0.0',),
    105_000,
    Template(
      'qnli question: {question} sentence: {sentence}', '{label}', ENTAILED
    ),
    PUBLIC,
  ),
  'spot_record': Row(
    ('super_glue/record:1.0.2',),
    101_000,
    Template(
      'record query: {query} entities: {entities} passage: {passage}',
      '{answer}',
      metrics=QA,
    ),
    SUPERGLUE,
    columns.record,
  ),
  'spot_cxc': Row(
    (),
    88_000,
    Template(f'cxc {PAIR}', '{score}', kind='regression'),
    OWN,
  ),
  'spot_squad': Row(
    ('squad/v1.1:3.0.0',),
    88_000,
    Template('question: {question} context: {context}', '{answer}', metrics=QA),
    PUBLIC,
    columns.squad,
  ),
  'spot_drop': Row(
    ('drop:2.0.0',),
    77_000,
    Template(
      'drop question: {question} context: {passage}', '{answer}', metrics=QA
    ),
    PUBLIC | {'validation': 'dev', 'test': 'dev'},
    columns.drop,
  ),
  'spot_sst2': Row(
    ('glue/sst2:2.0.0',),
    67_000,
    Template('sst2 sentence: {sentence}', '{label}', SENTIMENT),
    PUBLIC,
  ),
  'spot_winogrande': Row(
    ('winogrande:1.2.0',),
    40_000,
    Template(
      'winogrande sentence: {sentence} option1: {option1} option2: {option2}',
      '{label}',
      choices=('{option1}', '{option2}'),
    ),
    PUBLIC | {'train': 'train_xl'},
  ),
  'spot_hellaswag': Row(
    ('hellaswag:1.1.0',),
    40_000,
    Template(
      f'hellaswag context: {{context}} {FOUR}', '{label}', choices=FOUR_CHOICES
    ),
    PUBLIC,
    columns.hellaswag,
  ),
  'spot_multirc': Row(
    ('super_glue/multirc:1.0.2',),
    27_000,
    Template(
      'multirc question: {question} answer: {answer} paragraph: {paragraph}',
      '{label}',
      TRUTH,
      metrics=WITH_F1,
    ),
    SUPERGLUE,
    columns.multirc,
  ),
  'spot_cosmosqa': Row(
    ('cosmos_qa:1.0.0',),
    25_000,
    Template(
      'cosmosqa question: {question} choice1: {answer0} choice2: {answer1} '
      'choice3: {answer2} choice4: {answer3} context: {context}',
      '{label}',
      choices=('{answer0}', '{answer1}', '{answer2}', '{answer3}'),
    ),
    PUBLIC,
  ),
  # Table 2 counts passages; they have 88,000 questions, an example each.
  'spot_race': Row(
    ('race/high:2.0.0', 'race/middle:2.0.0'),
    25_000,
    Template(
      f'race question: {{question}} {FOUR} article: {{article}}',
      '{label}',
      choices=FOUR_CHOICES,
    ),
    OWN | {'validation': 'dev'},
    columns.race,
  ),
}

TARGETS = {
  'spot_boolq': Row(
    ('super_glue/boolq:1.0.2',),
    9_000,
    Template('boolq passage: {passage} question: {question}', '{label}', TRUTH),
    SUPERGLUE,
  ),
  'spot_cola': Row(
    ('glue/cola:2.0.0',),
    9_000,
    Template(
      'cola sentence: {sentence}',
      '{label}',
      words('unacceptable', 'acceptable'),
      metrics=('matthews',),
    ),
    PUBLIC,
  ),
  'spot_sts': Row(
    ('glue/stsb:2.0.0',),
    6_000,
    Template(f'stsb {PAIR}', '{score}', kind='regression'),
    PUBLIC,
    columns.stsb,
  ),
  'spot_wic': Row(
    ('super_glue/wic:1.0.2',),
    5_000,
    Template(f'wic {PAIR} word: {{word}}', '{label}', TRUTH),
    SUPERGLUE,
  ),
  'spot_cr': Row(
    (),
    4_000,
    Template('cr sentence: {sentence}', '{label}', SENTIMENT),
    OWN,
  ),
  'spot_mrpc': Row(
    ('glue/mrpc:2.0.0',),
    4_000,
    Template(
      f'mrpc {PAIR}',
      '{label}',
      words('not_equivalent', 'equivalent'),
      metrics=WITH_F1,
    ),
    PUBLIC,
  ),
  'spot_rte': Row(
    ('super_glue/rte:1.0.2',),
    2_000,
    Template(f'rte {NLI}', '{label}', ENTAILED),
    SUPERGLUE,
  ),
  'spot_wsc': Row(
    ('super_glue/wsc.fixed:1.0.2',),
    554,
    Template('wsc text: {text}', '{label}', TRUTH),
    SUPERGLUE,
    columns.wsc,
  ),
  'spot_copa': Row(
    ('super_glue/copa:1.0.2',),
    400,
    Template(
      'copa choice1: {choice1} choice2: {choice2} premise: {premise} '
      'question: {question}',
      '{label}',
      choices=TWO_CHOICES,
    ),
    SUPERGLUE,
  ),
  'spot_cb': Row(
    ('super_glue/cb:1.0.2',),
    250,
    Template(
      f'cb {NLI}',
      '{label}',
      words('entailment', 'contradiction', 'neutral'),
      metrics=WITH_F1,
    ),
    SUPERGLUE,
  ),
}


TASKS = SOURCES | TARGETS
register_templates(
  {n: row.template for n, row in TASKS.items() if not row.tfds}
)


def register(vocabulary, tfds_data_dir=None):
  """Adds the tasks that TFDS has to SeqIO's registry (imports TensorFlow).

  Args:
    vocabulary: a `prompt_subspace.vocabulary.Vocabulary`.
    tfds_data_dir: where TFDS keeps its data; None is its own default. What is
      not there is downloaded when a task is read. C4 is made from Common Crawl
      by Beam, so it must be there.

  Raises:
    ValueError: the tasks are registered already, see SeqIO.
  """
  import seqio

  for name, row in TASKS.items():
    if not row.tfds:
      continue
    source = columns.source(row.tfds, tfds_data_dir, row.splits)
    if row.columns is columns.prefix_lm:
      feature = seqio.Feature(vocabulary.seqio(), add_eos=True)
      seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=[
          columns.prefix_lm,
          seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={'inputs': feature, 'targets': feature},
      )
      continue
    text_task(
      name,
      source,
      [row.columns or columns.as_they_are, columns.rendered(row.template)],
      as_text(row.template),
      vocabulary,
      identity=identity(row),
    )


def as_text(template):
  """The template of a task whose inputs and targets are texts already."""
  labels = template.label_texts and words(*template.label_texts)
  return Template(
    '{inputs}',
    '{targets}',
    labels,
    template.choices,
    template.metrics,
    template.kind,
  )


def identity(row):
  """What the texts of a task are made from and how, None for C4's."""
  if row.columns is columns.prefix_lm:
    return None
  return (
    f'{" ".join(row.tfds)} {sorted(row.splits.items())} '
    f'{columns.VERSION} {row.template.hash}'
  )


register_later(
  {
    name: (as_text(row.template), identity(row))
    for name, row in TASKS.items()
    if row.tfds
  },
  register,
)
