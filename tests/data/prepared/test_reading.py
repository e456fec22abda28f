"""Reading a pair: unchanged bytes, one size, no second reading of a clean image."""

import pytest
from PIL import Image

from derain.data.prepared.reading import read_pair
from derain.data.sources.discover import find_pairs
from derain.errors import DataError
from tests.folders import PairedFolder


def test_a_pair_has_the_bytes_and_the_size_of_its_files(paired_folder: PairedFolder) -> None:
    source = paired_folder(1)
    read = read_pair(find_pairs("paired", source).pairs[0], source, decode=True)
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
