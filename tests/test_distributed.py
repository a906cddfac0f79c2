"""Several processes that train one run: the same numbers as one process, and one end whatever happens to one of them.

Two processes (gloo, on the CPU) serve all tests of this module but those of starting and killing processes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _forked import Forked
from _pair import Pair
from _train_cases import TIMES, history, refusal

import fastnoise
from fastnoise.cli import main
from fastnoise.config import RunConfig
from fastnoise.data.plan import Augmentation, Plan
from fastnoise.engine import RunFolder
from fastnoise.engine.checkpoint import fitted
from fastnoise.engine.distributed import LostContact, Silenced, World, note_folder, restarted, together
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.prepare import create_parts, load_data
from fastnoise.engine.record import Record
from fastnoise.engine.signals import Interrupted
from fastnoise.engine.trainer import Training
from fastnoise.errors import CheckpointError, TrainingError
from fastnoise.methods import METHODS
from fastnoise.ops.looks import FORGOTTEN, LOOKS
from fastnoise.recipes import recipe

CPU = torch.device("cpu")
NET = f"{Path(__file__).parent}/_small_net.py:SmallNet"
FEW = {"limit_train": 721, "save_every": 1, "device": "cpu"}
PLAIN = {"model": NET, "crop_padding": 0, "flip": False, "epochs": 1, **FEW}
"""A network without batch norm, and images as they are."""

OPTIONS: dict[str, dict[str, Any]] = {
    "dividemix": {"warm_up": 1, "epochs": 3, "loss_epochs": 1},
    "pes": {"warm_up": 1, "stage_epochs": 1, "head_epochs": 1, "epochs": 5},
    "pes_semi": {"warm_up": 1, "head_epochs": 1, "epochs": 4},
    "promix": {"warm_up": 1, "guess_from": 3, "epochs": 4},
    "augdesc": {"warm_up": 1, "epochs": 3, "loss_epochs": 1},
    "swce": {
        "warm_up": 1,
        "stages": "1,2",
        "rate_factors": "1,1",
        "epochs": 3,
        "optimizer": "sgd",
        "learning_rate": 0.05,
    },
    "forward": {"warm_up": 1},
    "dual_t": {"warm_up": 1},
    "gce": {"update_from": 2},
    "plc": {"warm_up": 0},
    "coteaching": {"forget_epochs": 2},
    "jocor": {"forget_epochs": 2},
    "cores": {"ramp_from": 0, "ramp_to": 1, "sieve_from": 2},
    "disc": {"warm_up": 1},
    "c2d": {"pretrain_epochs": 1, "warm_up": 1, "epochs": 3},
    "swce_dividemix": {"pipeline_warm_up": 0, "stages": "1", "rate_factors": "1,1", "warm_up": 1, "epochs": 3},
}
"""What makes two epochs of a method show what is its own."""

OTHERS: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("label_smoothing", "sce", "mae", "focal", "apl", "bootstrap", "swce_loss", "plain")},
    "gce": {"update_from": 1},
    "sop": {},
    "sop_plus": {"class_balance": 0.0},  # balances the classes of a process's batch
    "forward": {"warm_up": 1, "epochs": 2},
    "dual_t": {"warm_up": 1, "epochs": 2},
    "volminnet": {"epochs": 2, "strength": 0.01, "transition_rate": 0.1},
    "selc_plus": {"update_from": 1, "epochs": 2, "mixup_alpha": 0.0},
    "coteaching": {"forget_rate": 0.0},  # else it picks from another batch
    "jocor": {"forget_rate": 0.0},
    "disc": {"warm_up": 1, "augment": "none"},  # then it mixes the samples of a process's batch
    "gjs": {"views": 1},  # with two, the network of a process sees views of its own samples
    "cores": {"ramp_from": 0, "ramp_to": 1, "sieve_from": 9},  # nor may the means be over other numbers
}
"""Methods that compute the same in one process as in two, beside those of the quick tests. simclr, c2d, mixup,
ssr, ssr_plus and elr_plus with mixup pair the samples of a process's batch."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    processes = Pair()
    yield processes
    processes.close()


