"""The networks of short courses, and their first layer, which is made from images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastnoise import ImageDataset
from fastnoise.engine import load, train
from fastnoise.errors import ConfigError
from fastnoise.models import create_model
from fastnoise.models.whitened import FLOOR, Whitening
from fastnoise.recipes import recipe


def smooth(count: int, side: int = 12, channels: int = 3) -> torch.Tensor:
    """Random images whose neighbouring pixels are alike, float32 [count, channels, side, side]."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(count, channels, side // 4, side // 4, generator=generator)
    noise = torch.randn(count, channels, side, side, generator=generator)
    return torch.nn.functional.interpolate(drawn, size=(side, side), mode="bilinear") + 0.3 * noise


@pytest.mark.parametrize("channels", [1, 3])
def test_the_filters_whiten_patches(channels: int) -> None:
    layer, images = Whitening(channels), smooth(200, channels=channels)
    layer.fit(images)
    out = layer(images)
    size = 4 * channels
    assert out.shape == (200, 2 * size, 11, 11)
    assert torch.allclose(out[:, size:], -out[:, :size], atol=1e-5)
    values = out[:, :size].transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(values), torch.eye(size), atol=0.01)  # but for the floor
    patches = torch.nn.functional.unfold(images, 2).transpose(1, 2).reshape(-1, size).double()
    largest = torch.linalg.eigvalsh(torch.cov(patches.T, correction=0))[-1]
    first = layer.weight[0].double().flatten()
    assert float(first.norm() ** -2) == pytest.approx(float(largest + FLOOR), rel=1e-4)  # the largest comes first
    again = Whitening(channels)
    again.fit(images)
    assert torch.equal(layer.weight, again.weight)


def test_images_without_variance_leave_it_finite() -> None:
    layer = Whitening(1)
    layer.fit(torch.zeros(10, 1, 8, 8))
    assert layer.weight.isfinite().all()
    assert float(layer.weight.abs().max()) <= FLOOR**-0.5 + 1e-3


@pytest.mark.parametrize(("name", "count"), [("whitened_cnn6", 1_971_362), ("whitened_cnn9", 9_915_426)])
def test_sizes(name: str, count: int) -> None:
    network = create_model(name, num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == count
    assert "backbone.whitening.weight" in network.state_dict()
    assert "backbone.whitening.weight" not in dict(network.named_parameters())
    images = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    network.eval()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert torch.equal(compiled(images).logits, network(images).logits)
    with pytest.raises(ConfigError, match="at least 9x9"):
        create_model(name, num_classes=10, image_size=(8, 8))


@pytest.mark.parametrize(
    ("method", "model"), [("nal", "whitened_cnn9"), ("elr_plus", "whitened_cnn6"), ("coteaching", "whitened_cnn6")]
)
def test_a_run_makes_it_from_its_own_images(method: str, model: str, tmp_path: Path) -> None:
    pixels = (40 * smooth(120) + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    labels = np.arange(120) % 3
    dataset = ImageDataset.from_arrays(pixels, labels, test_images=pixels[:9], test_labels=labels[:9], name="mine")
    config = recipe(method, "mine").replace(
        {"model": model, "width": 0.1, "epochs": 2, "batch_size": 32, "run_dir": str(tmp_path / "run")}
    )
    train(config, dataset=dataset)
    predictor = load(tmp_path / "run")
    expected = Whitening(3)
    expected.fit(predictor.normalised(torch.from_numpy(pixels)).contiguous())
    for network in predictor.networks:
        assert torch.allclose(network.backbone.whitening.weight, expected.weight, atol=1e-4)  # type: ignore[union-attr]
        assert float(network.backbone.layers[1].norms[0].weight.min()) == 1  # type: ignore[union-attr, index]
