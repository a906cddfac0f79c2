"""The training step: compiled equals eager, nothing is copied or read back, on CPU and GPU."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from _steps import NoHostReads

import fastnoise.engine.step as step_module
from fastnoise.config import COMPILE_OPTIONS, EngineConfig, OptimConfig, RunConfig, parse_compile_options
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.optimizer import create_optimizer, create_schedule, load_optimizer, reset_optimizer
from fastnoise.engine.payback import Cost
from fastnoise.engine.step import (
    WARM_UP,
    Step,
    choose_amp,
    choose_device,
    choose_gear,
)
from fastnoise.errors import ConfigError
from fastnoise.methods import METHODS, Forward, create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe
from fastnoise.tasks import Task
from fastnoise.tasks.classification import Classification
from fastnoise.tasks.multitask import MultiTask

CORE = ("ce", "elr", "nal", "swce_loss")
"""Compiled by Inductor in every run of the tests; the other methods with --slow."""
COMPILED = [name if name in CORE else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
COMPILE = ["off", pytest.param("on", marks=pytest.mark.compiles)]
NUM_SAMPLES, NUM_CLASSES, BATCH = 96, 10, 16


def make_step(
    method: str,
    gear: str = "eager",
    amp: str = "off",
    device: str = "cpu",
    compile_: str = "auto",
    compile_options: str = "auto",
    clip_norm: float | None = None,
    norms: bool = False,
) -> Step:
    """A step on narrow networks with weights and labels from a fixed seed; it observes into `statistics_of(step)`."""
    torch.manual_seed(0)
    config = recipe(method, "digits")
    task: Task = Classification(tuple(map(str, range(NUM_CLASSES))))
    if METHODS[method].tasks == ("multitask",):
        task = MultiTask(task.outputs, (NUM_CLASSES // 2, NUM_CLASSES - NUM_CLASSES // 2))
    made = create_method(config.method, num_samples=NUM_SAMPLES, num_classes=NUM_CLASSES, task=task)
    made.start_epoch(1)
    networks = torch.nn.ModuleList(
        create_model(
            "small_cnn", num_classes=NUM_CLASSES, channels=1, image_size=(8, 8), width=0.25, attention=made.attention
        )
        for _ in range(made.networks)
    ).to(device)
    made.to(device)
    made.attach(list(networks))  # type: ignore[arg-type]
    labels = torch.randint(NUM_CLASSES, (NUM_SAMPLES,)).to(device)
    engine = EngineConfig(gear=gear, compile=compile_, amp=amp, compile_options=compile_options)  # type: ignore[arg-type]
    optimizer = create_optimizer(config.optim, networks, capturable=gear.endswith("graphed"))
    place = torch.device(device)
    statistics = EpochStatistics(NUM_SAMPLES, made.attention, place, answers=task.unseen(NUM_SAMPLES, place))
    step = Step(
        list(networks),  # type: ignore[arg-type]
        made,
        optimizer,
        labels,
        batch_size=BATCH,
        config=engine,
        device=torch.device(device),
        clip_norm=clip_norm,
        norms=statistics.note_norm if norms else None,
        observe=statistics.update,
    )
    step.statistics = statistics  # type: ignore[attr-defined]
    return step


def batches(count: int, device: str = "cpu", views: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(views * BATCH, 1, 8, 8, generator=random).to(device).to(memory_format=torch.channels_last),
            torch.randperm(NUM_SAMPLES, generator=random)[:BATCH].to(device),
        )
        for _ in range(count)
    ]


def restart_from(step: Step, other: Step) -> None:
    for mine, theirs in zip(step.networks, other.networks, strict=True):
        mine.load_state_dict(theirs.state_dict())
    step.method.load_state_dict(other.method.state_dict())
    for one, two in zip(_parameters(step), _parameters(other), strict=True):  # in place, as a captured graph needs it
        for name, value in other.optimizer.state[two].items():
            if isinstance(value, torch.Tensor):
                if isinstance(step.optimizer.state[one].get(name), torch.Tensor):
                    step.optimizer.state[one][name].copy_(value)
                else:
                    step.optimizer.state[one][name] = value.clone()


def _parameters(step: Step) -> list[torch.nn.Parameter]:
    return [parameter for network in step.networks for parameter in network.parameters()]


def same_from_the_same_state(step: Step, eager: Step, steps: int, tolerance: float, device: str = "cpu") -> None:
    """Each of `steps` steps, started from the same state: loss, gradients and the method's tensors, by their norms."""
    for number, (images, index) in enumerate(batches(steps, device, eager.method.views)):
        restart_from(step, eager)
        for one in (step, eager):
            one.method.before_step(1, number, 0)
        expected, actual = eager.train(images, index), step.train(images, index)
        torch.testing.assert_close(actual.loss, expected.loss, rtol=tolerance, atol=tolerance)
        for first, second in zip(_parameters(eager), _parameters(step), strict=True):
            if first.grad is None:
                assert second.grad is None
                continue
            assert second.grad is not None
            error = torch.linalg.vector_norm(first.grad - second.grad)
            assert error <= tolerance * torch.linalg.vector_norm(first.grad) + 1e-6
        other = step.method.state_dict()
        for name, table in eager.method.state_dict().items():
            table, actual_table = (each.double().nan_to_num(-7.0) for each in (table, other[name]))
            error = torch.linalg.vector_norm(table - actual_table)
            assert error <= tolerance * torch.linalg.vector_norm(table) + 1e-6, name


