"""Training on smaller images in the first epochs of a run."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..errors import ConfigError
from ..schedules import Growth


def shrunk(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Images [B, channels, H, W] at a smaller height and width, channels_last, in their dtype; None: as they are.

    Bilinear with antialiasing: a pixel is the mean, in float32, of the pixels under a triangle as wide as two pixels of
    the result.
    """
    if size is None:
        return images
    small = nn.functional.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)
    return small.to(images.dtype).contiguous(memory_format=torch.channels_last)


def at_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A height and width in the proportions of `size`, the shorter one `side`."""
    short = min(size)
    return round(size[0] * side / short), round(size[1] * side / short)


def smallest_size(config: RunConfig, image_size: tuple[int, int]) -> tuple[int, int]:
    """The smallest height and width of a run's training images, which have `image_size` in the end."""
    growth = Growth.parse(config.data.grow_size)
    return image_size if growth is None else at_side(image_size, growth.stages[0][0])


class GrowingSize:
    """The sizes of a run's training images by epoch.

    A loader gives images of the whole size, augmented and normalised; a step makes them smaller on the device. So every
    loader serves, and crops and cutouts are the same share of an image in all epochs.

    Args:
        config: of the run.
        image_size: height and width of the images that the networks get.
        channels: of the images.
        networks: on their device; tried out on black images of each size, in evaluation mode.

    Raises:
        ConfigError: a size is not smaller than the images, or a network takes only images of its own size.
    """

    def __init__(
        self, config: RunConfig, image_size: tuple[int, int], channels: int, networks: Sequence[nn.Module]
    ) -> None:
        self._growth, self._epochs = Growth.parse(config.data.grow_size), config.optim.epochs
        self._whole = image_size
        if self._growth is None:
            return
        said = f"--grow-size {config.data.grow_size}"
        for side, _ in self._growth.stages:
            if side >= min(image_size):
                height, width = image_size
                raise ConfigError(f"{said}: the images have {height}x{width}; give a side below {min(image_size)}")
            size = at_side(image_size, side)
            for network in networks:
                if (fault := _fault(network, (1, channels, *size))) is not None:
                    raise ConfigError(
                        f"{said}: {config.model.model} takes no images of {size[0]}x{size[1]} if it is made for "
                        f"{image_size[0]}x{image_size[1]} ({fault}); drop the option, or choose another --model"
                    )

    def size(self, epoch: int) -> tuple[int, int] | None:
        """Height and width of the training images of `epoch`; None: the whole size."""
        side = None if self._growth is None else self._growth.side(epoch, self._epochs)
        return None if side is None else at_side(self._whole, side)

    def describe(self) -> list[str]:
        """What a run says of its sizes."""
        if self._growth is None:
            return []
        last = {self.size(epoch): epoch for epoch in range(1, self._epochs + 1)}
        sizes = [(size or self._whole, epoch) for size, epoch in last.items()]
        said = "training images: " + ", ".join(f"{size[0]}x{size[1]} up to epoch {epoch}" for size, epoch in sizes)
        for side, _ in self._growth.stages:
            if at_side(self._whole, side) not in last:
                said += f"; none of {side} pixels, since no epoch ends in their share"
        return [said]


def _fault(network: nn.Module, shape: tuple[int, ...]) -> str | None:
    """What a network says against black images of a shape; None if it takes them. Its state does not change."""
    training, device = network.training, next(network.parameters()).device
    network.eval()
    try:
        with torch.no_grad():
            network(torch.zeros(shape, device=device).to(memory_format=torch.channels_last))
    except Exception as error:  # whatever the network's code raises
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    finally:
        network.train(training)
    return None
