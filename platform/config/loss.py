"""The section `loss`: the terms of the loss and their weights."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from derain.config.section import PLUGIN_NAME, NameOrPath, Section


class ScheduleConfig(Section):
    """Options of `derain.models.losses.loss_schedule.LossSchedule`, for `loss.pixel: power`."""

    kind: Literal[
        "constant", "power_anneal", "power_anneal_rev", "convex_mix", "progress_adaptive"
    ] = "power_anneal"
    """How the exponent changes during training; see docs/reference/schedules.md."""
    start: float = Field(2.0, gt=0)
    """Exponent of the error at the start of training. Default: the squared error."""
    end: float = Field(1.0, gt=0)
    """Exponent of the error at the end of training. Default: the Charbonnier loss."""
    normalize: bool = False
    """Scale the loss so that the gradient of `reference_error` is the same for every exponent, and
    one `clip_norm` suits all."""
    reference_error: float = Field(0.05, gt=0)
    """Difference of two pixel values, in [0, 1]."""
    eps: float = Field(1e-3, gt=0)
    """Smooths the loss around an error of 0; a difference of pixel values in [0, 1]."""


class OwnScheduleConfig(Section):
    """A schedule of the user's: `kind` is its class, all keys but `eps` are its options."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(pattern=PLUGIN_NAME)
    """`module:Name`, importable in every worker; see docs/guides/plugins.md."""
    eps: float = Field(1e-3, gt=0)
    """Smooths the loss around an error of 0; a difference of pixel values in [0, 1]."""

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `kind` and `eps`."""
        return dict(self.model_extra or {})


def _kind(schedule: Any) -> str:
    """The tag of the section that a `schedule` belongs to."""
    is_tree = isinstance(schedule, dict)
    kind = schedule.get("kind") if is_tree else getattr(schedule, "kind", None)
    return "module:Name" if isinstance(kind, str) and ":" in kind else "power"


class TermConfig(Section):
    """A term of the user's: `name` is its class, all keys but `weight` are its options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=PLUGIN_NAME)
    """`module:Name`, importable in every worker; see docs/guides/plugins.md."""
    weight: float = Field(1.0, ge=0)
    """Weight of the term in the loss; 0 leaves it out."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside `name` and `weight`."""
        return dict(self.model_extra or {})


class LossConfig(Section):
    """L = pixel loss + lambda_p * perceptual loss (FCLIP-UNet) + lambda_c * contrastive (RDMC)
    + terms of one's own."""

    pixel: Literal[
        "l1", "mse", "charbonnier", "charbonnier_edge", "ssim", "mse_ssim", "power", "none"
    ] = "l1"
    """Pixel loss. `ssim`: 1 - SSIM. `mse_ssim`: 0.1 MSE + 1 - SSIM. `charbonnier_edge`: MPRNet's.
    `power`: follows `schedule`. `none`: `terms` take its place."""
    schedule: (
        Annotated[
            Annotated[ScheduleConfig, Tag("power")]
            | Annotated[OwnScheduleConfig, Tag("module:Name")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    """The schedule of `pixel: power`; not allowed with other pixel losses."""
    lambda_p: float = Field(1.0, ge=0)
    """Weight of the perceptual loss, if any. Default: the best of FCLIP-UNet's Table 10."""
    perceptual: Literal["none", "vgg16", "vgg19", "encoder"] = "none"
    """Network whose features the perceptual loss compares: a VGG trained on ImageNet, or the
    model's own frozen encoder. FCLIP-UNet's paper does not say which; its config takes vgg19."""
    perceptual_weights: NameOrPath | None = None
    """Weights of the VGG, for both feature losses. Null: torchvision's, downloaded once. Otherwise
    a local file, or `random` (tests)."""
    lambda_c: float = Field(0.1, ge=0)
    """Weight of the contrastive loss. Default: RDMC's."""
    contrastive: Literal["none", "vgg16", "vgg19", "encoder"] = "none"
    """Network in whose features the contrastive loss compares clean, derained and rainy images."""
    contrastive_weights: tuple[float, ...] = Field(
        (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0), min_length=1, max_length=5
    )
    """One weight per layer: relu1_1, relu2_1, ... of VGG, or F1, F2, ... of the encoder. Default:
    RDMC's."""
    contrastive_ratio: Literal["per_layer", "of_sums"] = "per_layer"
    """Sum of the layers' ratios, or ratio of the layers' sums."""
    contrastive_floor: float = Field(0.1, ge=0)
    """Minimum of the distance to the rainy image, as a share of the distance between clean and
    rainy image; 0 is the published loss."""
    terms: tuple[TermConfig, ...] = ()
    """Further terms, of your own."""

    @model_validator(mode="after")
    def _schedule_matches_pixel(self) -> "LossConfig":
        if (self.pixel == "power") != (self.schedule is not None):
            raise ValueError("`pixel: power` needs a schedule, and other pixel losses take none")
        return self

    @model_validator(mode="after")
    def _something_is_compared(self) -> "LossConfig":
        if self.pixel == "none" and not any(term.weight for term in self.terms):
            raise ValueError("`pixel: none` needs a term of your own in `terms`, with a weight")
        return self

    @model_validator(mode="after")
    def _one_feature_network(self) -> "LossConfig":
        both = {self.perceptual if self.lambda_p else "none"}
        both |= {self.contrastive if self.lambda_c else "none"}
        if len(both - {"none"}) > 1:
            raise ValueError("perceptual and contrastive must name the same network")
        return self
