"""One training step and one evaluation step in three gears: eager, compiled, graphed."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from types import FunctionType, MethodType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..config import EngineConfig, parse_compile_options
from ..data.positioned import PositionedBatches
from ..errors import ConfigError
from ..methods import Forward, Method
from ..models import Network, Outputs
from ..models.heads import with_mirror
from ..ops.looks import note_looks
from ..ops.optimizer import OneLaunch
from ..ops.unit import inductor_options, with_unit_gradient
from .clipping import clip_gradients
from .growth import shrunk
from .optimizer import captured, reset_optimizer
from .own_loss import check_loss
from .payback import UNKNOWN_NETWORK, Cost
from .weight_copies import WeightCopies

INDUCTOR_OPTIONS: dict[str, dict[str, bool]] = {
    "combo_kernels": {"combo_kernels": True},
    "pdl": {"triton.enable_pdl": True},
}
"""What --compile-options names, as torch.compile takes it. Not among them: triton.cooperative_reductions, which in
PyTorch 2.11 keeps long reductions from being split and leaves most of a GPU idle."""

WARM_UP = 3
"""Training steps made before a step is captured: they fill caches, choose kernels and make the optimiser's state."""


def choose_device(name: str) -> torch.device:
    """The device that `--device` names. It becomes PyTorch's current device. ConfigError if it doesn't exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"--device {name}: no such device; valid: auto, cpu, cuda, cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {name}: fastnoise runs on cpu and cuda")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(
            f"--device {name}: PyTorch sees {count} CUDA device(s); use --device cpu or repair the driver"
        )
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # streams, events and Triton's launches go to the current device
    return device


def native_bf16() -> bool:
    """Whether the CPU multiplies in bf16. If it does not, autocast is several times slower than fp32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_amp(setting: str, device: torch.device) -> tuple[torch.dtype | None, str]:
    """The autocast dtype (None: full precision) and the reason for it."""
    if setting == "off":
        return None, "full precision as asked"
    if setting == "auto":
        if device.type == "cpu":
            if native_bf16():
                return None, "full precision: the default on CPUs; this one has bf16, so --amp bf16 may be faster"
            return None, "full precision: autocast is slower on CPUs without native bf16"
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bf16: the GPU has it"
        return torch.float16, "fp16 with loss scaling: the GPU has no bf16"
    if setting == "fp16" and device.type == "cpu":
        raise ConfigError("--amp fp16 needs a GPU; on a CPU use --amp off or bf16")
    return (torch.bfloat16 if setting == "bf16" else torch.float16), f"{setting} as asked"


Name = Literal["eager", "compiled", "graphed", "compiled_graphed"]


class Gear(NamedTuple):
    """How steps run, and the reason."""

    name: Name
    reason: str

    @property
    def compiled(self) -> bool:
        """Whether forward and loss go through torch.compile; in a graphed step, the kernels that are captured."""
        return self.name in ("compiled", "compiled_graphed")

    @property
    def graphed(self) -> bool:
        """Whether a step is captured in a CUDA graph."""
        return self.name in ("graphed", "compiled_graphed")


