"""Learning rates by layer, and what is frozen."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from _train_cases import assert_same_end, history, killed_at, refusal, state
from torch import nn

from fastnoise.cli import main
from fastnoise.config import OptimConfig
from fastnoise.engine.layer_rates import follow, parameter_groups, set_rate
from fastnoise.engine.optimizer import create_optimizer, create_schedule
from fastnoise.errors import ConfigError
from fastnoise.models import create_model
from fastnoise.models.depth import layer_depths
from fastnoise.models.heads import Network
from fastnoise.models.pretrained import LibraryBackbone

TINY = ["--dataset", "digits", "--limit-train", "96", "--batch-size", "32", "--epochs", "3", "--width", "0.25"]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def shares(config: OptimConfig, network: nn.Module) -> dict[str, float]:
    """The share of each parameter, by name."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    return {names[p]: group["share"] for group in parameter_groups(config, network) for p in group["params"]}


# -- groups --------------------------------------------------------------------------------------------------------


def test_one_rate_is_one_group_as_before() -> None:
    network = create_model("small_cnn", num_classes=3, width=0.25)
    assert parameter_groups(OptimConfig(), network) == list(network.parameters())
    (group,) = create_optimizer(OptimConfig(), network).param_groups
    assert "share" not in group


def test_the_backbone_has_its_share_and_all_else_the_whole_rate() -> None:
    networks = nn.ModuleList(create_model("small_cnn", num_classes=3, width=0.25, attention=True) for _ in range(2))
    networks[0].projector = nn.Linear(2, 2)  # as methods add
    found = shares(OptimConfig(backbone_rate=0.1), networks)
    assert found.keys() == dict(networks.named_parameters()).keys()
    assert all(share == (0.1 if ".backbone." in name else 1.0) for name, share in found.items())
    first, second = create_optimizer(OptimConfig(backbone_rate=0.1, learning_rate=0.5), networks).param_groups
    assert (first["lr"], second["lr"]) == (0.5, 0.05)


def test_layer_decay_is_timms() -> None:
    """On a transformer and a ResNet: the scales of its own function, with the package's own head."""
    timm, optim = pytest.importorskip("timm"), pytest.importorskip("timm.optim")
    for name in ("vit_tiny_patch16_224", "resnet26d", "convnext_atto"):
        full = timm.create_model(name, num_classes=3)
        groups = optim.param_groups_layer_decay(full, layer_decay=0.75)
        names = {parameter: key for key, parameter in full.named_parameters()}
        theirs = {names[p]: group["lr_scale"] for group in groups for p in group["params"]}
        with torch.device("meta"):
            network = create_model(f"timm:{name}", num_classes=3, image_size=(224, 224))
        found = shares(OptimConfig(layer_decay=0.75), network)
        assert found.pop("classifier.weight") == found.pop("classifier.bias") == 1
        for key, share in found.items():
            assert share == pytest.approx(theirs[key.removeprefix("backbone.network.")]), key
        assert len(set(found.values())) > 8


@pytest.mark.parametrize(
    ("name", "blocks", "first", "last"),
    [
        ("resnet18", 8, "layers.0.weight", "layers.10.bn2.bias"),
        ("preact_resnet18", 8, "layers.0.weight", "layers.9.bias"),
        ("wrn28_10", 12, "layers.0.weight", "layers.13.bias"),
        ("resnet50", 16, "network.bn1.bias", "network.layer4.2.bn3.weight"),
        ("torchvision:resnet34", 16, "network.conv1.weight", "network.layer4.2.bn2.weight"),
        ("torchvision:vit_b_16", 12, "network.class_token", "network.encoder.ln.bias"),
    ],
)
def test_depths_follow_the_blocks(name: str, blocks: int, first: str, last: str) -> None:
    with torch.device("meta"):
        backbone = create_model(name, num_classes=3, image_size=(32, 32)).backbone
    depths, heads = layer_depths(backbone)
    assert depths.keys() == dict(backbone.named_parameters()).keys()
    assert heads == blocks + 1
    assert sorted(set(depths.values())) == list(range(heads))
    assert depths[first] == 0
    assert depths[last] == blocks
    assert list(depths.values()) == sorted(depths.values())


