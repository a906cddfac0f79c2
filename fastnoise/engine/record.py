"""One run's data, method and measurements, and the figures made from them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import own, sources
from ..config import RunConfig
from ..data.names import needs_root, short
from ..errors import CheckpointError
from ..methods import Method, Run
from ..noise.result import known_labels
from ..noise.targets import load_noisy
from ..ops.looks import Scores, scores_of
from ..tasks import Evaluation
from ..tasks.base import Labels, differing
from ..tasks.names import DEFAULT, SCORES
from .clipping import takes_norms
from .folder import ReadFolder, RunFolder
from .metrics import (
    EpochStatistics,
    attention_figures,
    best_last_mean,
    detection_figures,
    selection_figures,
)
from .prepare import RunData, encoder_shape
from .scores import columns_of, missed_share, missed_shares

Part = str
"""A set of images to evaluate, as `Loaders.of` calls it."""


_CLASSES = ("given", "corrected", "true", "given_before_noise")
"""Columns of corrected.csv and scores.csv that hold classes."""


def open_folder(config: RunConfig, data: RunData, *, writes: bool = True) -> RunFolder:
    """The folder of the run in `config.run_dir`; `writes`: to write to, and locked.

    CheckpointError if its configuration or its labels are not those of `config` and `data`.
    """
    if config.run_dir is None:
        raise CheckpointError('no run to go on with: give its folder, as in config.replace({"run_dir": FOLDER})')
    folder = (RunFolder if writes else ReadFolder).open(Path(config.run_dir))
    folder.lock()
    try:
        _check_folder(folder, config, data)
    except BaseException:
        folder.release()
        raise
    return folder


def _check_folder(folder: RunFolder, config: RunConfig, data: RunData) -> None:
    """CheckpointError unless the folder's run is that of `config` and `data`."""
    folder.require(config)
    if any(folder.data_hash(key) not in (None, found) for key, found in _hashes(data).items()):
        network = "the file or the network of its features, or " if data.train.is_features else ""
        raise CheckpointError(
            f"{config.data.dataset} is not what the run in {folder.path} was started with: {network}its list of "
            "images, classes or labels has changed; restore it, or start a new run"
        )
    if load_noisy(folder.labels).sha256 != data.noisy.sha256:
        name = config.data.dataset
        what, advice = name, "data set that the run was started with"
        if needs_root(name):
            what, advice = f"{name} under {config.data.data_root}", "--data-root that the run was started with"
        raise CheckpointError(f"the labels of {what} are not those of the run ({folder.labels}); give the {advice}")


def _hashes(data: RunData) -> dict[str, str]:
    """By which a run knows its data set again, as environment.json keeps them."""
    return {"data_list": data.list_hash, "data_rest": data.rest_hash}


