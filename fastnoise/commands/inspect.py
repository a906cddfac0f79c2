"""fastnoise inspect: what lies between two label files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from ..data import names as data_names
from ..errors import ConfigError, DataError, alternatives
from .corrupt import rates_line, require_classes

if TYPE_CHECKING:
    from ..noise.audit import Audit

_PRINTED_CLASSES = 12  # up to which the transition matrix is printed whole
_PRINTED_PAIRS = 10  # of classes that are confused most, beyond
_PRINTED_FITS = 4


@dataclass(frozen=True)
class InspectCommand:
    """Report how given labels differ from true ones, and which noise convention explains the difference.

    One file is enough if it holds the true labels too, or if --dataset has them. Examples:
      fastnoise inspect noisy.npz
      fastnoise inspect clean.npy given.csv:label --nominal symmetric:0.4
      fastnoise inspect noisy.npz --dataset cifar10
    """

    labels_a: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="LABELS_A")] = None
    """The true labels: FILE.npy, FILE.npz:ARRAY, FILE.csv:COLUMN or FILE.txt.
    Without LABELS_B these are the given labels. The true ones are then in the same .npz file, or those of --dataset."""
    labels_b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="LABELS_B")] = None
    """The given labels of the same samples in the same order."""
    nominal: str | None = None
    """The noise spec that the labels should follow. None: the spec in an .npz file that fastnoise wrote."""
    num_classes: int | None = None
    """Number of classes. None: that of the data set or the file, else the largest label plus one."""
    dataset: Annotated[
        str | None,
        tyro.conf.arg(
            help="Data set of the labels, whose training images are tested for instance dependence: "
            f"{alternatives(data_names.FORMS)}."
        ),
    ] = None
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""


def run(command: InspectCommand) -> int:
    """Print the report; ConfigError and DataError in one line."""
    from ..noise import NoisyLabels, parse
    from ..noise.audit import audit
    from ..noise.files import read_labels
    from ..noise.result import known_labels

    if command.labels_a is None:
        raise ConfigError("give one or two label files, as in fastnoise inspect clean.npy noisy.csv")
    dataset = None
    if command.dataset is not None:
        from ..data import load_dataset

        dataset = load_dataset(command.dataset, Path(command.data_root), download=command.download)
        require_classes(dataset)
    second = read_labels(command.labels_a if command.labels_b is None else command.labels_b)
    given = second.labels if isinstance(second, NoisyLabels) else second
    if command.labels_b is not None:
        first = read_labels(command.labels_a)
        clean = first.labels if isinstance(first, NoisyLabels) else first
    elif isinstance(second, NoisyLabels) and second.clean_labels is not None:
        clean = second.clean_labels
    elif dataset is not None:
        clean = dataset.train.labels if dataset.clean_labels is None else dataset.clean_labels
    else:
        raise ConfigError(f"{command.labels_a} holds no true labels; give a second file, or --dataset NAME")
    if dataset is not None and len(dataset.train) != len(given):
        raise DataError(f"{len(given)} labels for the {len(dataset.train)} training images of {dataset.name}")
    nominal = command.nominal
    if nominal is not None:
        nominal = str(parse(nominal))
    elif isinstance(second, NoisyLabels) and second.parsed_spec() is not None:
        nominal = second.spec
    num_classes = command.num_classes
    if num_classes is None and dataset is not None:
        num_classes = dataset.num_classes
    if num_classes is None and isinstance(second, NoisyLabels):
        num_classes = second.num_classes
    if num_classes is None:
        num_classes = max(2, int(max(clean.max(), given.max())) + 1)
    inputs = None if dataset is None else dataset.train.images
    if len(clean) == len(given) and not (known := known_labels(clean)).all():
        print(f"the true labels of {known.sum()} of {len(clean)} samples are known; what follows is of these")
        clean, given = clean[known], given[known]
        inputs = None if inputs is None else inputs[known]
    found = audit(
        clean,
        given,
        num_classes=num_classes,
        dataset=None if dataset is None else dataset.name,
        inputs=inputs,
        nominal=nominal,
    )
    for line in _report(found, nominal):
        print(line)
    if dataset is None:
        print("instance dependence: not tested; give --dataset NAME for the images")
    elif inputs is None:
        print(f"instance dependence: not tested, the images of {dataset.name} are not in memory")
    for warning in found.warnings:
        print(f"warning: {warning}")
    return 0


def _report(found: "Audit", nominal: str | None) -> list[str]:
    from ..noise.audit import CLOSE

    flips = int(found.transition.sum() - found.transition.trace())
    lines = [
        f"{found.num_samples} samples, {found.num_classes} classes"
        + (f", said to be {nominal}" if nominal is not None else ""),
        f"rate: {100 * found.rate:.2f} % ({flips} of {found.num_samples} labels differ)",
        f"rates by class: {rates_line(found.class_rates)}",
    ]
    if found.concentration is not None and found.commonest is not None:
        lines.append(
            f"concentration: {100 * found.concentration:.1f} % of the wrong labels are their class's commonest; "
            f"{100 * found.commonest[1]:.1f} % of all name class {found.commonest[0]}"
        )
    if found.superclass_share is not None:
        lines.append(
            f"superclasses of CIFAR-100: {100 * found.superclass_share:.1f} % of the wrong labels stay within theirs "
            f"({400 / 99:.1f} % if drawn uniformly)"
        )
    lines += _matrix_lines(found.transition)
    best = found.fits[0]
    lines.append(f"best explanation: {best.spec}")
    for fit in found.fits[1:_PRINTED_FITS]:
        gap = best.evidence - fit.evidence
        lines.append(f"  {fit.spec}: {f'{gap:.1f} nats less likely' if gap > CLOSE else 'cannot be told from it'}")
    if found.instance is not None:
        test = found.instance
        lines.append(
            f"instance dependence: chi-square {test.statistic:.1f} with {test.degrees} degrees of freedom, "
            f"p = {test.p_value:.2g}"
        )
    return lines


def _matrix_lines(transition: np.ndarray) -> list[str]:
    num_classes = len(transition)
    if num_classes <= _PRINTED_CLASSES:
        width = max(6, len(str(transition.max())) + 1)
        head = "true \\ given" + "".join(f"{label:>{width}}" for label in range(num_classes))
        return [
            head,
            *(f"{k:>12}" + "".join(f"{n:>{width}}" for n in row) for k, row in enumerate(transition.tolist())),
        ]
    wrong = transition.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PRINTED_PAIRS]
    pairs = [(int(place) // num_classes, int(place) % num_classes) for place in order]
    named = [f"{a}->{b} {wrong[a, b]}" for a, b in pairs if wrong[a, b]]
    return [f"commonest confusions (true->given count): {', '.join(named) or 'none'}"]
