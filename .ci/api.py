"""Builds the pages of the API from the docstrings into build/api, and checks their links: `python .ci/api.py`.

Needs the extra `docs` (pdoc). What is public is what `__all__` names, and the modules in MODULES. Exit code 1, and a
line for each link that leads nowhere and each name of fastnoise in a docstring that names nothing.
"""

import re
import sys
import warnings
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

MODULES = (
    "fastnoise",
    "fastnoise.cleaning",
    "fastnoise.config",
    "fastnoise.data",
    "fastnoise.engine",
    "fastnoise.errors",
    "fastnoise.kernels",
    "fastnoise.losses",
    "fastnoise.losses.base",
    "fastnoise.losses.functional",
    "fastnoise.losses.reference",
    "fastnoise.losses.tables",
    "fastnoise.methods",
    "fastnoise.models",
    "fastnoise.noise",
    "fastnoise.ops",
    "fastnoise.ops.tables",
    "fastnoise.options",
    "fastnoise.recipes",
    "fastnoise.selection",
    "fastnoise.tasks",
)
"""The pages. Kernels have one each."""


class Links(HTMLParser):
    """The targets of a page's links, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a" and found.get("href"):
            self.targets.add(str(found["href"]))
        if found.get("id"):
            self.anchors.add(str(found["id"]))


def build(folder: Path) -> list[Path]:
    """Write the pages, and return them."""
    import pdoc

    modules = list(MODULES)
    kernels = import_module("fastnoise.kernels")
    for path in sorted(Path(next(iter(kernels.__path__))).glob("[a-z]*.py")):
        modules.append(f"fastnoise.kernels.{path.stem}")
    modules.append("fastnoise.kernels.rules")
    for name in modules:  # names that are only looked up when they are used; pdoc reads what is there already
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))
    pdoc.render.configure(docformat="google", show_source=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found .* does not resolve")
        warnings.filterwarnings("ignore", message="The module specification")  # a package's page brings its modules'
        pdoc.pdoc(*modules, output_directory=folder)
    pages = sorted(folder.rglob("*.html"))
    for page in pages:
        unlink_inherited(page, ".".join(page.relative_to(folder).with_suffix("").parts))
    return pages


def unlink_inherited(page: Path, module: str) -> None:
    """Take the link off `#Class.member` if a page leaves the member out, since it comes from PyTorch or Python."""
    text = page.read_text(encoding="utf-8")
    anchors = Links(text).anchors

    def plain(link: re.Match[str]) -> str:
        kind = getattr(sys.modules.get(module), link[1], None)
        homes = [base for base in getattr(kind, "__mro__", ()) if link[2] in vars(base)]
        foreign = homes and not homes[0].__module__.startswith("fastnoise")
        return link[3] if foreign and f"{link[1]}.{link[2]}" not in anchors else link[0]

    page.write_text(re.sub(r'<a href="#(\w+)\.(\w+)">(.*?)</a>', plain, text), encoding="utf-8")


def broken_links(folder: Path) -> list[str]:
    """`PAGE: LINK` of each link within the pages that leads to no page or no anchor of it."""
    pages = {path.resolve(): Links(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}
    found = []
    for path, links in pages.items():
        for link in links.targets:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target in pages or target.is_file()
            if not there or (parts.fragment and target in pages and parts.fragment not in pages[target].anchors):
                found.append(f"{path.relative_to(folder.resolve())}: {link}")
    return sorted(found)


def unknown_names(root: Path) -> list[str]:
    """`FILE: NAME` of each `fastnoise....` in backticks in the sources that names nothing."""
    found = []
    for path in sorted(root.glob("fastnoise/**/*.py")) + sorted(root.glob("kernels/**/*.py")):
        for name in set(re.findall(r"`(fastnoise(?:\.\w+)+)[`(]", path.read_text(encoding="utf-8"))):
            if name != "fastnoise.json" and not exists(name):  # a file's name
                found.append(f"{path.relative_to(root)}: {name}")
    return found


def exists(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    words = name.split(".")
    for count in range(len(words), 0, -1):
        try:
            found = import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        try:
            for word in words[count:]:
                found = getattr(found, word)
        except AttributeError:
            return False
        return True
    return False


def main() -> int:
    root = Path(__file__).resolve().parents[1]
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else root / "build" / "api"
    pages = build(folder)
    wrong = [*broken_links(folder), *unknown_names(root)]
    for line in wrong:
        print(f"leads nowhere: {line}", file=sys.stderr)
    print(f"{len(pages)} pages in {folder}, {len(wrong)} broken links")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
