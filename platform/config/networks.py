"""The options of the networks: one section for each network, selected by `model.name`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from derain.config.section import PLUGIN_NAME, NameOrPath, Section, Seed


class FCLIPUNetConfig(Section):
    """Options of `derain.models.networks.fclip_unet.FCLIPUNet`."""

    name: Literal["fclip_unet"] = "fclip_unet"
    encoder: Literal["clip_rn50", "clip_vit_b32", "clip_vit_b16", "imagenet_resnet50"] = "clip_rn50"
    """The frozen encoder: one of the four of Table 6. Default: the paper's choice."""
    encoder_weights: NameOrPath | None = None
    """Null: the published weights (open_clip's `openai`, torchvision's `IMAGENET1K_V1`). Otherwise
    another tag, the path of a local file, or `random` (demos and tests)."""
    encoder_layers: tuple[int, ...] | None = None
    """Blocks per stage of a ResNet, or one number for a ViT. Null: as published."""
    encoder_width: int | None = Field(None, gt=0)
    """Channels of the stem, or of a ViT's tokens. Null: as published."""
    encoder_bn_mode: Literal["frozen", "clip_denoising"] = "frozen"
    """BatchNorm of a CLIP-RN50: with its own statistics, or with those of the batches as
    CLIPDenoising's code does."""
    encoder_seed: Seed = 0
    """Seed of the weights, for `encoder_weights: random` only."""
    decoder_widths: tuple[int, int, int, int, int] = (512, 256, 128, 64, 64)
    """Channels at H/16, H/8, H/4, H/2 and H. Not stated in the paper."""
    decoder_depths: tuple[int, int, int, int, int] = (3, 3, 3, 3, 3)
    """ConvNeXt blocks at H/16, H/8, H/4, H/2 and H. Not stated in the paper."""
    up: Literal["updw", "bilinear"] = "updw"
    """Upsampling: the paper's UpDWBlock, or the ablation of Table 8."""
    ldfps_sigma: tuple[float, float, float, float] | None = (0.01, 0.03, 0.06, 0.1)
    """Perturbation strength of the skips F1 to F4; null switches LDFPS off. Default: the best of
    Table 11."""
    ldfps_kind: Literal["multiplicative", "additive", "statistics"] = "multiplicative"
    """How LDFPS perturbs features, see `derain.models.layers.ldfps.LDFPS`."""
    output: Literal["direct", "residual"] = "direct"
    """`residual` adds the rainy image to the output, so that training starts near the identity."""
    layer_scale: float = Field(1e-6, ge=0)
    """Initial scale of each ConvNeXt block. Default: ConvNeXt's; 0.01 to 1 suits short runs."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Probability with which a ConvNeXt block is skipped in training."""


class CLIPRPNConfig(Section):
    """Options of `derain.models.networks.clip_rpn.CLIPRPN`."""

    name: Literal["clip_rpn"] = "clip_rpn"
    encoder_weights: NameOrPath = "openai"
    """An open_clip tag of ViT-B/32, the path of a local file, or `random` (demos and tests)."""
    encoder_dim: int = Field(512, gt=0)
    """Length of CLIP's embeddings. Default: ViT-B/32, as for the other sizes of CLIP."""
    encoder_width: int = Field(768, gt=0)
    """Channels of the image tokens."""
    encoder_layers: int = Field(12, gt=0)
    """Blocks of the image transformer."""
    encoder_text_width: int = Field(512, gt=0)
    """Channels of the text tokens."""
    encoder_text_layers: int = Field(12, gt=0)
    """Blocks of the text transformer."""
    encoder_seed: Seed = 0
    """Seed of CLIP's weights, for `encoder_weights: random` only."""
    prompts: tuple[str, ...] = Field(
        ("a photo with light rain", "a photo with moderate rain", "a photo with heavy rain"),
        min_length=1,
    )
    """The texts that CLIP matches images to; one expert per prompt. Not stated in the paper."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """How CLIP's embeddings of image and text are compared."""
    temperature: float = Field(100.0, gt=0)
    """Factor of the similarities before the softmax. Default: CLIP's."""
    routing: Literal["hard", "soft", "single", "random"] = "hard"
    """Which expert an image uses: the one of the best prompt, all weighted by their scores, the
    only one, or one determined by the image's pixels. Only `hard` and `soft` need CLIP's weights.
    (`oracle` needs routes from outside.)"""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of an expert at H, H/2, ...; two to five levels."""
    depths: tuple[int, ...] = (2, 4, 4, 6)
    """Blocks of an expert at H, H/2, ..., the same for encoder and decoder."""
    heads: tuple[int, ...] = (1, 2, 4, 8)
    """Attention heads of an expert at H, H/2, ..."""
    block: Literal["transformer", "naf"] = "transformer"
    """Blocks as in Restormer, or as in NAFNet, which are faster."""
    ffn_expansion: float = Field(2.66, gt=0)
    """Hidden channels of a feed-forward layer over its input channels. Default: Restormer's."""
    mgca: tuple[Literal["window", "channel", "none"], ...] = ("window", "window", "window")
    """Kind of mask-guided cross-attention at scales 1, 1/2, ..."""
    mgca_window: int = Field(8, gt=0)
    """Side of a window, in pixels of its scale."""
    mgca_bidirectional: bool = False
    """Background pixels attend to rain pixels too."""
    mask_threshold: float = Field(0.03, gt=0, lt=1)
    """A pixel counts as rain if a channel differs by more than this between rainy and clean image,
    in [0, 1]. Default: for streaks; 30/255 suits drops."""
    mask_weight: float = Field(0.1, ge=0)
    """Weight of the mask loss; 0 switches it off."""


