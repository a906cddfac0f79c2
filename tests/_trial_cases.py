"""A method and its networks in a bare training loop, without a trainer and a loader."""

from dataclasses import replace
from typing import Any

import torch
from _scan_cases import scan_over
from torch import Tensor, nn

from fastnoise.config import OptimConfig
from fastnoise.methods import Run, Setting, create_method, options_of
from fastnoise.models import Outputs, create_model


class Trial:
    """A method and its networks in a bare loop: a pattern per class, noisy labels, SGD.

    Args:
        name, options: the method's.
        samples, classes, batch: numbers of samples, of classes, and of samples in a batch.
        noise: share of the samples whose given label is drawn by chance.
        spread: standard deviation of images around their class's pattern, where patterns have 1.
        rate, momentum: SGD's.
        seed: the run's, which the method sees between epochs.
        setting: fields of the method's `Setting` that differ from the usual ones.
        data_last: draw the data after the networks. The method is then configured without the given labels.
    """

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        samples: int,
        classes: int,
        batch: int,
        *,
        noise: float = 0.3,
        spread: float = 0.7,
        rate: float = 0.05,
        momentum: float = 0.0,
        seed: int = 0,
        setting: dict[str, Any] | None = None,
        data_last: bool = False,
    ):
        self.samples, self.classes, self.batch = samples, classes, batch
        self.rate, self.momentum, self.seed = rate, momentum, seed
        self.warnings: list[str] = []
        # What tests find, as which samples are selected, depends on the order of all that is drawn from here on.
        torch.manual_seed(0)
        if not data_last:
            self.draw(noise, spread)
        self.method: Any = create_method(options_of(name)(**options), num_samples=samples, num_classes=classes)
        usual = Setting(OptimConfig(), (0.5,), (0.5,), batch, given=None if data_last else self.given.numpy())
        self.method.configure(replace(usual, **(setting or {})))
        networks = [
            create_model("small_cnn", num_classes=classes, channels=1, image_size=(8, 8), width=0.25)
            for _ in range(self.method.networks)
        ]
        self.method.attach(networks)
        self.networks: Any = nn.ModuleList(networks)
        if data_last:
            self.draw(noise, spread)
        self.optimizer = self.sgd(self.networks)

    def draw(self, noise: float, spread: float) -> None:
        """Images, the labels given to them, and those that steps learn, which the method may change."""
        true = torch.randint(self.classes, (self.samples,))
        patterns = torch.randn(self.classes, 1, 8, 8)
        self.images = patterns[true] + spread * torch.randn(self.samples, 1, 8, 8)
        wrong = torch.rand(self.samples) < noise
        self.given = torch.where(wrong, torch.randint(self.classes, (self.samples,)), true)
        self.labels = self.given.clone()

    @property
    def network(self) -> Any:
        """The only one."""
        (network,) = self.networks
        return network

    def sgd(self, networks: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(networks.parameters(), self.rate, momentum=self.momentum)

    @torch.no_grad()
    def evaluate(self) -> list[Outputs]:
        self.networks.eval()
        found = [network(self.images) for network in self.networks]
        self.networks.train()
        return found

    def run(self, epoch: int, epochs: int = 10) -> Run:
        scan = scan_over(lambda: self.evaluate())  # which a test may replace
        networks = list(self.networks)
        return Run(epoch, epochs, self.seed, networks, self.given, self.labels, scan, self.warnings.append)

    def end(self, epoch: int, epochs: int = 10) -> Run:
        run = self.run(epoch, epochs)
        self.method.end_epoch(run)
        return run

    def begin(self, epoch: int) -> None:
        self.method.start_epoch(epoch)

    def batches(self, epoch: int) -> list[tuple[int, Tensor, Tensor]]:
        """(number, images, index) as a loader gives them, with views that differ."""
        order = self.method.order(epoch, 7)
        random = torch.Generator().manual_seed(epoch)
        index = torch.randperm(self.samples, generator=random) if order is None else torch.from_numpy(order)
        found = []
        for number, part in enumerate(index.split(self.batch)):
            images = self.images[part].repeat(self.method.views, 1, 1, 1)
            found.append((number, images + 0.1 * torch.randn(images.shape, generator=random), part))
        return found

    def update(self, epoch: int, number: int, images: Tensor, index: Tensor) -> Any:
        self.method.before_step(epoch, number, 7)
        result = self.method.training_step(list(self.networks), images, self.labels[index], index)
        self.optimizer.zero_grad()
        result.loss.backward()
        self.optimizer.step()
        self.method.after_update(list(self.networks))
        return result

    def train(self, epochs: int) -> None:
        self.end(0)
        for epoch in range(1, epochs + 1):
            self.begin(epoch)
            for batch in self.batches(epoch):
                self.update(epoch, *batch)
            self.end(epoch)
