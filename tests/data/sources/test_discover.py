"""Sources: names are found, partners matched, keys made unique, shares kept disjoint."""

import json
import os
import shlex
import shutil
from pathlib import Path
from unicodedata import normalize

import pytest

from derain.data.sources.catalogue import CATALOGUE
from derain.data.sources.catalogue.shared import USUAL_FOLDERS
from derain.data.sources.discover import count_pairs, find_pairs
from derain.data.sources.selection import Naming, parse_naming, parse_share
from derain.errors import DataError
from tests.data.sources.touched import touch


@pytest.mark.parametrize(("rain", "clean"), USUAL_FOLDERS)
def test_usual_folder_names_are_found(tmp_path: Path, rain: str, clean: str) -> None:
    touch(tmp_path / rain / "b.png", tmp_path / clean / "B.jpg", tmp_path / rain / "Thumbs.db")
    found = find_pairs("paired", tmp_path)
    (pair,) = found.pairs
    assert (pair.rain, pair.clean) == (f"{rain}/b.png", f"{clean}/B.jpg")
    assert not found.unpaired


def test_images_without_partner_are_reported(tmp_path: Path) -> None:
    touch(tmp_path / "rain/a.png", tmp_path / "clean/a.png", tmp_path / "rain/b.png")
    touch(tmp_path / "clean/c.png", tmp_path / "rain/d.png", tmp_path / "rain/d.jpg")
    touch(tmp_path / "clean/d.png")
    touch(*(tmp_path / name for name in ("rain/e.png", "rain/e.jpg", "clean/e.bmp")))
    found = find_pairs("paired", tmp_path)
    assert [pair.rain for pair in found.pairs] == ["rain/a.png", "rain/d.png"]
    assert {item.path: item.reason for item in found.unpaired} == {
        "rain/b.png": "no clean partner clean/{name}",
        "rain/d.jpg": "clean/d.png is the clean partner of rain/d.png",
        "rain/e.png": "several files have this name up to its ending",
        "rain/e.jpg": "several files have this name up to its ending",
        "clean/c.png": "no rainy partner rain/{name}",
        "clean/e.bmp": "no rainy partner rain/{name}",
    }


def test_custom_file_names(tmp_path: Path) -> None:
    touch(*(tmp_path / f"wet/{scene}/f{n}.jpg" for scene in "ab" for n in range(3)))
    touch(tmp_path / "dry/a-gt.png", tmp_path / "dry/b-gt.png", tmp_path / "dry/c-gt.png")
    found = find_pairs(
        "paired", tmp_path, "val", naming=Naming("wet/{scene}/f{n:d}.jpg", "dry/{scene}-gt")
    )
    assert [(pair.key, pair.clean) for pair in found.pairs] == [
        (f"{scene}-f{n}", f"dry/{scene}-gt.png") for scene in "ab" for n in range(3)
    ]
    assert [item.path for item in found.unpaired] == ["dry/c-gt.png"]
    assert found.split == "val"


def test_custom_names_of_side_by_side_and_of_unpaired_images(tmp_path: Path) -> None:
    touch(tmp_path / "x/1.jpg", tmp_path / "x/2.jpg")
    halves = find_pairs("paired", tmp_path, naming=Naming("x/{n}", clean_half="left")).pairs
    assert [(pair.rain, pair.clean, pair.clean_half) for pair in halves] == [
        ("x/1.jpg", "x/1.jpg", "left"),
        ("x/2.jpg", "x/2.jpg", "left"),
    ]
    alone = find_pairs("unpaired", tmp_path, naming=Naming("x/{n}")).pairs
    assert [pair.clean for pair in alone] == [None, None]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((None, "gt/{n}", None), "also need --rain"),
        (("in/{n}", None, None), "also needs --clean"),
        (("in/{n}", "gt/{n}", "left"), "not both"),
        (("in/{", "gt/{n}", None), "not a pattern"),
    ],
)
def test_incomplete_custom_names_are_refused(parts: tuple, expected: str, tmp_path: Path) -> None:
    touch(tmp_path / "in/1.png")
    with pytest.raises(DataError, match=expected):
        find_pairs("paired", tmp_path, naming=parse_naming(*parts))