def configured(method: str, **fields: Any) -> RunConfig:
    return recipe(method, "digits", "symmetric:0.4").replace({"loader_threads": 1, **fields})


def states(run: Path) -> dict[str, Any]:
    """A checkpoint of two processes as one of one process has it: the rows of both."""
    whole = RunFolder(run).read_checkpoint(CPU)
    assert whole is not None
    folder = Path(whole["parts"]).parent / whole["tables"]
    files = [folder / f"tables-{rank}-of-2.pt" for rank in (0, 1)]
    parts = [torch.load(file, weights_only=True) if file.exists() else {"method": {}} for file in files]
    for name in parts[0]["method"]:
        first, second = (part["method"][name] for part in parts)
        axis = 1 if name == "probs" else 0  # PLC's, [window, N, C]
        table = torch.zeros(len(whole["labels"]), *first.movedim(axis, 0).shape[1:], dtype=first.dtype)
        table[0::2], table[1::2] = first.movedim(axis, 0), second.movedim(axis, 0)
        whole["method"][name] = table.movedim(0, axis)
    return whole


def assert_equal_states(one: dict[str, Any], two: dict[str, Any]) -> None:
    for part in ("networks", "method"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), name
    assert torch.equal(one["labels"], two["labels"])
    assert torch.equal(one["statistics"]["looks"], two["statistics"]["looks"])


# -- the same as in one process ------------------------------------------------------------------------------


