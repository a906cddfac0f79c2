"""Tables of targets in host memory (--target-place host): the same numbers, and memory that a GPU's kernels reach."""

import copy
import gc
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _train_cases import assert_same_end, refusal

import fastnoise
from fastnoise.config import RunConfig
from fastnoise.engine.prepare import create_parts, load_data
from fastnoise.engine.stacked import train_stacked
from fastnoise.engine.trainer import Training
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import ELRLoss, ELRPlusLoss, NALLoss, TargetLoss, tables
from fastnoise.methods.single import share_of_given
from fastnoise.recipes import recipe

ROOT = Path(__file__).resolve().parents[1]


def configured(run: Path, method: str, **fields: Any) -> RunConfig:
    small = {"limit_train": 200, "epochs": 2, "width": 0.25, "batch_size": 64, "save_every": 1, "device": "cpu"}
    return recipe(method, "digits", "symmetric:0.4").replace({**small, "run_dir": str(run), **fields})


# -- runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("elr", {"target_dtype": "bfloat16"}),
        ("nal", {}),
        ("elr_plus", {}),
        pytest.param("elr", {"gear": "compiled", "model": "mlp"}, marks=pytest.mark.slow),
        pytest.param("selc_plus", {}, marks=pytest.mark.slow),
    ],
)
def test_a_run_has_the_same_numbers(
    method: str, fields: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fastnoise.train(configured(tmp_path / "device", method, **fields))
    assert "in host memory" not in capsys.readouterr().out
    fastnoise.train(configured(tmp_path / "host", method, **fields, target_place="host"))
    said = " ".join(capsys.readouterr().out.split())
    assert "kB in host memory, where they are anyhow on a CPU" in said
    assert_same_end(tmp_path / "device", tmp_path / "host")


def test_a_run_goes_on_with_its_targets_in_the_other_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastnoise.train(configured(tmp_path / "whole", "elr", epochs=3))
    run, before = configured(tmp_path / "run", "elr", epochs=3), Training._epoch
    for place in ("host", "device"):
        with monkeypatch.context() as patch:
            done = [0]

            def begin(self: Training, *rest: Any, done: list[int] = done) -> Any:
                if done[0]:
                    raise OSError("pulled the plug")
                done[0] = 1
                return before(self, *rest)

            patch.setattr(Training, "_epoch", begin)
            with pytest.raises(OSError, match="pulled the plug"):
                fastnoise.train(run.replace({"target_place": place}), resume=place == "device")
    fastnoise.train(run.replace({"target_place": "host"}), resume=True)
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_what_keeps_no_targets_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--target-place host: method ce keeps no targets; drop the option"):
        fastnoise.train(configured(tmp_path / "run", "ce", target_place="host"))
    with pytest.raises(ConfigError, match="--target-place host keeps the targets of one run"):
        train_stacked([configured(tmp_path / "stack", "elr", target_place="host")])
    assert "--target-place" in refusal(capsys, "--method", "elr", "--target-place", "disk")


def test_a_table_too_large_for_the_gpu_says_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    monkeypatch.setattr(tables, "free_memory", lambda device: 1000 if device.type == "cuda" else None)
    config = configured(tmp_path / "run", "elr")
    with pytest.raises(
        ConfigError, match=r"cuda has 1\.0 kB free: .*, or keep it in host memory \(target_place='host'"
    ):
        create_parts(config, load_data(config), cuda, fresh=True)


# -- losses ----------------------------------------------------------------------------------------------------


def made(kind: type[TargetLoss], **options: Any) -> TargetLoss:
    loss: TargetLoss = kind(20, 5, strength=1.0, momentum=0.9, target_place="host", **options)
    loss.targets.copy_(torch.rand(20, 5))
    return loss


@pytest.mark.parametrize("kind", [ELRLoss, NALLoss, ELRPlusLoss])
def test_a_table_stays_where_it_is(kind: type[TargetLoss]) -> None:
    """The device "meta" has no memory: what goes there has no numbers any more."""
    loss = made(kind, target_dtype=torch.bfloat16)
    before, visits = loss.targets, loss.visits
    numbers = before.clone()
    moved = torch.nn.ModuleList([loss]).to("meta")[0]
    assert moved.knobs.is_meta
    assert moved.targets is before
    assert moved.visits is visits
    assert torch.equal(moved.targets, numbers)
    assert moved.double().targets.dtype == torch.bfloat16
    assert "target_place='host'" in repr(loss)
    with torch.device("meta"):
        assert not kind(20, 5, strength=1.0, momentum=0.9, target_place="host").targets.is_meta
    other = made(kind, target_dtype=torch.bfloat16).to("meta")
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.targets, numbers)


