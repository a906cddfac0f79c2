"""`fused_linear`: product, loss and update of targets block by block equal the loss of whole logits."""

import subprocess
import sys
import textwrap

import pytest
import torch
from _loss_cases import CASES, RULES, STATEFUL, build, call
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastnoise import losses
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import fused_linear

B, D, C, N = 11, 6, 5, 23


def batch(dtype: torch.dtype = torch.float32, seed: int = 0, num_rows: int = B, num_classes: int = C, dim: int = D):
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(num_rows, dim, generator=random).to(dtype).requires_grad_()
    classifier = nn.Linear(dim, num_classes)
    with torch.no_grad():
        classifier.weight.copy_(torch.randn(num_classes, dim, generator=random))
        classifier.bias.copy_(torch.randn(num_classes, generator=random))
    attention = torch.randn(num_rows, generator=random).to(dtype).requires_grad_()
    labels = torch.randint(num_classes, (num_rows,), generator=random)
    index = torch.randperm(2 * num_rows + 1, generator=random)[:num_rows]
    return features, classifier.to(dtype), attention, labels, index


def gradients(rule: str, loss: nn.Module, data, block_rows: int | None, **keywords):
    """Loss and gradients by features, weight, bias and attention; block_rows None: of whole logits."""
    features, classifier, attention, labels, index = data
    logits = (
        classifier(features)
        if block_rows is None
        else fused_linear(features, classifier.weight, classifier.bias, block_rows=block_rows)
    )
    value = call(loss, rule, logits, attention, labels, index, **keywords)
    inputs = [features, classifier.weight, classifier.bias]
    inputs += [attention] if CASES[rule][0] == "nal" else []
    return value.detach(), *torch.autograd.grad(3 * value, inputs)


# Losses whose call reads the logits before their op: ELR+ updates targets by the other network's, flipped.
WHOLE = ("ce-soft", "elr_plus", "elr_plus-weighted")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule not in WHOLE])
def test_equals_the_loss_of_whole_logits(rule: str, reduction: str) -> None:
    ours, theirs = (build(rule, N, C, reduction, ignore_index=2) for _ in range(2))
    for step, block_rows in enumerate((1, 4, 11, 100)):
        data = batch(seed=step)
        expected, found = gradients(rule, theirs, data, None), gradients(rule, ours, data, block_rows)
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5), (rule, step)
            assert a.dtype == b.dtype
        if rule in STATEFUL:
            assert torch.allclose(ours.targets, theirs.targets, atol=1e-6)
            assert ours.targets.any()


@pytest.mark.parametrize("target", ["labels", "weighted"])
def test_pairs_and_soft_labels_are_cut_with_the_rows(target: str) -> None:
    features, classifier, _, labels, index = batch()
    whole, lazy = classifier(features), fused_linear(features, classifier.weight, classifier.bias, block_rows=4)
    loss = losses.ELRPlusLoss(N, C, strength=3.0, momentum=0.5, target=target)
    loss.update_targets(whole.detach(), index)
    pairs = labels.flip(0), index.flip(0), torch.linspace(0, 1, B)
    assert torch.allclose(loss(lazy, labels, index, *pairs), loss(whole, labels, index, *pairs), atol=1e-6)
    soft = torch.rand(B, C).softmax(1)
    soft_loss = losses.CrossEntropyLoss()
    assert torch.allclose(soft_loss(lazy, soft), soft_loss(whole, soft), atol=1e-6)


def test_a_table_on_the_host_is_taken_too() -> None:
    ours, theirs = (build("elr", N, C, "mean", target_place=place) for place in ("host", "device"))
    expected, found = gradients("elr", theirs, batch(), 4), gradients("elr", ours, batch(), 4)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(ours.targets, theirs.targets)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rule", ["ce", "elr", "nal"])
def test_half_precision_and_tables(rule: str, dtype: torch.dtype) -> None:
    """Logits in half precision, tables in bfloat16: the same stochastic bits, so that the targets are equal."""
    table = {"target_dtype": torch.bfloat16} if rule in STATEFUL else {}
    ours, theirs = (build(rule, N, C, "mean", **table) for _ in range(2))
    data = batch(dtype)
    expected, found = gradients(rule, theirs, data, None), gradients(rule, ours, data, 4)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a.float(), b.float(), rtol=0.03, atol=0.03)
        assert a.dtype == b.dtype
    if table:
        assert torch.equal(ours.targets, theirs.targets)
        assert torch.equal(ours.visits, theirs.visits)


def test_autocast_takes_the_product_in_its_dtype() -> None:
    features, classifier, _, labels, _ = batch()
    loss = losses.GCELoss()
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(fused_linear(features, classifier.weight, classifier.bias, block_rows=3), labels)
        expected = loss(classifier(features), labels)
    assert torch.allclose(found, expected, atol=1e-6)
    found.backward()
    assert classifier.weight.grad is not None
    assert classifier.weight.grad.dtype == torch.float32