class Record:
    """A run without its network: its data, its measurements so far, and the folder that they are written to.

    Args:
        config: of the run.
        data: its data, N training samples.
        method: its own, on `device`.
        statistics: sums over the epoch, of this run.
        labels: int64 [N], the label table that its steps read, on `device`.
    """

    folder: RunFolder = None  # type: ignore[assignment]  # until `begin`

    def __init__(self, config: RunConfig, data: RunData, method: Method, statistics: EpochStatistics, labels: Tensor):
        self.config, self.data, self.method = config, data, method
        self.statistics, self.labels = statistics, labels
        self.given = labels.clone()
        # Of which samples the true label is known; a slice takes all of them without a copy.
        self.known: NDArray[np.int64] | slice = slice(None)
        if data.clean is not None and not (known := known_labels(data.clean)).all():
            self.known = np.flatnonzero(known)
        self.history: list[dict[str, Any]] = []
        self.first_step_seconds = 0.0

    def begin(
        self,
        folder: RunFolder | None,
        environment: dict[str, Any],
        *,
        lock: bool = False,
        made: Callable[[Path], object] = lambda path: None,
    ) -> Path:
        """Make the run's folder, or use the existing one, and record this start in it.

        Args:
            folder: the existing one.
            environment: of this start.
            lock: whether a new folder is locked too.
            made: called with the folder's path before anything is written to it.

        Returns its path.
        """
        if folder is None:
            folder = RunFolder.create(self.config)
            self.folder = folder
            if lock:
                folder.lock()
            made(folder.path)
            folder.write_labels(self.data.noisy, self.data.class_names)
        fields = self.config.flat()
        digests = {"own_files": own.fingerprints(fields), "files": sources.digests(fields)}
        kept = {**_hashes(self.data), "notes": list(self.data.notes), **self.data.details}
        folder.add_environment({**environment, **kept, **{name: found for name, found in digests.items() if found}})
        folder.write_config(self.config.replace({"run_dir": str(folder.path)}))
        self.folder = folder
        return folder.path

    @property
    def tests(self) -> tuple[Part, ...]:
        """The test sets: the data set's own, and its second ones."""
        return ("test", *self.data.second_tests)

    def truth(self, part: Part) -> Labels:
        """The labels that answers are compared with, one row per image; given labels, except for the test set."""
        if part == "test":
            return self.data.test.labels
        if part in self.data.second_tests:
            return self.data.second_tests[part].labels
        labels = self.data.validation_given if part == "validation" else self.data.given
        assert labels is not None
        return labels

    def training_figures(self) -> dict[str, Any]:
        """Figures of the training passes: on augmented images, while the weights change."""
        statistics, data = self.statistics, self.data
        answers = statistics.predictions.cpu().numpy()
        figures: dict[str, Any] = {
            "train_loss": float(statistics.loss_sum) / int(statistics.samples),
            **data.task.training_figures(answers, data.given),
        }
        if takes_norms(self.config) and (norm := statistics.mean_norm) is not None:
            figures["gradient_norm"] = norm
        if data.clean is not None:
            figures |= data.task.shares(answers[self.known], data.given[self.known], data.clean[self.known])
            if statistics.attention is not None:
                figures |= attention_figures(statistics.attention.cpu().numpy()[self.known], self._wrong())
            figures |= self._correction()
        return figures

    def selections(self) -> dict[str, Any]:
        """The method's selections after this epoch, with precision and recall if true labels are known."""
        given, clean = self.data.given, self.data.clean
        figures = {
            name: selection_figures(
                members.cpu().numpy(), given if labels is None else labels.cpu().numpy(), given, clean, self.known
            )
            for name, (members, labels) in self.method.selections().items()
        }
        return {"selections": figures} if figures else {}

    def _wrong(self) -> NDArray[np.bool_]:
        """Which of the samples with a known true label have another given one."""
        assert self.data.clean is not None
        return differing(self.data.given[self.known], self.data.clean[self.known])

    @torch.no_grad()
    def _correction(self) -> dict[str, float]:
        """Share of samples whose corrected label is the true class (NAL, section 5.2)."""
        corrected = self.method.corrected(self.given)
        if corrected is None or self.data.clean is None:
            return {}
        different = differing(corrected.cpu().numpy()[self.known], self.data.clean[self.known])
        return {"correction_accuracy": float((~different).mean())}

    @torch.no_grad()
    def _estimates(self, run: Run) -> dict[str, Any]:
        """Write the method's estimate of each label; returns how well it finds wrong ones, if true labels are known."""
        estimates = self.method.estimates(run)
        if estimates is None:
            return {}
        data = self.data
        suspected = estimates.suspected.cpu().numpy()
        columns: dict[str, NDArray[Any]] = {
            **self._named_columns(),
            "corrected": estimates.labels.cpu().numpy(),
            "confidence": estimates.confidence.float().cpu().numpy(),
            "suspected": suspected,
        }
        if estimates.attention is not None:
            columns["attention"] = estimates.attention.float().cpu().numpy()
        figures = {"suspected": float(suspected.mean())}
        if data.clean is not None:
            columns[self._true_name] = data.clean
            wrong = self._wrong()
            figures |= detection_figures(suspected[self.known], wrong)
            if wrong.any():
                figures["missed"] = missed_share(-columns["confidence"][self.known].astype(np.float64), wrong)
        self.folder.write_corrected(columns, self._class_names(columns))
        return {"label_errors": figures}

    def _write_scores(self) -> dict[str, Any]:
        """Write what the steps have seen of each given label; returns how well it finds wrong ones, if true labels are
        known."""
        scores = self.scores()
        if scores is None or not bool(scores.looks.any()):
            return {}
        data, columns = self.data, self._named_columns()
        found = columns_of(scores)
        columns |= found
        if data.clean is not None:
            columns[self._true_name] = data.clean
        self.folder.write_scores(columns, self._class_names(columns))
        if data.clean is None:
            return {}
        missed = missed_shares({name: values[self.known] for name, values in found.items()}, self._wrong())
        return {"scores": {name: {"missed": share} for name, share in missed.items()}}

    def _named_columns(self) -> dict[str, NDArray[Any]]:
        """The columns that tables of the training samples begin with."""
        data = self.data
        names = {"name": np.array(data.train.names)} if data.train.names else {}
        return {"position": data.positions, **names, "given": data.given}

    @property
    def _true_name(self) -> str:
        """What the column of the labels before the noise is called."""
        return "true" if self.data.noisy.clean_are is None else "given_before_noise"

    def _class_names(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
        """The columns that hold classes, by the classes' names."""
        data = self.data
        return {key: data.noisy.named(columns[key]) for key in _CLASSES if key in columns and data.given.ndim == 1}

    def scores(self) -> Scores | None:
        """What the steps so far have seen of the given labels; None if nothing is collected."""
        return None if self.statistics.looks is None else scores_of(self.statistics.looks)

    def test_figures(self, tests: Mapping[str, Evaluation], validation: Evaluation | None) -> dict[str, Any]:
        """Figures of the test sets by their names, and of the validation set if there is one."""
        task = self.data.task
        figures: dict[str, Any] = {}
        for part, test in tests.items():
            figures |= {f"{part}_{name}": value for name, value in task.figures(test, self.truth(part)).items()}
        if validation is not None:
            held = task.validation_figures(validation, self.truth("validation"))
            figures |= {f"validation_{name}": value for name, value in held.items()}
        return figures

    def _test_summary(self) -> dict[str, Any]:
        """The figures of all epochs on the test sets: of a number the best, the last and a mean, of a list the last."""
        task = self.data.task
        summary: dict[str, Any] = {}
        if task.name != DEFAULT or task.score != SCORES[DEFAULT]:
            summary |= {"task": task.name, "score": task.score._asdict()}
        if self.data.second_tests:
            summary["second_tests"] = list(self.data.second_tests)
        keys = [(f"{part}_{name}", higher) for part in self.tests for name, higher in task.summarised.items()]
        for key, higher in keys:
            if key not in self.history[-1]:  # top-5 accuracy of few classes
                continue
            if higher is None:
                summary[key] = self.history[-1][key]
            else:
                summary[key] = best_last_mean(self.history, key, higher=higher)
        return summary

    def summary(self, final: Evaluation, run: Run) -> dict[str, Any]:
        """The content of summary.json. Writes scores.csv, and corrected.csv if the method estimates labels.

        Args:
            final: one evaluation pass over the training set as it stands at the end.
            run: as the method sees it after the last epoch.
        """
        config, data, history = self.config, self.data, self.history
        summary: dict[str, Any] = {
            "title": f"{own.short(config.method.method)} on {short(config.data.dataset)}, "
            f"{own.short(data.noisy.spec)}, seed {config.engine.seed}",
            "run_dir": str(self.folder.path),
            "method": config.method.method,
            "epochs": len(history),
            "network": encoder_shape(config, data),
            "noise": {
                "spec": data.noisy.spec,
                "seed": data.noisy.seed,
                "requested_rate": data.noisy.requested_rate,
                "realised_rate": None if data.noisy.clean_labels is None else data.noisy.realised_rate,
                "sha256": data.noisy.sha256,
            },
            **self._test_summary(),
            **({} if data.test_labels == "true" else {"test_labels": data.test_labels}),
            "training_samples": {},
        }
        if data.validation is not None:
            score = data.task.score
            chosen = best_last_mean(history, f"validation_{score.name}", higher=score.higher)
            at_best = next(epoch for epoch in history if epoch["epoch"] == chosen["best_epoch"])
            summary[f"validation_{score.name}"] = {**chosen, "test_at_best": at_best[f"test_{score.name}"]}
        summary |= data.task.closing_figures(final.answers, data.given)
        if data.clean is not None:
            known = self.known
            summary["training_samples"] = data.task.shares(final.answers[known], data.given[known], data.clean[known])
            if final.attention is not None:
                summary["attention"] = attention_figures(final.attention[known], self._wrong())
            summary |= self._correction()
        selections = [{"epoch": epoch["epoch"], **epoch["selections"]} for epoch in history if "selections" in epoch]
        if selections:
            summary["selections"] = selections
        summary |= self._estimates(run)
        summary |= self._write_scores()
        seconds = sum(epoch["seconds"] for epoch in history)
        summary["throughput"] = {
            "images_per_second": float(np.median([epoch["images_per_second"] for epoch in history])),
            "data_wait": sum(epoch["data_wait"] * epoch["seconds"] for epoch in history) / seconds,
            "first_step_seconds": self.first_step_seconds,
            "training_seconds": seconds,
        }
        if together := [epoch for epoch in history if "collectives" in epoch]:
            sent = sum(epoch["collectives"] * epoch["seconds"] for epoch in together)
            summary["throughput"]["collectives"] = sent / sum(epoch["seconds"] for epoch in together)
        return summary
