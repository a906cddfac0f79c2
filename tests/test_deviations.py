"""The size of each deviation from the authors' code, counted anew: what the table of deviations says must be that."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from fastnoise import noise
from fastnoise.config import OptimConfig, RunConfig
from fastnoise.data import stratified_split
from fastnoise.data.autoaugment import POLICIES
from fastnoise.data.cifar import MEAN_STD
from fastnoise.engine.optimizer import create_optimizer
from fastnoise.losses import ELRPlusLoss, NALLoss, SELCLoss
from fastnoise.losses.reference import SOP_BATCH
from fastnoise.methods import Setting, create_method
from fastnoise.methods.mixup import gone_through
from fastnoise.methods.options import CORESOptions, PESSemiOptions, ProMixOptions
from fastnoise.methods.promix import mean_of
from fastnoise.models import Outputs, create_model
from fastnoise.models.depth import last_stage
from fastnoise.recipes import recipe
from fastnoise.recipes.deviations import DEVIATIONS, Deviation
from fastnoise.schedules import Schedule

SIZES: dict[str, Callable[[], str]] = {}
"""Key of a deviation -> what counts its size, in the words of the table."""


def counts(key: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Enter a function in SIZES."""

    def enter(function: Callable[[], str]) -> Callable[[], str]:
        assert key not in SIZES
        SIZES[key] = function
        return function

    return enter


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.key)
def test_sizes_are_those_of_the_table(deviation: Deviation) -> None:
    """Each deviation either has a size that is counted here, or says why nobody can count one in a second."""
    if deviation.uncounted:
        assert not deviation.size
        assert deviation.key not in SIZES
        assert deviation.uncounted.endswith(".")
    else:
        assert deviation.key in SIZES, "write what counts its size, or say in the table why it is not counted"
        assert SIZES[deviation.key]() == deviation.size


def test_no_size_is_left_over() -> None:
    keys = [deviation.key for deviation in DEVIATIONS]
    assert len(set(keys)) == len(keys)
    assert set(SIZES) <= set(keys)


# -- what counting needs --------------------------------------------------------------------------------------------


def rates(config: RunConfig) -> list[float]:
    """The learning rate of each epoch of a recipe."""
    from fastnoise.engine.optimizer import create_optimizer, create_schedule

    optimizer = create_optimizer(config.optim, nn.Linear(1, 1))
    schedule, found = create_schedule(config.optim, optimizer), []
    for _ in range(config.optim.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def steps(config: RunConfig, samples: int = 50_000) -> int:
    """Of an epoch."""
    return math.ceil(samples / config.flat()["batch_size"])


def differing(ours: list[float], theirs: list[float]) -> int:
    """Epochs whose learning rates differ."""
    assert len(ours) == len(theirs)
    return sum(not math.isclose(a, b) for a, b in zip(ours, theirs, strict=True))


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def millions(theirs: nn.Module, dataset: str) -> str:
    """Parameters of the authors' network and of the recipe's, which is ResNet-34 for all losses."""
    with torch.device("meta"):
        ours = create_model("resnet34", num_classes=100 if dataset == "cifar100" else 10)
    assert {recipe(method, dataset).model.model for method in ("sce", "apl", "ce")} == {"resnet34"}
    return f"{parameters(theirs) / 1e6:.2f} million parameters there, {parameters(ours) / 1e6:.2f} million here"


def six_convolutions() -> nn.Module:
    """SCE's models.py and APL's model.py, CIFAR-10."""
    widths, layers = (3, 64, 64, 128, 128, 196, 196), []
    with torch.device("meta"):
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after)]
        return nn.Sequential(*layers, nn.Linear(4 * 4 * 196, 256), nn.BatchNorm1d(256), nn.Linear(256, 10))


