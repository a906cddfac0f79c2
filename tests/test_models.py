"""Networks: shapes, stems, width, the attention branch, memory format."""

import copy
import pickle
from pathlib import Path

import pytest
import torch

from fastnoise import _C
from fastnoise.errors import ConfigError
from fastnoise.models import MODELS, create_model
from fastnoise.models import pool as pool_module
from fastnoise.models.encoder import load_encoder, save_encoder
from fastnoise.models.norm import BatchNorm2d
from fastnoise.models.pool import FEW, GlobalAveragePool2d, MaxPool2x2


def images(channels: int, side: int) -> torch.Tensor:
    return torch.randn(2, channels, side, side).to(memory_format=torch.channels_last)


def narrow(name: str, width: float) -> float:
    """A width that the network takes: `linear` has no layer that could be narrower."""
    return 1.0 if name == "linear" else width


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("attention", [False, True])
def test_outputs(name: str, attention: bool) -> None:
    network = create_model(
        name, num_classes=7, channels=1, image_size=(32, 32), width=narrow(name, 0.5), attention=attention
    )
    outputs = network(images(1, 32))
    assert outputs.logits.shape == (2, 7)
    assert (outputs.attention is not None) == attention
    if outputs.attention is not None:
        assert outputs.attention.shape == (2,)
    assert torch.equal(network.classifier(outputs.features), outputs.logits)


# He et al. 2016 with the CIFAR stem, and torchvision's ResNet-50: known parameter counts (10 classes / 1000).
@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("resnet18", 10, 11_173_962),
        ("resnet34", 10, 21_282_122),
        ("resnet50", 1000, 25_557_032),
        ("preact_resnet18", 10, 11_172_170),
        ("cnn7", 10, 518_150),  # by JoCoR's code: 513,792 and 596 of convolutions, 1,192 of batch norm, 2,570
        ("preact_resnet18_bn_stem", 10, 11_171_274),  # counted in the code of ELR+, DivideMix, SELC and NAL
    ],
)
def test_parameter_counts(name: str, classes: int, count: int) -> None:
    network = create_model(name, num_classes=classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@pytest.mark.parametrize(("name", "layer"), [("resnet18", 0), ("resnet18", 3), ("preact_resnet18_bn_stem", 3)])
def test_convolutions_begin_by_fan_out_or_as_pytorch_draws_them(name: str, layer: int) -> None:
    """On 3x3 convolutions of equal width fan-out is 2.45 = sqrt(6) times PyTorch's default, on the stem 0.53 times."""
    deviations = []
    for init in ("network", "pytorch"):
        torch.manual_seed(0)
        network = create_model(name, num_classes=10, init=init)  # type: ignore[arg-type]
        found = network.backbone.layers[layer]
        deviations.append(float((found if layer == 0 else found.conv1).weight.std()))
    fan_in = 27 if layer == 0 else 576
    assert deviations[1] == pytest.approx((1 / (3 * fan_in)) ** 0.5, rel=0.05)
    assert deviations[0] / deviations[1] == pytest.approx(0.53 if layer == 0 else 2.45, rel=0.05)


def test_a_network_of_ones_own_keeps_its_weights(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import torch\n\ndef net(num_classes, **_):\n    return torch.nn.Flatten()\n")
    with pytest.raises(ConfigError, match="draws its own weights; drop the option, or write --init network"):
        create_model(f"{tmp_path}/mine.py:net", num_classes=10, init="pytorch")
    from fastnoise.recipes import recipe

    assert recipe("elr", "cifar10", model="resnet18").model.init == "pytorch"
    assert recipe("elr", "cifar10", model=f"{tmp_path}/mine.py:net").model.init == "network"


def test_cnn4_is_the_network_of_sces_and_apls_code_for_mnist() -> None:
    """Conv 32, conv 64, dense 128, dense 10, with batch norm after the first three."""
    network = create_model("cnn4", num_classes=10, channels=1, image_size=(28, 28))
    assert sum(parameter.numel() for parameter in network.parameters()) == 422_090
    assert network(images(1, 28)).features.shape == (2, 128)
    convs = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.out_channels, layer.kernel_size) for layer in convs] == [(32, (3, 3)), (64, (3, 3)), (128, (7, 7))]
    dense = torch.nn.Linear(64 * 49, 128)
    dense.load_state_dict({"weight": convs[2].weight.flatten(1), "bias": convs[2].bias})
    maps = torch.randn(2, 64, 7, 7)
    torch.testing.assert_close(convs[2](maps).flatten(1), dense(maps.flatten(1)))