def test_shares_have_no_clean_image_in_common(tmp_path: Path) -> None:
    touch(*(tmp_path / f"in/{scene}_{n}.png" for scene in range(40) for n in range(3)))
    touch(*(tmp_path / f"gt/{scene}.png" for scene in range(40)))
    own = Naming("in/{scene:d}_{n:d}.png", "gt/{scene:d}.png")
    train, held_out = (
        find_pairs("paired", tmp_path, naming=own, share=parse_share(text)).pairs
        for text in ("0:0.75", "0.75:1")
    )
    assert len(train) + len(held_out) == 120
    assert not {pair.clean for pair in train} & {pair.clean for pair in held_out}
    assert 20 < len({pair.clean for pair in train}) < 40


@pytest.mark.parametrize("text", ["0.5", "0.5:0.5", "1:0", "0:2", "a:b", "0:0.5:1"])
def test_an_invalid_share_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="LOW:HIGH"):
        parse_share(text)


def test_labels_reach_the_pairs(tmp_path: Path) -> None:
    touch(tmp_path / "rain/a.png", tmp_path / "clean/a.png")
    (tmp_path / "labels.json").write_text(json.dumps({"a.png": {"density": "light"}}))
    assert find_pairs("paired", tmp_path).pairs[0].labels == {"density": "light"}


def test_labels_may_be_given_by_path_or_by_name(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{clip}_Rain/1.jpg" for clip in ("ra1", "ra2", "rb1")))
    said = {"ra1_Rain/1.jpg": {"density": "heavy"}, "rb1_Rain/1.jpg": {"density": "light"}}
    (tmp_path / "labels.json").write_text(json.dumps(said))
    labels = {
        pair.rain: pair.labels.get("density") for pair in find_pairs("nturain-r", tmp_path).pairs
    }
    assert labels == {"ra1_Rain/1.jpg": "heavy", "ra2_Rain/1.jpg": "", "rb1_Rain/1.jpg": "light"}
    (tmp_path / "labels.json").write_text('{"1.bmp": {"a": "b"}, "1.png": {"a": "c"}}')
    with pytest.raises(DataError, match="conflicting labels for 1"):
        find_pairs("nturain-r", tmp_path)


def test_custom_names_may_begin_with_a_dot(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{side}/{n}.png" for side in ("in", "gt") for n in (5, 15, 125)))
    found = find_pairs("paired", tmp_path, naming=Naming("./in/{n:d}", "./gt/{n:d}"))
    assert [pair.key for pair in found.pairs] == ["125", "15", "5"]


def test_unrecognised_images_are_counted(tmp_path: Path) -> None:
    for folder in ("input", "target"):
        touch(tmp_path / folder / "1.png", tmp_path / folder / "sub/2.png")
    touch(tmp_path / "rain/3.png", tmp_path / "norain/3.png")
    (note,) = find_pairs("paired", tmp_path).notes
    assert "layout input/{name} + target/{name}, which were left out: 4, such as input/sub/" in note


def test_images_of_another_split_are_recognised(tmp_path: Path) -> None:
    for split in ("train/Rain13K", "test/Test100"):
        touch(tmp_path / split / "input/1.png", tmp_path / split / "target/1.png")
    assert find_pairs("rain13k", tmp_path).unrecognised == []
    for scene in (900, 901, 1001):
        touch(tmp_path / f"rainy_image/{scene}_1.jpg", tmp_path / f"ground_truth/{scene}.jpg")
    assert find_pairs("rain14000", tmp_path).unrecognised[:2] == [
        "ground_truth/1001.jpg",
        "rainy_image/1001_1.jpg",
    ]


def test_a_name_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "input/a.png", tmp_path / "target/a.png")
    for side in ("input", "target"):
        Path(os.fsdecode(os.fsencode(tmp_path / side) + b"/\xff.png")).touch()
    found = find_pairs("paired", tmp_path)
    assert [pair.key for pair in found.pairs] == ["a"]
    assert [(it.path, it.reason) for it in found.unpaired] == [
        (rf"{side}/\xff.png", "its name is not UTF-8: rename it") for side in ("input", "target")
    ]


def test_a_split_that_the_source_contains_is_suggested(tmp_path: Path) -> None:
    for n in (1, 2):
        touch(tmp_path / f"Rain100H/rain-{n}.png", tmp_path / f"Rain100H/norain-{n}.png")
    with pytest.raises(DataError, match="It contains 2 pairs of the split test: give --split test"):
        find_pairs("rain100h", tmp_path / "Rain100H")


def test_the_layout_includes_the_folder_in_the_source(tmp_path: Path) -> None:
    touch(tmp_path / "Rain100H/rain-1.png", tmp_path / "Rain100H/norain-1.png")
    layouts = [find_pairs("rain100h", tmp_path / it, "test").layout for it in (".", "Rain100H")]
    assert list(map(str, layouts)) == [
        "Rain100H/rain-{n:d}.png + Rain100H/norain-{n:d}.png",
        "rain-{n:d}.png + norain-{n:d}.png",
    ]


def test_the_first_of_equal_layouts_is_taken(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{it}/1.png" for it in ("input", "target", "rain", "norain")))
    touch(tmp_path / "rain/9.png")
    assert find_pairs("paired", tmp_path).pairs[0].rain == "input/1.png"


def test_a_selection_without_pairs_is_refused_with_the_reason(tmp_path: Path) -> None:
    touch(tmp_path / "input/1.png", tmp_path / "target/1.png")
    with pytest.raises(DataError, match="--without lists all"):
        find_pairs("paired", tmp_path, without={"target/1.png"})
    with pytest.raises(DataError, match=r"the share 0:1e-09 contains no pair"):
        find_pairs("paired", tmp_path, share=(0.0, 1e-9))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["other/a.png"], r"Expected one of\n  input/\{name\} \+ target(?s:.*)found other/a\.png"),
        (["rain/a.png", "clean/b.png"], r"found rain/a\.png: no clean partner"),
        ([], "contains no image"),
    ],
)
def test_folders_without_pairs_are_refused_with_the_reason(
    tmp_path: Path, files: list[str], expected: str
) -> None:
    touch(*(tmp_path / name for name in files))
    with pytest.raises(DataError, match=expected):
        find_pairs("paired", tmp_path)


