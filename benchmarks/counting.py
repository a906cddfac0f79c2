"""FLOPs and bytes of one training step, counted by running it without data, and the images/s that they allow.

The model runs forward and backward on PyTorch's meta device while a dispatch mode notes every convolution and matrix
product (forward, gradient of the input, gradient of the weight apart), every batch norm and every addition. A machine
of F FLOP/s and W bytes/s then needs, for a batch of B images in a format of e bytes,

    sum over passes of max(FLOP / F, bytes / W) + (8 e x BN outputs + 3 e x sums + 20 x parameters + casts) / W

seconds: batch norm reads and writes its output's size eight times forward and backward (twice forward for the
statistics and the result plus the write, five times backward; the activation is fused), an addition reads two tensors
and writes one, SGD with momentum moves 20 bytes a parameter in fp32, and the copy of the weights in half precision 6.
"""

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastnoise.models import create_model

aten = torch.ops.aten


class Machine(NamedTuple):
    flops: float
    bandwidth: float
    """Bytes read and written per second."""
    words: str
    """Where the two come from."""


H100 = Machine(798e12, 3.0e12, "an H100's bf16 products and copies, 81 % and 90 % of its data sheet")

_PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default)
_NORMS = (aten.native_batch_norm.default, aten._native_batch_norm_legit.default, aten.cudnn_batch_norm.default)


@dataclass
class Counted:
    """Of one step; products hold (FLOPs, elements moved) for each pass of each convolution and matrix product."""

    batch: int
    products: list[tuple[int, int]] = field(default_factory=list)
    norm_elements: int = 0
    sum_elements: int = 0
    parameters: int = 0

    @property
    def flops_per_image(self) -> float:
        return sum(flops for flops, _ in self.products) / self.batch

    def bytes_per_image(self, element: int) -> float:
        """All bytes of the formula over the batch, `element` bytes an activation."""
        return self._elementwise(element) / self.batch + element * sum(moved for _, moved in self.products) / self.batch

    def _elementwise(self, element: int) -> float:
        casts = 6 if element < 4 else 0
        return element * (8 * self.norm_elements + 3 * self.sum_elements) + (20 + casts) * self.parameters

    def ceiling(self, machine: Machine, element: int) -> float:
        """Images/s of a machine."""
        products = sum(max(work / machine.flops, element * moved / machine.bandwidth) for work, moved in self.products)
        return self.batch / (products + self._elementwise(element) / machine.bandwidth)


class _Counter(TorchDispatchMode):
    def __init__(self, counted: Counted):
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        counted = self.counted
        if func is aten.convolution.default:
            source, weight = args[0], args[1]
            self._product(2 * result.numel() * weight[0].numel(), source, weight, result)
        elif func is aten.convolution_backward.default:
            gradient, source, weight = args[:3]
            work = 2 * gradient.numel() * weight[0].numel()
            for needed in args[10][:2]:  # the gradient of the input, then that of the weight
                if needed:
                    self._product(work, source, weight, gradient)
        elif func in _PRODUCTS:
            a, b = args[-2:] if func is not aten.addmm.default else args[1:3]
            self._product(2 * result.numel() * a.shape[-1], a, b, result)
        elif func in _NORMS:
            counted.norm_elements += result[0].numel()
        elif func.overloadpacket in (aten.add, aten.add_) and result.dim() == 4:
            counted.sum_elements += result.numel()
        return result

    def _product(self, work: int, *tensors: torch.Tensor) -> None:
        self.counted.products.append((work, sum(tensor.numel() for tensor in tensors)))


def count(model: str, batch: int, shape: tuple[int, int, int], num_classes: int, width: float = 1.0) -> Counted:
    """Count a training step of a network of fastnoise.models on images of `shape` (channels, height, width)."""
    counted = Counted(batch)
    with torch.device("meta"):
        network = create_model(
            model, num_classes=num_classes, channels=shape[0], image_size=shape[1:], width=width
        ).train()
        images = torch.empty(batch, *shape)
    counted.parameters = sum(parameter.numel() for parameter in network.parameters())
    with _Counter(counted):
        loss = network(images).logits.sum()
        sums = counted.sum_elements
        loss.backward()
    counted.sum_elements = sums  # an addition's 3 e are its forward's; the gradients' additions ride along
    return counted


def this_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """The H100's figures where the GPU is one in bf16; elsewhere measured ones."""
    if device.type == "cuda" and dtype == torch.bfloat16 and "H100" in torch.cuda.get_device_name(device):
        return H100
    return measured(device, dtype)


def measured(device: torch.device, dtype: torch.dtype) -> Machine:
    """A matrix product's and a copy's best of twenty."""
    on_gpu = device.type == "cuda"
    side = 8192 if on_gpu else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    source = torch.zeros(2**28 if on_gpu else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def best(call: Any) -> float:
        seconds = []
        for _ in range(21):
            if on_gpu:
                torch.cuda.synchronize(device)
            start = time.perf_counter()
            call()
            if on_gpu:
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
        return min(seconds[1:])

    flops = 2 * side**3 / best(lambda: torch.mm(a, b, out=product))
    bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source))
    name = str(dtype).removeprefix("torch.")
    return Machine(flops, bandwidth, f"measured here: a {side} x {side} product in {name}, a copy")


def human(value: float, unit: str) -> str:
    """3.3e9 and "FLOP" as "3.30 GFLOP"."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {prefix}{unit}"
    return f"{value:.0f} {unit}"