def as_of_two(order: np.ndarray | None, config: RunConfig, count: int, epoch: int, share_batches: bool) -> np.ndarray:
    """The samples of an epoch as two processes take them, batch by batch: those of the first, then of the second."""
    batches = [
        [
            batch.index
            for batch in Plan(
                count,
                config.data.batch_size,
                seed=config.engine.seed,
                shuffle=True,
                shard=(rank, 2),
                share_batches=share_batches,
            ).batches(epoch, order=order)
        ]
        for rank in (0, 1)
    ]
    return np.concatenate([np.concatenate(both) for both in zip(*batches, strict=True)])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ce", {}),
        ("nal", {}),
        ("elr", {}),
        ("elr", {"target_dtype": "bfloat16"}),
        ("selc", {"update_from": 1}),
        ("elr_plus", {"networks": 1, "mixup_alpha": 0.0}),
        ("elr", {"model": NET.replace("SmallNet", "NormNet"), "batch_norm": "sync"}),
        ("plc", {"warm_up": 0}),
        ("dividemix", {"warm_up": 1}),
        ("swce", {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "epochs": 2, "learning_rate": 0.05}),
        *(pytest.param(method, options, marks=pytest.mark.slow) for method, options in OTHERS.items()),
    ],
)
def test_two_processes_are_one(
    method: str, options: dict[str, Any], pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the same weights, with the same batches: weights and targets, the division and the consensus. Sums of batch
    norm over two processes are rounded otherwise."""
    within = 1e-5 if "batch_norm" in options else 1e-6
    fields = {**PLAIN, "batch_size": 64, "optimizer": "sgd", **options}
    both = pair.run("train", tmp_path, method=method, fields={**fields, "run_dir": "two"})
    assert both[0]["result"] == both[1]["result"]
    config, before = configured(method, **fields), Training._order

    def order(self: Training, epoch: int) -> np.ndarray:
        count = len(self.members[0].data.given)
        return as_of_two(before(self, epoch), config, count, epoch, self.method.shares > 0)

    monkeypatch.setattr(Training, "_order", order)
    fastnoise.train(config.replace({"batch_size": 128, "run_dir": str(tmp_path / "one")}))
    one, two = RunFolder(tmp_path / "one").read_checkpoint(CPU), states(tmp_path / "two")
    assert one is not None
    for part in ("networks", "method"):
        assert one[part].keys() == two[part].keys()
        for name, tensor in one[part].items():
            # DivideMix's probability that a label is clean is steep in the loss: rounding changes it by more.
            close = 1e-5 if name == "clean" else within
            torch.testing.assert_close(
                two[part][name], tensor, rtol=close, atol=close, msg=lambda m, n=name: f"{n}: {m}"
            )
    assert torch.equal(one["labels"], two["labels"])
    looks = [each["statistics"]["looks"] for each in (one, two)]
    assert looks[1][:, LOOKS].any()
    if method == "dividemix":  # each process counts what was forgotten between its own looks
        for each in looks:
            each[:, FORGOTTEN] = 0
    torch.testing.assert_close(*looks, rtol=1e-4, atol=1e-4)
    for found, expected in zip(history(tmp_path / "two"), history(tmp_path / "one"), strict=True):
        assert found.pop("collectives") > 0
        assert found.keys() == expected.keys()
        passes = ("train_accuracy", "clean", "mislabelled") if method == "dividemix" else ("nothing",)  # both see some
        for key, value in expected.items():
            if key.startswith(passes):
                continue
            assert found[key] == (value if isinstance(value, dict) else pytest.approx(value, rel=1e-5)), key


def test_what_differs_between_processes_becomes_that_of_the_first(pair: Pair, tmp_path: Path) -> None:
    """Runs cannot show it: their seeds give all processes the same weights."""
    first, second = (each["result"] for each in pair.run("equal", tmp_path))
    assert first["before"] != second["before"]
    assert first["after"] == second["after"] == first["before"]


def test_gradients_sent_in_buckets_are_those_sent_at_once(pair: Pair, tmp_path: Path) -> None:
    """Bit for bit, in buckets of few parameters, with parameters that have no gradient."""
    first, second = (found["result"] for found in pair.run("gradients", tmp_path))
    assert first["buckets"] > 3
    assert first["early"] == [first["buckets"], 2]  # all, or those before the one that waits in vain
    assert first["whole"] == first["bucketed"] == second["whole"] == second["bucketed"]
    assert min(first["seconds"]) > 0
    assert first["own"] != second["own"]


def test_a_sample_is_cropped_alike_in_any_number_of_processes() -> None:
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=4)

    def draws(rank: int, size: int, order: np.ndarray | None) -> dict[int, list[list[int]]]:
        plan = Plan(101, 8, seed=3, augmentation=augmentation, shuffle=True, source=(8, 8), shard=(rank, size), views=2)
        whole = plan.batches(5, order=order).draw()
        packed = whole.packed()
        assert packed is not None
        assert all(index % size == rank for index in whole.index)
        return {int(index): packed[:, place].tolist() for place, index in enumerate(whole.index)}

    for order in (None, np.random.default_rng(0).permutation(101)):
        alone = draws(0, 1, order)
        for size in (2, 3):
            parts = [draws(rank, size, order) for rank in range(size)]
            assert {len(part) for part in parts} == ({101 // size} if order is None else {101 // size // 8 * 8})
            for part in parts:
                assert part == {index: alone[index] for index in part}


BARE = ("elr_plus", "dividemix", "swce")
SMALL = {"model": "small_cnn", "width": 0.25, **FEW}
"""A network with batch norm."""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=() if name in BARE else pytest.mark.slow)
        for name in sorted(METHODS)
        if METHODS[name].parallel and name != "multitask"
    ],
)
def test_the_weights_of_both_processes_are_equal(method: str, pair: Pair, tmp_path: Path) -> None:
    """Bit for bit after every epoch, before the first process's replace them; and both call the same collectives."""
    fields = {**SMALL, "epochs": 2, "batch_size": 64, "run_dir": "run", **OPTIONS.get(method, {})}
    first, second = pair.run("train", tmp_path, method=method, fields=fields)
    assert first == second
    assert len(first["result"]["weights"]) == 1 + fields["epochs"]


def test_posteriors_of_two_processes_are_those_of_all_samples(pair: Pair, tmp_path: Path) -> None:
    words = ["posteriors", "--dataset", "digits", "--model", "small_cnn", "--epochs", "1", "--batch-size", "64"]
    found = pair.run("words", tmp_path, words=[*words, "--device", "cpu", "--out", "posteriors.npy"])
    assert [each["result"]["code"] for each in found] == [0, 0]
    probs = np.load(tmp_path / "posteriors.npy")
    assert probs.shape == (1438, 10)
    seen = probs.sum(1) > 0
    assert (~seen).sum() == 0
    assert np.allclose(probs.sum(1), 1, atol=1e-5)


# -- saved and resumed ---------------------------------------------------------------------------------------


def test_a_run_goes_on_as_if_it_had_not_stopped(pair: Pair, tmp_path: Path) -> None:
    """Stopped inside an epoch, with batch norm's statistics of each process by themselves."""
    fields = {**SMALL, "epochs": 3, "batch_size": 16}
    pair.run("train", tmp_path, method="elr", fields={**fields, "run_dir": "whole"})
    stopped = pair.run("train", tmp_path, method="elr", fields={**fields, "run_dir": "cut"}, fault="signal:1:30")
    kinds = sorted(found["error"][0] for found in stopped)
    assert kinds == ["Interrupted", "Silenced"]
    saved = RunFolder(tmp_path / "cut").read_checkpoint(CPU)
    assert saved is not None
    assert saved["epoch"] == 2
    assert saved["batch"] == 16
    again = pair.run("train", tmp_path, method="elr", fields={**fields, "run_dir": "cut"}, resume=True)
    assert again[0] == again[1]
    assert_equal_states(states(tmp_path / "whole"), states(tmp_path / "cut"))
    cut, whole = history(tmp_path / "cut"), history(tmp_path / "whole")
    for line in (*cut, *whole):
        line.pop("collectives")
    assert cut == whole
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir() if path.is_dir()] == ["4-0"]


