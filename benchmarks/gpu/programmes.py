"""What is measured on a GPU, in the order of its weight: programmes of two halves, each a list of steps with limits."""

from dataclasses import dataclass

HALVES = (480.0, 270.0)
"""Seconds of a programme's halves, start included: together they fit into a quarter of an hour of a GPU's time."""


@dataclass(frozen=True)
class Step:
    """A part of a programme.

    A step with `tests` runs pytest, a process per file, under that marker expression; any other is the function of its
    name in `steps.py` or `runs.py`.
    """

    name: str
    words: str
    """What it measures."""
    limit: float
    """Seconds after which it is stopped."""
    needs: float
    """Seconds without which it is not begun: enough for its first figure."""
    tests: str | None = None
    keyword: str = ""
    """What the names of the tests contain, as pytest's -k takes it."""
    miniature: str = ""
    """FILE::NAME of the test that stands for them where there is no GPU."""
    module: str = ""
    """A module without which the step is not measured."""
    greedy: bool = False
    """Whether it may have, beyond its limit, what the steps before it have left: where more time brings more home."""


STACK = Step(
    "stack", "do torch, Triton, fastnoise._C and a compiler load; which card, driver and versions", limit=50, needs=10
)

_NOT_COMPILED = "gpu and not compiles and not slow"
_COMPILED = "gpu and compiles and not slow"

PROGRAMMES: dict[str, tuple[tuple[Step, ...], tuple[Step, ...]]] = {
    "first": (
        (
            STACK,
            Step("bandwidth", "bandwidth of a copy, rate of a bf16 matrix product", 12, 4),
            Step("rules", "every loss rule against float64, at (64,10), (128,100) and (4096,1000)", 50, 8),
            Step("capture", "a small network and ResNet-18 without compile: 50 replays that wait for nothing", 20, 10),
            Step("losses", "losses replayed at four sizes, and the kernel in other geometries", 75, 10),
            Step("resnet34", "ResNet-34 graphed without compile; a profile of one replay", 20, 15),
            Step(
                "resnet34_compiled",
                "the same compiled; the seconds that compiling takes; a profile",
                60,
                40,
                greedy=True,
            ),
            Step(
                "tests",
                "tests marked gpu that do not compile, a process per file",
                125,
                30,
                _NOT_COMPILED,
                miniature="test_step.py::test_schedules_follow_their_formulas",
                greedy=True,
            ),
            Step("tests_compiled", "tests marked gpu that compile, a process per file", 68, 20, _COMPILED, greedy=True),
        ),
        (
            STACK,
            Step(
                "ratios",
                "ResNet-34, compiled and not, against amp@resident, compile@resident, the ordinary loop, cross-entropy",
                110,
                15,
                greedy=True,
            ),
            Step("train", "three epochs of fastnoise train: ELR, ResNet-34, images in CIFAR-10's form", 25, 12),
            Step("options", "ResNet-34 compiled with combo kernels, with PDL, with neither", 85, 40, greedy=True),
        ),
    ),
    "second": (
        (
            STACK,
            Step(
                "tests_dali",
                "the loaders' tests marked gpu that use DALI",
                60,
                20,
                _NOT_COMPILED,
                keyword="dali",
                module="nvidia.dali",
            ),
            Step(
                "resnet50",
                "ResNet-50 at 224 from JPEG files through DALI, against synthetic batches",
                120,
                40,
                module="nvidia.dali",
            ),
            Step("resnet34_sizes", "ResNet-34 at batch 64, 128, 512, with and without compile", 150, 15, greedy=True),
            Step("resnet18_sizes", "ResNet-18 at batch 64, 128, 512, with and without compile", 100, 15, greedy=True),
        ),
        (
            STACK,
            Step("loaders", "resident, DALI and PIL loaders alone", 60, 10),
            Step("stacked", "stacked LeNet-5 at K = 8, 32, 128 against one run after another", 160, 15, greedy=True),
        ),
    ),
    "third": (
        (
            STACK,
            Step("batch_norm", "batch norm as one op against PyTorch's: layers alone, then ResNet-34's step", 110, 20),
            Step(
                "elr_resnet34",
                "150 epochs of ELR by its recipe: ResNet-34, CIFAR-10, 40 % symmetric",
                320,
                60,
                greedy=True,
            ),
        ),
        (
            STACK,
            Step("elr_resnet18_fast", "50 epochs of ELR: ResNet-18, batch 512, cosine", 90, 30),
            Step("optimizer", "ResNet-34: updates by Triton's kernel against PyTorch's, compiled and not", 45, 15),
            Step("joint", "LeNet-5 and small_cnn: eight steps a graph against one", 25, 10),
            Step("ce_resnet18_fast", "ELR's 50 epochs again with plain cross-entropy", 60, 30, greedy=True),
        ),
    ),
    "fourth": (
        (STACK, Step("held_rows", "loss kernels of 21,841 classes: rows held in registers against the usual", 300, 30)),
        (STACK, Step("fused_head", "ELR of 21,841 classes from features on, with logits and without", 120, 15)),
    ),
}


def steps_of(programme: str, half: int) -> tuple[Step, ...]:
    """The steps of half 1 or 2 of a programme."""
    return PROGRAMMES[programme][half - 1]


def listing(programme: str) -> list[str]:
    """The steps of a programme with their limits, as lines; "+" where a step may have what those before it left."""
    lines = []
    for number, (steps, seconds) in enumerate(zip(PROGRAMMES[programme], HALVES, strict=True), 1):
        total = sum(step.limit for step in steps)
        lines.append(f"{programme}, half {number}: at most {total:.0f} of {seconds:.0f} s")
        lines += [f"  {step.limit:4.0f} s{'+' * step.greedy:1} {step.name:18} {step.words}" for step in steps]
    return lines
