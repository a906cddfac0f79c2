"""Image files: which are read, and how one is turned into RGB pixels. Every loader follows what is said here.

Two decoders read files: Pillow, which reads everything, and DALI, which is faster and reads some. What DALI reads
otherwise than Pillow, or not at all, the loader of DALI has from Pillow (`dali_reads`).
"""

import io
import os
import stat
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from ..errors import DataError, said
from .members import Member

_NO_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""Formats that Pillow knows by name but does not decode by itself. For EPS it starts Ghostscript, which runs the file
as a programme."""

HEAD = 32
"""Bytes of a file that `dali_reads` looks at."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> what turns the stored pixels upright."""

_BACK = _TURNS | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
"""The same from upright to stored pixels."""


@cache
def extensions() -> frozenset[str]:
    """The endings of the files that are read, as in ".jpeg": those of every format that Pillow decodes here."""
    Image.init()
    return frozenset(
        ending.lower()
        for ending, form in Image.registered_extensions().items()
        if form in Image.OPEN and form not in _NO_PIXELS
    )


def one_line(error: BaseException) -> str:
    """An exception's message without its line breaks, to put into a message of one line."""
    if isinstance(error, UnidentifiedImageError):  # whose message names a file that is open, by its address
        return "its bytes begin like no image that can be read"
    return said(error)


def unreadable(path: str, why: str) -> DataError:
    return DataError(f"cannot read the image {path} ({why}): replace or remove it")


def require_regular(path: str) -> None:
    """DataError for a pipe, socket or device, of which reading would wait for ever; OSError for no file."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise unreadable(path, "it is no regular file")


def opened(path: str) -> Image.Image:
    """An image file, or a member of a shard, as Pillow opens it; OSError or what Pillow raises."""
    if isinstance(path, Member):
        return Image.open(io.BytesIO(path.read()))
    require_regular(path)
    return Image.open(path)


def content_of(path: str) -> bytes:
    """The bytes of a regular file, or of a member of a shard; OSError, or DataError for what is no such file."""
    if isinstance(path, Member):
        return path.read()
    require_regular(path)
    with open(path, "rb") as stream:
        return stream.read()


def read_bytes(path: str) -> bytes:
    """As `content_of`, but the DataError for a file that cannot be read names it."""
    try:
        return content_of(path)
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error


def image_size(path: str, exif: bool = True) -> tuple[int, int]:
    """Height and width from the file's header, turned as `read_image` turns it; DataError if that cannot be read."""
    try:
        with opened(path) as image:
            width, height = image.size
            if image.format == "TIFF":  # whose size Pillow may give upright already
                tags = image.tag_v2  # type: ignore[attr-defined]
                width, height = tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
            return (width, height) if exif and orientation(image) >= 5 else (height, width)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise errors of any kind on damaged files
        raise unreadable(path, one_line(error)) from error


def read_image(path: str, size: tuple[int, int], exif: bool = True) -> NDArray[np.uint8]:
    """Decode a file to uint8 [H, W, 3], resized to `size` (height, width), bilinear with antialiasing.

    Grey images are repeated over the channels, alpha is dropped, and 16 bits are scaled to 8. With `exif` the image is
    turned upright as the camera noted; without it the pixels stay as they are stored. Of several frames the first is
    read. DataError names a file that cannot be decoded, or whose pixels have no known range.
    """
    rgb = open_rgb(path, exif)
    if (rgb.height, rgb.width) != size:
        rgb = rgb.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def read_thumbnail(path: str, side: int, exif: bool = True) -> Image.Image:
    """An image file as RGB, as `read_image` says, but as a picture of it: at most `side` pixels a side, of its own
    proportions. Smaller images keep their size."""
    rgb = open_rgb(path, exif, 2 * side)
    rgb.thumbnail((side, side))
    return rgb


def open_rgb(path: str, exif: bool, side: int | None = None) -> Image.Image:
    """A file as RGB, as `read_image` says but in its own size. With `side` a JPEG file may come smaller, but with so
    many pixels a side, which is quicker."""
    try:
        with opened(path) as image:
            if side is not None:
                image.draft(None, (side, side))
            return decode(image, exif)
    except DataError:
        raise
    except Exception as error:  # as above
        raise unreadable(path, one_line(error)) from error


def decode(image: Image.Image, exif: bool = True) -> Image.Image:
    """An opened image as RGB, as `read_image` says but in its own size. What Pillow raises goes through."""
    turn = orientation(image)
    require_mode(image)
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        wide = np.asarray(image).astype(np.int64)
        rgb = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    else:
        rgb = image.convert("RGB")
    upright = image.format == "TIFF"  # which Pillow turns when it decodes
    if turn == 1 or upright == exif:
        return rgb
    return rgb.transpose(_TURNS[turn] if exif else _BACK[turn])


def require_mode(image: Image.Image) -> None:
    """ValueError for pixels of no known range or meaning, which no two programmes would show alike."""
    mode = image.mode
    if mode == "F" or (mode == "I" and image.format not in ("PNG", "PPM")):  # in these it stands for 16 bits
        kind = "real numbers" if mode == "F" else "integers of 32 bits"
        raise ValueError(f"its pixels are {kind}, mode {mode}, of unknown range; save it with 8 or 16 bits")
    if mode == "LAB":
        raise ValueError("its colours are of mode LAB; save it as RGB")


def orientation(image: Image.Image) -> int:
    """What EXIF says of the camera's position, 1..8; 1 where it says nothing or nonsense. Read before decoding.

    Only the EXIF block counts, as for DALI; Pillow's own reader would look into XMP too.
    """
    try:
        if image.format == "TIFF":
            found = image.tag_v2.get(ExifTags.Base.Orientation, 1)  # type: ignore[attr-defined]
        else:
            block = image.info.get("exif")
            if not block:
                return 1
            exif = Image.Exif()
            exif.load(block)
            found = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block, of which nothing can be said
        return 1
    return found if type(found) is int and 1 <= found <= 8 else 1


def dali_reads(head: bytes) -> bool:
    """Whether DALI reads a file like Pillow, by its first bytes: JPEG, PNG, and WebP without further chunks.

    DALI fails on WebP files that carry EXIF or frames, and its readers of other formats differ from Pillow's in what
    they take.
    """
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return True
    return head[:4] == b"RIFF" and head[8:16] in (b"WEBPVP8 ", b"WEBPVP8L")


def read_by_dali(path: str) -> bool:
    """`dali_reads` of a file; True for one that cannot be opened, so that the decoder complains."""
    try:
        if isinstance(path, Member):
            return dali_reads(path.read(HEAD))
        require_regular(path)
        with open(path, "rb") as stream:
            return dali_reads(stream.read(HEAD))
    except OSError:
        return True


def as_ppm(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bytes of a PPM file with pixels [H, W, 3], uint8 [n]: what every decoder reads without a loss."""
    stream = io.BytesIO()
    stream.write(b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]))
    stream.write(np.ascontiguousarray(pixels).data)
    return np.frombuffer(stream.getbuffer(), np.uint8)


def shown_name(path: str | Path) -> str:
    """A path as text that every file can hold: bytes that are not UTF-8 as \\xNN, with / between folders."""
    text = str(path)
    if text.isascii() and os.sep == "/":
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return text.replace(os.sep, "/")


def holds_image(path: str) -> bool:
    """Whether a file of any name holds an image, by its first bytes."""
    try:
        require_regular(path)
        with Image.open(path) as image:
            return image.format not in _NO_PIXELS
    except Exception:  # as above
        return False
