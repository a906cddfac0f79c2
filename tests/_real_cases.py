"""Published data sets in their official layouts, with two or three images a class, written to a folder."""

import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 40
"""Of the images, which data sets resize to their own."""


def write_image(path: Path, label: int, side: int = SIDE) -> None:
    """An image whose colour tells its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(zlib.crc32(path.name.encode()) + label).integers(0, 40, (side, side, 3))
    pixels[: side // 2, :, label % 3] += 40 + 10 * (label % 16)
    Image.fromarray(pixels.astype(np.uint8)).save(path, format="PNG" if path.suffix == ".png" else "JPEG")


def write_lines(path: Path, lines: Iterable[str], *, end: str = "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}{end}" for line in lines), newline="")
    return path


def animal10n(root: Path) -> None:
    for part, count in (("training", 3), ("testing", 2)):
        for label in range(10):
            for number in range(count):
                write_image(root / "animal10n" / part / f"{label}_{number}_img.jpg", label)


CLOTHING = ("official", "images", "label", "annotations")
"""The conventions in which Clothing1M's lists and images lie."""


def clothing1m(root: Path, convention: str = "official") -> Path:
    """28 noisy training images, of which every fourth has a clean label too, 14 for validation and 14 to test."""
    folder = root / "clothing1m"
    lists = folder / {"label": "label", "annotations": "annotations"}.get(convention, "")
    noisy = {f"images/{row % 3}/{row:02}.jpg": row % 14 for row in range(28)}
    clean = {key: (label + (row % 8 == 0)) % 14 for row, (key, label) in enumerate(noisy.items()) if row % 4 == 0}
    parts = {part: {f"images/{part}/{row:02}.jpg": row for row in range(14)} for part in ("val", "test")}
    for key, label in (noisy | parts["val"] | parts["test"]).items():
        write_image(folder / (key.removeprefix("images/") if convention == "images" else key), label)
    write_lines(lists / "noisy_label_kv.txt", (f"{key} {label}" for key, label in noisy.items()))
    labels = clean | parts["val"] | parts["test"]
    write_lines(lists / "clean_label_kv.txt", (f"{key} {label}" for key, label in labels.items()))
    write_lines(lists / "noisy_train_key_list.txt", noisy)
    for part, keys in {"train": clean, **parts}.items():
        write_lines(lists / f"clean_{part}_key_list.txt", keys)
    return lists


WNIDS = [f"n{90000000 - 7 * (row * 37 % 60):08}" for row in range(60)]
"""Of classes 0 to 59 in the order of the classes, which is not that of the ids."""

ILSVRC = ("wnids", "numbers", "imagenet_val.txt", "val.txt", "devkit")
"""The layouts of ILSVRC2012's validation images."""


def webvision(root: Path, layout: str | None = "wnids", *, google: str = "google/") -> Path:
    """60 classes, with images of the first three, of class 49 and of two beyond the first 50."""
    folder, some = root / "webvision", (0, 1, 2, 49, 50, 59)
    write_lines(
        folder / "info" / "synsets.txt",
        (f"{wnid} name {'of two' if row in (3, 4) else row}, other" for row, wnid in enumerate(WNIDS)),
    )
    for source, prefix in (("google", google), ("flickr", "flickr/")):
        rows = [(f"{prefix}q{label:04}/{number}.jpg", label) for label in some for number in range(3)]
        write_lines(folder / "info" / f"train_filelist_{source}.txt", (f"{name} {label}" for name, label in rows))
        for name, label in rows:
            write_image(folder / f"{source}/{name.removeprefix(prefix)}", label)
    rows = [(f"val{label:06}_{number}.jpg", label) for label in some for number in range(2)]
    write_lines(folder / "info" / "val_filelist.txt", (f"{name} {label}" for name, label in rows))
    for name, label in rows:
        write_image(folder / "val_images_256" / name, label)
    if layout is not None:
        ilsvrc(root / "imagenet", layout, WNIDS, some)
    return folder


def ilsvrc(folder: Path, layout: str, wnids: list[str], some: Iterable[int]) -> None:
    """Two validation images of each of some classes, in one of the layouts."""
    rows = [(f"ILSVRC2012_val_{number:05}{label:03}.JPEG", label) for number in range(2) for label in some]
    in_order = sorted(wnids)
    for name, label in rows:
        inside = {"wnids": f"{wnids[label]}/", "numbers": f"{label}/"}.get(layout, "")
        write_image(folder / "val" / inside / name, label)
    if layout.endswith(".txt"):
        write_lines(folder / layout, (f"{name} {in_order.index(wnids[label])}" for name, label in rows))
    if layout == "devkit":
        from scipy.io import savemat

        ids = {label: 1 + (7 * label + 3) % len(wnids) for label in range(len(wnids))}  # ILSVRC's own order
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
        table = np.array([(ids[label], wnid) for label, wnid in enumerate(wnids)], dtype=kind)
        inside_folder = folder / "ILSVRC2012_devkit_t12" / "data"
        inside_folder.mkdir(parents=True)
        savemat(str(inside_folder / "meta.mat"), {"synsets": table})
        write_lines(
            inside_folder / "ILSVRC2012_validation_ground_truth.txt", (str(ids[label]) for _, label in sorted(rows))
        )


