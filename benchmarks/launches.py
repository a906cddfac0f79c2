"""What Inductor would launch on an H100 for one training step, counted on a machine without a GPU.

    python -m benchmarks.launches [--models resnet18 resnet34] [--methods ce elr] [--batch-size 128]
        [--set combo_kernels=True] [--out generated/]

The step is `fastnoise train`'s own: a method's `training_step` on a network of fastnoise.models, with the fused loss and
its table of targets, in bf16 and channels_last, compiled as one graph. It is traced on the CPU; then its forward and
backward are moved to a device that isn't there, Inductor is told that this is an H100, and is stopped where it would
load its Triton code: 20 to 100 s a network. The method "network" is a network under plain cross-entropy without a
fused loss, to tell what the network alone takes.

Counted, for forward and backward: launches of Triton kernels, among them those that only cast a weight or its gradient,
those that cast something else, those that only count, and those that change a memory format; calls of libraries and of
fastnoise's fused kernels; copies of the target table. Beside them what else a step dispatches in an eager loop: the
optimiser, the averages of weights, the statistics. PyTorch's fused optimisers are an operation or two, and a launch for
every few hundred pieces of 65,536 weights.

Nothing runs: the counts are exact, times are not to be had. It works by replacing what PyTorch asks the driver, in a
process of its own, tried with torch 2.11 and 2.14; another version may ask something else, and then it says so. Writes
benchmarks/results/launches.csv, a row per part.
"""

import argparse
import ast
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.config import EngineConfig
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.step import Step, create_optimizer
from fastnoise.errors import ConfigError, FastnoiseError
from fastnoise.methods import Forward, create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe

from . import record

RESULTS = record.RESULTS / "launches.csv"
KEY = ("model", "batch", "method", "options", "part", "torch")
NETWORK = "network"
"""In place of a method: cross-entropy by PyTorch."""
SAMPLES, SIDE = 50_000, 32

H100 = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", major=9, minor=0, total_memory=80 * 2**30, multi_processor_count=132, is_integrated=0,
    is_multi_gpu_board=0, max_threads_per_multi_processor=2048, regs_per_multiprocessor=65536,
    shared_memory_per_block=49152, shared_memory_per_block_optin=232448, shared_memory_per_multiprocessor=233472,
    warp_size=32, L2_cache_size=50 * 2**20, gcnArchName="", max_threads_per_block=1024, clock_rate=1980000,
    memory_clock_rate=2619000, memory_bus_width=5120, uuid="x", pci_bus_id=0, pci_device_id=0, pci_domain_id=0,
)  # fmt: skip