@pytest.mark.parametrize(
    ("name", "whole_channels", "always"),
    [("cnn9", False, False), ("cnn9_dropout2d", True, False), ("cnn9_dropout2d_always", True, True)],
)
def test_cnn9_drops_units_or_channels(name: str, whole_channels: bool, always: bool) -> None:
    """The code of co-teaching calls F.dropout2d, which drops channels, in evaluation too unless it is told."""
    network = create_model(name, num_classes=10, channels=1, image_size=(28, 28), width=0.25, dropout=0.25)
    drop = network.backbone.layers[4]
    for training in (True, False):
        network.train(training)
        dropped = drop(torch.ones(64, 32, 6, 6)) == 0
        assert bool(dropped.any()) == (training or always)
        if dropped.any():
            assert 0.2 < float(dropped.float().mean()) < 0.3
            assert bool((dropped.all((2, 3)) == dropped.any((2, 3))).all()) == whole_channels
    batch = images(1, 28)
    assert torch.equal(network(batch).logits, network(batch).logits) != always


def layer_list(network: torch.nn.Module) -> list[str]:
    """The layers that hold weights, in the order in which an image meets them."""
    met: list[str] = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            form = f"conv{module.kernel_size[0]} {module.in_channels}-{module.out_channels} /{module.stride[0]}"
        elif isinstance(module, torch.nn.BatchNorm2d):
            form = f"bn {module.num_features}"
        elif isinstance(module, torch.nn.Linear):
            form = f"linear {module.in_features}-{module.out_features}"
        else:
            continue
        module.register_forward_hook(lambda *_, form=form: met.append(form))
    network(images(3, 32))
    return met


def test_the_preact_network_of_the_authors_code_has_its_layers_in_its_order() -> None:
    """ELR_plus/model/PreResNet.py: PreActBlock, [2, 2, 2, 2]; a projection stands before its block's convolutions."""
    wanted = ["conv3 3-64 /1", "bn 64"]
    for width_in, width, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        projection = [] if stride == 1 else [f"conv1 {width_in}-{width} /2"]
        wanted += [f"bn {width_in}", *projection, f"conv3 {width_in}-{width} /{stride}"]
        wanted += [f"bn {width}", f"conv3 {width}-{width} /1"]
        wanted += [f"bn {width}", f"conv3 {width}-{width} /1"] * 2
    assert layer_list(create_model("preact_resnet18_bn_stem", num_classes=10)) == [*wanted, "linear 512-10"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["preact_resnet18", "preact_resnet18_bn_stem"])
def test_preact_networks_compute_what_their_definition_says(name: str, training: bool) -> None:
    """Written here as functions of the weights in the order of the layers."""
    authors = name == "preact_resnet18_bn_stem"
    network = create_model(name, num_classes=3, image_size=(32, 32), width=0.125).double()
    network(images(3, 32).double())  # running statistics that differ from 0 and 1
    network.train(training)
    state, batch = dict(network.state_dict()), images(3, 32).double()

    def norm_relu(x: torch.Tensor, key: str) -> torch.Tensor:
        weight, bias = (state[f"{key}.{part}"][:, None, None] for part in ("weight", "bias"))
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        return ((x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight + bias).relu()

    conv = torch.nn.functional.conv2d
    first = 3 if authors else 1  # the place of the first block among the layers
    x = conv(batch, state["backbone.layers.0.weight"], padding=1)
    if authors:
        x = norm_relu(x, "backbone.layers.1")
    for number in range(8):
        key = f"backbone.layers.{first + number}"
        stride = 2 if number in (2, 4, 6) else 1
        activated = norm_relu(x, f"{key}.bn1")
        shortcut = activated if authors else x
        if f"{key}.projection.weight" in state:
            shortcut = conv(activated, state[f"{key}.projection.weight"], stride=stride)
        out = conv(activated, state[f"{key}.conv1.weight"], stride=stride, padding=1)
        x = conv(norm_relu(out, f"{key}.bn2"), state[f"{key}.conv2.weight"], padding=1) + shortcut
    if not authors:
        x = norm_relu(x, f"backbone.layers.{first + 8}")
    logits = x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]
    torch.testing.assert_close(network(batch).logits, logits, rtol=1e-10, atol=1e-10)


