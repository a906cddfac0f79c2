"""One run's data, method and measurements, and the figures made from them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import own
from ..config import RunConfig
from ..data.names import DATASETS
from ..errors import CheckpointError
from ..files import write_json
from ..methods import Method, Run
from ..noise import NoisyLabels
from .evaluate import class_figures
from .folder import RunFolder
from .metrics import (
    EpochStatistics,
    Evaluation,
    attention_figures,
    best_last_mean,
    detection_figures,
    selection_figures,
    split_shares,
)
from .prepare import RunData, encoder_shape

Part = Literal["test", "validation", "train_in_order"]
"""A set of images to evaluate, by its loader's name in `Loaders`."""


def open_folder(config: RunConfig, data: RunData) -> RunFolder:
    """The folder of the run in `config.run_dir`.

    CheckpointError if its configuration or its labels are not those of `config` and `data`.
    """
    if config.run_dir is None:
        raise CheckpointError('no run to go on with: give its folder, as in config.replace({"run_dir": FOLDER})')
    folder = RunFolder.open(Path(config.run_dir))
    folder.require(config)
    if NoisyLabels.load(folder.labels).sha256 != data.noisy.sha256:
        name = config.data.dataset
        what, advice = name, "data set that the run was started with"
        if name in DATASETS:
            what, advice = f"{name} under {config.data.data_root}", "--data-root that the run was started with"
        raise CheckpointError(f"the labels of {what} are not those of the run ({folder.labels}); give the {advice}")
    return folder


