"""Deviations of the methods that take some samples as labelled and others as unlabelled, for `deviations`."""

from .deviation import CIFAR, Deviation

SEMI = (
    # -- AugDesc
    Deviation(
        "augdesc-pair",
        ("augdesc",),
        CIFAR,
        "The second equalize of the 17th pair of the authors' AutoAugment has probability .6; fastnoise's .8, as in "
        "SSR's code.",
        "one table for each policy.",
        size="1 of 25 pairs",
    ),
    Deviation(
        "augdesc-guesses",
        ("augdesc", "dividemix", "c2d", "swce_dividemix"),
        (),
        "The other network guesses in evaluation mode there, and every part of a batch is sent by itself; here both "
        "guess in training mode, for all parts at once.",
        "a step is one graph, and batch norm sees the whole batch.",
        uncounted="running and batch statistics differ after trainings alone.",
    ),
)
