"""Patterns of file names, such as `rainy_image/{scene:d}_{rain:d}.jpg`."""

import re
from collections.abc import Mapping
from functools import cached_property

from derain.data.images.decode import SUFFIXES
from derain.errors import DataError

_FIELD = re.compile(r"\{([a-z_]+)(:d)?\}")
_ENDINGS = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES))


class Pattern:
    """A pattern of file names below a folder.

    `{name}` matches any text without a slash, as long as possible; `{name:d}` matches digits. A
    pattern without the file ending of an image matches all of them. Case is ignored. Raises
    DataError for text that is not a pattern.
    """

    def __init__(self, text: str) -> None:
        self.text = text.removeprefix("./").strip("/")
        rest = _FIELD.sub("", self.text)
        self.fields = tuple(name for name, _ in _FIELD.findall(self.text))
        if not self.text or "{" in rest or "}" in rest or len(set(self.fields)) < len(self.fields):
            raise DataError(
                f"{text!r}: not a pattern of file names. Expected text with fields {{name}} or "
                "{name:d}, each used once and named with letters a to z and underscores, as in "
                "'input/{scene}_{n:d}.jpg'."
            )

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def match(self, name: str) -> dict[str, str] | None:
        """The fields of a file name, in lower case; None if it does not match."""
        found = self._expression.fullmatch(name)
        return (
            {key: value.casefold() for key, value in found.groupdict().items()} if found else None
        )

    def fill(self, values: Mapping[str, object], ending: str = ".png") -> str:
        """The file name with these fields, and with `ending` if the pattern has none."""
        name = _FIELD.sub(lambda field: str(values[field[1]]), self.text)
        return name if self.has_ending else name + ending

    @cached_property
    def folder(self) -> str:
        """The folder of all names: the text up to the last slash before the first field."""
        return self.text.partition("{")[0].rpartition("/")[0]

    @property
    def has_ending(self) -> bool:
        """True if the pattern includes the file ending."""
        return any(self.text.casefold().endswith(suffix) for suffix in SUFFIXES)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        parts, at = [], 0
        for field in _FIELD.finditer(self.text):
            parts.append(re.escape(self.text[at : field.start()]))
            parts.append(f"(?P<{field[1]}>{'[0-9]+' if field[2] else '[^/]+'})")
            at = field.end()
        ending = "" if self.has_ending else f"(?:{_ENDINGS})"
        return re.compile("".join(parts) + re.escape(self.text[at:]) + ending, re.IGNORECASE)
