"""The page of suspected labels: pictures with given and suggested class, to look through and to decide on."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .html import Html, element, join, plain, table
from .page import document

SIDE = 96
"""Pixels of the longer side of a picture. Smaller images keep their pixels, which the page shows enlarged."""

MOST = 2000
"""Pictures on a page, the most suspected ones."""

_STYLE = """
.bar{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:.5rem 1.25rem;align-items:center;padding:.6rem 0;
background:var(--back);border-bottom:1px solid var(--line);font-size:.9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.9rem;margin-top:1rem}
.card{padding:.6rem;border:2px solid var(--line);border-radius:8px;background:var(--card);font-size:.85rem}
.card img{display:block;width:6rem;height:6rem;object-fit:contain;margin:0 auto .4rem;image-rendering:pixelated}
.card:focus{outline:3px solid var(--link)} .card b{font-weight:600}
.card.accepted{border-color:#2a9d5c} .card.rejected{border-color:#c0504d}
.card button{font:inherit;padding:.1rem .5rem;margin:.3rem .3rem 0 0} .card .name{color:var(--soft);font-size:.75rem}
.state{font-weight:600}
"""

_SCRIPT = """
"use strict";
const cards=[...document.querySelectorAll(".card")],grid=document.querySelector(".cards");
const at=id=>document.getElementById(id),token=grid.dataset.token,said=at("said");
function mark(card,choice){card.dataset.decided=choice||"";
card.classList.toggle("accepted",choice==="suggested");card.classList.toggle("rejected",choice==="given");
card.querySelector(".state").textContent={given:"label kept",suggested:"label changed"}[choice]||"";count();}
function count(){const done=cards.filter(card=>card.dataset.decided);
const shown=cards.filter(card=>!card.hidden);
at("count").textContent=`${shown.length} of ${cards.length} shown, ${done.length} decided`;}
async function decide(card,choice){
if(!token){said.textContent="To keep decisions, open this page with: fastnoise review";return;}
try{const answer=await fetch("decide",{method:"POST",headers:{"Content-Type":"application/json","X-Token":token},
body:JSON.stringify({suspect:Number(card.dataset.number),choice:choice})});
if(!answer.ok)throw new Error(await answer.text());
mark(card,choice);said.textContent="";move(card,1);}
catch(error){said.textContent="Not kept: "+error.message;}}
function move(card,step){const shown=cards.filter(each=>!each.hidden).sort((a,b)=>a.style.order-b.style.order);
const next=shown[shown.indexOf(card)+step];if(next){next.focus();}}
function act(card,key){if(key==="a")decide(card,"suggested");
else if(key==="r")decide(card,"given");
else if(key==="u")decide(card,null);
else if(key==="j"||key==="ArrowRight")move(card,1);
else if(key==="k"||key==="ArrowLeft")move(card,-1);
else return false;return true;}
document.addEventListener("keydown",event=>{if(event.ctrlKey||event.metaKey||event.altKey)return;
if(/^(SELECT|INPUT)$/.test(event.target.tagName))return;
const card=event.target.closest(".card")||cards.find(each=>!each.hidden);
if(card&&act(card,event.key))event.preventDefault();});
grid.addEventListener("click",event=>{const button=event.target.closest("button");
if(button)act(button.closest(".card"),button.dataset.key);});
function arrange(){const given=at("given").value,suggested=at("suggested").value,least=at("least").value/100;
const open=at("open").checked,by=at("by").value;
for(const card of cards){const data=card.dataset;
card.hidden=(given&&data.given!==given)||(suggested&&data.suggested!==suggested)||data.probability<least||
(open&&!!data.decided);}
const sorted=[...cards].sort((a,b)=>by==="probability"?b.dataset.probability-a.dataset.probability:
a.dataset[by].localeCompare(b.dataset[by])||b.dataset.probability-a.dataset.probability);
sorted.forEach((card,place)=>{card.style.order=place;});
at("leastshown").textContent=at("least").value+" %";count();}
for(const id of["given","suggested","least","open","by"])at(id).addEventListener("input",arrange);
for(const card of cards)if(card.dataset.decided)mark(card,card.dataset.decided);
arrange();
"""


@dataclass(frozen=True, eq=False)
class Suspect:
    """A suspected label."""

    file: str
    """The name of the image."""
    given: str
    """The given class."""
    suggested: str
    """The class that the image should have."""
    probability: float
    """That the given class is wrong."""
    pixels: NDArray[np.uint8]
    """[H, W, 1 or 3], the image."""


def gallery_page(
    title: str,
    subtitle: str,
    suspects: Sequence[Suspect],
    classes: Sequence[Mapping[str, Any]],
    lines: Sequence[str] = (),
    decided: Mapping[str, str] | None = None,
    token: str = "",
) -> str:
    """The page: a table of the classes, then the suspects with their pictures, to filter, sort and decide on.

    Keys: a accepts the suggested class, r keeps the given one, u takes a decision back, arrows or j and k move on.

    Args:
        suspects: in the order in which they are shown first.
        classes: for each class its name, how many images are `given` it, how many of these are `suspected`, and the
            share of its images that is `lost` to other labels (None if it is unknown).
        lines: what was found, and warnings.
        decided: name of an image -> its class, as was decided.
        token: with it decisions are sent to the server that the page came from; without, the page keeps none.
    """
    decided = decided or {}
    rows = [
        (entry["name"], entry["given"], entry["suspected"], "-" if entry["lost"] is None else f"{entry['lost']:.1%}")
        for entry in classes
    ]
    cards = [_card(number, suspect, decided.get(suspect.file)) for number, suspect in enumerate(suspects)]
    body = [
        *(element("p", line) for line in lines),
        element("h2", "Classes", id="classes"),
        table(
            rows, ("class", "images labelled so", "suspected", "of its images labelled otherwise"), numbers=(1, 2, 3)
        ),
        element("h2", "Suspects", id="suspects"),
        element("p", "Keys: a accept the suggested class, r keep the given one, u undo, arrows or j and k move on."),
        _bar(suspects),
        element("div", *cards, class_="cards", data_token=token),
    ]
    sections = ("Classes", "Suspects")
    return document(title, subtitle, sections, *body, style=_STYLE, script=_SCRIPT, talks=bool(token))


def _choice(name: str, words: str, values: Sequence[tuple[str, str]]) -> Html:
    options = join(
        element("option", shown, value=value) if value else Html('<option value="">{}</option>').format(shown)
        for value, shown in values
    )
    return element("label", f"{words} ", element("select", options, id=name))


def _bar(suspects: Sequence[Suspect]) -> Html:
    given, suggested = ({getattr(suspect, name) for suspect in suspects} for name in ("given", "suggested"))
    boxes = [
        _choice(name, words, [("", "all"), *((plain(each), each) for each in sorted(found))])
        for name, words, found in (("given", "given", given), ("suggested", "suggested", suggested))
    ]
    least = Html('<input id="least" type="range" min="0" max="100" value="0">')
    unseen = Html('<input id="open" type="checkbox">')
    return element(
        "div",
        *boxes,
        element("label", "probability from ", least, " ", element("span", "0 %", id="leastshown")),
        _choice(
            "by",
            "sort by",
            [("probability", "probability"), ("given", "given class"), ("suggested", "suggested class")],
        ),
        element("label", unseen, " undecided only"),
        element("span", "", id="count"),
        element("span", "", id="said", class_="state", role="status"),
        class_="bar",
    )


def _card(number: int, suspect: Suspect, decided: str | None) -> Html:
    choice = "" if decided is None else "given" if decided == suspect.given else "suggested"
    source = Html('<img alt="" loading="lazy" src="data:image/png;base64,{}">').format(thumbnail(suspect.pixels))
    buttons = [element("button", word, type="button", data_key=key) for word, key in (("accept", "a"), ("reject", "r"))]
    return element(
        "div",
        source,
        element("div", element("b", suspect.given), " → ", element("b", suspect.suggested)),
        element("div", f"{suspect.probability:.1%} wrong ", element("span", "", class_="state")),
        element("div", suspect.file, class_="name"),
        *buttons,
        class_="card",
        tabindex="0",
        data_number=str(number),
        data_given=suspect.given,
        data_suggested=suspect.suggested,
        data_probability=f"{suspect.probability:.6f}",
        data_decided=choice,
    )


def thumbnail(pixels: NDArray[np.uint8]) -> str:
    """A PNG of at most SIDE pixels a side, in base64."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()
