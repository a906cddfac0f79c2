"""Networks of timm and torchvision: names, weights, normalisation, and runs that come back without the file."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from _train_cases import assert_same_end, killed_at, refusal, state
from safetensors.torch import save_file
from torch import nn

import fastnoise
from fastnoise.cli import main
from fastnoise.config import RunConfig
from fastnoise.data import normalisation as normalisations
from fastnoise.data.facts import IMAGENET_MEAN_STD
from fastnoise.engine.exporting import export_program
from fastnoise.engine.model_file import read_model
from fastnoise.engine.stacked.entry import stackable
from fastnoise.errors import CheckpointError, ConfigError
from fastnoise.models import create_model
from fastnoise.models.names import LibraryModel, bare, identity, located
from fastnoise.models.pretrained import adapted, normalisation
from fastnoise.recipes import recipe
from fastnoise.sweeps.spec import job_name

RESNET, SQUEEZED = "timm:resnet10t", "torchvision:resnet18"
TINY = ["--dataset", "digits", "--limit-train", "96", "--batch-size", "32", "--epochs", "2"]
IMAGENET = IMAGENET_MEAN_STD


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def whole(name: str, seed: int = 5) -> nn.Module:
    """The package's own network, head included, with random weights and statistics."""
    torch.manual_seed(seed)
    library, _, bare_name = name.partition(":")
    made = (
        pytest.importorskip("timm").create_model(bare_name)
        if library == "timm"
        else torchvision.models.get_model(bare_name)
    )
    for key, buffer in made.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_()
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    found: nn.Module = made
    return found


def weights_of(name: str, file: str = "weights.safetensors") -> dict[str, torch.Tensor]:
    """Random weights in a file; returns them."""
    weights = {key: value.contiguous() for key, value in whole(name).state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(weights, file)
    else:
        torch.save(weights, file)
    return weights


# -- names ---------------------------------------------------------------------------------------------------------


def test_specs_are_read() -> None:
    assert LibraryModel.parse("resnet18") is None
    assert LibraryModel.parse("/a/b.py:Net") is None
    assert LibraryModel.parse("timm:resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k", None)
    model = LibraryModel.parse("torchvision:resnet50,weights=V1")
    assert model == ("torchvision", "resnet50", "V1")
    assert model.file is None
    model = LibraryModel.parse("timm:resnet50,weights=a,b=c.safetensors")
    assert model is not None
    assert model.file == Path("a,b=c.safetensors")
    assert bare("timm:resnet50,weights=x.pt") == "timm:resnet50"
    assert bare("resnet50") == "resnet50"
    assert located("timm:resnet50,weights=x.pt") == f"timm:resnet50,weights={Path('x.pt').absolute()}"
    assert located("timm:resnet50,weights=DEFAULT") == "timm:resnet50,weights=DEFAULT"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("timm:resnet10x", "timm has no network 'resnet10x'; did you mean "),
        ("timm:resnet50.a1_in2k", "timm has no network 'resnet50.a1_in2k'; did you mean resnet50.a1_in1k"),
        ("torchvision:resnet19", "torchvision has no network 'resnet19'; did you mean resnet"),
        ("torchvision:fasterrcnn_resnet50_fpn", "torchvision has no network"),
        ("timm:", "'' is no name of a network; write timm:NAME"),
        ("timm:hf-hub:a/b", "is no name of a network"),
        ("timm:../x", "is no name of a network"),
        ("timm:resnet18,weight=V1", "after the name only weights=DEFAULT or a FILE may follow, not 'weight=V1'"),
        ("torchvision:resnet18,weights=", "only weights=DEFAULT, V1, V2 or a FILE may follow"),
        ("timm:resnet18,weights=V1", "timm tells weights apart by a tag in the name"),
        ("torchvision:resnet18,weights=none.pt", "there is no file none.pt; give DEFAULT, V1, V2 or the path of"),
        ("torchvision:squeezenet1_1,weights=V2", "torchvision has no IMAGENET1K_V2 for squeezenet1_1; it has IMAGENET"),
        ("torchvision:squeezenet1_1", "fails on images [2, 1, 1, 1] with RuntimeError: "),
    ],
)
def test_wrong_names_are_refused(name: str, complaint: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(ConfigError) as caught:
        create_model(name, num_classes=3, channels=1, image_size=(1, 1))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"width": 0.5}, "--width 0.5: torchvision:resnet18 has the width that its name says; drop the option"),
        ({"dropout": 0.5}, "--dropout 0.5: torchvision:resnet18 has the dropout of its package; drop the option"),
        ({"init": "pytorch"}, "draws its own weights; drop the option, or write --init network"),
    ],
)
def test_what_other_packages_networks_do_not_take(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint.replace("(", r"\(")):
        create_model(SQUEEZED, num_classes=3, **options)


