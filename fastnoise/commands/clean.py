"""fastnoise clean: which labels of a data set are wrong, and what they should be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import helptext
from ..cleaning.defaults import FOLDS, METHOD, SETTINGS
from ..data.names import family, split_parts
from ..errors import ConfigError
from ..words import own_and_other_words, train_words
from .jobs import until_stopped


@dataclass(frozen=True)
class CleanCommand:
    """Find the wrong labels of a data set, and what they should be.

    Networks are trained on the labels as they are, each without a fold of them, and judge every image after every
    epoch. Out come labels.csv (for each image the probability that its label is wrong, and a suggested class),
    suspects.csv, and the corrected data set. The first word is the data set. All options of `fastnoise train` can
    follow and say what the networks are; by default they learn by elr for 15 epochs, from labels to which no noise is
    added. If the command is stopped or killed, the same command continues. Examples:
      fastnoise clean folder:photos
      fastnoise clean folder:photos --epochs 30 --folds 3
      fastnoise clean digits --noise pair:0.2 --out cleaned/digits
    """

    folds: int = FOLDS
    """Number of networks. Each learns from all labels but those of its fold. 1: one network learns from all."""
    out: str | None = None
    """Folder for the results. None: cleaned/NAME for the data set NAME."""
    jobs: int = 0
    """Number of networks that are trained at once. 0: one per GPU, or one per core if there is no GPU."""
    threads: int = 1
    """CPU threads that compute, of each network."""


_DATASET = helptext.Option(
    "dataset", (), "DATASET", "Data set, of `fastnoise datasets`, as folder:photos.", required=True
)
WITHOUT = frozenset(("dataset", "resume", "run_dir", "deviations", "gpus", "max_restarts", "keep"))
"""The options of `fastnoise train` that mean nothing here."""


def run(arguments: Sequence[str]) -> int:
    """Clean as the words say; returns 0, or 130 or 143 when stopped by a signal. FastnoiseError in one line.

    Args:
        arguments: the words after `fastnoise clean`.
    """
    prog = "fastnoise clean"
    help_word = helptext.wanted(arguments)
    if help_word is not None and arguments[0].startswith("-"):
        arguments = ["digits", *arguments]
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError("give the data set first, as in fastnoise clean folder:photos")
    plain = [word for word in arguments if word not in (*helptext.HELP, helptext.HELP_ALL)]
    command, others = own_and_other_words(CleanCommand, plain, prog)
    name, words = others[0], others[1:]
    for flag in ("--dataset", "--resume", "--run-dir"):
        if any(word.partition("=")[0].replace("_", "-") == flag for word in words):
            raise ConfigError(f"fastnoise clean takes no {flag}; the first word is the data set, --out the folder")
    said = train_words(
        ["--dataset", name, *words, *([] if help_word is None else [help_word])],
        prog,
        METHOD,
        "none",
        SETTINGS,
        intro=CleanCommand.__doc__ or "",
        own_options=[_DATASET, *helptext.options(CleanCommand)],
        without=WITHOUT,
    )
    config = said.config
    if said.command.dry_run:
        from .dry_run import listing

        print(listing(said))
        return 0
    from ..cleaning.run import CleanOptions, clean

    path = split_parts(name)[0] if family(name) == "tar" else name
    last = Path(path.removeprefix("folder:").removeprefix("list:").removeprefix("tar:")).name or name
    # A name that begins with - would be taken for an option wherever someone writes it.
    base = "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in last).lstrip("-") or last
    out = Path("cleaned") / base if command.out is None else Path(command.out)
    options = CleanOptions(out.absolute(), command.folds, command.jobs, command.threads)

    def cleaned() -> int:
        clean(config, options)
        return 0

    return until_stopped(cleaned)
