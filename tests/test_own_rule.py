"""Rules of one's own: the documented examples, run from where they are documented, and what is refused."""

import copy
import inspect
import itertools
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from _interpret import interpret
from _loss_cases import batches, leaf
from _own_rule_cases import CASES, MOMENTUM, NAMES, STRENGTH, build, errors, load
from torch import Tensor
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from fastnoise.errors import ConfigError, DataError, FastnoiseError
from fastnoise.losses import rule
from fastnoise.noise import corrupt
from fastnoise.ops.registry import OPS

triton = pytest.importorskip("triton", reason="needs triton")
from _ahead import ARCHITECTURES, compile_op, spilled  # noqa: E402
from fastnoise.kernels import rules  # noqa: E402
from fastnoise.kernels.rules import ELR, NAL, SOP, Rule, ce_finish, elr_update  # noqa: E402


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docstring's example as the file that it is meant to be."""
    text = inspect.getdoc(rule) or ""
    lines = text.partition("::\n")[2].splitlines()
    block = itertools.takewhile(lambda line: not line or line.startswith("    "), lines)
    path = tmp_path_factory.mktemp("mylab") / "mylab_rules.py"
    path.write_text("\n".join(line[4:] for line in block))
    return path


@pytest.fixture(scope="module")
def mylab(documented: Path) -> ModuleType:
    return load(documented)


@pytest.fixture(scope="module")
def interpreted(documented: Path) -> list[dict[str, float]]:
    return interpret("_own_rule_cases.py", str(documented))


def assert_exact(found: dict[str, float]) -> None:
    assert found["loss"] < 1e-5, found
    assert found["gradient"] < 1e-5, found
    assert found["targets"] < 1e-6, found


@pytest.mark.parametrize("number", range(len(CASES) * len(NAMES)))
def test_triton_parts_match_float64_autograd_of_the_twin(interpreted: list[dict[str, float]], number: int) -> None:
    assert_exact(interpreted[number])


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_ahead_of_time(mylab: ModuleType, name: str, arch: int, tmp_path: Path) -> None:
    op = build(mylab, name, 9, 10).op
    for num_classes in (3, 100, 9000):
        kernel = compile_op(op, op.find_rule(rules), (), num_classes, "float32", arch)
        assert spilled(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}
        if num_classes % 4 == 0:
            assert re.search(r"ld\.global\S*\.v4\.b32", kernel.asm["ptx"])


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_cpu_matches_float64_autograd_of_the_twin(mylab: ModuleType, name: str, num_classes: int) -> None:
    assert_exact(errors(mylab, name, num_classes))


