"""fastnoise inspect: what lies between two label files."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro

from ..data import names as data_names
from ..errors import ConfigError, alternatives
from ..helptext import REQUIRED
from ..texts import counted
from .corrupt import rates_line, require_classes
from .datasets import read_dataset, require_dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..data import ImageDataset
    from ..noise.audit import Audit
    from ..noise.files import LabelFile

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

    labels_a: Annotated[str | None, REQUIRED, tyro.conf.Positional, tyro.conf.arg(metavar="LABELS_A")] = None
    """The true labels, as clean.npy. FILE.npy, FILE.npz:ARRAY, FILE.csv:COLUMN, FILE.tsv:COLUMN, FILE.json, FILE.pt or
    FILE.txt. Without LABELS_B these are the given labels. The true ones are then in the same file, or those of
    --dataset."""
    labels_b: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="LABELS_B")] = None
    """The given labels of the same samples. They are found by name or position if both files have those, else by
    row."""
    nominal: str | None = None
    """The noise spec that the labels should follow. None: the spec in an .npz file that fastnoise wrote."""
    num_classes: int | None = None
    """Number of classes. None: that of the data set or the file, else the largest label plus one."""
    dataset: Annotated[
        str | None,
        tyro.conf.arg(
            help="Data set of the labels. Its training images are tested for instance dependence. "
            f"{alternatives(data_names.FORMS)}."
        ),
    ] = None
    data_root: str = "data"
    """Folder that holds the data sets, in torchvision's layout."""
    download: bool = True
    """Download a data set that is not under data-root."""
    skip_unreadable: bool = False
    """Leave out images of folder:PATH or list:FILE that cannot be decoded, and name them. Otherwise refuse them."""