def test_unknown_networks_and_missing_files_are_refused_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did you mean" in refusal(capsys, *TINY, "--model", "torchvision:resnet19")
    assert "there is no file" in refusal(capsys, *TINY, "--model", "torchvision:resnet18,weights=none.pt")
    assert "only weights=" in refusal(capsys, *TINY, "--model", "torchvision:resnet18,V1")
    with monkeypatch.context() as without:
        without.setattr("fastnoise.models.names.find_spec", lambda name: None)
        line = refusal(capsys, *TINY, "--model", "timm:resnet18")
    assert line.endswith("the package timm is not installed: pip install 'fastnoise[models]'")
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'fastnoise[models]'" in refusal(capsys, *TINY, "--model", "timm:resnet18")
    assert not Path("runs").exists()


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setenv("TORCH_HOME", str(Path.cwd()))
    with pytest.raises(ConfigError, match=r"torchvision could not load these weights \(OSError: Name .* weights=FILE"):
        create_model(f"{SQUEEZED},weights=V1", num_classes=3)
    timm = pytest.importorskip("timm")
    monkeypatch.setattr(timm, "create_model", offline)
    from fastnoise.models.pretrained import _downloaded

    with pytest.raises(ConfigError, match=r"timm could not load these weights \(OSError"):
        _downloaded(LibraryModel("timm", "resnet10t", "DEFAULT"))


# -- shapes and counts ---------------------------------------------------------------------------------------------


# torchvision's published counts, and those of the papers' networks: VGG-19 with 10 classes (ANIMAL-10N), WRN-28-10
# (Zagoruyko & Komodakis: 36.5M), Inception-ResNet-v2 (WebVision).
@pytest.mark.parametrize(
    ("name", "classes", "side", "count"),
    [
        ("vgg19_bn", 10, 64, 139_622_218),
        ("vgg19_bn", 1000, 224, 143_678_248),
        ("wrn28_10", 10, 32, 36_479_194),
        ("torchvision:vgg19_bn", 1000, 224, 143_678_248),
        ("torchvision:resnet50", 14, 224, 23_536_718),
        ("torchvision:resnet50", 1000, 224, 25_557_032),
        ("timm:inception_resnet_v2", 1000, 227, 55_843_464),
        ("timm:resnet50", 1000, 224, 25_557_032),
        ("timm:vgg19_bn", 1000, 224, 143_678_248),
    ],
)
def test_parameter_counts_of_the_papers_networks(name: str, classes: int, side: int, count: int) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with torch.device("meta"):
        network = create_model(name, num_classes=classes, image_size=(side, side))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_vgg19_bn_computes_what_torchvisions_does() -> None:
    """At an eighth of its width, whose layers torchvision's own parts make in the same order."""
    vgg = torchvision.models.vgg
    narrow = [value if value == "M" else value // 8 for value in vgg.cfgs["E"]]
    theirs = vgg.VGG(vgg.make_layers(narrow, batch_norm=True), num_classes=10)
    theirs.classifier[0] = nn.Linear(64 * 49, 512)
    theirs.classifier[3], theirs.classifier[6] = nn.Linear(512, 512), nn.Identity()
    ours = create_model("vgg19_bn", num_classes=10, image_size=(64, 64), width=1 / 8).backbone.eval()
    values = [value for key, value in theirs.eval().state_dict().items() if not key.endswith("tracked")]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(ours(images), theirs(images))
    assert [layer.p for layer in ours.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    dropping = create_model("vgg19_bn", num_classes=10, width=1 / 8, dropout=0.25)
    assert [layer.p for layer in dropping.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.25]


def test_wrn28_10_has_28_layers_in_three_groups() -> None:
    network = create_model("wrn28_10", num_classes=10, width=0.1)
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)]
    assert len(convs) + 1 + 2 == 28  # with the classifier, and as published the two projections between groups
    assert [layer.stride[0] for layer in convs].count(2) == 2
    assert network.backbone.num_features == 64


