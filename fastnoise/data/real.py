"""Published data sets whose labels are wrong by nature, and others of image files, in their official layouts.

`fastnoise.data.facts` says where they lie; here is how the files of each are read. No image is opened: a list is taken
at its word, so that a million images begin in seconds, and an image that is missing is named when its batch comes.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..checks import shown
from ..errors import DataError
from .facts import FACTS, FOOD101_FOLDERS, SetFacts
from .folder import listed
from .ilsvrc import find_ilsvrc, images_of, read_ilsvrc
from .lines import Listing, is_inside, looked_up, read_keys, read_pairs, require_classes
from .names import family, read_options
from .table import ImageDataset, ImageTable
from .texts import Texts, places

MINI = 50
"""Classes of mini WebVision: the first ones."""


def load_real(name: str, root: Path, download: bool) -> ImageDataset:
    """The data set that `FACTS` has by this name, from its files under the data root.

    The first of the places that it may have (`SetFacts.folders`, or the root itself) counts. DataError in one line
    with what to get and where to put it, or with what is wrong with a list.
    """
    kind = family(name)
    facts = FACTS[kind]
    folder = _located(kind, facts, root)
    return replace(READERS[kind](facts, folder, root, name), name=name)


def _located(name: str, facts: SetFacts, root: Path) -> Path:
    for folder in (*(root / inside for inside in facts.folders), root):
        if any((folder / sign).exists() for sign in facts.signs):
            return folder
    place = root / facts.folders[0]
    raise DataError(f"{name}: no {place / facts.signs[0]}; get {facts.get} and unpack it into {place}")


def _require(path: Path, name: str, facts: SetFacts) -> Path:
    if not path.exists():
        raise DataError(f"{name}: no {path}; get {facts.get}")
    return path


def _table(facts: SetFacts, folder: Path, names: Texts, labels: NDArray[np.int64], inside: str = "") -> ImageTable:
    """Images at `folder`/`inside` + name, of which the files are as JPEG and PNG files are: DALI reads them."""
    return ImageTable(
        labels,
        files=names.behind(f"{folder}/{inside}{names.prefix}"),
        names=names,
        size=(facts.size, facts.size),
        by_pillow=np.zeros(len(labels), bool),
    )


def _dataset(
    facts: SetFacts,
    train: ImageTable,
    test: ImageTable,
    *,
    class_names: Sequence[str] = (),
    clean: NDArray[np.int64] | None = None,
    validation: ImageTable | None = None,
    second_tests: dict[str, ImageTable] | None = None,
    notes: Sequence[str] = (),
    human: dict[str, NDArray[np.int64]] | None = None,
) -> ImageDataset:
    return ImageDataset(
        "",
        train,
        test,
        tuple(class_names or facts.class_names),
        facts.mean,
        facts.std,
        human_labels=human or {},
        given_labels=facts.given_labels,
        clean_labels=clean,
        validation=validation,
        second_tests=second_tests or {},
        notes=tuple(notes),
    )


# -- ANIMAL-10N ----------------------------------------------------------------------------------------------------


def _animal10n(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """training/LABEL_*.jpg and testing/LABEL_*.jpg, the label before the first underscore; sorted by name."""

    def part(inside: str) -> ImageTable:
        files = images_of(_require(folder / inside, name, facts))
        found = [re.match(r"([0-9]{1,9})_", file) for file in files]
        bad = [
            file
            for file, match in zip(files, found, strict=True)
            if match is None or int(match[1]) >= len(facts.class_names)
        ]
        if bad:
            raise DataError(
                f"{folder / inside}: {len(bad)} files do not begin with a class 0 to 9 and _: {listed(bad, shown)}"
            )
        labels = np.array([int(match[1]) for match in found if match], np.int64)
        return _table(facts, folder, Texts.of(files, f"{inside}/"), labels)

    return _dataset(facts, part("training"), part("testing"))


# -- Clothing1M ----------------------------------------------------------------------------------------------------


def _clothing1m(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """The four key lists and the two lists of labels, which lie in the folder itself, in label/ or in annotations/.

    Their keys begin with images/, which is a folder beside them, or the folder itself, as in the code of DivideMix and
    ELR. A training image that has a label in the clean list as well has that as its clean label.
    """
    inside = next(part for part in ("", "label", "annotations") if (folder / part / "noisy_label_kv.txt").exists())
    lists = folder / inside
    strip = not (folder / "images").is_dir()

    def keys(file: str) -> Listing:
        return read_keys(_require(lists / file, name, facts))

    noisy = read_pairs(lists / "noisy_label_kv.txt")
    clean = read_pairs(_require(lists / "clean_label_kv.txt", name, facts))
    for listing in (noisy, clean):
        require_classes(listing, len(facts.class_names))

    def table(listing: Listing, labels: NDArray[np.int64]) -> ImageTable:
        return _table(facts, folder, (listing.without("images/") if strip else listing).texts, labels)

    train = keys("noisy_train_key_list.txt")
    given = noisy.labels[looked_up(train, noisy, "label")]
    checked = places(train.texts, clean.texts)
    true = np.where(checked >= 0, clean.labels[checked], -1)
    held = [keys(f"clean_{part}_key_list.txt") for part in ("val", "test")]
    validation, test = (table(each, clean.labels[looked_up(each, clean, "label")]) for each in held)
    notes = [f"clean labels are known of {(true >= 0).sum()} of {len(true)} training images"]
    for what, each in zip(("validation", "test"), held, strict=True):
        if shared := int((places(each.texts, train.texts) >= 0).sum()):
            notes.append(f"{shared} {what} images are training images too, as the lists have it")
    return _dataset(facts, table(train, given), test, clean=true, validation=validation, notes=notes)


# -- WebVision -----------------------------------------------------------------------------------------------------


def _webvision(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """The lists in info/, of the images found by Google and by Flickr; with ILSVRC2012's validation images, if they are
    there, as a second test set. mini_webvision: Google's images of the first 50 classes."""
    mini = name == "mini_webvision"
    wnids, class_names = _synsets(folder / "info" / "synsets.txt")
    wanted = MINI if mini else len(wnids)
    if len(wnids) < wanted:
        raise DataError(f"{folder / 'info' / 'synsets.txt'}: {len(wnids)} classes, and {name} has {wanted}")
    notes = []
    lists = [_require(folder / "info" / "train_filelist_google.txt", name, facts)]
    if not mini and (flickr := folder / "info" / "train_filelist_flickr.txt").exists():
        lists.append(flickr)
    elif not mini:
        notes.append(f"without {flickr.name}: the training set is what Google found")
    parts = [_part(folder, path, len(wnids), wanted) for path in lists]
    train = [_table(facts, folder, part.texts, part.labels, inside) for part, inside in parts]
    held = read_pairs(_require(folder / "info" / "val_filelist.txt", name, facts))
    require_classes(held, len(wnids))
    held = held.take(held.labels < wanted)
    test = _table(facts, folder, held.texts.behind("val_images_256/"), held.labels)
    second = {}
    if (images := find_ilsvrc(root, folder)) is None:
        notes.append(
            f"no validation images of ILSVRC2012 in {root / 'imagenet' / 'val'}, which papers have as a second test set"
        )
    else:
        names, labels = read_ilsvrc(images, wnids, wanted)
        second["ilsvrc"] = _table(facts, images, names, labels)
    joined = train[0] if len(train) == 1 else _joined(facts, train)
    return _dataset(facts, joined, test, class_names=class_names[:wanted], second_tests=second, notes=notes)


