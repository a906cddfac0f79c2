"""The README and the pages that `fastnoise help TOPIC` prints, as tests read them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def pages() -> dict[str, str]:
    """File name -> text, of the README and the pages of the manual."""
    files = (ROOT / "README.md", *sorted((ROOT / "fastnoise" / "docs").glob("*.md")))
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def manual() -> str:
    return "\n".join(pages().values())


def block(mark: str, language: str = "bash") -> str:
    """The block of code that follows `<!-- tests: MARK -->`."""
    (found,) = re.findall(rf"<!-- tests: {mark} -->\n```{language}\n(.*?)```", manual(), re.DOTALL)
    return found


def blocks(language: str, *, marked: bool = True) -> list[str]:
    """All blocks of code, or those only that follow no mark, which a test of their own runs."""
    before = "" if marked else r"(?<!-->\n)"
    return re.findall(rf"{before}```{language}\n(.*?)```", manual(), re.DOTALL)
