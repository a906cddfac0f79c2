"""How likely each label is right, from the losses: a mixture of two Gaussians (Arazo et al. 2019; Li et al. 2020)."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ..errors import DataError

MORE_ITERATIONS = 20
"""By this factor a fit that hasn't converged goes on."""

NO_SPREAD = 1e-6
"""Losses that differ by less, relative to the largest, differ by rounding in single precision alone."""

APART = 1e-3
"""Components whose means lie closer, on the scale on which losses span [0, 1], tell no samples apart."""


@dataclass(frozen=True, eq=False)
class LossMixture:
    """What the mixture says of each sample.

    clean       float64 [N], the posterior probability of the component with the smaller mean; None for a collapse
    trouble     what went wrong, for people; None if the fit converged. With `clean`: it did not converge, and the
                last iterate is given, which is at least as likely as every one before it
    """

    clean: NDArray[np.float64] | None
    trouble: str | None = None


def fit_losses(
    losses: ArrayLike, *, max_iterations: int = 10, tolerance: float = 1e-2, regulariser: float = 5e-4
) -> LossMixture:
    """Fit two Gaussians to losses scaled to [0, 1] by their smallest and largest, as DivideMix does (Sec. 3.1).

    losses          [N], one per sample
    max_iterations, tolerance, regulariser: of expectation maximisation; defaults as in the authors' code. A fit that
                    hasn't converged goes on up to MORE_ITERATIONS times as long.

    Expectation maximisation starts from the split by 2-means, found without random numbers and with the same result
    for any number of threads. The fit collapses where a loss is no finite number, where all are equal, or where the
    components coincide. Raises DataError for losses that are not of shape [N] with N at least 1.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"losses are {list(values.shape)}: expected one per sample, [N]")
    if not np.isfinite(values).all():
        return LossMixture(None, f"{int((~np.isfinite(values)).sum())} losses are no finite numbers")
    low, high = values.min(), values.max()
    if not high - low > NO_SPREAD * max(abs(low), abs(high)):
        return LossMixture(None, "all losses are equal")
    values = (values - low) / (high - low)
    upper = _upper_half(values)
    parts = [values[~upper], values[upper]]
    mixture = GaussianMixture(
        2,
        max_iter=max_iterations,
        tol=tolerance,
        reg_covar=regulariser,
        weights_init=np.array([len(part) / len(values) for part in parts]),
        means_init=np.array([[part.mean()] for part in parts]),
        precisions_init=np.array([[[1 / (part.var() + regulariser)]] for part in parts]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(values[:, None])
        if not mixture.converged_:
            mixture.set_params(max_iter=MORE_ITERATIONS * max_iterations).fit(values[:, None])
    means = mixture.means_[:, 0]
    if not abs(means[0] - means[1]) > APART:
        return LossMixture(None, "the two components of the mixture of losses coincide")
    clean = mixture.predict_proba(values[:, None])[:, means.argmin()]
    trouble = None
    if not mixture.converged_:
        trouble = f"the mixture of losses has not converged after {mixture.n_iter_} iterations"
    return LossMixture(clean, trouble)


def _upper_half(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """bool [N]: the cluster of larger values that 2-means ends with, begun at the mean. `values` span [0, 1]."""
    upper = values > values.mean()
    for _ in range(100):
        middle = (values[upper].mean() + values[~upper].mean()) / 2
        moved = values > middle
        if (moved == upper).all():
            break
        upper = moved
    return upper