def resnet44() -> nn.Module:
    """SCE's resnet.py at depth 7, CIFAR-100: convolutions with biases, a 1x1 convolution where the width changes."""
    with torch.device("meta"):
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)]
        before = 16
        for width in (16, 32, 64):
            for block in range(7):
                if not (width == 16 and block == 0):
                    layers.append(nn.BatchNorm2d(before))
                layers += [nn.Conv2d(before, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, width, 3)]
                if before != width:
                    layers.append(nn.Conv2d(before, width, 1))
                before = width
        return nn.Sequential(*layers, nn.BatchNorm2d(64), nn.Linear(64, 100))


def moved(degrees: float, shift: float) -> str:
    """How far pixels of a 32x32 image move on average, under a uniform turn up to `degrees` and shifts of each axis
    up to `shift` pixels."""
    middle = np.arange(32) - 15.5
    y, x = (part.ravel() for part in np.meshgrid(middle, middle, indexing="ij"))
    random = np.random.default_rng(0)
    angles = np.radians(random.uniform(-degrees, degrees, 2000))[:, None]
    dx, dy = random.uniform(-shift, shift, (2, 2000, 1))
    across = np.cos(angles) * x - np.sin(angles) * y + dx - x
    down = np.sin(angles) * x + np.cos(angles) * y + dy - y
    return f"{np.hypot(across, down).mean():.1f} pixels"


# -- inputs ---------------------------------------------------------------------------------------------------------


@counts("cifar100-constants")
def _() -> str:
    mean, std = MEAN_STD["cifar100"]
    by = np.abs(np.array(mean) - (0.507, 0.487, 0.441)).max(), np.abs(np.array(std) - (0.267, 0.256, 0.276)).max()
    return "means differ by up to {:.4f}, deviations by up to {:.4f}".format(*by)


@counts("cifar10-deviations")
def _() -> str:
    ratios = np.array((0.247, 0.243, 0.262)) / MEAN_STD["cifar10"][1]
    return f"inputs are {ratios.min():.2f} to {ratios.max():.2f} times as large here"


# -- ELR, ELR+, NAL -------------------------------------------------------------------------------------------------


@counts("elr-plus-two-draws")
def _() -> str:
    clean = np.random.default_rng(1).permutation(np.arange(50_000) % 10)
    labels = [noise.corrupt(clean, "symmetric:0.4", seed=seed, num_classes=10).labels for seed in (0, 1)]
    (kept, _), (_, held) = (stratified_split(clean, 0.1, seed) for seed in (0, 1))
    shared = np.isin(held, kept).mean()
    return (
        f"{100 * shared:.0f} % of a network's validation samples are trained on by the other; at 40 % symmetric noise "
        f"the two give {100 * (labels[0] != labels[1]).mean():.0f} % of the samples different labels"
    )


@counts("elr-plus-no-target")
def _() -> str:
    """A pair without targets, in the authors' formula and in ours."""
    labels, pair = torch.tensor([0]), torch.tensor([1])
    one_hot = torch.nn.functional.one_hot
    theirs = 0.5 * one_hot(labels, 3) * torch.zeros(1, 3) + 0.5 * one_hot(pair, 3) * torch.zeros(1, 3)
    theirs = theirs / theirs.sum(1, keepdim=True)
    ours = [
        ELRPlusLoss(2, 3, strength=7.0, momentum=0.9, target=target)(
            torch.tensor([[1.0, 2.0, 3.0]]), labels, torch.tensor([0]), pair, torch.tensor([1]), torch.tensor(0.5)
        ).item()
        for target in ("weighted", "labels")
    ]
    assert ours[0] == ours[1]
    return f"{'NaN' if theirs.isnan().all() else 'finite'} there, the loss of the labels here"


@counts("nal-first-update")
def _() -> str:
    """The first update in variant code, from a one-hot that is clamped before it or not."""
    num_classes = 10
    logits = torch.randn(64, num_classes, generator=torch.Generator().manual_seed(0))
    labels, index = torch.arange(64) % num_classes, torch.arange(64)
    loss = NALLoss(64, num_classes, strength=0.5, momentum=0.9, variant="code")
    loss(logits, labels, index, torch.zeros(64))
    one_hot = torch.nn.functional.one_hot(labels, num_classes).float()
    theirs = (0.9 * one_hot + 0.1 * logits.softmax(1)).clamp(1e-4, 1)
    by = float((loss.targets - theirs).abs().max())
    assert torch.tensor(0.0).mul(torch.tensor(0.0).log()).isnan()
    return f"targets differ by up to {by:.0e}"


