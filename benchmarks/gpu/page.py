"""The page of what GPUs have measured: every goal beside its figure, then all figures, steps and tests of each card."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..report import Figure, short
from .programmes import PROGRAMMES
from .records import Found

NOT_MEASURED = "not measured"
CPU = "none"
"""The card of figures that were taken without one."""


@dataclass(frozen=True)
class Goal:
    """What a figure is to be.

    `keys` name the figures of equal standing of which the best counts, as the step graphed with and without compile.
    "A:B" with a slash before A is a ratio: keys that were measured in turn count if there are any, else quotients of
    the two figures by themselves.
    """

    name: str
    """As PERFORMANCE.md, the project's list of goals, numbers it."""
    words: str
    step: str
    """The step that measures it."""
    keys: tuple[str, ...]
    least: float | None = None
    most: float | None = None
    over: str | None = None
    """Key of a figure that this one is set against: over / key, how many times faster where both are times."""
    detail: str | None = None
    """A figure among the row's details instead of its value."""

    def values(self, figures: dict[str, Figure]) -> list[tuple[str, float]]:
        """Those of `keys` that were measured."""
        found = []
        for key in [key for key in self.keys if key in figures] or self.keys:
            value = self._value(key, figures)
            if value is not None:
                found.append((key, value))
        return found

    def _value(self, key: str, figures: dict[str, Figure]) -> float | None:
        if self.over is not None:
            pair = figures.get(self.over), figures.get(key)
            return None if pair[0] is None or pair[1] is None else pair[0].value / pair[1].value
        if key in figures:
            figure = figures[key]
            return figure.value if self.detail is None else float(figure.details[self.detail])
        group, _, pair_of_sides = key.rpartition("/")
        ours, colon, other = pair_of_sides.partition(":")
        one, two = figures.get(f"{group}/{ours}"), figures.get(f"{group}/{other}")
        return one.value / two.value if colon and one is not None and two is not None else None

    def best(self, figures: dict[str, Figure]) -> tuple[str, float] | None:
        """The key and value that come nearest to the goal."""
        found = self.values(figures)
        if not found:
            return None
        return (max if self.most is None else min)(found, key=lambda pair: pair[1])

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def wanted(self) -> str:
        bounds = (("≥", self.least), ("≤", self.most))
        return " and ".join(f"{sign} {short(bound)}" for sign, bound in bounds if bound is not None)


OURS = ("uncompiled", "compiled", "combo_kernels", "pdl")
"""Sides that are fastnoise's own step: what it reaches is the best of them."""


def _train(workload: str, ending: str = "", sides: Sequence[str] = OURS) -> tuple[str, ...]:
    return tuple(f"train/{workload}/{side}{ending}" for side in sides)


def _loss(loss: str, size: str, side: str, mode: str) -> str:
    return f"losses/{loss}/{size}-bfloat16/{mode}/{side}"


def _loss_goals(mode: str, words: str) -> tuple[Goal, ...]:
    """Goals of losses in graphs: in the engine's step, or called by others, whose backward pass scales the gradient."""

    def goal(name: str, size: str, what: str, least: float | None = None, *, loss: str = "elr", over: str = "",
             most: float | None = None, detail: str | None = None) -> Goal:  # fmt: skip
        rival = _loss(loss, size, over, mode) if over else None
        spoken = f"{loss.upper()} ({size.replace('x', ', ')}), replayed {words}, {what}"
        return Goal(name, spoken, "losses", (_loss(loss, size, "fused", mode),), least, most, rival, detail)

    return (
        goal("G1", "64x10", "µs", most=3.5),
        goal("G1", "128x100", "µs", most=3.5),
        goal("G1", "128x100", "times its authors'", 15, over="authors"),
        goal("G1", "128x100", "times theirs compiled", 2.5, over="authors_compiled"),
        goal("G3", "4096x1000", "share of copying", 0.85, detail="copy_share"),
        goal("G3", "4096x1000", "times its authors'", 8, over="authors"),
        goal("G3", "8192x21841", "µs", most=845),
        goal("G4", "4096x1000", "share of copying", 0.8, loss="swce", detail="copy_share"),
    )


_R34, _R18, _R50 = "cifar10-resnet34-b128", "cifar10-resnet18-b128", "jpeg-resnet50-b128"

