"""The GPU's command without a GPU: limits, what survives which end, miniatures, the page, the time limit of tests."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from inspect import getsource
from pathlib import Path

import _manual
import pytest
import torch

from fastnoise.errors import ConfigError, DataError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from benchmarks import record, train  # noqa: E402
from benchmarks.gpu import __main__ as command  # noqa: E402
from benchmarks.gpu import page, records, runs, steps  # noqa: E402
from benchmarks.gpu.bench import Bench  # noqa: E402
from benchmarks.gpu.programmes import HALVES, PROGRAMMES, STACK, Step, steps_of  # noqa: E402
from benchmarks.gpu.supervisor import Supervisor, files_of_tests  # noqa: E402
from benchmarks.report import Figure  # noqa: E402
from benchmarks.timing import Spread  # noqa: E402

sys.path.remove(str(ROOT))

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


# -- programmes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("programme", PROGRAMMES)
def test_limits_add_up_to_no_more_than_the_halves(programme: str) -> None:
    assert HALVES == (8 * 60, 4.5 * 60)
    for half, seconds in enumerate(HALVES, 1):
        found = steps_of(programme, half)
        assert found[0] is STACK, "half 2 needs nothing of half 1"
        assert sum(step.limit for step in found) <= seconds
        assert all(0 < step.needs <= step.limit for step in found)
        assert all(step is STACK or step.tests is not None or step.name in steps.STEPS for step in found)


def test_every_function_is_a_step_and_every_goal_has_one() -> None:
    names = {step.name for halves in PROGRAMMES.values() for half in halves for step in half}
    assert set(steps.STEPS) <= names
    assert {goal.step for goal in page.GOALS} <= names


def test_the_list_needs_no_torch(capfd: pytest.CaptureFixture[str]) -> None:
    script = """
import sys
from benchmarks.gpu.__main__ import main
assert main(["--programme", "first", "--list"]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=ENVIRONMENT)
    text = capfd.readouterr().out
    assert "first, half 1: at most" in text
    for half in (1, 2):
        for step in steps_of("first", half):
            assert f"{step.limit:4.0f} s{'+' if step.greedy else ' '} {step.name}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --programme and --out"),
        (["--programme", "first"], "give --programme and --out"),
        (["--programme", "first", "--out", "x", "--steps", "rule"], "unknown step 'rule' of first, half 1; did you"),
        (["--programme", "first", "--out", "/dev/null/x"], "--out /dev/null/x: Not a directory"),
        (["--summary", "no-such-folder"], "--summary no-such-folder: no such folder"),
    ],
)
def test_mistakes_are_named_in_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# -- what survives ---------------------------------------------------------------------------------------------

WORKER = """
import ctypes, os, signal, sys, time
from benchmarks.gpu.worker import serve

def stack(bench):
    names = ("machine", "torch", "triton", "python", "commit", "date")
    bench.identify({"gpu": "H100", **dict.fromkeys(names, "x")})

def keep(bench, *names):
    for name in names:
        bench.attempt(name, lambda: bench.value(name, 1.0, "s"))

def plain(bench):
    keep(bench, "plain/a", "plain/b")

def raises(bench):
    keep(bench, "raises/a")
    bench.attempt("raises/b", lambda: 1 / 0)
    keep(bench, "raises/c")

def raises_itself(bench):
    raise ValueError("of the step")

def hangs(bench):
    keep(bench, "hangs/a")
    # PyDLL keeps Python's lock: no signal handler and no other thread of this process gets a turn.
    bench.attempt("hangs/b", lambda: ctypes.PyDLL(None).sleep(600))

def dies(bench):
    keep(bench, "dies/a")
    bench.attempt("dies/b", lambda: os.kill(os.getpid(), signal.SIGSEGV))
    keep(bench, "dies/c")

def poisons(bench):
    bench.alive = lambda: bench.step != "poisons" or os.environ.get("POISONED") == "no"
    keep(bench, "poisons/a")
    bench.attempt("poisons/b", lambda: 1 / 0)
    bench.alive = lambda: True
    keep(bench, "poisons/c")

def long(bench):
    keep(bench, "long/a")
    time.sleep(0.95 * bench.limit)
    keep(bench, "long/b")

def waits(bench):
    keep(bench, "waits/a")
    bench.attempt("waits/b", lambda: time.sleep(600))

serve({name: globals()[name] for name in
       ("stack", "plain", "long", "raises", "raises_itself", "hangs", "dies", "poisons", "waits")})
"""


