"""Published values beside those of a sweep: a difference only where both measure the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from derain.config import Config
from derain.config.sweep import Reference
from derain.data.prepared.manifest import Prepared
from derain.data.prepared.roles import open_training, open_validation
from derain.evaluation.metric_names import psnr_name, ssim_name
from derain.tune.report.compare import Row


@dataclass(frozen=True)
class Published:
    """The columns of a table that show what was published.

    Where both measure the same: the difference of ours to the published value. Else the order:
    our rank among the points that have a published value, and the published rank among the same.
    """

    reference: Reference
    metric: str
    """The metric of the order: `psnr_y`, `ssim_rgb`, ..."""
    points: Sequence[str]
    """The points that finished, the best first."""
    comparable: bool

    def heads(self, metric: str) -> list[str]:
        """The names of the columns in a table of `metric` alone, or of both for a PSNR."""
        if not self.comparable:
            return ["our rank", "published rank", "published PSNR (dB)", "published SSIM"]
        if metric.startswith("ssim"):
            return ["published SSIM", "difference"]
        return ["published PSNR (dB)", "difference (dB)", "published SSIM"]

    def cells(self, point: str, measured: Row) -> list[str]:
        """The cells of a point with its metrics `measured`, a PSNR among them or not."""
        psnr, ssim = self.reference.psnr_y.get(point), self.reference.ssim_y.get(point)
        both = ["" if psnr is None else f"{psnr:.2f}", "" if ssim is None else f"{ssim:.3f}"]
        if not self.comparable:
            return [*self._ranks(point), *both]
        if not any(name.startswith("psnr_") for name in measured):
            own = measured[ssim_name(measured)]
            return [both[1], "" if ssim is None else f"{own - ssim:+.3f}"]
        own = measured[psnr_name(measured)]
        return [both[0], "" if psnr is None else f"{own - psnr:+.2f}", both[1]]

    def _ranks(self, point: str) -> list[str]:
        is_ssim = self.metric.startswith("ssim")
        published = self.reference.ssim_y if is_ssim else self.reference.psnr_y
        own = [name for name in self.points if name in published]
        if point not in own:
            return ["", ""]
        rank = 1 + sum(published[other] > published[point] for other in own)
        return [str(1 + own.index(point)), str(rank)]


def published_of(config: Config, points: Sequence[Row], why_not: str | None) -> Published | None:
    """The columns of a sweep with these points (best first); None if it has no reference."""
    assert config.sweep is not None
    if config.sweep.reference is None:
        return None
    names = [row["point"] for row in points]
    return Published(config.sweep.reference, config.sweep.metric, names, comparable=not why_not)


def why_incomparable(config: Config) -> str | None:
    """Why the metrics cannot be compared with the published ones; None if they can be, or if there
    are none.

    They can if the reference names the datasets and the protocol of its table, and this sweep has
    trained on the same and validated by the same, with the profile `paper` and pretrained weights.
    """
    assert config.sweep is not None
    return next(_differences(config), None) if config.sweep.reference else None


def _differences(config: Config) -> Iterator[str]:
    assert config.sweep is not None
    assert config.sweep.reference is not None
    reference = config.sweep.reference
    if config.profile != "paper":
        profile = config.profile or "none"
        yield f"profile {profile} uses a network of another size and other images"
    if getattr(config.model, "encoder_weights", None) == "random":
        yield "the encoder has random weights"
    for what, published, own in (
        ("trained", reference.trained_on, _names(open_training(config.data))),
        ("measured", reference.measured_on, _names(open_validation(config.data))),
    ):
        if published is None:
            yield f"the reference does not say on which dataset its networks were {what}"
        elif own != [published]:
            yield f"the published networks were {what} on {published}, these on {', '.join(own)}"
    if reference.protocol is None:
        yield "the reference does not say by which protocol it was measured"
    elif reference.protocol != config.eval.protocol:
        yield (
            f"the published values are by the protocol {reference.protocol}, these by "
            f"{config.eval.protocol}"
        )


def _names(datasets: Sequence[Prepared]) -> list[str]:
    """The datasets as `prepare` names them, dataset/split, or that it is a part of one."""
    names = (f"{item.manifest.dataset}/{item.manifest.split}" for item in datasets)
    return [
        name if item.whole is None else f"a part of {name}"
        for name, item in zip(names, datasets, strict=True)
    ]