def test_unknown_datasets_and_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        find_pairs("paired", tmp_path / "none")
    with pytest.raises(DataError, match="Known: rain13k"):
        find_pairs("rain9000", tmp_path)
    with pytest.raises(DataError, match="no such split 'val'; it has train, test"):
        find_pairs("rain800", tmp_path, "val")
    with pytest.raises(DataError, match="expected letters, digits and underscores"):
        find_pairs("paired", tmp_path, "held-out 1/x")


def test_the_folder_of_another_split_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "Rain100L"
    touch(folder / "input/1.png", folder / "target/1.png")
    assert find_pairs("rain13k", folder, "rain100l").pairs
    with pytest.raises(DataError, match="split test100"):
        find_pairs("rain13k", folder, "test100")


def test_splits_are_counted(tmp_path: Path) -> None:
    for split, count in (("train/Rain13K", 3), ("test/Test100", 2)):
        for n in range(count):
            touch(tmp_path / split / f"input/{n}.jpg", tmp_path / split / f"target/{n}.png")
    assert count_pairs(CATALOGUE["rain13k"], tmp_path) == {"train": 3, "test100": 2}


def test_a_published_count_that_differs_is_noted(tmp_path: Path) -> None:
    for n in range(12):
        touch(tmp_path / f"rainy/{n}.png", tmp_path / f"groundtruth/{n}.png")
    assert find_pairs("rain12", tmp_path).notes == ()
    (tmp_path / "rainy/3.png").unlink()
    (note,) = find_pairs("rain12", tmp_path).notes
    assert "11 pairs were found, 12 are published" in note


def test_mixed_formats_are_noted_and_spellings_of_one_are_not(tmp_path: Path) -> None:
    touch(*(tmp_path / f"input/{name}" for name in ("1.jpg", "2.JPG", "3.jpeg", "4.png")))
    touch(*(tmp_path / f"target/{name}.png" for name in "1234"))
    (note,) = find_pairs("paired", tmp_path).notes
    assert "rainy images mix .jpg and .png" in note
    (tmp_path / "input/4.png").unlink()
    assert find_pairs("paired", tmp_path).notes == ()


