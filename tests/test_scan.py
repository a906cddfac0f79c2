"""Run.scan: methods find with it what they would find with the outputs of all samples, and never hold those."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.engine import prepare
from fastnoise.engine.display import make_console
from fastnoise.engine.prepare import load_data
from fastnoise.engine.single import Single
from fastnoise.errors import TrainingError
from fastnoise.methods import Estimates, Method, Run, Setting, create_method, scan
from fastnoise.methods.correction import ColumnTops, SurestRows, percentile_from_top
from fastnoise.methods.scan import by_blocks, keep
from fastnoise.methods.shards import Shards
from fastnoise.models import Outputs
from fastnoise.recipes import recipe
from fastnoise.selection import StageTables
from fastnoise.selection.mixture import fit_losses

N, C, B = 1000, 60, 48
OPTIONS: dict[str, dict[str, Any]] = {
    "coteaching": {"forget_rate": 0.3},
    "cores": {"sieve_from": 1},
    "jocor": {"forget_rate": 0.3, "strength": 0.4},
    "dividemix": {"warm_up": 0, "loss_epochs": 1},
    "elr": {},
    "elr_plus": {},
    "dual_t": {"warm_up": 1},
    "forward": {"warm_up": 1, "percentile": 97.0},
    "forward-100": {"warm_up": 1, "percentile": 100.0},
    "gce": {"k": 0.02, "update_from": 2, "update_every": 1},
    "nal": {},
    "pes": {"warm_up": 0, "stage_epochs": 0, "head_epochs": 0},
    "plc": {"warm_up": 0, "window": 5, "threshold": 0.9},
    "promix": {"warm_up": 0, "keep_from": 0.4, "keep_ramp": 0, "keep_to": 0.4},
    "selc": {"update_from": 1},
    "sop": {},
    "sop_plus": {},
    "swce": {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "epochs": 2, "selection_threshold": 1.0},
    "swce-given": {
        "warm_up": 1, "stages": "1", "rate_factors": "1,1", "epochs": 2, "selection_threshold": 2.0,
        "selection_label": "given", "stage_statistics": "batch",
    },
}  # fmt: skip


class Linear(nn.Module):
    """A network of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(C, C + 1)

    def forward(self, images: Tensor) -> Outputs:
        found = self.layer(images)
        return Outputs(found[:, :C], found[:, C], images)


class Case:
    """A method between two epochs, with networks that find something in their samples and tables that are filled."""

    def __init__(self, case: str):
        torch.manual_seed(0)
        name = case.partition("-")[0]
        config = recipe(name, "digits", "symmetric:0.3").replace(OPTIONS[case])
        self.method: Any = create_method(config.method, num_samples=N, num_classes=C)
        self.method.configure(Setting(config.optim, (0.5,), (0.5,), 64))
        self.networks: list[Any] = [Linear() for _ in range(self.method.networks)]
        true = torch.randint(C, (N,))
        self.given = torch.where(torch.rand(N) < 0.3, torch.randint(C, (N,)), true)
        self.labels = self.given.clone()
        self.images = 2 * torch.randn(N, C) + 6 * F.one_hot(true, C)
        with torch.no_grad():
            for network in self.networks:
                network.layer.weight[:C] += torch.eye(C)
        if name == "elr_plus":
            for criterion in self.method.criterion:
                criterion.targets.copy_(torch.rand(N, C).softmax(1) * (torch.rand(N, 1) < 0.9))
        elif name in ("sop", "sop_plus"):
            self.method.criterion.targets.copy_(torch.rand(N, C) ** 4 * (torch.rand(N, 1) < 0.9))
        elif name in ("elr", "nal", "selc"):
            self.method.criterion.targets.copy_(torch.rand(N, C).softmax(1) * (torch.rand(N, 1) < 0.9))
        elif name == "plc":
            self.method.probs.copy_((3 * torch.rand_like(self.method.probs)).softmax(2))
        elif name in ("forward", "dual_t"):
            self.method.first = SimpleNamespace(restore=lambda networks: None)
        self.warnings: list[str] = []
        self.modes: list[bool] = []
        self.options = OPTIONS[case]

    @torch.no_grad()
    def whole(self) -> list[Outputs]:
        """The outputs of each network for all samples."""
        found = [network(self.images) for network in self.networks]
        return [outputs._replace(attention=outputs.attention.sigmoid()) for outputs in found]

    @torch.no_grad()
    def scan(self, of: Callable[[Sequence[Outputs], Tensor], Any], *, batch_statistics: bool = False) -> Any:
        self.modes.append(batch_statistics)

        def outputs(index: Tensor) -> list[Outputs]:
            found = [network(self.images[index]) for network in self.networks]
            return [each._replace(attention=each.attention.sigmoid()) for each in found]

        return keep(((index, of(outputs(index), index)) for index in torch.arange(N).split(B)), N)

    def run(self) -> Run:
        return Run(1, 2, 0, self.networks, self.given, self.labels, self.scan, self.warnings.append)

    def end(self) -> Estimates | None:
        """The hooks at the end of epoch 1 and of the run, in which only small tensors may be made."""
        with torch.no_grad():
            self.method.end_epoch(self.run())
            self.method.corrected(self.given)
            estimates: Estimates | None = self.method.estimates(self.run())
            return estimates


