"""SimCLR: its loss, its augmentations, its steps, and encoders that go from one run to another."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.data.views import DRAWS, SimCLRViews, uniform
from fastnoise.errors import CheckpointError, ConfigError, DataError
from fastnoise.losses import NTXentLoss, nt_xent
from fastnoise.methods import Setting
from fastnoise.methods.simclr import SimCLR
from fastnoise.models import Network, create_model
from fastnoise.models.encoder import load_encoder, save_encoder
from fastnoise.recipes import recipe

SMALL = ("--dataset", "digits", "--limit-train", "200", "--width", "0.25", "--loader", "torch")
SHAPE = {"model": "small_cnn", "width": 0.25, "channels": 1, "image_size": [8, 8]}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nt_xent_by_loops(projections: Tensor, temperature: float) -> Tensor:
    """Eq. 1 of SimCLR term by term."""
    half = len(projections) // 2
    losses = []
    for i in range(2 * half):

        def similarity(k: int, i: int = i) -> Tensor:
            a, b = projections[i], projections[k]
            return (a @ b) / (a.norm() * b.norm()) / temperature

        others = torch.stack([similarity(k).exp() for k in range(2 * half) if k != i])
        losses.append(-(similarity((i + half) % (2 * half)).exp() / others.sum()).log())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("samples", "temperature"), [(1, 0.5), (2, 0.5), (7, 0.1)])
def test_nt_xent(samples: int, temperature: float) -> None:
    """Value and gradient against the formula in float64, from float32 and within autocast too."""
    projections = torch.randn(2 * samples, 5, dtype=torch.float64, generator=generator()).requires_grad_()
    expected = nt_xent_by_loops(projections, temperature)
    (slope,) = torch.autograd.grad(expected, projections)
    for narrow in (projections, projections.detach().float().requires_grad_()):
        with torch.autocast("cpu", torch.bfloat16):
            found = NTXentLoss(temperature=temperature)(narrow)
        tolerance = 1e-12 if narrow.dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(
            torch.autograd.grad(found, narrow)[0].double(), slope, rtol=10 * tolerance, atol=tolerance
        )


def test_nt_xent_compiles_whole_and_refuses() -> None:
    projections = torch.randn(8, 5, generator=generator())
    compiled = torch.compile(nt_xent, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(projections), nt_xent(projections))
    with pytest.raises(DataError, match=r"projections are \[7, 5\]; expected \[2B, D\]"):
        nt_xent(projections[:7])
    with pytest.raises(ConfigError, match="temperature is 0"):
        NTXentLoss(temperature=0)


def test_uniform_numbers() -> None:
    """Even over [0, 1), a function of the key, and uncorrelated between neighbours and keys."""
    key = torch.tensor(2**62 + 12345)
    first, again, other = uniform(key, 60_000), uniform(key.clone(), 60_000), uniform(key + 1, 60_000)
    assert torch.equal(first, again)
    counts = torch.histc(first, 100, 0, 1)
    chi_square = ((counts - 600) ** 2 / 600).sum()
    assert 50 < chi_square < 170  # 99 degrees of freedom
    assert first.min() >= 0
    assert first.max() < 1
    for pair in ((first[1:], first[:-1]), (first, other), (first, uniform(key ^ 2**40, 60_000))):
        assert abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 0.02


def views(channels: int, **options: float) -> SimCLRViews:
    augment = SimCLRViews((0.5,) * channels, (0.25,) * channels, **options)
    augment.draw(7)
    return augment


def test_crops_are_boxes_of_the_image() -> None:
    """Images of their own coordinates show each crop's box: inside the image, of the areas and ratios asked for."""
    augment = views(2, min_area=0.2, jitter=0)
    height, width = 12, 16
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    images = torch.stack([x, y]).expand(500, 2, height, width)
    draws = uniform(augment.key, 500 * DRAWS).view(500, DRAWS, 1, 1, 1).unbind(1)
    found = augment._crop(images, *draws[:4])
    right, down = found[:, 0], found[:, 1]
    torch.testing.assert_close(right, right[:, :1].expand_as(right))
    torch.testing.assert_close(down, down[:, :, :1].expand_as(down))
    inner = right[:, 0, width // 4 : -width // 4], down[:, height // 4 : -height // 4, 0]
    steps = [part.diff(dim=1) for part in inner]
    sizes = [step.mean(1) * count for step, count in zip(steps, (width, height), strict=True)]
    for step in steps:  # the same from pixel to pixel, away from the border where nothing lies between two pixels
        torch.testing.assert_close(step, step[:, :1].expand_as(step), atol=1e-5, rtol=1e-3)
    area = sizes[0] * sizes[1]
    ratio = sizes[0] * width / (sizes[1] * height)
    assert 0.19 < area.min() < 0.25
    assert 0.9 < area.max() <= 1.001
    assert 0.74 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.34
    assert (right[:, 0, 0] >= 0).all()
    assert (down[:, -1, 0] <= 1).all()
    assert right[:, 0, 0].std() > 0.05


def recolour_one(pixels: np.ndarray, light: float, contrast: float, saturation: float, angle: float) -> np.ndarray:
    """The jitter of one image [3, H, W] operation by operation, in float64."""
    luma = np.array([0.299, 0.587, 0.114])
    pixels = pixels * light
    pixels = contrast * pixels + (1 - contrast) * np.tensordot(luma, pixels, 1).mean()
    grey = np.tensordot(luma, pixels, 1)
    pixels = saturation * pixels + (1 - saturation) * grey
    yiq = np.array([luma, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    turn = np.array([[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]])
    return np.clip(np.tensordot(np.linalg.inv(yiq) @ turn @ yiq, pixels, 1), 0, 1)


def test_colours() -> None:
    """Jitter and greyscale against the operations one after another; both occur, and both are left out."""
    augment = views(3, jitter=0.5)
    pixels = torch.rand(64, 3, 6, 6, generator=generator())
    draws = uniform(augment.key, 64 * 6).view(64, 6)
    found = augment._recolour(pixels, *draws.view(64, 6, 1, 1, 1).unbind(1))
    jittered = greyed = 0
    for image, result, (chance, light, contrast, saturation, hue, grey) in zip(
        pixels.double().numpy(), found, draws.tolist(), strict=True
    ):
        factors = [1 + 0.4 * (2 * part - 1) for part in (light, contrast, saturation)]
        angle = 2 * math.pi * 0.1 * (2 * hue - 1)
        if chance >= 0.8:
            factors, angle = [1.0, 1.0, 1.0], 0.0
        if grey < 0.2:
            factors[2] = 0.0
        expected = recolour_one(image, *factors, angle)
        np.testing.assert_allclose(result.numpy(), expected, atol=2e-4)  # YIQ's published digits are not exact inverses
        jittered, greyed = jittered + (chance < 0.8), greyed + (grey < 0.2)
    assert 40 < jittered < 64
    assert 4 < greyed < 25


@pytest.mark.parametrize("side", [8, 64])
def test_blur(side: int) -> None:
    augment = views(1)
    pixels = torch.rand(16, 1, side, side, generator=generator())
    chance, spread = uniform(augment.key, 32).view(2, 16, 1, 1, 1)
    found = augment._blur(pixels, chance, spread)
    width = 2 * max(1, side // 20) + 1
    for image, result, apply, share in zip(pixels, found, chance.flatten() < 0.5, spread.flatten(), strict=True):
        expected = gaussian_blur(image, [width, width], [float(0.1 + 1.9 * share)]) if apply else image
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_views_of_a_batch(channels: int) -> None:
    """Same form, channels_last, different per image, a function of the key, and whole in a compiled step."""
    augment = views(channels)
    one = torch.randn(1, channels, 16, 16, generator=generator()).clamp(-2, 2)
    images = one.expand(6, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    found = augment(images)
    assert found.shape == images.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= -2.001
    assert found.max() <= 2.001
    assert len({tuple(image.flatten().tolist()) for image in found}) == 6
    assert torch.equal(found, augment(images))
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), found)
    augment.draw(8)
    assert not torch.equal(found, augment(images))


def test_view_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="min_area is 0"):
        views(1, min_area=0)
    with pytest.raises(ConfigError, match="jitter is -1"):
        views(1, jitter=-1)


def simclr() -> tuple[SimCLR, Network]:
    torch.manual_seed(0)
    method = SimCLR(recipe("simclr", "digits", "none").method, 40, 10)
    network = create_model("small_cnn", num_classes=10, channels=1, image_size=(8, 8), width=0.25)
    method.configure(Setting(OptimConfig(), (0.3,), (0.4,)))
    method.attach([network])
    return method, network


def test_steps_are_simclrs() -> None:
    """Three steps against the loss by loops on backbone and projector, and a classifier on detached features."""
    method, network = simclr()
    other = copy.deepcopy(network)
    optimizers = [torch.optim.Adam(each.parameters(), 1e-2) for each in (network, other)]
    labels = torch.randint(10, (6,), generator=generator())
    for batch in range(3):
        images = torch.randn(12, 1, 8, 8, generator=generator(batch))
        method.before_step(1, batch, seed=3)
        result = method.training_step([network], images, labels, torch.arange(6))
        features = other.backbone(method.augment(images))
        hidden = torch.relu(other.projector[0](features))  # type: ignore[index]
        expected = nt_xent_by_loops(other.projector[2](hidden).double(), 0.5)  # type: ignore[index]
        logits = other.classifier(features[:6].detach())
        torch.testing.assert_close(result.loss.double(), expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(result.predictions, logits.argmax(1))
        (expected + torch.nn.functional.cross_entropy(logits, labels)).backward()
        result.loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    for mine, reference in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-4)


def test_draws_belong_to_the_step() -> None:
    """Seed, epoch and batch decide the augmentations, each of them."""
    method, _ = simclr()
    keys = []
    for step in ((1, 0, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0), (1, 0, 1)):
        method.before_step(*step)
        keys.append(int(method.augment.key))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


def test_step_compiles_whole() -> None:
    method, network = simclr()
    images, index = torch.randn(12, 1, 8, 8), torch.arange(6)
    compiled = torch.compile(method.training_step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        compiled([network], images, index, index).loss, method.training_step([network], images, index, index).loss
    )


def pretrain(*words: str) -> int:
    return main(["pretrain", "--out", "encoder.pt", *SMALL, "--epochs", "2", *words])


def test_pretrained_encoder_begins_another_run(capsys: pytest.CaptureFixture[str]) -> None:
    """pretrain writes the backbone of its run; train takes it up, whatever the method's networks and the folder."""
    assert pretrain("--run-dir", "first") == 0
    output = capsys.readouterr().out
    assert "encoder: " in output
    assert "labels: none" in output
    encoder = torch.load("encoder.pt", weights_only=True)
    assert encoder["shape"] == SHAPE
    state = torch.load("first/checkpoint.pt", weights_only=True)["networks"]
    assert encoder["backbone"].keys() == {name[11:] for name in state if name.startswith("0.backbone.")}
    for name, value in encoder["backbone"].items():
        assert torch.equal(value, state[f"0.backbone.{name}"])

    words = ["train", *SMALL, "--method", "ce", "--epochs", "1", "--learning-rate", "1e-30", "--weight-decay", "0"]
    assert main([*words, "--encoder", "encoder.pt", "--run-dir", "second"]) == 0
    begun = torch.load("second/checkpoint.pt", weights_only=True)["networks"]
    for name, value in encoder["backbone"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(begun[f"0.backbone.{name}"], value)
    assert f'encoder = "{Path("encoder.pt").absolute()}"' in Path("second/config.toml").read_text()
    Path("encoder.pt").unlink()
    assert main(["train", "--resume", "second"]) == 0  # the weights are in its checkpoint

    assert main(["pretrain", "--out=again.pt", "--resume", "first"]) == 0
    again = torch.load("again.pt", weights_only=True)["backbone"]
    assert all(torch.equal(again[name], value) for name, value in encoder["backbone"].items())
    assert json.loads(Path("first/summary.json").read_text())["network"] == SHAPE


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "fastnoise pretrain needs --out FILE"),
        (("--out",), "fastnoise pretrain needs --out FILE"),
        (("--out", "--epochs", "2"), "fastnoise pretrain needs --out FILE"),
        (("--out", "no/where.pt"), "--out no/where.pt: no such folder"),
        (("--out", "."), "--out . is a folder"),
        (("--out", "e.pt", "--method", "ce"), "drop --method"),
        (("--out", "e.pt", "--temperature", "0"), "--temperature must be positive"),
        (("--out", "e.pt", "--min-area", "2"), "--min-area must lie in (0, 1]"),
    ],
)
def test_pretrain_refuses(words: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


def test_pretrain_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["pretrain", "--help"])
    assert not end.value.code
    assert "--out FILE" in capsys.readouterr().out