# -- SELC -----------------------------------------------------------------------------------------------------------


@counts("selc-underflow")
def _() -> str:
    """Logits that are 104 apart: the least whole distance at which exp gives 0 in float32."""
    far = next(d for d in range(1, 200) if torch.softmax(torch.tensor([0.0, -float(d)]), 0)[1] == 0)
    logits = torch.tensor([[0.0, -float(far)]])
    ours = SELCLoss(1, 2, momentum=0.9)(logits, torch.tensor([1]), torch.tensor([0]), update=False).item()
    assert logits.softmax(1).log()[0, 1] == -math.inf
    return f"infinite there from logits that are {far} apart, {ours:.0f} here"


@counts("selc-pmd-schedule")
def _() -> str:
    ours = rates(recipe("selc", "cifar10", "pmd:0.35,posteriors=p.npy"))
    said = [0.1 * 0.2 ** ((epoch >= 60) + (epoch >= 120)) for epoch in range(150)]
    said_100 = [0.1 * 0.1 ** ((epoch >= 40) + (epoch >= 80)) for epoch in range(150)]
    assert ours == rates(recipe("selc", "cifar100", "pmd:0.35,posteriors=p.npy"))
    return (
        f"{differing(ours, said)} of 150 epochs have another rate than is said (CIFAR-100: {differing(ours, said_100)})"
    )


@counts("selc-pmd-momentum")
def _() -> str:
    """The way of one epoch under a gradient that stays the same."""
    ways = []
    config = recipe("selc", "cifar10", "pmd:0.35,posteriors=p.npy")
    for kept in (0.0, 1 / (1 - 0.9)):
        velocity, way = kept, 0.0
        for _ in range(steps(config)):
            velocity = 0.9 * velocity + 1
            way += velocity
        ways.append(way)
    return f"{100 * (1 - ways[0] / ways[1]):.1f} % of an epoch's way are lost under a constant gradient"


# -- DivideMix, co-teaching, PLC ------------------------------------------------------------------------------------


@counts("dividemix-last-epoch")
def _() -> str:
    ours = len(rates(recipe("dividemix", "cifar10", "symmetric:0.5")))
    return f"{301 - ours} of 301 epochs"


@counts("pes-epochs")
def _() -> str:
    config = recipe("pes", "cifar10", "symmetric:0.5")
    ours = config.optim.epochs - config.method.stage_epochs - config.method.head_epochs
    assert ours == 200 - 1
    return f"SGD has {ours} epochs there and here"


@counts("pes-milestones")
def _() -> str:
    config = recipe("pes", "cifar10", "symmetric:0.5")
    theirs = [milestone - 1 for milestone in (100, 150)]  # without the one of refinement
    assert Schedule.parse(config.optim.schedule).milestones == tuple(theirs)
    return f"the rate falls after {theirs[0]} and {theirs[1]} epochs of SGD there and here"


@counts("pes-semi-epochs")
def _() -> str:
    config = recipe("pes_semi", "cifar10", "symmetric:0.5")
    ours = rates(config)[299]
    theirs = rates(config.replace({"epochs": 300}))[299]
    return f"the last epoch's rate is {ours / theirs:.2f} times that of the authors"


@counts("pes-stale-optimizer")
def _() -> str:
    network = create_model("resnet18", num_classes=10, channels=3, image_size=(32, 32), width=0.125)
    renewed = [weight for layer in last_stage(network.backbone) for weight in layer.parameters(recurse=False)]
    stale, every = len(renewed) + len(list(network.classifier.parameters())), len(list(network.parameters()))
    return f"{stale} of {every} tensors of resnet18 are not trained there"


