"""The tasks of UDT's two settings, by CrossFit's names.

Yi et al. 2022, tables 1, 12 and 13. Table 12 prints 59 of 60 names; the last
one, ade_corpus_v2-dosage, is in the list that its authors released.
"""

Group = dict[str, list[str]]

# fmt: off
TRAIN = tuple('''
  amazon_polarity financial_phrasebank glue-sst2 imdb emotion
  tweet_eval-offensive tweet_eval-stance_climate ethos-directed_vs_generalized
  ethos-race hatexplain glue-mnli glue-qnli glue-wnli superglue-rte health_fact
  liar glue-qqp medical_questions_pairs paws circa onestop_english
  trec-finegrained wiki_auto google_wellformed_query sms_spam superglue-wic
  lama-google_re numer_sense search_qa web_questions boolq codah commonsense_qa
  cosmos_qa dream hellaswag sciq quail quarel race-high superglue-copa
  wino_grande eli5-eli5 hotpot_qa quoref superglue-record multi_news xsum spider
  wikisql blimp-anaphor_gender_agreement blimp-ellipsis_n_bar_1
  blimp-irregular_past_participle_adjectives blimp-wh_questions_object_gap
  cos_e acronym_identification crawl_domain proto_qa qa_srl ade_corpus_v2-dosage
'''.split())
UNSEEN = tuple('''
  rotten_tomatoes yelp_polarity ethos-gender superglue-wsc ai2_arc qasc
  quartz-no_knowledge eli5-asks blimp-anaphor_number_agreement
'''.split())
# fmt: on
# the task of which a space is made -> those that it is used on
PAIRS: dict[str, tuple[str, ...]] = {
  'glue-sst2': ('rotten_tomatoes', 'amazon_polarity'),
  'glue-mnli': ('scitail', 'superglue-rte'),
  'superglue-wic': ('superglue-wsc',),
  'glue-qqp': ('glue-mrpc',),
  'eli5-eli5': ('eli5-askh', 'eli5-asks'),
  'dream': ('codah', 'quartz-no_knowledge', 'superglue-copa'),
}


def multi() -> dict[str, Group]:
  """One space of 60 tasks, used on nine others (tables 2 and 4)."""
  return {'multi': {'train': list(TRAIN), 'unseen': list(UNSEEN)}}


def single() -> dict[str, Group]:
  """A space of each of six tasks, used on others of its kind (table 1)."""
  return {
    train: {'train': [train], 'unseen': list(unseen)}
    for train, unseen in PAIRS.items()
  }
