"""What a loss's class tells and takes besides its formula: repr, errors, recipes, soft labels, class weights."""

import inspect
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from _loss_cases import CASES, STATEFUL, batches, build, call, leaf, soft_labels_of, transition_of
from torch import Tensor

from fastnoise import losses, recipes
from fastnoise.errors import ConfigError, DataError
from fastnoise.losses import functional
from fastnoise.losses.naming import keyword_names
from fastnoise.recipes.of_losses import CLASSES, OF_METHOD

CLASS_NAMES = sorted(
    name for name in losses.__all__ if name.endswith("Loss") and name not in ("NTXentLoss", "TargetLoss")
)
RATES = {
    "ELRLoss": {"momentum": 0.7, "strength": 3.0},
    "ELRPlusLoss": {"momentum": 0.7, "strength": 3.0},
    "NALLoss": {"momentum": 0.7, "strength": 3.0},
    "SELCLoss": {"momentum": 0.7},
    "SOPLoss": {"rate_u": 10.0, "rate_v": 1.0},
}
TABLES = tuple(RATES)
HARD_ONLY = ("elr_plus", "elr_plus-weighted")
PLAIN = [case for case in CASES if case not in STATEFUL]
FIRST_TARGET = [case for case, (op, *_) in CASES.items() if op in ("selc", "nal")]
"""Cases whose first target is the label."""
LINEAR = [case for case in PLAIN if not case.startswith(("ce-soft", "sce", "mae", "apl", "bootstrap"))]
"""Cases whose loss is a sum over the classes of the label's share times the loss of that class."""


def instance(name: str, **options: Any) -> torch.nn.Module:
    kind = getattr(losses, name)
    if name in TABLES:
        return kind(20, 10, **RATES[name], **options)
    if name == "ForwardLoss":
        return kind(transition_of(10), **options)
    return kind(**({"alpha": 0.1, "beta": 1.0} if name == "SCELoss" else {}), **options)


# -- repr ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_repr_shows_every_option(name: str) -> None:
    """And it makes the same loss again, but for tensors."""
    loss = instance(name, ignore_index=3, reduction="sum", class_weight=torch.ones(10))
    text = repr(loss)
    assert text.startswith(f"{name}(")
    for option in keyword_names(vars(next(k for k in type(loss).__mro__ if "__init__" in vars(k)))["__init__"]):
        assert re.search(rf"[( ]{option}=", text), (option, text)
    shown = re.sub(r", class_weight=float32 \[10\]", "", text).replace("transition=float32 [10, 10]", "T")
    copied = eval(shown, {"torch": torch, "T": transition_of(10), name: getattr(losses, name)})
    without = re.sub(r"class_weight=float32 \[10\]", "class_weight=None", text)
    assert repr(copied) == without


def test_repr_of_a_table_says_how_it_is_kept_and_what_holds_now() -> None:
    loss = losses.ELRLoss(
        10, 4, strength=3.0, momentum=0.7, target_dtype=torch.bfloat16, target_place="host", shard=(1, 2), seed=5,
        class_weight=torch.tensor([1.0, 2.0, 0.5, 1.0]),
    )  # fmt: skip
    loss.set_strength(1.5)
    assert repr(loss) == (
        "ELRLoss(num_samples=10, num_classes=4, strength=1.5, momentum=0.7, reduction='mean', ignore_index=None, "
        "class_weight=[1.0, 2.0, 0.5, 1.0], target_dtype=torch.bfloat16, target_place='host', shard=(1, 2), seed=5)"
    )
    assert "strength=nan" in repr(loss.to("meta"))