@counts("pes-semi-no-unlabelled")
def _() -> str:
    method = create_method(PESSemiOptions(warm_up=0, head_epochs=0), num_samples=256, num_classes=2)
    method.configure(Setting(OptimConfig(), (0.5,), (0.5,), 128))
    method.confident[0] = False
    method.start_epoch(1)
    order = method.order(1, 0)
    assert order is not None
    return f"an error there, {int((order == 0).sum())} of 128 samples of a batch unlabelled here"


@counts("promix-last-epoch")
def _() -> str:
    return f"{601 - recipe('promix', 'cifar10', 'symmetric:0.5').optim.epochs} of 601 epochs"


@counts("promix-rest")
def _() -> str:
    config = recipe("promix", "cifar10", "symmetric:0.5")
    weights = []
    for options in (replace(config.method, rest_until=100), config.method):
        method = create_method(options, num_samples=4, num_classes=2)
        found = 0
        for epoch in range(1, config.optim.epochs + 1):
            method.start_epoch(epoch)
            method.before_step(epoch, 0, 0)
            found += float(method.rest_weight) > 0
        weights.append(found)
    return f"{weights[0]} of 601 epochs learn from them there, {weights[1]} of {config.optim.epochs} here"


@counts("promix-penalty")
def _() -> str:
    """Theirs: the softmax times the logarithm of the softmax of clamped logits; the other factor is held."""
    logits = torch.linspace(-1, 1, 10, requires_grad=True)
    log_p = logits.clamp(min=1e-12).log_softmax(0)
    (slope,) = torch.autograd.grad((logits.detach().softmax(0) * log_p).sum(), logits)
    return f"{int((slope == 0).sum())} of 10 logits evenly from -1 to 1 have no gradient through the logarithm there"


@counts("promix-empty")
def _() -> str:
    method = create_method(ProMixOptions(), num_samples=4, num_classes=2)
    nobody, probs = torch.zeros(3, dtype=torch.bool), torch.full((3, 2), 0.5)
    assert probs[nobody].mean(0).isnan().all()
    assert torch.equal(method._moved(method.prior[0], probs, nobody), method.prior[0])
    return f"NaN there, a loss of {mean_of(torch.ones(3), nobody):.0f} and the same means here"


@counts("promix-new-optimizer")
def _() -> str:
    """The way of SGD with momentum from rest, against one at full speed: 10 for each step."""
    speed, way = 0.0, 0.0
    for _ in range(195):
        speed = 0.9 * speed + 1
        way += speed
    return f"{100 * (1 - way / 1950):.1f} % of an epoch of 195 steps are lost under a constant gradient"


@counts("augdesc-pair")
def _() -> str:
    """torchvision's table is the authors'."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    theirs = AutoAugment(AutoAugmentPolicy.CIFAR10).policies
    ours = POLICIES["cifar10"]
    differ = sum(
        [step[1] for step in one] != [step[1] for step in other] for one, other in zip(ours, theirs, strict=True)
    )
    return f"{differ} of {len(ours)} pairs"


@counts("cores-damping")
def _() -> str:
    """Steps of the recipe's SGD with a gradient, or a learning rate, divided by 3."""
    optim, weights = recipe("cores", "cifar10", "symmetric:0.4").optim, []
    assert optim.weight_decay == 0
    for divisor in (1.0, 3.0):
        weight = nn.Parameter(torch.zeros(100))
        optimizer = create_optimizer(
            replace(optim, learning_rate=optim.learning_rate / divisor), nn.ParameterList([weight])
        )
        random = torch.Generator().manual_seed(0)
        for _ in range(20):
            weight.grad = torch.randn(100, generator=random) * divisor / 3
            optimizer.step()
        weights.append(weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)
    return "nothing but rounding for their SGD, without momentum and weight decay"


@counts("cores-none-kept")
def _() -> str:
    """The authors' loss is a pair, but a number if nothing is kept, which they take apart."""
    method = create_method(CORESOptions(sieve_from=1), num_samples=4, num_classes=3)
    method.start_epoch(1)
    labels = torch.zeros(4, dtype=torch.int64)
    loss = method.loss(Outputs(torch.tensor([[-9.0, 0.0, 0.0]]).repeat(4, 1)), labels, torch.arange(4))
    return f"an error there, a loss of {loss:.0f} here"