def pretend() -> None:
    """Let PyTorch, Inductor and Triton believe in one H100, for the rest of this process."""
    import torch._inductor.config as config
    import torch._inductor.fx_passes.reinplace as reinplace
    import torch._subclasses.fake_tensor as fake_tensor
    import torch.utils._triton as support
    import triton
    from torch._dynamo.device_interface import CudaInterface
    from triton.backends.compiler import GPUTarget

    def answer(holder: Any, answers: dict[str, Any], wrap: Callable[..., Any] = lambda function: function) -> None:
        for name, value in answers.items():
            setattr(holder, name, wrap(lambda *_, _value=value, **__: _value))

    answer(torch.cuda, {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": True, "synchronize": None,
        "get_device_name": H100.name, "get_device_capability": (9, 0), "get_device_properties": H100,
        "is_bf16_supported": True, "_lazy_init": None, "set_device": None, "_is_in_bad_fork": False,
        "_maybe_exchange_device": 0, "_exchange_device": 0, "is_current_stream_capturing": False, "set_rng_state": None,
    })  # fmt: skip
    torch.cuda.get_rng_state = torch.cuda.random.get_rng_state = lambda *_: torch.get_rng_state()
    answer(torch._C, {
        "_cuda_getCurrentRawStream": 0, "_cuda_isCurrentStreamCapturing": False, "_cuda_getDevice": 0,
        "_cuda_setDevice": None, "_cuda_getDeviceCount": 1,
    })  # fmt: skip
    answer(torch.accelerator, {"is_available": False})
    answer(CudaInterface, {
        "is_available": True, "get_compute_capability": 90, "device_count": 1, "current_device": 0,
        "exchange_device": 0, "maybe_exchange_device": 0, "synchronize": None, "get_raw_stream": 0,
        "get_device_properties": H100, "set_device": None, "is_bf16_supported": True, "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }, staticmethod)  # fmt: skip
    answer(
        CudaInterface.Worker, {"get_device_properties": H100, "current_device": 0, "set_device": None}, staticmethod
    )
    properties = {
        "max_shared_mem": H100.shared_memory_per_block_optin, "multiprocessor_count": 132, "max_num_regs": 65536,
        "warpSize": 32, "sm_clock_rate": H100.clock_rate, "mem_clock_rate": H100.memory_clock_rate,
        "mem_bus_width": H100.memory_bus_width,
    }  # fmt: skip
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device=0: 0,
            get_active_torch_device=lambda: torch.device("cuda", 0),
            is_active=lambda: True,
            utils=SimpleNamespace(load_binary=None, get_device_properties=lambda device: properties),
        )
    )
    answer(support, {"has_triton": True, "has_triton_package": True})
    config.compile_threads, config.fx_graph_cache, config.force_disable_caches = 1, False, True
    config.triton.autotune_at_compile_time = False
    config.triton.descriptive_names = "original_aten"
    answer(fake_tensor, {"init_gpu_context": None})
    answer(reinplace, {"canonicalize_view_scatter_ops": None})

    def memory_format(images: Tensor, weight: Tensor, backend: object) -> torch.memory_format:
        """What cuDNN answers: channels_last if either is."""
        either = any(
            x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in (images, weight)
        )
        return torch.channels_last if either else torch.contiguous_format

    torch._C._conv_determine_backend_memory_format = memory_format


def configure(words: Sequence[str]) -> None:
    """Set NAME=VALUE of torch._inductor.config, which names with dots go down; ConfigError for what it doesn't know."""
    import torch._inductor.config as config

    for word in words:
        name, equals, value = word.partition("=")
        *path, last = name.split(".")
        holder: Any = config
        try:
            for part in path:
                holder = getattr(holder, part)
            getattr(holder, last)
            setattr(holder, last, ast.literal_eval(value))
        except (AttributeError, ValueError, SyntaxError):
            wrong = f"{value!r} is no value" if equals and value else "NAME=VALUE is wanted"
            raise ConfigError(
                f"--set {word}: torch._inductor.config has no such option, or {wrong}; "
                "write combo_kernels=True or triton.enable_pdl=True"
            ) from None


class _Generated(BaseException):
    """Inductor has written its code; there is no device to load it on."""


class Inductor:
    """Inductor's compiler up to the code that it writes for CUDA. What it is given is never computed: the results are
    zeros. `code` holds what was written for "forward" and "backward"."""

    def __init__(self) -> None:
        import torch._inductor.graph
        from torch._inductor import compile_fx

        self.code: dict[str, str] = {}
        self._part = ""
        self._inner = compile_fx.compile_fx_inner
        whole = compile_fx.compile_fx

        def stop(graph: Any) -> None:
            written = graph.codegen()[0]
            self.code[self._part] = getattr(written, "value", None) or str(written)
            raise _Generated

        for name in ("compile_to_module", "_compile_to_module"):
            setattr(torch._inductor.graph.GraphLowering, name, stop)

        def instead(*inputs: Any, **words: Any) -> Any:
            words.setdefault("inner_compile", self._write)
            return whole(*inputs, **words)

        compile_fx.compile_fx = instead

    def _write(self, module: Any, inputs: Sequence[Any], **words: Any) -> Callable[..., Any]:
        import copy

        import torch._guards
        from torch._functorch.aot_autograd import make_boxed_func
        from torch._inductor.virtualized import V
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.passes.fake_tensor_prop import FakeTensorProp

        self._part = "backward" if words.get("is_backward") else "forward"
        (outputs,) = next(node for node in reversed(module.graph.nodes) if node.op == "output").args
        metas = [getattr(node, "meta", {}).get("val") for node in outputs]
        moved = copy.deepcopy(module)
        for node in moved.graph.nodes:
            if "device" in node.kwargs:
                node.kwargs = {**node.kwargs, "device": torch.device("cuda")}
            node.meta.pop("val", None)
            node.meta.pop("tensor_meta", None)
        moved.recompile()
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with mode:
            there = [_on_cuda(value) for value in inputs]
        FakeTensorProp(moved, mode).propagate_dont_convert_inputs(*there)
        with torch._guards.tracing(torch._guards.TracingContext(mode)), V.set_fake_mode(mode):
            try:
                self._inner(moved, there, **{**words, "cudagraphs": None, "static_input_idxs": []})
            except _Generated:
                pass
        backward = self._part == "backward"
        return make_boxed_func(lambda *given: [_zeros(meta, dense=backward) for meta in metas])


