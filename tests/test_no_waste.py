"""A step makes no layout copies, no copies of the target table, and no host reads: shown on the CPU by its profile, by
what it dispatches, and by the code that is generated for it."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.config import EngineConfig
from fastnoise.engine.optimizer import create_optimizer
from fastnoise.engine.profile import _Trace, _waste, find_waste
from fastnoise.engine.step import Step
from fastnoise.methods import create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe

NUM_SAMPLES, NUM_CLASSES, BATCH, SIDE = 90, 7, 12, 10
TABLE = (NUM_SAMPLES, NUM_CLASSES)
METHODS = ("ce", "elr", "nal", "swce")


def make_step(method: str, model: str, gear: str) -> Step:
    torch.manual_seed(0)
    config = recipe(method, "cifar10")
    made = create_method(config.method, num_samples=NUM_SAMPLES, num_classes=NUM_CLASSES)
    network = create_model(
        model, num_classes=NUM_CLASSES, channels=3, image_size=(SIDE, SIDE), width=0.125, attention=made.attention
    )
    network.train()
    made.attach([network])
    made.start_epoch(1)
    return Step(
        [network],
        made,
        create_optimizer(config.optim, nn.ModuleList([network])),
        torch.randint(NUM_CLASSES, (NUM_SAMPLES,)),
        batch_size=BATCH,
        config=EngineConfig(gear=gear, amp="off"),  # type: ignore[arg-type]
        device=torch.device("cpu"),
    )


def batch() -> tuple[Tensor, Tensor]:
    images = torch.randn(BATCH, 3, SIDE, SIDE).to(memory_format=torch.channels_last)
    return images, torch.randperm(NUM_SAMPLES)[:BATCH]


class Dispatched(TorchDispatchMode):
    """Notes what an eager step dispatches that a GPU would wait for, or that is as large as the target table."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in func.name() for name in self.READS):
            self.found.append(func.name())
        if func.namespace == "fastnoise":  # what its CPU kernels do inside, its GPU kernels do not
            with torch._C._DisableTorchDispatch():
                return func(*args, **(kwargs or {}))
        before = {arg.data_ptr() for arg in args if isinstance(arg, Tensor)}
        result = func(*args, **(kwargs or {}))
        fresh = isinstance(result, Tensor) and result.data_ptr() not in before
        if fresh and tuple(result.shape) == TABLE:
            self.found.append(f"{func.name()} makes a tensor of {TABLE}")
        return result


