"""HTML from untrusted text. Elements escape their content unless it is already HTML."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup as Html
from markupsafe import escape

# Controls, which XML forbids; halves of surrogate pairs, which UTF-8 does; marks that turn the reading direction.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: object, most: int = 2000) -> str:
    """Any value as text of at most `most` characters, without characters that can't be printed."""
    words = str(text)
    return _UNPRINTABLE.sub("\ufffd", words if len(words) <= most else words[:most] + " …")


def shortened(texts: Iterable[str], most: int) -> dict[str, str]:
    """Each text with at most `most` characters: the middle of a longer one is left out. If two then look alike, numbers
    tell them apart."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        short, number = text, 1
        while len(short) > most or short in found.values():
            end = f" ({number})" if number > 1 else ""
            room = most - 1 - len(end)
            short = text[: (room + 1) // 2] + "…" + text[len(text) - room // 2 :] + end
            number += 1
        found[text] = short
    return found


def attribute(name: str, value: str) -> Html:
    """`name="value"`, escaped. Data for a script stay whole."""
    return Html('{}="{}"').format(name, plain(value, 1 << 24) if name.startswith("data-") else plain(value))


def element(tag: str, *content: object, **attributes: str) -> Html:
    """`<tag attributes>content</tag>` with escaped text. An attribute that Python reserves ends in `_`, as in `class_`.
    Any other `_` becomes `-`. Empty attributes are left out."""
    named = Html("").join(
        Html(" {}").format(attribute(key.rstrip("_").replace("_", "-"), value))
        for key, value in attributes.items()
        if value
    )
    return Html("<{0}{1}>{2}</{0}>").format(tag, named, join(content))


def join(parts: Iterable[object]) -> Html:
    """The parts one after another. Parts that aren't HTML are escaped."""
    return Html("").join(part if isinstance(part, Html) else escape(plain(part)) for part in parts)


def table(
    rows: Iterable[Sequence[Any]], header: Sequence[Any] = (), *, numbers: Iterable[int] = (), whole: bool = False
) -> Html:
    """A table. The columns `numbers` are right-aligned. Without a header the first cell of a row is its heading. The
    cells of a `whole` one have one line each, and a narrow page scrolls it."""
    right = frozenset(numbers)
    lines = []
    if header:
        cells = [
            element("th", cell, class_="n" if place in right else "", scope="col") for place, cell in enumerate(header)
        ]
        lines.append(element("thead", element("tr", *cells)))
    body = []
    for row in rows:
        cells = []
        for place, cell in enumerate(row):
            if place == 0 and not header:
                cells.append(element("th", cell, scope="row"))
            else:
                cells.append(element("td", cell, class_="n" if place in right else ""))
        body.append(element("tr", *cells))
    return element("div", element("table", *lines, element("tbody", *body)), class_="table whole" if whole else "table")


def details(summary: str, *content: object) -> Html:
    """Content that is folded until the reader opens it."""
    return element("details", element("summary", summary), *content)


def markdown(text: str) -> Html:
    """Headings, paragraphs, lists and tables of a Markdown text, and `code` and **bold** in them.

    Everything else, also HTML, links and pictures, is shown as text. Headings of every level become h3.
    """
    tokens = _MARKDOWN.parse(plain(text, 1 << 20))
    for token in tokens:
        if token.type.startswith("heading"):
            token.tag = "h3"
        if token.attrs.pop("style", "") == "text-align:right":
            token.attrs["class"] = "n"
    return Html(_MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {}))


def _markdown_reader() -> MarkdownIt:
    reader = MarkdownIt("zero").enable(["heading", "table", "list", "emphasis", "backticks", "newline", "escape"])
    reader.add_render_rule("table_open", lambda *_: '<div class="table"><table>')
    reader.add_render_rule("table_close", lambda *_: "</table></div>")
    return reader


_MARKDOWN = _markdown_reader()
