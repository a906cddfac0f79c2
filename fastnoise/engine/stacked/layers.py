"""Networks of equal form joined into one, whose activations have the channels of all networks side by side."""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...models import Network, Outputs
from ...models.norm import COUNTER

Form = Literal["grouped", "channels_last", "products"]
"""How joined convolutions run: as grouped convolutions in either memory format, or as products of unfolded images."""


class JoinedConv2d(nn.Conv2d):
    """Convolutions of K runs as one: x [B, K * channels, H, W], weight [K * out, channels, kh, kw], bias [K * out].

    In the form "products" images are unfolded to patches, and the convolution is a matrix product for each image and
    run. This takes kh * kw times the memory, but its speed doesn't depend on the kernels for small groups.
    """

    form: Form = "grouped"

    def __init__(self, layers: Sequence[nn.Conv2d]):
        first, count = layers[0], len(layers)
        super().__init__(
            count * first.in_channels,
            count * first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            first.dilation,  # type: ignore[arg-type]
            count * first.groups,
            first.bias is not None,
            first.padding_mode,
            device="meta",
        )
        assert not isinstance(first.padding, str)
        self.sides: tuple[int, ...] = first.padding
        _join_tensors(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.form != "products":
            return super().forward(x)
        batch, _, *sides = x.shape
        if torch.is_autocast_enabled(x.device.type):  # the patches should not be made in full precision
            x = x.to(torch.get_autocast_dtype(x.device.type))
        patches = nn.functional.unfold(
            x.reshape(batch * self.groups, -1, *sides),
            self.kernel_size,
            self.dilation,
            self.sides,
            self.stride,
        ).unflatten(0, (batch, self.groups))
        weight = self.weight.reshape(1, self.groups, self.out_channels // self.groups, -1)
        height, breadth = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                sides, self.sides, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        out = torch.matmul(weight, patches).reshape(batch, self.out_channels, height, breadth)
        return out if self.bias is None else out + self.bias[:, None, None].to(out.dtype)


class JoinedLinear(nn.Linear):
    """Linear layers of K runs as one batched product: x [B, K * in], weight [K * out, in], bias [K * out]."""

    def __init__(self, layers: Sequence[nn.Linear]):
        first, self.count = layers[0], len(layers)
        super().__init__(first.in_features, self.count * first.out_features, first.bias is not None, device="meta")
        _join_tensors(self, layers)

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.unflatten(1, (self.count, -1)).transpose(0, 1)
        weight = self.weight.unflatten(0, (self.count, -1)).transpose(1, 2)
        if self.bias is None:
            out = torch.bmm(inputs, weight)
        else:
            out = torch.baddbmm(self.bias.unflatten(0, (self.count, 1, -1)), inputs, weight)
        return out.transpose(0, 1).flatten(1)


def _join_tensors(joined: nn.Module, layers: Sequence[nn.Module]) -> None:
    """Give a layer the tensors of its K originals, one after the other in the first dimension. Counters stay single."""
    states = [layer.state_dict() for layer in layers]
    for name, tensor in states[0].items():
        whole = torch.cat([state[name] for state in states]) if tensor.dim() else tensor.clone()
        if name in joined._parameters:
            joined._parameters[name] = nn.Parameter(whole)
        else:
            joined._buffers[name] = whole


def join(modules: Sequence[nn.Module]) -> nn.Module:
    """Join K modules of equal form into one that works on activations with the channels of all K side by side.

    Its tensors have the same names as the originals'. ConfigError for a layer that does not work on each channel alone
    and has no joined form.
    """
    first = modules[0]
    if isinstance(first, nn.Conv2d) and first.padding_mode == "zeros" and not isinstance(first.padding, str):
        return JoinedConv2d(modules)  # type: ignore[arg-type]
    if isinstance(first, nn.Linear):
        return JoinedLinear(modules)  # type: ignore[arg-type]
    joined = copy.copy(first)  # what it holds is the original's still: dictionaries are replaced, not written to
    joined._parameters, joined._buffers = dict.fromkeys(first._parameters), dict.fromkeys(first._buffers)
    if isinstance(first, nn.BatchNorm2d):
        joined.num_features = len(modules) * first.num_features  # type: ignore[assignment]
        _join_tensors(joined, modules)  # the models' own batch norm has no counter: it stays None
    elif first._parameters or first._buffers or isinstance(first, (nn.LayerNorm, nn.GroupNorm, nn.Softmax)):
        raise ConfigError(f"networks with a layer of type {type(first).__name__} cannot be stacked")
    joined._modules = {
        name: None if child is None else join([module._modules[name] for module in modules])  # type: ignore[misc]
        for name, child in first._modules.items()
    }
    return joined


class StackedNetwork(nn.Module):
    """K networks of equal form as one. Each tensor holds those of the K networks one after the other in its first
    dimension."""

    def __init__(self, networks: Sequence[Network]):
        super().__init__()
        self.count = len(networks)
        self.body = join(networks)
        self.form: Form = "grouped"
        self._one = (networks[0],)  # in a tuple, so that its weights are not among this module's

    def use(self, form: Form) -> None:
        """Run convolutions in this form. The parameters stay the same tensors."""
        self.form = form
        layout = torch.channels_last if form == "channels_last" else torch.contiguous_format
        self.body.to(memory_format=layout)
        for module in self.modules():
            if isinstance(module, JoinedConv2d):
                module.form = form

    def forward(self, images: Tensor) -> Outputs:
        """Logits [B, K, C], attention [B, K] and features [B, K, F] for images [B, K, channels, H, W]. All runs get the
        same images if these are [B, 1, channels, H, W]."""
        x = images.expand(-1, self.count, -1, -1, -1).flatten(1, 2)
        if self.form == "channels_last":
            x = x.contiguous(memory_format=torch.channels_last)
        logits, attention, features = self.body(x)
        attention = None if attention is None else attention.reshape(-1, self.count)  # [B] where K is 1
        features = None if features is None else features.unflatten(1, (self.count, -1))
        return Outputs(logits.unflatten(1, (self.count, -1)), attention, features)

    def each(self, images: Tensor, sizes: Sequence[int]) -> Outputs:
        """Run the networks one by one, for batches of unequal size: logits [R, C], attention [R] and features [R, F]
        for images [R, channels, H, W].

        Args:
            images: of the first run, then of the second, and so on.
            sizes: number of images of each run, R in total. A run with 0 is left out.
        """
        network = self._one[0].train(self.training)
        found = []
        for number, part in enumerate(images.split(list(sizes))):
            if len(part):
                weights = {name: self.part(tensor, number) for name, tensor in self.body.named_parameters()}
                running = {name: self.part(tensor, number) for name, tensor in self.body.named_buffers()}
                # The counters, which the runs share, would count the runs.
                running = {name: tensor if tensor.dim() else tensor.clone() for name, tensor in running.items()}
                found.append(torch.func.functional_call(network, {**weights, **running}, (part,)))
        if self.training:
            for module in self.body.modules():
                if isinstance(module, nn.BatchNorm2d) and module.num_batches_tracked is not None:
                    module.num_batches_tracked += 1
        attention = None if found[0].attention is None else torch.cat([outputs.attention for outputs in found])
        features = None if found[0].features is None else torch.cat([outputs.features for outputs in found])
        return Outputs(torch.cat([outputs.logits for outputs in found]), attention, features)

    def state_of(self, number: int) -> dict[str, Tensor]:
        """The state of run `number`'s network as views, by the names that it has in a ModuleList of its own."""
        return {f"0.{name}": self.part(tensor, number) for name, tensor in self.body.state_dict().items()}

    def load_state(self, number: int, state: Mapping[str, Tensor]) -> None:
        """Load the state that `state_of` returned. RuntimeError if names or shapes differ.

        Counters, which the runs share, may be missing or superfluous: fastnoise's own batch norm has none.
        """
        own = self.state_of(number)
        if other := {name for name in own.keys() ^ state.keys() if not name.endswith(COUNTER)}:
            raise RuntimeError(f"the networks have different tensors: {min(other)}")
        for name, tensor in own.items():
            if name not in state:
                continue
            if tensor.shape != state[name].shape:
                raise RuntimeError(f"{name} has the shape {list(state[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(state[name])

    def part(self, tensor: Tensor, number: int) -> Tensor:
        """Run `number`'s part of a parameter, a buffer or an optimiser's state, as a view. All runs share a tensor
        without dimensions."""
        return tensor.chunk(self.count)[number] if tensor.dim() else tensor


def fastest_form(network: StackedNetwork, images: Tensor, amp: torch.dtype | None) -> Form:
    """The form of the convolutions with the fastest forward and backward pass on a GPU, tried on images [B, K, ...].

    The answer depends on the GPU, cuDNN and the channels. For groups of a few channels cuDNN may choose kernels that
    are slower than a product of unfolded images, although this product moves several times as much data.
    """
    trial = copy.deepcopy(network)
    times: dict[Form, float] = {}
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    with torch.random.fork_rng(devices=[images.device]):
        form: Form
        for form in ("grouped", "channels_last", "products"):
            trial.use(form)
            for timed in (False, True):
                events[0].record()
                for _ in range(5):
                    with torch.autocast("cuda", amp or torch.bfloat16, enabled=amp is not None):
                        logits = trial(images).logits
                    logits.float().square().mean().backward()
                events[1].record()
                torch.cuda.synchronize(images.device)
                if timed:
                    times[form] = events[0].elapsed_time(events[1])
    return min(times, key=times.__getitem__)
