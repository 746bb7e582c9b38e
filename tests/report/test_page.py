"""Pages: all that was given is there, in order, inside the file, escaped."""

import base64
import html.parser
import json
import re

import pytest

from prompt_subspace.report import page, page_assets, plots
from prompt_subspace.report.page import (
  Details,
  Headline,
  Page,
  Picture,
  Section,
  Table,
)

EVIL = '<script>document.title="owned"</script> & "quoted" \'text\''
VOID = {'meta', 'link', 'img', 'input', 'br'}
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"></svg>'


class Tree(html.parser.HTMLParser):
  """Parses strictly: what opens must close, in order; keeps what it sees.

  `found` holds (tag, attributes, text within) in the order of the file.
  """

  def __init__(self, text):
    super().__init__()
    self.open, self.found = [], []
    self.feed(text)
    self.close()
    assert not self.open, f'not closed: {self.open}'

  def handle_starttag(self, tag, attributes):
    assert len(dict(attributes)) == len(attributes), f'twice in {tag}'
    item = [tag, dict(attributes), '']
    self.found.append(item)
    if tag not in VOID:
      self.open.append(item)

  def handle_endtag(self, tag):
    assert self.open and self.open[-1][0] == tag, f'{tag} closes {self.open}'
    self.open.pop()

  def handle_data(self, data):
    for item in self.open:
      item[2] += data

  def all(self, tag, kind=None):
    return [
      item
      for item in self.found
      if item[0] == tag
      and (kind is None or kind in item[1].get('class', '').split())
    ]

  def texts(self, tag, kind=None):
    return [item[2] for item in self.all(tag, kind)]


def png(width=4, height=2):
  figure = plots.bars(['a'], {'s': ([1], None)}, 'y', 't')
  figure.set_size_inches(width, height)
  return plots.encode(figure)


def one(*content, **fields):
  """A page with a single section."""
  return Page('Title', 'Lead.', [], [Section('S', '', content)], **fields)


def whole():
  grid = [['task', 'gain'], ['a', 1.25], ['b', None], ['c', -3.0]]
  return Page(
    'Study',
    'What was done.\n\nWhat came out.',
    [Headline('gain', '+2.5 points', 'of 8 targets'), ('r', '0.62', '')],
    [
      Section('Scores', 'First.', [Table('Gains (%)', grid), 'Some words.']),
      Section('Pictures', '', [Picture(png(), 'bars', 'Look here.')]),
      Section('Ranks', '', [Details('a', [Details('card', [{'seed': 3}])])]),
    ],
    {'settings': {'steps': [1, 2], 'rate': 0.3}, 'backbone': None},
  )


def test_a_page_has_all_in_order_headline_first():
  text = page.render(whole())
  tree = Tree(text)
  assert tree.all('html')[0][1]['lang'] == 'en'
  assert tree.texts('title') == ['Study'] == tree.texts('h1')
  assert tree.texts('p')[:2] == ['What was done.', 'What came out.']
  assert tree.texts('dd', 'value') == ['+2.5 points', '0.62']
  assert tree.texts('dd', 'note') == ['of 8 targets']
  assert tree.texts('h2') == ['Scores', 'Pictures', 'Ranks', 'Record']
  places = [
    text.index(part)
    for part in ('<h1>', '+2.5', '<nav', '<table', '<img', '<details', '0.3<')
  ]
  assert places == sorted(places)
  metas = [m[1] for m in tree.all('meta')]
  assert {'charset': 'utf-8'} in metas
  assert any(m.get('name') == 'viewport' for m in metas)


def test_links_of_the_navigation_lead_to_the_sections():
  tree = Tree(page.render(whole()))
  ids = [item[1]['id'] for item in tree.found if 'id' in item[1]]
  assert len(ids) == len(set(ids))
  targets = [a[1]['href'].removeprefix('#') for a in tree.all('a')]
  assert targets == [s[1]['id'] for s in tree.all('section')]
  labels = [s[1]['aria-labelledby'] for s in tree.all('section')]
  assert labels == [h[1]['id'] for h in tree.all('h2')]


