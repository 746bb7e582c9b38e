"""56 public English tasks: a literal row each says how they read as text.

The data is not part of the project. `data_dir` is a folder with one folder per
task, named as here, that holds {train,validation,test}.tsv with the columns
that the row names; short fields come first, so that cutting a long input never
loses the question.

Importing this file makes the names known to `prompt_subspace.data.tasks.find`;
`register` also puts the tasks into SeqIO's registry, for T5X and other users.

Metrics: accuracy and, where the largest class has twice the examples of the
smallest or more, macro-F1 beside it; what is customary for CoLA, MRPC, STS,
SQuAD and generation.
"""

from prompt_subspace.data.seqio_tasks import seqio_task
from prompt_subspace.data.tasks import register_templates
from prompt_subspace.data.templates import Template


def words(*texts):
  """Labels that are good words as they stand."""
  return {text: text for text in texts}


PAIR = 'sentence1: {sentence1} sentence2: {sentence2}'
NLI = 'premise: {premise} hypothesis: {hypothesis}'
TWO = 'choice1: {choice1} choice2: {choice2}'
FOUR = f'{TWO} choice3: {{choice3}} choice4: {{choice4}}'
FIVE = f'{FOUR} choice5: {{choice5}}'
TWO_CHOICES = ('{choice1}', '{choice2}')
FOUR_CHOICES = (*TWO_CHOICES, '{choice3}', '{choice4}')
FIVE_CHOICES = (*FOUR_CHOICES, '{choice5}')

SENTIMENT = words('negative', 'positive')
INFERENCE = words('entailment', 'neutral', 'contradiction')
ENTAILED = {'entailment': 'entailment', 'not_entailment': 'not entailment'}
STANCE = words('against', 'favor', 'none')
SKEWED = ('accuracy', 'f1_macro')
# The same question for every phenomenon: which of the two is good English?
BLIMP = Template(f'blimp {TWO}', '{answer}', choices=TWO_CHOICES)

YAHOO_TOPICS = {
  'Society and Culture': 'society',
  'Science and Mathematics': 'science',
  'Health': 'health',
  'Education and Reference': 'education',
  'Computers and Internet': 'computers',
  'Sports': 'sports',
  'Business and Finance': 'business',
  'Entertainment and Music': 'entertainment',
  'Family and Relationships': 'family',
  'Politics and Government': 'politics',
}
AG_NEWS_TOPICS = {
  'World': 'world',
  'Sports': 'sports',
  'Business': 'business',
  'Science and technology': 'science',
}
# fmt: off
EMOJI = words(
  'red heart', 'smiling face with hearteyes', 'face with tears of joy',
  'two hearts', 'fire', 'smiling face with smiling eyes',
  'smiling face with sunglasses', 'sparkles', 'blue heart',
  'face blowing a kiss', 'camera', 'United States', 'sun', 'purple heart',
  'winking face', 'hundred points', 'beaming face with smiling eyes',
  'Christmas tree', 'camera with flash', 'winking face with tongue',
)
REUTERS_TOPICS = words(
  'acquisitions', 'aluminium', 'balance of payment', 'cocoa', 'coffee',
  'consumer price index', 'copper', 'cotton', 'crude', 'earn', 'gold', 'grain',
  'gross national product', 'industrial production index', 'interest',
  'iron and steel', 'jobs', 'livestock', 'money foreign exchange',
  'money supply', 'natural gas', 'orange', 'reserves', 'retail', 'rubber',
  'ship', 'sugar', 'tin', 'trade', 'vegetable oil', 'wholesale price index',
)
BANKING_INTENTS = words(
  'activate my card', 'age limit', 'apple pay or google pay', 'atm support',
  'automatic top up', 'balance not updated after bank transfer',
  'balance not updated after cheque or cash deposit',
  'beneficiary not allowed', 'cancel transfer', 'card about to expire',
  'card acceptance', 'card arrival', 'card delivery estimate', 'card linking',
  'card not working', 'card payment fee charged',
  'card payment not recognised', 'card payment wrong exchange rate',
  'card swallowed', 'cash withdrawal charge',
  'cash withdrawal not recognised', 'change pin', 'compromised card',
  'contactless not working', 'country support', 'declined card payment',
  'declined cash withdrawal', 'declined transfer',
  'direct debit payment not recognised', 'disposable card limits',
  'edit personal details', 'exchange charge', 'exchange rate',
  'exchange via app', 'extra charge on statement', 'failed transfer',
  'fiat currency support', 'get disposable virtual card', 'get physical card',
  'getting spare card', 'getting virtual card', 'lost or stolen card',
  'lost or stolen phone', 'order physical card', 'passcode forgotten',
  'pending card payment', 'pending cash withdrawal', 'pending top up',
  'pending transfer', 'pin blocked', 'receiving money', 'request refund',
  'supported cards and currencies', 'terminate account',
  'top up by bank transfer charge', 'top up by card charge',
  'top up by cash or cheque', 'top up failed', 'top up limits',
  'top up reverted', 'topping up by card', 'transaction charged twice',
  'transfer fee charged', 'transfer into account',
  'transfer not received by recipient', 'transfer timing',
  'unable to verify identity', 'verify my identity',
  'verify source of funds', 'verify top up', 'virtual card not working',
  'visa or mastercard', 'why verify identity',
  'wrong amount of cash received',
  'wrong exchange rate for cash withdrawal',
) | {
  'Refund not showing up': 'refund not showing up',
  'reverted card payment?': 'reverted card payment',
}

