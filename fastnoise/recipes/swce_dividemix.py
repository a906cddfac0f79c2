"""Recipes of the SWCE pipeline with DivideMix on its consensus."""

import dataclasses

from ..config import RunConfig
from ..data.names import family
from ..methods.options import SWCEDivideMixOptions
from .dividemix import dividemix
from .real import MEDICAL, settled


def swce_dividemix(dataset: str, noise: str, rate: float | None = None) -> RunConfig:
    """The SWCE pipeline, then DivideMix on its consensus (Gupta, "Improving Training For Noisy Labels").

    The pipeline's epochs and stages are the published ones, with a threshold of 1, and of 0.25 on the medical sets
    (chest_xray, chaoyang). DivideMix has the settings of `dividemix`, whose optimiser trains the pipeline too, and its
    learning rate is the pipeline's. The paper's own optimiser for the pipeline is Adam, which `swce` has. On mnist
    DivideMix learns at 0.01: at the pipeline's 0.05 its first steps break LeNet-5, which has no batch norm and comes
    from the pipeline with large weights (seed 3, 45 % pair noise: 66 % right before them, 17 % after an epoch).
    """
    config = settled(dividemix(dataset, noise, rate))
    shared = {name: getattr(config.method, name) for name in config.method.names()}
    threshold = 0.25 if family(dataset) in MEDICAL else 1.0
    options = SWCEDivideMixOptions(
        **shared | {"pipeline_rate": config.optim.learning_rate, "selection_threshold": threshold}
    )
    config = dataclasses.replace(config, method=options)
    if dataset == "mnist":
        config = config.replace({"learning_rate": 0.01})
    return config.replace({"epochs": config.optim.epochs + 30, "epoch_batches": None, "balance": "none"})
