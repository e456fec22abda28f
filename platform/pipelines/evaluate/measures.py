"""Which metrics a dataset gets: protocols and the user's metrics where it has clean images, else
metrics without them.

A protocol gives a PSNR and an SSIM. Each other measure, such as NIQE or LPIPS, gives one value, and
its name is that of the value.
"""

from collections.abc import Sequence

from derain.data.prepared.manifest import Prepared
from derain.errors import DataError, UsageError
from derain.evaluation import protocols
from derain.evaluation.lpips import NAME as LPIPS
from derain.evaluation.lpips import Lpips
from derain.evaluation.no_reference import METRICS, NoReference
from derain.plugins.identity import identity, identity_text
from derain.plugins.resolve import is_plugin


def split_names(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The protocols and the metrics without reference among the names of --protocol.

    Raises DataError for a name that is neither, UsageError for LPIPS, which needs files.
    """
    for name in names:
        if name == LPIPS:
            raise UsageError(f"{LPIPS} is measured with --lpips ALEXNET HEADS, its weight files.")
        if name not in protocols.PROTOCOLS and name not in METRICS:
            known = ", ".join((*protocols.PROTOCOLS, *METRICS))
            raise DataError(f"Unknown protocol {name!r}; choose from: {known}.")
    return (
        tuple(name for name in names if name not in METRICS),
        tuple(name for name in names if name in METRICS),
    )


def identity_of(name: str) -> str:
    """What is stored beside the values of a protocol or of another measure."""
    if name == LPIPS:
        return Lpips.identity
    if is_plugin(name):
        return identity_text(identity(name))
    return NoReference([name]).identities()[name] if name in METRICS else protocols.identity(name)


def has_clean(dataset: Prepared) -> bool:
    """Whether the images of a dataset have clean partners.

    Raises DataError for a dataset of which only some have one.
    """
    missing = dataset.arrow("clean_offset").null_count
    if 0 < missing < len(dataset):
        dataset.require_clean()
    return not missing


def names_for(
    dataset: Prepared,
    chosen: Sequence[str],
    no_reference: Sequence[str],
    own: Sequence[str] = (),
    *,
    lpips: bool = False,
) -> tuple[str, ...]:
    """What a dataset is measured by, in order: without clean images by all metrics that need none,
    unless some of them are chosen. `own` are metrics of the user's, which need clean images."""
    if has_clean(dataset):
        return (*chosen, *no_reference, *([LPIPS] if lpips else []), *own)
    return tuple(no_reference or METRICS)
