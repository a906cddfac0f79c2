"""The frame of every page: one HTML document that needs no other file."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from .. import __version__
from .html import Html, attribute, element, join

_CSS = """
:root{color-scheme:light dark;--font:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,
"Noto Sans CJK SC","PingFang SC","Hiragino Sans","Microsoft YaHei","Yu Gothic","Malgun Gothic",sans-serif;
--back:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d5dae0;--card:#f6f8fa;--note:#fff4d6;--link:#2467a8}
@media(prefers-color-scheme:dark){:root{--back:#14171b;--ink:#e3e7eb;--soft:#9aa4af;--line:#333a42;--card:#1b2026;
--note:#3a3116;--link:#79b3ea}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:75rem;padding:1.5rem 1.25rem 4rem;background:var(--back);color:var(--ink);
font:15px/1.5 var(--font);overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}
h2{font-size:1.15rem;margin:2.25rem 0 .75rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin:1.5rem 0 .5rem}
.sub,figcaption,.missing{color:var(--soft)} .sub{margin:0} figcaption b{color:var(--ink)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.75rem 0 0;font-size:.9rem} a{color:var(--link)}
.columns,.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,32rem),1fr));gap:1.25rem 2rem}
.figures{grid-auto-flow:row dense;align-items:start}
.columns h2{margin-top:1.5rem}
figure{margin:0;min-width:0} figure.wide{grid-column:1/-1} figcaption{font-size:.85rem;margin-bottom:.4rem}
.plot{overflow-x:auto} .plot svg{display:block;width:100%;height:auto}
.wide .plot svg{min-width:44rem}
.plot svg *{stroke-linejoin:round;stroke-linecap:butt}
.plot img{display:block;max-width:100%;height:auto;background:#fff;border-radius:6px;padding:.5rem}
.table{overflow-x:auto;margin:0 0 1rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.22rem .9rem .22rem 0;border-bottom:1px solid var(--line);
overflow-wrap:normal}
td{overflow-wrap:anywhere;min-width:3.5rem} th{font-weight:600} td code{white-space:nowrap}
.whole td,.whole th{white-space:nowrap;overflow-wrap:normal}
tbody th{font-weight:400;color:var(--soft)}
.n{text-align:right;white-space:nowrap}
.note{background:var(--note);border-radius:6px;padding:.1rem .9rem;margin:1rem 0}
code,pre{font:.86em/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--card);border-radius:4px}
code{padding:.1em .3em} pre{padding:.75rem;overflow-x:auto;max-height:24rem}
details{border-top:1px solid var(--line);padding:.5rem 0} summary{cursor:pointer;font-weight:600}
details>*:not(summary){margin-top:.5rem}
.missing{font-size:.875rem} ul.missing{padding-left:1.2rem} footer{margin-top:3rem;color:var(--soft);font-size:.8rem}
@media print{body{max-width:none} figure{break-inside:avoid}}
"""


def anchor(title: str) -> str:
    """The id of a heading, which links lead to."""
    return title.lower().replace(" ", "-")


def document(
    title: str,
    subtitle: str,
    sections: Sequence[str],
    *body: Html,
    style: str = "",
    script: str = "",
    talks: bool = False,
) -> str:
    """The whole document. Its policy forbids every request and every script but its own, whatever the folder holds.

    Args:
        sections: the headings that it begins with links to.
        style: CSS beside that of all pages.
        script: the page's own script. No other runs, not even one that slips into the page.
        talks: whether the script may speak to the server that the page came from.
    """
    links = [element("a", name, href="#" + anchor(name)) for name in sections]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    if talks:
        policy += "; connect-src 'self'"
    made = f"Made by fastnoise {__version__} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    page = join(
        [
            Html('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'),
            Html('<meta http-equiv="Content-Security-Policy" {}>').format(attribute("content", policy)),
            Html('<meta name="viewport" content="width=device-width,initial-scale=1">'),
            element("title", title),
            element("style", Html(_CSS + style)),
            Html("</head><body>"),
            element("header", element("h1", title), element("p", subtitle, class_="sub"), element("nav", *links)),
            element("main", *body),
            element("footer", made),
            element("script", Html(script)) if script else "",
            Html("</body></html>\n"),
        ]
    )
    return str(page)
