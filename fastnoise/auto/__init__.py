"""`--method auto`: a short look at the labels, and the method that did best on labels like these.

`probe` trains two networks for a short time and finds how many labels are wrong, and how. `table` holds what methods
reached in our own sweeps, by what the same probe found there. `choose` puts both together.
"""

from typing import TYPE_CHECKING

from .. import lazy
from ..options import AUTO

if TYPE_CHECKING:
    from .choice import Choice, choose
    from .findings import Findings, TooLittle, probe

__getattr__ = lazy.attributes(
    __name__,
    {
        **{"Choice": "choice", "choose": "choice"},
        **{"Findings": "findings", "TooLittle": "findings", "probe": "findings"},
    },
)

__all__ = ["AUTO", "Choice", "Findings", "TooLittle", "choose", "probe"]
