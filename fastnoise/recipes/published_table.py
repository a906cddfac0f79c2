"""What a table of published accuracies is."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

Metric = Literal["last", "best", "mean_last_10", "validation"]
"""Which test accuracy of a run it is: at the last epoch (also if the source doesn't say), the best, the mean of the
last ten, or at the epoch with the best accuracy on held-out noisy labels."""


class Table(NamedTuple):
    """Rows of one source that share a network: accuracies `91.16±.08` over `noises`, `-` if there is none."""

    source: str
    metric: Metric
    network: str
    model: str | None
    noises: str
    rows: Mapping[tuple[str, ...], str]
    """(data set, method), or (data set, method, kind) as `published` tells kinds apart -> accuracies."""
    epochs: Mapping[tuple[str, str], int] = {}
    """(data set, method) -> epochs, if they are known."""
    remark: str = ""
    test_set: str = ""
    top: int = 1
    sequential: bool = False
    """Whether asymmetric noise on CIFAR-10 flips labels that were flipped before, as in the loaders of ELR and APL."""

    def noise(self, noise: str, dataset: str) -> str:
        """One of `noises` as the source makes it on a data set."""
        flips_again = self.sequential and dataset == "cifar10" and noise.startswith("asymmetric")
        return f"{noise},sequential=true" if flips_again else noise