# -- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        (RESNET, {"fc.weight", "fc.bias"}),
        ("torchvision:mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
    ],
)
@pytest.mark.parametrize("form", ["safetensors", "torch", "wrapped"])
def test_weights_of_a_file_are_taken_bit_for_bit(name: str, heads: set[str], form: str) -> None:
    file = "weights.safetensors" if form == "safetensors" else "weights.pt"
    weights = weights_of(name, file)
    if form == "wrapped":
        torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}, file)
    torch.manual_seed(1)
    network = create_model(f"{name},weights={file}", num_classes=4, image_size=(32, 32), attention=True)
    found = network.backbone.network.state_dict()
    assert found.keys() == weights.keys() - heads
    for key, value in found.items():
        assert torch.equal(value, weights[key]), key
    assert network.classifier.weight.shape == (4, network.backbone.num_features)
    (note,) = network.backbone.notes
    assert note.startswith(f"weights: {file} of {name}, {len(weights)} tensors; left out, as parts of another head: ")
    assert all(head in note for head in heads)
    images = torch.randn(2, 3, 32, 32)
    head = nn.Sequential(*list(whole(name).children())[-1:]) if name == RESNET else None
    if head is not None:  # the features are those under the package's own head
        full = whole(name).eval()
        torch.testing.assert_close(head.eval()(network.eval()(images).features), full(images))


def test_missing_counters_of_batches_are_no_difference() -> None:
    weights = {key: value for key, value in weights_of(SQUEEZED).items() if not key.endswith("num_batches_tracked")}
    save_file(weights, "weights.safetensors")
    network = create_model(f"{SQUEEZED},weights=weights.safetensors", num_classes=4)
    assert torch.equal(network.backbone.network.conv1.weight, weights["conv1.weight"])