@pytest.mark.parametrize("name", NAMES)
def test_trains(mylab: ModuleType, name: str) -> None:
    """On digits with a fifth of the labels wrong: the loss falls, and more labels are right than were given so."""
    from sklearn.datasets import load_digits

    pixels, clean = load_digits(return_X_y=True)
    images, clean_labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(clean)
    labels = torch.tensor(corrupt(clean, "symmetric:0.2", seed=0, num_classes=10).labels)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    loss_of = build(mylab, name, len(labels), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    means = []
    for _ in range(6):
        losses = []
        for index in torch.randperm(len(labels)).split(64):
            loss = loss_of(model(images[index]), labels[index], index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    assert means[-1] < 0.8 * means[0], means
    assert (model(images).argmax(1) == clean_labels).float().mean() > 0.85
    if name == "ensemble":
        assert (loss_of.targets.argmax(1) == clean_labels).float().mean() > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(mylab: ModuleType, name: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    loss_of = build(mylab, name, 20, 10)
    inputs: tuple[Tensor, ...] = (data.logits, data.labels)
    if name == "ensemble":
        inputs += (data.index, loss_of.targets, loss_of.knobs)
    opcheck(getattr(torch.ops.mylab, name).default, (*inputs, *loss_of.op.settings.values()))
    assert name not in OPS, "the built-in ops are listed alone"


@pytest.mark.parametrize("name", NAMES)
def test_compiles_as_one_graph(mylab: ModuleType, name: str) -> None:
    """Forward and backward under inductor equal eager steps, in loss, gradient and targets."""
    torch._dynamo.reset()
    eager, module = build(mylab, name, 20, 10), build(mylab, name, 20, 10)
    compiled = torch.compile(lambda logits, labels, index: module(2 * logits, labels, index), fullgraph=True)
    for data in batches(10, torch.float32, 8, 20, 3):
        logits, other = leaf(data.logits), leaf(data.logits)
        loss, found = eager(2 * logits, data.labels, data.index), compiled(other, data.labels, data.index)
        loss.backward()
        found.backward()
        torch.testing.assert_close(found, loss)
        torch.testing.assert_close(other.grad, logits.grad)
    if name == "ensemble":
        assert bool(module.targets.any())
        torch.testing.assert_close(module.targets, eager.targets)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(mylab: ModuleType, name: str, mode: Callable[[], Any]) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    expected = build(mylab, name, 20, 10)(data.logits, data.labels, data.index)
    loss_of = build(mylab, name, 20, 10)
    with mode():
        torch.testing.assert_close(loss_of(data.logits * 1, data.labels + 0, data.index), expected)


def test_activation_checkpointing_updates_once(mylab: ModuleType) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    results = []
    for repeated in (False, True):
        loss_of, logits = build(mylab, "ensemble", 20, 10), leaf(data.logits)
        inputs = 2 * logits, data.labels, data.index
        (checkpoint(loss_of, *inputs, use_reentrant=False) if repeated else loss_of(*inputs)).backward()
        results.append((loss_of.targets, logits.grad))
    for plain, again in zip(*results, strict=True):
        torch.testing.assert_close(again, plain)


def test_targets_stay_where_updates_are_off(mylab: ModuleType) -> None:
    loss_of = build(mylab, "ensemble", 20, 10)
    first, second = batches(10, torch.float32, 20, 20, 2)
    loss_of(first.logits, first.labels, first.index)
    before = loss_of.targets.clone()
    loss_of.set_update(False)
    loss = loss_of(second.logits, second.labels, second.index)
    assert torch.equal(loss_of.targets, before)
    exact, _ = mylab.ensemble(second.logits, second.labels, before[second.index], 1.0, STRENGTH)
    torch.testing.assert_close(loss, exact.mean())


def test_has_what_every_loss_has(mylab: ModuleType) -> None:
    """Weights, an ignored label, a table in half precision, and calls that update nothing."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    labels = data.labels.index_fill(0, torch.tensor([2, 5]), -100)
    kept = [0, 1, 3, 4, 6, 7]
    options = {"strength": STRENGTH, "momentum": MOMENTUM, "reduction": "none", "ignore_index": -100}
    loss_of = mylab.EnsembleLoss(20, 10, target_dtype=torch.bfloat16, **options)
    weight = torch.rand(8)
    before = loss_of(data.logits, labels, data.index, weight=weight, update=False)
    assert not loss_of.targets.any()
    after = loss_of(data.logits, labels, data.index, weight=weight)
    assert loss_of.targets.any(1).nonzero().flatten().tolist() == sorted(data.index[kept].tolist())
    probs = data.logits.softmax(1)
    expected = weight * (-probs[torch.arange(8), data.labels].log() + STRENGTH * (probs**2).sum(1))
    torch.testing.assert_close(before[kept], expected[kept])
    assert before[[2, 5]].tolist() == after[[2, 5]].tolist() == [0, 0]
    assert bool((after[kept] < before[kept]).all()), "targets have moved towards the predictions"


def test_half_precision(mylab: ModuleType) -> None:
    data = batches(10, torch.bfloat16, 8, 20, 1)[0]
    logits = leaf(data.logits)
    loss = build(mylab, "taylor", 20, 10)(logits, data.labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.dtype == torch.bfloat16


def test_class(mylab: ModuleType) -> None:
    assert mylab.TaylorLoss.__name__ == "TaylorLoss"
    assert repr(mylab.TaylorLoss(reduction="sum")).startswith("TaylorLoss(")
    loss_of = build(mylab, "ensemble", 20, 10)
    assert "targets" in loss_of.state_dict()
    assert copy.deepcopy(loss_of).op is loss_of.op
    assert pickle.loads(pickle.dumps(mylab.TaylorLoss.op)) is mylab.TaylorLoss.op
    missing = pickle.dumps(mylab.TaylorLoss.op).replace(b"::taylor", b"::tailor")
    with pytest.raises(FastnoiseError, match=r"no op mylab::tailor is registered here: import the file"):
        pickle.loads(missing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_reductions(mylab: ModuleType, name: str, dtype: torch.dtype) -> None:
    """The op reduces the twin's losses, and its gradient is that of the losses reduced by PyTorch."""
    data = batches(10, dtype, 8, 20, 1)[0]
    each = leaf(data.logits)
    losses = build(mylab, name, 20, 10, reduction="none")(each, data.labels, data.index)
    for reduction in ("mean", "sum"):
        logits = leaf(data.logits)
        loss = build(mylab, name, 20, 10, reduction=reduction)(logits, data.labels, data.index)
        expected = getattr(losses, reduction)()
        torch.testing.assert_close(loss, expected)
        (3 * loss).backward()
        (gradient,) = torch.autograd.grad(3 * expected, each, retain_graph=True)
        rounding = 1e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
        assert (logits.grad - gradient).float().norm() <= rounding * gradient.float().norm()


@pytest.mark.parametrize("storage", [{}, {"target_dtype": torch.bfloat16}])
def test_rows_that_are_not_finite_keep_their_targets(mylab: ModuleType, storage: dict[str, Any]) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    loss_of = mylab.EnsembleLoss(20, 10, strength=1.0, momentum=0.6, reduction="none", **storage)
    logits = data.logits.clone()
    logits[0, 3], logits[1, 2], logits[2, data.labels[2] - 1] = float("nan"), float("inf"), -float("inf")
    loss = loss_of(logits, data.labels, data.index)
    assert loss[:2].isnan().all()
    assert loss[2:].isfinite().all()
    assert loss_of.targets[data.index].any(1).tolist() == [False, False, *[True] * 6]
    assert loss_of.targets.isfinite().all()
    if storage:
        assert loss_of.visits[data.index].tolist() == [0, 0, *[1] * 6]


def plain(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def with_targets(logits: Tensor, labels: Tensor, rows: Tensor, momentum: float, strength: float) -> Any:
    return plain(logits, labels), rows


@triton.jit
def two_arguments(label_log_prob, strength):
    return label_log_prob


FINISH = Rule(finish=ce_finish)


@pytest.mark.parametrize(
    ("name", "twin", "parts", "message"),
    [
        ("taylor", plain, FINISH, "give a name like 'mylab::taylor', with a namespace of your own"),
        ("fastnoise::taylor", plain, FINISH, "with a namespace of your own"),
        ("mylab::two words", plain, FINISH, "give a name like"),
        ("mylab::taylor", plain, FINISH, "torch.ops.mylab.taylor exists already; give another name"),
        ("aten::add", plain, FINISH, "torch.ops.aten.add exists already"),
        ("mylab::a", lambda logits: logits, FINISH, r"the twin takes \(logits\); it must take \(logits, labels\), or"),
        ("mylab::a", lambda labels, logits: logits, FINISH, r"the twin takes \(labels, logits\)"),
        ("mylab::a", plain, {"finish": ce_finish}, "parts is dict; give a fastnoise.kernels.rules.Rule"),
        ("mylab::a", plain, Rule(), "the part finish is missing"),
        ("mylab::a", plain, Rule(finish=ce_finish, num_sums=1), "the part terms is missing"),
        ("mylab::a", with_targets, FINISH, "the part update is missing"),
        ("mylab::a", with_targets, SOP, "the part step is for fastnoise's own losses; give update in its place"),
        (
            "mylab::a",
            plain,
            Rule(finish=ce_finish, update=elr_update),
            "the part update has no use without a",
        ),
        ("mylab::a", plain, Rule(finish=ce_finish, gate=NAL.gate), "the part gate has no use without attention"),
        ("mylab::a", plain, Rule(finish=ce_finish, kept=NAL.kept), "the part kept has no use without attention"),
        ("mylab::a", plain, Rule(finish=two_arguments), r"finish takes \(label_log_prob, strength\); it must be one"),
        (
            "mylab::a",
            plain,
            Rule(finish=plain),
            r"finish is no @triton.jit function; it must .*\(label_log_prob,",
        ),
        ("mylab::a", plain, Rule(finish=ce_finish, terms=ELR.finish, num_sums=1), "the part terms takes"),
    ],
)
def test_refused(mylab: ModuleType, name: str, twin: Callable, parts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rule(name, twin, parts)
    assert "\n" not in str(caught.value)
    assert not hasattr(torch.ops.mylab, "a"), "nothing was registered"


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda loss: None, "returns NoneType as loss"),
        (lambda loss: loss.mean(), r"returns a loss \[\]; expected a differentiable floating-point loss \[4\]"),
        (lambda loss: loss.detach(), r"returns a loss \[4\] without a gradient"),
    ],
    ids=["none", "mean", "detached"],
)
def test_refused_result(result: Callable, message: str, request: pytest.FixtureRequest) -> None:
    loss_of = rule(f"mylab::wrong_{request.node.callspec.id}", lambda logits, labels: result(plain(logits, labels)))()
    with pytest.raises(DataError, match=message):
        loss_of(torch.randn(4, 3), torch.arange(4) % 3)


def test_refused_rows() -> None:
    def flat(logits, labels, rows, momentum, strength):
        return plain(logits, labels), rows[0]

    def alone(logits, labels, rows, momentum, strength):
        return plain(logits, labels)

    for twin, message in (
        (flat, r"returns \[3\] as new rows; expected \[4, 3\]"),
        (alone, "returns Tensor; expected a tup"),
    ):
        loss_of = rule(f"mylab::{twin.__name__}", twin)(9, 3, strength=1.0, momentum=0.5)
        with pytest.raises(DataError, match=message):
            loss_of(torch.randn(4, 3), torch.arange(4) % 3, torch.arange(4))
        assert not loss_of.targets.any()


def test_out_of_range_is_named(mylab: ModuleType) -> None:
    with pytest.raises(DataError, match=r"TaylorLoss: label 10 is outside 0\.\.9"):
        mylab.TaylorLoss()(torch.randn(4, 10), torch.tensor([0, 1, 10, 2]))


def test_without_parts_there_is_no_cuda() -> None:
    loss = rule("mylab::cpu_alone", plain)
    with pytest.raises(FastnoiseError, match="'mylab::cpu_alone' has no Triton parts, only a twin"):
        loss.op.find_rule(None)


def test_twin_alone_needs_no_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch
from fastnoise.losses import rule
def squared(logits, labels): return logits.gather(1, labels[:, None])[:, 0] ** 2
logits = torch.ones(2, 3, requires_grad=True)
rule("mylab::squared", squared)(reduction="sum")(logits, torch.tensor([0, 2])).backward()
assert logits.grad.tolist() == [[2, 0, 0], [0, 0, 2]]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
