"""The entries of a leaderboard: a version, measured on images of one role."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from derain.tracking.lineage import Lineage, RecordedDataset, number

VALIDATION, TEST, CHOSEN_ON_TEST = "validation", "test", "test, chosen on it"


@dataclass(frozen=True)
class Entry:
    """What was measured of a version on the validation or on the test images of its run."""

    lineage: Lineage
    role: str
    """`validation`: these images chose the checkpoint; `test`: they did not, unless it says so."""
    protocol: str
    """Its name with its version, if that was recorded."""
    sha256: str
    """Of the images, by which entries are comparable."""
    metrics: Mapping[str, float]
    input: Mapping[str, float]
    """Of the rainy images, if recorded."""

    @property
    def psnr(self) -> float:
        """PSNR in dB, of the luma or of RGB as its protocol says."""
        return next(value for name, value in self.metrics.items() if name.startswith("psnr_"))

    @property
    def measured_on(self) -> list[RecordedDataset]:
        """The datasets with these images; none if the run did not record them."""
        names = ("test",) if self.role != VALIDATION else ("validation", "eval")
        return self.lineage.role(*names)


def entries_of(lineage: Lineage) -> Iterator[Entry]:
    """The entries of a version: of its test images, and of its validation images if they differ."""
    tags = lineage.version.tags
    protocol = tags.get("protocol", "")
    on_test = tags.get("chosen_on_test") == "true"
    if tested := _metrics(tags, "test_"):
        role = CHOSEN_ON_TEST if on_test else TEST
        rainy = _metrics(tags, "test_input_")
        yield Entry(lineage, role, protocol, tags.get("test_sha256", ""), tested, rainy)
    if (validated := _metrics(tags, "")) and not on_test:
        rainy = _metrics(tags, "input_")
        sha256 = tags.get("evaluation_sha256", "")
        yield Entry(lineage, VALIDATION, protocol, sha256, validated, rainy)


def _metrics(tags: Mapping[str, str], prefix: str) -> dict[str, float]:
    """The metrics whose tags have a prefix, PSNR first: `psnr_y` of the tag `test_psnr_y`."""
    found = {}
    for kind in ("psnr_", "ssim_"):
        for tag, value in tags.items():
            if tag.startswith(f"{prefix}{kind}") and (measured := number(value)) is not None:
                found[tag.removeprefix(prefix)] = measured
    return found if any(name.startswith("psnr_") for name in found) else {}
