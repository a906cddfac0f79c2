"""What Inductor would launch on an H100 for one training step, counted on a machine without a GPU.

    python -m benchmarks.launches [--models resnet18 resnet34] [--methods ce elr] [--batch-size 128]
        [--fused-norm] [--optimizer-kernel triton] [--set combo_kernels=True] [--out generated/]

The step is `fastnoise train`'s own: a method's `training_step` on a network of fastnoise.models, with the fused loss
and its table of targets, in bf16 and channels_last, compiled as one graph. It is traced on the CPU; then its forward
and backward are moved to a device that isn't there, Inductor is told that this is an H100, and is stopped where it
would load its Triton code: 15 to 60 s a network. The method "network" is a network under PyTorch's cross-entropy, to
tell what the network alone takes.

Counted, for forward and backward: launches of Triton kernels, among them those that only cast a weight or its gradient,
those that cast something else, those that only count, and those that change a memory format; calls of libraries and of
fastnoise's ops, and the kernels that these launch; copies of the target table. `elementwise_mb` is what Triton's
launches read and write, as Inductor counts it, and what batch norm's ops do (`kernels/batch_norm.py`), in MB: all that
is neither a library's nor a loss's. `norm_mb` is the ops' part of it. Beside them what else a step dispatches in an
eager loop: the optimiser, the averages of weights, the statistics. PyTorch's fused optimisers are an operation or two,
and a launch for every few hundred pieces of 65,536 weights.

Nothing runs: the counts are exact, times are not to be had. It works by replacing what PyTorch asks the driver, in a
process of its own, tried with torch 2.11 and 2.14; another version may ask something else, and then it says so. Writes
benchmarks/results/launches.csv, a row per part.
"""

import argparse
import ast
import copy
import math
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.config import EngineConfig
from fastnoise.engine.metrics import EpochStatistics
from fastnoise.engine.optimizer import create_optimizer
from fastnoise.engine.step import Step
from fastnoise.errors import ConfigError, FastnoiseError
from fastnoise.methods import Forward, create_method
from fastnoise.models import create_model
from fastnoise.models.norm import fuse_norms
from fastnoise.ops import batch_norm
from fastnoise.ops.averages import MovingAverage
from fastnoise.ops.optimizer import OneLaunch
from fastnoise.ops.unit import inductor_options
from fastnoise.recipes import recipe

from . import record
from .pretended import pretend