def step(name: str, limit: float = 20, needs: float = 0.5) -> Step:
    return Step(name, "", limit, needs)


@pytest.fixture
def worker(tmp_path: Path) -> list[str]:
    """The command of a worker with steps of its own, which starts within a second: nothing in it needs torch."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    return [sys.executable, str(script), "--out", str(tmp_path), "--programme", "first", "--half", "1"]


def lines(folder: Path, kind: str, name: str) -> list[str]:
    return [line[name] for line in records.lines_of(folder / records.LINES) if line["kind"] == kind]


def supervise(folder: Path, worker: list[str], steps: list[Step], seconds: float = 100) -> dict[str, dict[str, object]]:
    """Run steps; returns how each ended."""
    Supervisor("first", 1, [STACK, *steps], seconds, folder, worker).run()
    ends = [line for line in records.lines_of(folder / records.LINES) if line["kind"] == "step"]
    return {end["step"]: end for end in ends}


@pytest.fixture
def path_to_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


@pytest.mark.usefixtures("path_to_benchmarks")
def test_a_step_that_hangs_is_stopped_at_its_limit(
    tmp_path: Path, worker: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """In C code that lets no signal handler run; the rest goes on, in a new worker."""
    ends = supervise(tmp_path, worker, [step("hangs", 3), step("plain")])
    assert (ends["hangs"]["status"], ends["plain"]["status"]) == ("stopped", "done")
    assert ends["hangs"]["reason"] == "at its limit in hangs/b; what it had measured is kept"
    assert 3 <= float(str(ends["hangs"]["seconds"])) < 100, "it would hang for 600"
    assert lines(tmp_path, "figure", "key") == ["hangs/a", "plain/a", "plain/b"]
    said = capfd.readouterr().out
    assert "in hangs" in said, "where it hung is shown"
    assert said == (tmp_path / "first-1.log").read_text()


@pytest.mark.usefixtures("path_to_benchmarks")
def test_what_fails_is_shown_and_noted_and_the_rest_goes_on(
    tmp_path: Path, worker: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    ends = supervise(
        tmp_path, worker, [step("raises"), step("raises_itself"), step("dies"), step("poisons"), step("plain")]
    )
    assert {name: end["status"] for name, end in ends.items()} == {
        "stack": "done",
        "raises": "failed",
        "raises_itself": "failed",
        "dies": "failed",
        "poisons": "failed",
        "plain": "done",
    }
    assert lines(tmp_path, "figure", "key") == [
        *("raises/a", "raises/c", "dies/a", "dies/c", "poisons/a", "poisons/c", "plain/a", "plain/b")
    ]
    assert lines(tmp_path, "failure", "side") == ["raises/b", "dies/b", "poisons/b"]
    said = capfd.readouterr().out
    assert said.count("ZeroDivisionError: division by zero") >= 2
    assert "ValueError: of the step" in said
    assert "the worker died in dies/b: SIGSEGV" in said
    found = records.Found()
    records.read(tmp_path, found)
    assert {card for card, _ in found.figures} == {"H100"}
    text = page.page(found)
    assert "| dies/b | the worker died of SIGSEGV |" in text
    assert "| first 1, poisons | failed" in text


@pytest.mark.usefixtures("path_to_benchmarks")
def test_no_side_is_begun_where_a_step_is_nearly_over(tmp_path: Path, worker: list[str]) -> None:
    """The step ends by itself, so that its worker goes on."""
    ends = supervise(tmp_path, worker, [step("long", 3), step("plain")])
    assert (ends["long"]["status"], ends["plain"]["status"]) == ("done", "done")
    assert lines(tmp_path, "figure", "key") == ["long/a", "plain/a", "plain/b"]
    assert lines(tmp_path, "failure", "error") == ["not measured: the step's time was over"]
    assert len(lines(tmp_path, "machine", "gpu")) == 1, "one worker"


@pytest.mark.usefixtures("path_to_benchmarks")
def test_what_no_longer_fits_is_skipped(tmp_path: Path, worker: list[str]) -> None:
    ends = supervise(tmp_path, worker, [step("waits", 20), step("plain", 20, needs=10)], seconds=4)
    assert ends["waits"]["status"] == "stopped"
    assert 2 < float(str(ends["waits"]["seconds"])) < 6
    assert ends["plain"]["status"] == "skipped"
    assert "it needs 10" in str(ends["plain"]["reason"])


@pytest.mark.usefixtures("path_to_benchmarks")
def test_a_greedy_step_has_what_those_before_it_left(tmp_path: Path, worker: list[str]) -> None:
    """About 2 s of its own and 2 of `plain`, which takes none; and none of those that `raises` is due."""
    waits = Step("waits", "", 2, 0.5, greedy=True)
    made = Supervisor("first", 1, [step("plain", 2), waits, step("raises", 2)], 100, tmp_path, worker)
    made.run()
    ends = {line["step"]: line for line in records.lines_of(tmp_path / records.LINES) if line["kind"] == "step"}
    assert {name: end["status"] for name, end in ends.items()} == {
        **{"plain": "done", "waits": "stopped", "raises": "failed"}
    }
    assert 2.5 < ends["waits"]["seconds"] < 5


@pytest.mark.usefixtures("path_to_benchmarks")
@pytest.mark.parametrize("victim", ["supervisor", "worker"])
def test_killed_in_the_middle(tmp_path: Path, worker: list[str], victim: str) -> None:
    """By SIGKILL: what was measured is there, and no process stays."""
    script = f"""
