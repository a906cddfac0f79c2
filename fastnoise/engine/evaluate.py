"""Evaluation: what the networks answer for a set of images, of one run or of several that are trained as one.

A pass is an iterator of (outputs, rows), which `Training.answers` makes: `outputs` of R images, float32, and `rows`,
int64 [R], the row of each image in a table that holds one run's images after the other's. A run by itself has its own
images alone, so that a row is a position. What is kept of a pass is the task's to say (`Task.collect`).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ..models import Outputs
from ..tasks import Answers, Evaluation


@torch.no_grad()
def evaluate(answers: Answers, batches: Iterable[tuple[Outputs, Tensor]]) -> Sequence[Evaluation]:
    """Go through a pass; returns what `answers` makes of it for each run."""
    for outputs, rows in batches:
        answers.add(outputs, rows)
    return answers.evaluations()