def test_large_tables_of_two_processes_are_written_beside_the_steps(pair: Pair, tmp_path: Path) -> None:
    fields = {**PLAIN, "batch_size": 64, "optimizer": "sgd", "epochs": 3}
    for name, fault, place in (
        ("small", "", "device"),
        ("large", "large:0:0", "host"),
        ("tight", "memory:1:0", "device"),
    ):
        own = {**fields, "run_dir": name, "target_place": place}
        found = pair.run("train", tmp_path, method="elr", fields=own, fault=fault)
        assert found[0] == found[1]
        folders = [path.name for path in (tmp_path / name / "checkpoints").iterdir() if path.is_dir()]
        assert folders == ["4-0"]
    assert_equal_states(states(tmp_path / "small"), states(tmp_path / "large"))
    assert_equal_states(states(tmp_path / "small"), states(tmp_path / "tight"))


@pytest.mark.parametrize("method", ["elr", "plc"])
def test_rows_find_their_samples_in_any_number_of_processes(method: str, pair: Pair, tmp_path: Path) -> None:
    fields = {**PLAIN, "batch_size": 64, "optimizer": "sgd", **OPTIONS.get(method, {})}
    pair.run("train", tmp_path, method=method, fields={**fields, "run_dir": "two"})
    whole = states(tmp_path / "two")
    config = configured(method, **fields, run_dir=str(tmp_path / "two"))
    data = load_data(config)
    for size in (1, 2, 3, 4):
        for rank in range(size):
            world = World(rank, size)
            made, _ = create_parts(config, data, CPU, fresh=False, shards=world)
            record = Record(
                config, data, made, EpochStatistics(len(data.given), False, CPU), torch.from_numpy(data.given)
            )
            state = RunFolder(tmp_path / "two").read_checkpoint(CPU)
            assert state is not None
            made.load_state_dict(fitted(state, record, world)["method"])
            for name, dim in made.sharded().items():
                assert torch.equal(made.state_dict()[name], world.own(whole["method"][name], dim)), (name, rank, size)