def test_nothing_is_loaded_from_elsewhere():
  text = page.render(whole())
  for _, attributes, _ in Tree(text).found:
    for name in ('src', 'href', 'action', 'data', 'poster', 'srcset'):
      value = attributes.get(name, '#')
      assert value.startswith(('#', 'data:')), f'{name}={value[:50]}'
  assert not re.search(r'(?i)\bhttps?:|@import|url\(', text)
  assert "default-src 'none'" in text


def test_every_text_is_escaped():
  evil = Page(
    EVIL,
    EVIL,
    [Headline(EVIL, EVIL, EVIL), Headline('unit', f'1 {EVIL}')],
    [
      Section(
        EVIL,
        EVIL,
        [
          EVIL,
          Table(EVIL, [[EVIL, EVIL], [EVIL, EVIL]]),
          Picture(SVG, EVIL, EVIL),
          Details(EVIL, [{EVIL: EVIL, 'a': [EVIL], 'b': [{EVIL: [EVIL]}]}]),
        ],
      )
    ]
    * 3,
    {EVIL: {EVIL: EVIL}},
    language='en"><script>',
  )
  tree = Tree(page.render(evil))
  assert tree.texts('script') == [page_assets.JS]
  assert tree.texts('h1') == [EVIL]
  assert {i[1]['alt'] for i in tree.all('img')} == {EVIL}
  assert set(tree.texts('th') + tree.texts('td')) == {EVIL}
  assert set(tree.texts('summary')) == {EVIL}
  assert {t[1]['aria-label'] for t in tree.all('table')} == {EVIL}
  assert all('onerror' not in item[1] for item in tree.found)


def test_pictures_are_inside_with_text_and_size():
  data = png(4, 2)
  tree = Tree(page.render(one(Picture(data, 'what', 'where'))))
  (_, attributes, _) = tree.all('img')[0]
  kind, _, encoded = attributes['src'].partition(',')
  assert kind == 'data:image/png;base64'
  assert base64.b64decode(encoded) == data
  assert attributes['alt'] == 'what'
  assert tree.texts('figcaption') == ['where']
  # 96 to the inch
  assert (attributes['width'], attributes['height']) == ('384', '192')


def test_svg_pictures_are_images_and_others_are_refused():
  (image,) = Tree(page.render(one(Picture(SVG, 'a')))).all('img')
  assert image[1]['src'].startswith('data:image/svg+xml;base64,')
  with pytest.raises(ValueError, match='PNG or SVG'):
    page.render(one(Picture(b'GIF89a', 'a')))


def test_content_of_another_kind_is_refused():
  with pytest.raises(ValueError, match='found int'):
    page.render(one(3))


def test_records_show_nested_fields():
  record = {'a': {'b': 1e-05, 'c': {}}, 'd': ['x', 2], 'e': [{'f': None}]}
  tree = Tree(page.render(one(record=record)))
  assert tree.texts('dt') == ['a', 'b', 'c', 'd', 'e']
  texts = tree.texts('dd')
  assert texts[1:4] == ['1e-05', '{}', 'x, 2']
  assert json.loads(texts[4]) == [{'f': None}]


def test_files_are_whole_and_take_any_text(tmp_path, monkeypatch):
  path = tmp_path / 'new' / 'index.html'
  page.write(path, one('broken \ud800 text, 文, é'))
  text = path.read_text(encoding='utf-8')
  assert 'broken ? text, 文, é' in text
  monkeypatch.setattr(page.files.os, 'replace', None)
  with pytest.raises(TypeError):
    page.write(path, one('newer'))
  assert path.read_text(encoding='utf-8') == text
  assert [p.name for p in path.parent.iterdir()] == ['index.html']
