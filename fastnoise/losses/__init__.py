"""Losses for training on wrong labels, for any training code: fused on CUDA (Triton), plain PyTorch on the CPU.

    loss = ELRLoss(num_samples=50_000, num_classes=10, strength=3.0, momentum=0.7).to(device)
    loss(logits, labels, index).backward()

`fastnoise.losses.reference` states each of them in a few lines of PyTorch.

Embedding them
--------------

A loss with targets is called with each sample's position in the training set. `fastnoise.data.with_index` adds the
position to any dataset. NAL's loss also takes the network's attention logit. These examples run as they stand, here on
digits with 40 % of the labels wrong::

    import torch
    from sklearn.datasets import load_digits
    from torch.utils.data import DataLoader, TensorDataset

    from fastnoise.data import with_index
    from fastnoise.losses import ELRLoss, NALLoss
    from fastnoise.noise import corrupt

    class Network(torch.nn.Module):  # returns (logits,), or (logits, attention) for NAL
        def __init__(self, *, attention: bool):
            super().__init__()
            self.features = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU())
            self.classifier = torch.nn.Linear(128, 10)
            self.attention = torch.nn.Linear(128, 1) if attention else None

        def forward(self, images):
            features = self.features(images)
            logits = self.classifier(features)
            return (logits, self.attention(features)[:, 0]) if self.attention else (logits,)

    pixels, clean_labels = load_digits(return_X_y=True)
    noisy = corrupt(clean_labels, "symmetric:0.4", seed=0, num_classes=10)
    dataset = TensorDataset(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(noisy.labels))
    loader = DataLoader(with_index(dataset), batch_size=64, shuffle=True)
    elr = Network(attention=False), ELRLoss(len(dataset), 10, strength=3.0, momentum=0.7)
    nal = Network(attention=True), NALLoss(len(dataset), 10, strength=10.0, momentum=0.7)

A bare loop. Move the loss to the model's device, and save it beside the model: its `state_dict` holds the targets::

    for model, loss_function in (elr, nal):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for epoch in range(6):
            total = 0.0
            for images, labels, index in loader:
                logits, *attention = model(images)
                loss = loss_function(logits, labels, index, *attention)  # also updates the targets of these samples
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += loss.detach()  # read once per epoch: nothing in the loop waits for the device
            print(f"{type(loss_function).__name__} epoch {epoch}: mean loss {total / len(loader):.3f}")

Lightning. As a submodule the loss moves with the model, and its targets are part of the checkpoint. Validation samples
have no rows in the table, so validation uses plain cross-entropy. In several processes the targets of the first process
would overwrite those of the others: see `TargetLoss` on shards::

    class Classifier(torch.nn.Module):  # or lightning.LightningModule
        def __init__(self, model, loss_function):
            super().__init__()
            self.model, self.loss_function = model, loss_function

        def training_step(self, batch, batch_idx):
            images, labels, index = batch
            logits, *attention = self.model(images)
            return self.loss_function(logits, labels, index, *attention)

        def validation_step(self, batch, batch_idx):
            images, labels, index = batch
            return torch.nn.functional.cross_entropy(self.model(images)[0], labels)

        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)

A compiled step: network and loss become one graph without breaks, which updates the targets in place. Call it once per
step, since each call updates the targets::

    def compiled_step(model, loss_function):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        @torch.compile(fullgraph=True)
        def loss_of(images, labels, index):
            logits, *attention = model(images)
            return loss_function(logits, labels, index, *attention)

        def step(images, labels, index):
            loss = loss_of(images, labels, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step
"""

from ..ops.checks import debug
from ..ops.linear import fused_linear
from ..ops.registry import backends
from . import families, functional
from .base import TargetLoss
from .contrastive import NTXentLoss, nt_xent
from .families import *  # noqa: F403
from .own_rule import rule
from .tables import merge_shards, table_bytes

__all__ = [
    "NTXentLoss",
    "TargetLoss",
    "backends",
    "debug",
    "functional",
    "fused_linear",
    "merge_shards",
    "nt_xent",
    "rule",
    "table_bytes",
    *(name for name in vars(families) if name[0].isupper()),
]
