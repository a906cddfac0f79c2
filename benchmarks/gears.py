"""How far free runs in different gears drift apart: rounding differs, and training amplifies it.

    python -m benchmarks.gears

Each method trains a small network for 50 steps from one state in each gear that the device has. Printed: the distance
of the loss and of all weights from those of the eager run, relative to the latter, after 1, 10 and 50 steps; for scale,
how far the weights have moved from the start. The tests compare single steps from the same state (tests/test_step.py).
"""

import argparse

import torch

from fastnoise.config import EngineConfig
from fastnoise.engine.optimizer import create_optimizer
from fastnoise.engine.step import Step
from fastnoise.methods import create_method
from fastnoise.models import create_model
from fastnoise.recipes import recipe

METHODS = ("ce", "elr", "nal", "swce_loss")
CHECKED = (1, 10, 50)
SAMPLES, CLASSES, BATCH = 1024, 10, 64


def free_run(method: str, gear: str, device: torch.device) -> list[tuple[float, torch.Tensor]]:
    """Loss and weights after each of the steps CHECKED, and the weights before the first (at 0)."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    config = recipe(method, "digits")
    made = create_method(config.method, num_samples=SAMPLES, num_classes=CLASSES).to(device)
    made.start_epoch(1)
    network = create_model(
        "small_cnn", num_classes=CLASSES, channels=1, image_size=(8, 8), attention=made.attention
    ).to(device)
    images = torch.randn(SAMPLES, 1, 8, 8).to(device).to(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (SAMPLES,)).to(device)
    step = Step(
        [network],
        made,
        create_optimizer(config.optim, network, capturable=gear.endswith("graphed")),
        labels,
        batch_size=BATCH,
        config=EngineConfig(gear=gear, amp="off"),  # type: ignore[arg-type]
        device=device,
    )

    def weights() -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).double()

    found = [(0.0, weights())]
    for number in range(1, max(CHECKED) + 1):
        index = torch.randperm(SAMPLES)[:BATCH].to(device)
        result = step.train(images[index], index)
        if number in CHECKED:
            found.append((float(result.loss), weights()))
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gears = ("compiled", "graphed", "compiled_graphed") if device.type == "cuda" else ("compiled",)
    if device.type == "cpu":
        print("no GPU: graphed not measured")
    print("| method | gear | step | loss, relative | weights, relative | weights have moved |")
    print("| --- | --- | --- | --- | --- | --- |")
    for method in METHODS:
        start, *eager = free_run(method, "eager", device)
        for gear in gears:
            for number, (loss, weights), (other, moved) in zip(
                CHECKED, eager, free_run(method, gear, device)[1:], strict=True
            ):
                drift = float((weights - moved).norm() / weights.norm())
                distance = float((weights - start[1]).norm() / start[1].norm())
                apart = abs(other - loss) / abs(loss)
                print(f"| {method} | {gear} | {number} | {apart:.1e} | {drift:.1e} | {distance:.1e} |")


if __name__ == "__main__":
    main()