@counts("ssr-balance")
def _() -> str:
    """Theirs: ids of the smaller class repeated, the last 5,000 of them shuffled, the first 5,000 of all taken."""
    small, most = 3000, 5000
    ids = torch.arange(small).repeat(math.ceil(most / small))
    ids[-most:] = ids[-most:][torch.randperm(most, generator=torch.Generator().manual_seed(0))]
    ours = gone_through(np.arange(small), most, np.random.default_rng(0))
    left = [1 - len(np.unique(taken)) / small for taken in (ids[:most].numpy(), ours)]
    return (
        f"{left[0]:.0%} of a class of 3,000 samples beside one of 5,000 are left out there, {left[1]:.0%} here".replace(
            "%", " %"
        )
    )


@counts("ssr-rest")
def _() -> str:
    config = recipe("ssr", "cifar10", "symmetric:0.4")
    return f"{50_000 % (config.data.batch_size // 3)} of 50,000 samples of a pass if all are selected"


@counts("sop-batch")
def _() -> str:
    rest = 50_000 % recipe("sop", "cifar10", "symmetric:0.4").data.batch_size
    return f"a step {SOP_BATCH / rest:.1f} times as long there for the {rest} samples of an epoch's last batch"


@counts("sop-strong-view-constants")
def _() -> str:
    tens, hundreds = MEAN_STD["cifar10"][1], MEAN_STD["cifar100"][1]
    first, second, third = (f"{100 * (h / t - 1):.0f}" for t, h in zip(tens, hundreds, strict=True))
    return f"the second view's contrast is {first}, {second} and {third} % higher there"


@counts("gjs-network")
def _() -> str:
    """Counted layer by layer: a bare stem, three stages of five blocks, the last batch norm, and the classifier."""
    count, before = 9 * 3 * 32, 32
    for maps in (32, 64, 128):
        for _ in range(5):
            count += (
                2 * before + 9 * before * maps + 2 * maps + 9 * maps * maps + (before * maps if before != maps else 0)
            )
            before = maps
    there = count + 2 * before + 10 * (before + 1)
    assert there == 1_860_138, "as the authors' network has"
    model = create_model(recipe("gjs", "cifar10", "symmetric:0.4").model.model, num_classes=10)
    return f"{there / 1e6:.2f} million parameters there, {parameters(model) / 1e6:.2f} million here"


@counts("disc-no-step")
def _() -> str:
    """A step of the recipe's SGD without a gradient."""
    optim = recipe("disc", "cifar10", "symmetric:0.4").optim
    weight = nn.Parameter(torch.ones(1))
    optimizer = create_optimizer(optim, nn.ParameterList([weight]))
    weight.grad = torch.zeros(1)
    optimizer.step()
    rate, decay = optim.learning_rate, f"{optim.weight_decay:.0e}".replace("e-0", "e-")
    return f"{100 * (1 - float(weight.detach())):.2f} % of each weight at rate {rate} and decay {decay}"


@counts("coteaching-beta1")
def _() -> str:
    """Steps of Adam under gradients that are noise alone, where beta1 matters most."""
    lengths = []
    for beta in (0.9, 0.1):
        weight = nn.Parameter(torch.zeros(1000))
        optimizer = torch.optim.Adam([weight], 1e-3, betas=(beta, 0.999))
        random, found = torch.Generator().manual_seed(0), []
        for step in range(300):
            weight.grad, before = torch.randn(1000, generator=random), weight.detach().clone()
            optimizer.step()
            if step >= 100:
                found.append(float((weight.detach() - before).norm()))
        lengths.append(np.mean(found))
    return f"its steps become {lengths[1] / lengths[0]:.1f} times as long under gradients of noise alone"


