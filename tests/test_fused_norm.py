"""--fused-norm: networks whose batch norms run as one op with what follows them, and runs that train them."""

import copy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _interpret import interpret
from _train_cases import history, refusal
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.cli import main
from fastnoise.engine.distributed import require_together
from fastnoise.engine.stacked import stackable
from fastnoise.errors import ConfigError
from fastnoise.models import create_model
from fastnoise.models.norm import BatchNorm2d, chooses_fused, fuse_norms
from fastnoise.models.sync_norm import SyncedBatchNorm, synchronise
from fastnoise.ops.batch_norm import fold_second_gradients
from fastnoise.recipes import recipe

aten, ops = torch.ops.aten, torch.ops.fastnoise


class Calls(TorchDispatchMode):
    """Counts the ops that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.name().partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def pair(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """A network as it is, its copy with fused norms, and images."""
    torch.manual_seed(0)
    side = 32 if name == "resnet50" else 8
    # In fp32 batch norm over the 4 values of ResNet-50's last maps multiplies rounding by a thousand.
    dtype = torch.float64 if name == "resnet50" else torch.float32
    network = create_model(name, num_classes=3, image_size=(side, side), width=0.125).to(dtype).train()
    fused = copy.deepcopy(network)
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm2d)]
    assert fuse_norms(fused) == len(layers)
    return network, fused, torch.randn(4, 3, side, side).to(dtype, memory_format=torch.channels_last)


def step(network: nn.Module, images: Tensor) -> None:
    """One step of SGD."""
    nn.functional.cross_entropy(network(images).logits, torch.tensor([0, 2, 1, 2])).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()


def assert_same_state(ours: nn.Module, theirs: nn.Module, within: float) -> None:
    found, wanted = ours.state_dict(), theirs.state_dict()
    assert list(found) == list(wanted)
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, wanted[name], rtol=within, atol=within, msg=lambda text, n=name: f"{n}: {text}"
        )


# ReLUs that stay, beside those of the batch norms.
NETWORKS = {"resnet18": 0, "resnet18_mish": 0, "preact_resnet18": 0, "preact_resnet18_bn_stem": 0, "small_cnn": 0}
NETWORKS |= {"cnn4": 0, "resnet50": 1}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_pytorchs(name: str) -> None:
    network, fused, images = pair(name)
    step(network, images)
    with Calls() as calls:
        step(fused, images)
    assert_same_state(fused, network, 1e-4)
    norms = sum(isinstance(layer, BatchNorm2d) for layer in network.modules())
    assert calls.counts["fastnoise::batch_norm"] == calls.counts["fastnoise::batch_norm_backward"] == norms
    assert calls.counts["aten::relu"] + calls.counts["aten::relu_"] == NETWORKS[name]
    fused.load_state_dict(network.state_dict())  # checkpoints are interchangeable
    with torch.no_grad():
        assert torch.equal(fused.eval()(images).logits, network.eval()(images).logits)


def test_a_step_of_the_kernels_is_pytorchs() -> None:
    """A ResNet-18, 1/8 as wide, whose batch norms are the Triton kernels in the interpreter."""
    pytest.importorskip("triton", reason="needs triton")
    network, _, images = pair("resnet18")
    (found,) = interpret("_batch_norm_cases.py", [{"step": True}])
    step(network, images)
    state = network.state_dict()
    assert list(found) == list(state)
    for name, values in found.items():
        wanted = state[name].flatten()
        torch.testing.assert_close(torch.tensor(values), wanted, rtol=1e-4, atol=1e-4)


def test_a_fused_network_compiles_as_one_graph() -> None:
    network, fused, images = pair("resnet18")
    step(torch.compile(fused, fullgraph=True, backend="aot_eager"), images)  # type: ignore[arg-type]
    step(network, images)
    assert_same_state(fused, network, 1e-4)


def backward(first: Tensor, second: Tensor, images: Tensor, vectors: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = ops.batch_norm_backward.default(first + second, None, images, None, *vectors, True)
    return found


def test_the_op_adds_the_gradients_of_two_users() -> None:
    torch.manual_seed(0)
    first, second, images = (torch.randn(2, 5, 3, 3).contiguous(memory_format=torch.channels_last) for _ in range(3))
    vectors = [torch.rand(5) + 0.5 for _ in range(4)]
    traced = make_fx(backward, tracing_mode="fake")(first, second, images, vectors)
    wanted = traced(first, second, images, vectors)
    fold_second_gradients(traced.graph)
    traced.recompile()
    assert not traced.graph.find_nodes(op="call_function", target=aten.add.Tensor)
    for found, expected in zip(traced(first, second, images, vectors), wanted, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_sum_that_others_read_stays() -> None:
    def function(first: Tensor, second: Tensor, images: Tensor, vectors: list[Tensor]) -> list[Tensor]:
        total = first + second
        return [*ops.batch_norm_backward.default(total, None, images, None, *vectors, True), total]

    images = torch.randn(2, 5, 3, 3)
    traced = make_fx(function, tracing_mode="fake")(images, images, images, [torch.ones(5)] * 4)
    fold_second_gradients(traced.graph)
    assert len(traced.graph.find_nodes(op="call_function", target=aten.add.Tensor)) == 1


def test_a_batch_of_one_value_per_channel_is_refused_as_before() -> None:
    _, fused, _ = pair("cnn4")
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # as `prepare.least_batch` asks
        fused.to("meta")(torch.zeros(1, 3, 8, 8, device="meta"))


def test_layers_over_all_processes_are_not_fused() -> None:
    _, fused, images = pair("resnet18")
    synchronise(fused, SimpleNamespace(size=1, gathered=lambda tensor: tensor[None], sum_=lambda *tensors: None))
    assert any(isinstance(layer, SyncedBatchNorm) for layer in fused.modules())
    with Calls() as calls:
        fused(images)
    assert not calls.counts["fastnoise::batch_norm"]


def test_auto_is_off_until_a_gpu_has_decided() -> None:
    for device in ("cpu", "cuda"):
        assert not chooses_fused("auto", torch.device(device))
        assert chooses_fused("on", torch.device(device))
        assert not chooses_fused("off", torch.device(device))


def test_runs_that_cannot_be_fused_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "digits", "--limit-train", "100", "--epochs", "1", "--fused-norm", "on", "--model", "mlp"]
    assert refusal(capsys, *words, "--method", "ce") == (
        "fastnoise: error: --fused-norm on: mlp has no batch norm of fastnoise's networks; drop the option"
    )
    config = recipe("ce", "digits").replace({"fused_norm": "on"})
    assert "--fused-norm has its own" in str(stackable([config, config.replace({"seed": 1})]))
    data, world = SimpleNamespace(given=range(10)), SimpleNamespace(size=2)
    require_together(config, data, world)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--fused-norm on takes the statistics of each process's batch by itself"):
        require_together(config.replace({"batch_norm": "sync"}), data, world)  # type: ignore[arg-type]


def test_a_run_goes_on_with_the_other_kind(tmp_path: Path) -> None:
    words = ["--method", "elr", "--dataset", "digits", "--limit-train", "200", "--width", "0.25", "--loader", "torch"]
    words += ["--model", "small_cnn"]
    ends = []
    for kinds in (("off", "off"), ("on", "on"), ("on", "off")):
        run = tmp_path / "-".join(kinds)
        first, second = (["--fused-norm", kind] for kind in kinds)
        assert main(["train", *words, "--epochs", "1", *first, "--run-dir", str(run)]) == 0
        assert main(["train", "--resume", str(run), "--epochs", "2", *second]) == 0
        ends.append(history(run)[-1])
    for end in ends[1:]:
        assert end["train_loss"] == pytest.approx(ends[0]["train_loss"], rel=1e-3)
        assert end["test_accuracy"] == pytest.approx(ends[0]["test_accuracy"], abs=0.02)