GOALS = (
    Goal("", "replays of one graph per step, no waits: a small network", "capture",
         ("graph/small_cnn/replays-per-step",), 1, 1),
    Goal("", "the same, ResNet-18", "capture", ("graph/resnet18/replays-per-step",), 1, 1),
    *_loss_goals("step-graph", "in a step"),
    *_loss_goals("both-graph", "by any caller"),
    Goal("G2", "ELR (128, 100), called, times its authors'", "losses", (_loss("elr", "128x100", "fused", "both"),), 4,
         over=_loss("elr", "128x100", "authors_list", "both")),
    Goal("G5", "ResNet-18, batch 128, images/s", "resnet18_sizes", _train(_R18), 60_000),
    Goal("G6", "ResNet-34, batch 128, images/s", "resnet34_compiled", _train(_R34), 32_000),
    Goal("G6", "the same, share of the counted ceiling", "resnet34_compiled", _train(_R34), 0.54,
         detail="ceiling_share"),
    Goal("G6", "150 epochs of ELR on CIFAR-10, ResNet-34, minutes", "elr_resnet34", ("run/elr_resnet34/minutes",),
         most=3.5),
    Goal("G7", "ResNet-34, times AMP and channels_last on resident data", "ratios", _train(_R34, ":amp@resident"), 1.3),
    Goal("G7", "the same, times torch.compile on resident data", "ratios", _train(_R34, ":compile@resident"), 1.1),
    Goal("G7", "times torch.compile on resident data, batch 64", "resnet34_sizes",
         _train("cifar10-resnet34-b64", ":compile@resident"), 1.4),
    Goal("G8", "ResNet-34, times the ordinary loop with 8 workers", "ratios", _train(_R34, ":ordinary"), 4),
    Goal("", "ELR's speed over plain cross-entropy's", "ratios", (f"train/{_R34}/uncompiled:cross_entropy",), 0.98),
    Goal("", "waiting for data, share", "resnet34", _train(_R34), most=0.02, detail="data_wait"),
    Goal("G9", "resident loader alone, images/s", "loaders", ("loader/cifar10-b128/resident",), 20e6),
    Goal("G9", "resident data's speed over synthetic data's", "ratios",
         (f"train/{_R34}/uncompiled:uncompiled@synthetic",), 0.99),
    Goal("G10", "ResNet-50 at 224 from JPEG files, images/s", "resnet50", (f"train/{_R50}/uncompiled@dali",), 4500),
    Goal("G10", "the same, speed on JPEG files over synthetic data's", "resnet50",
         (f"train/{_R50}/uncompiled@dali:uncompiled@synthetic",), 0.95),
    Goal("", "ResNet-34's step with --fused-norm on, times that without", "batch_norm",
         (f"train/{_R34}/compiled_fused_norm:compiled", f"train/{_R34}/fused_norm:uncompiled"), 1),
    Goal("", "32 stacked LeNet-5, times one after another", "stacked", ("stacked/mnist-lenet5-b128/32:separate",), 8),
)  # fmt: skip


def page(found: Found) -> str:
    """The page in Markdown: a part per card, and all goals as not measured where there is no figure of a GPU."""
    lines = ["# What GPUs have measured", "",
             "Made by `python -m benchmarks.gpu --summary FOLDER...`; `python -m benchmarks.gpu --list` says "
             "what each programme measures."]  # fmt: skip
    cards = [card for card in found.cards() if card != CPU]
    if not cards:
        lines += ["", "No GPU has run any programme yet.", "", *_goals({}, {})]
    for card in cards:
        lines += ["", f"## {card}", *_stamps(found, card), "", *_goals(found.of(card), _reasons(found, card))]
        lines += _rest(found, card)
    if CPU in found.cards():
        lines += ["", "## In miniature on a CPU", "",
                  "Without a GPU the programmes run small sizes on the CPU, to show that they run. These figures count "
                  "for no goal."]  # fmt: skip
        lines += _rest(found, CPU)
    return "\n".join(lines) + "\n"


def _stamps(found: Found, card: str) -> list[str]:
    """Where a card's figures come from."""
    stamps = dict.fromkeys(
        f"{line['machine']}; torch {line['torch']}, Triton {line['triton']}, Python {line['python']}; "
        f"commit {line['commit'][:12] or 'unknown'}; {line['date']}"
        for (owner, _), line in found.figures.items()
        if owner == card
    )
    return ["", *(f"- {stamp}" for stamp in stamps)]


def _reasons(found: Found, card: str) -> dict[str, str]:
    """Step -> why it has not measured what it should have."""
    return {
        step: f"{step}: {line['status']}{', ' if line['reason'] else ''}{line['reason']}"
        for (owner, _, _, step), line in found.steps.items()
        if owner == card and line["status"] != "done"
    }


def _goals(figures: dict[str, Figure], reasons: dict[str, str]) -> list[str]:
    lines = ["| | goal | figure | wanted | |", "| --- | --- | ---: | ---: | --- |"]
    for goal in GOALS:
        best = goal.best(figures)
        if best is None:
            why = reasons.get(goal.step, f"the step {goal.step} measures it")
            lines.append(f"| {goal.name} | {goal.words} | {NOT_MEASURED} | {goal.wanted} | {_cell(why)} |")
            continue
        key, value = best
        note = "met" if goal.met(value) else "MISSED"
        if len(goal.keys) > 1:
            note += f", {key.rpartition('/')[2].partition(':')[0]}"
        if (
            key in figures
            and "of" in figures[key].details
            and figures[key].details["epochs"] < figures[key].details["of"]
        ):
            note = f"not finished: {figures[key].details['epochs']} of {figures[key].details['of']} epochs"
        lines.append(f"| {goal.name} | {goal.words} | {short(value)} | {goal.wanted} | {note} |")
    return lines


