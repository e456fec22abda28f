"""A name that is too long keeps its ending, whole characters and, if asked, its identity."""

import os

import pytest

from derain.storage.names import fitting


@pytest.mark.parametrize(
    "name", ["rain.png", "雨" * 83 + ".png", "x" * 255, "\udcd3\udcea.png", ""]
)
def test_a_name_that_fits_is_unchanged(name: str) -> None:
    assert fitting(name) == fitting(name, digest=True) == name


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("x" * 300 + ".png", ".png"),
        ("雨" * 100 + ".jpeg", ".jpeg"),
        ("\udcd3" * 300 + ".png", ".png"),
        ("x. " + "y" * 300, ""),
        ("😀" * 64, ""),
    ],
)
@pytest.mark.parametrize("digest", [False, True])
def test_a_cut_name_fits_and_keeps_its_ending(name: str, ending: str, digest: bool) -> None:
    cut = fitting(name, digest=digest)

    assert 251 < len(os.fsencode(cut)) <= 255
    assert cut.endswith(ending)
    assert name.startswith(cut.removesuffix(ending)[: -9 if digest else None])


def test_a_digest_keeps_names_that_begin_alike_apart() -> None:
    one, other = "x" * 260 + "1.png", "x" * 260 + "2.png"

    assert fitting(one) == fitting(other)
    assert fitting(one, digest=True) != fitting(other, digest=True)
    assert fitting(one, digest=True) == fitting(one, digest=True)
