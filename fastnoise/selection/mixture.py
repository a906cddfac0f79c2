"""The probability that each label is right, from a mixture of two Gaussians over the losses (Arazo et al. 2019; Li et
al. 2020)."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

MORE_ITERATIONS = 20
"""Factor by which a fit that hasn't converged may exceed its iterations."""

NO_SPREAD = 1e-6
"""Losses that differ by less than this, relative to the largest, differ only by rounding in single precision."""

APART = 1e-3
"""Components whose means are closer than this, with losses scaled to [0, 1], do not separate any samples."""


@dataclass(frozen=True, eq=False)
class LossMixture:
    """The result of the mixture.

    clean       float64 [N], the posterior probability of the component with the smaller mean; None if the fit collapsed
    trouble     what went wrong, as a text; None if the fit converged. If there is `clean` too, the fit did not
                converge, and `clean` is that of the last iterate, which is at least as likely as every earlier one
    """

    clean: NDArray[np.float64] | None
    trouble: str | None = None


def fit_losses(
    losses: ArrayLike, *, max_iterations: int = 10, tolerance: float = 1e-2, regulariser: float = 5e-4
) -> LossMixture:
    """Fit two Gaussians to losses scaled to [0, 1] by their smallest and largest, as DivideMix does (Sec. 3.1).

    losses          [N], one per sample
    max_iterations, tolerance, regulariser: of expectation maximisation; defaults as in the authors' code. A fit that
                    hasn't converged continues for up to MORE_ITERATIONS times as many iterations.

    Expectation maximisation starts from the split by 2-means. It uses no random numbers, and the result is the same for
    any number of threads. The fit collapses if a loss is NaN or infinite, if all losses are equal, or if the components
    coincide. Raises DataError for losses that are not of shape [N] with N at least 1.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import
    from sklearn.mixture import GaussianMixture

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
    """bool [N]: the cluster of larger values in 2-means, which starts from the split at the mean. `values` span [0,
    1]."""
    upper = values > values.mean()
    for _ in range(100):
        middle = (values[upper].mean() + values[~upper].mean()) / 2
        moved = values > middle
        if (moved == upper).all():
            break
        upper = moved
    return upper
