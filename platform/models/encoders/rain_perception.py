"""Rain perception: how well each of several prompts describes an image, by frozen CLIP."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.clip_weights import CLIP_MEAN, CLIP_STD, read_clip
from derain.models.encoders.random_weights import randomise_transformer
from derain.models.fingerprints import digest
from derain.models.precision import without_tf32
from derain.models.shapes import ImageBatch
from derain.models.weights import load_strictly

Similarity = Literal["cosine", "dot"]

INPUT_PX = 224
"""Height and width of CLIP's input."""

PROMPTS: dict[str, tuple[str, ...]] = {
    "intensity3": (
        "a photo with light rain",
        "a photo with moderate rain",
        "a photo with heavy rain",
    ),
    "intensity3_bare": ("light rain", "moderate rain", "heavy rain"),
    "pattern4": (
        "a photo with light rain streaks",
        "a photo with heavy rain streaks",
        "a photo with slanted rain streaks",
        "a photo with raindrops on glass",
    ),
}
"""Sets of prompts. Not stated in the paper: its wording. "intensity3_bare": FCLIP-UNet, Table 1."""


class RainPerception(nn.Module):
    """Scores s of n prompts P for an image I, by the two towers of CLIP-ViT-B/32:

        v = image tower(I), t_i = text tower(P_i)     both of length 1 with similarity="cosine"
        s_i = exp(tau v.t_i) / sum_j exp(tau v.t_j)     tau = `temperature`

    Preprocessing is CLIP's own: resize the shorter side to 224 px (bicubic, antialiased), crop the
    central square, normalise. (CLIP also rounds to 8 bits after resizing; this does not.)
    Everything runs in float32 without gradient, even under autocast and where cuDNN would use
    TF32, so that CPU and GPU give the same label.

    The prompts are encoded once. After that only the image tower is kept, and the n text vectors
    as the buffer `text`. The buffer `told` is the SHA-256 of the inputs of `text`, which are the
    text tower and the tokens; it replaces `text` in the fingerprint, because the last bit of
    `text` depends on the type of CPU. The buffer `reading` holds the two options (1 for cosine, 0
    for dot; the temperature). The state dict, and so the fingerprint, thus covers everything that
    a score depends on.

    `weights`: "random" (drawn with `seed`, for tests and demos; it does not recognise rain), a tag
    in `clip_weights.TAGS` (downloaded by open_clip), or the path of a .safetensors file or a
    state-dict .pt file of a complete CLIP with open_clip's names and QuickGELU, like OpenAI's. The
    default sizes are those of CLIP-ViT-B/32; change them with "random" only.

    Differs from the paper in similarity="cosine" and tau = 100, which CLIP was trained with; a
    second-hand summary of the paper gives s without either (similarity="dot", temperature=1).
    Without the norms, a prompt whose vector is long could attract all images.

    Source: Guan & Yoshie, CLIP-RPN, arXiv 2506.01366; Radford et al., ICML 2021.

    Raises FileNotFoundError if the weights are not available, ValueError for invalid options or
    weights that do not fit.
    """

    computed = ("text",)
    """Left out of the fingerprint, see `fingerprint`."""

    mean: Tensor
    std: Tensor
    text: Tensor
    told: Tensor
    reading: Tensor

    def __init__(
        self,
        weights: str,
        prompts: Sequence[str] = PROMPTS["intensity3"],
        *,
        similarity: Similarity = "cosine",
        temperature: float = 100.0,
        dim: int = 512,
        width: int = 768,
        layers: int = 12,
        text_width: int = 512,
        text_layers: int = 12,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise ValueError(f"similarity must be cosine or dot, got {similarity!r}")
        if not prompts or not temperature > 0:
            raise ValueError(
                f"Expected prompts and a temperature > 0, got {prompts}, {temperature}"
            )
        self.similarity = similarity
        self.temperature = temperature
        clip = _build_clip(dim, width, layers, text_width, text_layers)
        _fill(clip, weights, seed)
        self.visual: nn.Module = clip.visual
        tokens = _tokens(prompts)
        self.register_buffer("text", _encode(clip, tokens))
        self.register_buffer("told", _text_digest(clip, tokens))
        self.register_buffer("reading", torch.tensor([similarity == "cosine", temperature]))
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "RainPerception":  # noqa: ARG002
        """Stay in evaluation mode."""
        super().train(False)
        return self

    @torch.no_grad()
    def forward(self, x: ImageBatch) -> Float[Tensor, "batch prompts"]:
        """NCHW RGB in [0, 1], whole images of any size -> scores, which sum to 1 per image."""
        with torch.autocast(x.device.type, enabled=False), without_tf32():
            image = self.visual((clip_square(x.float()) - self.mean) / self.std)
            text = self.text
            if self.similarity == "cosine":
                image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
            return torch.softmax(self.temperature * image @ text.T, dim=-1)


def clip_square(x: ImageBatch) -> Float[Tensor, "batch 3 224 224"]:
    """Resize the shorter side to 224 px, bicubic, and crop the central square; RGB in [0, 1]."""
    height, width = x.shape[-2:]
    shorter = min(height, width)
    size = (int(INPUT_PX * height / shorter), int(INPUT_PX * width / shorter))
    if size != (height, width):
        x = F.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)
    top, left = round((size[0] - INPUT_PX) / 2), round((size[1] - INPUT_PX) / 2)
    return x[..., top : top + INPUT_PX, left : left + INPUT_PX].clamp(0, 1)


