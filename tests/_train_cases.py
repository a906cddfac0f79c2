"""What tests of training share: run folders read, compared, and refusals of the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fastnoise.cli import main
from fastnoise.engine import RunFolder
from fastnoise.engine.step import Step

TIMES = {"images_per_second", "data_wait", "seconds", "epoch_seconds", "memory_gib"}

LATER = {"plain", "multitask", "posteriors", "c2d", "swce_dividemix"}
LATER |= {"jocor", "cores", "gjs", "disc", "sop", "sop_plus", "ssr", "ssr_plus", "volminnet", "dual_t"}
LATER |= {"augdesc", "pes", "pes_semi", "promix"}
"""Methods that version 0.1.0 did not have."""

TWO_EPOCHS: dict[str, tuple[str, ...]] = {
    "swce": ("--warm-up", "1", "--stages", "1", "--rate-factors", "1,1"),
    "disc": ("--warm-up", "1"),
    "pes": ("--warm-up", "0", "--stage-epochs", "0", "--head-epochs", "1"),
    "pes_semi": ("--warm-up", "0", "--head-epochs", "1"),
    "cores": ("--ramp-from", "0", "--ramp-to", "1", "--sieve-from", "2"),
    "c2d": ("--pretrain-epochs", "1", "--warm-up", "1"),
    "swce_dividemix": ("--pipeline-warm-up", "0", "--stages", "1", "--rate-factors", "1,1", "--warm-up", "0"),
}
"""Method -> the words with which a run of two epochs goes through all that the method does in a longer one."""


class Killed(BaseException):
    """Nothing of the engine's handles it: the run ends as by kill -9."""


def noted(monkeypatch: pytest.MonkeyPatch, kill_at: tuple[int, int] | None = None) -> list[tuple[int, int]]:
    """Where checkpoints are written; with `kill_at`, the end once one is there."""
    places: list[tuple[int, int]] = []
    original = RunFolder.write_checkpoint

    def write(self: RunFolder, state: dict[str, Any]) -> None:
        original(self, state)
        places.append((state["epoch"], state["batch"]))
        if places[-1] == kill_at:
            raise Killed

    monkeypatch.setattr(RunFolder, "write_checkpoint", write)
    return places


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have the training step `number`, counted from 1, raise what nothing catches."""
    steps, train = [0], Step.train

    def counting(self: Step, images: torch.Tensor, index: torch.Tensor) -> Any:
        steps[0] += 1
        if steps[0] == number:
            raise GeneratorExit
        return train(self, images, index)

    monkeypatch.setattr(Step, "train", counting)


def history(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def assert_same_end(run: Path, other: Path) -> None:
    """Metrics, weights, optimiser, target table and scores are bit-identical."""
    assert history(run) == history(other)
    first, second = state(run), state(other)
    for part in ("networks", "method"):
        assert first[part].keys() == second[part].keys()
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), name
    assert torch.equal(first["labels"], second["labels"])
    looks = [content["statistics"]["looks"] for content in (first, second)]
    assert (looks[0] is None) == (looks[1] is None), "tasks other than classification have none"
    assert looks[0] is None or torch.equal(*looks)
    for position, moments in first["optimizer"]["state"].items():
        for name, tensor in moments.items():
            assert torch.equal(tensor, second["optimizer"]["state"][position][name]), name


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run the command line, which must refuse with exit code 2 and one line; return the line."""
    assert main(["train", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("fastnoise: error: ")
    return lines[0]
