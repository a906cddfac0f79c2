"""Images come from the loaders in the dtype that the step computes in, and nothing else changes by it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rich.console import Console

from fastnoise.engine import single
from fastnoise.engine.prepare import Loaders, image_dtype, load_data
from fastnoise.engine.single import Single
from fastnoise.engine.stacked import Stack
from fastnoise.methods import METHODS
from fastnoise.methods.mixup import Mixup, blend, partners
from fastnoise.recipes import recipe

CPU = torch.device("cpu")
WIDE = ("c2d", "simclr")
"""Methods that compute with pixels before the network sees them."""
MIXING = ("mixup", "selc_plus", "elr_plus", "dividemix")
CHECKED = ("ce", "nal", "coteaching", "simclr", *MIXING)


def make_run(method: str, amp: str = "bf16", **changes: Any) -> Single:
    config = recipe(method, "digits").replace({"limit_train": 192, "width": 0.25, "amp": amp, **changes})
    return Single(config, load_data(config), CPU, Console(quiet=True))


def every_loader(loaders: Loaders) -> list[Any]:
    assert loaders.validation is not None
    return [loaders.train, loaders.train_in_order, loaders.validation, loaders.test]


@pytest.mark.parametrize("loader", ["resident", "torch", "dali", "synthetic"])
def test_all_loaders_give_the_dtype_of_the_step(loader: str) -> None:
    if loader == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI is not installed")
    for amp, dtype in (("off", torch.float32), ("bf16", torch.bfloat16)):
        run = make_run("ce", amp, loader=loader, val_fraction=0.1)
        for each in every_loader(run.loaders):
            images, _ = next(iter(each.epoch(1)))
            assert images.dtype == dtype
            assert images.is_contiguous(memory_format=torch.channels_last)
        run.loaders.close()


def test_a_stack_has_the_dtype_too() -> None:
    config = recipe("elr", "digits").replace({"limit_train": 200, "width": 0.25, "amp": "bf16"})
    from fastnoise.engine.prepare import load_images

    stack = Stack([config, config.replace({"seed": 1})], load_images(config), CPU, Console(quiet=True))
    for each in (stack.loaders.train, stack.loaders.train_in_order, stack.loaders.test):
        assert next(iter(each.epoch(1)))[0].dtype == torch.bfloat16
    stack.loaders.close()


def test_methods_that_need_full_precision_have_it() -> None:
    from fastnoise.methods import create_method

    for name in METHODS:
        method = create_method(recipe(name, "digits").method, num_samples=8, num_classes=10)
        for amp in (torch.bfloat16, torch.float16):
            assert image_dtype(method, amp) == (torch.float32 if name in WIDE else amp)
        assert image_dtype(method, None) == torch.float32


def trained(method: str, monkeypatch: pytest.MonkeyPatch, how: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Weights after three steps, and logits of test images, with images as the loaders give them ("loader"), cast at
    the beginning of the step ("step"), or left to autocast ("autocast")."""
    with monkeypatch.context() as patch:
        if how != "loader":
            patch.setattr(single, "image_dtype", lambda method, amp: torch.float32)
        run = make_run(method, warm_up=1) if method == "dividemix" else make_run(method)

    def cast(images: torch.Tensor) -> torch.Tensor:
        return images.to(image_dtype(run.method, run.step.amp)) if how == "step" else images

    if method == "dividemix":  # its step after the warm-up, which mixes
        run.method.divided.fill_(True)
    run.method.start_epoch(2)
    run.networks.train()
    run.method.train()
    batches: Iterator[Any] = run.loaders.train.epoch(2, 0, run.method.order(2, 0))
    for number, (images, index) in zip(range(3), batches, strict=False):
        run.method.before_step(2, number, 0)
        run.step.train(cast(images), index)
    run.networks.eval()
    run.method.eval()
    images, _ = next(iter(run.loaders.test.epoch(0)))
    logits = run.step.evaluate(cast(images), len(images)).logits
    run.loaders.close()
    return run.networks.state_dict(), logits


@pytest.mark.parametrize("method", CHECKED)
def test_results_are_those_of_a_cast_in_the_step(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, logits = trained(method, monkeypatch, "loader")
    ways = ["step"] if method in MIXING else ["step", "autocast"]  # mixtures of rounded images are not rounded mixtures
    for how in ways:
        other_weights, other_logits = trained(method, monkeypatch, how)
        assert torch.equal(logits, other_logits), how
        for name, tensor in weights.items():
            assert torch.equal(tensor, other_weights[name]), (how, name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_mixed_in_full(dtype: torch.dtype) -> None:
    """Rounded once: the share, which the labels are mixed with too, is not."""
    images = torch.randn(8, 3, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
    mixup = Mixup(1.0)
    mixup.share.fill_(0.7377)
    mixed = mixup.mix(images)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    exact = 0.7377 * images.double() + (1 - 0.7377) * partners(images).double()
    assert (mixed.double() - exact).abs().max() <= torch.finfo(dtype).eps / 2 * 1.001 * exact.abs().max()
    wide = images.double()
    torch.testing.assert_close(blend(mixup.share, wide, partners(wide)), exact, rtol=1e-6, atol=1e-6)
