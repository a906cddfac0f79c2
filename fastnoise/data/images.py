"""Image files: which are read, and how the plain reader turns one into RGB pixels."""

import numpy as np
from PIL import Image

from ..errors import DataError

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""What both DALI and Pillow decode."""


def one_line(error: BaseException) -> str:
    """An exception's message without its line breaks, to put into a message of one line."""
    return " ".join(str(error).split()) or type(error).__name__


def unreadable(path: str, why: str) -> DataError:
    return DataError(f"cannot read the image {path} ({why}): replace or remove it")


def image_size(path: str) -> tuple[int, int]:
    """Height and width from the file's header; DataError if that cannot be read."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # Pillow's decoders raise errors of any kind on damaged files
        raise unreadable(path, one_line(error)) from error


def read_image(path: str, size: tuple[int, int]) -> np.ndarray:
    """Decode a file to uint8 [H, W, 3], resized to `size` (height, width).

    Grey images are repeated over the channels, alpha is dropped, 16 bits are scaled to 8, and the orientation noted by
    a camera is ignored, all as DALI's decoder is told to do. Bilinear with antialiasing. DataError names a file that
    cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
                wide = np.asarray(image).astype(np.int64)
                rgb = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
            else:
                rgb = image.convert("RGB")
    except Exception as error:  # as above
        raise unreadable(path, one_line(error)) from error
    if (rgb.height, rgb.width) != size:
        rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(rgb)