from pathlib import Path
from benchmarks.gpu.programmes import STACK, Step
from benchmarks.gpu.supervisor import Supervisor
steps = [STACK, Step("plain", "", 20, 0.5), Step("waits", "", 20, 0.5), Step("raises", "", 20, 0.5)]
Supervisor("first", 1, steps, 60, Path({str(tmp_path)!r}), {worker!r}).run()
"""
    process = subprocess.Popen([sys.executable, "-c", script], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    journal = tmp_path / records.LINES
    until(lambda: journal.exists() and "waits/a" in journal.read_text())
    (child,) = children(process.pid)
    os.kill(process.pid if victim == "supervisor" else child, signal.SIGKILL)
    if victim == "worker":
        until(lambda: "raises/c" in journal.read_text())
    process.wait(300)
    until(lambda: not Path(f"/proc/{child}").exists())
    keys = lines(tmp_path, "figure", "key")
    assert keys[:3] == ["plain/a", "plain/b", "waits/a"]
    assert keys[3:] == ([] if victim == "supervisor" else ["raises/a", "raises/c"])


def until(true: object, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def test_part_of_a_line_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / records.LINES
    records.append(path, {"kind": "a"})
    with open(path, "a", encoding="utf-8") as stream:
        stream.write('{"kind": "b", "va')
    records.append(path, {"kind": "c"})
    assert [line["kind"] for line in records.lines_of(path)] == ["a", "c"]


# -- the programme in miniature --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some steps of the first programme; all of them take minutes."""
    if torch.cuda.is_available():
        pytest.skip("this is what happens without a GPU")
    out = tmp_path_factory.mktemp("gpu")
    for half, names in (("1", ["tests_compiled"]), ("2", ["options", "train"])):
        words = ["--programme", "first", "--half", half, "--out", str(out), "--steps", *names]
        subprocess.run([sys.executable, "-m", "benchmarks.gpu", *words], cwd=ROOT, check=True)
    return out


def test_without_a_gpu_steps_run_in_miniature_or_say_why_not(miniature: Path) -> None:
    found = records.Found()
    records.read(miniature, found)
    ends = {step: (line["status"], line["reason"]) for (*_, step), line in found.steps.items()}
    assert ends == {
        "stack": ("done", ""),
        "options": ("not measured", "combo kernels and PDL are options of Inductor's for GPUs"),
        "train": ("done", ""),
        "tests_compiled": ("not measured", "without a GPU these tests are skipped"),
    }
    assert found.cards() == ["none"]
    assert found.of("none")["run/three-epochs/accuracy"].details["epochs"] == 3
    for line in found.figures.values():
        assert line["torch"].startswith(torch.__version__.partition("+")[0])
        assert {"commit", "date", "machine", "triton", "python", "at", "step"} <= line.keys()
    text = (miniature / "summary.md").read_text()
    for goal in page.GOALS:
        assert f"| {goal.words} | not measured |" in text
    assert "| run/three-epochs/minutes |" in text


def small_bench(folder: Path, name: str) -> Bench:
    bench = Bench(folder, "first", 1, Path("no-data-here"), "", os.open(os.devnull, os.O_WRONLY))
    bench.step = name
    bench.limit, bench._deadline = 60.0, time.monotonic() + 60
    return bench


