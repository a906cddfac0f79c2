"""Several processes that train one run: the same numbers as one process, and one end whatever happens to one of them.

Two processes (gloo, on the CPU) serve all tests of this module.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _pair import Pair
from _train_cases import history

import fastnoise
from fastnoise.data.plan import Augmentation, Plan
from fastnoise.engine import RunFolder
from fastnoise.engine.trainer import Training
from fastnoise.losses.tables import merge_shards
from fastnoise.recipes import recipe

CPU = torch.device("cpu")
NET = f"{Path(__file__).parent}/_small_net.py:SmallNet"
PLAIN = {"model": NET, "crop_padding": 0, "flip": False, "epochs": 1, "save_every": 1}
"""A network without batch norm, and images as they are."""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    processes = Pair()
    yield processes
    processes.close()


def states(run: Path) -> dict[str, Any]:
    """A checkpoint of two processes as one of one process has it: the rows of both."""
    folder = RunFolder(run)
    whole = folder.read_checkpoint(CPU)
    assert whole is not None
    parts = [torch.load(f"{whole['parts']}/part-{rank}-of-2.pt", weights_only=True) for rank in (0, 1)]
    for name in parts[0]["method"]:
        first, second = (part["method"][name] for part in parts)
        table = torch.zeros(len(first) + len(second), *first.shape[1:], dtype=first.dtype)
        table[0::2], table[1::2] = first, second
        whole["method"][name] = table
    return whole


def global_order(config: Any, count: int, epoch: int) -> np.ndarray:
    """The samples of an epoch in the order in which two processes take them, batch by batch."""
    size = config.data.batch_size
    batches = [
        [batch.index for batch in Plan(count, size, seed=config.engine.seed, shuffle=True, shard=(rank, 2)).batches(epoch)]
        for rank in (0, 1)
    ]
    return np.concatenate([np.concatenate(both) for both in zip(*batches, strict=True)])


@pytest.mark.parametrize("method", ["ce", "nal", "elr"])
def test_two_processes_are_one(
    method: str, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {**PLAIN, "batch_size": 64}
    both = pair.run("train", tmp_path, method=method, fields={**fields, "run_dir": "two"})
    assert both[0]["result"] == both[1]["result"], "weights or collectives differ"
    config = recipe(method, "digits", "symmetric:0.4").replace({**fields, "device": "cpu"})
    monkeypatch.setattr(
        Training, "_order", lambda self, epoch: global_order(config, len(self.members[0].data.given), epoch)
    )
    fastnoise.train(config.replace({"batch_size": 128, "run_dir": str(tmp_path / "one")}))
    one, two = RunFolder(tmp_path / "one").read_checkpoint(CPU), states(tmp_path / "two")
    assert one is not None
    for part in ("networks", "method"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(two[part][name], tensor, rtol=1e-6, atol=1e-6, msg=lambda m: f"{name}: {m}")
    assert history(tmp_path / "two")[0]["test_accuracy"] == history(tmp_path / "one")[0]["test_accuracy"]


OPTIONS: dict[str, dict[str, Any]] = {
    "dividemix": {"warm_up": 1, "epochs": 3, "loss_epochs": 1},
    "swce": {"warm_up": 1, "stages": "1,2", "rate_factors": "1,1", "epochs": 3, "optimizer": "sgd"},
    "forward": {"warm_up": 1},
    "gce": {"update_from": 2},
    "plc": {"warm_up": 0},
    "selc": {"update_from": 1},
    "coteaching": {"forget_epochs": 2},
    "elr_plus": {},
}
