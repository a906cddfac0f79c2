"""Training on wrong labels as the field's repositories write it: the baseline of the training benchmark.

PIL images transformed one by one in a DataLoader's workers, one network in eager mode, ELR (Liu et al. 2020, Eq. 6 and
9) on an N x C table indexed with a list, and a `.item()` for the running loss in every step. Nothing is made slower
than those repositories have it, and metrics and image logging, which they add in every step, are left out.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from fastnoise.models import create_model

from .workload import Workload

STRENGTH, MOMENTUM = 3.0, 0.7
PREFETCH = 2
"""Batches that each worker of a DataLoader prepares ahead: PyTorch's default."""


class PilImages(Dataset):
    """A sample at a time: (image float32 [C, H, W], given label, position)."""

    def __init__(self, workload: Workload):
        self.table, self.labels = workload.table, workload.labels.tolist()
        _, height, width = workload.shape
        augmentation, steps = workload.augmentation, list[Callable]()
        if self.table.images is None and not augmentation.resizes:
            steps.append(transforms.Resize((height, width)))
        if augmentation.resize is not None:
            steps.append(transforms.Resize(augmentation.resize))
        if augmentation.resized_crop is not None:
            steps.append(
                transforms.RandomResizedCrop(augmentation.resized_crop, augmentation.scale, augmentation.ratio)
            )
        if augmentation.crop is not None or augmentation.crop_padding:
            size = augmentation.crop or (height, width)
            steps.append(transforms.RandomCrop(size, padding=augmentation.crop_padding or None))
        if augmentation.flip:
            steps.append(transforms.RandomHorizontalFlip())
        steps += [transforms.ToTensor(), transforms.Normalize(workload.mean, workload.std)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, position: int) -> tuple[Tensor, int, int]:
        if self.table.images is None:
            image = Image.open(self.table.files[position]).convert("RGB")
        else:
            pixels = self.table.images[position]
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        return self.transform(image), self.labels[position], position


def batches(workload: Workload, workers: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(images, labels, index) on the CPU, epoch after epoch without end; workers live on between epochs."""
    loader = DataLoader(
        PilImages(workload),
        batch_size=workload.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
    )
    for _ in itertools.count():
        yield from loader


class EagerELR:
    """The loss with its table, in the order of operations of its authors' code."""

    def __init__(self, num_samples: int, num_classes: int, device: torch.device):
        self.targets = torch.zeros(num_samples, num_classes, device=device)

    def __call__(self, index: list[int], logits: Tensor, labels: Tensor) -> Tensor:
        probs = torch.clamp(F.softmax(logits, dim=1), 1e-4, 1 - 1e-4)
        fixed = probs.detach()
        normalised = fixed / fixed.sum(dim=1, keepdim=True)
        self.targets[index] = MOMENTUM * self.targets[index] + (1 - MOMENTUM) * normalised
        regulariser = (1 - (self.targets[index] * probs).sum(dim=1)).log().mean()
        return F.cross_entropy(logits, labels) + STRENGTH * regulariser


class OrdinaryStep:
    """One step of the loop.

    Args:
        amp: autocast's dtype, None for fp32.
        channels_last: network and images in that memory format.
        compiled: the network through torch.compile, as one writes it: `model = torch.compile(model)`.
    """

    def __init__(
        self,
        workload: Workload,
        device: torch.device,
        *,
        amp: torch.dtype | None = None,
        channels_last: bool = False,
        compiled: bool = False,
    ):
        torch.manual_seed(0)
        self.device, self.amp = device, amp
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        network = create_model(
            workload.model,
            num_classes=workload.num_classes,
            channels=workload.shape[0],
            image_size=workload.shape[1:],
            width=workload.width,
        )
        network = network.to(memory_format=self.layout).to(device)
        self.optimizer = torch.optim.SGD(network.parameters(), 0.02, momentum=0.9, weight_decay=1e-3)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.network: nn.Module | Any = torch.compile(network) if compiled else network
        self.loss = EagerELR(len(workload.table), workload.num_classes, device)
        self.running_loss = 0.0
        network.train()

    def __call__(self, images: Tensor, labels: Tensor, index: Tensor) -> None:
        images = images.to(self.device, memory_format=self.layout, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            logits = self.network(images).logits
            loss = self.loss(index.tolist(), logits, labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.running_loss += loss.item()