def test_layer_decay_of_unknown_layers_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("small_cnn", "torchvision:mobilenet_v3_small"):
        with pytest.raises(ConfigError, match="--layer-decay: the order of this network's layers is not known"):
            parameter_groups(OptimConfig(layer_decay=0.5), create_model(name, num_classes=3))
    assert "layers is not known" in refusal(capsys, *TINY, "--method", "ce", "--layer-decay", "0.5")
    assert "must lie in (0, 1]" in refusal(capsys, *TINY, "--method", "ce", "--layer-decay", "0")
    assert "must be positive" in refusal(capsys, *TINY, "--method", "ce", "--backbone-rate", "0")
    line = refusal(capsys, *TINY, "--method", "ce", "--backbone-rate", "0.5", "--freeze", "backbone")
    assert "--freeze backbone leaves no learning rate for --backbone-rate 0.5; drop one of them" in line


# -- steps and schedules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sgd", "sgd:momentum=0.9,nesterov", "adam", "adamw"])
def test_steps_are_those_of_pytorchs_groups(kind: str) -> None:
    torch.manual_seed(0)
    network = create_model("resnet18", num_classes=3, image_size=(8, 8), width=0.125)
    other = copy.deepcopy(network)
    config = OptimConfig(optimizer=kind, learning_rate=0.01, backbone_rate=0.3, weight_decay=0.1)
    mine = create_optimizer(config, network)
    groups = [
        {"params": other.classifier.parameters()},
        {"params": other.backbone.parameters(), "lr": 0.01 * 0.3},
    ]
    options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "fused": True}
    if kind.startswith("sgd"):
        theirs: Any = torch.optim.SGD(groups, momentum=0.9, nesterov="nesterov" in kind, **options)
    else:
        theirs = (torch.optim.Adam if kind == "adam" else torch.optim.AdamW)(groups, **options)
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(3, (6,))
    for _ in range(3):
        for optimizer, model in ((mine, network), (theirs, other)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images).logits, labels).backward()
            optimizer.step()
    for (name, first), second in zip(network.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(first, second), name


@pytest.mark.parametrize(
    "schedule",
    ["constant", "multistep:2,4,gamma=0.1", "cosine:min=0.01", "cosine_restarts:2,min=0.01", "linear:2"],
)
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.filterwarnings("ignore:Detected call of")  # no optimiser steps here
def test_shares_hold_through_every_schedule(schedule: str, tensor: bool) -> None:
    """The first group goes as a run's with one group does, the lowest rate too; a tensor stays the same one."""
    config = OptimConfig(schedule=schedule, epochs=6, learning_rate=0.1)
    network = create_model("small_cnn", num_classes=3, width=0.25)
    plain = create_optimizer(config, network)
    optimizer = create_optimizer(OptimConfig(learning_rate=0.1, backbone_rate=0.25), network)
    for group in [*plain.param_groups, *optimizer.param_groups] if tensor else []:
        group["lr"] = torch.tensor(group["lr"])
    rates = [group["lr"] for group in optimizer.param_groups]
    courses = [create_schedule(config, each) for each in (plain, optimizer)]
    for _ in range(6):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert float(first) == float(plain.param_groups[0]["lr"])
        assert float(second) == pytest.approx(0.25 * float(first))
        for course in courses:
            course.step()
        follow(optimizer)
    set_rate(optimizer, 0.5)
    found = [group["lr"] for group in optimizer.param_groups]
    assert [float(rate) for rate in found] == pytest.approx([0.5, 0.125])
    assert not tensor or all(rate is before for rate, before in zip(found, rates, strict=True))


def test_a_run_with_groups_goes_on_where_it_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a schedule of epochs, made longer too; its rates are those of its checkpoint."""
    words = ["train", *TINY, "--method", "ce", "--model", "resnet18", "--width", "0.125", "--schedule", "cosine"]
    words += ["--layer-decay", "0.5", "--backbone-rate", "0.5", "--save-every", "1"]
    assert main([*words, "--run-dir", "whole"]) == 0
    with monkeypatch.context() as patched:
        killed_at(patched, 8)
        with pytest.raises(GeneratorExit):
            main([*words, "--run-dir", "killed"])
    assert main(["train", "--resume", "killed"]) == 0
    assert_same_end(Path("whole"), Path("killed"))
    groups = state(Path("whole"))["optimizer"]["param_groups"]
    assert [group["share"] for group in groups] == [1.0, *(0.5 * 0.5**depth for depth in range(9, 0, -1))]

    assert main([*words, "--epochs", "2", "--run-dir", "longer"]) == 0
    assert main(["train", "--resume", "longer", "--epochs", "3"]) == 0
    first, *others = state(Path("longer"))["optimizer"]["param_groups"]
    assert all(group["lr"] == pytest.approx(first["lr"] * group["share"]) for group in others)


# -- what is frozen ------------------------------------------------------------------------------------------------


def test_a_frozen_backbone_stays_bit_for_bit() -> None:
    """Its running statistics and its dropout too, through training, scans and averages of weights."""
    for method, model in (("ce", "small_cnn"), ("elr_plus", "resnet18"), ("dividemix", "small_cnn")):
        words = ["train", *TINY, "--method", method, "--model", model, "--freeze", "backbone"]
        for run, epochs in (("one", "1"), ("three", "3")):
            assert main([*words, "--epochs", epochs, "--run-dir", f"{method}-{run}"]) == 0
        one, three = (state(Path(f"{method}-{run}"))["networks"] for run in ("one", "three"))
        for name in one:
            assert torch.equal(one[name], three[name]) == ("backbone" in name), name


def test_frozen_norm_layers_keep_their_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", *TINY, "--method", "ce", "--model", "resnet18", "--freeze", "norm", "--run-dir", "run"]
    assert main(words) == 0
    found = state(Path("run"))["networks"]
    for name, value in found.items():
        if "running_mean" in name or (".bn" in name and name.endswith("bias")):
            assert not value.any(), name
        elif "running_var" in name or (".bn" in name and name.endswith("weight")):
            assert (value == 1).all(), name
    assert history(Path("run"))[0]["train_loss"] != history(Path("run"))[1]["train_loss"]
    network = create_model("lenet5", num_classes=3, image_size=(12, 12))
    with pytest.raises(ConfigError, match="--freeze norm: the network has no normalisation layers; drop the option"):
        network.freeze("norm")


def test_norm_layers_of_other_packages_are_found() -> None:
    torch.manual_seed(0)
    names = ["torchvision:mobilenet_v3_small", "torchvision:vit_b_32"]
    layers: dict[str, int] = {}
    for name in names:
        with torch.device("meta"):
            network = create_model(name, num_classes=3, image_size=(32, 32))
        network.freeze("norm")
        network.train()
        frozen = [key for key, p in network.named_parameters() if not p.requires_grad]
        layers[name] = len(frozen) // 2
        assert all(layer.training for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear))
        assert not any(
            layer.training for layer in network.modules() if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm)
        )
    assert layers == {names[0]: 34, names[1]: 25}


def test_what_freezes_survives_copies_and_modes() -> None:
    backbone = LibraryBackbone(torchvision.models.squeezenet1_1().features, 512)
    network = Network(backbone, 3)
    network.freeze("backbone")
    for each in (network, copy.deepcopy(network)):
        each.eval()
        each.train()
        assert each.training
        assert each.classifier.training
        assert not any(layer.training for layer in each.backbone.modules())
        assert [p.requires_grad for p in each.classifier.parameters()] == [True, True]


def test_networks_without_features_refuse_rates_of_the_backbone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "from torch import nn\ndef net(num_classes, **_):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, num_classes))\n"
    )
    words = ["--dataset", "digits", "--limit-train", "96", "--epochs", "1", "--method", "ce", "--model", "mine.py:net"]
    for option in (["--freeze", "backbone"], ["--backbone-rate", "0.1"]):
        assert "needs features, as --freeze backbone, --backbone-rate and --layer-decay do" in refusal(
            capsys, *words, *option
        )
    assert main(["train", *words, "--freeze", "norm", "--run-dir", "run"]) == 0
    found = state(Path("run"))["networks"]
    assert not found["0.module.2.running_mean"].any()