class Record:
    """A run without its network: its data, its measurements so far, and the folder that they are written to.

    Args:
        config: of the run.
        data: its data, N training samples.
        method: its own, on `device`.
        statistics: sums over the epoch, of this run.
        labels: int64 [N], the label table that its steps read, on `device`.
    """

    folder: RunFolder

    def __init__(self, config: RunConfig, data: RunData, method: Method, statistics: EpochStatistics, labels: Tensor):
        self.config, self.data, self.method = config, data, method
        self.statistics, self.labels = statistics, labels
        self.given = labels.clone()
        self.history: list[dict[str, Any]] = []
        self.first_step_seconds = 0.0

    def begin(self, folder: RunFolder | None, environment: dict[str, Any]) -> None:
        """Make the run's folder, or use the existing one, and record this start in it."""
        if folder is None:
            folder = RunFolder.create(self.config)
            self.data.noisy.save(folder.labels)
            write_json(folder.classes, list(self.data.class_names))
        code = own.fingerprints(self.config.flat())
        folder.add_environment({**environment, **({"own_files": code} if code else {})})
        folder.write_config(self.config.replace({"run_dir": str(folder.path)}))
        self.folder = folder

    def truth(self, part: Part) -> NDArray[np.int64]:
        """The labels that predictions are compared with: int64 [n]; given labels, except for the test set."""
        if part == "test":
            return self.data.test.labels
        labels = self.data.validation_given if part == "validation" else self.data.given
        assert labels is not None
        return labels

    def training_figures(self) -> dict[str, Any]:
        """Figures of the training passes: on augmented images, while the weights change."""
        statistics, data = self.statistics, self.data
        predictions = statistics.predictions.cpu().numpy()
        seen = predictions >= 0
        figures: dict[str, Any] = {
            "train_loss": float(statistics.loss_sum) / int(statistics.samples),
            "train_accuracy_given": float((predictions == data.given)[seen].mean()),
        }
        if data.clean is not None:
            figures |= split_shares(predictions, data.given, data.clean)
            if statistics.attention is not None:
                figures |= attention_figures(statistics.attention.cpu().numpy(), data.given != data.clean)
            figures |= self._correction()
        return figures

    def selections(self) -> dict[str, Any]:
        """The method's selections after this epoch, with precision and recall if true labels are known."""
        given, clean = self.data.given, self.data.clean
        figures = {
            name: selection_figures(
                members.cpu().numpy(), given if labels is None else labels.cpu().numpy(), given, clean
            )
            for name, (members, labels) in self.method.selections().items()
        }
        return {"selections": figures} if figures else {}

    @torch.no_grad()
    def _correction(self) -> dict[str, float]:
        """Share of samples whose corrected label is the true class (NAL, section 5.2)."""
        corrected = self.method.corrected(self.given)
        if corrected is None or self.data.clean is None:
            return {}
        return {"correction_accuracy": float((corrected.cpu().numpy() == self.data.clean).mean())}

    @torch.no_grad()
    def _estimates(self, run: Run) -> dict[str, Any]:
        """Write the method's estimate of each label; returns how well it finds wrong ones, if true labels are known."""
        estimates = self.method.estimates(run)
        if estimates is None:
            return {}
        data = self.data
        suspected = estimates.suspected.cpu().numpy()
        columns: dict[str, NDArray[Any]] = {
            "position": data.positions,
            **({"name": np.array(data.train.names)} if data.train.names else {}),
            "given": data.given,
            "corrected": estimates.labels.cpu().numpy(),
            "confidence": estimates.confidence.float().cpu().numpy(),
            "suspected": suspected,
        }
        if estimates.attention is not None:
            columns["attention"] = estimates.attention.float().cpu().numpy()
        figures = {"suspected": float(suspected.mean())}
        if data.clean is not None:
            columns["true"] = data.clean
            figures |= detection_figures(suspected, data.given != data.clean)
        self.folder.write_corrected(columns)
        return {"label_errors": figures}

    def test_figures(self, test: Evaluation, validation: Evaluation | None) -> dict[str, Any]:
        """Figures of the test set, and of the validation set if there is one."""
        found = class_figures(test, self.truth("test"), self.data.num_classes)
        figures: dict[str, Any] = {f"test_{name}": value for name, value in found.items()}
        if validation is not None:
            figures["validation_accuracy"] = validation.accuracy(self.truth("validation"))
        return figures

    def summary(self, final: Evaluation, run: Run) -> dict[str, Any]:
        """The content of summary.json. Writes corrected.csv if the method estimates labels.

        Args:
            final: one evaluation pass over the training set as it stands at the end.
            run: as the method sees it after the last epoch.
        """
        config, data, history = self.config, self.data, self.history
        summary: dict[str, Any] = {
            "title": f"{own.short(config.method.method)} on {own.short(config.data.dataset)}, "
            f"{own.short(data.noisy.spec)}, seed {config.engine.seed}",
            "run_dir": str(self.folder.path),
            "epochs": len(history),
            "network": encoder_shape(config, data),
            "noise": {
                "spec": data.noisy.spec,
                "seed": data.noisy.seed,
                "requested_rate": data.noisy.requested_rate,
                "realised_rate": None if data.noisy.clean_labels is None else data.noisy.realised_rate,
                "sha256": data.noisy.sha256,
            },
            "test_accuracy": best_last_mean(history, "test_accuracy"),
            "test_macro_f1": best_last_mean(history, "test_macro_f1"),
            "test_class_accuracy": history[-1].get("test_class_accuracy"),  # none in epochs of earlier versions
            **({"test_top5": best_last_mean(history, "test_top5")} if data.num_classes > 5 else {}),
            "training_samples": {},
        }
        if data.validation is not None:
            chosen = best_last_mean(history, "validation_accuracy")
            at_best = next(epoch for epoch in history if epoch["epoch"] == chosen["best_epoch"])
            summary["validation_accuracy"] = {**chosen, "test_at_best": at_best["test_accuracy"]}
        if data.clean is not None:
            summary["training_samples"] = split_shares(final.predictions, data.given, data.clean)
            if final.attention is not None:
                summary["attention"] = attention_figures(final.attention, data.given != data.clean)
            summary |= self._correction()
        selections = [{"epoch": epoch["epoch"], **epoch["selections"]} for epoch in history if "selections" in epoch]
        if selections:
            summary["selections"] = selections
        summary |= self._estimates(run)
        seconds = sum(epoch["seconds"] for epoch in history)
        summary["throughput"] = {
            "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
            "data_wait": sum(epoch["data_wait"] * epoch["seconds"] for epoch in history) / seconds,
            "first_step_seconds": self.first_step_seconds,
            "training_seconds": seconds,
        }
        return summary
