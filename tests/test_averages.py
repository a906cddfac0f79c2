"""Exponential moving averages of weights: the kernel under the interpreter and ahead of time, and the CPU's form."""

import re
from copy import deepcopy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from _interpret import interpret
from torch import nn

from fastnoise.methods.averages import AveragedNetworks
from fastnoise.models import Network, create_model
from fastnoise.ops.averages import MovingAverage

# Without a ramp, at its first step, on it, at its end and beyond; the average that follows at once.
CASES = [(0.997, 0, 1), (0.997, 40_000, 1), (0.9, 10, 4), (0.99, 10, 10), (0.99, 10, 25), (0.0, 0, 3)]


def test_kernel_matches_float64() -> None:
    pytest.importorskip("triton", reason="needs triton")
    for case, found in zip(CASES, interpret("_average_cases.py", CASES), strict=True):
        assert found.pop("error") < 1e-6, case
        # Of what it takes: 3, 0, 2 pieces, 2 pieces and 5 numbers, a scalar, 8x6x3x3 and 5x7.
        assert found == {"touched": 0, "rest": [7, 8, 9, 10], "pieces": 9, "kept": True, "renewed": True}, case


@pytest.mark.parametrize("ramped", [False, True])
def test_kernel_compiles_ahead_of_time(ramped: bool, tmp_path: Path) -> None:
    """Whole pieces move in loads and stores of 16 bytes, though where they lie stands in a table."""
    pytest.importorskip("triton", reason="needs triton")
    from _ahead import ARCHITECTURES, compile_ahead, spilled
    from fastnoise.kernels import average

    types = {"pieces_K3": "*i64", "updates": "*fp32", "momentum": "fp32", "ramp": "fp32"}
    for arch in ARCHITECTURES:
        kernel = compile_ahead(
            average.move_averages, types, {"RAMPED": ramped, "PIECE": average.PIECE}, arch, average.WARPS
        )
        ptx = kernel.asm["ptx"]
        vectors = average.PIECE // (32 * average.WARPS) // 4
        assert len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)) == 2 * vectors
        assert len(re.findall(r"st\.global\S*\.v4\.b32", ptx)) == vectors
        assert "bar.sync" not in ptx
        assert spilled(kernel, tmp_path) == {"STACK": 0, "LOCAL": 0}


def network(seed: int) -> Network:
    torch.manual_seed(seed)
    made = create_model("preact_resnet18", num_classes=3, image_size=(8, 8), width=0.125)
    for buffer in made.buffers():
        buffer.uniform_(0.5, 2)
    return made


def old_lines(averages: list[torch.Tensor], weights: list[torch.Tensor], momentum: torch.Tensor) -> None:
    """average <- weight + m * (average - weight) in float32, as three passes over all tensors."""
    torch._foreach_sub_(averages, weights)
    torch._foreach_mul_(averages, momentum)
    torch._foreach_add_(averages, weights)


@pytest.mark.parametrize(("momentum", "ramp", "with_buffers"), [(0.9, 0, True), (0.99, 7, False), (0.0, 0, False)])
def test_follow(momentum: float, ramp: int, with_buffers: bool) -> None:
    networks = [network(1), network(2)]
    averaged = AveragedNetworks(networks, momentum, ramp=ramp, with_buffers=with_buffers)
    expected = deepcopy(networks)
    for step in range(1, 12):
        with torch.no_grad():
            for each in networks:
                for tensor in each.state_dict().values():
                    tensor += 0.1 * torch.randn_like(tensor)
            averaged.follow(networks)
            now = momentum * (np.exp(-5 * (1 - min(1, step / ramp)) ** 2) if ramp else 1)
            for mine, other in zip(expected, networks, strict=True):
                names = mine.state_dict() if with_buffers else dict(mine.named_parameters())
                state, theirs = mine.state_dict(), other.state_dict()
                old_lines([state[name] for name in names], [theirs[name] for name in names], torch.tensor(now).float())
    assert averaged.updates == 11
    for number, mine in enumerate(expected):
        for name, tensor in averaged[number].state_dict().items():
            torch.testing.assert_close(tensor, mine.state_dict()[name], rtol=1e-6, atol=1e-6)
            if not with_buffers and name not in dict(mine.named_parameters()):
                assert not torch.equal(tensor, networks[number].state_dict()[name])


def test_averages_survive_copies_and_states(tmp_path: Path) -> None:
    networks = [network(1)]
    averaged = AveragedNetworks(networks, 0.9, with_buffers=True)
    moved = [network(2)]
    averaged.follow(moved)
    twin = deepcopy(averaged)
    torch.save(averaged.state_dict(), tmp_path / "state.pt")
    fresh = AveragedNetworks([network(5)], 0.9, with_buffers=True)
    fresh.load_state_dict(torch.load(tmp_path / "state.pt"))
    for other in (averaged, twin, fresh):
        other.follow(moved)
    for other in (twin, fresh):
        for name, tensor in averaged.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])


def test_counters_of_other_peoples_layers_are_copied() -> None:
    """Networks of ours have none (models/norm.py), those of others may."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.register_buffer("seen", torch.tensor(0))

    theirs = Counting()
    averaged = AveragedNetworks([theirs], 0.5, with_buffers=True)  # type: ignore[list-item]
    with torch.no_grad():
        theirs.weight += 1
        theirs.seen += 3
    averaged.follow([theirs])  # type: ignore[list-item]
    assert averaged.copies[0].seen == 3
    assert averaged.copies[0].weight.tolist() == [0.5, 0.5]


@pytest.mark.gpu
@pytest.mark.parametrize(("momentum", "ramp"), [(0.99, 0), (0.99, 5)])
def test_on_a_gpu(momentum: float, ramp: int) -> None:
    """In order and replayed from a graph as on the CPU, which nothing waits for; odd tensors among the others."""
    random = torch.Generator().manual_seed(0)
    shapes = [(3,), (20_000,), (16, 8, 3, 3), ()]
    start = [torch.randn(shape, generator=random) for shape in shapes]
    goal = [torch.randn(shape, generator=random) for shape in shapes]
    results = []
    for device in ("cpu", "cuda"):
        averages = [*(tensor.to(device, copy=True) for tensor in start), start[1].to(device, copy=True)[1:101]]
        weights = [*(tensor.to(device) for tensor in goal), goal[1].to(device)[1:101]]
        updates = torch.zeros((), device=device)
        move = MovingAverage(momentum, ramp)

        def step(move=move, averages=averages, weights=weights, updates=updates) -> None:  # type: ignore[no-untyped-def]
            updates.add_(1)
            move(averages, weights, updates)

        if device == "cpu":
            for _ in range(8):
                step()
        else:
            step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            for _ in range(3):
                graph.replay()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(4):
                    step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            assert move._rest == [4]
        results.append([*averages, updates])
    for here, there in zip(*results, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("momentum", "ramp"), list(product((0.9, 0.999), (0, 100))))
def test_the_momentum_of_an_update(momentum: float, ramp: int) -> None:
    move = MovingAverage(momentum, ramp)
    for updates in (1, 50, 100, 200):
        expected = momentum * (np.exp(-5 * (1 - min(1, updates / ramp)) ** 2) if ramp else 1)
        average = torch.ones(1)
        move([average], [torch.zeros(1)], torch.tensor(float(updates)))
        assert float(average) == pytest.approx(expected, abs=1e-6)
