"""What several tests of the loader use."""

from pathlib import Path

import pytest

from benchmarks._small import write_dataset
from derain.data.images.decode import decode_image, inspect
from derain.data.prepared.manifest import Prepared
from derain.errors import DataError
from tests.data.images.odd_images import spoiled
from tests.folders import PairedFolder


@pytest.fixture
def spoiled_set(paired_folder: PairedFolder, tmp_path: Path) -> Prepared:
    """Five pairs, of which the rainy image of 001 and the clean one of 004 cannot be decoded."""
    source = paired_folder(5)
    for name in ("rain/001.png", "clean/004.png"):
        data = spoiled((source / name).read_bytes())
        inspect(data, name)  # nothing in its header shows it
        with pytest.raises(DataError, match="not a readable image"):
            decode_image(data, name)
        (source / name).write_bytes(data)
    return write_dataset(source, tmp_path / "prepared", shards=1)
