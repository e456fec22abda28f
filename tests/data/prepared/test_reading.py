"""Reading a pair: unchanged bytes, one size, no second reading of a clean image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from derain.data.images.convert import read_odd
from derain.data.images.decode import decode_image, read_image
from derain.data.prepared.reading import Reading, read_pair
from derain.data.sources.discover import find_pairs
from derain.data.sources.pairs import Pair
from derain.data.synthetic.synthesis import bundled_photographs
from derain.errors import DataError
from tests.data.images.odd_images import NOISE, PIXELS, VARIANTS, encoded, profile
from tests.folders import PairedFolder


def test_a_pair_has_the_bytes_and_the_size_of_its_files(paired_folder: PairedFolder) -> None:
    source = paired_folder(1)
    read = read_pair(find_pairs("paired", source).pairs[0], source, Reading(decode=True))
    assert read.clean is not None
    assert read.rain.data == (source / "rain/000.png").read_bytes()
    assert (read.rain.size, read.clean.size, read.clean.ending) == ((40, 32), (40, 32), ".png")


def test_a_clean_image_that_was_read_before_is_not_read_again(paired_folder: PairedFolder) -> None:
    source = paired_folder(2)
    first, second = find_pairs("paired", source).pairs
    clean = read_pair(first, source).clean
    (source / "clean/001.png").unlink()
    assert read_pair(second, source, clean=clean).clean is clean
    with pytest.raises(DataError, match=r"clean/001\.png: cannot be read"):
        read_pair(second, source)
    Image.new("RGB", (10, 32)).save(source / "rain/001.png")
    with pytest.raises(DataError, match=r"10 x 32, but clean/001\.png: 40 x 32"):
        read_pair(second, source, clean=clean)


def pair_of(folder: Path, rain: bytes, clean: bytes) -> tuple[Pair, Path]:
    (folder / "rain.png").write_bytes(rain)
    (folder / "clean.png").write_bytes(clean)
    return Pair("a", "rain.png", "clean.png"), folder


PLAIN = encoded(Image.fromarray(PIXELS // 2))


def test_a_pair_has_one_colour_space(tmp_path: Path) -> None:
    pair, source = pair_of(tmp_path, VARIANTS["PNG in Display P3"], PLAIN)
    with pytest.raises(DataError, match=r"Display P3, those of clean\.png sRGB.*--convert"):
        read_pair(pair, source)
    images = read_pair(pair, source, Reading(convert=True))
    expected = read_odd(VARIANTS["PNG in Display P3"], "x").plain()
    np.testing.assert_array_equal(decode_image(images.rain.data, "x"), expected)
    assert images.clean is not None
    assert images.clean.data == PLAIN
    assert images.remarks == ("Pairs that were converted, Display P3 to sRGB",)


def test_a_pair_in_another_colour_space_is_kept_and_noted(tmp_path: Path) -> None:
    wide = encoded(Image.fromarray(PIXELS // 2), icc_profile=profile())
    pair, source = pair_of(tmp_path, VARIANTS["PNG in Display P3"], wide)
    images = read_pair(pair, source)
    assert images.rain.data == VARIANTS["PNG in Display P3"]
    (remark,) = images.remarks
    assert remark.startswith("Pairs in Display P3, whose levels are kept as if they were sRGB")


def test_a_pair_without_rain_is_noted_if_it_is_decoded(tmp_path: Path) -> None:
    again = encoded(NOISE, "JPEG", quality=100, subsampling=0)
    pair, source = pair_of(tmp_path, again, encoded(NOISE))
    remark = "Pairs whose two images are all but equal (40 dB or more)"
    assert read_pair(pair, source, Reading(decode=True)).remarks == (remark,)
    pair, source = pair_of(tmp_path, encoded(NOISE), PLAIN)
    assert read_pair(pair, source, Reading(decode=True)).remarks == ()


def test_the_halves_of_a_photograph_beside_itself_are_noted(tmp_path: Path) -> None:
    photograph = read_image(bundled_photographs() / "stream.jpg")
    twice = Image.fromarray(np.concatenate([photograph, photograph], axis=1))
    (tmp_path / "both.jpg").write_bytes(encoded(twice, "JPEG", quality=95))
    pair = Pair("a", "both.jpg", "both.jpg", clean_half="left")
    (remark,) = read_pair(pair, tmp_path).remarks
    assert "all but equal" in remark
