"""The training step: compiled equals eager, nothing is copied or read back, on CPU and GPU."""

from typing import Any

import pytest
import torch

from fastnoise.config import EngineConfig, RunConfig
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.step import Step, choose_amp, choose_compile, choose_device, create_optimizer, create_schedule
from fastnoise.errors import ConfigError
from fastnoise.methods import METHODS, create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe

NUM_SAMPLES, NUM_CLASSES, BATCH = 96, 10, 16


def make_step(method: str, compile_: str = "off", amp: str = "off", device: str = "cpu") -> Step:
    """A step on a narrow network with weights and labels from a fixed seed."""
    torch.manual_seed(0)
    config = recipe(method, "digits")
    made = create_method(config.method, num_samples=NUM_SAMPLES, num_classes=NUM_CLASSES)
    made.criterion.to(device)
    made.start_epoch(1)
    network = create_model(
        "small_cnn", num_classes=NUM_CLASSES, channels=1, image_size=(8, 8), width=0.25, attention=made.attention
    ).to(device)
    labels = torch.randint(NUM_CLASSES, (NUM_SAMPLES,)).to(device)
    engine = EngineConfig(compile=compile_, amp=amp)  # type: ignore[arg-type]
    optimizer = create_optimizer(config.optim, network)
    return Step(network, made, optimizer, labels, batch_size=BATCH, config=engine, device=torch.device(device))


def batches(count: int, device: str = "cpu") -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(BATCH, 1, 8, 8, generator=random).to(device).to(memory_format=torch.channels_last),
            torch.randperm(NUM_SAMPLES, generator=random)[:BATCH].to(device),
        )
        for _ in range(count)
    ]


def restart_from(step: Step, other: Step) -> None:
    step.network.load_state_dict(other.network.state_dict())
    step.method.criterion.load_state_dict(other.method.criterion.state_dict())
    step.optimizer.load_state_dict(other.optimizer.state_dict())


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_compiled_equals_eager_from_the_same_state(method: str, amp: str) -> None:
    """5 steps, each started from the same state: loss, gradients and target rows."""
    torch._dynamo.reset()
    eager, compiled = make_step(method, amp=amp), make_step(method, "on", amp=amp)
    # bf16 rounds to 2^-9; the compiler keeps some intermediates in fp32 that eager rounds.
    tolerance = 1e-4 if amp == "off" else 0.05
    for images, index in batches(5):
        restart_from(compiled, eager)
        expected, actual = eager.train(images, index), compiled.train(images, index)
        torch.testing.assert_close(actual.loss, expected.loss, rtol=tolerance, atol=tolerance)
        for first, second in zip(eager.network.parameters(), compiled.network.parameters(), strict=True):
            assert first.grad is not None
            assert second.grad is not None
            error = torch.linalg.vector_norm(first.grad - second.grad)
            assert error <= tolerance * torch.linalg.vector_norm(first.grad) + 1e-6
        for name, table in eager.method.criterion.state_dict().items():
            other = compiled.method.criterion.state_dict()[name]
            assert torch.linalg.vector_norm(table - other) <= tolerance * torch.linalg.vector_norm(table)


def test_a_smaller_batch_runs_eagerly() -> None:
    torch._dynamo.reset()
    step = make_step("nal", "on")
    ((images, index),) = batches(1)
    step.train(images, index)
    torch._dynamo.utils.counters.clear()
    step.train(images[:5], index[:5])
    assert not torch._dynamo.utils.counters["stats"]


class _NoHostReads(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails on ops that would make the host wait for a GPU, outside the ops of fastnoise, which have a CUDA form."""

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in func.name() for name in self.FORBIDDEN), f"{func.name()} reads the device"
        if func.namespace == "fastnoise":
            with torch._C._DisableTorchDispatch():
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reads_nothing_back_to_the_host(method: str) -> None:
    step = make_step(method)
    statistics = EpochStatistics(NUM_SAMPLES, step.method.attention, torch.device("cpu"))
    ((images, index),) = batches(1)
    with _NoHostReads():
        statistics.update(step.train(images, index), index)
    with pytest.raises(AssertionError, match="reads the device"), _NoHostReads():
        step.train(images, index).loss.item()


def test_schedules_follow_their_formulas() -> None:
    def rates(schedule: str, epochs: int = 20) -> list[float]:
        config = RunConfig().replace({"schedule": schedule, "epochs": epochs, "learning_rate": 1.0}).optim
        optimizer = create_optimizer(config, torch.nn.Linear(1, 1))
        scheduler = create_schedule(config, optimizer)
        values = []
        for _ in range(epochs):
            values.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return values

    assert rates("constant") == [1.0] * 20
    assert rates("multistep:5,10,gamma=0.1") == pytest.approx([1.0] * 5 + [0.1] * 5 + [0.01] * 10)
    restarts = rates("cosine_restarts:10,min=0.1")
    assert restarts[:10] == pytest.approx(restarts[10:])
    assert restarts[5] == pytest.approx(0.1 + 0.9 / 2)
    assert rates("cosine")[10] == pytest.approx(0.5)


def test_choices_state_their_reason() -> None:
    cpu = torch.device("cpu")
    assert choose_compile("auto", cpu) == (False, "eager: compiling seldom pays on a CPU")
    assert choose_compile("auto", torch.device("cuda"))[0]
    assert choose_compile("on", cpu) == (True, "compiled as asked")
    assert choose_amp("auto", cpu)[0] is None
    assert choose_amp("bf16", cpu)[0] == torch.bfloat16
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_amp("fp16", cpu)
    with pytest.raises(ConfigError, match="no such device"):
        choose_device("gpu")


@pytest.mark.gpu
@pytest.mark.parametrize("compile_", ["off", "on"])
@pytest.mark.parametrize("method", METHODS)
def test_no_synchronisation_on_a_gpu(method: str, compile_: str) -> None:
    step = make_step(method, compile_, "auto", "cuda")
    statistics = EpochStatistics(NUM_SAMPLES, step.method.attention, torch.device("cuda"))
    *first, last = batches(4, "cuda")
    for images, index in first:
        statistics.update(step.train(images, index), index)
    torch.cuda.set_sync_debug_mode("error")
    try:
        images, index = last
        statistics.update(step.train(images, index), index)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int(statistics.bad_step) == -1


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_step_equals_the_cpu_step(method: str) -> None:
    cpu, gpu = make_step(method), make_step(method, device="cuda")
    gpu.network.load_state_dict(cpu.network.state_dict())
    gpu.labels = cpu.labels.to("cuda")
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        ((images, index),) = batches(1)
        expected = cpu.train(images, index)
        actual = gpu.train(images.to("cuda"), index.to("cuda"))
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    torch.testing.assert_close(actual.loss.cpu(), expected.loss, rtol=1e-4, atol=1e-5)
    for name, table in cpu.method.criterion.state_dict().items():
        torch.testing.assert_close(gpu.method.criterion.state_dict()[name].cpu(), table, rtol=1e-3, atol=1e-5)