@counts("coteaching-divided-twice")
def _() -> str:
    """By the number of kept samples, 70 of 128 at a forget rate of 0.45: steps differ by the eps in Adam alone."""
    weights = []
    for divisor in (1.0, 70.0):
        weight = nn.Parameter(torch.zeros(100))
        optimizer = torch.optim.Adam([weight], 1e-3)
        random = torch.Generator().manual_seed(0)
        for _ in range(20):
            weight.grad = torch.randn(100, generator=random) / 100 / divisor
            optimizer.step()
        weights.append(weight.detach())
    by = float((weights[0] - weights[1]).abs().mean() / weights[0].abs().mean())
    return f"{100 * by:.2f} % of 20 steps' way, for gradients of 0.01"


@counts("coteaching-mnist-batches")
def _() -> str:
    config = recipe("coteaching", "mnist", "pair:0.45")
    assert config.data.drop_last
    batches = 60_000 // config.flat()["batch_size"]
    return f"{batches - 401} of {batches} batches of an epoch"


@counts("coteaching-last-test-batch")
def _() -> str:
    left = 10_000 % recipe("coteaching", "cifar10", "pair:0.45").flat()["batch_size"]
    return f"{left} of 10,000 images, {100 * left / 10_000:.2f} points of accuracy at most"


@counts("plc-clean-selection")
def _() -> str:
    """Wrong labels among the held-out ones, under noise that the recipe is published for."""
    clean = np.random.default_rng(1).permutation(np.arange(50_000) % 10)
    given = noise.corrupt(clean, "symmetric:0.35", seed=0, num_classes=10).labels
    fraction = recipe("plc", "cifar10", "pmd:0.35,posteriors=p.npy").data.val_fraction
    _, held = stratified_split(given, fraction, 0)
    wrong = 100 * (given != clean)[held].mean()
    return f"{len(held):,} held out here too; {wrong:.0f} % of their labels are wrong at a rate of 35 %"


# -- SCE, APL, forward ----------------------------------------------------------------------------------------------


@counts("sce-network-cifar10")
def _() -> str:
    return millions(six_convolutions(), "cifar10")


@counts("sce-network-cifar100")
def _() -> str:
    return millions(resnet44(), "cifar100")


@counts("apl-network-cifar10")
def _() -> str:
    return millions(six_convolutions(), "cifar10")


@counts("apl-network-cifar100")
def _() -> str:
    with torch.device("meta"):
        return millions(create_model("resnet50", num_classes=100), "cifar100")


@counts("sce-weight-decay")
def _() -> str:
    """What decay alone does to a weight. With momentum m a step's pull adds up to 1 / (1 - m)."""
    config = recipe("sce", "cifar10", "symmetric:0.4")
    pull = sum(rates(config)) * steps(config) * config.optim.weight_decay / (1 - 0.9)
    return f"decay alone shrinks a weight by {100 * (1 - math.exp(-pull)):.0f} % in the 120 epochs of CIFAR-10"


@counts("sce-rate-cifar100")
def _() -> str:
    return f"{0.1 / recipe('sce', 'cifar100', 'symmetric:0.4').optim.learning_rate:.0f} times ours"


@counts("sce-late-rates")
def _() -> str:
    """SCE's util.py: a rate falls in epochs, counted from 0, above 40 and 80 (CIFAR-100: 80 and 120)."""
    found = []
    for dataset, first, second in (("cifar10", 40, 80), ("cifar100", 80, 120)):
        ours = rates(recipe("sce", dataset, "symmetric:0.4"))
        theirs = [ours[0] * 0.1 ** ((epoch > first) + (epoch > second)) for epoch in range(len(ours))]
        found.append(f"{differing(ours, theirs)} of {len(ours)} epochs")
    return " and ".join(found)


@counts("sce-time-decay")
def _() -> str:
    least, most = (1 + decay * steps(recipe("sce", "cifar10")) * 120 for decay in (1e-4, 5e-3))
    return f"after 120 epochs of CIFAR-10 the rate is divided by {least:.1f} to {most:.0f} more"


@counts("sce-initialisation")
def _() -> str:
    layer = nn.Conv2d(64, 64, 3)
    torch.manual_seed(0)
    layer.reset_parameters()
    ours = float(layer.weight.detach().std())
    nn.init.kaiming_normal_(layer.weight)
    return f"weights are {float(layer.weight.detach().std()) / ours:.1f} times as large there"


