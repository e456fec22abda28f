"""A dataset whose pairs a class of the user's finds: `prepare module:Name ROOT OUT`."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from derain.data.sources.layouts import Dataset, Layout
from derain.data.sources.matching import LayoutMatch, MatchedPair
from derain.data.sources.names import printable, stem
from derain.errors import ConfigError, DataError, DerainError
from derain.plugins.identity import identity
from derain.plugins.options import build_plugin
from derain.plugins.protocols import DatasetLayout

_EXPECTED = "pairs(names, split) -> (rainy, clean) names of images in the source, clean may be None"


def plugin_row(name: str) -> Dataset:
    """The row of a class `module:Name`; the manifest records the identity of its source.

    Raises ConfigError if it cannot be imported or has no splits or pairs.
    """
    splits = _splits(name, _build(name))
    title = name.partition(":")[2]
    return Dataset(
        name=title.lower(),
        title=title,
        about=f"a dataset of one's own, whose pairs {name} finds",
        splits=dict.fromkeys(splits, ()),
        layouts=tuple(Layout(split, title) for split in splits),
        where="your own",
        terms="yours",
        own={"title": title, "plugin": identity(name)},
        plugin=name,
    )


def match_by_plugin(row: Dataset, split: str, names: Sequence[str]) -> LayoutMatch:
    """The pairs that the class of a row finds among the names of all images below a source.

    Raises DataError if it fails, returns anything else, or names an image that is not there.
    """
    assert row.plugin is not None
    known, rainy = set(names), set[str]()
    pairs = []
    try:
        found = list(_build(row.plugin).pairs(list(names), split))
    except DerainError:
        raise
    except Exception as error:  # the class's own code
        raise DataError(
            f"{row.plugin} fails: {type(error).__name__}: {error}. Expected {_EXPECTED}."
        ) from error
    for item in found:
        rain, clean = _checked(row.plugin, item, known)
        if rain in rainy:
            raise DataError(f"{row.plugin}: names the rainy image {rain} twice.")
        rainy.add(rain)
        pairs.append(MatchedPair(rain, clean, stem(rain), {}))
    return LayoutMatch(Layout(split, row.plugin, any_ending=False), pairs, [])


def without_other_splits(
    row: Dataset, split: str, names: Sequence[str], left: Iterable[str]
) -> list[str]:
    """The images that are left, without those of the row's other splits."""
    others = (match_by_plugin(row, other, names) for other in row.splits if other != split)
    used = {name for match in others for pair in match.pairs for name in (pair.rain, pair.clean)}
    return [name for name in left if name not in used]


def _build(name: str) -> DatasetLayout:
    layout: DatasetLayout = build_plugin(name, {}, what="dataset layout", key="prepare")
    return layout


def _splits(name: str, layout: Any) -> tuple[str, ...]:
    splits = getattr(layout, "splits", None)
    named = isinstance(splits, list | tuple) and all(
        isinstance(split, str) and re.fullmatch(r"\w+", split, re.ASCII) for split in splits
    )
    if not splits or not named or not callable(getattr(layout, "pairs", None)):
        raise ConfigError(
            f"The dataset layout {name}: expected `splits`, a list of names of letters, digits and "
            f"underscores, and {_EXPECTED}; found splits {splits!r} and "
            f"{'a' if hasattr(layout, 'pairs') else 'no'} method pairs."
        )
    return tuple(splits or ())


def _checked(name: str, item: Any, known: set[str]) -> tuple[str, str | None]:
    if not isinstance(item, tuple | list) or len(item) != 2 or not isinstance(item[0], str):
        raise DataError(f"{name}: expected {_EXPECTED}; found {item!r}.")
    for image in item:
        if image is not None and image not in known:
            raise DataError(
                f"{name}: names {printable(str(image))}, which is no image of the source. Expected "
                f"{_EXPECTED}."
            )
    return item[0], item[1]