def test_lenet5_has_the_61706_parameters_of_the_original_shape() -> None:
    network = create_model("lenet5", num_classes=10, channels=1, image_size=(28, 28))
    assert sum(parameter.numel() for parameter in network.parameters()) == 61_706


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet34", "preact_resnet18_bn_stem"])
def test_stem_follows_the_image_size(name: str) -> None:
    small = create_model(name, num_classes=2, image_size=(32, 32), width=0.25).backbone.layers[0]
    large = create_model(name, num_classes=2, image_size=(224, 224), width=0.25).backbone.layers[0]
    assert (small.kernel_size, small.stride) == ((3, 3), (1, 1))
    assert (large.kernel_size, large.stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "preact_resnet18"])
def test_channels_last_from_first_to_last_convolution(name: str) -> None:
    network = create_model(name, num_classes=3, image_size=(16, 16), width=0.25)
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _, inputs, output: seen.append(
                    (
                        inputs[0].is_contiguous(memory_format=torch.channels_last),
                        output.is_contiguous(memory_format=torch.channels_last),
                    )
                )
            )
    network(images(3, 16))
    assert seen
    assert all(before and after for before, after in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet1", "num_classes": 10}, "unknown model"),
        ({"name": "lenet5", "num_classes": 10, "image_size": (8, 8)}, "at least 12x12"),
        ({"name": "resnet18", "num_classes": 1}, "at least 2 classes"),
        ({"name": "resnet18", "num_classes": 10, "width": 0.0}, "--width 0.0 is not a factor"),
        ({"name": "resnet18", "num_classes": 10, "width": float("inf")}, "--width inf is not a factor"),
        ({"name": "resnet18", "num_classes": 10, "width": 0.01}, "--width 0.01 leaves layers with no channels"),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 6, 8, 13, 16])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (10, 10), (7, 9), (2, 3), (3, 2)])
