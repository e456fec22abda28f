"""Usual folder names: any rainy one with any clean one, and one layout for many scenes."""

from derain.data.sources.catalogue.shared import USUAL_FOLDERS
from derain.data.sources.catalogue.usual import (
    CLEAN_NAMES,
    RAINY_NAMES,
    split_key,
    split_of,
    usual_layouts,
)


def test_every_rainy_name_goes_with_every_clean_one() -> None:
    names = [f"{it}/1.png" for it in (*RAINY_NAMES, *CLEAN_NAMES)]
    found = [str(it) for it in usual_layouts(names, "train")]
    assert len({*found}) == len(found) == len(RAINY_NAMES) * len(CLEAN_NAMES)
    assert not {*RAINY_NAMES} & {*CLEAN_NAMES}
    assert found[: len(USUAL_FOLDERS)] == [f"{a}/{{name}} + {b}/{{name}}" for a, b in USUAL_FOLDERS]


def test_the_folders_of_many_scenes_are_one_layout() -> None:
    names = [f"{n}/{side}/1.png" for n in range(2000) for side in ("rain", "clean")]
    names += [f"test/{side}/a/b/{n}.png" for n in range(3) for side in ("GT", "LQ")]
    assert [str(layout) for layout in usual_layouts(names, "train")] == [
        "{folder}/rain/{name} + {folder}/clean/{name}",
        "test/lq/{folder}/{subfolder}/{name} + test/gt/{folder}/{subfolder}/{name}",
    ]


def test_folders_name_a_split() -> None:
    assert split_of("data/Training/rain") == "train"
    assert split_of("train/test/rain") is None
    assert split_of("rain") is None
    assert split_key("Validation") == "val"
    assert split_key("held_out") == "held_out"