# fmt: on

TASKS = {
  # Sentiment and emotion.
  'sst2': Template('sst2 sentence: {sentence}', '{label}', SENTIMENT),
  'sst5': Template(
    'sst5 sentence: {sentence}',
    '{label}',
    words('very negative', 'negative', 'neutral', 'positive', 'very positive'),
    metrics=SKEWED,
  ),
  'rotten_tomatoes': Template(
    'rotten_tomatoes sentence: {sentence}', '{label}', SENTIMENT
  ),
  'mpqa': Template(
    'mpqa phrase: {phrase}', '{label}', SENTIMENT, metrics=SKEWED
  ),
  'movie_reviews': Template('movie_reviews text: {text}', '{label}', SENTIMENT),
  'pros_cons': Template(
    'pros_cons text: {text}', '{label}', words('pros', 'cons')
  ),
  'yelp_sentences': Template(
    'yelp_sentences sentence: {sentence}', '{label}', SENTIMENT
  ),
  'poem_sentiment': Template(
    'poem_sentiment text: {text}',
    '{label}',
    words('negative', 'no impact', 'mixed', 'positive'),
    metrics=SKEWED,
  ),
  'tweet_eval_sentiment': Template(
    'tweet_eval_sentiment text: {text}',
    '{label}',
    words('negative', 'neutral', 'positive'),
    metrics=SKEWED,
  ),
  'tweet_eval_emotion': Template(
    'tweet_eval_emotion text: {text}',
    '{label}',
    words('anger', 'joy', 'optimism', 'sadness'),
    metrics=SKEWED,
  ),
  'tweet_eval_emoji': Template(
    'tweet_eval_emoji text: {text}', '{label}', EMOJI, metrics=SKEWED
  ),
  'tweet_eval_irony': Template(
    'tweet_eval_irony text: {text}', '{label}', words('not irony', 'irony')
  ),
  'emotion': Template(
    'emotion text: {text}',
    '{label}',
    words('sadness', 'joy', 'love', 'anger', 'fear', 'surprise'),
    metrics=SKEWED,
  ),
  # Stance: the target of the stance is part of the name.
  'tweet_eval_stance_abortion': Template(
    'stance on abortion text: {text}', '{label}', STANCE, metrics=SKEWED
  ),
  'tweet_eval_stance_atheism': Template(
    'stance on atheism text: {text}', '{label}', STANCE, metrics=SKEWED
  ),
  'tweet_eval_stance_climate': Template(
    'stance on climate change text: {text}', '{label}', STANCE, metrics=SKEWED
  ),
  'tweet_eval_stance_feminist': Template(
    'stance on feminism text: {text}', '{label}', STANCE, metrics=SKEWED
  ),
  'tweet_eval_stance_hillary': Template(
    'stance on Hillary Clinton text: {text}', '{label}', STANCE, metrics=SKEWED
  ),
  # Topics, intents and kinds of text.
  'subj': Template(
    'subj sentence: {sentence}', '{label}', words('objective', 'subjective')
  ),
  'sms_spam': Template(
    'sms_spam text: {text}',
    '{label}',
    words('not spam', 'spam'),
    metrics=SKEWED,
  ),
  'ag_news': Template('ag_news text: {text}', '{label}', AG_NEWS_TOPICS),
  'yahoo_answers_topics': Template(
    'yahoo_answers_topics question: {question}', '{label}', YAHOO_TOPICS
  ),
  'reuters31': Template('reuters31 text: {text}', '{label}', REUTERS_TOPICS),
  'banking77': Template(
    'banking77 text: {text}', '{label}', BANKING_INTENTS, metrics=SKEWED
  ),
  'onestop_english': Template(
    'onestop_english text: {text}',
    '{label}',
    words('elementary', 'intermediate', 'advanced'),
  ),
  # Form.
  'cola': Template(
    'cola sentence: {sentence}',
    '{label}',
    words('unacceptable', 'acceptable'),
    metrics=('matthews',),
  ),
  'google_wellformed_query': Template(
    'google_wellformed_query query: {query}',
    '{label}',
    {'not well-formed': 'not well formed', 'well-formed': 'well formed'},
  ),
  # Pairs of sentences.
  'mrpc': Template(
    f'mrpc {PAIR}',
    '{label}',
    {'not_equivalent': 'not equivalent', 'equivalent': 'equivalent'},
    metrics=SKEWED,
  ),
  'sts': Template(
    f'sts {PAIR}', '{score}', kind='regression', metrics=('pearson', 'spearman')
  ),
  'rte': Template(f'rte {NLI}', '{label}', ENTAILED),
  'qnli': Template(
    'qnli question: {question} sentence: {sentence}', '{label}', ENTAILED
  ),
  'sick': Template(f'sick {NLI}', '{label}', INFERENCE, metrics=SKEWED),
  'snli': Template(f'snli {NLI}', '{label}', INFERENCE),
  'mnli': Template(f'mnli {NLI}', '{label}', INFERENCE),
  'anli': Template(f'anli {NLI}', '{label}', INFERENCE),
  'cb': Template(f'cb {NLI}', '{label}', INFERENCE, metrics=SKEWED),
  'wsc': Template(
    'wsc span1: {span1} span2: {span2} text: {text}',
    '{label}',
    words('false', 'true'),
  ),
  # Questions about a passage.
  'boolq': Template(
    'boolq question: {question} passage: {passage}',
    '{label}',
    {'false': 'no', 'true': 'yes'},
  ),
  'multirc': Template(
    'multirc question: {question} answer: {answer_option} passage: {passage}',
    '{label}',
    {'false': 'no', 'true': 'yes'},
  ),
  'xquad_en': Template(
    'xquad_en question: {question} context: {context}',
    '{answer}',
    metrics=('exact_match', 'qa_f1'),
  ),
  # Multiple choice: the candidates differ from row to row.
  'copa': Template(
    f'copa question: {{question}} premise: {{premise}} {TWO}',
    '{answer}',
    choices=TWO_CHOICES,
  ),
  'arc_challenge': Template(
    f'arc_challenge question: {{question}} {FOUR}',
    '{answer}',
    choices=FOUR_CHOICES,
  ),
  'arc_easy': Template(
    f'arc_easy question: {{question}} {FOUR}', '{answer}', choices=FOUR_CHOICES
  ),
  'commonsense_qa': Template(
    f'commonsense_qa question: {{question}} {FIVE}',
    '{answer}',
    choices=FIVE_CHOICES,
  ),
  'blimp_anaphor_gender_agreement': BLIMP,
  'blimp_anaphor_number_agreement': BLIMP,
  'blimp_determiner_noun_agreement_with_adj_irregular_1': BLIMP,
  'blimp_ellipsis_n_bar_1': BLIMP,
  'blimp_ellipsis_n_bar_2': BLIMP,
  'blimp_existential_there_quantifiers_1': BLIMP,
  'blimp_irregular_past_participle_adjectives': BLIMP,
  'blimp_sentential_negation_npi_licensor_present': BLIMP,
  'blimp_sentential_negation_npi_scope': BLIMP,
  'blimp_wh_questions_object_gap': BLIMP,
  # Generation.
  'common_gen': Template(
    'common_gen concepts: {concepts}', '{target}', metrics=('rouge_l',)
  ),
  'onestop_simplification': Template(
    'onestop_simplification source: {source}', '{target}', metrics=('rouge_l',)
  ),
}


register_templates(TASKS)


def register(data_dir, vocabulary):
  """Adds all of them to SeqIO's registry (imports TensorFlow).

  Args:
    data_dir: the folder of task folders.
    vocabulary: a `prompt_subspace.vocabulary.Vocabulary`.
  """
  for name, template in TASKS.items():
    seqio_task(name, f'{data_dir}/{name}', template, vocabulary)