def choose_gear(
    config: EngineConfig,
    device: torch.device,
    amp: torch.dtype | None,
    steps: int | None = None,
    cost: Cost = UNKNOWN_NETWORK,
) -> Gear:
    """The gear that `config` asks for; for auto the one in which the run should end first.

    Args:
        amp: the autocast dtype.
        steps: that are still to be made, to tell whether compiling pays; None: many.
        cost: what compiling costs and gains.

    Raises:
        ConfigError: the requested gear is not possible here.
    """
    obstacle = ""
    if device.type != "cuda":
        obstacle = "CUDA graphs need a GPU"
    elif amp == torch.float16:
        obstacle = "fp16 loss scaling decides on the host; take --amp bf16 or off"
    if config.gear in ("graphed", "compiled_graphed") and obstacle:
        raise ConfigError(f"--gear {config.gear}: {obstacle}")
    if config.gear in ("compiled", "compiled_graphed") or config.compile == "on":
        compiled, why = True, "compiled as asked"
    elif config.gear in ("eager", "graphed") or config.compile == "off":
        compiled, why = False, "not compiled as asked"
    elif device.type != "cuda":
        compiled, why = False, "compiling seldom pays on a CPU"
    elif steps is None:
        compiled, why = True, "compiled: the device is a GPU, and no end of the steps is known"
    else:
        compiled, why = cost.pays(steps)
    graphed = config.gear in ("graphed", "compiled_graphed") or (config.gear == "auto" and not obstacle)
    name: Name = ("compiled_graphed" if compiled else "graphed") if graphed else "compiled" if compiled else "eager"
    reason = f"gear: {name}, "
    if config.gear == name:
        reason += "as asked"
    elif graphed:
        reason += f"{'captured as asked' if config.gear != 'auto' else 'captured: the device is a GPU'}; {why}"
    else:
        reason += why
    if device.type == "cuda" and obstacle:
        reason += f" ({obstacle})"
    options = parse_compile_options(config.compile_options)
    if options:
        with_them = ", ".join(options)
        reason += f"; with {with_them}" if compiled else f"; {with_them}: nothing is compiled"
    return Gear(name, reason)


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    """A bound method with a code object of its own.

    Dynamo keeps what it compiles with the code object, and refuses to compile one more than `recompile_limit` (8)
    times: without this the ninth compiled step of a process would fail.
    """
    assert isinstance(method, MethodType)
    function = method.__func__
    assert isinstance(function, FunctionType)
    copied = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    return MethodType(copied, method.__self__)


class _Graph:
    """A function of tensors captured in a CUDA graph, with the buffers that its arguments are copied into."""

    def __init__(self, function: Callable[..., object], arguments: Sequence[Tensor], side: "_SideStream"):
        self.arguments = [torch.empty_like(argument) for argument in arguments]
        self.graph = torch.cuda.CUDAGraph()
        self.replays = 0
        self.kept: list[Tensor] = []
        """Tensors beside the arguments that the graph reads."""
        for buffer, argument in zip(self.arguments, arguments, strict=True):
            buffer.copy_(argument)
        # thread_local: a loader's threads may allocate meanwhile, which would break a global capture.
        with torch.cuda.graph(self.graph, stream=side.stream, capture_error_mode="thread_local"):
            self.result = function(*self.arguments)

    def fits(self, arguments: Sequence[Tensor]) -> bool:
        """Whether arguments have the shapes, dtypes and layouts of the capture."""
        return all(
            (mine.shape, mine.dtype, mine.stride()) == (other.shape, other.dtype, other.stride())
            for mine, other in zip(self.arguments, arguments, strict=True)
        )

    def __call__(self, *arguments: Tensor) -> object:
        for buffer, argument in zip(self.arguments, arguments, strict=True):
            buffer.copy_(argument, non_blocking=True)
        self.graph.replay()
        self.replays += 1
        return self.result


class _Joint(NamedTuple):
    """A graph of several steps."""

    of: tuple[PositionedBatches, int, int]
    """The batches that it takes, their generation, and the number of its steps."""
    graph: _Graph

    @property
    def steps(self) -> int:
        """Of the graph."""
        return self.of[2]