def test_max_pooling_is_pytorchs_bit_by_bit(channels: int, height: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(-2, 3, (5, channels, height, width), generator=random).float()  # with many ties
    images[torch.rand(images.shape, generator=random) < 0.05] = torch.nan
    images = images.to(memory_format=torch.channels_last)
    upstream = torch.randn(5, channels, height // 2, width // 2, generator=random)
    results = []
    for pool in (MaxPool2x2(), torch.nn.MaxPool2d(2)):
        given = images.clone().requires_grad_()
        pooled = pool(given)
        pooled.backward(upstream)
        assert given.grad is not None
        assert pooled.is_contiguous(memory_format=torch.channels_last)
        assert given.grad.is_contiguous(memory_format=torch.channels_last)
        results.append((pooled, given.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


def test_max_pooling_is_left_to_pytorch_where_it_is_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    ours: list[torch.Size] = []
    apply = pool_module._Pool.apply
    monkeypatch.setattr(pool_module._Pool, "apply", lambda images: ours.append(images.shape) or apply(images))
    pool, images = MaxPool2x2(), torch.randn(2, 6, 8, 8)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(pool(last), torch.nn.functional.max_pool2d(images, 2))
    assert len(ours) == (_C.active_isa() != "generic")
    ours.clear()
    pool(images)
    pool(last.bfloat16())
    pool(torch.randn(2, FEW + 1, 8, 8).to(memory_format=torch.channels_last))
    torch.func.vmap(pool)(last[:, None])
    torch.jit.trace(pool, last, check_trace=False)
    torch.compile(pool, backend="eager", fullgraph=True)(last)
    assert not ours


def plain(network: torch.nn.Module) -> torch.nn.Module:
    """The network with PyTorch's own batch norm, which counts, as of `create_model` before it had one of its own."""
    network = copy.deepcopy(network)
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, BatchNorm2d):
                counting = torch.nn.BatchNorm2d(child.num_features)
                counting.load_state_dict(child.state_dict())
                setattr(module, name, counting)
    return network


@pytest.fixture
def trained() -> torch.nn.Module:
    network = create_model("resnet18", num_classes=3, image_size=(8, 8), width=0.125)
    network(images(3, 8))
    return network


@pytest.mark.parametrize("name", MODELS)
def test_no_network_counts_batches(name: str) -> None:
    network = create_model(name, num_classes=2, image_size=(32, 32), width=narrow(name, 0.25))
    assert not [key for key in network.state_dict() if key.endswith("num_batches_tracked")]
    found = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert all(type(module) is BatchNorm2d for module in found)
    assert bool(found) == (name not in ("lenet5", "linear", "mlp"))


def test_batch_norm_gives_pytorchs_numbers(trained: torch.nn.Module) -> None:
    counting = plain(trained)
    batch = images(3, 8)
    for mode in (True, False):
        ours, theirs = trained.train(mode)(batch).logits, counting.train(mode)(batch).logits
        assert torch.equal(ours, theirs)
    state = counting.state_dict()
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert {name.rpartition(".")[2] for name in state.keys() - trained.state_dict().keys()} == {"num_batches_tracked"}


@pytest.mark.parametrize("versions", ["kept", "lost"])  # as by files that hold tensors alone
def test_states_with_and_without_counters_load_in_either_batch_norm(trained: torch.nn.Module, versions: str) -> None:
    counting = plain(trained)
    counting(images(3, 8))
    for source, target in ((counting, trained), (trained, counting), (trained, copy.deepcopy(trained))):
        state = source.state_dict()
        if versions == "lost":
            state = dict(state)
        given = dict(state)
        assert not any(target.load_state_dict(state))
        assert state.keys() == given.keys()
        found, wanted = target.state_dict(), source.state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in found.keys() & wanted.keys())
    layer = BatchNorm2d(2)
    with pytest.raises(RuntimeError, match=r"(?s)Missing.*bias.*Unexpected.*counts"):
        layer.load_state_dict({"weight": layer.weight, "counts": torch.ones(2)})


def test_an_encoder_with_counters_loads(trained: torch.nn.Module, tmp_path: Path) -> None:
    """As `fastnoise pretrain` wrote them before the networks had batch norm without counters."""
    counting = plain(trained)
    save_encoder(tmp_path / "encoder.pt", counting.backbone.state_dict(), model="resnet18")
    fresh = create_model("resnet18", num_classes=3, image_size=(8, 8), width=0.125)
    load_encoder(tmp_path / "encoder.pt", fresh, model="resnet18")
    for name, tensor in fresh.backbone.state_dict().items():
        assert torch.equal(tensor, counting.backbone.state_dict()[name])


def test_batch_norm_can_be_copied_reset_and_refuses_to_count() -> None:
    layer = BatchNorm2d(3)
    batch = images(3, 4)
    layer(batch)
    twin = copy.deepcopy(layer)
    again = pickle.loads(pickle.dumps(layer))
    for other in (twin, again):
        assert other.num_batches_tracked is None
        assert torch.equal(layer.eval()(batch), other.eval()(batch))
    layer.reset_parameters()
    assert torch.equal(layer.running_mean, torch.zeros(3))
    assert torch.equal(layer.running_var, torch.ones(3))
    layer.momentum = None
    layer(batch)  # evaluation takes the statistics as they are
    with pytest.raises(ConfigError, match="counts no batches"):
        layer.train()(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_global_averages_are_pytorchs_bit_by_bit(dtype: torch.dtype) -> None:
    batch, upstream = images(5, 7).to(dtype), torch.randn(2, 5).to(dtype)
    results = []
    for pool in (GlobalAveragePool2d(), torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())):
        given = batch.clone().requires_grad_()
        pooled = pool(given)
        pooled.backward(upstream)
        assert given.grad is not None
        results.append((pooled, given.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)