class NothingLarge(TorchDispatchMode):
    """Fails where an operation makes a tensor of as many numbers as [N, C]."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() not in given:
                assert each.numel() < N * C, f"{func} makes {list(each.shape)}"
        return found


# -- what the methods found when they had the outputs of all samples at hand ---------------------------------------


def reference_transition(probs: np.ndarray, percentile: float) -> np.ndarray:
    """Forward correction's T, of probabilities [N, C]."""
    rows = []
    for column in probs.T:
        likely = column.copy()
        if percentile < 100:
            likely[column >= np.percentile(column, percentile, method="higher")] = 0
        rows.append(probs[likely.argmax()])
    transition = np.maximum(np.array(rows, dtype=np.float64), 1e-8)
    return transition / transition.sum(1, keepdims=True)


def same(found: Estimates | None, labels: Tensor, confidence: Tensor, suspected: Tensor) -> None:
    assert found is not None
    assert torch.equal(found.labels, labels)
    assert torch.equal(found.confidence, confidence)
    assert torch.equal(found.suspected, suspected)


def check_coteaching(case: Case) -> None:
    found = case.end()
    logits = torch.stack([outputs.logits for outputs in case.whole()])
    probabilities = logits.softmax(2).mean(0)
    given = F.one_hot(case.given, C).bool()
    loss = -logits.log_softmax(2).mean(0)[given]
    suspected = torch.zeros(N, dtype=torch.bool)
    suspected[loss.argsort(descending=True, stable=True)[: int(0.3 * N)]] = True
    same(found, torch.where(suspected, probabilities.argmax(1), case.given), probabilities[given], suspected)


def check_jocor(case: Case) -> None:
    found = case.end()
    one, two = (outputs.logits for outputs in case.whole())
    loss = 0.6 * (
        F.cross_entropy(one, case.given, reduction="none") + F.cross_entropy(two, case.given, reduction="none")
    )
    for first, second in ((one, two), (two, one)):
        loss += 0.4 * F.kl_div(first.log_softmax(1), second.softmax(1), reduction="none").sum(1)
    assert found is not None
    assert int(found.suspected.sum()) == int(0.3 * N)
    assert loss[found.suspected].min() > loss[~found.suspected].max()
    probabilities = (one.softmax(1) + two.softmax(1)) / 2
    labels = torch.where(found.suspected, probabilities.argmax(1), case.given)
    same(found, labels, torch.stack([one, two]).softmax(2).mean(0)[range(N), case.given], found.suspected)


def check_dividemix(case: Case) -> None:
    case.end()
    logits = torch.stack([outputs.logits for outputs in case.whole()])
    assert torch.equal(case.method.prediction, logits.softmax(2).mean(0).argmax(1))
    for number, answers in enumerate(logits):
        losses = F.cross_entropy(answers, case.given, reduction="none")
        scaled = (losses - losses.min()) / (losses.max() - losses.min())
        assert torch.equal(case.method.losses[0, number], scaled)
        clean = fit_losses(scaled.numpy()).clean
        assert clean is not None
        assert torch.equal(case.method.clean[number], torch.from_numpy(clean).float())


