"""The published comparisons that measured rows are put beside: FCLIP-UNet, Tables 3, 4 and 5.

Sun Jin, Cui Yuntong, Tian Hongwei, Huang Changcheng, Wang Jigang: Image Deraining Driven by CLIP
Visual Embedding. Journal of Electronics & Information Technology, doi 10.11999/JEIT251066. Every
value in the folder `published` is printed there; rows of other methods are partly copied there from
other papers. The paper states neither its protocol nor its implementation of NIQE and BRISQUE; what
is said about them here is inferred.
"""

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

PROTOCOL = "rain13k"
"""What the quoted values fit: rows that the paper copied from others have values under it."""
TRAINING = ("rain13k", "train")
"""Dataset and split that the quoted methods were trained on."""
TRAINING_PAIRS = 13_711
"""As many can be downloaded; papers say 13,712."""
AVERAGE = "Average"


@dataclass(frozen=True)
class Metric:
    """A metric as published tables print it."""

    title: str
    """As in the columns of `published`."""
    prefix: str
    """How its names begin in results: `psnr` is `psnr_y` or `psnr_rgb`."""
    digits: int
    """Printed after the point."""
    larger_is_better: bool = True


PSNR = Metric("PSNR", "psnr", 2)
SSIM = Metric("SSIM", "ssim", 3)
NIQE = Metric("NIQE", "niqe", 3, larger_is_better=False)
BRISQUE = Metric("BRISQUE", "brisque", 3, larger_is_better=False)


@dataclass(frozen=True)
class PublishedSet:
    """A test set of a published table, and the prepared datasets that have its images."""

    title: str
    same: tuple[tuple[str, str], ...]
    """Dataset and split of the very images, as `derainctl prepare` calls them."""
    similar: tuple[tuple[str, str], ...] = ()
    """Other versions of them: another size, or before the benchmark's own selection."""
    images: tuple[int, ...] = ()
    """Published numbers of its images; empty if the paper states none."""
    remark: str = ""
    """Why nothing measured on it is comparable with the quoted values."""


@dataclass(frozen=True)
class PublishedTable:
    """A published table. Rows have a printed value for each set and metric, then the averages."""

    name: str
    """Also of its files: `table3`."""
    title: str
    sets: tuple[PublishedSet, ...]
    metrics: tuple[Metric, ...]
    rows: Mapping[str, tuple[str, ...]]
    """The printed values by method, in the order of the paper."""
    notes: tuple[str, ...]
    averaged: bool = False
    """The last columns are the unweighted means over the sets."""
    quoted_only: bool = False
    """No measured value may be placed beside the quoted ones."""
    remarks: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What is odd in print, by method and title of the column."""


RAIN13K = (
    PublishedSet("Test100", (("rain13k", "test100"),), (("rain800", "test"),), (98, 100)),
    PublishedSet("Rain100H", (("rain13k", "rain100h"),), (("rain100h", "test"),), (100,)),
    PublishedSet("Rain100L", (("rain13k", "rain100l"),), (("rain100l", "test"),), (100,)),
    PublishedSet("Test2800", (("rain13k", "test2800"),), (("rain14000", "test2800"),), (2800,)),
    PublishedSet("Test1200", (("rain13k", "test1200"),), (("rain1200", "test"),), (1200,)),
)
"""Test100 can be downloaded with 98 pairs; papers say 100. Rain13K's Rain100H and Rain100L are
crops of 480x320 px, the datasets of those names have 481x321 px."""

OTHERS = (
    PublishedSet("SPA-Data", (("spa-data", "test"),), images=(1000,)),
    PublishedSet("HQ-RAIN", (("hq-rain", "test"),), images=(500,)),
    PublishedSet(
        "MPID",
        (("mpid", "streak"),),
        remark="the paper does not say which part of MPID its values are of",
    ),
)


@functools.cache
def published_tables() -> tuple[PublishedTable, ...]:
    """Tables 3, 4 and 5."""
    return (
        PublishedTable(
            "table3",
            "Comparison on the test sets of Rain13K (FCLIP-UNet, Table 3)",
            RAIN13K,
            (PSNR, SSIM),
            _values("table3"),
            notes=(
                "All quoted methods were trained on Rain13K. The paper does not state its "
                "protocol; rows that it copied from other papers have values under rain13k, so "
                "only that one is comparable.",
                "Average is the unweighted mean of the five sets.",
            ),
            averaged=True,
            remarks={("DID-MDN", "Average PSNR"): "as printed; the mean of its five sets is 24.64"},
        ),
        PublishedTable(
            "table4",
            "Other datasets, trained on Rain13K (FCLIP-UNet, Table 4)",
            OTHERS,
            (PSNR, SSIM),
            _values("table4"),
            notes=(
                "All quoted methods were trained on Rain13K and on nothing of these sets. The "
                "paper does not state its protocol; that it is the same as in Table 3, of the luma,"
                " is an assumption.",
            ),
        ),
        PublishedTable(
            "table5",
            "Real rain without reference (FCLIP-UNet, Table 5)",
            (PublishedSet("NTURain-R", (("nturain-r", "test"),)),),
            (NIQE, BRISQUE),
            _values("table5"),
            notes=(
                "Smaller is better. The paper names neither the implementations of NIQE and "
                "BRISQUE nor its frames. Implementations differ by more than methods do (its rainy "
                "input has an NIQE of 6.211; with LIVE's parameters at full size two of the "
                "sequences have 3.54 and 4.42), so no measured value is placed beside these.",
            ),
            quoted_only=True,
        ),
    )


def _values(name: str) -> dict[str, tuple[str, ...]]:
    """The printed values of a table by method."""
    text = (files(__package__) / "published" / f"{name}.csv").read_text(encoding="utf-8")
    _, *rows = csv.reader(text.splitlines())
    return {method: tuple(printed) for method, *printed in rows}
