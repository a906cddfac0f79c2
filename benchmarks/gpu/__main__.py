"""Everything that a GPU is needed for, in commands of a few minutes whose figures survive any end.

    python -m benchmarks.gpu --programme first --list                     what it measures, in which order
    python -m benchmarks.gpu --programme first --half 1 --out DIR        at most 8 minutes
    python -m benchmarks.gpu --programme first --half 2 --out DIR        at most 4.5 minutes; needs nothing of half 1
    python -m benchmarks.gpu --summary DIR...                            merges folders into benchmarks/results/gpu

Every side is written to DIR/records.jsonl and printed as soon as it is measured: killed at any second, a programme
loses only the side in flight. Programmes: first (does the stack run, losses, ResNet-34, tests, ratios), second (DALI,
network and batch sizes, loaders, stacks), third (batch norm, whole runs), fourth (many classes). A step that passes its
limit is stopped, one that no longer fits is skipped, and both are said. Nothing is downloaded; CIFAR-10 is taken from
--data where it lies there, else images are generated. Without a GPU every step runs in miniature on the CPU or says why
not.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fastnoise.errors import ConfigError, FastnoiseError, nearest
from fastnoise.files import write_text

from .. import record
from . import page, records
from .programmes import HALVES, PROGRAMMES, STACK, Step, listing, steps_of
from .supervisor import Supervisor

RESULTS = record.RESULTS / "gpu"


def summarise(folders: Sequence[Path], out: Path) -> records.Found:
    """Merge folders, and what `out` has been given before, into `out`."""
    found = records.Found()
    if (out / records.MERGED).exists():
        records.read(out, found)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--summary {folder}: no such folder")
        records.read(folder, found)
    records.write(out, found)
    write_text(out / "summary.md", page.page(found))
    return found


def chosen(programme: str, half: int, names: Sequence[str] | None) -> tuple[Step, ...]:
    """The steps to make: all of the half, or those named, behind the first."""
    steps = steps_of(programme, half)
    if names is None:
        return steps
    known = [step.name for step in steps]
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown step {name!r} of {programme}, half {half}; {nearest(name, known)}")
    return tuple(step for step in steps if step is STACK or step.name in names)


def run(given: argparse.Namespace) -> int:
    began = time.monotonic()
    steps = chosen(given.programme, given.half, given.steps)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {given.out}: {error.strerror}") from None
    worker = [sys.executable, "-u", "-m", f"{__package__}.worker", "--out", str(given.out.absolute()),
              "--programme", given.programme, "--half", str(given.half), "--data", str(given.data.absolute()),
              "--commit", given.commit]  # fmt: skip
    supervisor = Supervisor(
        given.programme, given.half, steps, HALVES[given.half - 1], given.out.absolute(), worker, began
    )
    supervisor.run()
    found = records.Found()
    records.read(given.out, found)
    write_text(given.out / "summary.md", page.page(found))
    supervisor.output.say(f"{time.monotonic() - began:.0f} s; {given.out / 'summary.md'}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--programme", choices=PROGRAMMES, help="what to measure")
    parser.add_argument("--list", action="store_true", help="print the steps of --programme, or of all, with limits")
    parser.add_argument("--summary", nargs="*", type=Path, metavar="FOLDER", help="merge the folders of programmes")
    parser.add_argument("--half", type=int, choices=(1, 2), default=1, help="of the programme; default: %(default)s")
    parser.add_argument("--out", type=Path, help=f"folder of the results; with --summary {RESULTS} by default")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="only these steps of the half")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of CIFAR-10 and MNIST; default: data")
    parser.add_argument("--commit", default="", help="what the figures are of, in a checkout without git")
    given = parser.parse_args(words)
    try:
        if given.list:
            for name in (given.programme,) if given.programme else PROGRAMMES:
                print("\n".join(listing(name)))
            return 0
        if given.summary is not None:
            out = RESULTS if given.out is None else given.out
            found = summarise(given.summary, out)
            print(out / "summary.md")
            print("fastnoise/docs/benchmarks.md:", *page.manual_rows(found), sep="\n")
            return 0
        if given.programme is None or given.out is None:
            raise ConfigError("give --programme and --out, the folder of the results; or --list; or --summary")
        return run(given)
    except FastnoiseError as error:
        print(f"benchmarks.gpu: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
