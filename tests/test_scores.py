"""The scores that a run collects of its given labels: what the losses note, what a run makes of it and writes."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _interpret import interpret
from _look_cases import SAMPLES, by_op, measure, op_of, options_of, transcribed
from _loss_cases import ONE_PER_OP
from _manual import block
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck

import fastnoise
from fastnoise import losses
from fastnoise.data import ImageDataset
from fastnoise.engine.scores import missed_share, missed_shares
from fastnoise.losses import fused_linear
from fastnoise.methods import METHODS, Method
from fastnoise.methods.base import Run
from fastnoise.ops.looks import CONFIDENCE, FORGOTTEN, LABEL, LOOK, LOOKS, MARGIN, RIGHT, new_looks, note_looks
from fastnoise.recipes import recipe

EVERY = (*ONE_PER_OP, "ema", "look")
HALF = ("elr", "selc", "nal", "elr_plus", "ema")


def assert_noted(found: dict[str, Any], dtype: str = "float32") -> None:
    assert found["others"] == 0, "counts, labels and rows of others"
    assert found["sums"] < 1e-6


# -- the kernels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", EVERY)
def test_every_loss_notes_what_it_sees(rule: str) -> None:
    """In C++, float64 up to four classes; labels of the loss are not those of the table."""
    for columns, dtype in ((2, "float32"), (4, "bfloat16"), (10, "float32"), (70, "float16"), (1000, "float32")):
        assert_noted(measure(by_op, rule, columns, dtype))
    assert_noted(measure(by_op, rule, 10, "float32", half=rule in HALF, ignore=rule != "ce-soft"))


# Rows of 70 in blocks of 32 are looped over or held.
INTERPRETED = [
    *product((None,), EVERY, (10,), ("float32",), (False,), (False,)),
    *product((None,), ("ce", "nal", "look"), (3,), ("bfloat16",), (False,), (False,)),
    *product((None,), ("elr", "nal", "ema"), (10,), ("float32",), (True,), (False,)),
    *product((None,), ("ce", "elr"), (10,), ("float32",), (False,), (True,)),
    *product((32, "held-32"), ("ce", "elr", "sop", "look"), (70,), ("float32",), (False,), (False,)),
    *product((None,), ("ce", "elr"), (1000,), ("float32",), (False,), (False,)),
    (None, "elr", 4097, "float32", False, False),
]


def test_the_gpu_kernels_note_the_same() -> None:
    pytest.importorskip("triton", reason="needs triton")
    for case, found in zip(INTERPRETED, interpret("_look_cases.py", INTERPRETED), strict=True):
        assert_noted(found), case


AHEAD = [*product(("ce", "elr", "look"), (10, 1000)), ("nal", 100), ("elr", 9000)]


def check_ahead(rule: str, columns: int, dtype: str, arch: int, folder: Path, **form: Any) -> None:
    """A loss that notes looks spills nothing."""
    from _ahead import compile_op, spilled
    from fastnoise.kernels import rules

    op = op_of(rule)
    parts = rules.Rule() if op is LOOK else getattr(rules, op.name.upper())
    reduction = "mean" if op.loss else "none"
    kernel = compile_op(op, parts, options_of(rule), columns, dtype, arch, reduction=reduction, looks=True, **form)
    assert spilled(kernel, folder) == {"STACK": 0, "LOCAL": 0}


@pytest.mark.parametrize("number", range(len(AHEAD)), ids=["-".join(map(str, pair)) for pair in AHEAD])
def test_compiles_ahead_of_time(number: int, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    turns = list(product(("float32", "float16", "bfloat16"), (80, 90, 100)))
    check_ahead(*AHEAD[number], *turns[number % len(turns)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rule", EVERY)
def test_compiles_ahead_of_time_everywhere(rule: str, tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="needs triton")
    for turn, columns in enumerate((2, 4, 10, 100, 1000, 2048, 4096, 9000, 21841)):
        for number, arch in enumerate((80, 90, 100)):
            dtype = ("float32", "float16", "bfloat16")[(number + turn) % 3]
            check_ahead(rule, columns, dtype, arch, tmp_path)


def test_the_op_is_one_for_a_compiler() -> None:
    table = new_looks(torch.arange(5))
    opcheck(LOOK.overload, (torch.randn(3, 5), None, "none", table, torch.tensor([4, 0, 2])))


# -- the losses --------------------------------------------------------------------------------------------------


def noting(loss: losses.base.FusedLoss, labels: Tensor) -> Tensor:
    loss.looks = new_looks(labels)
    return loss.looks


def batch(size: int = 6, classes: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(size)
    labels = torch.randint(classes, (SAMPLES,))
    return torch.randn(size, classes, requires_grad=True), labels, torch.randperm(SAMPLES)[:size]


def test_a_loss_notes_in_training_mode_alone_and_changes_by_nothing() -> None:
    logits, labels, index = batch()
    plain, loss = losses.CrossEntropyLoss(), losses.CrossEntropyLoss()
    looks = noting(loss, labels)
    assert torch.equal(loss(logits, labels[index], index), plain(logits, labels[index], index))
    loss(logits, labels[index], index).backward()
    before = looks.clone()
    assert before[index, LOOKS].eq(2).all()
    assert before[:, LOOKS].sum() == 2 * len(index)
    loss.eval()(logits, labels[index], index)
    loss.train()(logits, labels[index])  # nobody says whose rows these are
    assert torch.equal(looks, before)
    assert "looks" not in loss.state_dict()


def test_recomputed_activations_are_no_second_look() -> None:
    from torch.utils.checkpoint import checkpoint

    logits, labels, index = batch()
    loss = losses.ELRLoss(SAMPLES, 10, strength=3.0, momentum=0.7)
    looks = noting(loss, labels)
    checkpoint(lambda z: loss(z, labels[index], index), logits, use_reentrant=False).backward()
    assert looks[:, LOOKS].max() == 1


def test_a_sample_that_is_twice_in_a_batch_is_seen_twice_in_order() -> None:
    """On a CPU; on a GPU such rows race, as those of targets do."""
    labels = torch.tensor([0, 1])
    looks = new_looks(labels)
    note_looks(torch.tensor([[5.0, 0.0], [0.0, 5.0], [0.0, 5.0]]), torch.tensor([0, 0, 7]), looks)
    assert looks[0, [LABEL, RIGHT, LOOKS, FORGOTTEN]].tolist() == [0, 0, 2, 1]
    assert not looks[1, LOOKS:].any(), "position 7 lies outside"


def test_logits_that_nobody_writes_are_seen_too() -> None:
    torch.manual_seed(0)
    labels, index = torch.randint(40, (SAMPLES,)), torch.randperm(SAMPLES)[:9]
    features, weight = torch.randn(9, 16), torch.randn(40, 16)
    for loss in (losses.CrossEntropyLoss(), losses.ELRLoss(SAMPLES, 40, strength=3.0, momentum=0.7)):
        looks, expected = noting(loss, labels), new_looks(labels)
        loss(fused_linear(features, weight, block_rows=4), labels[index], index)
        note_looks(features @ weight.T, index, expected)
        torch.testing.assert_close(looks, expected)


def test_a_loss_of_ones_own_notes_on_the_cpu() -> None:
    def squares(logits: Tensor, labels: Tensor) -> Tensor:
        return (1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]).square()

    logits, labels, index = batch()
    loss = losses.rule("scored::squares", squares)()
    looks, expected = noting(loss, labels), new_looks(labels)
    loss(logits, labels[index], index).backward()
    note_looks(logits, index, expected)
    assert torch.equal(looks, expected)


@pytest.mark.parametrize("half", [False, True])
def test_compiled_as_one_graph(half: bool) -> None:
    logits, labels, index = batch()
    with torch.no_grad():
        logits[torch.arange(len(index)), labels[index]] += 9  # right at first
    dtype = torch.bfloat16 if half else torch.float32
    found = []
    for compiles in (False, True):
        torch._dynamo.reset()
        loss = losses.ELRLoss(SAMPLES, 10, strength=3.0, momentum=0.7, target_dtype=dtype)
        looks = noting(loss, labels)

        def step(z: Tensor, loss: Any = loss) -> Tensor:
            value: Tensor = loss(z, labels[index], index)
            return value

        call = torch.compile(step, fullgraph=True) if compiles else step
        for turn in range(3):
            call(logits * (1 - turn)).backward()
        found.append(looks)
    torch.testing.assert_close(*found)
    assert found[0][:, FORGOTTEN].any()


# -- a run -------------------------------------------------------------------------------------------------------


FEW = {"limit_train": 160, "epochs": 4, "width": 0.25, "loader_threads": 1, "device": "cpu"}


def trained(method: str, folder: Path, **fields: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = recipe(method, "digits", "symmetric:0.4").replace({**FEW, "run_dir": str(folder), **fields})
    summary = fastnoise.train(config)
    with np.load(folder / "scores.npz") as arrays:
        return summary, dict(arrays)


@pytest.mark.parametrize("method", ["ce", "elr", "gce"])
def test_several_epochs_are_those_of_the_papers(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ce and elr note in their losses, gce in the step; against the logits of every step in plain float64."""
    seen: list[tuple[Tensor, Tensor]] = []
    kind = METHODS[method]
    before = kind.loss

    def spy(self: Method, outputs: Any, labels: Tensor, index: Tensor) -> Tensor:
        seen.append((outputs.logits.detach().clone(), index.clone()))
        return before(self, outputs, labels, index)

    monkeypatch.setattr(kind, "loss", spy)
    _, scores = trained(method, tmp_path / "run", epochs=6)
    looks = new_looks(torch.from_numpy(scores["given"])).double()
    steps = len(seen) // 6
    for number, (logits, index) in enumerate(seen):
        if number == steps:
            looks[:, MARGIN] = 0  # the first epoch's margins are left out
        transcribed(looks, logits, index)
    np.testing.assert_array_equal(scores["looks"], np.full(len(looks), 6))
    np.testing.assert_allclose(scores["aum"], looks[:, MARGIN] / 5, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores["confidence"], looks[:, CONFIDENCE] / 6, rtol=1e-5, atol=1e-6)
    events = looks[:, FORGOTTEN].numpy()
    never = (events == 0) & (looks[:, RIGHT].numpy() == 0)
    np.testing.assert_array_equal(scores["forgetting"], np.where(never, np.inf, events))
    assert len(np.unique(scores["forgetting"])) > 2


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary, scores = trained("elr", tmp_path / "run", epochs=8)
    header, *rows = (tmp_path / "run" / "scores.csv").read_text().splitlines()
    assert header == "position,given,aum,confidence,forgetting,looks,true"
    assert list(scores) == header.split(",")
    assert len(rows) == 160
    assert rows[3].split(",")[2] == f"{scores['aum'][3]:.6g}"
    wrong = scores["given"] != scores["true"]
    for name, sign in (("aum", 1), ("confidence", 1), ("forgetting", -1)):
        order = np.argsort(sign * scores[name], kind="stable")
        missed = summary["scores"][name]["missed"]
        if name != "forgetting":  # which ties
            assert missed == pytest.approx(1 - wrong[order[: wrong.sum()]].mean())
        assert missed < 0.6, "what chance misses"
    stored = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert stored["scores"] == summary["scores"]
    assert 0 <= stored["label_errors"]["missed"] <= 1
    output = capsys.readouterr().out
    assert all(f"wrong labels missed by {name}" in output for name in ("AUM", "the mean probability", "forgetting"))


