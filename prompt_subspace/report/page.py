"""A page: the results of a study as one HTML file, for people to read.

The file carries its style, script and pictures, and loads nothing: it opens
from any folder, without a network, and forbids the browser all else. Every
text that it is given is escaped.
"""

import base64
import hashlib
import json
import numbers
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, Union

from prompt_subspace.report import files, page_assets, page_surface, page_table
from prompt_subspace.report.page_surface import Surface
from prompt_subspace.report.page_table import MISSING, Table

# a number and what it counts
_UNIT = re.compile(r'([-+−]?\d[\d.,]*) (.+)')


class Headline(NamedTuple):
  """A result in large letters: what it is, its value, and what it means."""

  label: str
  value: str
  note: str = ''


class Picture(NamedTuple):
  """A picture: the bytes of a PNG or SVG file.

  Attributes:
    data: as of `plots.encode`, or read from a file.
    alt: what it shows, for those who do not see it.
    caption: what to look for.
  """

  data: bytes
  alt: str
  caption: str = ''


class Details(NamedTuple):
  """A block that is closed until its title is clicked."""

  title: str
  content: Sequence['Content']


# a text has a paragraph between empty lines; a mapping is a list of its fields
Content = Union[  # noqa: UP007
  str, Table, Picture, Surface, Details, Mapping[str, Any]
]


class Section(NamedTuple):
  """A part of the page: its title, what to know, and what there is to see."""

  title: str
  text: str = ''
  content: Sequence[Content] = ()


class Page(NamedTuple):
  """All of a page, in its order.

  Attributes:
    title: of the study.
    lead: one or two sentences: what was done and what came out.
    headline: the results that matter most.
    sections: in order; three or more are listed above the first.
    record: what is needed to repeat the study: settings, versions, seeds.
    language: of the texts, as in the attribute `lang`.
  """

  title: str
  lead: str
  headline: Sequence[Headline] = ()
  sections: Sequence[Section] = ()
  record: Mapping[str, Any] = {}
  language: str = 'en'


def render(page: Page) -> str:
  """The page as HTML.

  Raises:
    ValueError: a table whose lines differ in length, or with an unknown
      `best`, or whose foot is longer than itself; a picture that is neither
      PNG nor SVG; a surface without values; content of another kind.
  """
  sections = [*page.sections]
  if page.record:
    sections.append(Section('Record', '', [page.record]))
  names = [f'part-{i}' for i in range(1, len(sections) + 1)]
  digest = hashlib.sha256(page_assets.JS.encode()).digest()
  script = base64.b64encode(digest).decode()
  policy = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
  )
  return f"""<!DOCTYPE html>
<html lang="{escape(page.language)}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(page.title)}</title>
<link rel="icon" href="data:,">
<style>{page_assets.CSS}</style>
</head>
<body>
<header>
<h1>{escape(page.title)}</h1>
{_paragraphs(page.lead, 'lead')}
{_headline(page.headline)}
{_navigation(sections, names)}
</header>
<main>
{_lines(map(_section, sections, names))}
</main>
<script>{page_assets.JS}</script>
</body>
</html>
"""


def write(path: str | os.PathLike[str], page: Page) -> None:
  """Writes the page, whole or not at all; its folder is made if missing."""
  # a lone surrogate of a broken text becomes a question mark
  files.write_whole(path, render(page).encode('utf-8', 'replace'))


def _lines(texts: Iterable[str]) -> str:
  return '\n'.join(texts)


def _paragraphs(text: str, kind: str = '') -> str:
  start = f'<p class="{kind}">' if kind else '<p>'
  parts = [part.strip() for part in re.split(r'\n\s*\n', text)]
  return _lines(f'{start}{escape(part)}</p>' for part in parts if part)


def _headline(headline: Sequence[Headline]) -> str:
  if not headline:
    return ''
  items = []
  for label, value, note in headline:
    value = escape(str(value))
    if found := _UNIT.fullmatch(value):
      value = f'{found[1]} <small>{found[2]}</small>'
    below = f'<dd class="note">{escape(note)}</dd>' if note else ''
    items.append(
      f'<div><dt>{escape(label)}</dt>'
      f'<dd class="value">{value}</dd>{below}</div>'
    )
  return f'<dl class="headline">\n{_lines(items)}\n</dl>'


def _navigation(sections: Sequence[Section], names: Sequence[str]) -> str:
  if len(sections) < 3:
    return ''
  items = _lines(
    f'<li><a href="#{name}">{escape(section.title)}</a></li>'
    for section, name in zip(sections, names, strict=True)
  )
  return f'<nav aria-label="Sections"><ul>\n{items}\n</ul></nav>'


def _section(section: Section, name: str) -> str:
  return (
    f'<section id="{name}" aria-labelledby="{name}-title">\n'
    f'<h2 id="{name}-title">{escape(section.title)}</h2>\n'
    f'{_paragraphs(section.text)}\n'
    f'{_lines(map(_content, section.content))}\n</section>'
  )


def _content(content: Content) -> str:
  match content:
    case str():
      return _paragraphs(content)
    case Table():
      return page_table.render(content)
    case Picture():
      return _picture(content)
    case Surface():
      return page_surface.render(content)
    case Details():
      return (
        f'<details>\n<summary>{escape(content.title)}</summary>\n'
        f'{_lines(map(_content, content.content))}\n</details>'
      )
    case Mapping():
      return _record(content)
  raise ValueError(
    'content: expected a text, Table, Picture, Surface, Details or mapping, '
    f'found {type(content).__name__}.'
  )


def _record(fields: Mapping[str, Any]) -> str:
  """Names and values; a mapping among the values becomes a list in the list."""
  items = [
    f'<dt>{escape(str(name))}</dt><dd>{_field(value)}</dd>'
    for name, value in fields.items()
  ]
  return f'<dl class="record">\n{_lines(items)}\n</dl>'


def _field(value: Any) -> str:
  if isinstance(value, Mapping) and value:
    return _record(value)
  if isinstance(value, list | tuple):
    if all(isinstance(v, str | numbers.Real) for v in value):
      return escape(', '.join(map(str, value)))
    return escape(json.dumps(value, indent=1, default=str, ensure_ascii=False))
  return MISSING if value in (None, '') else escape(str(value))


def _picture(picture: Picture) -> str:
  kind, size = _kind_and_size(picture.data)
  data = base64.b64encode(picture.data).decode()
  caption = picture.caption and (
    f'<figcaption>{escape(picture.caption)}</figcaption>'
  )
  return (
    f'<figure class="picture">\n<img src="data:image/{kind};base64,{data}" '
    f'alt="{escape(picture.alt)}"{size}>\n{caption}\n</figure>'
  )


def _kind_and_size(data: bytes) -> tuple[str, str]:
  """Kind of a picture and, if it is in pixels, its size in those of CSS.

  A PNG file says how many of its pixels a metre has; an inch has 96 in CSS.
  """
  if b'<svg' in data[:2000]:
    return 'svg+xml', ''
  if not data.startswith(b'\x89PNG\r\n\x1a\n'):
    raise ValueError(
      f'picture: expected the bytes of a PNG or SVG file, found {data[:12]!r}.'
    )
  width, height = struct.unpack('>II', data[16:24])
  density = re.search(rb'pHYs(.{4}).{4}\x01', data[:1000], re.DOTALL)
  scale = 1.0
  if density:
    scale = 96 / 0.0254 / struct.unpack('>I', density[1])[0]
  return 'png', f' width="{width * scale:.0f}" height="{height * scale:.0f}"'