def run(command: InspectCommand) -> int:
    """Print the report; ConfigError and DataError in one line."""
    from ..noise import parse
    from ..noise.audit import audit
    from ..noise.files import read_label_file

    if command.labels_a is None:
        raise ConfigError("give one or two label files, as in fastnoise inspect clean.npy noisy.csv")
    dataset = None
    require_dataset(command, command.dataset)
    if command.dataset is not None:
        dataset = read_dataset(command.dataset, command)
        require_classes(dataset)
    second = read_label_file(command.labels_a if command.labels_b is None else command.labels_b)
    first = None if command.labels_b is None else read_label_file(command.labels_a)
    pairs = _paired(second, first, dataset)
    if pairs is None:
        raise ConfigError(f"{command.labels_a} holds no true labels; give a second file, or --dataset NAME")
    nominal = command.nominal
    if nominal is not None:
        nominal = str(parse(nominal))
    elif second.noisy is not None and second.noisy.parsed_spec() is not None:
        nominal = second.noisy.spec
    num_classes = command.num_classes
    if num_classes is None and pairs.class_names is not None:
        num_classes = len(pairs.class_names)
    if num_classes is None and second.noisy is not None:
        num_classes = second.noisy.num_classes
    if num_classes is None:
        num_classes = max(2, int(max(pairs.clean.max(initial=0), pairs.given.max(initial=0))) + 1)
    inputs = None if dataset is None else dataset.train.images
    if inputs is not None and pairs.positions is not None and len(pairs.positions) < len(inputs):
        inputs = inputs[pairs.positions]
    found = audit(
        pairs.clean,
        pairs.given,
        num_classes=num_classes,
        dataset=None if dataset is None else dataset.name,
        inputs=inputs,
        nominal=nominal,
    )
    print(f"compared {pairs.how}")
    for line in _report(found, nominal, pairs.class_names):
        print(line)
    if dataset is None:
        print("instance dependence: not tested; give --dataset NAME for the images")
    elif inputs is None:
        print(f"instance dependence: not tested, the images of {dataset.name} are not in memory")
    for warning in found.warnings:
        print(f"warning: {warning}")
    return 0


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Labels of the same samples.

    clean, given  int64 [n], classes
    class_names   in the order of their numbers, if they have names
    positions     int64 [n], of the samples in the data set's training set; None without a data set
    how           the words that say how the labels were found
    """

    clean: "NDArray[np.int64]"
    given: "NDArray[np.int64]"
    class_names: tuple[str, ...] | None
    positions: "NDArray[np.int64] | None"
    how: str


def _paired(second: "LabelFile", first: "LabelFile | None", dataset: "ImageDataset | None") -> _Pairs | None:
    """The given labels of `second` with the true ones of `first`, of the same file or of the data set; None if none of
    them has any. Samples of which a label is not known, or that the data set has not, are left out."""
    from ..noise.samples import aligned, known_classes, match, names_in, with_clean

    files = [file for file in (first, second) if file is not None]
    names = names_in(*files) if dataset is None else dataset.class_names
    given, names = known_classes(second, names)
    rows, how, positions = np.arange(len(given)), "by row", None
    if dataset is not None:
        found = match(second, dataset, len(dataset.train), part=True)
        positions, how = np.flatnonzero(found.rows >= 0), found.how
        rows = found.rows[positions]
    if first is not None:
        mine, theirs, how = aligned(first, second)
        clean = np.full(len(given), -1)
        clean[theirs] = known_classes(first, names)[0][mine]
        clean = clean[rows]
    elif second.clean is not None:
        clean = known_classes(with_clean(second), names)[0][rows]
    elif dataset is not None:
        clean = (dataset.train.labels if dataset.clean_labels is None else dataset.clean_labels)[positions]
    else:
        return None
    given = given[rows]
    known = (clean >= 0) & (given >= 0)
    if not known.all():
        how += f"; {(~known).sum()} of {len(known)} samples, whose labels are not all known, are left out"
    return _Pairs(clean[known], given[known], names, None if positions is None else positions[known], how)


def _report(found: "Audit", nominal: str | None, names: tuple[str, ...] | None) -> list[str]:
    from ..noise.audit import CLOSE

    flips = int(found.transition.sum() - found.transition.trace())
    lines = [
        f"{counted(found.num_samples, 'sample')}, {found.num_classes} classes"
        + (f", said to be {nominal}" if nominal is not None else ""),
        f"rate: {100 * found.rate:.2f} % ({flips} of {found.num_samples} labels differ)",
        f"rates by class: {rates_line(found.class_rates)}",
    ]
    if found.concentration is not None and found.commonest is not None:
        lines.append(
            f"concentration: {100 * found.concentration:.1f} % of the wrong labels are their class's commonest; "
            f"{100 * found.commonest[1]:.1f} % of all name class {_named(found.commonest[0], names)}"
        )
    if found.superclass_share is not None:
        lines.append(
            f"superclasses of CIFAR-100: {100 * found.superclass_share:.1f} % of the wrong labels stay within theirs "
            f"({400 / 99:.1f} % if drawn uniformly)"
        )
    lines += _matrix_lines(found.transition, names)
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


def _named(label: int, names: tuple[str, ...] | None) -> str:
    return str(label) if names is None else names[label]


def _matrix_lines(transition: np.ndarray, names: tuple[str, ...] | None) -> list[str]:
    num_classes = len(transition)
    if num_classes <= _PRINTED_CLASSES:
        words = [_named(label, names) for label in range(num_classes)]
        longest = max(map(len, words))
        width, margin = max(6, len(str(transition.max())) + 1, longest + 1), max(12, longest)
        head = "true \\ given".rjust(margin) + "".join(f"{word:>{width}}" for word in words)
        rows = zip(words, transition.tolist(), strict=True)
        return [head, *(f"{word:>{margin}}" + "".join(f"{n:>{width}}" for n in row) for word, row in rows)]
    wrong = transition.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_PRINTED_PAIRS]
    pairs = [(int(place) // num_classes, int(place) % num_classes) for place in order]
    named = [f"{_named(a, names)}->{_named(b, names)} {wrong[a, b]}" for a, b in pairs if wrong[a, b]]
    return [f"commonest confusions (true->given count): {', '.join(named) or 'none'}"]