def zero_shot_counts(
    perception: RainPerception,
    images: Iterable[tuple[Float[Tensor, "_batch 3 _height _width"], Int64[Tensor, " _batch"]]],
    classes: int,
) -> Int64[Tensor, "classes prompts"]:
    """Count per true class how often each prompt has the highest score (FCLIP-UNet, Table 1).

    images: batches of whole images (NCHW RGB in [0, 1]) with their true class in [0, classes).

    Rows of the result are true classes, columns are prompts.
    """
    prompts = perception.text.shape[0]
    counts = torch.zeros(classes * prompts, dtype=torch.int64)
    for batch, truth in images:
        best = perception(batch).argmax(dim=-1).cpu()
        counts += torch.bincount(truth.cpu() * prompts + best, minlength=classes * prompts)
    return counts.view(classes, prompts)


def _build_clip(dim: int, width: int, layers: int, text_width: int, text_layers: int) -> Any:
    """open_clip's CLIP with patches of 32 px, on the meta device: no values."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # takes seconds to import

    head = min(64, width)
    vision = CLIPVisionCfg(
        layers=layers, width=width, head_width=head, patch_size=32, image_size=INPUT_PX
    )
    text = CLIPTextCfg(width=text_width, heads=max(1, text_width // 64), layers=text_layers)
    with torch.device("meta"):
        return CLIP(dim, vision, text, quick_gelu=True)


def _fill(clip: Any, weights: str, seed: int) -> None:
    if weights == "random":
        clip.to_empty(device="cpu")
        randomise_transformer(clip, torch.Generator().manual_seed(seed))
    else:
        tensors, path = read_clip("ViT-B-32", weights)
        load_strictly(clip, _without_sizes(tensors), path)
    # the causal mask is in no state dict, so it is not filled yet
    mask = torch.full((clip.context_length, clip.context_length), -math.inf).triu_(1)
    clip.register_buffer("attn_mask", mask, persistent=False)


def _without_sizes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the three sizes that OpenAI's own state dict holds as tensors."""
    sizes = ("input_resolution", "context_length", "vocab_size")
    return {name: tensor for name, tensor in tensors.items() if name not in sizes}


def _tokens(prompts: Sequence[str]) -> Int64[Tensor, "prompts length"]:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()(list(prompts))


@torch.no_grad()
def _encode(clip: Any, tokens: Int64[Tensor, "prompts length"]) -> Float[Tensor, "prompts dim"]:
    return clip.eval().encode_text(tokens)


def _text_digest(clip: Any, tokens: Int64[Tensor, "prompts length"]) -> UInt8[Tensor, " 32"]:
    """SHA-256 of the text tower and of its input, the tokens."""
    state = clip.state_dict()
    tower = {name: state[name] for name in state if not name.startswith("visual.")}
    return torch.frombuffer(bytearray(digest({**tower, "tokens": tokens})), dtype=torch.uint8)