FOODS = ("apple_pie", "baklava", "waffles")


def food101n(root: Path) -> Path:
    """Nine images of three classes, of which five are verified right and one wrong; six to test."""
    folder, other = root / "Food-101N_release", root / "food-101"
    write_lines(folder / "meta" / "classes.txt", ("class_name", *FOODS[::-1]))
    keys = [f"{food}/{number}abc.jpg" for number in range(3) for food in FOODS]
    write_lines(folder / "meta" / "imagelist.tsv", ("class_name/key", *keys))
    flags = {"train": [(key, 1) for key in keys[:4]] + [(keys[4], 0)], "val": [(keys[5], 1)]}
    flags["val"].append(("waffles/0lost.jpg", 1))
    for part, rows in flags.items():
        lines = ["class_name/key\tverification_label", *(f"{key}\t{flag}" for key, flag in rows)]
        write_lines(folder / "meta" / f"verified_{part}.tsv", lines, end="\r\n")
    tests = [f"{food}/{number}" for food in FOODS for number in (101, 102)]
    write_lines(other / "meta" / "test.txt", tests)
    for key in keys:
        write_image(folder / "images" / key, FOODS.index(key.split("/")[0]))
    for key in tests:
        write_image(other / "images" / f"{key}.jpg", FOODS.index(key.split("/")[0]))
    return folder


def chaoyang(root: Path) -> Path:
    folder = root / "chaoyang"
    for part, count in (("train", 3), ("test", 2)):
        rows = [
            {"name": f"{part}/{label}{number}-A.JPG", "label": label} for label in range(4) for number in range(count)
        ]
        for row in rows:
            write_image(folder / str(row["name"]), int(row["label"]))
        write_lines(folder / f"{part}.json", [json.dumps(rows)])
        if part == "train":
            labels = [
                {**row, **{f"label_{letter}": (row["label"] + n) % 4 for n, letter in enumerate("ABC")}} for row in rows
            ]
            write_lines(folder / "train_label.json", [json.dumps(labels[::-1])])
    return folder


def chest_xray(root: Path) -> Path:
    folder = root / "chest_xray"
    for part, count in (("train", 4), ("val", 1), ("test", 2)):
        for label, kind in enumerate(("NORMAL", "PNEUMONIA")):
            for number in range(count):
                write_image(folder / part / kind / f"{part}-{number}.jpeg", label, side=SIDE + 5 * number)
    write_lines(folder / "train" / "NORMAL" / ".DS_Store", [""])
    return folder


def tiny_imagenet(root: Path) -> Path:
    folder, wnids = root / "tiny-imagenet-200", ["n02", "n01", "n03"]
    for label, wnid in enumerate(sorted(wnids)):
        for number in range(3):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", label)
        write_image(folder / "val" / "images" / f"val_{label}.JPEG", label)
        write_image(folder / "val" / "images" / f"val_{label + 3}.JPEG", label)
    rows = [f"val_{number}.JPEG\t{sorted(wnids)[number % 3]}\t0\t0\t9\t9" for number in range(6)]
    write_lines(folder / "val" / "val_annotations.txt", rows)
    write_lines(folder / "wnids.txt", wnids)
    return folder


def red_mini_imagenet(root: Path, colour: str = "red") -> Path:
    folder = root / f"{colour}_mini_imagenet"
    rows = [(f"{label}{number}.jpg", label) for label in range(3) for number in range(3)]
    held = [(f"v{label}{number}.jpg", label) for label in range(3) for number in range(2)]
    write_lines(folder / "split" / f"{colour}_noise_nl_0.4", (f"{name} {label}" for name, label in rows))
    write_lines(folder / "split" / "clean_validation", (f"{name} {label}" for name, label in held))
    for name, label in rows:
        write_image(folder / "all_images" / name, label)
    for name, label in held:
        write_image(folder / "validation" / str(label) / name, label)
    return folder


def blue_mini_imagenet(root: Path) -> Path:
    return red_mini_imagenet(root, "blue")


def imagenet(root: Path, layout: str = "wnids") -> Path:
    wnids = WNIDS[:3]
    for label, wnid in enumerate(sorted(wnids)):
        for number in range(3):
            write_image(root / "imagenet" / "train" / wnid / f"{wnid}_{number}.JPEG", label)
    ilsvrc(root / "imagenet", layout, sorted(wnids), range(3))
    return root / "imagenet"


MAKERS: dict[str, Callable[[Path], object]] = {
    "animal10n": animal10n,
    "blue_mini_imagenet": blue_mini_imagenet,
    "chaoyang": chaoyang,
    "chest_xray": chest_xray,
    "clothing1m": clothing1m,
    "food101n": food101n,
    "imagenet": imagenet,
    "mini_webvision": webvision,
    "red_mini_imagenet": red_mini_imagenet,
    "tiny_imagenet": tiny_imagenet,
    "webvision": webvision,
}
