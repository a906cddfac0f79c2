"""Augmentation by spec: the grammar, the draws, and the same pixels out of every loader."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fastnoise
from fastnoise.cli import main
from fastnoise.config import DataConfig, RunConfig
from fastnoise.data import ImageTable, make_loader
from fastnoise.data.augment import PRESETS, Augmentation
from fastnoise.data.placing import place, uniforms
from fastnoise.data.plan import Plan
from fastnoise.data.recolour import OPERATIONS, recolour
from fastnoise.engine.model_file import read_model
from fastnoise.engine.stacked.batches import StackedLoader, StackedPlan
from fastnoise.errors import ConfigError

try:
    import nvidia.dali  # noqa: F401

    HAS_DALI = True
except ImportError:
    HAS_DALI = False
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


# The grammar


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("none", {}),
        ("crop,pad=4,flip", {"crop_padding": 4, "flip": True}),
        ("resize:256,crop:224,flip", {"resize": 256, "crop": (224, 224), "flip": True}),
        (" resize:32x40 , center_crop:30x20", {"resize": (32, 40), "crop": (30, 20), "centred": True}),
        (
            "random_resized_crop:224,scale=0.2-1,ratio=0.5-2",
            {"resized_crop": (224, 224), "scale": (0.2, 1.0), "ratio": (0.5, 2.0)},
        ),
        (
            "flip,rotate:20,jitter=0.4,randaugment:2,10,cutout:3",
            {"flip": True, "rotate": 20.0, "jitter": 0.4, "randaugment": (2, 10), "cutout": 3},
        ),
        ("jitter:0.4", {"jitter": 0.4}),
        ("crop,pad=4,autoaugment:cifar10", {"crop_padding": 4, "autoaugment": "cifar10"}),
        ("crop:28,pad=2,cutout:12", {"crop": (28, 28), "crop_padding": 2, "cutout": 12}),
    ],
)
def test_specs_are_read(text, fields):
    assert Augmentation.parse(text) == Augmentation(**fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a word is missing"),
        ("flip,", "a word is missing"),
        ("resiz:3", "unknown word 'resiz'; did you mean 'resize'"),
        ("random_resized_crop:9,scal=1-2", "unknown word 'scal'; did you mean 'scale'"),
        ("flip,crop:32", "crop is done before flip"),
        ("resize:3,random_resized_crop:3", "exclude each other"),
        ("flip,flip", "flip is given twice"),
        ("crop", "crop needs a size or padding"),
        ("crop:9,pad=-1", "'-1' is no number of pixels from 0"),
        ("crop:0", "'0' is no number of pixels from 1"),
        ("crop:1,pad=1,pad=2", "pad twice"),
        ("random_resized_crop:9,scale=0.5", "no range"),
        ("random_resized_crop:9,scale=0.5-2", "'2' is no share above 0 and up to 1"),
        ("random_resized_crop:9,ratio=2-1", "ends below its beginning"),
        ("flip:3", "flip takes no value"),
        ("resize:", "resize needs a value"),
        ("rotate:181", "'181' is no angle in degrees above 0 and up to 180"),
        ("jitter:x", "'x' is no strength"),
        ("randaugment:2", "'2' is not two integers"),
        ("randaugment:2,31", "31 is no magnitude from 0 to 30"),
        ("randaugment:0,3", "0 is no number of operations"),
        ("autoaugment", "autoaugment needs a value: write autoaugment:POLICY"),
        ("autoaugment:cifar", "'cifar' is no policy; did you mean 'cifar10'"),
        ("randaugment:1,3,autoaugment:cifar10", "randaugment and autoaugment exclude each other"),
        ("imagenet,flip", "unknown word|imagenet stands alone"),
    ],
)
def test_specs_that_are_refused(text, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Augmentation.parse(text)
    assert str(caught.value).startswith(f"--augment {text}:")


def test_evaluation_draws_nothing():
    with pytest.raises(ConfigError, match="--eval-augment flip: flip is random"):
        Augmentation.parse_evaluation("flip")
    assert Augmentation.parse_evaluation("imagenet") == Augmentation(resize=256, crop=(224, 224), centred=True)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_specs_of_one_size(name):
    training, evaluation = Augmentation.parse(name), Augmentation.parse_evaluation(name)
    assert training.output_size((32, 32)) == evaluation.output_size((32, 32))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"crop:40x40 does not fit into images of 32x32 with 2 pixels"):
        Augmentation.parse("crop:40,pad=2").output_size((32, 32))
    with pytest.raises(ConfigError, match="resize:256 keeps the aspect"):
        Augmentation.parse("resize:256,flip").output_size((32, 32))


def test_a_spec_replaces_crop_and_flip():
    config = RunConfig().replace({"augment": "flip"})
    assert (config.data.crop_padding, config.data.flip) == (0, False)
    assert config.data.augmentation() == Augmentation(flip=True)
    assert DataConfig().augmentation() == Augmentation(4, True) == DataConfig(augment="cifar10").augmentation()
    for twice in ({"crop_padding": 4}, {"flip": True}):
        with pytest.raises(ConfigError, match="drop --crop-padding and --flip"):
            RunConfig().replace({"augment": "flip"} | twice)
    with pytest.raises(ConfigError, match="drop --crop-padding and --flip"):
        DataConfig(augment="flip", crop_padding=2)
    with pytest.raises(ConfigError, match="unknown word"):
        DataConfig(augment="flop")


def test_a_spec_in_place_of_a_preset_keeps_its_evaluation():
    config = RunConfig().replace({"augment": "clothing1m"})
    evaluation = config.data.eval_augmentation()
    assert evaluation is not None
    assert evaluation.places
    assert config.replace({"augment": "resize:224x224,flip"}).data.eval_augmentation() == evaluation
    assert config.replace({"augment": "cifar10"}).data.eval_augmentation() == Augmentation()
    assert RunConfig().replace({"augment": "flip"}).data.eval_augmentation() is None


# The draws


def test_uniforms_are_philox():
    """The vectors that are published with the generator (Random123's kat_vectors)."""
    zero = uniforms(np.zeros(1, np.uint64), 0, 4) * 2.0**32
    assert [f"{int(word):08x}" for word in zero[0]] == ["5f6fb709", "0d893f64", "4f121f81", "4f730a48"]
    drawn = uniforms(np.arange(4000, dtype=np.uint64), 3, 5)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.02
    assert np.abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.06
    assert np.array_equal(drawn[:, :3], uniforms(np.arange(4000, dtype=np.uint64), 3, 3))


def test_keys_belong_to_samples_and_views():
    settings = {"seed": 3, "augmentation": Augmentation.parse("random_resized_crop:8,flip"), "source": (32, 32)}
    plain, shuffled, two = (Plan(50, 50, **settings, **more) for more in ({}, {"shuffle": True}, {"views": 2}))
    (first,), (second,), (both,) = (list(plan.batches(1)) for plan in (plain, shuffled, two))
    assert np.array_equal(first.key[second.index], second.key)
    assert np.array_equal(both.key[:50], first.key)
    assert len(np.unique(both.key)) == 100
    assert not np.array_equal(first.key, next(iter(plain.batches(2))).key)
    assert np.array_equal(both.take(np.array([3, 9]), 2).key, both.key[[3, 9, 53, 59]])


def test_crops_of_another_size_reach_every_place():
    plan = Plan(8000, 8000, seed=1, augmentation=Augmentation.parse("crop:6,pad=1"), source=(8, 10))
    (batch,) = plan.batches(0)
    rows, columns = (np.bincount(batch.corner[:, d] + 1, minlength=n) for d, n in ((0, 5), (1, 7)))
    for counts in (rows, columns):
        expected = 8000 / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < 22.5  # chi-square, 6 degrees of freedom: 99.9 %
    by_key = place(
        Augmentation(resize=8, crop=(6, 6)),
        np.tile(np.int32([8, 10]), (8000, 1)),
        np.arange(8000, dtype=np.uint64),
        None,
    )
    assert (by_key.corner.min(0).tolist(), by_key.corner.max(0).tolist()) == ([0, 0], [2, 4])


def test_random_parts_have_the_shares_and_ratios_of_the_spec():
    sizes = np.tile(np.int32([300, 400]), (5000, 1))
    spec = Augmentation.parse("random_resized_crop:64")
    part = place(spec, sizes, np.arange(5000, dtype=np.uint64), None).part
    share, ratio = part[:, 2] * part[:, 3] / 120_000, part[:, 3] / part[:, 2]
    assert share.min() > 0.078
    assert abs(share[share < 0.5].mean() - 0.29) < 0.01  # no draw is refused there: uniform in 0.08..0.5
    assert (ratio.min() > 0.73, ratio.max() < 1.36) == (True, True)
    assert (part[:, :2] >= 0).all()
    assert (part[:, :2] + part[:, 2:] <= sizes).all()
    narrow = place(spec, np.int32([[1000, 10], [10, 1000], [7, 7]]), np.arange(3, dtype=np.uint64), None).part
    assert narrow[:2].tolist() == [[493, 0, 13, 10], [0, 493, 10, 13]]  # no part fits: the middle, as in torchvision


# The pixels


def picture(height: int, width: int, seed: int, noise: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-noise, noise + 1, smooth.shape)).clip(0, 255).astype(np.uint8)