def _part(folder: Path, path: Path, num_classes: int, wanted: int) -> tuple[Listing, str]:
    """The rows of a list with classes below `wanted`, and the folder that its paths are relative to: that of the data
    set, or the one of the list's source in it."""
    listing = read_pairs(path)
    require_classes(listing, num_classes)
    if wanted < num_classes:
        listing = listing.take(listing.labels < wanted)
    if not len(listing):
        raise DataError(f"{path}: no image is of the first {wanted} classes")
    source = path.stem.rpartition("_")[2]
    first = listing.texts[0].split("/")[0]
    nested = not (folder / first).exists() and (folder / source / first).exists()
    return listing, f"{source}/" if nested else ""


def _joined(facts: SetFacts, tables: Sequence[ImageTable]) -> ImageTable:
    """One table of several whose files lie in one folder."""
    blocks: list[NDArray[np.uint8]] = []
    starts, ends, prefixes, at = [], [], set[str](), 0
    for table in tables:
        assert isinstance(table.files, Texts)
        prefixes.add(table.files.prefix)
        blocks.append(table.files.block)
        starts.append(table.files.starts + at)
        ends.append(table.files.ends + at)
        at += len(table.files.block)
    if len(prefixes) > 1:
        raise DataError(
            f"the paths of two lists begin in {' and '.join(sorted(prefixes))}; both must begin in one folder"
        )
    texts = Texts(np.concatenate(blocks), np.concatenate(starts), np.concatenate(ends))
    labels = np.concatenate([table.labels for table in tables])
    return replace(_table(facts, Path(), texts, labels), files=texts.behind(prefixes.pop()))