# -- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_errors_begin_with_the_class_that_was_called(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: unknown reduction 'avg'"):
        instance(name, reduction="avg")
    with pytest.raises(TypeError, match=f"^{name} has no option 'reductoin'; did you mean 'reduction'"):
        instance(name, reductoin="sum")
    labels = torch.zeros(4, dtype=torch.int64)
    more = [labels] if name in TABLES else []
    if name == "NALLoss":
        more = [labels, torch.zeros(4)]
    if name == "ELRPlusLoss":
        more = [labels, labels, labels, torch.ones(4)]
    loss = instance(name)
    with pytest.raises(DataError, match=rf"^{name}: logits is float64 \[4, 10\]; expected"):
        loss(torch.zeros(4, 10, dtype=torch.float64), labels, *more)
    with pytest.raises(DataError, match=rf"^{name}: label 10 is outside 0\.\.9"):
        loss(torch.zeros(4, 10), labels + 10, *more)
    with pytest.raises(DataError, match=f"^{name}: logits is list; expected"):
        loss([0.0, 1.0], labels, *more)


def test_options_out_of_range_name_the_class_of_a_user_too() -> None:
    class Mine(losses.GCELoss):
        def __init__(self, sharpness: float, **options: Any):
            super().__init__(q=sharpness, **options)

    with pytest.raises(ConfigError, match=r"^Mine: q is 2: it must lie in \(0, 1\]"):
        Mine(2)
    assert repr(Mine(0.5, reduction="sum")).startswith("Mine(q=0.5, k=0.0, reduction='sum'")
    loss = losses.ELRLoss(4, 3, strength=1.0, momentum=0.5)
    with pytest.raises(ConfigError, match=r"^ELRLoss: strength is -1\.0"):
        loss.set_strength(-1.0)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_signatures_are_not_hidden(name: str) -> None:
    assert "arguments" not in inspect.signature(getattr(losses, name)).parameters


# -- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_METHOD)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "mnist", "clothing1m"])
def test_recipe_has_the_options_of_the_method(name: str, dataset: str) -> None:
    needed: dict[str, Any] = {"num_samples": 50} if name in TABLES else {}
    needed |= {"transition": transition_of(CLASSES[dataset])} if name == "ForwardLoss" else {}
    loss = getattr(losses, name).recipe(dataset, **needed)
    method, arguments = OF_METHOD[name]
    options = recipes.recipe(method, dataset).method
    for argument, option in arguments.items():
        value = getattr(options, option)
        if value != "auto":
            assert f"{argument}={value!r}" in repr(loss)
    assert name not in TABLES or loss.targets.shape == (50, CLASSES[dataset])


def test_recipes_are_the_published_numbers() -> None:
    elr = losses.ELRLoss.recipe("cifar10", num_samples=50_000)
    assert elr.targets.shape == (50_000, 10)
    assert elr.knobs.tolist() == pytest.approx([1, 0.7, 3])
    asymmetric = losses.ELRLoss.recipe("cifar10", "asymmetric:0.4", num_samples=9, reduction="none")
    assert asymmetric.knobs.tolist() == pytest.approx([1, 0.9, 1])
    assert asymmetric.reduction == "none"
    assert losses.ELRLoss.recipe("cifar100", num_samples=9, strength=2.0).knobs.tolist() == pytest.approx([1, 0.9, 2])
    assert "alpha=6.0, beta=0.1, variant='paper'" in repr(losses.SCELoss.recipe("cifar100", variant="paper"))
    assert "beta=0.95" in repr(losses.BootstrapLoss.recipe("cifar10"))
    assert "strength=50.0" in repr(losses.NALLoss.recipe("clothing1m", num_samples=9))

    class Mine(losses.GCELoss):
        pass

    assert "Mine(q=0.7" in repr(Mine.recipe("mnist"))