SIZES = [(60, 80), (80, 53), (48, 48), (100, 64), (41, 97), (30, 36), (64, 64)]


def files(folder: Path, form: str, noise: int = 12, **options) -> ImageTable:
    names = []
    for number, (height, width) in enumerate(SIZES):
        names.append(str(folder / f"{number}.{form}"))
        Image.fromarray(picture(height, width, number, noise)).save(names[-1], **options)
    return ImageTable(np.zeros(len(names), int), files=tuple(names))


def pixels_of(kind: str, data: ImageTable, text: str, epochs: int = 2, **settings) -> np.ndarray:
    """The pixels of all epochs, 0..255 [N, H, W, C]; where cutout has set the mean, that."""
    channels = data.shape[0]
    read = Augmentation.parse_evaluation if "center" in text else Augmentation.parse
    loader = make_loader(
        kind, data, batch_size=4, mean=MEAN[:channels], std=STD[:channels], device="cpu", shuffle=True, seed=5,
        augmentation=read(text), **settings,
    )  # fmt: skip
    images = torch.cat([images for epoch in range(epochs) for images, _ in loader.epoch(epoch)]).float().numpy()
    loader.close()
    return 255 * (images.transpose(0, 2, 3, 1) * np.array(STD[:channels]) + np.array(MEAN[:channels]))