def test_one_process_and_two_take_turns(pair: Pair, tmp_path: Path) -> None:
    fields = {**PLAIN, "batch_size": 64, "run_dir": str(tmp_path / "run")}
    pair.run("train", tmp_path, method="elr", fields=fields)
    before = states(tmp_path / "run")["method"]["criterion.targets"]
    fastnoise.train(configured("elr", **{**fields, "epochs": 2}), resume=True)
    folder = RunFolder(tmp_path / "run")
    assert folder.checkpoint.exists()
    assert not folder.checkpoints.exists()
    state = folder.read_checkpoint(CPU)
    assert state is not None
    assert not torch.equal(state["method"]["criterion.targets"], before)
    both = pair.run("train", tmp_path, method="elr", fields={**fields, "epochs": 3}, resume=True)
    assert both[0] == both[1]
    assert not folder.checkpoint.exists()
    assert [line["epoch"] for line in history(tmp_path / "run")] == [1, 2, 3]


def test_a_checkpoint_inside_an_epoch_is_for_as_many_processes(pair: Pair, tmp_path: Path) -> None:
    fields = {**PLAIN, "batch_size": 16, "run_dir": str(tmp_path / "run")}
    pair.run("train", tmp_path, method="ce", fields=fields, fault="signal:0:5")
    with pytest.raises(CheckpointError, match=r"inside epoch 1, of 2 process\(es\); go on with as many"):
        fastnoise.train(configured("ce", **fields), resume=True)


# -- faults --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "said"),
    [("nan:1:5", "the loss became NaN or infinite at step 5 of epoch 1"), ("image:1:5", "image 7.png is truncated")],
)
def test_one_process_has_a_fault_and_all_end_with_one_message(
    fault: str, said: str, pair: Pair, tmp_path: Path
) -> None:
    began = time.monotonic()
    fields = {**PLAIN, "batch_size": 64, "run_dir": "run"}
    found = pair.run("train", tmp_path, method="ce", fields=fields, fault=fault)
    spoke = [each["error"] for each in found if each["error"][0] != "Silenced"]
    assert len(spoke) == 1
    assert said in spoke[0][1]
    assert [each["error"][1] for each in found if each["error"][0] == "Silenced"] == ["2"]
    assert time.monotonic() - began < 300, "nobody waits for the end of a collective's timeout"


def test_a_full_disk_ends_all_and_leaves_the_earlier_checkpoint(pair: Pair, tmp_path: Path) -> None:
    fields = {**PLAIN, "batch_size": 64, "epochs": 2, "run_dir": "run"}
    found = pair.run("train", tmp_path, method="elr", fields=fields, fault="disk:1:2")
    spoke = [each["error"] for each in found if each["error"][0] != "Silenced"]
    assert len(spoke) == 1
    assert spoke[0][0] == "CheckpointError"
    assert "No space left on device" in spoke[0][1]
    saved = RunFolder(tmp_path / "run").read_checkpoint(CPU)
    assert saved is not None
    assert (saved["epoch"], saved["batch"]) == (2, 0)
    again = pair.run("train", tmp_path, method="elr", fields=fields, resume=True)
    assert again[0] == again[1]


