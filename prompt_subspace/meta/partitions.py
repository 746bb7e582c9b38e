"""The ten partitions of MPT into source and target tasks, and two subsets.

Qin et al. 2023, table 1 (their sizes) and appendix tables 9 and 10 (their
lists, in their order). The names are those of `data.crossfit_tasks`; seven of
the 160 are in no list: app_reviews, cos_e, definite_pronoun_resolution,
empathetic_dialogues, jeopardy, mocha, wiki_auto.
"""

from typing import NamedTuple


class Partition(NamedTuple):
  """Source tasks to learn an initialisation from, targets to judge it by."""

  sources: tuple[str, ...]
  targets: tuple[str, ...]


# fmt: off
_LISTS = {
  'random sources': '''
    glue-mrpc math_qa quarel e2e_nlg_cleaned tweet_eval-stance_atheism
    lama-squad tab_fact aqua_rat tweet_eval-emoji glue-wnli codah
    tweet_eval-offensive wiki_qa blimp-ellipsis_n_bar_1 openbookqa sms_spam
    acronym_identification
    blimp-determiner_noun_agreement_with_adj_irregular_1 ethos-national_origin
    spider hellaswag superglue-wsc numer_sense ade_corpus_v2-dosage
    blimp-ellipsis_n_bar_2 kilt_ay2 squad-no_context google_wellformed_query
    xsum wiqa tweet_eval-stance_abortion reddit_tifu-tldr ade_corpus_v2-effect
    qa_srl ethos-religion commonsense_qa biomrc superglue-multirc ethos-race
    eli5-askh glue-qqp paws ethos-directed_vs_generalized glue-sst2
    tweet_eval-hate glue-rte blimp-anaphor_number_agreement lama-conceptnet
    hate_speech_offensive superglue-wic boolq kilt_hotpotqa
    quartz-no_knowledge aslg_pc12 sick tweet_eval-stance_climate
    tweet_eval-sentiment crows_pairs glue-mnli medical_questions_pairs
    break-QDMR-high-level qasc imdb ethos-gender trec-finegrained
    adversarialqa onestop_english web_questions duorc swag proto_qa scitail
    tweet_eval-stance_feminist limit common_gen scicite
    blimp-irregular_past_participle_adjectives social_i_qa anli kilt_zsre
    cosmos_qa superglue-record squad-with_context emotion
    blimp-existential_there_quantifiers_1 race-middle kilt_wow sciq
    wino_grande rotten_tomatoes superglue-cb poem_sentiment ropes
    reddit_tifu-title piqa climate_fever lama-google_re search_qa mc_taco
    blimp-wh_questions_object_gap hotpot_qa emo kilt_nq kilt_trex
    quartz-with_knowledge dbpedia_14 yahoo_answers_topics superglue-copa
    blimp-anaphor_gender_agreement hate_speech18 gigaword multi_news aeslc
    quail
  ''',
  'random targets': '''
    quoref wiki_split ethos-disability yelp_polarity superglue-rte glue-cola
    ethos-sexual_orientation blimp-sentential_negation_npi_scope ai2_arc
    amazon_polarity race-high blimp-sentential_negation_npi_licensor_present
    tweet_eval-irony crawl_domain freebase_qa glue-qnli hatexplain ag_news
    circa samsum
  ''',
  'classification sources': '''
    superglue-rte tweet_eval-sentiment discovery glue-rte superglue-wsc
    scicite glue-mrpc tweet_eval-stance_hillary tweet_eval-offensive emotion
    hatexplain glue-cola sick paws ethos-sexual_orientation glue-qqp
    tweet_eval-emotion sms_spam health_fact glue-mnli imdb ethos-disability
    glue-wnli scitail trec-finegrained yahoo_answers_topics liar glue-sst2
    tweet_eval-stance_abortion circa tweet_eval-stance_climate glue-qnli
    tweet_eval-emoji ethos-directed_vs_generalized
    ade_corpus_v2-classification ag_news hate_speech_offensive superglue-wic
    google_wellformed_query tweet_eval-irony ethos-gender onestop_english trec
    rotten_tomatoes kilt_fever
  ''',
  'non-classification sources': '''
    ade_corpus_v2-dosage art biomrc blimp-anaphor_number_agreement
    blimp-ellipsis_n_bar_2 blimp-sentential_negation_npi_licensor_present
    blimp-sentential_negation_npi_scope break-QDMR-high-level commonsense_qa
    crows_pairs dream duorc eli5-asks eli5-eli5 freebase_qa gigaword hellaswag
    hotpot_qa kilt_ay2 kilt_hotpotqa kilt_trex kilt_zsre lama-conceptnet
    lama-google_re lama-squad math_qa numer_sense openbookqa piqa proto_qa
    qa_srl quarel quartz-no_knowledge race-high reddit_tifu-title
    reddit_tifu-tldr ropes sciq social_i_qa spider superglue-multirc wiki_bio
    wikisql xsum yelp_review_full
  ''',
  'both sources': '''
    ade_corpus_v2-dosage biomrc blimp-ellipsis_n_bar_2
    blimp-sentential_negation_npi_scope commonsense_qa crows_pairs duorc
    hellaswag kilt_zsre lama-google_re lama-squad math_qa numer_sense
    openbookqa piqa proto_qa quartz-no_knowledge race-high reddit_tifu-tldr
    ropes sciq wiki_bio discovery emotion ethos-disability
    ethos-sexual_orientation glue-cola glue-mnli glue-mrpc glue-qqp glue-rte
    glue-wnli hatexplain health_fact imdb paws scicite sick sms_spam
    superglue-rte superglue-wsc tweet_eval-emotion tweet_eval-offensive
    tweet_eval-sentiment tweet_eval-stance_hillary
  ''',
  'classification targets': '''
    superglue-cb dbpedia_14 wiki_qa emo yelp_polarity ethos-religion
    amazon_polarity tab_fact anli ethos-race
  ''',
  'non-classification targets': '''
    multi_news superglue-copa quail blimp-anaphor_gender_agreement common_gen
    acronym_identification quoref wiki_split ai2_arc break-QDMR crawl_domain
    samsum
  ''',
  'QA sources': '''
    biomrc boolq freebase_qa hotpot_qa kilt_hotpotqa kilt_nq kilt_trex
    kilt_zsre lama-conceptnet lama-google_re lama-squad lama-trex mc_taco
    numer_sense quoref ropes search_qa squad-no_context superglue-multirc
    superglue-record tweet_qa web_questions
  ''',
  'non-QA sources': '''
    hate_speech_offensive google_wellformed_query circa glue-sst2 scitail emo
    ag_news art paws kilt_ay2 glue-qnli ade_corpus_v2-classification
    hatexplain emotion glue-qqp kilt_fever dbpedia_14 glue-mnli discovery
    gigaword amazon_polarity tab_fact tweet_eval-emoji tweet_eval-offensive
    tweet_eval-sentiment imdb liar anli wikisql xsum yahoo_answers_topics
    yelp_polarity yelp_review_full
  ''',
  'QA targets': '''
    ai2_arc codah cosmos_qa dream hellaswag qasc quail quarel
    quartz-no_knowledge quartz-with_knowledge sciq superglue-copa swag
    wino_grande wiqa
  ''',
  'non-paraphrase sources': '''
    ade_corpus_v2-classification ag_news amazon_polarity anli circa
    climate_fever dbpedia_14 discovery emo emotion
    ethos-directed_vs_generalized ethos-disability ethos-gender
    ethos-national_origin ethos-race ethos-religion ethos-sexual_orientation
    financial_phrasebank glue-cola glue-mnli glue-qnli glue-rte glue-sst2
    glue-wnli google_wellformed_query hate_speech18 hate_speech_offensive
    hatexplain health_fact imdb kilt_fever liar onestop_english poem_sentiment
    rotten_tomatoes scicite scitail sick sms_spam superglue-cb superglue-rte
    superglue-wic superglue-wsc tab_fact trec trec-finegrained
    tweet_eval-emoji tweet_eval-emotion tweet_eval-hate tweet_eval-irony
    tweet_eval-offensive tweet_eval-sentiment tweet_eval-stance_abortion
    tweet_eval-stance_atheism tweet_eval-stance_climate
    tweet_eval-stance_feminist tweet_eval-stance_hillary wiki_qa
    yahoo_answers_topics yelp_polarity
  ''',
  'paraphrase targets': '''
    glue-mrpc glue-qqp medical_questions_pairs paws
  ''',
}
# For the number of sources (table 4), of the classification sources.
_SUBSETS = {
  12: '''
    superglue-rte tweet_eval-sentiment discovery glue-rte hatexplain glue-cola
    health_fact glue-mnli imdb ethos-disability glue-wnli scitail
  ''',
  24: '''
    superglue-rte tweet_eval-sentiment discovery glue-rte superglue-wsc
    scicite hatexplain glue-cola tweet_eval-emotion sms_spam health_fact
    glue-mnli imdb ethos-disability glue-wnli scitail glue-sst2
    tweet_eval-stance_abortion glue-qnli ethos-directed_vs_generalized ag_news
    hate_speech_offensive ethos-gender kilt_fever
  ''',
}
# fmt: on