class RDMCConfig(Section):
    """Options of `derain.models.networks.rdmc.RDMC`; the defaults are those of DRNet's code."""

    name: Literal["rdmc"] = "rdmc"
    recursions: int = Field(3, gt=0)
    """How many times the network is applied, with the same parameters."""
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 256), min_length=2)
    """Channels of one stream at H, H/2, H/4, ..."""
    dilations: tuple[int, ...] = Field((1, 2, 3), min_length=1)
    """Dilation of the convolutions of each stream of encoders, in pixels."""
    paths: Literal["all"] | tuple[str, ...] = "all"
    """Cross-level paths such as `enc4_dec3`, `all`, or an empty list."""
    gate: Literal["learned", "dynamic"] = "learned"
    """Weight of a path: a learned number, or computed for each image."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Normalisation; with `group` and `none` an image is independent of the rest of its batch."""
    up: Literal["mixed", "bilinear"] = "mixed"
    """Upsampling: a learned mix of bilinear and bicubic, or bilinear alone, which is faster."""


class PReNetConfig(Section):
    """Options of `derain.models.networks.prenet.PReNet`; the defaults are the published network."""

    name: Literal["prenet"] = "prenet"
    recursions: int = Field(6, gt=0)
    """How many times the network is applied, with the same parameters."""
    width: int = Field(32, gt=0)
    """Channels of all features."""
    shared_blocks: bool = False
    """Apply one residual block five times instead of five blocks: PReNet_r."""


class NAFNetConfig(Section):
    """Options of `derain.models.networks.nafnet.NAFNet`; the defaults are the published width32."""

    name: Literal["nafnet"] = "nafnet"
    width: int = Field(32, gt=0)
    """Channels at full resolution; each level below has twice as many."""
    encoder_blocks: tuple[int, ...] = Field((1, 1, 1, 28), min_length=1)
    """Blocks per level of the encoder, from high to low resolution."""
    middle_blocks: int = Field(1, ge=0)
    """Blocks at the lowest resolution."""
    decoder_blocks: tuple[int, ...] = Field((1, 1, 1, 1), min_length=1)
    """Blocks per level of the decoder, from low to high resolution."""


class RestormerConfig(Section):
    """Options of `derain.models.networks.restormer.Restormer`; the defaults are the published
    network for deraining."""

    name: Literal["restormer"] = "restormer"
    width: int = Field(48, gt=0)
    """Channels at full resolution; each level below has twice as many."""
    blocks: tuple[int, int, int, int] = (4, 6, 6, 8)
    """Transformer blocks at H, H/2, H/4 and H/8, the same for encoder and decoder."""
    refinement_blocks: int = Field(4, ge=0)
    """Transformer blocks after the decoder, at full resolution."""
    heads: tuple[int, int, int, int] = (1, 2, 4, 8)
    """Attention heads at H, H/2, H/4 and H/8."""
    expansion: float = Field(2.66, gt=0)
    """Hidden channels of a feed-forward layer over its input channels."""


class MPRNetConfig(Section):
    """Options of `derain.models.networks.mprnet.MPRNet`; the defaults are the published network for
    deraining."""

    name: Literal["mprnet"] = "mprnet"
    width: int = Field(40, gt=0)
    """Channels at full resolution."""
    unet_growth: int = Field(20, ge=0)
    """Channels that each level of a U-Net has more than the level above."""
    full_growth: int = Field(16, ge=0)
    """Channels that stage 3 has more than `width`."""
    blocks: int = Field(8, ge=0)
    """Channel attention blocks in each of the three groups of stage 3."""
    reduction: int = Field(4, gt=0)
    """Channels of a block over the hidden channels of its attention."""
    stage_weight: float = Field(1.0, ge=0)
    """Weight of the losses of stages 1 and 2; 0 trains on the last image only."""


class PluginConfig(Section):
    """A user-defined network: `name` is its class, all other keys are its options."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=PLUGIN_NAME)
    """`module:Class`, importable in every worker; the class takes the options as keyword
    arguments."""


def _kind(model: Any) -> str | None:
    """The tag of the section that a `model` belongs to."""
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