def test_the_example_of_the_manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, scores = trained("elr", Path("runs/elr"))
    names: dict[str, Any] = {}
    exec(block("scores", "python"), names)
    assert len(names["suspects"]) == 100
    assert (scores["given"] != scores["true"])[names["suspects"]][:40].mean() > 0.5


def test_names_and_unknown_truth(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (40, 12, 12), dtype=np.uint8)
    labels = np.arange(40) % 2
    test = {"test_images": images[:8], "test_labels": labels[:8]}
    data = ImageDataset.from_arrays(images, labels, class_names=["a", "b"], **test)
    fields = {**FEW, "limit_train": None, "epochs": 1, "run_dir": str(tmp_path / "run")}
    config = recipe("ce", data.name).replace(fields)
    summary = fastnoise.train(config, dataset=data)
    assert "scores" not in summary
    header, first, *_ = (tmp_path / "run" / "scores.csv").read_text().splitlines()
    assert header == "position,given,aum,confidence,forgetting,looks"
    assert first.split(",")[1:3] == ["a", "nan"], "one epoch, whose margins are left out"


def test_a_method_sees_the_scores_between_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[int, Any]] = []
    monkeypatch.setattr(METHODS["ce"], "end_epoch", lambda self, run: found.append((run.epoch, run.scores())))
    trained("ce", tmp_path / "run", epochs=3)
    assert [epoch for epoch, _ in found] == [0, 1, 2, 3]
    for epoch, scores in found:
        assert scores.looks.eq(epoch).all()
    assert found[1][1].aum.isnan().all()
    assert found[2][1].aum.isfinite().all()
    assert Run.__dataclass_fields__["scores"].default() is None


