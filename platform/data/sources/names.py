"""File names: when two are the same but for case and Unicode form, and how to print any of them."""

import os
from unicodedata import normalize


def fold(text: str) -> str:
    """The text without differences in case and in Unicode form (NFC or NFD)."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", normalize("NFC", text).casefold())


def printable(name: str) -> str:
    r"""The name as valid UTF-8, with escapes such as `\xd3` for bytes that are not."""
    if name.isascii():
        return name
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def stem(name: str) -> str:
    """The name without its ending; folders stay."""
    return os.path.splitext(name)[0]  # noqa: PTH122