RESULTS = record.RESULTS / "launches.csv"
KEY = ("model", "batch", "method", "options", "part", "torch")
COUNTS = (
    "triton_launches",
    "weight_casts",
    "other_casts",
    "only_add",
    "format_changes",
    "library_calls",
    "fused_calls",
    "own_launches",
    "elementwise_mb",
    "norm_mb",
    "table_copies",
    "operations",
)
TRIED = ("2.11", "2.14")
"""Versions of torch."""
NETWORK = "network"
"""In place of a method: cross-entropy by PyTorch."""
SAMPLES, SIDE = 50_000, 32


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
    zeros. `code` holds what was written for "forward" and "backward", `bytes` what its Triton kernels move."""

    def __init__(self) -> None:
        import torch._inductor.graph
        from torch._inductor import compile_fx

        self.code: dict[str, str] = {}
        self.bytes: dict[str, int] = {}
        self._part = ""
        self._inner = compile_fx.compile_fx_inner
        whole = compile_fx.compile_fx

        def stop(graph: Any) -> None:
            written = graph.codegen()[0]
            self.code[self._part] = getattr(written, "value", None) or str(written)
            nodes = (node for node in graph.scheduler.nodes if not node.is_extern())
            self.bytes[self._part] = sum(node.get_read_write_buffers_sizes() for node in nodes)
            raise _Generated

        for name in ("compile_to_module", "_compile_to_module"):
            setattr(torch._inductor.graph.GraphLowering, name, stop)

        def instead(*inputs: Any, **words: Any) -> Any:
            words.setdefault("inner_compile", self._write)
            return whole(*inputs, **words)

        compile_fx.compile_fx = instead

    def _write(self, module: Any, inputs: Sequence[Any], **words: Any) -> Callable[..., Any]:
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
        context = torch._guards.tracing(torch._guards.TracingContext(mode))
        with suppress(_Generated), context, V.set_fake_mode(mode):
            self._inner(moved, there, **{**words, "cudagraphs": None, "static_input_idxs": []})
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


def norm_bytes(call: str, shapes: dict[str, tuple[int, ...]]) -> int:
    """What the kernels of batch norm's ops read and write of images in half precision.

    Forward they read the images twice and the residual, and write the result. Backward they read the images twice, and
    each gradient twice, and write the gradient of the images. With a residual they read the gradients and the result
    once, and write and read the residual's gradient.
    """
    total = 0
    for name, words in re.findall(r"torch\.ops\.fastnoise\.(batch_norm\w*)\.default\(([^\n]*)\)$", call, re.M):
        given = words.split(", ")
        if name == "batch_norm":
            images, residual = given[0], given[5]
            passes = 3 + (residual != "None")
        else:
            _, second, images, out = given[:4]
            gradients = 1 + (second != "None")
            passes = 3 + (2 * gradients if out == "None" else gradients + 3)
        total += 2 * math.prod(shapes[images]) * passes
    return total


def count(code: str, parameters: Sequence[Tensor], table: tuple[int, int], moved_bytes: int = 0) -> record.Row:
    """What a part's generated code launches.

    Args:
        code: a module that Inductor wrote, with `original_aten` in the names of its kernels.
        parameters: of the networks, whose casts are told from others.
        table: [N, C] of the target table.
        moved_bytes: of the Triton kernels.
    """
    call = code[code.rindex("def call(") :].partition("\ndef ")[0]
    kernels = re.findall(r"^\s+(triton_\w+)\.run\(([^\n]*)\)$", call, re.M)
    if len(kernels) != call.count(".run("):
        raise ValueError("the generated code launches kernels in another form")
    form = r"(\([^)]*\))"
    made = re.findall(rf"(\w+) = empty_strided_cuda\({form}, {form}", call)
    given = re.findall(rf"^\s+assert_(?:size_stride|tensor_metadata)\((\w+), {form}, {form}", call, re.M)
    for line in re.findall(r"^\s+(assert_size_stride_grouped\([^\n]*\))$", call, re.M):  # torch 2.14
        (names_of, *forms) = ast.parse(line, mode="eval").body.args[:3]
        given += zip(*([ast.unparse(part) for part in each.elts] for each in (names_of, *forms)), strict=True)
    reused = re.findall(rf"(\w+) = reinterpret_tensor\(\w+, {form}, {form}", call)
    shapes = {name: ast.literal_eval(shape) for name, shape, _ in (*made, *given, *reused)}
    weights = {tuple(parameter.shape) for parameter in parameters}
    casts = [(name, words.split(", ")[:2]) for name, words in kernels if re.fullmatch(r"\w+, \w+, \d+, \w+=\w+", words)]
    casts = [(name, pair) for name, pair in casts if "_to_copy" in name]
    of_weights = [pair for _, pair in casts if any(shapes.get(tensor) in weights for tensor in pair)]
    pure = [pair for name, pair in casts if re.fullmatch(r"triton_\w+?_fused__to_copy_\d+", name)]
    layouts = [(ast.literal_eval(shape), ast.literal_eval(stride)) for _, shape, stride in (*made, *given)]
    turned = [  # activations in another layout than channels_last
        shape
        for shape, stride in layouts
        if len(shape) == 4 and shape not in weights and shape[1] > 1 and max(shape[2:]) > 1 and stride[1] != 1
    ]
    moved = [name for name, _ in kernels if re.search(r"clone|permute|transpose|contiguous|as_strided_scatter", name)]
    library = re.findall(r"(?:extern_kernels\.|= torch\.ops\.aten\.)(\w+)", call)
    fused = re.findall(
        r"= torch\.ops\.fastnoise\.(\w+)\.default\(|^\s+torch\.ops\.fastnoise\.(\w+)\.default\(", call, re.M
    )
    names = [first or second for first, second in fused]
    of_norms = norm_bytes(call, shapes)
    return _row(
        triton_launches=len(kernels),
        weight_casts=len(of_weights),
        other_casts=sum(pair not in of_weights for pair in pure),
        only_add=sum(re.fullmatch(r"triton_\w+?_fused_add_\d+", name) is not None for name, _ in kernels),
        format_changes=len(turned) + len(moved),
        library_calls=len(library),
        fused_calls=len(fused),
        own_launches=sum(batch_norm.LAUNCHES if name.startswith("batch_norm") else 1 for name in names),
        elementwise_mb=round((moved_bytes + of_norms) / 1e6),
        norm_mb=round(of_norms / 1e6),
        table_copies=sum(ast.literal_eval(shape) == table for _, shape, _ in made),
        details=Counter([*library, *names]),
    )


def _row(details: Counter[str], **counts: int) -> record.Row:
    words = " ".join(f"{count}x{name}" for name, count in sorted(details.items()))
    return {**{name: str(counts.get(name, 0)) for name in COUNTS}, "details": words}


class _Dispatched(TorchDispatchMode):
    """Counts what an eager part dispatches that is a launch on a GPU: neither a view nor an allocation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(part.alias_info is not None and not part.alias_info.is_write for part in func._schema.returns)
        if not view and not re.search(r"empty|detach|lift_fresh|_record_function", func.name()):
            self.names[func.name().removeprefix("aten::").partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def _launches(names: Counter[str]) -> Iterator[None]:
    """Averages of weights and fastnoise's optimisers are, as on CUDA, one launch, which is only counted."""
    with (
        patch.object(MovingAverage, "__call__", lambda *_: names.update(["fastnoise.move_averages"])),
        patch.object(OneLaunch, "_launch", lambda *_: names.update(["fastnoise.update"])),
    ):
        yield


def _dispatched(part: Callable[[], object]) -> record.Row:
    """What a part dispatches on the CPU."""
    with _Dispatched() as dispatched, _launches(dispatched.names):
        part()
    return _row(dispatched.names, operations=dispatched.names.total())


def measure(
    inductor: Inductor,
    model: str,
    method: str,
    batch_size: int,
    classes: int,
    fused_norm: bool = False,
    optimizer_kernel: str = "torch",
) -> dict[str, record.Row]:
    """The counts of each part of a training step, or of a network under cross-entropy."""
    torch._dynamo.reset()
    inductor.code.clear()
    device, index = torch.device("cpu"), torch.arange(batch_size)
    labels = torch.zeros(SAMPLES, dtype=torch.int64)

    def images(views: int) -> Tensor:
        made = torch.zeros(views * batch_size, 3, SIDE, SIDE, dtype=torch.bfloat16)
        return made.to(memory_format=torch.channels_last)

    if method == NETWORK:
        network = create_model(model, num_classes=classes, image_size=(SIDE, SIDE)).train()
        if fused_norm:
            fuse_norms(network)

        def loss(batch: Tensor, labels: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                outputs = network(batch)
            return nn.functional.cross_entropy(outputs.logits.float(), labels)

        compiled = torch.compile(loss, fullgraph=True, dynamic=False, options=inductor_options())
        compiled(images(1), labels[:batch_size]).backward()
        return _counted(inductor, list(network.parameters()), classes)
    config = recipe(method, "cifar10")
    made = create_method(config.method, num_samples=SAMPLES, num_classes=classes)
    shape = {"num_classes": classes, "image_size": (SIDE, SIDE), "attention": made.attention}
    networks = [create_model(model, **shape).train() for _ in range(made.networks)]  # type: ignore[arg-type]
    if fused_norm:
        for each in networks:
            fuse_norms(each)
    made.attach(networks)
    made.start_epoch(1)
    statistics = EpochStatistics(SAMPLES, made.attention, device)
    found: list[Forward] = []
    step = Step(
        networks,
        made,
        create_optimizer(config.optim, nn.ModuleList(networks), kernel=optimizer_kernel),
        labels,
        batch_size=batch_size,
        config=EngineConfig(gear="compiled", amp="bf16"),
        device=device,
        observe=lambda result, index: found.append(result),
    )
    with _launches(Counter()):
        step.train(images(made.views), index)
    parameters = [parameter for network in networks for parameter in network.parameters()]
    rows = _counted(inductor, parameters, classes)
    rows["optimiser"] = _dispatched(step.optimizer.step)
    rows["after_update"] = _dispatched(lambda: made.after_update(networks))
    statistics.update(found[0], index)  # the first may make tensors that it keeps
    rows["statistics"] = _dispatched(lambda: statistics.update(found[0], index))
    return rows


def _counted(inductor: Inductor, parameters: Sequence[Tensor], classes: int) -> dict[str, record.Row]:
    """The counts of forward and backward."""
    return {
        part: count(code, parameters, (SAMPLES, classes), inductor.bytes[part]) for part, code in inductor.code.items()
    }


def _line(part: str, row: record.Row) -> str:
    if part not in ("forward", "backward"):
        return f"{part}: {row['operations']} operations ({row['details'] or 'none'})"
    return (
        f"{part}: {row['triton_launches']} Triton launches ({row['weight_casts']} cast a weight, {row['other_casts']} "
        f"cast something else, {row['only_add']} only add, {row['format_changes']} change a memory format), "
        f"{row['own_launches']} of fastnoise's own, {row['library_calls']} library calls, {row['table_copies']} copies "
        f"of the table; {row['elementwise_mb']} MB, of which batch norm's ops move {row['norm_mb']}"
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet34"])
    parser.add_argument("--methods", nargs="+", default=[NETWORK, "elr"], help=f'methods, or "{NETWORK}"')
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--fused-norm", action="store_true", help="as --fused-norm on of fastnoise train")
    kernels = ("torch", "triton")
    parser.add_argument("--optimizer-kernel", choices=kernels, default="torch", help="as of fastnoise train")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="of torch._inductor.config")
    parser.add_argument("--out", type=Path, help="a folder for the generated code")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the CSV file; default: %(default)s")
    arguments = parser.parse_args(words)
    try:
        _count_all(arguments)
    except FastnoiseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _count_all(arguments: argparse.Namespace) -> None:
    if arguments.batch_size < 1 or arguments.classes < 2:
        raise ConfigError("--batch-size must be 1 or more, and --classes 2 or more")
    if find_spec("triton") is None:
        raise ConfigError("what Inductor launches on a GPU is written in Triton: pip install triton")
    stamp = record.stamp()  # before this process takes the machine for another
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        pretend()
        configure(arguments.set)
        inductor = Inductor()
        for model, method in product(arguments.models, arguments.methods):
            start = time.perf_counter()
            try:
                sizes = arguments.batch_size, arguments.classes
                rows = measure(inductor, model, method, *sizes, arguments.fused_norm, arguments.optimizer_kernel)
            except FastnoiseError:
                raise
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise ConfigError(
                    f"{model}, {method}: nothing to count with torch {torch.__version__} ({reason}); the step does "
                    f"not compile, or this version asks for what is not pretended: tried with {' and '.join(TRIED)}"
                ) from error
            seconds = time.perf_counter() - start
            print(f"{model}, {method}, batch {arguments.batch_size}, torch {torch.__version__}, {seconds:.0f} s")
            for part, row in rows.items():
                print(f"  {_line(part, row)}", flush=True)
            if arguments.out:
                arguments.out.mkdir(parents=True, exist_ok=True)
                for part, code in inductor.code.items():
                    (arguments.out / f"{model}_{method}_{part}.py").write_text(code)
            key = {"model": model, "batch": str(arguments.batch_size), "method": method}
            chosen = ["fused_norm"] * arguments.fused_norm
            chosen += ["optimizer_kernel=triton"] * (arguments.optimizer_kernel == "triton")
            key["options"] = " ".join(chosen + arguments.set) or "none"
            full = [{**key, "part": part, **row, **stamp} for part, row in rows.items()]
            record.append(arguments.output, full, KEY)


if __name__ == "__main__":
    main()