def _synsets(path: Path) -> tuple[list[str], list[str]]:
    """The WordNet id and the name of each class: line i + 1 is class i. Names that two classes share get their id."""
    try:
        rows = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    wnids = [row[0] for row in rows]
    if not rows or len(set(wnids)) < len(wnids):
        raise DataError(f"{path}: needs a line for each class that begins with its WordNet id, each another one")
    names = [row[-1].strip() for row in rows]
    return wnids, [
        name if names.count(name) == 1 else f"{name} ({wnid})" for wnid, name in zip(wnids, names, strict=True)
    ]


# -- Food-101N -----------------------------------------------------------------------------------------------------


def _food101n(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """meta/classes.txt and meta/imagelist.tsv, whose first lines name their columns; the images' classes are their
    folders. Images that meta/verified_{train,val}.tsv flag as right have their label as clean label; of the wrong ones
    nobody says what they show. The test set is that of Food-101, whose list names files without .jpg."""
    classes = sorted(read_keys(_require(folder / "meta" / "classes.txt", name, facts), header="class_name").texts)
    numbers = {label: number for number, label in enumerate(classes)}
    listing = read_keys(folder / "meta" / "imagelist.tsv", header="class_name")
    labels = _by_folder(listing, numbers)
    clean = np.full(len(labels), -1)
    flagged, wrong, strange = 0, 0, 0
    for part in ("train", "val"):
        flags = read_pairs(_require(folder / "meta" / f"verified_{part}.tsv", name, facts), header="class_name")
        if len(rows := np.flatnonzero(flags.labels > 1)):
            raise DataError(f"{flags.path}: the flags are 0 or 1, not as {flags.named(rows)}")
        at = places(flags.texts, listing.texts)
        strange += int((at < 0).sum())  # the official lists have one file in two classes
        right = (flags.labels == 1) & (at >= 0)
        clean[at[right]] = labels[at[right]]
        flagged, wrong = flagged + int((at >= 0).sum()), wrong + int(((flags.labels == 0) & (at >= 0)).sum())
    right_ones = f"{flagged - wrong} right, which alone have clean labels"
    notes = [f"{flagged} training images are verified: {right_ones}, and {wrong} wrong"]
    if strange:
        notes.append(f"{strange} verified images are not in imagelist.tsv under their class and are left out")
    food = _food101(root, folder)
    held = read_keys(food / "meta" / "test.txt")
    files = Texts.of([f"{text}.jpg" for text in held.texts], "images/")
    test = _table(facts, food, files, _by_folder(held, numbers))
    train = _table(facts, folder, listing.texts.behind("images/"), labels)
    test = replace(test, names=files.behind(f"{food.name}/images/"))
    return _dataset(facts, train, test, class_names=classes, clean=clean, notes=notes)


def _food101(root: Path, folder: Path) -> Path:
    for place in (
        *(root / inside for inside in FOOD101_FOLDERS),
        *(folder.parent / inside for inside in FOOD101_FOLDERS),
    ):
        if (place / "meta" / "test.txt").exists():
            return place
    place = root / FOOD101_FOLDERS[0]
    raise DataError(
        f"food101n: no {place / 'meta' / 'test.txt'}; get Food-101 (food-101.tar.gz, from data.vision.ee.ethz.ch/cvl), "
        f"whose test set it has, and unpack it into {place}"
    )


def _by_folder(listing: Listing, numbers: dict[str, int]) -> NDArray[np.int64]:
    """The class of each row by the first folder of its path; DataError names the first that are of no class."""
    labels = np.array([numbers.get(text.partition("/")[0], -1) for text in listing.texts], np.int64)
    if len(rows := np.flatnonzero(labels < 0)):
        raise DataError(f"{listing.path}: {len(rows)} paths begin with no class of classes.txt: {listing.named(rows)}")
    return labels


# -- Chaoyang ------------------------------------------------------------------------------------------------------


def _chaoyang(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """train.json and test.json: lists of {"name", "label"}. The labels of the three pathologists, which the authors'
    repository has in train_label.json, are human labels A, B and C if that file lies beside them."""
    train, test = (_json_rows(_require(folder / f"{part}.json", name, facts), facts) for part in ("train", "test"))
    human: dict[str, NDArray[np.int64]] = {}
    if (extra := folder / "train_label.json").exists():
        for letter in "ABC":
            names, labels = _json_rows(extra, facts, f"label_{letter}")
            by_name = dict(zip(names, labels.tolist(), strict=True))
            if missing := [each for each in train[0] if each not in by_name]:
                raise DataError(f"{extra}: {len(missing)} training images have no labels: {listed(missing, shown)}")
            human[letter] = np.array([by_name[each] for each in train[0]], np.int64)
    tables = [_table(facts, folder, Texts.of(names), labels) for names, labels in (train, test)]
    return _dataset(facts, *tables, human=human)


def _json_rows(path: Path, facts: SetFacts, key: str = "label") -> tuple[list[str], NDArray[np.int64]]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())})") from None
    if not isinstance(rows, list) or not rows:
        raise DataError(f'{path}: must be a list of {{"name": "train/X.JPG", "label": 0}}')
    seen: dict[str, int] = {}
    labels = np.empty(len(rows), np.int64)
    for place, row in enumerate(rows):
        name, label = (row.get("name"), row.get(key)) if isinstance(row, dict) else (None, None)
        if not isinstance(name, str) or type(label) is not int or not 0 <= label < len(facts.class_names):
            wanted = f"a name and a {key} from 0 to {len(facts.class_names) - 1}"
            raise DataError(f"{path}: entry {place} is {shown(row)}; it needs {wanted}")
        if not is_inside(name):
            raise DataError(f"{path}: entry {place}: the path {shown(name)} leads out of the data set's folder")
        if seen.setdefault(name, place) != place:
            raise DataError(f"{path}: {shown(name)} is there twice, in entries {seen[name]} and {place}; drop one")
        labels[place] = label
    return list(seen), labels