def check_forward(case: Case) -> None:
    case.end()
    probs = case.whole()[0].logits.softmax(1).numpy()
    expected = reference_transition(probs, case.method.percentile)
    assert torch.equal(case.method.criterion.columns, torch.from_numpy(expected.T).float())
    assert not torch.equal(case.method.criterion.columns, torch.eye(C))


def check_dual_t(case: Case) -> None:
    case.end()
    probs = case.whole()[0].logits.softmax(1).numpy()
    pairs = np.zeros((C, C))
    np.add.at(pairs, (probs.argmax(1), case.given.numpy()), 1)
    assert pairs.sum(1).all()
    expected = reference_transition(probs, 97.0) @ (pairs / pairs.sum(1, keepdims=True))
    np.testing.assert_allclose(case.method.criterion.columns.T.numpy(), expected, rtol=1e-5, atol=2e-8)


def check_gce(case: Case) -> None:
    case.end()
    probs = case.whole()[0].logits.softmax(1)
    assert torch.equal(case.method.kept.bool(), probs[range(N), case.given] > 0.02)
    assert 0 < case.method.kept.mean() < 1


def check_pes(case: Case) -> None:
    found = case.end()
    probs = case.whole()[0].logits.softmax(1)
    confident = probs.argmax(1) == case.given
    assert 0 < confident.sum() < N
    assert torch.equal(case.method.confident, confident)
    same(found, probs.argmax(1), probs[range(N), case.given], ~confident)


def check_promix(case: Case) -> None:
    found = case.end()
    logits = torch.stack([outputs.logits for outputs in case.whole()])
    chosen = torch.zeros(2, N, dtype=torch.bool)
    for number, answers in enumerate(logits):
        losses = F.cross_entropy(answers, case.given, reduction="none")
        for label in range(C):
            members = (case.given == label).nonzero().ravel()
            chosen[number, members[losses[members].argsort()[: math.ceil(0.4 * N / C)]]] = True
    assert torch.equal(case.method.clean, chosen)
    probs = logits.softmax(2).mean(0)
    labels = torch.where(chosen.all(0), case.given, probs.argmax(1))
    assert 0.1 < (labels != case.given).float().mean() < 0.9
    same(found, labels, probs[range(N), case.given], labels != case.given)


def check_plc(case: Case) -> None:
    found = case.end()
    total = case.method.probs.sum(0)
    largest, predicted = total.max(1)
    wrong = total.gather(1, case.given[:, None]).squeeze(1) < 0.9 * largest
    assert 0 < wrong.sum() < N
    labels = torch.where(wrong, predicted, case.given)
    assert torch.equal(case.labels, labels)
    same(found, labels, total.gather(1, case.given[:, None]).squeeze(1) / total.amax(1), labels != case.given)


def check_swce(case: Case) -> None:
    case.method.timetable = type(case.method.timetable)(0, ((1,),))  # so that epoch 1 is a stage
    case.end()
    tables = StageTables(1, N, loss=case.method.tables.loss_name, mae=case.method.tables.mae)
    judged = case.given if case.options.get("selection_label") == "given" else None
    tables.record(0, case.whole()[0].logits, torch.arange(N), judged)
    for name, table in tables.named_buffers():
        assert torch.equal(getattr(case.method.tables, name), table), name
    assert case.modes == [case.options.get("stage_statistics") == "batch"]
    assert 0 < (case.method.pseudo >= 0).sum() < N


def check_targets(case: Case) -> None:
    found = case.end()
    criterion = case.method.criterion
    tables = [each.targets for each in criterion] if isinstance(criterion, nn.ModuleList) else [criterion.targets]
    targets = torch.stack(list(tables)).mean(0) if len(tables) > 1 else tables[0]
    total = targets.sum(1)
    labels = torch.where(targets.any(1), targets.argmax(1), case.given)
    share = targets.gather(1, case.given[:, None]).squeeze(1) / total
    same(found, labels, share.where(total > 0, 1.0).clamp(0, 1), labels != case.given)
    if case.method.name == "nal":
        assert found is not None
        assert found.attention is not None
        assert torch.equal(found.attention, case.whole()[0].attention)  # type: ignore[arg-type]


