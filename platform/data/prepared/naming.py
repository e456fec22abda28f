"""Names for several prepared datasets: that of the folder, longer where two would be the same."""

from collections.abc import Sequence
from pathlib import PurePath


def distinct_names(folders: Sequence[str | PurePath]) -> list[str]:
    """For each folder the shortest end of its path that no other folder has.

    `a/test` and `b/test` keep both parts, `c/val` is `val`. One folder given twice has one name.
    """
    parts = [PurePath(folder).parts for folder in folders]
    different = set(parts)
    names = []
    for path in parts:
        length = 1
        while length < len(path) and any(
            other != path and other[-length:] == path[-length:] for other in different
        ):
            length += 1
        names.append("/".join(part.strip("/") for part in path[-length:]))
    return names