@counts("sce-augmentation")
def _() -> str:
    """Shifts of up to 20 % of the side against crops from 4 pixels of padding."""
    config = recipe("sce", "cifar10", "symmetric:0.4").data
    assert config.crop_padding == 4
    shifted = 0.2 * 32
    return (
        f"pixels move by {moved(0, shifted)} on average there (CIFAR-100, turned too: {moved(20, shifted)}), "
        f"{moved(0, config.crop_padding)} here"
    )


@counts("forward-cifar10")
def _() -> str:
    return forward("cifar10", 120)


@counts("forward-cifar100")
def _() -> str:
    return forward("cifar100", 150)


def forward(dataset: str, epochs: int) -> str:
    return f"{recipe('forward', dataset, 'symmetric:0.4').optim.epochs} epochs here, {2 * epochs} there"


def stem(method: str, dataset: str) -> nn.Conv2d:
    """The first convolution of a recipe's network for CIFAR."""
    model = recipe(method, dataset, "symmetric:0.4").model.model
    with torch.device("meta"):
        network = create_model(model, num_classes=10, channels=3, image_size=(32, 32))
    return next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))


def side(*layers: nn.Conv2d | nn.MaxPool2d) -> int:
    """Of the maps that layers make of an image of 32 x 32."""
    found = 32
    for layer in layers:
        kernel, stride, padding = (
            of if isinstance(of, int) else int(of[0]) for of in (layer.kernel_size, layer.stride, layer.padding)
        )
        found = (found + 2 * padding - kernel) // stride + 1
    return found


@counts("dual-t-cifar10")
def _() -> str:
    return photo_stem("cifar10")


@counts("dual-t-cifar100")
def _() -> str:
    return photo_stem("cifar100")


def photo_stem(dataset: str) -> str:
    """The authors' models/resnet.py has the convolution and the pooling of torchvision's."""
    theirs = side(nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1))
    here = side(stem("dual_t", dataset))
    return f"maps of {theirs} x {theirs} after the stem there, {here} x {here} here"


@counts("dual-t-mnist-network")
def _() -> str:
    """The authors' models/simple_net.py, but for T_revision, which its forward pass does not use."""
    theirs = nn.Sequential(nn.Linear(784, 128), nn.Linear(128, 128), nn.Linear(128, 10))
    ours = create_model(recipe("dual_t", "mnist").model.model, num_classes=10, channels=1, image_size=(28, 28))
    return f"{parameters(theirs):,} parameters there, {parameters(ours):,} here"


@counts("dual-t-zeroed")
def _() -> str:
    """The authors' est_t_matrix on uniform draws."""
    eta = np.random.default_rng(0).dirichlet(np.ones(10), 1000)
    sums = []
    for column in range(10):
        eta[eta[:, column] >= np.percentile(eta[:, column], 97, method="higher"), column] = 0.0
        sums.append(eta[eta[:, column].argmax()].sum())
    return f"with 1,000 random predictions for 10 classes the rows there sum to {np.mean(sums):.2f} on average"


@counts("volminnet-stem")
def _() -> str:
    there, here = side(nn.Conv2d(3, 64, 3)), side(stem("volminnet", "cifar10"))
    return f"maps of {there} x {there} there, {here} x {here} here"


# -- SWCE -----------------------------------------------------------------------------------------------------------


@counts("swce-decoupled-decay")
def _() -> str:
    """One step of both without a gradient, from a weight of 0.05."""
    found = []
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        weight = nn.Parameter(torch.full((1,), 0.05, dtype=torch.float64))
        weight.grad = torch.zeros_like(weight)
        kind([weight], recipe("swce", "cifar10").optim.learning_rate, weight_decay=0.03).step()
        found.append(0.05 - weight.item())
    return f"without a gradient a weight of 0.05 shrinks by {found[0]:.1e} in Adam's step, by {found[1]:.1e} here"
