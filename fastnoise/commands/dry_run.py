"""fastnoise train --dry-run: the configuration of a run, with where each value comes from, as a TOML file."""

import tomli_w

from ..config import DataConfig
from ..helptext import GROUPS, group_of
from ..words import TrainWords


def listing(words: TrainWords) -> str:
    """All options of the run, in the groups of --help, each with its source in a comment.

    The text is a TOML file that --config takes. Options without a value, and those that an augmentation replaces, are
    comments in it.
    """
    config = words.config
    values, groups = config.flat(), config.groups()
    if words.sources["data_root"] == "default":  # a folder that is named must exist
        values["data_root"] = DataConfig.data_root
    rows: dict[str, list[tuple[str, str]]] = {title: [] for title in GROUPS}
    for name, value in values.items():
        line = f"# {name}: not set" if value is None else tomli_w.dumps({name: value}).rstrip()
        if config.data.augment is not None and name in ("crop_padding", "flip"):
            line = f"# {line}"
        rows.setdefault(group_of(name, groups[name]), []).append((line, words.sources[name]))
    width = min(max(len(line) for members in rows.values() for line, _ in members), 48)
    lines = []
    for title, members in rows.items():
        if members:
            lines += [f"# {title}", *(f"{line:<{width}}  # {source}" for line, source in members), ""]
    return "\n".join(lines[:-1])