@pytest.mark.parametrize("name", [RESNET, SQUEEZED])
@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_convolution_takes_other_channels(name: str, channels: int) -> None:
    weights = weights_of(name)
    made = create_model(f"{name},weights=weights.safetensors", num_classes=4, channels=channels).backbone.eval()
    first = "conv1.0.weight" if name == RESNET else "conv1.weight"
    found = made.network.state_dict()
    assert torch.equal(found[first], adapted(weights[first], channels))
    assert all(torch.equal(found[key], weights[key]) for key in found if key != first)
    if channels == 1:  # a grey image gives what it gives as three equal channels
        colours = create_model(f"{name},weights=weights.safetensors", num_classes=4).backbone.eval()
        images = torch.randn(2, 1, 32, 32)
        torch.testing.assert_close(made(images), colours(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_first_convolutions_are_adapted_as_timm_does(channels: int) -> None:
    theirs = pytest.importorskip("timm.models").adapt_input_conv
    weight = torch.randn(5, 3, 7, 7)
    torch.testing.assert_close(adapted(weight, channels), theirs(channels, weight))


def test_positions_are_resampled_for_another_image_size() -> None:
    """As timm's own code does it; all other tensors bit for bit."""
    timm, name = pytest.importorskip("timm"), "timm:vit_tiny_patch16_224"
    weights = weights_of(name)
    weights["pos_embed"].normal_()
    save_file(weights, "weights.safetensors")
    network = create_model(f"{name},weights=weights.safetensors", num_classes=4, image_size=(32, 32))
    theirs = timm.create_model(
        name[5:], pretrained=True, num_classes=0, img_size=32, pretrained_cfg_overlay={"state_dict": dict(weights)}
    )
    found = network.backbone.network.state_dict()
    assert found["pos_embed"].shape == (1, 5, 192)
    for key, value in theirs.state_dict().items():
        assert torch.equal(found[key], value), key
        assert key == "pos_embed" or torch.equal(found[key], weights[key]), key


def test_positions_of_torchvisions_transformers_are_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(image_size: int, weights: None) -> nn.Module:
        return torchvision.models.VisionTransformer(image_size, 16, 1, 2, 8, 8)

    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **options: small(**options))
    weights = small(64, None).state_dict()
    weights["encoder.pos_embedding"].normal_()
    torch.save(weights, "weights.pt")
    found = create_model("torchvision:vit_b_16,weights=weights.pt", num_classes=4, image_size=(32, 32)).backbone.network
    wanted = torchvision.models.vision_transformer.interpolate_embeddings(32, 16, dict(weights))  # type: ignore[arg-type]
    for key, value in found.state_dict().items():
        assert torch.equal(value, wanted[key]), key
    assert found.encoder.pos_embedding.shape == (1, 5, 8)


def test_weights_that_do_not_fit_name_the_first_three_tensors() -> None:
    weights = weights_of(SQUEEZED)
    weights["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    del weights["bn1.bias"]
    weights["layer1.0.conv9.weight"] = torch.zeros(2)
    weights["layer4.1.bn2.weight"] = torch.zeros(7)
    save_file(weights, "weights.safetensors")
    with pytest.raises(ConfigError) as caught:
        create_model(f"{SQUEEZED},weights=weights.safetensors", num_classes=4)
    assert str(caught.value) == (
        "--model torchvision:resnet18,weights=weights.safetensors does not fit the network: conv1.weight is [64, 3, 3, "
        "3], and the network has [64, 3, 7, 7]; bn1.bias is missing; layer4.1.bn2.weight is [7], and the network has "
        "[512] and 1 more"
    )


class Harmful:
    """A pickle of it writes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("harm.txt"), "done"))


def test_files_that_are_no_weights_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing in them is executed."""

    def complaint(file: str) -> str:
        return refusal(capsys, *TINY, "--model", f"{SQUEEZED},weights={file}", "--run-dir", "run")

    Path("cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{")
    assert "the file is truncated or no safetensors file" in complaint("cut.safetensors")
    Path("cut.pt").write_bytes(b"PK\3\4 and no more")
    assert "weights=" in complaint("cut.pt")
    Path("text.pt").write_text("junk\n")
    assert "no file of tensors alone (KeyError: " in complaint("text.pt")
    torch.save({"conv1.weight": Harmful()}, "harmful.pt")
    assert "the file is damaged or no file of tensors alone" in complaint("harmful.pt")
    torch.save({"epoch": 3}, "empty.pt")
    assert "the file has no tensors by name" in complaint("empty.pt")
    assert not Path("harm.txt").exists()
    assert not Path("run").exists()


# -- normalisation -------------------------------------------------------------------------------------------------


def test_normalisation_of_weights() -> None:
    assert normalisation("resnet18") is None
    assert normalisation("torchvision:resnet18") is None
    assert normalisation("torchvision:resnet18,weights=V1") == IMAGENET
    assert normalisation("torchvision:resnet18,weights=some.pt") == IMAGENET
    assert normalisation("torchvision:inception_v3,weights=V1") == ((0.5,) * 3, (0.5,) * 3)
    pytest.importorskip("timm")
    assert normalisation("timm:resnet10t,weights=DEFAULT") == IMAGENET
    assert normalisation("timm:vit_tiny_patch16_224,weights=x.safetensors") == ((0.5,) * 3, (0.5,) * 3)
    clip = normalisation("timm:vit_base_patch16_clip_224.openai,weights=DEFAULT")
    assert clip is not None
    assert clip[0] == pytest.approx((0.481, 0.458, 0.408), abs=1e-3)
    assert clip[1] == pytest.approx((0.269, 0.261, 0.276), abs=1e-3)


def test_the_recipe_of_a_network_with_weights_normalises_as_these_were_trained() -> None:
    assert recipe("ce", "cifar10", model="torchvision:resnet18,weights=V1").data.normalisation == "weights"
    assert recipe("ce", "cifar10", model="torchvision:resnet18").data.normalisation == "dataset"
    assert recipe("elr", "cifar10", model="torchvision:resnet18").model.init == "network"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("imagnet", "unknown word; did you mean 'imagenet'?"),
        ("0.5", "neither a word nor two lists of numbers"),
        ("0.5/0.5/0.5", "neither a word nor two lists of numbers"),
        ("0.5,0.4/0.5", "2 means and 1 standard deviations"),
        ("0.5/0", "standard deviations must be positive"),
        ("124.0/0.2", "means lie in [0, 1]"),
        ("nan1/0.2", "neither a word nor"),
        ("0.5,0.5,0.5/0.2,0.2,0.2", "is for images of 3 channels; digits has 1"),
        ("imagenet", "is for images of 3 channels; digits has 1"),
        ("weights", "--model small_cnn begins with no weights whose normalisation is known"),
    ],
)
def test_wrong_words_of_normalisation_are_refused(
    words: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, *TINY, "--method", "ce", "--normalisation", words)
    assert complaint in line
    assert f"--normalisation {words}" in line


