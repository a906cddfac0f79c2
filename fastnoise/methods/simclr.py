"""SimCLR (Chen et al. 2020): contrastive pretraining of the backbone, without labels."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..data.views import SimCLRViews
from ..losses import CrossEntropyLoss
from ..losses.contrastive import NTXentLoss
from ..models import Network
from .base import Forward, Method, Run, Setting, random_numbers
from .options import SimCLROptions

PURPOSE = 61
"""Of the random numbers that key the augmentations of a step."""


class SimCLR(Method):
    """NT-Xent on projections of two augmented views of each sample.

    The loader crops and flips each view as its options say; the rest of the augmentation runs on the device
    (`SimCLRViews`). The projector, two layers with a ReLU between them, is a module of the network. So that a run shows
    what its encoder is worth, the classifier learns from the first view's features and the given labels, by
    cross-entropy whose gradient ends at the features: the encoder never sees a label. The loss shown is NT-Xent's.
    In several processes the negatives of a sample are those of its process's batch.
    """

    name = "simclr"
    parallel = True
    Options = SimCLROptions
    features = True
    views = 2
    full_precision_images = True  # resampled, recoloured and blurred on the device before the network sees them
    criterion: NTXentLoss

    def __init__(self, options: SimCLROptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.criterion = NTXentLoss(temperature=options.temperature)
        self.probe = CrossEntropyLoss()
        self.width, self.jitter, self.min_area = options.projection, options.jitter, options.min_area
        self.augment = SimCLRViews((0.5,), (0.25,), jitter=self.jitter, min_area=self.min_area)

    def configure(self, setting: Setting) -> None:
        self.augment = SimCLRViews(setting.mean, setting.std, jitter=self.jitter, min_area=self.min_area)

    def attach(self, networks: Sequence[Network]) -> None:
        features = networks[0].backbone.num_features
        projector = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, self.width))
        networks[0].projector = projector.to(next(networks[0].parameters()).device)

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        number = (epoch << 32) + batch * self.shards.size + self.shards.rank
        self.augment.draw(int(random_numbers(seed, number, PURPOSE).integers(2**63)))

    def end_epoch(self, run: Run) -> None:
        if self.shards.size > 1 and run.epoch == 0:
            run.warn("simclr: negatives are those of the batch of each process by itself")

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        network = networks[0]
        features, loss = self.contrast(network, images)
        logits = network.classifier(features[: len(labels)].detach())
        probe: Tensor = self.probe(logits, labels)
        answers = logits.detach()
        return Forward(loss + (probe - probe.detach()), answers.argmax(1), logits=answers)

    def contrast(self, network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features [2 B, F] of the augmented images [2 B, ...], and the NT-Xent loss of their projections."""
        features: Tensor = network.backbone(self.augment(images))
        loss: Tensor = self.criterion(network.projector(features))  # type: ignore[operator]
        return features, loss


def backbone_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's weights among those of a run's networks, as a checkpoint names them."""
    prefix = "0.backbone."
    return {
        torch_name.removeprefix(prefix): value for torch_name, value in state.items() if torch_name.startswith(prefix)
    }