def test_a_method_of_ones_own_says_whether_it_can(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\nfrom torch.nn.functional import cross_entropy\n\n"
        "from fastnoise.methods import Method\n\n\n"
        "class Mine(Method):\n    def loss(self, outputs, labels, index):\n"
        "        return cross_entropy(outputs.logits, labels)\n\n\n"
        "class Both(Mine):\n    parallel = True\n\n"
        "    def end_epoch(self, run):\n        # samples of one of two processes alone\n"
        "        found = run.scan(lambda outputs, index: index + 1, samples=np.array([0, 2, 4]))\n"
        "        assert found[[0, 2, 4]].tolist() == [1, 3, 5]\n"
    )
    found = pair.run("train", tmp_path, method=f"{tmp_path}/own.py:Mine", fields={**PLAIN, "run_dir": "one"})
    spoke = [each["error"] for each in found if each["error"][0] != "Silenced"]
    assert spoke[0][0] == "ConfigError"
    assert "trains in one process: drop --gpus and torchrun" in spoke[0][1]
    found = pair.run("train", tmp_path, method=f"{tmp_path}/own.py:Both", fields={**PLAIN, "run_dir": "two"})
    assert found[0] == found[1]


# -- the command line ----------------------------------------------------------------------------------------

WORDS = (
    *("train", "--method", "elr", "--model", "small_cnn", "--batch-size", "16", "--device", "cpu"),
    *("--save-every", "0.1s", "--loader-threads", "1", "--width", "0.25"),
)


def workers(of: int) -> list[int]:
    """The processes that a process has started."""
    threads = Path(f"/proc/{of}/task").glob("*/children")
    return [int(word) for thread in threads for word in thread.read_text().split()]