# -- class folders -------------------------------------------------------------------------------------------------


def _folders(facts: SetFacts, folder: Path, inside: Sequence[str], below: str = "") -> ImageTable:
    """The images in folder/PART/CLASS/below of several parts, part by part and class by class."""
    found: list[str] = []
    labels: list[int] = []
    for part in inside:
        for number, label in enumerate(facts.class_names):
            place = f"{part}/{label}{below}"
            files = images_of(folder / place)
            found += [f"{place}/{file}" for file in files]
            labels += [number] * len(files)
    return _table(facts, folder, Texts.of(found), np.array(labels, np.int64))


def _classes_of(folder: Path) -> tuple[str, ...]:
    """The names of the class folders in a folder, sorted."""
    names = tuple(sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()))
    if len(names) < 2:
        raise DataError(f"{folder}: {len(names)} class folders; it must hold one for each class, by its WordNet id")
    return names


def _chest_xray(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg. As in SWCE's paper, whose test set has 640 images, the 16 images of
    val belong to the test set."""
    inside, notes = ["test", "val"], []
    if not (folder / "val").exists():
        inside.remove("val")
        notes.append(f"no folder val in {folder}: the test set is test alone, without the 16 images of val")
    for part in ("train", "test"):
        _require(folder / part, name, facts)
    return _dataset(facts, _folders(facts, folder, ["train"]), _folders(facts, folder, inside), notes=notes)


def _tiny_imagenet(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """train/WNID/images/*.JPEG; val/images with val/val_annotations.txt, `FILE WNID x y w h`, is the test set. The
    images of test have no labels. Classes are the sorted WordNet ids."""
    facts = replace(facts, class_names=_classes_of(folder / "train"))
    train = _folders(facts, folder, ["train"], "/images")
    path = _require(folder / "val" / "val_annotations.txt", name, facts)
    numbers = {wnid: number for number, wnid in enumerate(facts.class_names)}
    files: dict[str, int] = {}
    for line, row in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        file, wnid, *_ = (*row.split(), "", "")
        if not row.strip():
            continue
        if wnid not in numbers or not is_inside(file):
            raise DataError(
                f"{path}: line {line} is {shown(row)}, not a file and one of the {len(numbers)} WordNet ids"
            )
        if file in files:
            raise DataError(f"{path}: line {line}: {shown(file)} is there twice; drop one")
        files[file] = numbers[wnid]
    names = sorted(files)
    test = _table(facts, folder, Texts.of(names, "val/images/"), np.array([files[each] for each in names], np.int64))
    return _dataset(facts, train, test, class_names=facts.class_names)


def _imagenet(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """train/WNID/*.JPEG, with the validation images in one of the layouts that `read_ilsvrc` knows as the test set."""
    facts = replace(facts, class_names=_classes_of(folder / "train"))
    _require(folder / "val", name, facts)
    names, labels = read_ilsvrc(folder, facts.class_names, len(facts.class_names))
    test = _table(facts, folder, names, labels)
    return _dataset(facts, _folders(facts, folder, ["train"]), test, class_names=facts.class_names)


# -- Controlled Noisy Web Labels -----------------------------------------------------------------------------------


def _mini_imagenet(facts: SetFacts, folder: Path, root: Path, name: str) -> ImageDataset:
    """split/{red,blue}_noise_nl_RATE and split/clean_validation: `FILE LABEL`. Training images lie in all_images, or in
    training_s32/SPLIT; those of validation in validation/LABEL."""
    colour, rate = family(name).partition("_")[0], float(read_options(name)["rate"])
    split = f"{colour}_noise_nl_{rate}"
    if not (folder / "split" / split).exists():
        there = sorted(path.name.rpartition("_")[2] for path in (folder / "split").glob(f"{colour}_noise_nl_*"))
        found = f"there are rates {', '.join(there)}" if there else f"get {facts.get}"
        raise DataError(f"{name}: no {folder / 'split' / split}; {found}")
    train, held = (
        read_pairs(folder / "split" / split),
        read_pairs(_require(folder / "split" / "clean_validation", name, facts)),
    )
    count = 1 + int(max(train.labels.max(), held.labels.max()))
    inside = "all_images/" if not (folder / "training_s32").exists() else f"training_s32/{split}/"
    files = Texts.of([f"{label}/{text}" for label, text in zip(held.labels.tolist(), held.texts, strict=True)])
    return _dataset(
        facts,
        _table(facts, folder, train.texts.behind(inside), train.labels),
        _table(facts, folder, files.behind("validation/"), held.labels),
        class_names=tuple(map(str, range(count))),
    )


READERS: dict[str, Callable[[SetFacts, Path, Path, str], ImageDataset]] = {
    "animal10n": _animal10n,
    "blue_mini_imagenet": _mini_imagenet,
    "chaoyang": _chaoyang,
    "chest_xray": _chest_xray,
    "clothing1m": _clothing1m,
    "food101n": _food101n,
    "imagenet": _imagenet,
    "mini_webvision": _webvision,
    "red_mini_imagenet": _mini_imagenet,
    "tiny_imagenet": _tiny_imagenet,
    "webvision": _webvision,
}
"""Name -> a function of (facts, the data set's folder, the data root, the name with its options)."""