SHORT: dict[str, dict[str, Any]] = {
    "dividemix": {"warm_up": 1, "loss_epochs": 1},
    "c2d": {"pretrain_epochs": 1, "warm_up": 1},
    "swce": {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "optimizer": "sgd", "epochs": 2},
    "swce_dividemix": {"pipeline_warm_up": 0, "stages": "1", "rate_factors": "1,1", "warm_up": 1},
    "forward": {"warm_up": 1},
    "dual_t": {"warm_up": 1},
    "disc": {"warm_up": 1},
    "selc_plus": {"update_from": 1},
    "posteriors": {},
}
ONE_TASK = [name for name, kind in METHODS.items() if kind.tasks is None or "classification" in kind.tasks]


@pytest.mark.parametrize("method", [name for name in ONE_TASK if name != "mixup"])
def test_every_method_collects_scores_of_unmixed_images(method: str, tmp_path: Path) -> None:
    _, scores = trained(method, tmp_path / "run", batch_size=32, **SHORT.get(method, {}))
    assert (scores["looks"] > 0).mean() > 0.9
    assert np.isfinite(scores["aum"]).any()
    assert len(np.unique(scores["confidence"])) > 100
    seen = scores["looks"] > 0
    assert ((scores["confidence"][seen] >= 0) & (scores["confidence"][seen] <= 1 + 1e-6)).all()


