"""Selects samples by the network's outputs. Tables record the outputs of one evaluation after another.

tables = StageTables(num_stages=3, num_samples=len(dataset)).to(device)
for images, index in loader:
    tables.record(stage, model(images), index)
"""

from .consensus import Consensus, ConsensusOptions, ConsensusSweep, consensus, consensus_sweep
from .neighbours import neighbour_votes
from .tables import StageTables

__all__ = [
    "Consensus",
    "ConsensusOptions",
    "ConsensusSweep",
    "StageTables",
    "consensus",
    "consensus_sweep",
    "neighbour_votes",
]
