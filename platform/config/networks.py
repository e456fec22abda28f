"""The options of the networks: one section each, chosen by `model.name`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from derain.config.section import NameOrPath, Section, Seed


class FCLIPUNetConfig(Section):
    """Options of `derain.models.networks.fclip_unet.FCLIPUNet`: see its docstring."""

    name: Literal["fclip_unet"] = "fclip_unet"
    encoder: Literal["clip_rn50", "clip_vit_b32", "clip_vit_b16", "imagenet_resnet50"] = "clip_rn50"
    """The encoders of Table 6."""
    encoder_weights: NameOrPath | None = None
    """Null takes the published ones (open_clip's `openai`, torchvision's `IMAGENET1K_V1`); else
    another tag, the path of a local file, or `random` (demos and tests)."""
    encoder_layers: tuple[int, ...] | None = None
    """Blocks of each stage of a ResNet, or one number for a ViT; null takes the published ones."""
    encoder_width: int | None = Field(None, gt=0)
    """Channels of the stem, or of a ViT's tokens; null takes the published ones."""
    encoder_bn_mode: Literal["frozen", "clip_denoising"] = "frozen"
    encoder_seed: Seed = 0
    """Only for `encoder_weights: random`."""
    decoder_widths: tuple[int, int, int, int, int] = (512, 256, 128, 64, 64)
    decoder_depths: tuple[int, int, int, int, int] = (3, 3, 3, 3, 3)
    up: Literal["updw", "bilinear"] = "updw"
    ldfps_sigma: tuple[float, float, float, float] | None = (0.01, 0.03, 0.06, 0.1)
    """Perturbation strength of the skips F1 to F4; null switches LDFPS off."""
    ldfps_kind: Literal["multiplicative", "additive", "statistics"] = "multiplicative"
    output: Literal["direct", "residual"] = "direct"
    layer_scale: float = Field(1e-6, ge=0)
    drop_path: float = Field(0.0, ge=0, lt=1)


class CLIPRPNConfig(Section):
    """Options of `derain.models.networks.clip_rpn.CLIPRPN`: see its docstring."""

    name: Literal["clip_rpn"] = "clip_rpn"
    encoder_weights: NameOrPath = "openai"
    """An open_clip tag of ViT-B/32, the path of a local file, or `random` (demos and tests)."""
    encoder_dim: int = Field(512, gt=0)
    encoder_width: int = Field(768, gt=0)
    encoder_layers: int = Field(12, gt=0)
    encoder_text_width: int = Field(512, gt=0)
    encoder_text_layers: int = Field(12, gt=0)
    encoder_seed: Seed = 0
    """Only for `encoder_weights: random`."""
    prompts: tuple[str, ...] = Field(
        ("a photo with light rain", "a photo with moderate rain", "a photo with heavy rain"),
        min_length=1,
    )
    """One expert a prompt."""
    similarity: Literal["cosine", "dot"] = "cosine"
    temperature: float = Field(100.0, gt=0)
    routing: Literal["hard", "soft", "single", "random"] = "hard"
    """Only `hard` and `soft` need CLIP's weights. (`oracle` needs routes from outside.)"""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of an expert at H, H/2, ...; two to five levels."""
    depths: tuple[int, ...] = (2, 4, 4, 6)
    heads: tuple[int, ...] = (1, 2, 4, 8)
    block: Literal["transformer", "naf"] = "transformer"
    ffn_expansion: float = Field(2.66, gt=0)
    mgca: tuple[Literal["window", "channel", "none"], ...] = ("window", "window", "window")
    """Mask-guided cross-attention at scales 1, 1/2, ..."""
    mgca_window: int = Field(8, gt=0)
    """Side of a window in pixels of its scale."""
    mgca_bidirectional: bool = False
    mask_threshold: float = Field(0.03, gt=0, lt=1)
    """A pixel is rain where a channel differs by more, of 1."""
    mask_weight: float = Field(0.1, ge=0)
    """Weight of the mask loss; 0 switches it off."""


class RDMCConfig(Section):
    """Options of `derain.models.networks.rdmc.RDMC`: see its docstring."""

    name: Literal["rdmc"] = "rdmc"
    recursions: int = Field(3, gt=0)
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 256), min_length=2)
    """Channels of one stream at H, H/2, H/4, ..."""
    dilations: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    paths: Literal["all"] | tuple[str, ...] = "all"
    """Cross-level paths such as `enc4_dec3`, `all`, or an empty list."""
    gate: Literal["learned", "dynamic"] = "learned"
    norm: Literal["batch", "group", "none"] = "batch"
    up: Literal["mixed", "bilinear"] = "mixed"


class PReNetConfig(Section):
    """Options of `derain.models.networks.prenet.PReNet`: see its docstring."""

    name: Literal["prenet"] = "prenet"
    recursions: int = Field(6, gt=0)
    width: int = Field(32, gt=0)
    shared_blocks: bool = False
    """True is PReNet_r."""


class NAFNetConfig(Section):
    """Options of `derain.models.networks.nafnet.NAFNet`: see its docstring."""

    name: Literal["nafnet"] = "nafnet"
    width: int = Field(32, gt=0)
    encoder_blocks: tuple[int, ...] = Field((1, 1, 1, 28), min_length=1)
    middle_blocks: int = Field(1, ge=0)
    decoder_blocks: tuple[int, ...] = Field((1, 1, 1, 1), min_length=1)


class RestormerConfig(Section):
    """Options of `derain.models.networks.restormer.Restormer`: see its docstring."""

    name: Literal["restormer"] = "restormer"
    width: int = Field(48, gt=0)
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    refinement_blocks: int = Field(4, ge=0)
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    expansion: float = Field(2.66, gt=0)


class MPRNetConfig(Section):
    """Options of `derain.models.networks.mprnet.MPRNet`: see its docstring."""

    name: Literal["mprnet"] = "mprnet"
    width: int = Field(40, gt=0)
    unet_growth: int = Field(20, ge=0)
    full_growth: int = Field(16, ge=0)
    blocks: int = Field(8, ge=0)
    reduction: int = Field(4, gt=0)
    stage_weight: float = Field(1.0, ge=0)
    """Weight of the losses of stages 1 and 2; 0 trains on the last image alone."""


class PluginConfig(Section):
    """A network of the user's: the class that `name` names, its options as further keys."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`module:Class`, which every worker can import; the class takes the options as keywords."""


def _kind(model: Any) -> str | None:
    """Which of the sections below a `model` is."""
    name = model.get("name") if isinstance(model, dict) else getattr(model, "name", None)
    return "module:Class" if isinstance(name, str) and ":" in name else name


ModelConfig = Annotated[
    Annotated[FCLIPUNetConfig, Tag("fclip_unet")]
    | Annotated[CLIPRPNConfig, Tag("clip_rpn")]
    | Annotated[RDMCConfig, Tag("rdmc")]
    | Annotated[PReNetConfig, Tag("prenet")]
    | Annotated[NAFNetConfig, Tag("nafnet")]
    | Annotated[RestormerConfig, Tag("restormer")]
    | Annotated[MPRNetConfig, Tag("mprnet")]
    | Annotated[PluginConfig, Tag("module:Class")],
    Discriminator(_kind),
]
