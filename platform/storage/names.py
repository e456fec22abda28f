"""File names that fit: file systems take at most 255 bytes."""

import hashlib
import os
from pathlib import PurePosixPath

MAX_BYTES = 255
"""Longest file name of ext4, XFS, btrfs, tmpfs and NFS, in bytes of its UTF-8 form."""

_LONGEST_ENDING = 16
_DIGEST_SIGNS = 8


def fitting(name: str, max_bytes: int = MAX_BYTES, *, digest: bool = False) -> str:
    """`name` if it has at most `max_bytes` bytes, else with the end of its stem cut off.

    The ending (`.png`) stays, and no character is cut in half. With `digest=True` a cut stem ends
    in eight signs of the whole name's SHA-256, so that two names which begin alike stay two. What
    follows a dot far from the end is part of the stem. Bytes that are not UTF-8 are kept as the
    surrogates by which Python names such files.
    """
    if len(os.fsencode(name)) <= max_bytes:
        return name
    ending = PurePosixPath(name).suffix
    if len(os.fsencode(ending)) > _LONGEST_ENDING:
        ending = ""
    mark = f"-{hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST_SIGNS]}" if digest else ""
    kept = mark + ending
    return _cut(name.removesuffix(ending), max_bytes - len(os.fsencode(kept))) + kept


def _cut(text: str, max_bytes: int) -> str:
    """The longest beginning of a text that has at most `max_bytes` bytes."""
    while text and len(os.fsencode(text)) > max_bytes:
        text = text[:-1]
    return text
