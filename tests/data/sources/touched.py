"""Files that are called like images and hold one byte: enough to find pairs by their names."""

from pathlib import Path


def touch(*paths: Path) -> None:
    """Write files, with the folders that they are in."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def pair_of(source: Path, name: str = "1.png") -> None:
    """Write a rainy and a clean file of this name in `input/` and `target/`."""
    touch(source / "input" / name, source / "target" / name)