def test_without_bias_and_without_rows() -> None:
    features, classifier, _, labels, _ = batch()
    loss = losses.CrossEntropyLoss()
    assert torch.allclose(
        loss(fused_linear(features, classifier.weight), labels), loss(features @ classifier.weight.t(), labels)
    )
    assert loss(fused_linear(features[:0], classifier.weight), labels[:0]).isnan()
    summed = losses.CrossEntropyLoss(reduction="sum")(fused_linear(features[:0], classifier.weight), labels[:0])
    assert summed == 0


@pytest.mark.parametrize("rule", ["elr", "nal"])
def test_compiles_in_one_graph(rule: str) -> None:
    ours, theirs = build(rule, N, C, "mean"), build(rule, N, C, "mean")
    data = batch()
    features, classifier, attention, labels, index = data

    @torch.compile(fullgraph=True)
    def compiled(features, attention, labels, index):
        return call(
            ours,
            rule,
            fused_linear(features, classifier.weight, classifier.bias, block_rows=4),
            attention,
            labels,
            index,
        )

    for _ in range(2):
        expected = gradients(rule, theirs, data, 4)
        value = compiled(features, attention, labels, index)
        inputs = [features, classifier.weight, classifier.bias, *([attention] if rule == "nal" else [])]
        found = (value.detach(), *torch.autograd.grad(3 * value, inputs))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
        assert torch.allclose(ours.targets, theirs.targets, atol=1e-6)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any op has returned."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [
            x.untyped_storage().nbytes() // x.element_size() for x in tree_leaves(result) if isinstance(x, torch.Tensor)
        ]
        self.size = max(self.size, *sizes, 0)
        return result


def test_no_tensor_is_as_large_as_the_logits() -> None:
    num_rows, num_classes, dim = 64, 50, 4
    features, classifier, _, labels, index = batch(num_rows=num_rows, num_classes=num_classes, dim=dim)
    loss = losses.ELRLoss(2 * num_rows + 1, num_classes, strength=1.0, momentum=0.5)
    with Largest() as seen:
        loss(fused_linear(features, classifier.weight, classifier.bias, block_rows=8), labels, index).backward()
    assert seen.size < num_rows * num_classes
    with Largest() as seen:
        loss(classifier(features), labels, index).backward()
    assert seen.size >= num_rows * num_classes


@pytest.mark.slow
def test_memory_of_21841_classes() -> None:
    """(8192, 21841) with 512 features in float32: logits and their gradient take 1.43 GB, which are not there."""
    script = textwrap.dedent("""
        import resource, sys, torch
        from fastnoise.losses import ELRLoss, fused_linear
        features = torch.randn(8192, 512).requires_grad_()
        classifier = torch.nn.Linear(512, 21841)
        loss = ELRLoss(8192, 21841, strength=1.0, momentum=0.5)
        labels, index = torch.randint(21841, (8192,)), torch.randperm(8192)
        logits = fused_linear(features, classifier.weight, classifier.bias) if sys.argv[1] == "fused" else None
        torch.mm(features.detach()[:8], classifier.weight.detach().t())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        loss(classifier(features) if logits is None else logits, labels, index).backward()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)

    def peak(side: str) -> int:
        """Bytes above those before the step."""
        found = subprocess.run([sys.executable, "-c", script, side], capture_output=True, text=True, check=True)
        return 1024 * int(found.stdout)

    logits = 4 * 8192 * 21841
    fused, whole = peak("fused"), peak("whole")
    assert whole > 1.9 * logits
    assert fused < 0.5 * logits


def test_what_is_refused() -> None:
    features, classifier, _, labels, index = batch()
    lazy = fused_linear(features, classifier.weight, classifier.bias, block_rows=4)
    with pytest.raises(ConfigError, match="mean"):
        losses.CrossEntropyLoss(reduction="none")(lazy, labels)
    with pytest.raises(ConfigError, match="drop weight"):
        losses.CrossEntropyLoss()(lazy, labels, weight=torch.ones(B))
    with pytest.raises(ConfigError, match="argmax=True"):
        lazy.argmax(1)
    asked = fused_linear(features, classifier.weight, classifier.bias, block_rows=4, argmax=True)
    with pytest.raises(ConfigError, match="then the loss, then it"):
        asked.argmax(1)
    with pytest.raises(ConfigError, match="argmax over dimension 0"):
        asked.argmax(0)
    losses.CrossEntropyLoss()(asked, labels)
    assert torch.equal(asked.detach().argmax(1), classifier(features).argmax(1))
    with pytest.raises(ConfigError, match="block_rows is 0"):
        fused_linear(features, classifier.weight, block_rows=0)
    with pytest.raises(DataError, match="columns as features"):
        fused_linear(features, classifier.weight.t())
    with pytest.raises(DataError, match="one per row of weight"):
        fused_linear(features, classifier.weight, torch.zeros(C + 1))
    with pytest.raises(DataError, match="features is float64"):
        fused_linear(features.double(), classifier.weight)
    loss = losses.ELRLoss(N, C, strength=1.0, momentum=0.5)
    labels[-1] = C
    with pytest.raises(DataError, match=f"label {C} is outside"):
        loss(lazy, labels, index)
    assert not loss.targets.any(), "the first block must not have updated its targets"
    labels[-1], index[-1] = 0, index[0]
    with losses.debug(), pytest.raises(DataError, match="occurs twice"):
        loss(lazy, labels, index)
    assert not loss.targets.any()
