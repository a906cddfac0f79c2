"""Runs NT-Xent's Triton kernels on CPU tensors: reads cases as JSON from stdin, writes the errors of each as JSON.

A process of its own, started with TRITON_INTERPRET=1, because Triton reads that when it is imported.
"""

import json
import sys
from typing import Any

import torch
from _interpret import save_work
from fastnoise.kernels import contrastive as kernels
from torch import Tensor, nn

from fastnoise.ops import contrastive as ops


def differences(samples: int, width: int, temperature: float) -> dict[str, Any]:
    """Largest errors of losses and gradients against autograd in float64, with a random upstream gradient; gradients
    relative to the norm of their row."""
    random = torch.Generator().manual_seed(samples)
    projections = torch.randn(2 * samples, width, generator=random)
    directions = nn.functional.normalize(projections, dim=1)
    upstream = torch.randn(2 * samples, generator=random)
    exact = directions.double().requires_grad_()
    similarity = exact @ exact.T / temperature
    positive = similarity.diagonal(samples).repeat(2)
    itself = torch.eye(2 * samples, dtype=torch.bool)
    losses = similarity.masked_fill(itself, -torch.inf).logsumexp(1) - positive
    losses.backward(upstream.double())
    given = directions.clone().requires_grad_()
    found = ops.nt_xent_rows(given, temperature)
    found.backward(upstream)
    assert isinstance(given.grad, Tensor)
    assert isinstance(exact.grad, Tensor)
    norm = torch.linalg.vector_norm
    error = norm(given.grad - exact.grad, dim=1) / norm(exact.grad, dim=1)
    return {"loss": float((found.double() - losses).abs().max().detach()), "gradient": float(error.max())}


if __name__ == "__main__":
    save_work()
    ops.FORWARD.register_kernel("cpu", kernels.launch)
    ops.BACKWARD.register_kernel("cpu", kernels.launch_gradient)
    json.dump([differences(*case) for case in json.load(sys.stdin)], sys.stdout)