def test_only_such_a_table_may_be_apart_from_the_logits() -> None:
    """Of a table in pageable memory, a kernel of a GPU would read what is not its own."""
    logits, labels, index = torch.zeros(4, 5, device="meta"), torch.zeros(4).long(), torch.arange(4)
    loss = made(ELRLoss).to("meta")
    assert loss(logits, labels.to("meta"), index.to("meta")).is_meta
    loss.on_host = False
    with pytest.raises(DataError, match="targets on cpu, logits on meta; put both on one"):
        loss(logits, labels.to("meta"), index.to("meta"))
    with pytest.raises(ConfigError, match="unknown target_place 'disk'"):
        ELRLoss(20, 5, strength=1.0, momentum=0.9, target_place="disk")


def test_a_table_is_read_in_parts_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a GPU: of the table, `to` gives the device one part after another."""
    loss = made(ELRLoss)
    loss.targets[3] = 0
    labels = torch.arange(20) % 5
    expected, shares = loss.hard_targets(labels), share_of_given([loss.targets], labels)
    monkeypatch.setattr("fastnoise.losses.base.ON_DEVICE", 15)
    sizes: list[int] = []

    class Elsewhere(torch.Tensor):
        """A table that says that it is on another device than the labels."""

        @property
        def device(self) -> Any:  # type: ignore[override]
            return "host"

        def to(self, *arguments: Any, **words: Any) -> torch.Tensor:
            sizes.append(len(self))
            return self.as_subclass(torch.Tensor)

    loss.targets = loss.targets.as_subclass(Elsewhere)
    assert torch.equal(loss.hard_targets(labels), expected)
    assert sizes == [3] * 6 + [2]
    assert expected[3] == labels[3]
    assert torch.equal(share_of_given([loss.targets], labels), shares)


class Driver:
    """What `torch.cuda.cudart()` gives, for the two calls that lock memory."""

    def __init__(self, code: int = 0):
        self.code, self.locked = code, {}

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:
        self.locked |= {address: size}
        return self.code

    def cudaHostUnregister(self, address: int) -> int:
        del self.locked[address]
        return 0


def test_memory_is_locked_for_as_long_as_the_table_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    table = torch.rand(33, 7).to(torch.bfloat16)
    locked = tables.page_locked(table)
    assert torch.equal(locked, table)
    assert locked.dtype == torch.bfloat16
    assert locked.is_contiguous()
    assert driver.locked == {locked.data_ptr(): table.nbytes}
    assert locked.data_ptr() % 4096 == 0
    part = locked[5:]
    del locked
    gc.collect()
    assert driver.locked  # a view holds the memory
    del part
    gc.collect()
    assert not driver.locked
    monkeypatch.setattr(torch.cuda, "cudart", lambda: Driver(code=2))
    with pytest.raises(ConfigError, match=r"the driver locks no 462 bytes of host memory .*\(CUDA error 2\)"):
        tables.page_locked(table)


def test_a_table_is_locked_when_its_loss_goes_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a loss too. The host waits for the kernels before it reads or writes the table."""
    driver, waits = Driver(), []
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: self.data_ptr() in driver.locked)
    loss = made(ELRLoss, target_dtype=torch.float16)
    numbers = loss.targets.clone()
    loss.__dict__["knobs"] = SimpleNamespace(is_cuda=True, device="cuda:0")  # in place of the buffer
    loss._lock_pages()
    assert set(driver.locked) == {loss.targets.data_ptr(), loss.visits.data_ptr()}
    assert torch.equal(loss.targets, numbers)
    before = loss.targets
    loss._lock_pages()
    assert loss.targets is before
    state = loss.state_dict()
    assert waits == ["cuda:0"]
    loss.load_state_dict(state)
    assert len(waits) == 2
    loss.hard_targets(torch.arange(len(loss.targets)) % 5)
    assert len(waits) == 3
    twin = copy.deepcopy(loss)
    assert twin.targets.data_ptr() in driver.locked
    assert twin.targets.data_ptr() != loss.targets.data_ptr()
    assert torch.equal(twin.targets, numbers)