def test_sides_of_training_and_their_profile(tmp_path: Path) -> None:
    """Of the step that measures ResNet-34 without compile, in this process."""
    bench = small_bench(tmp_path, "resnet34")
    steps.resnet34(bench)
    workload = steps.cifar(bench, "resnet34", 128).key
    keys = set(lines(tmp_path, "figure", "key"))
    assert {f"train/{workload}/uncompiled", f"train/{workload}/uncompiled/first-step"} <= keys
    profile = f"profile/{workload}/uncompiled"
    assert {f"{profile}/events", f"{profile}/busy"} <= keys
    assert "convolution" in (tmp_path / f"{profile.replace('/', '-')}.txt").read_text()
    assert not lines(tmp_path, "failure", "side")


def test_generated_cifar10_is_read_as_cifar10(tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR10

    from fastnoise.data import load_dataset

    official = CIFAR10.train_list
    with runs.cifar10(small_bench(tmp_path, "train")) as (root, source):
        data = load_dataset("cifar10", root, download=False)
    assert (len(data.train), len(data.test), data.num_classes) == (200, 40, 10)
    assert source.startswith("generated images")
    assert CIFAR10.train_list is official
    assert not root.exists()


class Plan(Bench):
    """A bench of a GPU that measures nothing and notes the sides that a step would measure."""

    def __init__(self, folder: Path):
        super().__init__(folder, "first", 1, Path("no-data-here"), "", os.open(os.devnull, os.O_WRONLY))
        self.on_gpu, self.sides = True, list[str]()

    def attempt(self, side: str, measure: object) -> None:
        self.sides.append(side)

    def free(self) -> None:
        pass


class NoContest:
    def __init__(self, workload: object, options: train.Options, say: object):
        self.workload, self.options, self.sides = workload, options, dict[str, object]()

    def close(self) -> None:
        pass


def test_the_steps_of_a_gpu_measure_each_side_once_and_every_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the steps would do on a GPU, without doing it."""
    table = steps._images(256)
    for name, value in {
        "device_of": lambda bench: torch.device("cpu"),
        "copy_gb_s": lambda bench: 1.0,
        "_images": lambda count: table,
        "jpeg_folder": lambda *given: table,
    }.items():
        monkeypatch.setattr(steps, name, value)
    monkeypatch.setattr(steps.train, "Contest", NoContest)
    planned: dict[str, list[str]] = {}
    for name, function in steps.STEPS.items():
        plan = Plan(tmp_path)
        function(plan)
        assert len(set(plan.sides)) == len(plan.sides), f"{name} measures a side twice"
        assert plan.sides, f"{name} measures nothing"
        planned[name] = plan.sides
    everything = {side for sides in planned.values() for side in sides}

    def among(key: str, sides: Iterable[str]) -> bool:
        """Whether a figure of this key is of one of the sides, or a ratio of two."""
        group, _, pair = key.rpartition("/")
        _ours, colon, other = pair.partition(":")
        alone = any(key == side or key.startswith((f"{side}/", f"{side}:")) for side in sides)
        return alone and (not colon or other == "separate" or f"{group}/{other}" in everything)

    for goal in page.GOALS:
        assert any(among(key, planned[goal.step]) for key in goal.keys), goal
        assert goal.over is None or goal.over in everything, goal


# -- the page --------------------------------------------------------------------------------------------------


def write_figures(folder: Path, card: str, date: str, values: dict[str, float], **details: float) -> None:
    folder.mkdir(exist_ok=True)
    stamp = {**dict.fromkeys(records.STAMP, "x"), "gpu": card, "date": date}
    for key, value in values.items():
        figure = Figure.of(key, Spread(value, value, value), "images/s", "higher", 3, **details)
        line = records.figure_line(figure, stamp, programme="first", half=1, step="resnet34") | {"at": date}
        records.append(folder / records.LINES, line)


R34 = "train/cifar10-resnet34-b128"


def test_goals_are_judged_by_the_best_side(tmp_path: Path) -> None:
    values = {f"{R34}/uncompiled": 30_000.0, f"{R34}/compiled": 40_000.0, f"{R34}/amp@resident": 20_000.0}
    write_figures(tmp_path, "H100", "2026-01-01", values, ceiling_share=0.6, data_wait=0.05)
    write_figures(tmp_path, "H100", "2026-01-01", {f"{R34}/uncompiled:amp@resident": 1.2, f"{R34}/ordinary": 5_000.0})
    found = records.Found()
    records.read(tmp_path, found)
    text = page.page(found)
    assert "| G6 | ResNet-34, batch 128, images/s | 40,000 | ≥ 32,000 | met, compiled |" in text
    assert "| waiting for data, share | 0.05 | ≤ 0.02 | MISSED, uncompiled |" in text
    # Measured in turn goes before the quotient of two sides, here 2.
    assert "| G7 | ResNet-34, times AMP and channels_last on resident data | 1.2 | ≥ 1.3 | MISSED, uncompiled |" in text
    assert "| G8 | ResNet-34, times the ordinary loop with 8 workers | 8 | ≥ 4 | met, compiled |" in text
    assert "| G5 | ResNet-18, batch 128, images/s | not measured |" in text


def test_times_and_unfinished_runs(tmp_path: Path) -> None:
    loss = "losses/elr/128x100-bfloat16/both-graph"
    write_figures(tmp_path, "H100", "2026-01-01", {f"{loss}/fused": 2.0, f"{loss}/authors": 40.0})
    write_figures(tmp_path, "H100", "2026-01-01", {"run/elr_resnet34/minutes": 2.0}, epochs=80, of=150)
    found = records.Found()
    records.read(tmp_path, found)
    text = page.page(found)
    assert "| ELR (128, 100), replayed by any caller, times its authors' | 20 | ≥ 15 | met |" in text
    assert "ResNet-34, minutes | 2 | ≤ 3.5 | not finished: 80 of 150 epochs |" in text


def test_folders_are_merged_and_the_latest_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_figures(tmp_path / "one", "H100", "2026-01-01", {"a": 1.0, "b": 2.0})
    write_figures(tmp_path / "two", "H100", "2026-01-02", {"b": 3.0, "c": 4.0})
    write_figures(tmp_path / "cpu", "none", "2026-01-02", {"a": 9.0})
    out = tmp_path / "out"
    folders = [str(tmp_path / name) for name in ("two", "one", "cpu")]
    assert command.main(["--summary", *folders, "--out", str(out)]) == 0
    assert "fastnoise/docs/benchmarks.md:" in capsys.readouterr().out
    found = records.Found()
    records.read(out, found)
    assert {key: figure.value for key, figure in found.of("H100").items()} == {"a": 1.0, "b": 3.0, "c": 4.0}
    assert {key: figure.value for key, figure in found.of("none").items()} == {"a": 9.0}
    write_figures(tmp_path / "new", "H100", "2026-01-03", {"a": 5.0})
    assert command.main(["--summary", str(tmp_path / "new"), "--out", str(out)]) == 0
    stored = json.loads((out / records.MERGED).read_text())
    values = {line["key"]: line["value"] for line in stored["lines"] if line["gpu"] == "H100"}
    assert values == {"a": 5.0, "b": 3.0, "c": 4.0}, "what was there before is kept"
    for line in stored["lines"]:
        assert {"key", "gpu", "torch", "triton", "commit", "date"} <= line.keys()


def test_what_is_no_folder_of_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither"):
        records.read(tmp_path, records.Found())
    (tmp_path / records.MERGED).write_text('{"schema": "other", "lines": []}')
    with pytest.raises(DataError, match="has the schema 'other'"):
        records.read(tmp_path, records.Found())
    (tmp_path / records.MERGED).write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        records.read(tmp_path, records.Found())
    (tmp_path / records.MERGED).unlink()
    (tmp_path / records.LINES).write_text('{"kind": "figure", "gpu": "x"}\n')
    with pytest.raises(DataError, match="lacks 'key'"):
        records.read(tmp_path, records.Found())
    with pytest.raises(ConfigError, match="no such folder"):
        command.summarise([tmp_path / "nowhere"], tmp_path / "out")


def test_the_recorded_page_and_readme_are_those_of_the_recorded_figures() -> None:
    """`python -m benchmarks.gpu --summary` writes the first and prints the second."""
    folder, found = record.RESULTS / "gpu", records.Found()
    records.read(folder, found)
    assert (folder / "summary.md").read_text() == page.page(found)
    for row in page.manual_rows(found):
        assert row in _manual.pages()["benchmarks.md"]


# -- the tests marked gpu --------------------------------------------------------------------------------------

SLOW_TESTS = """
import ctypes, os, pytest, signal, time

def test_first():
    pass

def test_sleeps():
    time.sleep(60)

def test_fails():
    assert [1] == [2]

def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # which would end the sleep
    ctypes.PyDLL(None).sleep(60)

def test_last():
    pass

@pytest.mark.skip
def test_skipped():
    pass
"""


def run_tests(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-summary",
        str(folder / "test_x.py"),
    ]
    return subprocess.run(
        [*command, "--limit", "1", "--journal", str(folder / "journal"), *words],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60, env=ENVIRONMENT,
    )  # fmt: skip


def test_a_test_that_hangs_is_ended_and_the_others_run(tmp_path: Path) -> None:
    text = (ROOT / "tests" / "conftest.py").read_text().replace("GRACE = 5", "GRACE = 1")
    (tmp_path / "conftest.py").write_text(f"{text}\n\npytest_collection_modifyitems = leave_out\n")  # without torch
    (tmp_path / "test_x.py").write_text(SLOW_TESTS)
    done = run_tests(tmp_path)
    outcomes = {line["test"].partition("::")[2]: line["outcome"] for line in records.lines_of(tmp_path / "journal")}
    assert outcomes == {
        "test_first": "passed",
        "test_sleeps": "failed",
        "test_fails": "failed",
        "test_hangs": "running",
    }
    assert done.returncode == 1
    assert "TimeoutError: the test took longer than 1 s" in done.stdout
    assert "assert [1] == [2]" in done.stdout
    assert "Timeout (0:00:02)!" in done.stderr
    assert "in test_hangs" in done.stderr
    names = [line["test"] for line in records.lines_of(tmp_path / "journal")]
    (tmp_path / "done.txt").write_text("\n".join(names))
    assert run_tests(tmp_path, "--leave-out", str(tmp_path / "done.txt")).returncode == 0
    outcomes = {line["test"].partition("::")[2]: line["outcome"] for line in records.lines_of(tmp_path / "journal")}
    assert outcomes["test_last"] == "passed"
    assert outcomes["test_skipped"] == "skipped"
    assert outcomes["test_hangs"] == "running"


BREAKING_TESTS = """
from pathlib import Path
import pytest

@pytest.mark.gpu
def test_works():
    pass

@pytest.mark.gpu
def test_breaks():
    Path("broken").touch()

@pytest.mark.gpu
def test_after():
    assert not Path("broken").exists()
"""


def test_files_of_tests_go_on_behind_what_ends_their_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the supervisor runs them: CUDA is broken by a test, and works again in a new process."""
    from benchmarks.gpu import supervisor

    tests = tmp_path / "tests"
    tests.mkdir()
    text = (ROOT / "tests" / "conftest.py").read_text()
    (tests / "conftest.py").write_text(f"""{text}

pytest_collection_modifyitems = leave_out

def pytest_sessionstart():
    Path("broken").unlink(missing_ok=True)

def cuda_works():
    return not Path("broken").exists()
""")
    (tests / "test_x.py").write_text(BREAKING_TESTS)
    monkeypatch.setattr(supervisor, "ROOT", tmp_path)
    made = Supervisor("first", 1, [Step("tests", "", 60, 1, tests="gpu")], 60, tmp_path, [])
    made.on_gpu = True
    made.run()
    (end,) = (line for line in records.lines_of(tmp_path / records.LINES) if line["kind"] == "step")
    assert (end["status"], end["reason"]) == ("done", "3 passed")
    assert "[test_x] tests/test_x.py::test_breaks has left CUDA broken" in capfd.readouterr().out
    assert (tmp_path / "tests-tests-test_x.txt").read_text().count("\n") == 2


def test_gpu_tests_are_found_by_file_and_those_that_compile_are_marked(request: pytest.FixtureRequest) -> None:
    """Of the tests that this session has collected."""
    files = {path.name for path in files_of_tests(ROOT / "tests")}
    assert {"test_losses.py", "test_step.py", "test_tables.py", "test_selection.py", "test_loaders.py"} <= files
    for item in request.session.items:
        if item.get_closest_marker("gpu") and isinstance(item, pytest.Function):
            assert item.path.name in files
            calls = "torch.compile(" in getsource(item.function)
            given = item.callspec.params if hasattr(item, "callspec") else {}
            chosen = given.get("compile_") == "on" or str(given.get("gear")).startswith("compiled")
            assert bool(item.get_closest_marker("compiles")) == (calls or chosen), item.nodeid


def test_the_lock_of_python_stands_for_a_hang_in_c() -> None:
    """The tests above rely on it: such a call lets no other thread of Python run."""
    from threading import Thread

    ticks: list[float] = []
    thread = Thread(target=lambda: [ticks.append(time.monotonic()) or time.sleep(0.01) for _ in range(20)])  # type: ignore[func-returns-value]
    thread.start()
    before = time.monotonic()
    ctypes.PyDLL(None).usleep(300_000)
    after = time.monotonic()
    thread.join()
    assert not [tick for tick in ticks if before + 0.05 < tick < after - 0.05]