class Step:
    """Training and evaluation of one batch.

    Nothing here waits for the device. Only batches of exactly `batch_size` samples reach the compiled or captured
    step; an epoch's smaller last batch runs eagerly, so that it never makes the compiler specialise again.

    Gears: eager runs op by op. compiled compiles forward, loss and backward by torch.compile as one graph without
    breaks. graphed and compiled_graphed make the first WARM_UP steps eagerly or compiled. Then they capture the whole
    step - forward, loss, backward, optimiser, target table, averages and `observe` - in one CUDA graph, and replay it.
    The next replay overwrites what a replay returns. What changes in training is in tensors on the device: the learning
    rate, the methods' buffers. Evaluation is captured too, but never compiled: compiling gains milliseconds an epoch,
    and takes as long as it gains in hours.

    Args:
        networks: on `device`, channels_last; as many as the method trains.
        method: on `device`.
        optimizer: over the parameters of all networks (`create_optimizer`).
        labels: int64 [N], the label table of the training set, on `device`; read anew at every step.
        batch_size: samples in a full training batch.
        gear: as `choose_gear` gave it; by default what it makes of `config` for many steps.
        clip_norm: largest norm of each network's gradient. None: gradients are not clipped.
        norms: called with the norm of each step's gradient (`clip_gradients`) before it is clipped; as `observe`.
        observe: called with a step's result and index as part of the step; may only use the device.
        gradients: called between the backward pass and the update; may change the gradients in place
            (`engine.gradient_mean.GradientMean`). It is a part of a captured step.
        looks: the table, on `device`, of what is seen of each sample's given label (`ops.looks`); None: none is kept.
        mirrored: whether evaluation takes the mean of the logits of each image and its mirror image.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        method: Method,
        optimizer: torch.optim.Optimizer,
        labels: Tensor,
        *,
        batch_size: int,
        config: EngineConfig,
        device: torch.device,
        gear: Gear | None = None,
        clip_norm: float | None = None,
        norms: Callable[[Tensor], None] | None = None,
        observe: Callable[[Forward, Tensor], None] | None = None,
        gradients: Callable[[], None] | None = None,
        looks: Tensor | None = None,
        mirrored: bool = False,
    ):
        self.networks, self.method, self.optimizer, self.labels = list(networks), method, optimizer, labels
        self.answering, self.mirrored = self.networks, mirrored
        self.looks = None if looks is None or method.note_looks(looks) else looks  # if not, the loss notes them
        self.batch_size, self.clip_norm, self.norms = batch_size, clip_norm, norms
        self.device_type, self.observe, self.gradients = device.type, observe, gradients
        self.amp, self.amp_reason = choose_amp(config.amp, device)
        self.gear = choose_gear(config, device, self.amp) if gear is None else gear
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=self.amp == torch.float16)
        self.copies: WeightCopies | None = None
        """Kept by the optimiser's kernel under bf16, unless the gradients are used before the update: norms and means
        over processes want float32."""
        used = not (clip_norm is None and norms is None and gradients is None)
        if isinstance(optimizer, OneLaunch) and self.amp == torch.bfloat16 and not used:
            self.copies = WeightCopies(self.networks, optimizer)
        self._one = torch.ones((), device=device)
        self._forward: Callable[[Tensor, Tensor], Forward] = self._eager_forward
        if self.gear.compiled:
            options = dict(inductor_options())
            for name in parse_compile_options(config.compile_options):
                options |= INDUCTOR_OPTIONS[name]
            self._forward = torch.compile(_own(self._eager_forward), fullgraph=True, dynamic=False, options=options)
        self._side = _SideStream(device)
        self._train_graph: _Graph | None = None
        self._joint: _Joint | None = None
        self._warm = 0
        """Training steps made since a graph was last begun with."""
        self._evaluate_graphs: dict[torch.Size, _Graph] = {}
        self._evaluated: Counter[torch.Size] = Counter()
        """Batches evaluated without a graph, of each shape: loaders of several tables have full batches of their own
        sizes, and a shape's first batch searches for kernels, which a capture forbids."""
        self._program = method.program
        self._size: tuple[int, int] | None = None

    @property
    def replays(self) -> int:
        """Training steps that were replays of a captured graph."""
        alone = 0 if self._train_graph is None else self._train_graph.replays
        return alone + (0 if self._joint is None else self._joint.steps * self._joint.graph.replays)

    def recapture(self) -> None:
        """Drop captured graphs, for a change that they cannot see (a weight decay); the next steps capture anew."""
        self._train_graph = self._joint = None
        self._evaluate_graphs.clear()

    def answer_by(self, networks: Sequence[Network]) -> None:
        """Evaluate these networks from now on. Steps, of which averaging is a part, are warmed up and captured anew."""
        self.recapture()
        self.answering, self._warm = list(networks), 0
        self._evaluated.clear()

    def train_on(self, size: tuple[int, int] | None) -> None:
        """Make training images of this height and width from now on, as a part of each step (`shrunk`); None: take them
        as they are. For another size steps are compiled, warmed up and captured anew."""
        if size != self._size:
            self._size, self._train_graph, self._joint, self._warm = size, None, None, 0

    def optimise_by(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the steps by this optimiser of the networks' parameters from now on."""
        if optimizer is not self.optimizer:
            self.optimizer = optimizer
            self.recapture()

    def restart(self) -> None:
        """Go on with a fresh optimiser."""
        if reset_optimizer(self.optimizer):
            self.recapture()

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.amp is None else torch.autocast(self.device_type, self.amp)

    def _eager_forward(self, images: Tensor, index: Tensor) -> Forward:
        with self._autocast():
            result = self.method.training_step(self.networks, images, self.labels[index], index)
        if not torch.compiler.is_compiling():
            check_loss(result.loss, self.method)
        if self.looks is not None and result.logits is not None:
            note_looks(result.logits, index, self.looks)
        loss = result.loss if self.amp == torch.float16 else with_unit_gradient(result.loss)
        return Forward(loss, result.predictions, result.attention)  # dynamo of PyTorch 2.11 fails on _replace

    def _eager_evaluate(self, images: Tensor) -> Outputs:
        with self._autocast():
            outputs = with_mirror(lambda batch: self.method.predict(self.answering, batch), images, self.mirrored)
        return _in_full_precision(outputs)

    def _update(self, forward: Callable[[Tensor, Tensor], Forward], images: Tensor, index: Tensor) -> Forward:
        self.optimizer.zero_grad(set_to_none=True)
        with nullcontext() if self.copies is None else self.copies.in_use():
            result = forward(shrunk(images, self._size), index)
            self.scaler.scale(result.loss).backward(self._one)
        if self.gradients is not None:
            self.gradients()
        if self.clip_norm is not None or self.norms is not None:
            self.scaler.unscale_(self.optimizer)  # in fp16, so that the norm is that of the gradient itself
            norms = clip_gradients(self.networks, self.clip_norm)
            if self.norms is not None:
                self.norms(norms)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.copies is not None:
            self.copies.stepped()
        self.method.after_update(self.networks)
        if self.copies is not None:
            self.copies.renew()
        result = result._replace(loss=result.loss.detach())
        if self.observe is not None:
            self.observe(result, index)
        return result

    def train(self, images: Tensor, index: Tensor) -> Forward:
        """One update of the networks. images [views * B, channels, H, W] channels_last; index int64 [B]."""
        self._ready()
        if len(index) != self.batch_size:
            return self._update(self._eager_forward, images, index)
        if not self.gear.graphed:
            return self._update(self._forward, images, index)
        if self._train_graph is not None and not self._train_graph.fits((images, index)):
            self._train_graph, self._warm = None, 0
        if self._warm < WARM_UP:  # on a side stream, as what is captured later must not wait for the default
            self._warm += 1
            with self._side:
                return self._update(self._forward, images, index)
        if self._train_graph is None:
            self.optimizer.zero_grad(set_to_none=True)
            self._train_graph = self._captured(lambda *batch: self._update(self._forward, *batch), (images, index))
        result = self._train_graph(images, index)
        assert isinstance(result, Forward)
        return result

    def train_next(
        self,
        batches: PositionedBatches,
        count: int,
        before: Callable[[int], None] | None = None,
        after: Callable[[int], None] | None = None,
    ) -> Forward:
        """`count` updates, each with the next full batch of `batches`; in a graphed gear all of them are one graph.

        Eagerly, and so on a CPU, they are made one after the other. Returns what the last one gives. `before` and
        `after` are called around each with its number, from 0. They are a part of the graph, the same in every call,
        and may change the weights.
        """
        self._ready()

        def several() -> Forward:
            for number in range(count):
                if before is not None:
                    before(number)
                result = self._update(self._forward, *batches.next())
                if after is not None:
                    after(number)
                if self.copies is not None:
                    self.copies.renew()
            return result

        if not self.gear.graphed:
            return several()
        if self._warm < WARM_UP:
            self._warm += count
            with self._side:
                return several()
        if self._joint is None or self._joint.of != (batches, batches.generation, count):
            self.optimizer.zero_grad(set_to_none=True)
            self._joint = None  # its memory is free for the next
            self._joint = _Joint((batches, batches.generation, count), self._captured(several, ()))
        result = self._joint.graph()
        assert isinstance(result, Forward)
        return result

    def _ready(self) -> None:
        """Before steps: drop graphs of another program, and take up weights that others have changed."""
        if self._program != self.method.program:
            self._program, self._train_graph, self._joint, self._warm = self.method.program, None, None, 0
        if self.copies is not None:
            self.copies.renew()

    def _captured(self, function: Callable[..., object], arguments: Sequence[Tensor]) -> _Graph:
        graph = _Graph(function, arguments, self._side)
        graph.kept = captured(self.optimizer)
        return graph

    @torch.no_grad()
    def evaluate(self, images: Tensor, batch_size: int) -> Outputs:
        """What the method answers for one batch in evaluation mode: logits float32 [B, C], attention weights [B].

        Without features. The attention is NAL's weight, after the sigmoid, or None. `batch_size` is that of a full
        batch of the loader that `images` comes from.
        """
        if len(images) != batch_size or not self.gear.graphed:
            return self._eager_evaluate(images)
        graph = self._evaluate_graphs.get(images.shape)
        if graph is not None and not graph.fits((images,)):
            graph, self._evaluated[images.shape] = None, 0
        if self._evaluated[images.shape] < WARM_UP:
            self._evaluated[images.shape] += 1
            with self._side:
                return self._eager_evaluate(images)
        if graph is None:
            graph = self._evaluate_graphs[images.shape] = _Graph(self._eager_evaluate, (images,), self._side)
        result = graph(images)
        assert isinstance(result, Outputs)
        return result

    @torch.no_grad()
    def evaluate_each(self, images: Tensor) -> list[Outputs]:
        """The outputs of every network by itself for one batch, as `evaluate` gives them; features float32 [B, F]."""
        with self._autocast():
            found = [network(images) for network in self.networks]
            return [
                _in_full_precision(each)._replace(features=None if each.features is None else each.features.float())
                for each in found
            ]


def _in_full_precision(outputs: Outputs) -> Outputs:
    attention = None if outputs.attention is None else outputs.attention.float().sigmoid()
    return Outputs(outputs.logits.float(), attention)


class _SideStream:
    """Another stream of a device: `with` it, work runs there, in order with the current stream before and after.

    A step has one for all that it does before captures and for the captures themselves. The allocator keeps memory for
    the stream that it was freed on, and cuBLAS a workspace for each: a new stream every time would hold the activations
    of several steps.
    """

    def __init__(self, device: torch.device):
        self.device = device

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """Made when it is first asked for: a step that is never captured has none."""
        return torch.cuda.Stream(self.device)

    def __enter__(self) -> None:
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        self.context = torch.cuda.stream(self.stream)
        self.context.__enter__()

    def __exit__(self, *error: object) -> None:
        self.context.__exit__(*error)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
