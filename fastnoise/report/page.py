"""The pages of a run, a sweep and a study."""

import base64
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import own
from ..errors import DataError
from ..files import write_atomically
from ..noise.plot import check_plot
from . import runs, several, suspects, sweeps
from .charts import Chart, Missing
from .document import anchor, document
from .figures import published_table
from .gallery import SCRIPT as GALLERY_SCRIPT
from .gallery import STYLE as GALLERY_STYLE
from .html import Html, attribute, element, join, plain, table
from .script import SCRIPT, STYLE
from .stored import read_json, read_run, read_sweep

_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_PICTURE = 1 << 24  # bytes

Sections = Sequence[tuple[str, Sequence[Chart | Missing]]]


def write_report(folder: Path, out: Path | None = None, png: Path | None = None) -> Path:
    """Write the report of a run, a sweep or a study, made from its folder alone but for pictures of suspected labels.

    Args:
        folder: of `fastnoise train`, `fastnoise sweep` or `fastnoise study`, finished or not.
        out: the HTML file. The default is report.html in `folder`.
        png: a folder for each figure as PNG, with its numbers as CSV. It is made if it doesn't exist.

    Returns:
        The HTML file's path.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: `folder` is none of these, or a file cannot be written.
    """
    check_plot("a report")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of a run, a sweep or a study")
    out = _place(folder / "report.html" if out is None else out)
    pictures = Pictures(png)
    if (folder / "study.json").is_file():
        page = _study_page(folder, pictures)
    elif (folder / "jobs").is_dir():
        page = _sweep_page(folder, pictures)
    elif (folder / "config.toml").is_file():
        page = _run_page(folder, pictures)
    else:
        raise DataError(
            f"{folder} is not the folder of a run, a sweep or a study (it has no config.toml, jobs or study.json); "
            "give the --run-dir of fastnoise train, or the --out of fastnoise sweep or study"
        )
    write_atomically(out, lambda stream: stream.write(page.encode()), DataError)
    return out


def write_comparison(folders: Sequence[Path], out: Path | None = None, png: Path | None = None) -> Path:
    """Write one page of several runs: a table of their figures, what differs between them, and their curves.

    Args:
        folders: of `fastnoise train`, finished or not.
        out: the HTML file. The default is comparison.html beside the first folder.
        png: a folder for each figure, as in `write_report`.

    Returns:
        The HTML file's path.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: a folder is no run's or comes twice, there are too many, or a file cannot be written.
    """
    check_plot("a report")
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; give the folders of runs")
        if not (folder / "config.toml").is_file():
            raise DataError(
                f"{folder} is not the folder of a run (it has no config.toml); a page of several is of runs"
            )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise DataError("a folder is given twice; name each run once")
    if len(folders) > several.MOST:
        raise DataError(f"{len(folders)} runs are too many for one page; give at most {several.MOST}")
    out = _place(folders[0].absolute().parent / "comparison.html" if out is None else out)
    pictures = Pictures(png)
    found = [read_run(folder, arrays=False) for folder in folders]
    sections = several.sections(found)
    body = [several.head(found), pictures.draw(sections), element("h2", "Settings"), several.appendix(found)]
    title = f"{len(found)} runs"
    folder = folders[0].resolve().parent
    page = document(title, f"The first is in {folder}", ["Runs", *drawn(sections)], *body, style=STYLE, script=SCRIPT)
    write_atomically(out, lambda stream: stream.write(page.encode()), DataError)
    return out


def _place(out: Path) -> Path:
    """The file to write; DataError if it cannot be one."""
    if not out.absolute().parent.is_dir():
        raise DataError(f"--out {out}: no such folder; create it")
    if out.is_dir():
        raise DataError(f"--out {out}: that is a folder; name a file, such as {out / 'report.html'}")
    return out


