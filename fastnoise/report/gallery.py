"""Suspected labels as pictures: with given and suggested class, to filter, to sort and to decide on."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..checks import cpu_cores
from ..data.images import read_thumbnail
from ..data.table import ImageTable
from ..errors import DataError
from .document import document
from .html import Html, element, join, plain, table

SIDE = 160
"""Pixels of the longer side of a picture at most."""

TINY = 64
"""Pixels a side up to which a picture is enlarged without smoothing."""

MOST = 2000
"""Pictures on a page, the most suspected ones."""

STYLE = """
.bar{position:sticky;top:0;z-index:1;display:flex;flex-wrap:wrap;gap:.4rem 1.1rem;align-items:center;padding:.6rem 0;
background:var(--back);border-bottom:1px solid var(--line);font-size:.9rem}
.bar label{display:flex;gap:.4rem;align-items:center} .bar select{font:inherit;max-width:12rem}
.bar input[type=range]{width:7rem} .bar #leastshown{min-width:2.8rem} .bar #said:empty{display:none}
#said{color:#c0392b;font-weight:600} .keys kbd{font:.85em ui-monospace,monospace;padding:.05rem .4rem;
border:1px solid var(--line);border-bottom-width:2px;border-radius:4px;background:var(--card)}
.keys{line-height:2}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(12.75rem,1fr));gap:.9rem;margin-top:1rem}
.card{padding:.7rem;border:2px solid var(--line);border-radius:8px;background:var(--card);font-size:.85rem;
scroll-margin:7rem 0 1rem;content-visibility:auto;contain-intrinsic-size:auto 19rem}
.card .picture{display:flex;align-items:center;justify-content:center;height:10rem;margin-bottom:.5rem;
color:var(--soft)}
.card img{width:100%;height:100%;object-fit:contain} .card img.tiny{image-rendering:pixelated}
.card:focus{outline:3px solid var(--link);outline-offset:1px}
.card dl{display:grid;grid-template-columns:auto 1fr;gap:0 .6rem;margin:0} .card dt{color:var(--soft)}
.card dd{margin:0;font-weight:600} .card .name{color:var(--soft);font-size:.75rem;margin-top:.25rem;line-height:1.3}
.card .state{font-weight:600;margin-top:.25rem} .card .state:empty{display:none}
.card.accepted{border-color:#2a9d5c} .card.accepted .state{color:#2a9d5c}
.card.rejected{border-color:#d98a00} .card.rejected .state{color:#d98a00}
.card.failed{border-color:#c0392b}
.card.target{outline:3px dashed var(--link);outline-offset:1px}
.card .buttons{display:flex;gap:.35rem;margin-top:.4rem}
.card button{font:inherit;padding:.15rem .5rem;border:1px solid var(--line);border-radius:5px;
background:var(--back);color:inherit;cursor:pointer} .card button:hover{border-color:var(--link)}
.card:not(.accepted):not(.rejected) button[data-key=u]{display:none}
"""

SCRIPT = """
"use strict";
const at=id=>document.getElementById(id),grid=document.querySelector(".cards"),token=grid.dataset.token;
const cards=[...grid.querySelectorAll(".card")],said=at("said"),taken=[];
let sending=Promise.resolve(),byMouse=false,last=null;
const now=()=>last&&!last.hidden?last:[...grid.children].find(each=>!each.hidden);
function mark(card,label){const {given}=card.dataset;card.dataset.decided=label||"";
card.classList.remove("failed");card.classList.toggle("accepted",!!label&&label!==given);
card.classList.toggle("rejected",!!label&&label===given);
card.querySelector(".state").textContent=!label?"":label===given?"kept as "+label:"changed to "+label;count();}
function count(){const shown=cards.filter(card=>!card.hidden).length;
const done=cards.filter(card=>card.dataset.decided).length;
at("count").textContent=`${shown} of ${cards.length} shown`+(token?`, ${done} decided`:"");
at("none").hidden=shown>0;}
function decide(card,label){
if(label===(card.dataset.decided||null))return;
sending=sending.then(async()=>{try{
const answer=await fetch("decide",{method:"POST",headers:{"Content-Type":"application/json","X-Token":token},
body:JSON.stringify({suspect:Number(card.dataset.number),label:label})});
if(!answer.ok)throw new Error(await answer.text());
mark(card,label);said.textContent="";}
catch(error){card.classList.add("failed");said.textContent="Not kept: "+(error instanceof TypeError?
"the review has ended. Start it again, and open the page that it names.":error.message);}});}
function step(card,by){let next=card;
do next=by>0?next.nextElementSibling:next.previousElementSibling;while(next&&next.hidden);
if(next)next.focus();}
function take(card,label){taken.push(card);decide(card,label);step(card,1);}
function undo(card){sending.then(()=>{while(!card.dataset.decided&&taken.length)card=taken.pop();
decide(card,null);card.focus();});}
function act(card,key){const {given,suggested}=card.dataset;
if(key==="j"||key==="ArrowRight")step(card,1);
else if(key==="k"||key==="ArrowLeft")step(card,-1);
else if(!token)return false;
else if(key==="a")take(card,suggested);
else if(key==="r")take(card,given);
else if(key==="u")undo(card);
else if(key==="c")at("other").focus();
else return false;return true;}
document.addEventListener("keydown",event=>{if(event.ctrlKey||event.metaKey||event.altKey||event.repeat&&"aru".includes(
event.key))return;
if(/^(SELECT|INPUT)$/.test(event.target.tagName)){
byMouse=false;if(event.key==="Escape")now()?.focus();return;}
const card=event.target.closest(".card"),chosen=now();
if(card?act(card,event.key):/^(a|r|c|u|j|k|ArrowRight)$/.test(event.key)&&chosen)event.preventDefault();else return;
if(!card)chosen.focus();});
grid.addEventListener("click",event=>{const card=event.target.closest(".card");if(!card)return;
const button=event.target.closest("button");if(button)act(card,button.dataset.key);else card.focus();});
grid.addEventListener("focusin",event=>{last=event.target.closest(".card")||last;});
document.querySelector(".bar").addEventListener("pointerdown",()=>{byMouse=true;});
function arrange(){const given=at("given").value,suggested=at("suggested").value,least=at("least").value/100;
const open=token&&at("open").checked,by=at("by").value,order=new Intl.Collator(undefined,{numeric:true}).compare;
for(const card of cards){const data=card.dataset;
card.hidden=!!(given&&data.given!==given||suggested&&data.suggested!==suggested||data.probability<least||
open&&data.decided);}
const sorted=[...cards].sort((a,b)=>by==="probability"?a.dataset.number-b.dataset.number:
order(a.dataset[by],b.dataset[by])||a.dataset.number-b.dataset.number);
grid.append(...sorted);at("leastshown").textContent=at("least").value+" %";count();}
for(const id of["given","suggested","by","open"])if(at(id))at(id).addEventListener("change",event=>{
arrange();if(byMouse)event.target.blur();});
at("least").addEventListener("input",arrange);
if(token){const other=at("other");let card=null;
other.addEventListener("focus",()=>{card=now();card?.classList.add("target");});
other.addEventListener("blur",()=>card?.classList.remove("target"));
other.addEventListener("change",()=>{const label=other.value;other.value="";other.blur();
if(label&&card)take(card,label);});}
for(const card of cards)if(card.dataset.decided)mark(card,card.dataset.decided);
count();
"""


@dataclass(frozen=True)
class Picture:
    """An image as pages show it."""

    url: str
    """A data URL; empty if the image cannot be read."""
    tiny: bool = False
    """Whether it has at most `TINY` pixels a side."""

    @classmethod
    def of(cls, image: Image.Image) -> "Picture":
        """An RGB or grey image, with at most `SIDE` pixels a side: a tiny one as PNG, others as JPEG."""
        image = image.copy()
        image.thumbnail((SIDE, SIDE))
        tiny = max(image.size) <= TINY
        stream = io.BytesIO()
        if tiny:
            image.save(stream, "PNG")
        else:
            image.save(stream, "JPEG", quality=85)
        content = base64.b64encode(stream.getvalue()).decode()
        return cls(f"data:image/{'png' if tiny else 'jpeg'};base64,{content}", tiny)


@dataclass(frozen=True)
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
    picture: Picture


def pictures_of(table: ImageTable, places: Iterable[int]) -> list[Picture]:
    """Pictures of some images of a table, several at once; empty ones of files that cannot be read."""

    def one(place: int) -> Picture:
        if table.is_features:
            return Picture("")
        if table.images is not None:
            return Picture.of(Image.fromarray(_shown(table.images[place])))
        return picture_of_file(table.files[place], table.exif)

    return in_parallel(one, places)


def picture_of_file(path: str, exif: bool = True) -> Picture:
    """The picture of an image file; an empty one if it cannot be read."""
    try:
        return Picture.of(read_thumbnail(path, SIDE, exif))
    except DataError:
        return Picture("")


def in_parallel(make: Callable[[Any], Picture], of: Iterable[Any]) -> list[Picture]:
    """`make` of each, on all cores."""
    with ThreadPoolExecutor(cpu_cores()) as pool:
        return list(pool.map(make, of))


def _shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W] or [H, W, 3]: the first channels of an image [H, W, C] that can be shown."""
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]


def gallery_page(
    title: str,
    subtitle: str,
    suspects: Sequence[Suspect],
    classes: Sequence[Mapping[str, Any]],
    lines: Sequence[str] = (),
    warnings: Sequence[str] = (),
    decided: Mapping[str, str] | None = None,
    token: str = "",
) -> str:
    """The page: what was found, a table of the classes, then the suspects (`gallery`).

    Args:
        suspects: in the order in which they are shown first.
        classes: for each class its name, how many images are `given` it, how many of these are `suspected`, and the
            share of its images that is `lost` to other labels (None if it is unknown).
        lines: what was found.
        warnings: of what was found.
        decided: name of an image -> its class, as was decided.
        token: with it decisions are sent to the server that the page came from; without, the page keeps none.
    """
    rows = [
        (entry["name"], entry["given"], entry["suspected"], "-" if entry["lost"] is None else f"{entry['lost']:.1%}")
        for entry in classes
    ]
    body = [
        *(element("p", line) for line in lines),
        *(element("div", element("p", warning), class_="note") for warning in warnings),
        element("h2", "Classes", id="classes"),
        table(
            rows,
            ("class", "images labelled so", "suspected", "its images under other labels (estimate)"),
            numbers=(1, 2, 3),
        ),
        element("h2", "Suspects", id="suspects"),
        gallery(suspects, [str(entry["name"]) for entry in classes], decided, token),
    ]
    sections = ("Classes", "Suspects")
    return document(title, subtitle, sections, *body, style=STYLE, script=SCRIPT, talks=bool(token))


def gallery(
    suspects: Sequence[Suspect],
    classes: Sequence[str] = (),
    decided: Mapping[str, str] | None = None,
    token: str = "",
) -> Html:
    """The pictures with what filters and sorts them, for a page with STYLE and SCRIPT.

    Keys: arrows or j and k move on. With a token, a accepts the suggested class, r keeps the given one, c gives another
    of `classes`, u takes the last decision back.
    """
    decided = decided or {}
    cards = [_card(number, suspect, decided.get(suspect.file, ""), token) for number, suspect in enumerate(suspects)]
    return join(
        [
            _keys(bool(token)),
            _bar(suspects, classes, token),
            element("p", "No suspect is of these classes and of this probability.", id="none", class_="missing"),
            element("div", *cards, class_="cards", data_token=token),
        ]
    )


def _keys(decides: bool) -> Html:
    keys = [("←", "→", "move"), ("Esc", "from a filter back to the pictures")]
    if decides:
        keys = [
            ("a", "accept the suggested class"),
            ("r", "reject it: keep the given class"),
            ("c", "choose another class"),
            ("u", "undo"),
            *keys,
        ]
    parts = [
        join([join(join([element("kbd", key), " "]) for key in shown), words, " \u2003"]) for *shown, words in keys
    ]
    return element("p", *parts, class_="keys")


def _choice(name: str, words: str, values: Sequence[tuple[str, str]]) -> Html:
    options = join(
        element("option", shown, value=value) if value else Html('<option value="">{}</option>').format(shown)
        for value, shown in values
    )
    return element("label", f"{words} ", element("select", options, id=name))


def _bar(suspects: Sequence[Suspect], classes: Sequence[str], token: str) -> Html:
    boxes = []
    for name in ("given", "suggested"):
        found = Counter(plain(getattr(suspect, name)) for suspect in suspects)
        shown = [(each, f"{each} ({count})") for each, count in sorted(found.items())]
        boxes.append(_choice(name, f"{name} class", [("", "all"), *shown]))
    least = Html('<input id="least" type="range" min="0" max="100" value="0">')
    boxes.append(element("label", "probability from ", least, " ", element("span", "0 %", id="leastshown")))
    orders = [("probability", "probability"), ("given", "given class"), ("suggested", "suggested class")]
    boxes.append(_choice("by", "sort by", [*orders, ("file", "file name")]))
    if token:
        boxes.append(element("label", Html('<input id="open" type="checkbox">'), " undecided only"))
        names = [(plain(name), plain(name)) for name in classes]
        boxes.append(_choice("other", "other class", [("", "choose"), *names]))
    return element(
        "div",
        *boxes,
        element("span", "", id="count"),
        element("span", "", id="said", role="status"),
        class_="bar",
    )


def _card(number: int, suspect: Suspect, decided: str, token: str) -> Html:
    picture: object = "cannot be read"
    if suspect.picture.url:
        kind = Html(' class="tiny"') if suspect.picture.tiny else ""
        picture = Html('<img alt=""{} src="{}">').format(kind, Html(suspect.picture.url))
    keys = [("accept", "a"), ("reject", "r"), ("undo", "u")] if token else []
    buttons = [element("button", word, type="button", data_key=key) for word, key in keys]
    return element(
        "div",
        element("div", picture, class_="picture"),
        element(
            "dl",
            *(element("dt", "given"), element("dd", suspect.given)),
            *(element("dt", "suggested"), element("dd", suspect.suggested)),
            *(element("dt", "wrong"), element("dd", f"{100 * suspect.probability:.1f} %")),
        ),
        element("div", suspect.file, class_="name"),
        element("div", "", class_="state"),
        *([element("div", *buttons, class_="buttons")] if token else []),
        class_="card",
        tabindex="0",
        data_number=str(number),
        data_given=suspect.given,
        data_suggested=suspect.suggested,
        data_probability=f"{suspect.probability:.6f}",
        data_file=suspect.file,
        data_decided=decided,
    )