def test_numbers_of_normalisation_come_back() -> None:
    numbers = ((0.1, 1 / 3), (0.2, 2 / 3))
    assert normalisations.parse(normalisations.written(numbers)) == numbers
    for word in normalisations.WORDS:
        assert normalisations.parse(word) == word


# -- runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [RESNET, "torchvision:mobilenet_v3_small"])
def test_a_run_with_weights_comes_back_without_them(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained, killed, resumed and used when the file is gone; the run's folder says how images are normalised."""
    if name == RESNET:
        pytest.importorskip("timm")
    weights_of(name)
    words = ["train", *TINY, "--method", "nal", "--model", f"{name},weights=weights.safetensors"]
    words += ["--backbone-rate", "0.1"]
    assert main([*words, "--run-dir", "whole"]) == 0
    output = capsys.readouterr().out
    assert "weights: " in output
    assert "left out, as parts of another head" in output
    stored = tomllib.loads(Path("whole/config.toml").read_text())
    mean, std = normalisations.parse(stored["normalisation"])
    assert (*mean, *std) == pytest.approx((0.449, 0.226))  # of grey images: the means over the weights' three channels
    with monkeypatch.context() as patched:
        killed_at(patched, 5)
        with pytest.raises(GeneratorExit):
            main([*words, "--save-every", "1", "--run-dir", "killed"])
    Path("weights.safetensors").unlink()
    assert main(["train", "--resume", "killed"]) == 0
    assert_same_end(Path("whole"), Path("killed"))

    header, _ = read_model(Path("whole/model.safetensors"))
    assert header.model == name
    assert header.mean == pytest.approx((0.449,))
    assert header.std == pytest.approx((0.226,))
    random = torch.get_rng_state()
    predictor = fastnoise.load("whole")
    assert torch.equal(random, torch.get_rng_state())
    found = predictor.networks[0].state_dict()
    for key, value in state(Path("whole"))["networks"].items():
        assert torch.equal(found[key.removeprefix("0.")], value), key
    capsys.readouterr()
    assert main(["evaluate", "whole", "digits", "--out", "figures.json"]) == 0
    summary = json.loads(Path("whole/summary.json").read_text())
    assert json.loads(Path("figures.json").read_text())["accuracy"] == pytest.approx(summary["test_accuracy"]["last"])
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    assert export_program(predictor, Path("network.pt2"), pixels) <= 1e-5


def test_a_model_file_never_loads_what_it_names_beside_the_network() -> None:
    """A header may name any file; only the network itself is built."""
    weights_of(SQUEEZED)
    assert main(["train", *TINY, "--epochs", "1", "--method", "ce", "--model", SQUEEZED, "--run-dir", "run"]) == 0
    header, tensors = read_model(Path("run/model.safetensors"))
    from dataclasses import replace

    from fastnoise.engine.model_file import write_model

    write_model(Path("m.safetensors"), replace(header, model=f"{SQUEEZED},weights=/etc/passwd"), tensors)
    assert fastnoise.load("m.safetensors").networks[0].backbone.notes == ()
    write_model(Path("m.safetensors"), replace(header, model="torchvision:resnet19"), tensors)
    with pytest.raises(CheckpointError, match="its header names no network: --model torchvision:resnet19"):
        fastnoise.load("m.safetensors")
    write_model(Path("m.safetensors"), replace(header, model="torchvision:resnet34"), tensors)
    with pytest.raises(CheckpointError, match="does not fit the networks that its header names"):
        fastnoise.load("m.safetensors")


def test_two_networks_begin_with_the_same_weights_and_heads_of_their_own() -> None:
    weights = weights_of(SQUEEZED)
    words = [
        "train",
        *TINY,
        "--epochs",
        "1",
        "--method",
        "dividemix",
        "--learning-rate",
        "1e-30",
        "--weight-decay",
        "0",
    ]
    words += ["--model", f"{SQUEEZED},weights=weights.safetensors"]
    for run, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main([*words, "--seed", seed, "--run-dir", run]) == 0
    first, again, other = (state(Path(run))["networks"] for run in "abc")
    key = "backbone.network.layer4.1.conv2.weight"
    for found in (first, other):
        assert torch.equal(found[f"0.{key}"], weights["layer4.1.conv2.weight"])
        assert torch.equal(found[f"1.{key}"], weights["layer4.1.conv2.weight"])
    heads = [found[f"{number}.classifier.weight"] for found in (first, other) for number in (0, 1)]
    assert all(not torch.equal(heads[i], heads[j]) for i in range(4) for j in range(i))
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_weights_and_encoder_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="are both for the backbone; drop one"):
        RunConfig().replace({"model": "timm:resnet18,weights=DEFAULT", "encoder": "encoder.pt"})