@pytest.mark.parametrize(
    ("call_it", "message"),
    [
        (
            lambda: losses.GCELoss.recipe("cifar"),
            r"^GCELoss.recipe: unknown data set 'cifar'; did you mean 'cifar10\w*'\? valid: animal10n, .*, webvision$",
        ),
        (lambda: losses.NCELoss.recipe("cifar10"), "^NCELoss.recipe: no method trains with this loss alone; .*APLLoss"),
        (lambda: losses.GCELoss.recipe("cifar10", "symetric:0.4"), "^GCELoss.recipe: .*symetric"),
        (lambda: losses.GCELoss.recipe("cifar10", variant="code"), "^GCELoss.recipe: .*variant"),
        (lambda: losses.SCELoss.recipe("cifar10", variant="cod"), "^SCELoss.recipe: variant is 'cod'"),
    ],
)
def test_refused_recipes(call_it: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        call_it()
    assert "\n" not in str(error.value)


def test_every_class_has_a_recipe_or_is_part_of_one_that_has() -> None:
    assert {*OF_METHOD, "JSLoss", "NCELoss", "NFLLoss"} == set(CLASS_NAMES)


# -- soft labels ---------------------------------------------------------------------------------------------------


def gradient_of(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), leaves)


@pytest.mark.parametrize("rule", [rule for rule in PLAIN if rule != "ce-soft"])
def test_one_hot_soft_labels_are_hard_labels(rule: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    loss_of, logits = build(rule, 20, 10), leaf(data.logits)
    hard, soft = loss_of(logits, data.labels), loss_of(logits, F.one_hot(data.labels, 10).float())
    torch.testing.assert_close(soft, hard, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(gradient_of(soft, logits), gradient_of(hard, logits), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("rule", LINEAR)
def test_soft_labels_share_the_loss_among_the_classes(rule: str) -> None:
    data = batches(5, torch.float32, 8, 20, 1)[0]
    soft = torch.rand(8, 5).softmax(1)
    loss_of, logits = build(rule, 20, 5), leaf(data.logits)
    each = torch.stack([loss_of(logits, torch.full((8,), k)) for k in range(5)], 1)
    expected, found = (soft * each).sum(1), loss_of(logits, soft)
    if rule == "ce-smooth":  # torch: the labels are smoothed, once
        expected = F.cross_entropy(logits, soft, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(gradient_of(found, logits), gradient_of(expected, logits), rtol=2e-4, atol=2e-6)


def test_soft_labels_in_the_losses_that_are_no_such_sum() -> None:
    """The formulas of the docstrings, in float64."""
    data = batches(5, torch.float32, 8, 20, 1)[0]
    soft, probs = torch.rand(8, 5).softmax(1), data.logits.double().softmax(1)
    q = soft.double()
    reverse = -(probs * q.clamp(min=1e-4).log()).sum(1)
    ce = -(q * probs.log()).sum(1)
    nce = ce / -probs.log().sum(1)
    top = F.one_hot(data.logits.argmax(1), 5)
    expected = {
        losses.SCELoss(alpha=0.1, beta=2.0, reduction="none"): 0.1 * ce + 2 * reverse,
        losses.MAELoss(reduction="none"): (probs - q).abs().sum(1),
        losses.MAELoss(form="reduced", reduction="none"): (probs - q).abs().sum(1) / 2,
        losses.APLLoss(alpha=10.0, reduction="none"): 10 * nce + (probs - q).abs().sum(1) / 2,
        losses.APLLoss(active="ce", passive="rce", beta=0.5, reduction="none"): ce + 0.5 * reverse,
        losses.BootstrapLoss(reduction="none"): -((0.95 * q + 0.05 * probs) * probs.log()).sum(1),
        losses.BootstrapLoss(kind="hard", reduction="none"): -((0.8 * q + 0.2 * top) * probs.log()).sum(1),
    }
    for loss_of, values in expected.items():
        torch.testing.assert_close(loss_of(data.logits, soft).double(), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", [rule for rule in PLAIN if not rule.startswith(("nce", "nfl", "apl"))])
def test_masked_classes_with_a_soft_label_of_zero(rule: str) -> None:
    """A normalised loss sums over all classes, and is none with a masked one."""
    logits = leaf(torch.tensor([[0.5, -torch.inf, 1.0, -1.0]]))
    soft = torch.tensor([[0.3, 0.0, 0.7, 0.0]])
    if rule.startswith("forward"):
        loss_of = losses.ForwardLoss(torch.eye(4), variant=CASES[rule][3].get("variant", "paper"))
    else:
        loss_of = build(rule, 20, 4)
    if rule == "ce-smooth":
        return  # smoothing gives the masked class a share, and the loss is infinite, as for hard labels
    loss = loss_of(logits, soft)
    assert loss.isfinite().all()
    assert gradient_of(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize("rule", ["gce", "ce", "bootstrap", "forward"])
def test_functions_take_soft_labels_too(rule: str) -> None:
    data = batches(10, torch.bfloat16, 8, 20, 1)[0]
    soft, weight = soft_labels_of(data.labels, 10), torch.rand(8)
    more = [transition_of(10)] if rule == "forward" else []
    function = functional.cross_entropy if rule == "ce" else getattr(functional, rule)
    options = {"gce": {"q": 0.7}}.get(rule, {})
    found = function(data.logits, soft, *more, **options, weight=weight, reduction="sum")
    expected = build(rule, 20, 10, "sum")(data.logits, soft, weight=weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = function(data.logits, soft, *more, **options, weight=weight, reduction="sum")
    torch.testing.assert_close(inside, expected, rtol=0, atol=0)


def test_elr_with_soft_labels() -> None:
    """The cross-entropy takes them; regulariser, targets and their updates are those of hard labels."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    soft, logits, weight = torch.rand(8, 10).softmax(1), leaf(data.logits), torch.rand(8)
    hard_loss, soft_loss = build("elr", 20, 10), build("elr", 20, 10)
    for _ in range(2):
        hard = hard_loss(logits, data.labels, data.index)
        found = soft_loss(logits, soft, data.index, weight=weight)
    change = F.cross_entropy(logits, soft, reduction="none") - F.cross_entropy(logits, data.labels, reduction="none")
    torch.testing.assert_close(found, (hard + change) * weight)
    torch.testing.assert_close(gradient_of(found, logits), gradient_of((hard + change) * weight, logits))
    assert torch.equal(soft_loss.targets, hard_loss.targets)
    of_hard, of_soft = build("elr", 20, 10, "mean"), build("elr", 20, 10, "mean")
    one_hot = F.one_hot(data.labels, 10).half()
    torch.testing.assert_close(of_soft(logits, one_hot, data.index), of_hard(logits, data.labels, data.index))


@pytest.mark.parametrize("storage", [{}, {"shard": (1, 2)}, {"target_dtype": torch.bfloat16}], ids=str)
@pytest.mark.parametrize("rule", FIRST_TARGET)
def test_a_soft_label_is_the_first_target(rule: str, storage: dict[str, Any]) -> None:
    """One-hot rows are hard labels to the bit; others begin the moving average, and nothing stays without an update."""
    data = batches(10, torch.float32, 8, 20, 3)
    hard_loss, soft_loss = build(rule, 40, 10, **storage), build(rule, 40, 10, **storage)
    for step, batch in enumerate(data):
        index = batch.index * 2 + 1 if "shard" in storage else batch.index
        for loss in (hard_loss, soft_loss):
            loss.set_update(step > 0)
        given = F.one_hot(batch.labels, 10).float()
        hard = call(hard_loss, rule, batch.logits, batch.attention, batch.labels, index)
        soft = call(soft_loss, rule, batch.logits, batch.attention, given, index)
        assert torch.equal(hard, soft)
        assert torch.equal(hard_loss.targets, soft_loss.targets)
        assert step or not soft_loss.targets.any()


def test_selc_with_soft_labels_is_its_formula() -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    soft, logits = torch.rand(8, 10).softmax(1), leaf(data.logits)
    loss_of = build("selc", 20, 10)
    evaluated = loss_of(logits, soft, data.index, update=False)
    torch.testing.assert_close(evaluated, F.cross_entropy(logits, soft, reduction="none"))
    assert not loss_of.targets.any()
    found = loss_of(logits, soft, data.index)
    mixed = 0.75 * soft + 0.25 * logits.detach().softmax(1)
    torch.testing.assert_close(found, F.cross_entropy(logits, mixed, reduction="none"))
    torch.testing.assert_close(loss_of.targets[data.index], mixed)
    again = loss_of(logits, soft.flip(1), data.index)  # a sample that has a target keeps it
    mixed = 0.75 * mixed + 0.25 * logits.detach().softmax(1)
    torch.testing.assert_close(again, F.cross_entropy(logits, mixed, reduction="none"))


def test_a_refused_batch_of_soft_labels_leaves_the_targets_alone() -> None:
    loss_of, soft = build("selc", 20, 10), torch.full((4, 10), 0.1)
    with pytest.raises(DataError, match=r"^SELCLoss: index 20 is outside 0\.\.19"):
        loss_of(torch.zeros(4, 10), soft, torch.tensor([0, 1, 20, 3]))
    with pytest.raises(DataError, match=r"^SELCLoss: index is float32 \[4\]; expected int64"):
        loss_of(torch.zeros(4, 10), soft, torch.zeros(4))
    broken = torch.randn(4, 10)
    broken[2, 3] = torch.nan
    loss_of(broken, soft, torch.arange(4))
    assert loss_of.targets.any(1).tolist() == [True, True, False, True] + [False] * 16


@pytest.mark.parametrize("backend", ["aot_eager"])
@pytest.mark.parametrize("rule", ["gce", "elr", "selc", "ce"])
def test_compiled_with_soft_labels_and_class_weights(rule: str, backend: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    soft, class_weight = torch.rand(8, 10).softmax(1), torch.rand(10)
    eager, module = (build(rule, 20, 10, "mean", class_weight=class_weight) for _ in range(2))
    compiled = torch.compile(module, backend=backend, fullgraph=True)
    for labels in (data.labels, soft):
        results = []
        for loss_of in (eager, compiled):
            logits = leaf(data.logits)
            loss = loss_of(logits, labels, data.index)
            loss.backward()
            results.append((loss.detach(), logits.grad))
        torch.testing.assert_close(results[0], results[1])
    if rule in ("elr", "selc"):
        torch.testing.assert_close(eager.targets, module.targets)


def test_refused_soft_labels() -> None:
    logits, soft, index = torch.zeros(4, 10), torch.full((4, 10), 0.1), torch.arange(4)
    pairs = [index, soft, index, torch.ones(4)]
    with pytest.raises(DataError, match=r"^ELRPlusLoss: soft labels have no place here.*int64 \[B\]"):
        instance("ELRPlusLoss")(logits, soft, *pairs)
    with pytest.raises(DataError, match=r"^GCELoss: labels is float64 \[4, 10\]; expected int64 \[4\], or soft labels"):
        losses.GCELoss()(logits, soft.double())
    with pytest.raises(DataError, match=r"^GCELoss: labels requires a gradient"):
        losses.GCELoss()(logits, leaf(soft))
    with pytest.raises(DataError, match=r"^GCELoss: soft labels take no ignore_index"):
        losses.GCELoss(ignore_index=1)(logits, soft)
    with pytest.raises(ConfigError, match=r"^GCELoss: soft labels need whole logits"):
        losses.GCELoss()(losses.fused_linear(torch.zeros(4, 3), torch.zeros(10, 3)), soft)


# -- class weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [rule for rule in CASES if rule != "ce-soft"])
def test_class_weights_are_weights_of_samples(rule: str) -> None:
    data = batches(10, torch.float32, 8, 20, 1)[0]
    class_weight, weight = torch.rand(10), torch.rand(8)
    inputs = data.logits, data.attention, data.labels, data.index
    found = call(build(rule, 20, 10, class_weight=class_weight), rule, *inputs, weight=weight)
    expected = call(build(rule, 20, 10), rule, *inputs, weight=weight * class_weight[data.labels])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_class_weights_of_ignored_and_soft_labels() -> None:
    class_weight, logits = torch.tensor([1.0, 2.0, 0.5]), torch.randn(3, 3)
    loss_of = losses.CrossEntropyLoss(class_weight=class_weight, ignore_index=-100, reduction="none")
    found = loss_of(logits, torch.tensor([-100, 1, 2]))
    torch.testing.assert_close(
        found, F.cross_entropy(logits, torch.tensor([-100, 1, 2]), class_weight, reduction="none")
    )
    soft, loss_of = torch.rand(3, 3), losses.GCELoss(class_weight=class_weight, reduction="none")
    unweighted = losses.GCELoss(reduction="none")(logits, soft)
    torch.testing.assert_close(loss_of(logits, soft), unweighted * (soft @ class_weight))
    assert "class_weight" not in loss_of.state_dict()


@pytest.mark.parametrize("value", [torch.ones(2, 2), torch.tensor([1.0, -1.0]), torch.tensor([1.0, torch.nan])])
def test_refused_class_weights(value: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"^GCELoss: class_weight is .*: it must be \[C\]"):
        losses.GCELoss(class_weight=value)
    with pytest.raises(DataError, match=r"^GCELoss: class_weight has 2 factors, the logits 3 classes"):
        losses.GCELoss(class_weight=torch.ones(2))(torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))


def test_class_weights_of_soft_labels_with_targets() -> None:
    logits, index, soft = torch.randn(8, 10), torch.arange(8), torch.rand(8, 10).softmax(1)
    class_weight, settings = torch.rand(10), {"strength": 3.0, "momentum": 0.7, "reduction": "none"}
    found = losses.ELRLoss(8, 10, class_weight=class_weight, **settings)(logits, soft, index)
    expected = losses.ELRLoss(8, 10, **settings)(logits, soft, index) * (soft @ class_weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("class_weight", [None, torch.ones(10)])
@pytest.mark.parametrize("labels", [torch.arange(8), torch.full((8, 10), 0.1)])
@pytest.mark.parametrize(
    "weight", [torch.ones(7), torch.ones(8, 1), torch.ones(8).long(), torch.tensor(2.0), [1.0] * 8]
)
def test_refused_weights_leave_the_targets(class_weight: Tensor | None, labels: Tensor, weight: Tensor) -> None:
    loss_of = losses.ELRLoss(8, 10, strength=3.0, momentum=0.7, class_weight=class_weight)
    index = torch.arange(8)
    with pytest.raises(DataError, match=r"^ELRLoss: weight is (float32|int64|list).*floating point \[8\]"):
        loss_of(torch.randn(8, 10), labels, index, weight=weight)
    assert not loss_of.targets.any()


@pytest.mark.parametrize(
    "labels", [torch.arange(8).byte(), torch.arange(8)[:, None], torch.arange(7), torch.ones(8) + 0j]
)
def test_labels_are_refused_alike_with_class_weights(labels: Tensor) -> None:
    logits, message = torch.zeros(8, 10), r"^GCELoss: labels is .*; expected int64 \[8\]"
    for class_weight in (None, torch.ones(10)):
        with pytest.raises(DataError, match=message):
            losses.GCELoss(class_weight=class_weight)(logits, labels, weight=torch.ones(8))


def test_class_weights_with_a_fused_head_are_refused_by_name() -> None:
    head = losses.fused_linear(torch.zeros(4, 3), torch.zeros(10, 3))
    with pytest.raises(ConfigError, match=r"^GCELoss: fused_linear has no weights .*drop weight and class_weight"):
        losses.GCELoss(class_weight=torch.ones(10))(head, torch.zeros(4, dtype=torch.int64))


def test_divergences_compile_to_one_graph() -> None:
    """They are no ops: PyTorch sees their parts."""
    data = batches(10, torch.float32, 8, 20, 1)[0]
    views = torch.cat([data.logits, data.logits.flip(0)])
    loss_of = losses.GJSLoss(pi=0.3, class_weight=torch.rand(10), ignore_index=1)
    results = []
    for function in (loss_of, torch.compile(loss_of, backend="aot_eager", fullgraph=True)):
        logits = leaf(views)
        loss = function(logits, data.labels)
        loss.backward()
        results.append((loss.detach(), logits.grad))
    torch.testing.assert_close(results[0], results[1])
