"""CrossFit's tasks by name: where one has them, and which share their texts.

Qin et al. 2023 and Yi et al. 2022 take what is trained on and what is unseen
from the 160 tasks of Ye et al. 2021, each task on one side. Some tasks are the
same texts under two names all the same, and stand on both: `leaks` names them.
"""

import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from prompt_subspace.data import crossfit, crossfit_tasks, files
from prompt_subspace.data.tasks import Task, find

# What is shared -> the tasks that have it, wholly or in good part. Parts of one
# data set with other texts each are not here: the BLiMP paradigms, the stances
# of TweetEval, the subreddits of ELI5, RACE of middle and high schools.
FAMILIES: dict[str, tuple[str, ...]] = {
  'RTE': ('glue-rte', 'superglue-rte'),
  'Winograd schemas': ('glue-wnli', 'superglue-wsc'),
  'the comments of ETHOS': (
    'ethos-directed_vs_generalized',
    'ethos-disability',
    'ethos-gender',
    'ethos-national_origin',
    'ethos-race',
    'ethos-religion',
    'ethos-sexual_orientation',
  ),
  'sentences of Rotten Tomatoes': ('glue-sst2', 'rotten_tomatoes'),
  'the reviews of Yelp': ('yelp_polarity', 'yelp_review_full'),
  'the questions of TREC': ('trec', 'trec-finegrained'),
  'sentences on adverse drug effects': (
    'ade_corpus_v2-classification',
    'ade_corpus_v2-dosage',
    'ade_corpus_v2-effect',
  ),
  'questions or passages of SQuAD': (
    'adversarialqa',
    'glue-qnli',
    'lama-squad',
    'squad-no_context',
    'squad-with_context',
  ),
  'the questions of HotpotQA': (
    'break-QDMR-high-level',
    'hotpot_qa',
    'kilt_hotpotqa',
  ),
  'the questions of Spider': ('break-QDMR', 'spider'),
  'the Break data set': ('break-QDMR', 'break-QDMR-high-level'),
  'the questions of Jeopardy': ('jeopardy', 'search_qa'),
  'the facts of T-REx': ('kilt_trex', 'lama-trex'),
  'the questions of QuaRTz': ('quartz-no_knowledge', 'quartz-with_knowledge'),
  'the questions of CommonsenseQA': ('commonsense_qa', 'cos_e'),
  'captions of ActivityNet': ('hellaswag', 'swag'),
  'the posts of Reddit TIFU': ('reddit_tifu-title', 'reddit_tifu-tldr'),
  'questions of CosmosQA': ('cosmos_qa', 'mocha'),
  'questions of Quoref': ('mocha', 'quoref'),
  'questions of Social IQa': ('mocha', 'social_i_qa'),
}

# CrossFit's name -> the task of tasks/english.py over the same corpus. Texts
# and sizes can differ: anli has all three rounds (CrossFit the first),
# yahoo_answers_topics only the titles, sst2 whole sentences only, common_gen an
# early release. Not here: superglue-multirc, asked there by question and here
# by answer; the SQuADs, of which xquad_en is a small part.
REGISTERED: dict[str, str] = {
  'ag_news': 'ag_news',
  'ai2_arc': 'arc_challenge',
  'anli': 'anli',
  'blimp-anaphor_gender_agreement': 'blimp_anaphor_gender_agreement',
  'blimp-anaphor_number_agreement': 'blimp_anaphor_number_agreement',
  'blimp-determiner_noun_agreement_with_adj_irregular_1': (
    'blimp_determiner_noun_agreement_with_adj_irregular_1'
  ),
  'blimp-ellipsis_n_bar_1': 'blimp_ellipsis_n_bar_1',
  'blimp-ellipsis_n_bar_2': 'blimp_ellipsis_n_bar_2',
  'blimp-existential_there_quantifiers_1': (
    'blimp_existential_there_quantifiers_1'
  ),
  'blimp-irregular_past_participle_adjectives': (
    'blimp_irregular_past_participle_adjectives'
  ),
  'blimp-sentential_negation_npi_licensor_present': (
    'blimp_sentential_negation_npi_licensor_present'
  ),
  'blimp-sentential_negation_npi_scope': 'blimp_sentential_negation_npi_scope',
  'blimp-wh_questions_object_gap': 'blimp_wh_questions_object_gap',
  'boolq': 'boolq',
  'common_gen': 'common_gen',
  'commonsense_qa': 'commonsense_qa',
  'emotion': 'emotion',
  'glue-cola': 'cola',
  'glue-mnli': 'mnli',
  'glue-mrpc': 'mrpc',
  'glue-qnli': 'qnli',
  'glue-rte': 'rte',
  'glue-sst2': 'sst2',
  'google_wellformed_query': 'google_wellformed_query',
  'onestop_english': 'onestop_english',
  'poem_sentiment': 'poem_sentiment',
  'rotten_tomatoes': 'rotten_tomatoes',
  'sick': 'sick',
  'sms_spam': 'sms_spam',
  'superglue-cb': 'cb',
  'superglue-copa': 'copa',
  'superglue-rte': 'rte',
  'superglue-wsc': 'wsc',
  'tweet_eval-emoji': 'tweet_eval_emoji',
  'tweet_eval-emotion': 'tweet_eval_emotion',
  'tweet_eval-irony': 'tweet_eval_irony',
  'tweet_eval-sentiment': 'tweet_eval_sentiment',
  'tweet_eval-stance_abortion': 'tweet_eval_stance_abortion',
  'tweet_eval-stance_atheism': 'tweet_eval_stance_atheism',
  'tweet_eval-stance_climate': 'tweet_eval_stance_climate',
  'tweet_eval-stance_feminist': 'tweet_eval_stance_feminist',
  'tweet_eval-stance_hillary': 'tweet_eval_stance_hillary',
  'yahoo_answers_topics': 'yahoo_answers_topics',
}


