"""Words for lines that people read."""


def printable(text: str) -> str:
    """A name on one line, with a sign in place of bytes that are not UTF-8."""
    return " ".join(text.encode(errors="surrogateescape").decode(errors="replace").splitlines())


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with its noun or phrase: 1 image, 2 images. Without `many` the plural has an s."""
    return f"{count} {one if count == 1 else many or one + 's'}"
