"""Published data sets of image files: what they are called, where their files lie, and how papers treat them.

One table, without an import of NumPy or torch. `fastnoise.data.real` reads the files.
"""

from dataclasses import dataclass

IMAGENET_MEAN_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's training images, as torchvision and most papers have them."""
CLOTHING_MEAN_STD = (0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214)
"""Of Clothing1M's images, as the code of DivideMix, ELR and DISC has them."""


@dataclass(frozen=True)
class SetFacts:
    """What is known of a data set before it is looked at."""

    folders: tuple[str, ...]
    """Where it may lie under the data root, the usual place first. The root itself is the last place."""
    signs: tuple[str, ...]
    """Files or folders that are there if the data set is: one is enough."""
    get: str
    """What to get, for those who have it not."""
    size: int
    """Side in pixels that images are resized to if neither --image-size nor an augmentation says another."""
    augment: str
    """Of training images in papers of the field, in the words of --augment, whose preset of this name it is."""
    eval_augment: str
    """Of images in evaluation, in the words of --eval-augment."""
    class_names: tuple[str, ...] = ()
    """Empty if the data set's own files name them."""
    mean: tuple[float, ...] = IMAGENET_MEAN_STD[0]
    std: tuple[float, ...] = IMAGENET_MEAN_STD[1]
    given_labels: bool = True
    """Whether the labels are as they were given, right or wrong. Otherwise they count as the true ones."""


_WEBVISION = "WebVision 1.0 in its version of 256 pixels (info.tgz, google and val_images_256), from vision.ee.ethz.ch"
_CNWL = "the Controlled Noisy Web Labels of mini-ImageNet (google.github.io/controlled-noisy-web-labels)"
_RESIZED_CROP = "resize:256,crop:224,flip", "resize:256,center_crop:224"
_WEB_CROP = "resize:256,crop:227,flip", "resize:256,center_crop:227"  # WebVision's images have 256 pixels already
_SMALL_CROP = "resize:32x32,crop:32,pad=4,flip", "resize:32x32"

FACTS: dict[str, SetFacts] = {
    "animal10n": SetFacts(
        ("animal10n", "ANIMAL-10N", "Animal-10N", "raw_image_ver/raw_image", "animal10n/raw_image_ver/raw_image"),
        ("training",),
        "the image version of ANIMAL-10N (raw_image_ver.zip, from dm.kaist.ac.kr/datasets/animal-10n)",
        64,
        "flip",
        "none",
        ("cat", "lynx", "wolf", "coyote", "cheetah", "jaguar", "chimpanzee", "orangutan", "hamster", "guinea pig"),
    ),
    "clothing1m": SetFacts(
        ("clothing1m", "Clothing1M", "clothing1M"),
        ("noisy_label_kv.txt", "label/noisy_label_kv.txt", "annotations/noisy_label_kv.txt"),
        "Clothing1M with its lists of keys and labels, which its authors send (github.com/Cysu/noisy_label)",
        224,
        *_RESIZED_CROP,
        (
            *("T-Shirt", "Shirt", "Knitwear", "Chiffon", "Sweater", "Hoodie", "Windbreaker", "Jacket", "Down Coat"),
            *("Suit", "Shawl", "Dress", "Vest", "Underwear"),
        ),
        *CLOTHING_MEAN_STD,
    ),
    "webvision": SetFacts(("webvision", "WebVision"), ("info/synsets.txt",), _WEBVISION, 227, *_WEB_CROP),
    "mini_webvision": SetFacts(
        ("webvision", "WebVision", "mini_webvision", "mini-webvision"),
        ("info/synsets.txt",),
        _WEBVISION,
        227,
        *_WEB_CROP,
    ),
    "food101n": SetFacts(
        ("Food-101N_release", "food101n", "Food-101N"),
        ("meta/imagelist.tsv",),
        "Food-101N (Food-101N_release.zip, from kuanghuei.github.io/Food-101N)",
        224,
        *_RESIZED_CROP,
    ),
    "chaoyang": SetFacts(
        ("chaoyang", "chaoyang-data", "Chaoyang"),
        ("train.json",),
        "Chaoyang, which its authors send (github.com/bupt-ai-cz/HSA-NRL)",
        256,
        "resize:256x256,flip",
        "resize:256x256",
        ("normal", "serrated", "adenocarcinoma", "adenoma"),
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
    ),
    "chest_xray": SetFacts(
        ("chest_xray", "chest_xray/chest_xray", "chest-xray-pneumonia/chest_xray"),
        ("train/NORMAL",),
        "the chest X-rays of Kermany et al. (kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia)",
        224,
        *_RESIZED_CROP,
        ("NORMAL", "PNEUMONIA"),
        given_labels=False,
    ),
    "tiny_imagenet": SetFacts(
        ("tiny-imagenet-200", "tiny_imagenet", "tiny-imagenet"),
        ("train",),
        "Tiny ImageNet (tiny-imagenet-200.zip, from cs231n.stanford.edu)",
        64,
        "crop,pad=8,flip",
        "none",
        given_labels=False,
    ),
    "red_mini_imagenet": SetFacts(
        ("red_mini_imagenet", "mini-imagenet", "red_blue"), ("split",), _CNWL, 32, *_SMALL_CROP
    ),
    "blue_mini_imagenet": SetFacts(
        ("blue_mini_imagenet", "mini-imagenet", "red_blue"), ("split",), _CNWL, 32, *_SMALL_CROP
    ),
    "imagenet": SetFacts(
        ("imagenet", "ILSVRC2012", "ImageNet"),
        ("train",),
        "the training and validation images of ILSVRC2012 (image-net.org), each archive unpacked into its own folder",
        224,
        "random_resized_crop:224,flip",
        "resize:256,center_crop:224",
        given_labels=False,
    ),
}
"""Name -> facts, of the data sets that `fastnoise.data.real` reads."""

ILSVRC_FOLDERS = ("imagenet", "ILSVRC2012", "ilsvrc2012", "ImageNet")
"""Where the validation images of ILSVRC2012 may lie, under the data root or the folder of WebVision."""
ILSVRC_SIGNS = ("val", "imagenet_val.txt", "val.txt")

FOOD101_FOLDERS = ("food-101", "food101", "Food-101")
"""Where Food-101 may lie under the data root or beside Food-101N."""