def check_cores(case: Case) -> None:
    found = case.end()
    log_probs = case.whole()[0].logits.log_softmax(1)
    given = log_probs[range(N), case.given]
    suspected = -given > -(log_probs.exp() + 1e-8).log().mean(1)
    assert 0.1 < suspected.float().mean() < 0.5
    same(found, torch.where(suspected, log_probs.argmax(1), case.given), given.exp(), suspected)
    assert torch.equal(case.method.prior, torch.bincount(case.given, minlength=C) / N)


def check_sop(case: Case) -> None:
    found, table = case.end(), case.method.criterion.targets
    noise = F.one_hot(case.given, C) * table**2 - (1 - F.one_hot(case.given, C)) * table**2
    cleaned = F.one_hot(case.given, C) - noise
    labels, own = cleaned.argmax(1), cleaned.gather(1, case.given[:, None])[:, 0]
    assert 0.1 < (labels != case.given).float().mean() < 0.9
    same(found, labels, own / cleaned.sum(1), labels != case.given)


CHECKS = {
    "cores": check_cores, "coteaching": check_coteaching, "dividemix": check_dividemix, "dual_t": check_dual_t,
    "elr": check_targets,
    "elr_plus": check_targets, "forward": check_forward, "gce": check_gce, "jocor": check_jocor, "nal": check_targets,
    "pes": check_pes, "plc": check_plc, "promix": check_promix,
    "selc": check_targets, "sop": check_sop, "sop_plus": check_sop, "swce": check_swce,
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_answers_are_those_of_the_whole_table(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, with tables gone through in several blocks."""
    monkeypatch.setattr(scan, "BLOCK", 128 * C)
    CHECKS[name.partition("-")[0]](Case(name))


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_of_the_size_of_a_table_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "BLOCK", 128 * C)
    case = Case(name)
    if case.method.name == "swce":
        case.method.timetable = type(case.method.timetable)(0, ((1,),))
    with NothingLarge():
        case.end()


# -- percentiles of columns ----------------------------------------------------------------------------------------


def test_rank_of_a_percentile_is_numpys() -> None:
    random = np.random.default_rng(0)
    for percentile in (0.1, 1.0, 33.3, 50.0, 90.0, 97.0, 99.0, 99.9, 100.0, *random.uniform(0, 100, 20)):
        for count in (1, 2, 3, 99, 100, 101, 1001, 10_001, *random.integers(1, 3000, 10)):
            column = np.arange(count, dtype=np.float32)
            expected = np.percentile(column, percentile, method="higher")
            assert column[::-1][percentile_from_top(percentile, count) - 1] == expected, (percentile, count)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("percentile", [97.0, 99.95, 60.0, 3.0])
def test_streamed_rows_are_those_of_the_whole_table(percentile: float, ties: bool) -> None:
    """With ties: rounded to few values, a column that is constant, one that is mostly 1, and one that is mostly 0."""
    random = np.random.default_rng(1)
    probs = random.dirichlet(np.full(7, 0.3), 500).astype(np.float32)
    if ties:
        probs = probs.round(1)
        probs[:, 0], probs[:450, 1], probs[:495, 2] = 0.25, 1, 0
    rows = torch.from_numpy(probs)
    tops = ColumnTops(percentile_from_top(percentile, 500))
    for part in rows.split(37):
        tops.add(part)
    assert np.array_equal(tops.least(Shards()).numpy(), np.percentile(probs, percentile, method="higher", axis=0))
    surest = SurestRows(tops.least(Shards()))
    for part, index in zip(rows.split(37), torch.arange(500).split(37), strict=True):
        surest.add(part, index)
    for column, found in zip(probs.T, surest.rows.numpy(), strict=True):
        likely = np.where(column >= np.percentile(column, percentile, method="higher"), 0, column)
        assert np.array_equal(found, probs[likely.argmax()])


# -- the parts -----------------------------------------------------------------------------------------------------


def test_keep_takes_a_tensor_several_or_none() -> None:
    index = torch.arange(10).split(4)
    assert torch.equal(keep(((part, 2 * part) for part in index), 10), 2 * torch.arange(10))
    first, second = keep(((part, (part > 3, part[:, None].half().expand(-1, 2))) for part in index), 10)
    assert first.tolist() == [False] * 4 + [True] * 6
    assert (second.dtype, list(second.shape)) == (torch.float16, [10, 2])
    assert keep(((part, None) for part in index), 10) is None


@pytest.mark.parametrize("found", [torch.zeros(()), torch.zeros(1), torch.zeros(5, 4)])
def test_keep_refuses_rows_that_are_not_the_samples(found: Tensor) -> None:
    with pytest.raises(TrainingError, match="return one row for each sample"):
        keep([(torch.arange(4), found)], 4)


def test_blocks_cover_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.rand(2, 300, 5)
    monkeypatch.setattr(scan, "BLOCK", 1280)  # 128 rows of two tables
    seen: list[slice] = []

    def of(rows: slice) -> Tensor:
        seen.append(rows)
        return table[:, rows].sum((0, 2))

    torch.testing.assert_close(by_blocks(of, table), table.sum((0, 2)))
    assert [rows.start for rows in seen] == [0, 128, 256]


# -- the trainer's pass --------------------------------------------------------------------------------------------


class Watching(Method):
    """Plain training that looks at the training set after each epoch."""

    name = "watching"
    networks = 2

    def __init__(self, *rest: Any) -> None:
        super().__init__(*rest)
        self.criterion = nn.CrossEntropyLoss()
        self.found: list[tuple[Tensor, ...]] = []

    def training_step(self, networks: Any, images: Tensor, labels: Tensor, index: Tensor) -> Any:
        raise AssertionError("not trained here")


def test_trainers_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, once each, in evaluation mode, with the features under the logits; batch statistics leave nothing."""
    monkeypatch.chdir(tmp_path)
    config = recipe("ce", "digits", "symmetric:0.3").replace(
        {"limit_train": 600, "width": 0.25, "loader": "torch", "batch_size": 32, "device": "cpu"}
    )
    monkeypatch.setattr(
        prepare,
        "create_method",
        lambda options, num_samples, num_classes, **others: Watching(options, num_samples, num_classes),
    )
    run = Single(config, load_data(config), torch.device("cpu"), make_console())
    view = run._view(run.record, 0)
    order: list[Tensor] = []

    def look(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, ...]:
        assert not any(network.training for network in run.networks)
        order.append(index)
        assert not outputs[0].logits.requires_grad
        for network, each in zip(run.networks, outputs, strict=True):
            assert each.features is not None
            torch.testing.assert_close(network.classifier(each.features), each.logits)
        return tuple(each.logits.argmax(1) for each in outputs)

    torch.nn.init.normal_(run.networks[0].classifier.bias)
    before = {name: value.clone() for name, value in run.networks.state_dict().items()}
    first, second = view.scan(look)
    assert torch.equal(torch.cat(order), torch.arange(600))
    assert len(first) == len(second) == 600
    assert not torch.equal(first, second)
    assert all(network.training for network in run.networks)

    def largest(outputs: Sequence[Outputs], index: Tensor) -> Tensor:
        return outputs[0].logits.amax(1)

    running = view.scan(largest)
    assert not torch.equal(view.scan(largest, batch_statistics=True), running)
    assert torch.equal(view.scan(largest), running)
    for name, value in run.networks.state_dict().items():
        assert torch.equal(value, before[name]), name
    run.loaders.close()


# -- memory --------------------------------------------------------------------------------------------------------

LARGE: dict[str, dict[str, Any]] = {
    "coteaching": {},
    "dividemix": {"warm_up": 1},
    "forward-100": {"warm_up": 1, "percentile": 100.0},
    "forward-97": {"warm_up": 1, "percentile": 97.0},
    "gce": {"update_from": 2, "update_every": 1, "k": 0.001},
    "plc": {"warm_up": 0, "window": 2},
    "swce": {"warm_up": 1, "stages": "1", "rate_factors": "1,1", "schedule": "constant"},
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads what memory a process took from /proc")
@pytest.mark.parametrize("name", LARGE)
def test_memory_of_many_samples_and_classes(name: str, tmp_path: Path) -> None:
    """Two epochs with checkpoints of 200,000 samples of 1,000 classes: besides the method's buffers 1.5 GB."""
    words = json.dumps({"method": name.partition("-")[0], **LARGE[name]})
    script = Path(__file__).with_name("_memory_cases.py")
    command = [sys.executable, str(script), words, "200000", "1000", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] - found["buffers"] < 1.5e9, found
