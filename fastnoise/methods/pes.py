"""PES (Bai et al. 2021, "Understanding and Improving Early Stopping for Learning with Noisy Labels")."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..config import OptimConfig
from ..errors import ConfigError
from ..losses import CrossEntropyLoss
from ..models import Network, Outputs
from ..models.depth import last_stage
from ..options import MethodOptions
from .base import Estimates, Forward, Method, Phase, Run, Selection, Setting, random_numbers
from .dividemix import sharpened
from .mixup import Mixup, blend, draw_pairing, gone_through, mates
from .options import PESOptions, PESSemiOptions

WARM_UP, STAGE, HEAD, CONFIDENT = range(4)
"""The method's programs: the warm-up, two of refinement, and what follows on confident samples."""

ORDER, PAIRING, MIXUP, RENEWED = 30, 31, 32, 33
"""Purposes of random numbers: an epoch's order, a step's pairing and its share, and new weights."""

LARGEST_WEIGHT = 3.0
"""Of a class, in MixMatch."""


class ProgressiveEarlyStopping(Method):
    """Later layers, which fit wrong labels sooner than early ones, are drawn anew and trained for fewer epochs.

    1. `warm_up` epochs of cross-entropy on all given labels.
    2. The network's last stage (`last_stage`) and its linear layer are drawn anew, as PyTorch draws them by default,
       and trained alone for `stage_epochs` epochs, by a new Adam of rate `refine_rate` without weight decay.
    3. The linear layer is drawn anew once more and trained alone for `head_epochs` epochs, by another new Adam. In both
       refinements batch norm's running statistics move in all layers, as in the authors' code.
    4. Until the end the whole network learns the samples whose given label it predicts, chosen anew before each epoch:
       cross-entropy with the weight (mean count of the classes that are present) / (count of its class) for a sample,
       as a weighted mean over the batch. The run's optimiser begins anew, since its momenta are of other weights;
       `renewed` frozen trains the renewed layers no more, as in the authors' code, whose optimiser keeps the old ones.

    The schedule counts the epochs of 1 and 4 alone. If no sample's label is predicted, the next epoch learns all given
    labels, and a warning says so.
    """

    name = "pes"
    Options: ClassVar[type[MethodOptions]] = PESOptions
    parallel = True
    features = True
    second_optimizer = "adam"
    per_sample = ("confident", "prediction", "confidence")
    largest_weight: float = float("inf")

    confident: Tensor
    judged: Tensor
    prediction: Tensor
    confidence: Tensor
    balance: Tensor

    def __init__(self, options: PESOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.settings = options
        self.num_classes = num_classes
        self.criterion = CrossEntropyLoss()
        self.register_buffer("confident", torch.ones(num_samples, dtype=torch.bool))
        self.register_buffer("judged", torch.zeros((), dtype=torch.bool))
        self.register_buffer("prediction", torch.zeros(num_samples, dtype=torch.int64))
        self.register_buffer("confidence", torch.ones(num_samples))
        self.register_buffer("balance", torch.ones(num_classes))
        self.setting = Setting(OptimConfig(), (), ())
        self._trained: list[nn.Parameter] = []
        self._layers: dict[int, list[nn.Module]] = {}

    def configure(self, setting: Setting) -> None:
        self.setting = setting

    def attach(self, networks: Sequence[Network]) -> None:
        (network,) = networks
        head = _with_weights(network.classifier)
        self._layers = {STAGE: [*last_stage(network.backbone), *head], HEAD: head}
        self._trained = [weight for weight in network.parameters() if weight.requires_grad]
        for program, epochs in ((STAGE, self.settings.stage_epochs), (HEAD, self.settings.head_epochs)):
            if epochs:
                self._require_renewable(network, program)

    def _require_renewable(self, network: Network, program: int) -> None:
        names = {module: name for name, module in network.named_modules()}
        for layer in self._layers[program]:
            trouble = ""
            if not hasattr(layer, "reset_parameters"):
                trouble = f"{type(layer).__name__}, cannot draw its weights anew: it has no reset_parameters"
            elif not all(weight.requires_grad for weight in layer.parameters(recurse=False)):
                trouble = f"{type(layer).__name__}, is frozen: drop --freeze"
            if trouble:
                instead = "; or take --stage-epochs 0" if program == STAGE else ""
                raise ConfigError(f"method {self.name} renews the layer {names[layer]}, which, a {trouble}{instead}")

    # -- inside the step -------------------------------------------------------------------------------------

    def loss(self, outputs: Outputs, labels: Tensor, index: Tensor) -> Tensor:
        if self.program != CONFIDENT:
            return super().loss(outputs, labels, index)
        weight = self.balance[labels]
        loss: Tensor = self.criterion(outputs.logits, labels, index, weight=weight / weight.mean())
        return loss

    # -- between steps and epochs ----------------------------------------------------------------------------

    @property
    def prelude(self) -> int:
        """The epoch after which samples are chosen."""
        return self.settings.warm_up + self.settings.stage_epochs + self.settings.head_epochs

    def _program_of(self, epoch: int) -> int:
        if epoch <= self.settings.warm_up:
            return WARM_UP
        if epoch <= self.settings.warm_up + self.settings.stage_epochs:
            return STAGE
        return HEAD if epoch <= self.prelude else CONFIDENT

    def _renewed_after(self, epoch: int) -> int | None:
        """The refinement that begins after `epoch`, with layers drawn anew; None if there is none."""
        following = self._program_of(epoch + 1)
        return following if following in (STAGE, HEAD) and following != self._program_of(epoch) else None

    def end_obstacle(self, epochs: int) -> str | None:
        """A run keeps the layers that it ends with."""
        if self._renewed_after(epochs) is None:
            return None
        return f"draws layers anew after epoch {epochs}, with which the run has ended"

    def start_epoch(self, epoch: int) -> None:
        self.program = self._program_of(epoch)
        renewed = {weight for layer in self._renewed() for weight in layer.parameters(recurse=False)}
        alone = {weight for layer in self._layers.get(self.program, ()) for weight in layer.parameters(recurse=False)}
        for weight in self._trained:
            if self.program in (STAGE, HEAD):
                weight.requires_grad_(weight in alone)
            else:
                stale = self.program == CONFIDENT and self.settings.renewed == "frozen" and weight in renewed
                weight.requires_grad_(not stale)

    def _renewed(self) -> list[nn.Module]:
        """All layers that a refinement draws anew."""
        if self.settings.stage_epochs:
            return self._layers.get(STAGE, [])
        return self._layers.get(HEAD, []) if self.settings.head_epochs else []

    def phase(self, epoch: int) -> Phase | None:
        program = self._program_of(epoch)
        first = program != self._program_of(epoch - 1)
        if program in (STAGE, HEAD):
            return Phase(self.settings.refine_rate, 0.0, fresh=first, second=True)
        if program == CONFIDENT and first and self.settings.renewed == "trained" and self.prelude > 0:
            return Phase(None, self.setting.optim.weight_decay, fresh=True)
        return None

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        if self.program != CONFIDENT:
            return None
        chosen = np.flatnonzero(self.confident.cpu().numpy())
        return random_numbers(seed, epoch, ORDER).permutation(chosen)

    def end_epoch(self, run: Run) -> None:
        settings = self.settings
        lengths = {name: getattr(settings, name) for name in ("warm_up", "stage_epochs", "head_epochs")}
        run.warn_of_prelude(self, 0, "warm-up and refinement", **lengths)
        last = run.epoch == run.epochs
        refinement = self._renewed_after(run.epoch)
        if refinement is not None and not last:
            renew(self._layers[refinement], int(run.random(RENEWED).integers(2**63)))
        if run.epoch >= self.prelude or last:
            self._judge(run)

    def _judge(self, run: Run) -> None:
        def collect(outputs: Sequence[Outputs], index: Tensor) -> tuple[Tensor, Tensor]:
            probs = outputs[0].logits.softmax(1)
            return probs.argmax(1), probs.gather(1, run.given[index, None]).squeeze(1)

        prediction, confidence = run.scan(collect)
        confident = prediction == run.given
        if not confident.any():
            run.warn(
                f"{self.name}, epoch {run.epoch}: no sample's given label is predicted; the next epoch learns the "
                "given labels of all samples"
            )
            confident = torch.ones_like(confident)
        counts = torch.bincount(run.given[confident], minlength=self.num_classes).float()
        present = counts > 0
        weights = torch.where(present, counts[present].mean() / counts, 0.0).clamp(max=self.largest_weight)
        self.prediction.copy_(prediction)
        self.confidence.copy_(confidence)
        self.confident.copy_(confident)
        self.balance.copy_(weights)
        self.judged.fill_(True)

    def report(self) -> dict[str, float]:
        return {"confident": float(self.confident.float().mean())} if self.judged else {}

    def selections(self) -> dict[str, Selection]:
        """The samples that the next epoch learns with their given labels."""
        return {"confident": Selection(self.confident)} if self.judged else {}

    # -- what the run has found out --------------------------------------------------------------------------

    def corrected(self, labels: Tensor) -> Tensor:
        """The predictions; before the first choice, the given labels."""
        return torch.where(self.judged, self.prediction, labels)

    def estimates(self, run: Run) -> Estimates | None:
        """Suspected: a label that is not predicted. Confidence: its probability. None before the first choice."""
        if not self.judged:
            return None
        return Estimates(self.prediction.clone(), self.confidence, self.prediction != run.given)


class PESSemi(ProgressiveEarlyStopping):
    """PES(semi): the confident samples are MixMatch's labelled ones, and the others its unlabelled ones.

    After warm-up and refinement, of the linear layer alone by default, a batch has half its samples from the others if
    these are more than the confident ones, else their share of all samples. For an unlabelled sample the target is the
    mean prediction q for its two views, sharpened: q_k^(1/T) / sum_j q_j^(1/T). For a confident one it is the given
    label. Both views of all are mixed with those of a random partner, by a share max(l, 1 - l), l from Beta(alpha,
    alpha), images and targets alike, and with the mixed targets q the loss is

        mean(-sum_k w_k q_k log p_k) over confident samples + lambda_u * mean((p - q)^2) over the others and classes

    w_k is the weight of a class as in PES, at most 3. lambda_u grows linearly over `unlabelled_ramp` epochs, and alpha
    becomes `late_mixup_alpha` in epoch `late_from`. The network predicts for both views of the whole batch at once, in
    training mode. Pairs are those of DivideMix: i and (a i + b) mod 2 B.
    """

    name = "pes_semi"
    Options: ClassVar[type[MethodOptions]] = PESSemiOptions
    parallel = True
    views = 2
    largest_weight = LARGEST_WEIGHT
    settings: PESSemiOptions

    strength: Tensor
    pairing: Tensor

    def __init__(self, options: PESSemiOptions, num_samples: int, num_classes: int):
        super().__init__(options, num_samples, num_classes)
        self.num_samples = num_samples
        self.mixup = Mixup(options.mixup_alpha, first_dominates=True, purpose=MIXUP)
        self.register_buffer("strength", torch.zeros(()))
        self.register_buffer("pairing", torch.tensor([1, 0]))

    def training_step(self, networks: Sequence[Network], images: Tensor, labels: Tensor, index: Tensor) -> Forward:
        if self.program != CONFIDENT:
            return super().training_step(networks, images[: len(index)], labels, index)
        network = networks[0]
        with torch.no_grad():
            answers = network(images).logits
            probs = answers.float().softmax(1).unflatten(0, (2, -1)).mean(0)
        confident = self.confident[index]
        given = (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).float()
        target = torch.where(confident[:, None], given, sharpened(probs, self.settings.sharpening)).repeat(2, 1)
        partners, share = mates(self.pairing, len(images)), self.mixup.share
        logits = network(blend(share, images, images[partners])).logits
        target = share * target + (1 - share) * target[partners]
        labelled = confident.repeat(2).float()
        weight = labelled * (len(images) / labelled.sum().clamp(min=1))
        supervised: Tensor = self.criterion(logits, target * self.balance, weight=weight)
        distances = (logits.float().softmax(1) - target).square().mean(1)
        guessed = ((1 - labelled) * distances).sum() / (1 - labelled).sum().clamp(min=1)
        loss = supervised + self.strength * guessed
        return Forward(loss, probs.argmax(1), logits=answers[: len(index)])

    def before_step(self, epoch: int, batch: int, seed: int) -> None:
        if self.program != CONFIDENT:
            return
        settings, size = self.settings, self.setting.batch_size
        self.mixup.alpha = settings.mixup_alpha if epoch < settings.late_from else settings.late_mixup_alpha
        self.mixup.draw(epoch, batch, seed)
        draw_pairing(self.pairing, 2 * size, random_numbers(seed, (epoch << 32) + batch, PAIRING))
        after = epoch - 1 - self.prelude + batch / self._batches()
        ramp = settings.unlabelled_ramp
        self.strength.fill_(settings.unlabelled_strength * (min(after / ramp, 1.0) if ramp else 1.0))

    def _batches(self) -> int:
        """Of an epoch of MixMatch in each process, without a rest."""
        return max(1, self.num_samples // (self.setting.batch_size * self.shards.size))

    def order(self, epoch: int, seed: int) -> np.ndarray | None:
        if self.program != CONFIDENT:
            return None
        random = random_numbers(seed, epoch, ORDER)
        confident = self.confident.cpu().numpy()
        labelled, others = np.flatnonzero(confident), np.flatnonzero(~confident)
        size, batches = self.setting.batch_size, self._batches() * self.shards.size
        of_others = size // 2 if len(others) > len(labelled) else size * len(others) // self.num_samples
        if not of_others:
            return gone_through(labelled, batches * size, random)
        pools = ((labelled, size - of_others), (others, of_others))
        parts = [gone_through(pool, batches * count, random).reshape(batches, count) for pool, count in pools]
        return np.concatenate(parts, 1).ravel()


def _with_weights(module: nn.Module) -> list[nn.Module]:
    """The layers of a module that have weights of their own."""
    return [layer for layer in module.modules() if list(layer.parameters(recurse=False))]


def renew(layers: Sequence[nn.Module], seed: int) -> None:
    """Draw the weights of these layers anew, as PyTorch draws them by default; running statistics begin anew too."""
    devices = {weight.device for layer in layers for weight in layer.parameters(recurse=False)}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        torch.manual_seed(seed)
        for layer in layers:
            layer.reset_parameters()  # type: ignore[operator]  # `_require_renewable` has seen it