SPECS = [
    "resize:40,crop:32,flip",
    "resize:40,crop:32,pad=6,flip,cutout:9",
    "resize:32x24",
    "resize:24x32,crop,pad=3",
    "resize:40,center_crop:32",
    "resize:24,center_crop:32",
    "random_resized_crop:32,flip",
    "random_resized_crop:48x40,scale=0.3-1,crop:40,pad=2",
    "resize:40,crop:32,flip,rotate:20",
]


@needs_dali
@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("noise", [12, 255])
def test_png_files_give_the_same_pixels_within_one_level(text, noise, tmp_path):
    data = files(tmp_path, "png", noise)
    by_torch, by_dali = (pixels_of(kind, data, text) for kind in ("torch", "dali"))
    assert by_torch.shape == by_dali.shape
    assert np.abs(by_torch - by_dali).max() < 1.001
    assert by_torch.std() > 20


@needs_dali
@pytest.mark.parametrize("text", SPECS)
@pytest.mark.parametrize("subsampling", [0, 2])
def test_jpeg_files_give_the_same_pixels_but_for_rounding(text, subsampling, tmp_path):
    data = files(tmp_path, "jpg", quality=90, subsampling=subsampling)
    difference = np.abs(pixels_of("torch", data, text) - pixels_of("dali", data, text))
    assert difference.mean() < 0.5
    assert (difference <= 3).mean() >= 0.999
    assert difference.max() < 1.001  # the decoders give the same bits today, and resizing rounds