LISTS = {name: tuple(names.split()) for name, names in _LISTS.items()}
SUBSETS = {number: tuple(names.split()) for number, names in _SUBSETS.items()}
# Setting of table 1 -> its lists.
PARTITIONS: dict[str, Partition] = {
  f'{sources} to {targets}': Partition(
    LISTS[f'{sources} sources'], LISTS[f'{targets} targets']
  )
  for sources, targets in (
    ('random', 'random'),
    ('classification', 'classification'),
    ('both', 'classification'),
    ('non-classification', 'classification'),
    ('classification', 'non-classification'),
    ('both', 'non-classification'),
    ('non-classification', 'non-classification'),
    ('QA', 'QA'),
    ('non-QA', 'QA'),
    ('non-paraphrase', 'paraphrase'),
  )
}


def partition(name: str, sources: int | None = None) -> Partition:
  """A partition by name, such as 'classification to classification'.

  Args:
    name: of `PARTITIONS`.
    sources: 12 or 24, for that subset of the classification sources; by default
      all.

  Raises:
    ValueError: an unknown name or number.
  """
  if name not in PARTITIONS:
    raise ValueError(
      f'partition {name!r}: the known ones are {", ".join(PARTITIONS)}.'
    )
  whole = PARTITIONS[name]
  if sources is None or sources == len(whole.sources):
    return whole
  if whole.sources != LISTS['classification sources'] or sources not in SUBSETS:
    raise ValueError(
      f'sources: expected {len(whole.sources)}, or for classification sources '
      f'{" or ".join(map(str, SUBSETS))}, found {sources} for {name!r}.'
    )
  return whole._replace(sources=SUBSETS[sources])
