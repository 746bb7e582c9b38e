"""What a reader of a page sees."""

import html.parser
import pathlib


class _Words(html.parser.HTMLParser):
  def __init__(self):
    super().__init__()
    self.words, self.skip = [], False

  def handle_starttag(self, tag, attrs):
    self.skip = tag in ('style', 'script')

  def handle_data(self, data):
    if not self.skip:
      self.words.append(' '.join(data.split()))


def shown(folder: pathlib.Path) -> str:
  """The visible words of a study's page."""
  words = _Words()
  words.feed((folder / 'report.html').read_text(encoding='utf-8'))
  return ' '.join(words.words)