@needs_dali
@pytest.mark.parametrize("text", SPECS[:1] + SPECS[-2:])
def test_views_and_turned_files_give_the_same_pixels(text, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = files(tmp_path, "jpg", quality=90, exif=exif)
    views = pixels_of("torch", data, text, views=2)
    assert np.abs(views - pixels_of("dali", data, text, views=2)).max() < 1.001
    single = pixels_of("torch", data, text)
    assert np.abs(single - pixels_of("dali", data, text)).max() < 1.001
    assert np.array_equal(views[:4], single[:4])


RECOLOURED = [
    "crop,pad=4,flip,rotate:20",
    "flip,jitter=0.4",
    "crop:24,rotate:90,jitter:0.8,randaugment:2,10,cutout:7",
    "crop,pad=2,flip,jitter:0.1,autoaugment:cifar10",
]
ARRAY_SPECS = [
    *RECOLOURED,
    *SPECS,
    "crop:24,pad=2,flip,cutout:5",
    "center_crop:40x30",
    "random_resized_crop:9,scale=0.5-1,crop:17,pad=5",
]


@pytest.mark.parametrize("text", ARRAY_SPECS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["resident", pytest.param("dali", marks=needs_dali)])
def test_arrays_give_the_same_pixels(kind, text, channels):
    images = np.stack([picture(36, 44, seed, 255) for seed in range(7)])[..., :channels]
    data = ImageTable(np.zeros(7, int), images=images)
    for views in (1, 2):
        by_torch, other = (pixels_of(each, data, text, views=views) for each in ("torch", kind))
        assert np.abs(by_torch - other).max() < 1.001


def test_pixels_are_torchvision_s_but_for_rounding(tmp_path):
    """It resizes the whole image. At the border of a smaller image Pillow weighs the pixels that there are; here as in
    DALI the border's pixel stands for those that are not."""
    from torchvision.transforms import functional

    data = files(tmp_path, "png")
    ours = pixels_of("torch", data, "resize:40,center_crop:32", epochs=1)
    loader = make_loader("torch", data, batch_size=7, mean=MEAN, std=STD, device="cpu", shuffle=True, seed=5)
    order = torch.cat([index for _, index in loader.epoch(0)]).tolist()
    for image, sample in zip(ours, order, strict=True):
        expected = functional.center_crop(functional.resize(Image.open(data.files[sample]), 40), 32)
        difference = np.abs(image - np.asarray(expected))
        assert difference.max() < 2.001
        assert difference.mean() < 0.3


@needs_dali
@pytest.mark.parametrize("text", RECOLOURED)
def test_what_needs_whole_images_is_the_same_to_the_bit(text, tmp_path):
    """Files are decoded to the same bits, and one function does the rest for all loaders."""
    data = files(tmp_path, "png")
    by_torch, by_dali = (pixels_of(kind, data, text, image_size=40, views=2) for kind in ("torch", "dali"))
    assert np.abs(by_torch - by_dali).mean() < 0.5  # resizing rounds, and what comes after it makes more of that
    arrays = ImageTable(np.zeros(5, int), images=np.stack([picture(30, 30, seed, 40) for seed in range(5)]))
    results = [pixels_of(kind, arrays, text) for kind in ("torch", "resident", "dali")]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    assert not np.array_equal(
        results[0], pixels_of("torch", arrays, text.partition(",rotate")[0].partition(",jitter")[0])
    )


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("magnitude", [0, 3, 9, 10, 17, 30])
def test_randaugment_has_torchvision_s_operations(number, magnitude):
    from torchvision.transforms import InterpolationMode, RandAugment, autoaugment

    image = Image.fromarray(picture(30, 40, 3, 40))
    name, (levels, signed) = list(RandAugment()._augmentation_space(31, (30, 40)).items())[number]
    for sign in (1, -1) if signed else (1,):
        level = float(levels[magnitude]) if levels.ndim else 0.0
        theirs = autoaugment._apply_op(image, name, level * sign, InterpolationMode.NEAREST, None)
        ours = np.asarray(OPERATIONS[number](image, magnitude / 30, sign)).astype(int)
        # Enhancements cut the fraction off, and the last bit of torch.linspace can decide about a whole number.
        assert np.abs(ours - np.asarray(theirs)).max() <= (name in ("Brightness", "Color", "Contrast", "Sharpness")), (
            name
        )


def test_jitter_and_rotation_are_torchvision_s():
    from torchvision.transforms import functional

    data = np.stack([picture(30, 40, seed, 40) for seed in range(6)])
    key = np.arange(6, dtype=np.uint64)
    found = data.copy()
    with ThreadPoolExecutor(2) as pool:
        recolour(found, Augmentation(rotate=20, jitter=0.4), key, 0, pool)
    angles, factors = 20 * (2 * uniforms(key, 2, 1)[:, 0] - 1), 0.6 + 0.8 * uniforms(key, 3, 3)
    for one, image, angle, (light, contrast, colour) in zip(found, data, angles, factors, strict=True):
        expected = functional.rotate(Image.fromarray(image), angle)
        expected = functional.adjust_contrast(functional.adjust_brightness(expected, light), contrast)
        assert np.array_equal(one, np.asarray(functional.adjust_saturation(expected, colour)))


@pytest.mark.parametrize("word", ["randaugment:3,20", "autoaugment:cifar10"])
def test_the_first_of_several_views_is_weak(word):
    data = ImageTable(np.zeros(4, int), images=np.stack([picture(30, 30, seed, 40) for seed in range(4)]))
    weak, strong = (pixels_of("torch", data, text, epochs=1, views=2) for text in ("crop,pad=2", f"crop,pad=2,{word}"))
    assert np.array_equal(weak[:4], strong[:4])
    assert (np.abs(weak[4:] - strong[4:]).max((1, 2, 3)) > 1).sum() >= 2
    alone = pixels_of("torch", data, f"crop,pad=2,{word}", epochs=1)
    assert not np.array_equal(alone, weak[:4])


@pytest.mark.parametrize("kind", ["torch", "resident"])
def test_two_of_four_views_are_weak_if_the_method_says_so(kind):
    data = ImageTable(np.zeros(4, int), images=np.stack([picture(30, 30, seed, 40) for seed in range(4)]))
    views = {"epochs": 1, "views": 4, "weak_views": 2}
    weak, strong = (pixels_of(kind, data, text, **views) for text in ("crop,pad=2", "crop,pad=2,autoaugment:cifar10"))
    assert np.array_equal(weak[:8], strong[:8])
    for first in (8, 12):
        assert (np.abs(weak[first:][:4] - strong[first:][:4]).max((1, 2, 3)) > 1).sum() >= 2


def test_a_spec_of_the_images_own_size_is_what_crop_and_flip_were():
    rng = np.random.default_rng(0)
    data = ImageTable(np.zeros(20, int), images=rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    for kind in ("torch", "resident", *["dali"] * HAS_DALI):
        settings = {"batch_size": 8, "mean": MEAN, "std": STD, "device": "cpu", "shuffle": True}
        old, new = (
            list(make_loader(kind, data, augmentation=spec, **settings).epoch(1))
            for spec in (Augmentation(4, True, 6), Augmentation.parse("crop:32,pad=4,flip,cutout:6"))
        )
        assert all(torch.equal(one[0], other[0]) for one, other in zip(old, new, strict=True))


def test_images_of_unreadable_size_are_named(tmp_path):
    data = files(tmp_path, "png")
    Path(data.files[3]).write_bytes(b"nothing")
    for kind in ("torch", *["dali"] * HAS_DALI):
        with pytest.raises(Exception, match=r"3\.png"):
            pixels_of(kind, data, "resize:40,crop:32")


# Runs


def class_folders(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 3)):
        for number in range(2):
            folder = root / part / f"class{number}"
            folder.mkdir(parents=True)
            for file in range(count):
                height, width = rng.integers(24, 60, 2)
                Image.fromarray(picture(height, width, 10 * number + file, 30)).save(folder / f"{file}.png")
    return root


@pytest.mark.parametrize("loader", ["torch", pytest.param("dali", marks=needs_dali)])
def test_a_run_is_evaluated_as_its_model_is_used(loader, tmp_path, capsys):
    data = class_folders(tmp_path / "images")
    run, out = tmp_path / "run", tmp_path / "figures.json"
    words = f"train --dataset folder:{data} --method ce --noise none --model small_cnn --width 0.25"
    words += " --epochs 1 --batch-size 4"
    words += (
        f" --augment random_resized_crop:16,flip,jitter:0.2 --eval-augment resize:20,center_crop:16 --run-dir {run}"
    )
    assert main([*words.split(), "--loader", loader]) == 0
    header, _ = read_model(run / "model.safetensors")
    assert (header.image_size, header.eval_augment) == ((16, 16), "resize:20,center_crop:16x16")
    assert main(["evaluate", str(run), f"folder:{data}", "--out", str(out)]) == 0
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert json.loads(out.read_text())["loss"] == pytest.approx(last["test_loss"], abs=1e-4)
    pictures = [str(path) for path in sorted((data / "test").rglob("*.png"))]
    network = fastnoise.load(run)
    arrays = [np.asarray(Image.open(path)) for path in pictures]
    one_by_one = np.concatenate([network.predict(array[None]) for array in arrays])
    if loader == "torch":  # else DALI decodes the files, and Pillow the arrays
        assert np.array_equal(one_by_one, network.predict_files(pictures))
    assert np.abs(one_by_one - network.predict_files(pictures)).max() < 0.01
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--augment flip --no-flip", "drop --crop-padding and --flip"),
        ("--augment flip --crop-padding 2", "drop --crop-padding and --flip"),
        ("--dataset animal10n --no-flip", "--augment animal10n says all"),
        ("--augment flop", "unknown word 'flop'; did you mean 'flip'"),
        ("--eval-augment flip", "flip is random"),
        ("--augment crop:6", "evaluation of 8x8: give an --eval-augment"),
        ("--augment crop:20", "does not fit into images of 8x8"),
        ("--augment resize:20,flip", "resize:20 keeps the aspect"),
    ],
)
def test_words_that_are_refused_in_one_line(words, said, tmp_path, capsys):
    assert main(["train", "--run-dir", str(tmp_path / "run"), *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_several_runs_of_one_stack_have_the_draws_of_single_ones():
    data = ImageTable(np.zeros(9, int), images=np.stack([picture(20, 20, seed, 40) for seed in range(9)]))
    spec = Augmentation.parse("random_resized_crop:12,flip,rotate:20,cutout:3")
    positions = [np.arange(9), np.array([8, 1, 2, 3, 5, 6, 0, 4, 7])]
    plans = [Plan(9, 4, seed=seed, augmentation=spec, shuffle=True, source=(20, 20)) for seed in (1, 2)]
    stacked = StackedPlan(plans, positions)
    settings = {"mean": MEAN, "std": STD, "device": "cpu", "augmentation": spec, "shuffle": True}
    loader = StackedLoader(make_loader("torch", data, batch_size=8, **settings), stacked, torch.device("cpu"))
    singles = [
        make_loader("torch", data.take(places), batch_size=4, seed=seed, **settings)
        for seed, places in zip((1, 2), positions, strict=True)
    ]
    for (images, _), *each in zip(loader.epoch(1), *(single.epoch(1) for single in singles), strict=True):
        together = torch.stack([part[0] for part in each], 1)
        assert torch.equal(images.reshape(together.shape), together)