def test_weights_count_by_content_in_the_names_of_jobs() -> None:
    weights_of(SQUEEZED, "a.safetensors")
    Path("b.safetensors").write_bytes(Path("a.safetensors").read_bytes())
    names = [f"{SQUEEZED},weights={file}.safetensors" for file in "ab"]
    assert identity(names[0]) == identity(names[1])
    configs = [recipe("ce", "digits", model=name) for name in names]
    assert job_name(configs[0]) == job_name(configs[1]) != job_name(recipe("ce", "digits", model=SQUEEZED))
    with open("b.safetensors", "ab") as stream:
        stream.write(b"x")
    assert job_name(configs[0]) != job_name(configs[1])
    assert "another package's" in str(stackable([recipe("ce", "digits", model=SQUEEZED)]))
    assert "name layers" in str(stackable([recipe("ce", "digits").replace({"backbone_rate": 0.1})]))


# -- every network -------------------------------------------------------------------------------------------------

SMALL = [("torchvision:squeezenet1_1", 32), ("timm:resnet10t", 32)]
MORE = [
    *((f"torchvision:{name}", 32) for name in ("densenet121", "googlenet", "mnasnet0_5", "shufflenet_v2_x0_5")),
    *((f"torchvision:{name}", 32) for name in ("vgg11_bn", "regnet_y_400mf", "efficientnet_b0", "convnext_tiny")),
    *((f"torchvision:{name}", 32) for name in ("mobilenet_v2", "resnet50", "swin_t", "vit_b_32")),
    ("torchvision:alexnet", 64),
    ("torchvision:inception_v3", 80),
    ("torchvision:maxvit_t", 224),
    *((f"timm:{name}", 32) for name in ("vit_tiny_patch16_224", "efficientnet_lite0", "mobilenetv3_small_050")),
    *(
        (f"timm:{name}", 32)
        for name in ("convnext_atto", "resnet26d", "regnetx_002", "vgg11_bn", "deit_tiny_patch16_224")
    ),
    ("timm:vit_small_patch14_dinov2", 28),
    ("timm:inception_resnet_v2", 96),
]


@pytest.mark.parametrize(("name", "side"), [*SMALL, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)])
def test_every_network_trains_a_step_and_exports(name: str, side: int) -> None:
    """A programme as of .pt2 files; then a step in full precision and one under bf16 autocast, with all gradients."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = create_model(name, num_classes=4, channels=1, image_size=(side, side), attention=True)
    images = torch.randn(3, 1, side, side).to(memory_format=torch.channels_last)
    network.eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}}).module()
    more = torch.randn(5, 1, side, side)
    with torch.no_grad():
        torch.testing.assert_close(program(more).logits, network(more).logits, rtol=1e-4, atol=1e-5)
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01, fused=True)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            outputs = network(images.to(dtype))
        assert outputs.attention is not None
        loss = torch.nn.functional.cross_entropy(outputs.logits.float(), torch.arange(3))
        (loss + outputs.attention.float().mean()).backward()
        missing = [key for key, parameter in network.named_parameters() if parameter.grad is None]
        assert not missing or "vit" in name or "deit" in name
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", [name for name, _ in SMALL])
def test_small_networks_compile_whole(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    network = create_model(name, num_classes=4, channels=1, image_size=(32, 32)).eval()
    images = torch.randn(3, 1, 32, 32)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images).logits, network(images).logits, rtol=1e-4, atol=1e-5)