def test_foreign_encoders_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each: no file, no encoder, a truncated one, another architecture, another shape."""
    network = create_model("small_cnn", num_classes=10, channels=1, image_size=(8, 8), width=0.25)
    path = Path("encoder.pt")

    def refusal(**changes: Any) -> str:
        with pytest.raises(CheckpointError) as caught:
            load_encoder(path, network, **(SHAPE | changes))
        return str(caught.value)

    assert "no such file; make one with fastnoise pretrain --out encoder.pt" in refusal()
    path.write_bytes(b"not an encoder")
    assert "is truncated or not an encoder" in refusal()
    torch.save({"weights": torch.zeros(3)}, path)
    assert "holds no encoder; give a file that fastnoise pretrain wrote" in refusal()
    torch.save(torch.nn.Linear(2, 2), path)  # a pickle that would run code
    assert "is truncated or not an encoder" in refusal()
    save_encoder(path, network.backbone.state_dict(), **SHAPE)
    load_encoder(path, network, **SHAPE)
    assert refusal(model="resnet18").endswith("was made with model small_cnn, and this run has model resnet18")
    assert refusal(width=0.5).endswith("was made with width 0.25, and this run has width 0.5")
    save_encoder(path, {"layers.0": torch.zeros(1)}, **SHAPE)
    assert "does not fit the network" in refusal()
    assert len(refusal().splitlines()) == 1
    path.write_bytes(path.read_bytes()[:200])
    assert main(["train", *SMALL, "--method", "ce", "--epochs", "1", "--encoder", "encoder.pt"]) == 2
    assert "is truncated or not an encoder" in capsys.readouterr().err
    assert not Path("runs").exists()