@pytest.mark.parametrize("model", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("method", METHODS)
def test_an_eager_step(method: str, model: str) -> None:
    step = make_step(method, model, "eager")
    step.train(*batch())
    images, index = batch()
    waste = find_waste(lambda: step.train(images, index), TABLE)
    assert not waste, waste
    weights = {list(parameter.shape).__repr__() for parameter in step.networks[0].parameters()}
    assert {re.search(r"\[.*?\]", copy)[0] for copy in waste.inside_kernels} <= weights  # type: ignore[index]
    with Dispatched() as dispatched:
        step.train(images, index)
    assert not dispatched.found


ALLOCATED = re.compile(r"(buf\d+) = empty_strided\w*\(\(([\d, ]+)\), \(([\d, ]+)\)")
RESULTS = re.compile(r"(assert_size_stride|assert_tensor_metadata)\(\w+, \(([\d, ]+)\), \(([\d, ]+)\)")


def faults(source: str) -> list[str]:
    """What generated code holds that a step must not: host reads, buffers of the table's size, images in NCHW.

    The gradient that max pooling scatters is excepted: Inductor lays it out in NCHW on a CPU, and the next kernel,
    batch norm's, reads it as it lies.
    """
    found = [word for word in (".item()", "_local_scalar_dense", ".tolist()", ".nonzero(") if word in source]
    for name, *numbers in [*ALLOCATED.findall(source), *RESULTS.findall(source)]:
        shape, strides = (tuple(int(number) for number in text.split(",") if number.strip()) for text in numbers)
        if name.startswith("buf") and shape == TABLE:
            found.append(f"a buffer of {TABLE}")
        user = re.search(rf"(cpp_fused\w+)\([^)]*\b{name}\b", source)
        scattered = user is not None and "max_pool2d" in user[1]
        if len(shape) == 4 and min(shape) > 1 and strides[1] != 1 and not scattered:
            found.append(f"{name} of {shape} with strides {strides}")
    return found


def generated(step: Step) -> list[str]:
    from torch._inductor.utils import run_and_get_code

    torch.compiler.reset()
    _, sources = run_and_get_code(lambda: step.train(*batch()))
    return sources


COMPILED = [
    pytest.param(method, model, marks=[] if (method, model) == ("elr", "small_cnn") else pytest.mark.slow)
    for method in METHODS
    for model in ("small_cnn", "resnet18")
]


@pytest.mark.parametrize(("method", "model"), COMPILED)
def test_a_compiled_step(method: str, model: str, fresh_inductor_cache: None) -> None:
    step = make_step(method, model, "compiled")
    sources = generated(step)
    assert len(sources) == 2  # forward with loss, and backward: no break in between
    assert not [fault for source in sources for fault in faults(source)]
    images, index = batch()
    waste = find_waste(lambda: step.train(images, index), TABLE)
    assert not waste, waste


@pytest.fixture
def fresh_inductor_cache() -> Any:
    """Code that is taken from the cache is not seen by run_and_get_code."""
    import torch._inductor.config as inductor

    with inductor.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        yield
    torch.compiler.reset()


class Sabotage(nn.Module):
    """A layer that wastes as it is told."""

    def __init__(self, how: str, table: Tensor):
        super().__init__()
        self.how, self.table = how, table

    def forward(self, images: Tensor) -> Tensor:
        match self.how:
            case "layout":
                return images.contiguous()
            case "item":
                return images * float(images.detach().mean().item())
            case "branch":
                return -images if images.mean() > 0 else images
            case "flat":
                return images + (images.flatten(1) @ images.new_ones(images[0].numel(), 3)).mean()
            case "table":
                return images + self.table.mul(2).sum()
        raise AssertionError(self.how)


def sabotaged(how: str, gear: str) -> Step:
    step = make_step("elr", "small_cnn", gear)
    backbone: Any = step.networks[0].backbone
    backbone.layers.insert(1, Sabotage(how, step.method.criterion.targets))  # type: ignore[arg-type]
    return step


@pytest.mark.parametrize("how", ["layout", "item", "table"])
def test_waste_in_an_eager_step_is_found(how: str) -> None:
    step = sabotaged(how, "eager")
    images, index = batch()
    waste = find_waste(lambda: step.train(images, index), TABLE)
    found = {"layout": waste.layout_copies, "item": waste.host_reads, "table": waste.table_copies}
    assert found.pop(how)
    assert not any(found.values())
    with Dispatched() as dispatched:
        step.train(images, index)
    assert bool(dispatched.found) == (how != "layout")


def test_a_layout_copy_in_a_compiled_step_is_found(fresh_inductor_cache: None) -> None:
    """A product of flattened images needs them in NCHW. (`contiguous` alone Inductor takes out again.)"""
    found = [fault for source in generated(sabotaged("flat", "compiled")) for fault in faults(source)]
    assert any("strides" in fault for fault in found), found


def test_a_compiled_step_cannot_decide_on_the_host() -> None:
    """Forward and loss are one graph. (A lone `item` PyTorch may turn into a tensor again, so that nothing is read.)"""
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        sabotaged("branch", "compiled").train(*batch())


def test_waste_in_generated_code_is_found() -> None:
    assert faults("buf3 = empty_strided_cpu((90, 7), (7, 1), torch.float32)") == [f"a buffer of {TABLE}"]
    assert faults("value = buf1.item()") == [".item()"]
    copy = "assert_size_stride(buf1, (12, 4, 10, 10), (400, 100, 10, 1))"
    assert faults(copy) == ["assert_size_stride of (12, 4, 10, 10) with strides (400, 100, 10, 1)"]
    assert not faults(copy.replace("(400, 100, 10, 1)", "(400, 1, 40, 4)"))


def test_the_wait_that_ends_a_profile_is_not_the_steps() -> None:
    def found(*names: str) -> tuple[str, ...]:
        events = [{"ph": "X", "cat": "cuda_runtime", "name": name, "ts": ts, "dur": 1} for ts, name in enumerate(names)]
        return _waste(_Trace(list(reversed(events))), None).host_reads

    assert found("cudaLaunchKernel", "cudaDeviceSynchronize") == ()
    assert found("cudaDeviceSynchronize", "cudaDeviceSynchronize") == ("cudaDeviceSynchronize",)
    assert found("cudaStreamSynchronize", "cudaLaunchKernel") == ("cudaStreamSynchronize",)