class Pictures:
    """Draws the figures of a page, and writes each as PNG and CSV to a folder, if there is one."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"--png {folder}: cannot make the folder: {error.strerror}") from error

    def keep(self, name: str, png: bytes, numbers: bytes) -> None:
        """Write one figure."""
        if self.folder is not None:
            for suffix, content in ((".png", png), (".csv", numbers)):
                write_atomically(self.folder / f"{name}{suffix}", lambda stream, c=content: stream.write(c), DataError)  # type: ignore[misc]

    def draw(self, sections: Sections) -> Html:
        """The sections as HTML: charts in two columns, and below them why other charts cannot be drawn."""
        parts = []
        for title, found in sections:
            charts = [chart for chart in found if isinstance(chart, Chart)]
            missing = [element("li", reason) for reason in found if not isinstance(reason, Chart)]
            if self.folder is not None:
                for chart in charts:
                    self.keep(chart.name, chart.png(), chart.csv().encode())
            if charts or missing:
                parts.append(element("h2", title, id=anchor(title)))
            if charts:
                parts.append(element("div", *(chart.html() for chart in charts), class_="figures"))
            if missing:
                parts.append(element("ul", *missing, class_="missing"))
        return join(parts)


def drawn(sections: Sections) -> list[str]:
    """The headings of the sections that have anything."""
    return [title for title, found in sections if found]


# -- the three kinds of page ---------------------------------------------------------------------------------------


def _run_page(folder: Path, pictures: Pictures) -> str:
    run = read_run(folder)
    words = [own.short(str(run.config.get(key, "?"))) for key in ("method", "dataset", "noise")]
    title = f"{words[0]} on {words[1]}, {words[2]}"
    sections = runs.run_sections(run)
    gallery, heading = suspects.suspects_of(run), suspects.TITLE
    shown = [] if gallery is None else [element("h2", heading, id=anchor(heading)), gallery]
    known = published_table(run)
    body = [runs.head(run), known, pictures.draw(sections), *shown, element("h2", "Settings"), runs.appendix(run)]
    headings = [*(["Published values"] if known else []), *drawn(sections), *([heading] if shown else [])]
    pictured = gallery is not None and 'class="cards"' in gallery
    style, script = (STYLE + GALLERY_STYLE, SCRIPT + GALLERY_SCRIPT) if pictured else (STYLE, SCRIPT)
    return document(plain(title), f"Run folder {folder.resolve()}", headings, *body, style=style, script=script)


def _sweep_page(folder: Path, pictures: Pictures) -> str:
    sweep = read_sweep(folder)
    spec = folder.resolve() / "sweep.toml"
    command = f"fastnoise sweep {shlex.quote(str(spec))} --out {shlex.quote(str(folder.resolve()))}"
    again = element("code", command) if spec.is_file() else join(["the program that began the sweep."])
    sections = sweeps.sweep_sections(sweep)
    different = runs.deviations(job.config for job in sweep.jobs)
    body = [sweeps.head(sweep, again), sweeps.tables(sweep), different, pictures.draw(sections)]
    title = f"Sweep {folder.resolve().name}"
    return document(title, f"Folder {folder.resolve()}", drawn(sections), *body, style=STYLE, script=SCRIPT)


def _study_page(folder: Path, pictures: Pictures) -> str:
    """The page of a study: its finding, its figures with their tables, its settings and its trainings."""
    problems = []
    try:
        study = read_json(folder / "study.json")
        if not isinstance(study, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        study, problems = {}, [f"study.json cannot be used: {error}"]
    body: list[Html] = []
    if "finding" not in study:
        problems.append("This study is not done. Give the same command again to continue it.")
    if problems:
        body.append(element("div", *(element("p", problem) for problem in problems), class_="note", role="status"))
    if study.get("text"):
        body.append(element("p", study["text"]))
    body += [element("h2", "Figures", id="figures"), *_saved_figures(folder, pictures)]
    if (folder / "jobs").is_dir():
        sweep = read_sweep(folder)
        body += [
            element("h2", "Trainings"),
            sweeps.head(sweep, join(["the command that began the study."])),
            sweeps.tables(sweep),
        ]
    for name in ("finding", "settings"):
        if isinstance(study.get(name), dict):
            body += [
                element("h2", name.capitalize()),
                table([(key.replace("_", " "), _words(value)) for key, value in study[name].items()]),
            ]
    name = f"Study {study.get('study', folder.resolve().name)}"
    return document(plain(name), f"Folder {folder.resolve()}", ["Figures"], *body, style=STYLE, script=SCRIPT)


def _saved_figures(folder: Path, pictures: Pictures) -> list[Html]:
    """The PNG files of a folder that have a CSV file of the same name, and then the numbers of all its CSV files."""
    parts: list[Html] = []
    for path in sorted(folder.glob("*.png")):
        numbers = path.with_suffix(".csv")
        if not numbers.is_file():
            continue
        if path.stat().st_size > _LARGEST_PICTURE or not (picture := path.read_bytes()).startswith(_PNG):
            parts.append(element("p", f"{path.name} is not a PNG file that can be shown."))
            continue
        text = numbers.read_bytes()
        pictures.keep(path.stem, picture, text)
        source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        image = Html("<img {} {}>").format(attribute("alt", path.stem), Html('src="{}"').format(source))
        caption = element("figcaption", element("b", f"{path.name}."), f" Its numbers are in {numbers.name}.")
        parts.append(element("figure", caption, element("div", image, class_="plot"), class_="wide"))
    parts = parts or [element("p", "No figure has been drawn yet.", class_="missing")]
    for path in sorted(folder.glob("*.csv")):
        if path.name != "results.csv" and (rows := _csv_rows(path.read_bytes())):
            parts.append(sweeps.rows_table(f"Numbers in {path.name}", rows))
    return parts


def _csv_rows(content: bytes) -> list[list[str]]:
    import csv

    try:
        return list(csv.reader(content.decode("utf-8", "replace").splitlines()))
    except csv.Error:
        return []


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