def _on_cuda(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")


def _zeros(meta: Any, dense: bool) -> Any:
    """Zeros in the form of a fake tensor; activations take no memory, gradients do, as optimisers read them."""
    if not isinstance(meta, Tensor):
        return meta
    if dense:
        return torch.empty_strided(meta.shape, meta.stride(), dtype=meta.dtype).zero_()
    return torch.zeros((), dtype=meta.dtype).expand(meta.shape)


def count(code: str, parameters: Sequence[Tensor], table: tuple[int, int] | None) -> record.Row:
    """What a part's generated code launches.

    Args:
        code: a module that Inductor wrote, with `original_aten` in the names of its kernels.
        parameters: of the networks, whose casts are told from others.
        table: [N, C] of the target table.
    """
    call = code[code.rindex("def call(") :].partition("\ndef ")[0]
    kernels = re.findall(r"^\s+(triton_\w+)\.run\(([^\n]*)\)$", call, re.M)
    shapes = {
        name: ast.literal_eval(shape)
        for name, shape in re.findall(r"^\s+(?:assert_size_stride\()?(\w+)(?:, | = empty_strided_cuda\()(\([^)]*\))", call, re.M)
    }
    weights = {tuple(parameter.shape) for parameter in parameters}
    casts = [words.split(", ") for name, words in kernels if re.fullmatch(r"triton_\w+?_fused__to_copy_\d+", name)]
    of_weights = [words for words in casts if {shapes.get(words[0]), shapes.get(words[1])} <= weights]
    buffers = re.findall(r"empty_strided_cuda\((\([^)]*\)), (\([^)]*\)), torch\.(\w+)", call)
    forms = [(ast.literal_eval(shape), ast.literal_eval(stride)) for shape, stride, _ in buffers]
    turned = [
        shape
        for shape, stride in forms
        if len(shape) == 4 and shape not in weights and shape[1] > 1 and max(shape[2:]) > 1 and stride[1] != 1
    ]
    shuffles = [name for name, _ in kernels if re.search(r"clone|permute|transpose|contiguous", name)]
    fused = re.findall(r"torch\.ops\.fastnoise\.(\w+)\.default\(", call)
    library = re.findall(r"^\s+(?:\w+ = )?extern_kernels\.\w+\(|= torch\.ops\.aten\.\w+", call, re.M)
    found: dict[str, object] = {
        "triton_launches": len(kernels),
        "weight_casts": len(of_weights),
        "other_casts": len(casts) - len(of_weights),
        "only_add": len([name for name, _ in kernels if re.fullmatch(r"triton_\w+?_fused_add_\d+", name)]),
        "format_changes": len(shuffles) + len(turned),
        "library_calls": len(library),
        "fused_calls": len(fused),
        "table_copies": sum(shape == table for shape, _ in forms),
        "operations": 0,
    }
    return {name: str(value) for name, value in found.items()}


class Dispatched(TorchDispatchMode):
    """Counts what an eager part dispatches that is a launch on a GPU: neither a view nor an allocation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(part.alias_info is not None and not part.alias_info.is_write for part in func._schema.returns)
        if not view and not re.search(r"empty|detach|lift_fresh", func.name()):
            self.names[func.name()] += 1
        return func(*args, **(kwargs or {}))


def _networks(method: Any, model: str, classes: int) -> list[Any]:
    made = [
        create_model(model, num_classes=classes, image_size=(SIDE, SIDE), attention=method.attention)
        for _ in range(method.networks)
    ]
    return [network.train() for network in made]
