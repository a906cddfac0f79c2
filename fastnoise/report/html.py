"""HTML from untrusted text: elements whose text is escaped unless it is HTML already."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

# Controls, which XML forbids; halves of surrogate pairs, which UTF-8 does; marks that turn the reading direction.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def plain(text: object, most: int = 2000) -> str:
    """Any value as text of at most `most` characters, without characters that can't be printed."""
    words = str(text)
    return _UNPRINTABLE.sub("\ufffd", words if len(words) <= most else words[:most] + " …")


def attribute(name: str, value: str) -> str:
    """`name="value"`, escaped."""
    return f'{name}="{html.escape(plain(value))}"'


def element(tag: str, *content: object, **attributes: str) -> Html:
    """`<tag attributes>content</tag>`; text is escaped. An attribute that Python reserves ends in `_`; empty: none."""
    named = "".join(f" {attribute(name.rstrip('_'), value)}" for name, value in attributes.items() if value)
    return Html(f"<{tag}{named}>{join(content)}</{tag}>")


def join(parts: Iterable[object]) -> Html:
    """Parts one after another, escaped where they aren't HTML."""
    return Html("".join(part if isinstance(part, Html) else html.escape(plain(part), quote=False) for part in parts))


def table(rows: Iterable[Sequence[Any]], header: Sequence[Any] = (), *, numbers: Iterable[int] = ()) -> Html:
    """A table; the columns `numbers` are set flush right. Without a header the first column names its row."""
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
    return element("div", element("table", *lines, element("tbody", *body)), class_="table")


def details(summary: str, *content: object) -> Html:
    """Content that unfolds."""
    return element("details", element("summary", summary), *content)


def markdown(text: str) -> Html:
    """Headings, paragraphs, lists and tables of a Markdown text; everything in it is escaped.

    Two blanks at a line's end break the line; `code` and **bold** are known within a line.
    """
    parts: list[Html] = []
    for block in re.split(r"\n\s*\n", plain(text, 1 << 20)):
        lines = [line.lstrip() for line in block.strip().splitlines()]
        while lines and (heading := re.match(r"(#{1,6})\s+(.*)", lines[0])):
            parts.append(element("h3", heading[2]))
            lines.pop(0)
        if len(lines) > 1 and lines[0].startswith("|") and re.fullmatch(r"[|:\s-]+", lines[1]):
            head, rule, *rows = (_cells(line) for line in lines)
            right = [place for place, cell in enumerate(rule) if cell.endswith(":")]
            parts.append(table([map(_inline, row) for row in rows], [*map(_inline, head)], numbers=right))  # type: ignore[misc]
        elif lines and all(line.startswith("- ") for line in lines):
            parts.append(element("ul", *(element("li", _inline(line[2:])) for line in lines)))
        elif lines:
            broken = [(_inline(line.rstrip()), Html("<br>") if line.endswith("  ") else " ") for line in lines]
            parts.append(element("p", *(piece for pair in broken for piece in pair)))
    return join(parts)


def _cells(line: str) -> list[str]:
    """The cells of a table's line, where a bar with a backslash before it is a bar."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", inner)]


def _inline(text: str) -> Html:
    """`code` and **bold** within a line."""
    pieces = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    return join(
        element("code", piece[1:-1]) if piece.startswith("`") and len(piece) > 1
        else element("b", piece[2:-2]) if piece.startswith("**") and len(piece) > 4
        else piece
        for piece in pieces
    )  # fmt: skip