# -- on a GPU ----------------------------------------------------------------------------------------------------

PRETENDED = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from benchmarks import launches
from fastnoise.losses.tables import storing

launches.pretend()
on_cuda, create = launches._on_cuda, launches.create_method
table = launches.SAMPLES, 10

def apart(value):  # all inputs of the step but the table and its counters
    kept = isinstance(value, torch.Tensor) and value.dtype != torch.int64 and value.shape in (table, table[:1])
    return torch.empty_like(value, device="cpu") if kept else on_cuda(value)

def created(*words, **options):
    with storing(target_place="host", target_dtype=torch.bfloat16):
        return create(*words, **options)

launches._on_cuda, launches.create_method = apart, created
rows = launches.measure(launches.Inductor(), "small_cnn", sys.argv[2], 128, 10)
print(rows["forward"]["fused_calls"], rows["forward"]["table_copies"], rows["backward"]["table_copies"])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "calls"), [("elr", 1), ("elr_plus", 4)])
def test_a_compiled_step_takes_the_table_where_it_is(method: str, calls: int) -> None:
    """Compiled as one graph for an H100 that is not there: the kernels get the table on the host, and nothing copies
    it."""
    pytest.importorskip("triton", reason="needs triton")
    found = subprocess.run(
        [sys.executable, "-c", PRETENDED, str(ROOT), method], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == f"{calls} 0 0"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gear", ["eager", "graphed", pytest.param("compiled_graphed", marks=pytest.mark.compiles)])
def test_a_gpu_reads_and_writes_the_rows_where_they_are(gear: str, dtype: str, tmp_path: Path) -> None:
    fields = {"device": "cuda", "gear": gear, "target_dtype": dtype, "amp": "off", "model": "mlp"}
    for place in ("device", "host"):
        fastnoise.train(configured(tmp_path / place, "elr", **fields, target_place=place))
    one, two = (
        torch.load(tmp_path / place / "checkpoint.pt", map_location="cpu", weights_only=True)["method"]
        for place in ("device", "host")
    )
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
    assert bool(two["criterion.targets"].any())


@pytest.mark.gpu
def test_a_loss_on_a_gpu_updates_its_table_on_the_host() -> None:
    loss = made(ELRLoss, shard=(0, 1))
    twin = ELRLoss(20, 5, strength=1.0, momentum=0.9)
    twin.load_state_dict(loss.state_dict())
    loss, twin = loss.cuda(), twin.cuda()
    assert loss.targets.is_cpu
    assert loss.targets.is_pinned()
    for kept in (loss, twin):
        torch.manual_seed(0)
        for _ in range(3):
            logits = torch.randn(8, 5, device="cuda", requires_grad=True)
            kept(logits, torch.arange(8, device="cuda") % 5, torch.arange(8, device="cuda")).backward()
    assert torch.equal(loss.state_dict()["targets"], twin.targets.cpu())
    labels = torch.zeros(20, dtype=torch.int64, device="cuda")
    assert torch.equal(loss.hard_targets(labels), twin.hard_targets(labels))
