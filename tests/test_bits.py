"""Losses and noise called with the options of 0.1.0 give the bits that they gave before variants of the authors' code
stood beside them. The digests in bits.json were made then."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from _loss_cases import batches, build, call, leaf

from fastnoise import noise

BITS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "bits.json").read_text())


def digest(*arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(str((array.shape, array.dtype)).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def bits_of_loss(rule: str) -> str:
    """Two steps of float32: loss, gradients and targets."""
    module = build(rule, 33, 10, "mean")
    found = []
    for data in batches(10, torch.float32, 16, 33, 2):
        logits, attention = leaf(data.logits), leaf(data.attention)
        loss = call(module, rule, logits, attention, data.labels, data.index)
        loss.backward()
        found += [loss.detach(), logits.grad, *([] if attention.grad is None else [attention.grad])]
    return digest(*(tensor.numpy() for tensor in (*found, *module.buffers())))


def bits_of_noise(spec: str) -> str:
    clean = np.arange(2000) % 10
    return digest(noise.corrupt(clean, spec, num_classes=10, seed=3).labels)


@pytest.mark.parametrize("rule", BITS["losses"])
def test_losses_give_the_bits_that_they_gave(rule: str) -> None:
    assert bits_of_loss(rule) == BITS["losses"][rule]


@pytest.mark.parametrize("spec", BITS["noise"])
def test_noise_gives_the_labels_that_it_gave(spec: str) -> None:
    assert bits_of_noise(spec) == BITS["noise"][spec]
