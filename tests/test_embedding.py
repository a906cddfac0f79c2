"""The worked examples of `fastnoise.losses`, run from where they are documented."""

import re
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastnoise.losses


def example(introduction: str) -> str:
    """The docstring's code block that follows the paragraph which begins like this."""
    blocks: list[str] = []
    inside = False
    for paragraph in (fastnoise.losses.__doc__ or "").split("\n\n"):
        if inside and paragraph.startswith("    "):
            blocks.append(paragraph)
        else:
            inside = paragraph.startswith(introduction)
    assert blocks, introduction
    return textwrap.dedent("\n\n".join(blocks))


@pytest.fixture
def embedded() -> dict[str, Any]:
    """The names that the first example defines: data, networks and losses."""
    torch.manual_seed(0)
    scope: dict[str, Any] = {}
    exec(example("A loss with targets"), scope)
    return scope


def assert_trained(losses: list[float], model: nn.Module, loss_of: nn.Module, scope: dict[str, Any]) -> None:
    """The loss fell; every sample's targets were updated, and name the true class more often than the labels do."""
    assert losses[-1] < losses[0] - 0.1, losses
    targets = loss_of.targets
    assert bool((targets.sum(1) > 0.5).all())
    clean = torch.as_tensor(scope["clean_labels"])
    given = scope["dataset"].tensors[1]
    corrected = (targets.argmax(1) == clean).float().mean()
    assert corrected > (given == clean).float().mean() + 0.05, corrected
    assert torch.equal(loss_of.state_dict()["targets"], targets)


def test_bare_loop(embedded: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    exec(example("A bare loop."), embedded)
    lines = re.findall(r"(\w+) epoch (\d): mean loss (-?\d+\.\d+)", capsys.readouterr().out)
    for name in ("elr", "nal"):
        model, loss_of = embedded[name]
        losses = [float(loss) for kind, _, loss in lines if kind == type(loss_of).__name__]
        assert len(losses) == 6
        assert_trained(losses, model, loss_of, embedded)


def fit(module: nn.Module, loader: Any, epochs: int) -> list[float]:
    """What Lightning's trainer does with those methods; returns each epoch's mean loss."""
    optimizer = module.configure_optimizers()
    means = []
    for _ in range(epochs):
        losses = []
        for number, batch in enumerate(loader):
            loss = module.training_step(batch, number)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        means.append(sum(losses) / len(losses))
    return means


@pytest.mark.parametrize("name", ["elr", "nal"])
def test_lightning_style(embedded: dict[str, Any], name: str) -> None:
    exec(example("Lightning."), embedded)
    model, loss_of = embedded[name]
    module = embedded["Classifier"](model, loss_of)
    losses = fit(module, embedded["loader"], 6)
    assert_trained(losses, model, loss_of, embedded)
    assert torch.equal(module.state_dict()["loss_function.targets"], loss_of.targets)
    before = loss_of.targets.clone()
    batch = next(iter(embedded["loader"]))
    assert module.validation_step(batch, 0) > 0
    assert torch.equal(loss_of.targets, before), "validation updates no target"


@pytest.mark.parametrize("name", ["elr", "nal"])
def test_compiled_step(embedded: dict[str, Any], name: str) -> None:
    exec(example("A compiled step:"), embedded)
    model, loss_of = embedded[name]
    step = embedded["compiled_step"](model, loss_of)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    losses = []
    for _ in range(6):
        of_epoch: list[Tensor] = [step(*batch) for batch in embedded["loader"]]
        losses.append(float(torch.stack(of_epoch).mean()))
    assert_trained(losses, model, loss_of, embedded)
    assert not torch._dynamo.utils.counters["graph_break"]
    # One graph for full batches and one for the last, smaller one and any other size.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
