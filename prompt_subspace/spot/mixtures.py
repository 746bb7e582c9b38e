"""The source mixtures of SPoT, by name: which data sets each is made of.

Vu et al. 2022, section 2.1 and appendix B (figure 6). Names are those of TFDS
and SeqIO in common use, or of `tasks/` where the task is registered there.
"""

from collections.abc import Mapping, Sequence

LIMIT = 2**19

_GLUE = ('cola', 'sst2', 'mrpc', 'qqp', 'sts', 'mnli', 'qnli', 'rte')
# fmt: off
_SUPERGLUE = (
  'boolq', 'cb', 'copa', 'multirc', 'record', 'rte', 'wic', 'wsc',
)
_NLI = ('anli', 'cb', 'docnli', 'mnli', 'qnli', 'rte', 'snli')
_PARAPHRASE = ('cxc', 'mrpc', 'qqp', 'sts')
_SENTIMENT = ('cr', 'goemotions', 'sentiment140', 'sst2', 'yelp_polarity')
_MRQA = (
  'squad', 'newsqa', 'triviaqa', 'searchqa', 'hotpotqa', 'natural_questions',
)
_RAINBOW = (
  'anlg', 'cosmosqa', 'hellaswag', 'piqa', 'socialiqa', 'winogrande',
)
_TRANSLATION = ('wmt_en_de', 'wmt_en_fr', 'wmt_en_ro')
_SUMMARIZATION = (
  'aeslc', 'billsum', 'cnn_dailymail', 'wikilingua', 'gigaword', 'multi_news',
  'newsroom', 'samsum', 'xsum',
)
_GEM = (
  'common_gen', 'dart', 'e2e', 'sgd', 'web_nlg', 'wiki_auto', 'xsum',
  'wikilingua',
)
# fmt: on
_FAMILIES = {
  'glue': _GLUE,
  'superglue': _SUPERGLUE,
  'nli': _NLI,
  'paraphrase': _PARAPHRASE,
  'sentiment': _SENTIMENT,
  'mrqa': _MRQA,
  'rainbow': _RAINBOW,
  'translation': _TRANSLATION,
  'summarization': _SUMMARIZATION,
  'gem': _GEM,
}
# The three single sources, ten families, and all: C4 and 53 labelled sets,
# which are the paper's 55 if the three rounds of ANLI are counted each.
PAPER: dict[str, tuple[str, ...]] = {
  'c4': ('c4_prefix_lm',),
  'mnli': ('mnli',),
  'squad': ('squad',),
  **_FAMILIES,
  'all': (
    'c4_prefix_lm',
    *dict.fromkeys(name for family in _FAMILIES.values() for name in family),
  ),
}


def members(
  name: str,
  available: Sequence[str] | None = None,
  table: Mapping[str, Sequence[str]] = PAPER,
) -> tuple[str, ...]:
  """Returns the tasks of a mixture.

  Args:
    name: in the table.
    available: the tasks that there is data for; the others are left out.
      None returns all.
    table: name -> tasks.

  Raises:
    ValueError: the name is unknown, or no task of the mixture is available.
  """
  if name not in table:
    raise ValueError(
      f'mixture: expected one of {", ".join(sorted(table))}, found {name!r}.'
    )
  if available is None:
    return tuple(table[name])
  found = tuple(t for t in table[name] if t in available)
  if not found:
    raise ValueError(
      f'mixture: none of the tasks of {name!r} has data. It is made of '
      f'{", ".join(table[name])}; put folders of these names into data_dir.'
    )
  return found
