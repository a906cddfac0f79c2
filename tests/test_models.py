"""Networks: shapes, stems, width, the attention branch, memory format."""

import pytest
import torch

from fastnoise.errors import ConfigError
from fastnoise.models import MODELS, create_model


def images(channels: int, side: int) -> torch.Tensor:
    return torch.randn(2, channels, side, side).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", [False, True])
def test_outputs(name: str, attention: bool) -> None:
    network = create_model(name, num_classes=7, channels=1, image_size=(32, 32), width=0.5, attention=attention)
    outputs = network(images(1, 32))
    assert outputs.logits.shape == (2, 7)
    assert (outputs.attention is not None) == attention
    if outputs.attention is not None:
        assert outputs.attention.shape == (2,)


# He et al. 2016 with the CIFAR stem, and torchvision's ResNet-50: known parameter counts (10 classes / 1000).
@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [("resnet18", 10, 11_173_962), ("resnet34", 10, 21_282_122), ("resnet50", 1000, 25_557_032)],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    network = create_model(name, num_classes=classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_lenet5_has_the_61706_parameters_of_the_original_shape() -> None:
    network = create_model("lenet5", num_classes=10, channels=1, image_size=(28, 28))
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_706


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet34"])
def test_stem_follows_the_image_size(name: str) -> None:
    small = create_model(name, num_classes=2, image_size=(32, 32), width=0.25).backbone.layers[0]
    large = create_model(name, num_classes=2, image_size=(224, 224), width=0.25).backbone.layers[0]
    assert (small.kernel_size, small.stride) == ((3, 3), (1, 1))
    assert (large.kernel_size, large.stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "preact_resnet18"])
def test_channels_last_from_first_to_last_convolution(name: str) -> None:
    network = create_model(name, num_classes=3, image_size=(16, 16), width=0.25)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, output: seen.append(
                    (
                        inputs[0].is_contiguous(memory_format=torch.channels_last),
                        output.is_contiguous(memory_format=torch.channels_last),
                    )
                )
            )
    network(images(3, 16))
    assert seen
    assert all(before and after for before, after in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet1", "num_classes": 10}, "unknown model"),
        ({"name": "lenet5", "num_classes": 10, "image_size": (8, 8)}, "at least 12x12"),
        ({"name": "resnet18", "num_classes": 1}, "at least 2 classes"),
        ({"name": "resnet18", "num_classes": 10, "width": 0.0}, "--width"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(**options)  # type: ignore[arg-type]