def test_a_malformed_list_is_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path / "real_world/a/b/1.png")
    with pytest.raises(DataError, match=r"real_world\.txt, which lists the pairs, is missing"):
        find_pairs("spa-data", tmp_path)
    (tmp_path / "real_world.txt").write_text("real_world/a/b/1.png\n")
    with pytest.raises(DataError, match=r"real_world\.txt:1: expected `rainy clean`"):
        find_pairs("spa-data", tmp_path)
    (tmp_path / "real_world.txt").write_bytes(b"real_world/\xe4.png b.png")
    with pytest.raises(DataError, match=r"real_world\.txt: not UTF-8"):
        find_pairs("spa-data", tmp_path)


def test_repeated_lines_of_a_list_are_reported_and_so_are_unlisted_images(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"real_world/{n}.png" for n in range(5)))
    lines = ["/real_world/0.png real_world/1.png", "real_world/2.png real_world/1.png"]
    text = "\r\n".join([*lines, lines[0]])
    (tmp_path / "real_world.txt").write_text(text, encoding="utf-8-sig")
    found = find_pairs("spa-data", tmp_path)
    assert [pair.key for pair in found.pairs] == ["0", "2"]
    assert [(it.path, it.reason) for it in found.unpaired] == [
        ("real_world/0.png", "real_world.txt:3 names it once more")
    ]
    assert found.unrecognised == ["real_world/3.png", "real_world/4.png"]


def test_a_list_cannot_name_files_outside_its_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    touch(source / "real_world/1.png", source / "real_world/2.png", tmp_path / "secret.png")
    (source / "real_world.txt").write_text(
        "./real_world/1.png /real_world/2.png\n../secret.png /real_world/2.png\n"
    )
    found = find_pairs("spa-data", source)
    assert [pair.rain for pair in found.pairs] == ["real_world/1.png"]
    assert "missing" in found.unpaired[0].reason


def test_the_rainy_images_of_a_scene_are_one_sample(tmp_path: Path) -> None:
    rains = ("1_1", "1_2", "2_1")
    touch(*(tmp_path / f"rainy_image/{name}.jpg" for name in rains))
    touch(*(tmp_path / f"ground_truth/{scene}.jpg" for scene in (1, 2)))
    found = find_pairs("rain14000", tmp_path, clean_once=True)
    assert [(pair.sample, pair.key) for pair in found.pairs] == [(name[0], name) for name in rains]


def test_any_usual_folders_are_found_in_any_case_and_depth(tmp_path: Path) -> None:
    """Formerly seven couples of names, directly below the source, were known."""
    for rain, clean in (
        ("LQ", "HQ"), ("O", "B"), ("rainy_image", "ground_truth"), ("degraded", "sharp"),
        ("data/one/Input", "data/one/GroundTruth"), ("rain/scene", "background/scene"),
        ("Ünï {x}/rain", "Ünï {x}/clean"),
    ):  # fmt: skip
        source = tmp_path / rain.replace("/", "-")
        touch(source / rain / "b.png", source / clean / "B.jpg")
        (pair,) = find_pairs("paired", source).pairs
        assert (pair.rain, pair.clean) == (f"{rain}/b.png", f"{clean}/B.jpg")


