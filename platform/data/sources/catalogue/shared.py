"""Layouts that several published datasets share."""

from itertools import product

from derain.data.sources.layouts import Layout

NO_LICENCE = "none stated"
RESEARCH = "research only"

USUAL_FOLDERS = (
    ("input", "target"),
    ("rain", "norain"),
    ("rain", "clean"),
    ("rainy", "clean"),
    ("rainy", "norain"),
    ("data", "gt"),
    ("lq", "gt"),
)
"""The most usual names of the rainy and the clean sub-folder; `usual.py` knows many more."""


def usual(split: str, *folders: str) -> tuple[Layout, ...]:
    """A rainy and a clean sub-folder of usual names in each of the folders, paired by name."""
    return tuple(
        Layout(split, f"{rain}/{{name}}", (f"{clean}/{{name}}",), folder=folder)
        for folder in folders
        for rain, clean in USUAL_FOLDERS
    )


def common(split: str, *folders: str) -> tuple[Layout, ...]:
    """The layout of Rain13K, in which many datasets are redistributed."""
    return tuple(
        Layout(split, "input/{name}", ("target/{name}",), folder=folder) for folder in folders
    )


def jorder(split: str, *folders: str) -> tuple[Layout, ...]:
    """The datasets of JORDER (Yang et al.): old release, new release, and their repacks.

    The maps of rain streaks and regions beside the images are not used.
    """
    kinds = (
        ("rain-{n:d}.png", "norain-{n:d}.png"),
        ("norain-{n:d}x2.png", "norain-{n:d}.png"),
        ("rainy/rain-{n:d}.png", "norain-{n:d}.png"),
        ("rain/norain-{n:d}.png", "norain/norain-{n:d}.png"),
        ("rain/X2/norain-{n:d}x2.png", "norain/norain-{n:d}.png"),
        ("input/{name}", "target/{name}"),
    )
    return tuple(
        Layout(split, rain, (clean,), folder=folder)
        for folder, (rain, clean) in product(folders, kinds)
    )