def test_mixtures_alone_give_no_scores(tmp_path: Path) -> None:
    config = recipe("mixup", "digits", "symmetric:0.4").replace({**FEW, "epochs": 1, "run_dir": str(tmp_path / "run")})
    assert "scores" not in fastnoise.train(config)
    assert not (tmp_path / "run" / "scores.csv").exists()


# -- what they find ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0, np.inf]), st.booleans()), min_size=1, max_size=9).filter(
        lambda pairs: any(wrong for _, wrong in pairs)
    )
)
@settings(deadline=None)
def test_ties_are_broken_at_random_on_the_mean(pairs: list[tuple[float, bool]]) -> None:
    suspicion, wrong = np.array([value for value, _ in pairs]), np.array([flag for _, flag in pairs])
    random, found = np.random.default_rng(0), []
    for _ in range(400):
        order = np.lexsort((random.random(len(pairs)), -suspicion))
        found.append(1 - wrong[order[: wrong.sum()]].mean())
    assert missed_share(suspicion, wrong) == pytest.approx(np.mean(found), abs=0.1)


def test_shares_of_scores_without_looks_or_wrong_labels() -> None:
    columns = {
        "aum": np.full(4, np.nan, np.float32),
        "confidence": np.array([0.1, 0.9, 0.2, 0.8], np.float32),
        "forgetting": np.array([np.inf, 0, 3, np.nan], np.float32),
    }
    wrong = np.array([True, False, True, False])
    assert missed_shares(columns, wrong) == {"confidence": 0.0, "forgetting": 0.0}
    assert missed_shares(columns, ~wrong) == {"confidence": 1.0, "forgetting": 1.0}
    assert missed_shares(columns, np.zeros(4, bool)) == {}