@pytest.mark.parametrize("path", ["{split}/rain + {split}/clean", "rain/{split} + norain/{split}"])
def test_the_split_may_be_in_the_path(path: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for n, folder in enumerate(path.format(split=split).split(" + ")):
            touch(tmp_path / folder / "1.png", tmp_path / folder / f"only-{n}.png")
    for asked, split in ((None, "train"), ("train", "train"), ("test", "test")):
        found = find_pairs("paired", tmp_path, asked)
        assert found.split == split
        assert all(split in pair.rain and split in str(pair.clean) for pair in found.pairs)
        assert len(found.pairs) == 1
        assert not found.unrecognised
        assert len(found.other_splits) == 4
    with pytest.raises(DataError, match="give --split t"):
        find_pairs("paired", tmp_path, "val")
    only_test = tmp_path / "data/testing"
    touch(only_test / "input/1.png", only_test / "target/1.png")
    assert find_pairs("paired", tmp_path / "data").split == "test"


def test_rain_001_and_norain_001_in_usual_folders(tmp_path: Path) -> None:
    for n in ("001", "002"):
        touch(tmp_path / f"Train/Rain/rain-{n}.png", tmp_path / f"Train/NoRain/norain-{n}.png")
        touch(tmp_path / f"drops/data/{n}_rain.png", tmp_path / f"drops/gt/{n}_clean.png")
    assert {it.rain: it.clean for it in find_pairs("paired", tmp_path, "train").pairs} == {
        f"Train/Rain/rain-{n}.png": f"Train/NoRain/norain-{n}.png" for n in ("001", "002")
    }
    assert len(find_pairs("paired", tmp_path / "drops").pairs) == 2


def test_a_published_set_in_usual_folders_is_found(tmp_path: Path) -> None:
    touch(tmp_path / "Test/LQ/1.png", tmp_path / "Test/GT/1.png", tmp_path / "train/x/1.png")
    assert [it.rain for it in find_pairs("rain200l", tmp_path, "test").pairs] == ["Test/LQ/1.png"]
    with pytest.raises(DataError, match="give --split test"):
        find_pairs("rain200l", tmp_path / "Test")


OLD_FRENCH = ("Zürich", "café", "plain")


def test_names_differ_in_neither_case_nor_unicode_form(tmp_path: Path) -> None:
    """Case 21: rainy names from a Mac (NFD), clean ones from Windows (NFC)."""
    for name in OLD_FRENCH:
        touch(tmp_path / "input" / f"{normalize('NFD', name)}.png")
        touch(tmp_path / "target" / f"{normalize('NFC', name.upper())}.PNG")
    labels = {f"{normalize('NFC', name)}.PNG": {"town": name[:1]} for name in OLD_FRENCH}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    found = find_pairs("paired", tmp_path)
    assert not found.unpaired
    assert {pair.labels["town"] for pair in found.pairs} == {"Z", "c", "p"}
    assert found.notes == ()


def test_the_very_same_name_comes_before_one_that_differs_in_case_or_ending(
    tmp_path: Path,
) -> None:
    names = ("A.png", "a.PNG", "a.png", "1.png", "1.jpg", "é.png", normalize("NFD", "é.png"))
    touch(*(tmp_path / side / name for side in ("input", "target") for name in names))
    found = find_pairs("paired", tmp_path)
    assert {pair.rain: pair.clean for pair in found.pairs} == {
        f"input/{name}": f"target/{name}" for name in names
    }
    assert len({pair.key for pair in found.pairs}) == len(names)
    assert not found.unpaired
    for name in ("A.png", "1.jpg"):
        (tmp_path / "target" / name).unlink()
    reasons = {it.path: it.reason for it in find_pairs("paired", tmp_path).unpaired}
    assert set(reasons) == {"input/A.png", "input/1.jpg"}
    assert reasons["input/1.jpg"] == "target/1.png is the clean partner of input/1.png"


def test_the_ending_of_a_published_layout_is_a_hint(tmp_path: Path) -> None:
    touch(tmp_path / "rain-1.jpg", tmp_path / "norain-1.jpeg", tmp_path / "rain-2.png")
    touch(tmp_path / "norain-2.webp", tmp_path / "rain-2.jpg")
    found = find_pairs("rain100h", tmp_path)
    assert {pair.rain: pair.clean for pair in found.pairs} == {
        "rain-1.jpg": "norain-1.jpeg",
        "rain-2.png": "norain-2.webp",
    }
    assert found.unrecognised == ["rain-2.jpg"]
    touch(tmp_path / "own/1.jpg", tmp_path / "own/1.png", tmp_path / "own/2.jpg")
    own = find_pairs("paired", tmp_path / "own", naming=Naming("{n}.jpg", "{n}.png"))
    assert [pair.rain for pair in own.pairs] == ["1.jpg"]


def test_the_clean_partner_is_chosen_by_the_nearest_name(tmp_path: Path) -> None:
    touch(tmp_path / "rainy_image/1_1.jpg", tmp_path / "rainy_image/1_2.JPG")
    touch(tmp_path / "ground_truth/1.jpg", tmp_path / "ground_truth/1.JPG")
    pairs = {pair.rain: pair.clean for pair in find_pairs("rain14000", tmp_path).pairs}
    assert pairs == {
        "rainy_image/1_1.jpg": "ground_truth/1.jpg",
        "rainy_image/1_2.JPG": "ground_truth/1.JPG",
    }


def test_the_photographs_of_rain800_beside_themselves_are_no_pairs(tmp_path: Path) -> None:
    touch(tmp_path / "test_nature/1.jpg", tmp_path / "training/1.jpg")
    with pytest.raises(DataError, match="1 pairs of the split real: give --split real"):
        find_pairs("rain800", tmp_path / "test_nature")
    (pair,) = find_pairs("rain800", tmp_path / "test_nature", "real").pairs
    assert (pair.clean, pair.clean_half) == (None, "none")


@pytest.mark.parametrize(
    ("names", "options", "pairs"),
    [
        (("1_rain.png", "1_clean.png", "2_rain.png", "2_clean.png"), "{name}_clean", 2),
        (("rain-001.png", "norain-001.png"), "norain-{name}", 1),
        (("foo bar/1.png", "foo bar/2.png", "it's norain/1.png"), "it's norain/{name}", 1),
        (("one/s1_x.png", "one/s2_x.png", "b/s1_y.png", "b/s2_y.png"), "{name}_y", 2),
        (("w/1_1.png", "w/1_2.png", "w/2_1.png", "c/1.png", "c/2.png"), "c/{name}", 3),
        (("s1/w/1.png", "s1/sun/1.png", "s2/w/1.png", "s2/sun/1.png"), "{folder}/", 2),
        (("z/1_rain.png", "q/1_clean.png"), "q/{name}_clean", 1),
    ],
)
def test_options_that_take_what_is_there_are_suggested(
    names: tuple[str, ...], options: str, pairs: int, tmp_path: Path
) -> None:
    """They are pasted as they are printed."""
    touch(*(tmp_path / name for name in names))
    with pytest.raises(DataError, match=r"To take what is there: --rain ") as caught:
        find_pairs("paired", tmp_path)
    line = str(caught.value).split("To take what is there: ")[1].splitlines()[0]
    rain, rain_pattern, clean, clean_pattern = shlex.split(line)
    assert (rain, clean) == ("--rain", "--clean")
    assert options in rain_pattern + clean_pattern
    assert options.startswith("{folder}") or options in clean_pattern
    found = find_pairs("paired", tmp_path, naming=Naming(rain_pattern, clean_pattern))
    assert len(found.pairs) == pairs


def test_without_a_suggestion_the_nearest_layout_and_what_is_there_are_named(
    tmp_path: Path,
) -> None:
    touch(*(tmp_path / f"foo/{n}.png" for n in range(3)), tmp_path / "bar/x.png")
    with pytest.raises(
        DataError, match=r"found foo/0\.png \(3 images in foo/\); bar/x\.png\."
    ) as it:
        find_pairs("paired", tmp_path)
    assert "The nearest layout is " in str(it.value)
    for folder in ("foo", "bar"):
        shutil.rmtree(tmp_path / folder)
    touch(tmp_path / "training/1.jpg", tmp_path / "training/2.jpg")
    with pytest.raises(DataError, match=r"has the layout of rain800, train, with 2 pairs: prepare"):
        find_pairs("paired", tmp_path)
    shutil.rmtree(tmp_path / "training")
    touch(tmp_path / "x/rainy/1.png", tmp_path / "x/groundtruth/1.png")
    with pytest.raises(
        DataError, match=r"the layout of rain12, test, .*To take what is there: --r"
    ):
        find_pairs("rain100h", tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
    touch(*(tmp_path / f"a/b/{n}.png" for n in range(2)))
    with pytest.raises(DataError, match=r"To take what is there: --rain 'a/b/\{name\}'"):
        find_pairs("unpaired", tmp_path)