class Found(NamedTuple):
  """Where a task of CrossFit is.

  Attributes:
    names: for `data.tasks.find`, in the same data_dir.
    seeds: of CrossFit's few-shot sets, one per name; empty where the one name
      is a whole task, which few-shot splits are still to be drawn from.
  """

  names: tuple[str, ...]
  seeds: tuple[int, ...] = ()


def places(
  names: Sequence[str], data_dir: str | None, skip_missing: bool
) -> dict[str, Found]:
  """Returns where tasks are.

  Args:
    names: of CrossFit's tasks, or of `data.tasks.find`.
    data_dir: folder of the tasks' folders; None for the embedded ones.
    skip_missing: leave out tasks of CrossFit that it does not have.

  Raises:
    ValueError: lists what is missing, and how to get it.
  """
  known = crossfit_tasks.TASKS if data_dir else {}
  theirs = [n for n in names if n in known]
  look = available if skip_missing else require
  found = look(theirs, data_dir) if theirs else {}
  every = found | {n: Found((n,)) for n in names if n not in known}
  return {name: every[name] for name in names if name in every}


def tasks(found: Mapping[str, Found], data_dir: str | None) -> dict[str, Task]:
  """Returns a task for each name; of few-shot sets that of the first seed."""
  return {n: find(place.names[0], data_dir) for n, place in found.items()}


def notes(
  sources: Iterable[str], targets: Iterable[str], missing: Sequence[str] = ()
) -> list[str]:
  """Says what one must know of a choice of tasks.

  Args:
    sources: names as of `places`.
    targets: likewise.
    missing: what `places` has left out.
  """
  theirs = {ours: name for name, ours in REGISTERED.items()}

  def named(side):
    both = (theirs.get(n, n) for n in side)
    return [n for n in both if n in crossfit_tasks.TASKS]

  out = [f'leak: {x}' for x in leaks(named(sources), named(targets))]
  if missing:
    out.append(f'{len(missing)} tasks left out, no data: {", ".join(missing)}')
  return out


def leaks(sources: Iterable[str], targets: Iterable[str]) -> list[str]:
  """Names every source and target that share texts, and what they share.

  Args:
    sources: names of CrossFit's tasks, or of their few-shot sets.
    targets: likewise.

  Returns:
    Sentences such as 'glue-rte and superglue-rte share RTE'; none where all is
    well. Warn with them, or take the sources out.

  Raises:
    ValueError: an unknown name.
  """
  pairs = itertools.product(_known(sources), _known(targets))
  return [
    f'{source} and {target} share {shared}'
    for source, target in sorted(pairs)
    if (shared := _shared(source, target))
  ]


def available(
  names: Iterable[str], data_dir: str | pathlib.Path
) -> dict[str, Found]:
  """Those of the tasks that data_dir has: name -> where.

  The first of these that exists: the folder of the name with a `task.json`; the
  same folder with CrossFit's few-shot sets; the folder of the task in
  tasks/english.py over the same corpus, see `REGISTERED`.

  Args:
    names: of CrossFit's tasks.
    data_dir: a folder of task folders.

  Raises:
    ValueError: an unknown name; no such folder.
  """
  root = pathlib.Path(data_dir)
  if not root.is_dir():
    raise ValueError(
      f'data_dir: expected a folder of task folders, found none at {root}.'
    )
  places = {name: _place(name, root) for name in _known(names)}
  return {name: found for name, found in places.items() if found}


def require(
  names: Iterable[str], data_dir: str | pathlib.Path
) -> dict[str, Found]:
  """`available`, where every task must be.

  Raises:
    ValueError: lists what is missing and how to get it.
  """
  names = _known(names)
  found = available(names, data_dir)
  missing = [name for name in names if name not in found]
  if not missing:
    return found
  example = missing[0]
  error = (
    f'{len(missing)} of {len(names)} tasks are not in {data_dir}: '
    f'{", ".join(missing)}. Put a folder of the name there for each: the one '
    f"that CrossFit's scripts build, with {example}/{example}_16_13_train.tsv "
    f'and so on, or your own with train.tsv, validation.tsv, test.tsv and a '
    f'task.json.'
  )
  ours = [f'{REGISTERED[n]} (for {n})' for n in missing if n in REGISTERED]
  if ours:
    error += f' Folders of tasks/english.py do too: {", ".join(ours)}.'
  raise ValueError(error)


def _known(names: Iterable[str]) -> list[str]:
  """The tasks of these names, each once; raises for an unknown one."""
  tasks = list(dict.fromkeys(crossfit.task_of(name) for name in names))
  for task in tasks:
    crossfit_tasks.row(task)
  return tasks


def _shared(source: str, target: str) -> str:
  if source == target:
    return 'everything: they are one task'
  families = [what for what, f in FAMILIES.items() if {source, target} <= {*f}]
  return ' and '.join(families)


def _place(name: str, root: pathlib.Path) -> Found | None:
  if (root / name / 'task.json').is_file():
    return Found((name,))
  if few_shot := crossfit.sets(name, root):
    return Found(tuple(few_shot.values()), tuple(few_shot))
  registered = REGISTERED.get(name)
  # not the folder alone: CrossFit's names and ours can be the same
  trains = [f'train{ending}' for ending in files.ENDINGS]
  if registered and any((root / registered / t).is_file() for t in trains):
    return Found((registered,))
  return None