def kill_one(launcher: Forked, saved: Path, chance: random.Random, seen: str, epochs: int) -> str | None:
    """Kill one of the two processes at a random moment after the checkpoint that `saved` names has changed from `seen`.

    Returns the name of the checkpoint then; None if the run is over, or in the last of its epochs.
    """
    while launcher.poll() is None:
        now = saved.read_text() if saved.exists() else seen
        if now != seen and len(found := workers(launcher.pid)) == 2:
            time.sleep(chance.uniform(0, 0.1))
            if int(saved.read_text().partition("-")[0]) >= epochs:
                return None
            os.kill(chance.choice(found), signal.SIGKILL)
            while launcher.poll() is None and set(workers(launcher.pid)) & set(found):
                time.sleep(0.02)
            return saved.read_text()
        time.sleep(0.02)
    return None


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_processes_start_again_and_end_as_if_undisturbed(
    kills: int, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Undisturbed, two processes with the environment that torchrun gives them write one folder, one summary, one line
    an epoch."""
    epochs = 2 + 2 * kills
    run = [*WORDS, "--epochs", str(epochs)]
    pair.run("words", tmp_path, words=run)
    (whole,) = (tmp_path / "runs").iterdir()
    assert json.loads((whole / "summary.json").read_text())["epochs"] == epochs
    assert [line["epoch"] for line in history(whole)] == list(range(1, epochs + 1))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "120")
    launcher = Forked(*run, "--run-dir", "cut", "--gpus", "2", "--max-restarts", str(kills))
    chance, killed, seen = random.Random(kills), 0, ""
    while killed < kills:
        found = kill_one(launcher, tmp_path / "cut" / "checkpoints" / "latest", chance, seen, epochs)
        if found is None:
            break
        killed, seen = killed + 1, found
    out, err = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, err
    assert killed == kills
    assert out.count("resumed: going on in epoch") == killed, out
    assert "2 x 16 = 32 images a step; the learning rate stays as given" in out
    assert "time in collectives" in out
    assert_equal_states(states(whole), states(tmp_path / "cut"))
    shown = [
        [{key: value for key, value in line.items() if key not in TIMES | {"collectives"}} for line in history(run)]
        for run in (whole, tmp_path / "cut")
    ]
    assert shown[0] == shown[1]


@pytest.mark.slow
def test_a_fault_that_another_start_would_repeat_ends_all_with_one_message(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from fastnoise.methods import METHODS\n\n\nclass Mine(METHODS['ce']):\n    parallel = True\n\n"
        "    def loss(self, outputs, labels, index):\n"
        "        return super().loss(outputs, labels, index) * (float('nan') if self.shards.rank else 1)\n"
    )
    words = [sys.executable, "-m", "fastnoise.cli", *WORDS, "--method", "own.py:Mine", "--epochs", "1", "--gpus", "2"]
    found = subprocess.run([*words, "--max-restarts", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.count("fastnoise: error: the loss became NaN or infinite at step 1 of epoch 1") == 1
    assert len(list((tmp_path / "runs").iterdir())) == 1


def alone_after_a_restart(store: torch.distributed.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of the first of two processes that have been started again, and the store that they share."""
    variables = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1", "LOCAL_RANK": "0"}
    for name, value in (variables | {"TORCHELASTIC_RESTART_COUNT": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError("the loss became NaN"), 2),
        (Interrupted("saved", 15), 143),
        (KeyboardInterrupt(), 130),
        (LostContact("another one was killed"), None),
        (RuntimeError("CUDA error: uncorrectable ECC error"), None),
    ],
)
def test_only_what_another_start_may_mend_starts_again(
    error: BaseException, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = torch.distributed.HashStore()
    alone_after_a_restart(store, monkeypatch)

    def fails() -> None:
        with together("cpu") as world:
            assert (world.rank, world.size, world.restarts, world.neighbours) == (0, 2, 1, 2)
            raise error

    with pytest.raises(type(error)):
        fails()
    if code is None:
        assert World.meet("cpu").size == 2
        return
    with pytest.raises(Silenced) as silenced:
        World.meet("cpu")
    assert silenced.value.code == code


def test_a_process_that_cannot_hear_of_the_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that waits for a GPU, which waits for one that is not there any more."""
    store, ends = torch.distributed.HashStore(), []
    alone_after_a_restart(store, monkeypatch)
    monkeypatch.setattr("fastnoise.engine.distributed.GRACE", 0)
    monkeypatch.setattr("os._exit", ends.append)
    world, other = World.meet("cpu"), World(1, 2)
    other.store, seen = store, []

    def pause(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 2:  # nobody has spoken before
            other.give_up(TrainingError("the loss became NaN"))
            assert other.speaks()

    monkeypatch.setattr(time, "sleep", pause)
    world.follow()
    assert ends == [2]
    assert not world.speaks()
    other.follow()  # the one that spoke ends by itself
    assert ends == [2]


def test_a_folder_that_was_being_made_when_the_processes_died_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = torch.distributed.HashStore()
    alone_after_a_restart(store, monkeypatch)
    monkeypatch.setattr(World, "first", lambda self, of: of())
    world, config = World.meet("cpu"), configured("ce", run_dir=str(tmp_path / "run"))
    assert restarted(config, False, world) == (config, False)  # they died before
    folder = RunFolder.create(config)
    note_folder(folder.path, world)
    (folder.path / "labels.npz").write_bytes(b"half")
    assert restarted(config, False, world) == (config, False)
    again = RunFolder.create(config)
    again.write_config(config)
    assert restarted(config.replace({"run_dir": None}), False, world) == (config, True)
    assert again.config.is_file()


def test_what_several_processes_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--max-restarts is for the processes that --gpus starts" in refusal(capsys, "--max-restarts", "2")
    assert "--gpus must be 0 or more, not -1" in refusal(capsys, "--gpus", "-1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "the environment has WORLD_SIZE=2 and no RANK; start the processes by torchrun" in refusal(capsys)
    assert main(["sweep", "sweep.toml"]) == 2
    assert "fastnoise sweep is one process, and this is one of 2 (WORLD_SIZE)" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert main(["sweep", "sweep.toml"]) == 2
    assert not capsys.readouterr().err


def test_one_process_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", None)
    fastnoise.train(configured("elr", **PLAIN, run_dir=str(tmp_path / "run")))
    assert not torch.distributed.is_initialized()
    assert "collectives" not in history(tmp_path / "run")[0]
