"""What examples of TFDS become before a template of `tasks.spot` reads them.

Everything here works on `tf.data` datasets, as a preprocessor of SeqIO; the
functions import TensorFlow, the file does not.
"""

import string

# Raised when a function here gives other columns than before, so that prepared
# arrays are not taken for those of the new ones.
VERSION = 1


def source(names, tfds_data_dir, splits):
  """The SeqIO source of one TFDS data set, or of several one after another."""
  import seqio

  parts = [seqio.TfdsDataSource(n, tfds_data_dir, dict(splits)) for n in names]
  if len(parts) == 1:
    return parts[0]

  def joined(split, shuffle_files=False, seed=None):
    first, *rest = (p.get_dataset(split, shuffle_files, seed) for p in parts)
    for dataset in rest:
      first = first.concatenate(dataset)
    return first

  return seqio.FunctionDataSource(joined, list(splits))


def rendered(template):
  """The preprocessor that writes a template's texts.

  It adds `inputs` and `targets`, `choices` where the template has some, and
  `references`, the accepted targets, where the columns have none. The class
  number -1 of an unlabelled example gives an empty target.
  """

  def render(x):
    import tensorflow as tf

    def text(form):
      parts = []
      for literal, column, _, _ in string.Formatter().parse(form):
        parts += [literal] if column is None else [literal, x[column]]
      return tf.strings.join(parts)

    def pick(texts):
      number = tf.cast(x['label'], tf.int32)
      return tf.where(number < 0, '', tf.gather(texts, tf.maximum(number, 0)))

    out = {'inputs': text(template.input)}
    if template.labels:
      out['targets'] = pick(tf.constant(list(template.labels.values())))
    elif template.choices:
      out['choices'] = tf.stack([text(form) for form in template.choices])
      out['targets'] = pick(out['choices'])
    else:
      out['targets'] = text(template.target)
    out['references'] = x.get('references', out['targets'][tf.newaxis])
    return out | ({'idx': x['idx']} if 'idx' in x else {})

  return lambda dataset: dataset.map(render)


def as_they_are(dataset):
  """The features are the columns."""
  return dataset


def squad(dataset):
  """Answers of SQuAD: the first is the target, all are accepted."""
  return dataset.map(
    lambda x: {
      **_some(x, 'question', 'context'),
      'answer': x['answers']['text'][0],
      'references': x['answers']['text'],
    }
  )


def drop(dataset):
  """Answers of DROP; those that are incomplete dates are empty in TFDS."""
  import tensorflow as tf

  def columns(x):
    every = tf.concat([[x['answer']], x['validated_answers']], axis=0)
    given = tf.boolean_mask(every, every != '')
    return _some(x, 'question', 'passage', 'answer') | {'references': given}

  return dataset.map(columns).filter(lambda x: x['answer'] != '')


def record(dataset):
  """Entities of ReCoRD as one text; highlights end a sentence, as in T5."""
  import tensorflow as tf

  def columns(x):
    text = x['passage']
    for pattern, rewrite in (
      (r'([.?!"\'])\n@highlight\n', r'\1 '),
      (r'\n@highlight\n', '. '),
    ):
      text = tf.strings.regex_replace(text, pattern, rewrite)
    unlabelled = tf.equal(tf.size(x['answers']), 0)
    answers = tf.cond(
      unlabelled, lambda: tf.constant(['']), lambda: x['answers']
    )
    return _some(x, 'query', 'idx') | {
      'passage': text,
      'entities': tf.strings.reduce_join(x['entities'], separator=', '),
      'answer': answers[0],
      'references': answers,
    }

  return dataset.map(columns)


def multirc(dataset):
  """Paragraphs of MultiRC without their HTML, as in T5."""
  import tensorflow as tf

  def columns(x):
    text = tf.strings.regex_replace(x['paragraph'], '<br>', ' ')
    return x | {'paragraph': tf.strings.regex_replace(text, '</?b>', '')}

  return dataset.map(columns)


def wsc(dataset):
  """Marks both spans of WSC by place: `* Mark * told # him #`, as in T5."""
  import tensorflow as tf

  def mark(text, span, place, sign):
    # The span begins with the word that has `place` words before it.
    before = tf.strings.join([r'^((?:\S+\s+){', tf.as_string(place), '})'])
    pattern = tf.strings.join([before, r'(\Q', span, r'\E)'])
    return tf.strings.regex_replace(text, pattern, rf'\1{sign} \2 {sign}')

  def columns(x):
    first, second = x['span1_index'], x['span2_index']
    text = mark(x['text'], x['span1_text'], first, '*')
    # The signs are two words more before what follows them.
    second += 2 * tf.cast(first < second, second.dtype)
    return x | {'text': mark(text, x['span2_text'], second, '#')}

  return dataset.map(columns)


def stsb(dataset):
  """Scores of STS-B in steps of 0.2, as in T5: '3.8'."""
  import tensorflow as tf

  return dataset.map(
    lambda x: (
      x
      | {
        'score': tf.strings.as_string(tf.round(x['label'] * 5) / 5, precision=1)
      }
    )
  )


def hellaswag(dataset):
  """The four endings of HellaSWAG as columns."""
  return dataset.map(
    lambda x: (
      _some(x, 'context', 'label')
      | {f'choice{i + 1}': x['endings'][i] for i in range(4)}
    )
  )


def race(dataset):
  """An example for each question of a passage; the answer is a letter."""
  import tensorflow as tf

  def questions(x):
    count = tf.size(x['questions'])
    options = x['options'].to_tensor('', shape=[None, 4])
    columns = {f'choice{i + 1}': options[:, i] for i in range(4)}
    label = tf.cast(tf.io.decode_raw(x['answers'], tf.uint8)[:, 0], tf.int32)
    return tf.data.Dataset.from_tensor_slices(
      columns
      | {
        'question': x['questions'],
        'article': tf.repeat(x['article'], count),
        'label': label - ord('A'),
      }
    )

  return dataset.flat_map(questions)


def _some(example, *names):
  return {name: example[name] for name in names}


def prefix_lm(dataset, sequence_length, output_features):
  """The beginning of a text as input, what follows as target, in tokens.

  A text is cut into runs of as many tokens as an input may have; each is parted
  at a random place, which is the same whenever it is read (Raffel et al. 2020,
  section 3.2.1 and figure 4; there the place is drawn anew each time).
  """
  import tensorflow as tf

  longest = sequence_length['inputs'] - 1
  vocabulary = output_features['targets'].vocabulary

  def runs(x):
    tokens = vocabulary.encode_tf(x['text'])
    hashed = tf.strings.to_hash_bucket_fast(x['text'], 2**31 - 1)
    starts = tf.range(0, tf.size(tokens), longest)
    return tf.data.Dataset.from_tensor_slices(starts).map(
      lambda start: (
        tokens[start : start + longest],
        tf.stack([hashed, tf.cast(start, tf.int64)]),
      )
    )

  def part(run, seed):
    place = tf.random.stateless_uniform(
      [], seed, 1, tf.size(run), dtype=tf.int32
    )
    return {'inputs': run[:place], 'targets': run[place:]}

  parts = dataset.flat_map(runs).filter(lambda run, seed: tf.size(run) > 1)
  return parts.map(part)