def _rest(found: Found, card: str) -> list[str]:
    """Steps, tests and all figures of a card."""
    lines = ["", "| step | | |", "| --- | --- | --- |"]
    for (owner, programme, half, step), line in found.steps.items():
        if owner == card:
            status = f"{line['status']}{': ' if line['reason'] else ''}{line['reason']}"
            lines.append(f"| {programme} {half}, {step} | {_cell(status)} | {line['seconds']:.0f} s |")
    failures = {side: line for (owner, side), line in found.failures.items() if owner == card}
    if failures:
        lines += ["", "| side without a figure | why |", "| --- | --- |"]
        lines += [f"| {side} | {_cell(line['error'])} |" for side, line in failures.items()]
    tests = [line for (owner, _), line in found.tests.items() if owner == card]
    if tests:
        counts = {word: sum(test["outcome"] == word for test in tests) for word in ("passed", "failed", "skipped")}
        cut = [test["test"] for test in tests if test["outcome"] == "running"]
        lines += ["", f"Tests: {', '.join(f'{count} {word}' for word, count in counts.items())}"
                  + (f", {len(cut)} cut off" if cut else "") + "."]  # fmt: skip
        lines += [f"- failed: `{test['test']}`" for test in tests if test["outcome"] == "failed"]
        lines += [f"- cut off: `{test}`" for test in cut]
    figures = found.of(card)
    if figures:
        lines += ["", "| measured | median | 20th to 80th percentile | |", "| --- | ---: | ---: | --- |"]
    for key, figure in figures.items():
        details = figure.details
        notes = [f"{details['ceiling_share']:.1%} of the ceiling"] if "ceiling_share" in details else []
        notes += [f"waiting {details['data_wait']:.1%}"] if "data_wait" in details else []
        notes += [f"{details['peak_memory_gib']:.2f} GiB"] if "peak_memory_gib" in details else []
        notes += [f"{details['copy_share']:.1%} of copying"] if "copy_share" in details else []
        spread = f"{short(figure.low)} to {short(figure.high)}" if figure.samples > 1 else ""
        lines.append(f"| {key} | {short(figure.value)} {figure.unit} | {spread} | {', '.join(notes)} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def manual_rows(found: Found) -> list[str]:
    """The rows about GPUs of the table in fastnoise/docs/benchmarks.md."""
    gpus = [card for card in found.cards() if card not in (CPU, "unknown")]
    best: dict[str, tuple[str, str]] = {}
    for card in gpus:
        figures = found.of(card)
        for goal in GOALS:
            value = goal.best(figures)
            if value is not None:
                best.setdefault(goal.words, (short(value[1]), card))

    def said(*goals: tuple[str, str]) -> str:
        parts = [f"{name} {best[words][0]}" for name, words in goals if words in best]
        owners = dict.fromkeys(best[words][1] for _, words in goals if words in best)
        return f"{', '.join(parts)} ({', '.join(owners)})" if parts else NOT_MEASURED

    page_ = "`benchmarks/results/gpu/summary.md`"
    steps = said(("ResNet-34, images/s:", "ResNet-34, batch 128, images/s"),
                 ("times AMP and channels_last:", "ResNet-34, times AMP and channels_last on resident data"),
                 ("times the ordinary loop:", "ResNet-34, times the ordinary loop with 8 workers"))  # fmt: skip
    fused = said(("ELR (128, 100), µs:", "ELR (128, 100), replayed by any caller, µs"),
                 ("times its authors':", "ELR (128, 100), replayed by any caller, times its authors'"))  # fmt: skip
    graphs = said(("replays per step that wait for nothing:", "the same, ResNet-18"))
    loaders = said(("resident, images/s:", "resident loader alone, images/s"))
    stacks = said(("32 LeNet-5, times one after another:", "32 stacked LeNet-5, times one after another"))
    tests = [line["outcome"] for (card, _), line in found.tests.items() if card in gpus]
    outcome = f"{tests.count('passed')} passed, {tests.count('failed')} failed" if tests else NOT_MEASURED
    return [
        f"| on a GPU, training steps | {steps}; {page_} |",
        f"| on a GPU, fused losses replayed in a graph | {fused}; {page_} |",
        f"| on a GPU, steps captured in a graph | {graphs}; {page_} |",
        f"| on a GPU, loaders alone | {loaders}; {page_} |",
        f"| on a GPU, stacked runs | {stacks}; {page_} |",
        f"| on a GPU, tests marked `gpu` | {outcome}; {page_} |",
    ]


Status = Literal["done", "failed", "stopped", "skipped", "not measured"]
"""How a step ends."""

assert {step.name for halves in PROGRAMMES.values() for half in halves for step in half} >= {
    goal.step for goal in GOALS
}
