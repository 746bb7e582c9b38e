"""The 160 tasks of CrossFit: type, category, kind and metric of each.

Ye et al. 2021, "CrossFit: A Few-shot Learning Challenge for Cross-task
Generalization in NLP", the NLP Few-shot Gym. Names, metrics and the four types
are theirs. Categories follow the second level of their ontology: their released
lists where these exist (inference, to which superglue-rte is added, paraphrase,
reading comprehension, multiple choice); the others are assigned here.
"""

from typing import NamedTuple


class Row(NamedTuple):
  """What is known of a task.

  Attributes:
    type: classification, question answering, conditional generation or other.
    category: within the type, such as paraphrase or summarization.
    kind: how it is answered here: classification where the outputs are a fixed
      set of labels, whatever the type (BoolQ answers questions by yes and no);
      regression where they are numbers; else generation.
    metric: that the task is scored with in CrossFit, in the names of
      `prompt_subspace.evaluation.metrics`. For a multiple choice it is accuracy
      though its kind is generation: see `crossfit.template`.
  """

  type: str
  category: str
  kind: str
  metric: str


def _rows(
  type: str, category: str, kind: str, metric: str, names: str
) -> dict[str, Row]:
  return dict.fromkeys(names.split(), Row(type, category, kind, metric))


_CLS = 'classification'
_QA = 'question answering'
_CG = 'conditional generation'

# fmt: off
TASKS: dict[str, Row] = {
  **_rows(_CLS, 'sentiment', 'classification', 'f1_macro', '''
    amazon_polarity financial_phrasebank imdb poem_sentiment rotten_tomatoes
    tweet_eval-sentiment yelp_polarity
  '''),
  **_rows(_CLS, 'sentiment', 'classification', 'accuracy', '''
    glue-sst2
  '''),
  **_rows(_CLS, 'emotion', 'classification', 'f1_macro', '''
    emo emotion tweet_eval-emoji tweet_eval-emotion
  '''),
  **_rows(_CLS, 'hate speech', 'classification', 'f1_macro', '''
    ethos-directed_vs_generalized ethos-disability ethos-gender
    ethos-national_origin ethos-race ethos-religion ethos-sexual_orientation
    hate_speech18 hate_speech_offensive hatexplain tweet_eval-hate
    tweet_eval-offensive
  '''),
  **_rows(_CLS, 'topic', 'classification', 'f1_macro', '''
    ag_news dbpedia_14 yahoo_answers_topics
  '''),
  **_rows(_CLS, 'inference', 'classification', 'f1_macro', '''
    anli scitail sick
  '''),
  **_rows(_CLS, 'inference', 'classification', 'accuracy', '''
    glue-mnli glue-qnli glue-rte glue-wnli superglue-cb superglue-rte
  '''),
  **_rows(_CLS, 'paraphrase', 'classification', 'f1_macro', '''
    paws
  '''),
  **_rows(_CLS, 'paraphrase', 'classification', 'accuracy', '''
    glue-mrpc glue-qqp medical_questions_pairs
  '''),
  **_rows(_CLS, 'fact checking', 'classification', 'f1_macro', '''
    climate_fever health_fact liar tab_fact
  '''),
  **_rows(_CLS, 'fact checking', 'classification', 'accuracy', '''
    kilt_fever
  '''),
  **_rows(_CLS, 'other', 'classification', 'f1_macro', '''
    ade_corpus_v2-classification circa discovery onestop_english scicite
    sms_spam trec trec-finegrained tweet_eval-irony tweet_eval-stance_abortion
    tweet_eval-stance_atheism tweet_eval-stance_climate
    tweet_eval-stance_feminist tweet_eval-stance_hillary wiki_auto wiki_qa
  '''),
  **_rows(_CLS, 'other', 'classification', 'accuracy', '''
    google_wellformed_query superglue-wic superglue-wsc
  '''),
  **_rows(_CLS, 'other', 'classification', 'matthews', '''
    glue-cola
  '''),
  **_rows(_QA, 'reading comprehension', 'generation', 'qa_f1', '''
    adversarialqa biomrc duorc hotpot_qa quoref ropes squad-with_context
    superglue-record tweet_qa
  '''),
  **_rows(_QA, 'multiple choice', 'generation', 'accuracy', '''
    ai2_arc aqua_rat commonsense_qa cosmos_qa dream hellaswag math_qa openbookqa
    qasc quail quarel quartz-no_knowledge quartz-with_knowledge race-high
    race-middle sciq social_i_qa superglue-copa swag wino_grande wiqa
  '''),
  **_rows(_QA, 'multiple choice', 'generation', 'f1_macro', '''
    codah
  '''),
  **_rows(_QA, 'closed book', 'generation', 'exact_match', '''
    freebase_qa jeopardy kilt_hotpotqa kilt_nq kilt_trex kilt_zsre
    lama-conceptnet lama-google_re lama-squad lama-trex numer_sense search_qa
    squad-no_context web_questions
  '''),
  **_rows(_QA, 'yes or no', 'classification', 'accuracy', '''
    boolq mc_taco
  '''),
  **_rows(_QA, 'long form', 'generation', 'rouge_l', '''
    eli5-askh eli5-asks eli5-eli5
  '''),
  **_rows(_QA, 'other', 'generation', 'exact_match', '''
    superglue-multirc
  '''),
  **_rows(_CG, 'summarization', 'generation', 'rouge_l', '''
    aeslc gigaword multi_news reddit_tifu-title reddit_tifu-tldr samsum xsum
  '''),
  **_rows(_CG, 'dialogue', 'generation', 'rouge_l', '''
    empathetic_dialogues kilt_wow
  '''),
  **_rows(_CG, 'other', 'generation', 'rouge_l', '''
    wiki_bio wiki_split
  '''),
  **_rows(_CG, 'other', 'generation', 'exact_match', '''
    spider wikisql
  '''),
  **_rows('other', 'regression', 'regression', 'pearson', '''
    app_reviews mocha yelp_review_full
  '''),
  **_rows('other', 'linguistic phenomenon', 'classification', 'accuracy', '''
    blimp-anaphor_gender_agreement blimp-anaphor_number_agreement
    blimp-determiner_noun_agreement_with_adj_irregular_1 blimp-ellipsis_n_bar_1
    blimp-ellipsis_n_bar_2 blimp-existential_there_quantifiers_1
    blimp-irregular_past_participle_adjectives
    blimp-sentential_negation_npi_licensor_present
    blimp-sentential_negation_npi_scope blimp-wh_questions_object_gap
  '''),
  **_rows('other', 'other', 'classification', 'accuracy', '''
    art crows_pairs piqa
  '''),
  **_rows('other', 'other', 'generation', 'accuracy', '''
    definite_pronoun_resolution
  '''),
  **_rows('other', 'other', 'generation', 'exact_match', '''
    acronym_identification ade_corpus_v2-dosage ade_corpus_v2-effect aslg_pc12
    break-QDMR break-QDMR-high-level crawl_domain kilt_ay2 limit proto_qa qa_srl
  '''),
  **_rows('other', 'other', 'generation', 'rouge_l', '''
    common_gen cos_e e2e_nlg_cleaned
  '''),
}
# fmt: on


def row(name: str) -> Row:
  """The row of a task; an unknown name lists the known ones."""
  if name not in TASKS:
    raise ValueError(
      f'{name!r} is no task of CrossFit; its tasks are '
      f'{", ".join(sorted(TASKS))}.'
    )
  return TASKS[name]