@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("method", COMPILED)
def test_compiled_equals_eager_from_the_same_state(method: str, amp: str) -> None:
    if (method, amp) == ("ssr_plus", "bf16"):
        pytest.skip("its heads' batch norm over six samples makes a fifth of a gradient of bf16's rounding")
    torch._dynamo.reset()
    # bf16 rounds to 2^-9; the compiler keeps some intermediates in fp32 that eager rounds.
    same_from_the_same_state(
        make_step(method, "compiled", amp), make_step(method, amp=amp), 5, 1e-4 if amp == "off" else 0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", CORE)
def test_fifty_compiled_steps_equal_eager_ones(method: str) -> None:
    torch._dynamo.reset()
    same_from_the_same_state(make_step(method, "compiled"), make_step(method), 50, 1e-4)


def test_a_smaller_batch_and_evaluation_run_eagerly() -> None:
    """Compiled with the options that a CPU has no use for, which must change nothing."""
    torch._dynamo.reset()
    step = make_step("nal", "compiled", compile_options="pdl,combo_kernels")
    same_from_the_same_state(step, make_step("nal"), 1, 1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    torch._dynamo.utils.counters.clear()
    ((images, index),) = batches(1)
    step.train(images[:5], index[:5])
    step.evaluate(images, len(images))
    assert not torch._dynamo.utils.counters["stats"]


def test_compile_options_reach_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def compile_(function: Any, **options: Any) -> Any:
        chosen = options.pop("options")
        given.append({name: value for name, value in chosen.items() if name != "post_grad_custom_pre_pass"})
        assert options == {"fullgraph": True, "dynamic": False}
        return function

    monkeypatch.setattr(torch, "compile", compile_)
    for words in ("auto", "none", "combo_kernels", "pdl", "pdl,combo_kernels"):
        make_step("ce", "compiled", compile_options=words)
    both = {"combo_kernels": True, "triton.enable_pdl": True}
    assert given == [{}, {}, {"combo_kernels": True}, {"triton.enable_pdl": True}, both]
    assert set(step_module.INDUCTOR_OPTIONS) == set(COMPILE_OPTIONS)
    assert parse_compile_options("auto") == ()  # test_graphed_equals_eager has met neither on a GPU


class _Counted(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts ops that are no views: kernels on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_observing_a_step_takes_five_kernels() -> None:
    statistics = EpochStatistics(NUM_SAMPLES, attention=False, device=torch.device("cpu"))
    result = Forward(torch.tensor(1.5), torch.arange(BATCH))
    statistics.update(result, torch.arange(BATCH))
    with _Counted() as counted:
        statistics.update(result, torch.arange(BATCH))
    assert len([name for name in counted.names if name != "aten::arange"]) <= 5, counted.names
    assert (float(statistics.loss_sum), int(statistics.samples), int(statistics.steps)) == (48.0, 2 * BATCH, 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_bad_step_is_remembered(bad: float) -> None:
    statistics = EpochStatistics(8, attention=False, device=torch.device("cpu"))
    index = torch.arange(8)
    for number, loss in enumerate((1.0, 2.0, bad, 1.0, -bad), 1):
        statistics.update(Forward(torch.tensor(loss), index), index)
        assert int(statistics.bad_step) == (3 if number >= 3 else -1)
    other = EpochStatistics(8, attention=False, device=torch.device("cpu"))
    other.load_state_dict(statistics.state_dict())
    assert (int(other.bad_step), int(other.steps), int(other.samples)) == (3, 5, 40)
    statistics.reset()
    assert (int(statistics.bad_step), int(statistics.steps), float(statistics.loss_sum)) == (-1, 0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reads_nothing_back_to_the_host(method: str) -> None:
    step = make_step(method)
    ((images, index),) = batches(1, views=step.method.views)
    step.method.before_step(1, 0, 0)
    with NoHostReads():
        step.train(images, index)
    with pytest.raises(AssertionError, match="reads the device"), NoHostReads():
        step.train(images, index).loss.item()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_reset_optimiser_is_a_fresh_one(optimizer: str) -> None:
    config = RunConfig().replace({"optimizer": optimizer, "weight_decay": 0.1}).optim
    torch.manual_seed(0)
    used, fresh = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    first, second = create_optimizer(config, used), create_optimizer(config, fresh)
    for _ in range(3):
        used(torch.randn(4, 3)).square().sum().backward()
        first.step()
    reset_optimizer(first)
    fresh.load_state_dict(used.state_dict())
    for _ in range(3):
        batch = torch.randn(4, 3)
        for network, one in ((used, first), (fresh, second)):
            one.zero_grad()
            network(batch).square().sum().backward()
            one.step()
    assert torch.equal(used.weight, fresh.weight)


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
    assert rates("linear:10") == pytest.approx([1.0] * 10 + [1 - step / 10 for step in range(10)])
    restarts = rates("cosine_restarts:10,min=0.1")
    assert restarts[:10] == pytest.approx(restarts[10:])
    assert restarts[5] == pytest.approx(0.1 + 0.9 / 2)
    assert rates("cosine")[10] == pytest.approx(0.5)


def test_choices_state_their_reason() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def gear(device: torch.device, amp: torch.dtype | None = None, steps: int | None = None, **asked: str) -> Any:
        return choose_gear(EngineConfig(**asked), device, amp, steps, Cost(60.0, 1e-3))  # type: ignore[arg-type]

    assert gear(cpu, steps=10**9) == ("eager", "gear: eager, compiling seldom pays on a CPU")
    assert gear(cpu, compile="on") == ("compiled", "gear: compiled, compiled as asked")
    assert gear(cpu, gear="compiled") == ("compiled", "gear: compiled, as asked")
    assert gear(gpu) == (
        "compiled_graphed",
        "gear: compiled_graphed, captured: the device is a GPU; compiled: the device is a GPU, and no end of the steps "
        "is known",
    )
    assert gear(gpu, steps=58_600) == (
        "graphed",
        "gear: graphed, captured: the device is a GPU; not compiled: compiling would take about 60 s (assumed) and "
        "save about 1 ms (assumed) in each of 58,600 steps, 59 s in all",
    )
    long = gear(gpu, steps=60_001)
    assert (long.name, long.compiled, long.graphed) == ("compiled_graphed", True, True)
    assert "compiled: compiling takes about 60 s (assumed) and saves about 1 ms" in long.reason
    assert gear(gpu, steps=10**9, gear="graphed") == ("graphed", "gear: graphed, as asked")
    assert gear(gpu, steps=10, gear="compiled_graphed") == ("compiled_graphed", "gear: compiled_graphed, as asked")
    for asked in ({"compile": "on"}, {"gear": "graphed", "compile": "on"}):
        assert gear(gpu, steps=10, **asked).name == "compiled_graphed"
    assert gear(gpu, compile="off").name == "graphed"
    assert gear(gpu, gear="eager") == ("eager", "gear: eager, as asked")
    assert gear(gpu, gear="compiled") == ("compiled", "gear: compiled, as asked")
    for steps, name in ((60_001, "compiled"), (59_999, "eager")):
        half = gear(gpu, torch.float16, steps)
        assert half.name == name
        assert "fp16 loss scaling" in half.reason
    for device, amp in ((cpu, None), (gpu, torch.float16)):
        for name in ("graphed", "compiled_graphed"):
            with pytest.raises(ConfigError, match=f"--gear {name}: "):
                gear(device, amp, gear=name)
    for one, other in (("eager", "on"), ("compiled", "off"), ("compiled_graphed", "off")):
        with pytest.raises(ConfigError, match="contradict"):
            gear(cpu, gear=one, compile=other)
    assert gear(cpu, compile="on", compile_options="pdl").reason.endswith("; with pdl")
    assert gear(cpu, compile_options="pdl").reason.endswith("; pdl: nothing is compiled")
    assert choose_amp("auto", cpu)[0] is None
    assert choose_amp("bf16", cpu)[0] == torch.bfloat16
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_amp("fp16", cpu)
    with pytest.raises(ConfigError, match="no such device"):
        choose_device("gpu")


def test_every_step_of_a_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo compiles one code object 8 times at most, and what all steps share would reach that."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    ((images, index),) = batches(1)
    with torch._dynamo.config.patch(recompile_limit=8):  # timm.optim sets a million when it is imported
        for _ in range(torch._dynamo.config.recompile_limit + 2):
            step = make_step("ce", "compiled")
            assert step.train(images, index).loss.isfinite()
            assert step.evaluate(images, len(images)).logits.shape == (BATCH, NUM_CLASSES)


class CountedGraph:
    """In place of a captured graph: it counts what is captured, and computes."""

    captured: list[tuple[int, ...]]

    def __init__(self, function: Callable[..., object], arguments: Sequence[torch.Tensor], side: Any):
        self.function, self.shape = function, arguments[0].shape
        self.captured.append(tuple(self.shape))
        self.replays = 0

    def fits(self, arguments: Sequence[torch.Tensor]) -> bool:
        return arguments[0].shape == self.shape

    def __call__(self, *arguments: torch.Tensor) -> object:
        self.replays += 1
        return self.function(*arguments)


def test_each_shape_is_evaluated_some_times_before_it_is_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    step, captured = make_step("ce"), []
    CountedGraph.captured = captured
    monkeypatch.setattr(step_module, "_Graph", CountedGraph)
    step._side = nullcontext()  # type: ignore[assignment]
    step.gear = step.gear._replace(name="graphed")
    large, small = torch.randn(16, 1, 8, 8), torch.randn(6, 1, 8, 8)
    for images, seen in [*[(large, 0)] * WARM_UP, *[(small, 0)] * WARM_UP, (small, 1), (large, 2), (small, 2)]:
        step.evaluate(images, len(images))
        assert len(captured) == seen
    assert captured == [(6, 1, 8, 8), (16, 1, 8, 8)]
    for number in range(WARM_UP + 3):
        step.train(large, torch.arange(16))
        assert step.replays == max(0, number + 1 - WARM_UP)
    step.train(torch.randn(16, 1, 8, 10), torch.arange(16))  # another shape begins anew
    assert step.replays == 0
    step.recapture()
    step.evaluate(small, 6)
    assert len(captured) == 4


class FakeStream:
    """In place of a CUDA stream, which keeps what waited for it."""

    def __init__(self, device: Any = None):
        self.waits: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waits.append(other)


def test_warm_ups_and_captures_share_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new one would keep the memory of a step for itself."""
    current, made = FakeStream(), list[FakeStream]()
    used: list[tuple[str, Any]] = []

    class Context:
        def __init__(self, what: str, stream: Any):
            used.append((what, stream))

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    class Graph:
        def replay(self) -> None: ...

    def stream(device: Any) -> FakeStream:
        made.append(FakeStream())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Context("warm-up", stream))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, *, stream, **options: Context("capture", stream))
    step = make_step("ce")
    assert not made
    step.gear = step.gear._replace(name="graphed")
    for images, index in batches(WARM_UP + 2):
        step.train(images, index)
        step.evaluate(images, len(images))
        step.evaluate(images[:6], 6)
    step.recapture()
    step.train(*batches(1)[0])
    assert len(made) == 1
    assert all(stream is made[0] for _, stream in used)
    assert [what for what, _ in used].count("capture") == 4
    assert made[0].waits == [current] * 3 * WARM_UP
    assert current.waits == made * 3 * WARM_UP


@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("schedule", ["cosine", "multistep:1,3"])
@pytest.mark.parametrize("capturable", [False, True])
def test_a_loaded_learning_rate_stays_of_its_own_kind(kind: str, schedule: str, capturable: bool) -> None:
    """A number where it was one, the same tensor where a captured graph reads it, whatever the checkpoint held."""
    config = OptimConfig(optimizer=kind, schedule=schedule, epochs=5, learning_rate=0.1)

    def made(capturable: bool) -> tuple[torch.optim.Optimizer, Any]:
        network = torch.nn.Linear(2, 2)
        optimizer = create_optimizer(config, network)
        if capturable:  # PyTorch refuses it on a CPU at the first step, so none is made with it
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(0.1)
                if "capturable" in group:
                    group["capturable"] = True
        else:
            network(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        return optimizer, create_schedule(config, optimizer)

    saved, course = made(not capturable)
    optimizer, schedule_ = made(capturable)
    rate = optimizer.param_groups[0]["lr"]
    for _ in range(2):
        course.step()
    load_optimizer(optimizer, saved.state_dict(), schedule_, course.state_dict())
    group = optimizer.param_groups[0]
    expected = float(saved.param_groups[0]["lr"])
    assert expected != 0.1
    assert float(group["lr"]) == pytest.approx(expected)
    assert float(schedule_.get_last_lr()[0]) == pytest.approx(expected)
    if capturable:
        assert group["lr"] is rate
    else:
        assert isinstance(group["lr"], float)
    assert group.get("capturable", capturable) == capturable
    for _ in range(2):
        course.step()
        schedule_.step()
        assert float(group["lr"]) == pytest.approx(float(saved.param_groups[0]["lr"]))
        assert (group["lr"] is rate) == capturable


def test_a_named_gpu_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")
    assert chosen == [torch.device("cuda", 1)]
    with pytest.raises(ConfigError, match="sees 2 CUDA"):
        choose_device("cuda:2")


@pytest.mark.gpu
def test_evaluation_of_several_shapes_is_graphed() -> None:
    step, eager = make_step("nal", "graphed", device="cuda"), make_step("nal", device="cuda")
    restart_from(step, eager)
    random = torch.Generator().manual_seed(2)
    for size in (16, 16, 6, 16, 16, 6, 6, 6, 16, 6):
        images = torch.randn(size, 1, 8, 8, generator=random).cuda().to(memory_format=torch.channels_last)
        actual, expected = step.evaluate(images, size), eager.evaluate(images, size)
        torch.testing.assert_close(actual.logits, expected.logits, rtol=1e-2, atol=1e-2)
    assert len(step._evaluate_graphs) == 2


@pytest.mark.gpu
@pytest.mark.parametrize("compile_", COMPILE)
@pytest.mark.parametrize("method", METHODS)
def test_no_synchronisation_on_a_gpu(method: str, compile_: str) -> None:
    torch._dynamo.reset()
    for gear in ("compiled" if compile_ == "on" else "eager", "graphed"):  # with compile_ "on", compiled and graphed
        step = make_step(method, gear, "auto", "cuda", compile_)
        *first, last = batches(WARM_UP + 3, "cuda", step.method.views)
        for images, index in first:
            step.train(images, index)
        torch.cuda.set_sync_debug_mode("error")
        try:
            step.method.before_step(1, 0, 0)
            step.train(*last)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert int(step.statistics.bad_step) == -1  # type: ignore[attr-defined]


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("method", "compile_", "options"),
    [
        *(pytest.param(method, "off", "auto", id=f"{method}-off") for method in METHODS),
        *(pytest.param(method, "on", "auto", id=f"{method}-on", marks=pytest.mark.compiles) for method in METHODS),
        pytest.param("elr", "on", "combo_kernels", id="elr-combo_kernels", marks=pytest.mark.compiles),
        pytest.param("elr", "on", "pdl", id="elr-pdl", marks=pytest.mark.compiles),
    ],
)
def test_graphed_equals_eager_from_the_same_state(method: str, compile_: str, options: str) -> None:
    torch._dynamo.reset()
    eager = make_step(method, device="cuda")
    graphed = make_step(method, "graphed", device="cuda", compile_=compile_, compile_options=options)
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        same_from_the_same_state(graphed, eager, 50, 1e-4, "cuda")
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert graphed.replays == 50 - WARM_UP


@pytest.mark.gpu
def test_a_captured_step_follows_the_learning_rate() -> None:
    step = make_step("ce", "graphed", device="cuda", compile_="off")
    for images, index in batches(WARM_UP + 2, "cuda"):
        step.train(images, index)
    for group in step.optimizer.param_groups:
        group["lr"].fill_(0.0)
        group["weight_decay"] = 0.0
    before = [parameter.clone() for parameter in _parameters(step)]
    images, index = batches(1, "cuda")[0]
    step.train(images, index)
    assert all(torch.equal(old, new) for old, new in zip(before, _parameters(step), strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("method", CORE)
def test_a_gpu_step_equals_the_cpu_step(method: str) -> None:
    cpu, gpu = make_step(method), make_step(method, device="cuda")
    restart_from(gpu, cpu)
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
    other = gpu.method.state_dict()
    for name, table in cpu.method.state_dict().items():
        torch.testing.assert_close(other[name].cpu(), table, rtol=1e-3, atol=1e-5)


# -- clipped gradients ---------------------------------------------------------------------------------------


def norms_of(step: Step) -> list[float]:
    """The norm of each network's gradient after a step."""
    return [
        float(torch.stack([each.grad.norm() for each in network.parameters() if each.grad is not None]).norm())
        for network in step.networks
    ]


@pytest.mark.parametrize("method", ["ce", "nal", "coteaching"])
def test_gradients_are_clipped_to_the_norm_of_each_network(method: str) -> None:
    free, clipped, far = (make_step(method, clip_norm=largest) for largest in (None, 0.01, 1e6))
    for step in (free, clipped, far):
        step.train(*batches(1)[0])
    assert min(norms_of(free)) > 0.02
    for largest in (None, 0.01):
        noting = make_step(method, clip_norm=largest, norms=True)
        noting.train(*batches(1)[0])
        both = sum(norm**2 for norm in norms_of(free)) ** 0.5
        noted = float(noting.statistics.norm_sum)  # type: ignore[attr-defined]
        assert noted == pytest.approx(both, rel=1e-5), "of all networks, not clipped"
    for norm in norms_of(clipped):
        assert norm == pytest.approx(0.01, rel=1e-3)
    for one, two, three in zip(_parameters(free), _parameters(clipped), _parameters(far), strict=True):
        assert torch.equal(one, three), "gradients that are short enough stay as they are"
        if one.grad is not None:
            torch.testing.assert_close(two.grad / two.grad.norm(), one.grad / one.grad.norm(), atol=1e-5, rtol=1e-4)


@pytest.mark.compiles
def test_compiled_steps_clip_as_eager_ones() -> None:
    eager, compiled = make_step("ce", clip_norm=0.05), make_step("ce", "compiled", clip_norm=0.05)
    for batch in batches(3):
        eager.train(*batch)
        compiled.train(*batch)
    for one, two in zip(_parameters(eager), _parameters(compiled), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_a_scaled_loss_is_clipped_by_the_norm_of_the_gradient_itself() -> None:
    """As in fp16, which needs a GPU: the scaler's factor is taken out before the norm is formed."""
    plain, scaled = make_step("ce", clip_norm=0.05), make_step("ce", clip_norm=0.05)
    scaled.amp, scaled._autocast = torch.float16, nullcontext  # type: ignore[method-assign]
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in batches(2):
        plain.train(*batch)
        scaled.train(*batch)
        assert norms_of(scaled) == pytest.approx([0.05], rel=1e-3)
    for one, two in zip(_parameters(plain), _parameters(scaled), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_norms_of_steps_that_the_scaler_skips_do_not_count() -> None:
    """As in fp16, where the first steps overflow."""
    plain, scaled = (make_step("ce", norms=True) for _ in range(2))
    scaled.amp, scaled._autocast = torch.float16, nullcontext  # type: ignore[method-assign]
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    place = torch.device("cpu")
    statistics = EpochStatistics(NUM_SAMPLES, False, place, skips=True)
    scaled.norms, scaled.observe = statistics.note_norm, statistics.update

    def overflow() -> None:
        for parameter in _parameters(scaled):
            if parameter.grad is not None:
                parameter.grad.fill_(torch.inf)

    images, index = batches(1)[0]
    scaled.gradients = overflow
    weights = [parameter.detach().clone() for parameter in _parameters(scaled)]
    scaled.train(images, index)
    scaled.gradients = None
    assert all(map(torch.equal, weights, _parameters(scaled)))
    assert statistics.mean_norm is None, "no step has been made"
    with NoHostReads():
        statistics.note_norm(torch.tensor(torch.nan))
    statistics.update(Forward(torch.tensor(1.0), index), index)
    plain.train(images, index)
    scaled.train(images, index)
    expected = plain.statistics.mean_norm  # type: ignore[attr-defined]
    assert expected > 0
    assert statistics.mean_norm == pytest.approx(expected, rel=1e-5)
    other = EpochStatistics(NUM_SAMPLES, False, place, skips=True)
    other.load_state_dict(statistics.state_dict())
    assert other.mean_norm == statistics.mean_norm
    statistics.reset()
    statistics.update(Forward(torch.tensor(1.0), index), index)
    statistics.note_norm(torch.tensor(2.0))
    assert statistics.mean_norm == 2.0


@pytest.mark.gpu
@pytest.mark.parametrize("gear", ["eager", "graphed"])
def test_captured_steps_clip_without_waiting(gear: str) -> None:
    steps = [make_step("ce", name, device="cuda", compile_="off", clip_norm=0.05) for name in ("eager", gear)]
    for batch in batches(WARM_UP + 4, "cuda"):
        for step in steps:
            step.train(*batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps[1].train(*batches(1, "cuda")[0])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    steps[0].train(*batches(1, "cuda")[0])
    for one, two in zip(_parameters(steps[0]), _parameters(steps[1]), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
