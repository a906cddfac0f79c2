"""Losses for training on wrong labels, for any training code: fused on CUDA (Triton), plain PyTorch on the CPU.

    loss = ELRLoss(num_samples=50_000, num_classes=10, strength=3.0, momentum=0.7).to(device)
    loss(logits, labels, index).backward()

`fastnoise.losses.reference` states the same in a few lines each.
"""

from .modules import CrossEntropyLoss, ELRLoss, NALLoss, SWCELoss

__all__ = ["CrossEntropyLoss", "ELRLoss", "NALLoss", "SWCELoss"]
