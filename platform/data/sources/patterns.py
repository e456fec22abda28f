"""Patterns of file names, such as `rainy_image/{scene:d}_{rain:d}.jpg`."""

import re
from collections.abc import Mapping
from functools import cached_property
from unicodedata import normalize

from derain.data.images.kinds import SUFFIXES
from derain.data.sources.names import fold
from derain.errors import DataError

_FIELD = re.compile(r"\{([a-z_]+)(:d|:\*)?\}")
_FIELD_TEXTS = {None: "[^/]+", ":d": "[0-9]+", ":*": "[^/]*"}
_SUFFIXES = sorted(SUFFIXES)
_ENDINGS = "|".join(map(re.escape, _SUFFIXES))


class Pattern:
    """A pattern of file names below a folder.

    `{name}` matches any text without a slash, as long as possible; `{name:d}` matches digits;
    `{name:*}` matches any text or none. A pattern without the file ending of an image matches all
    of them. Case is ignored, and so is whether accents are characters of their own (NFD) or not
    (NFC). Raises DataError for text that is not a pattern.
    """

    def __init__(self, text: str) -> None:
        self.text = normalize("NFC", text).removeprefix("./").strip("/")
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
        """The fields of a file name, without case and in one Unicode form; None without a match."""
        found = self.read(name)
        return None if found is None else {key: fold(value) for key, value in found.items()}

    def read(self, name: str, *, any_ending: bool = False) -> dict[str, str] | None:
        """The fields of a file name as they are spelled; None if it does not match.

        With `any_ending` the name may have the ending of any image.
        """
        expression = self._any_ending if any_ending else self._expression
        found = expression.fullmatch(name)
        if found is None and not name.isascii():
            found = expression.fullmatch(normalize("NFC", name))
        return found.groupdict() if found else None

    def fill(self, values: Mapping[str, object], ending: str = ".png") -> str:
        """The file name with these fields, and with `ending` if the pattern has none."""
        name = _FIELD.sub(lambda field: str(values[field[1]]), self.text)
        return name if self.has_ending else name + ending

    @cached_property
    def folder(self) -> str:
        """The folder of all names: the text up to the last slash before the first field."""
        return self.text.partition("{")[0].rpartition("/")[0]

    def leads_to(self, folder: str) -> bool:
        """Whether names that match may be in this folder or below it."""
        own, parts = self.text.split("/")[:-1], folder.split("/")
        return len(parts) <= len(own) and all(
            _compile(text, "").fullmatch(normalize("NFC", part))
            for text, part in zip(own, parts, strict=False)
        )

    @property
    def has_ending(self) -> bool:
        """True if the pattern includes the file ending."""
        return self.stem != self.text

    @cached_property
    def stem(self) -> str:
        """The text without the file ending of an image."""
        folded = self.text.casefold()
        return next((self.text[: -len(it)] for it in _SUFFIXES if folded.endswith(it)), self.text)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return _compile(self.text, "" if self.has_ending else f"(?:{_ENDINGS})")

    @cached_property
    def _any_ending(self) -> re.Pattern[str]:
        return _compile(self.stem, f"(?:{_ENDINGS})")


def _compile(text: str, ending: str) -> re.Pattern[str]:
    parts, at = [], 0
    for field in _FIELD.finditer(text):
        parts.append(re.escape(text[at : field.start()]))
        parts.append(f"(?P<{field[1]}>{_FIELD_TEXTS[field[2]]})")
        at = field.end()
    return re.compile("".join(parts) + re.escape(text[at:]) + ending, re.IGNORECASE)
