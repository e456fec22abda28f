"""CLIP-RPN: CLIP tells what kind of rain an image has, and a sub-network for it removes it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.rain_perception import PROMPTS, RainPerception, Similarity
from derain.models.fingerprints import fingerprint
from derain.models.layers.mgca import MGCAKind
from derain.models.layers.rain_masks import mask_loss
from derain.models.layers.routing import grouped, mixed
from derain.models.layers.sizes import check_sides
from derain.models.networks.clip_rpn_expert import Block, Expert

Routing = Literal["hard", "soft", "oracle", "single", "random"]
ROUTINGS: tuple[str, ...] = Routing.__args__  # type: ignore[attr-defined]


class CLIPRPN(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1], H and W multiples of 16.

        s      = perception(x)        scores of the prompts, see `RainPerception`
        k      = argmax_i s_i         one route an image
        output = expert_k(x)          see `Expert`; a batch goes by `grouped`

    `routing`:

        hard    k as above; no gradient passes through it
        soft    sum_i s_i expert_i(x), as many forwards as prompts
        oracle  k is given as `route`, the number of the true density's prompt
        single  one expert, whatever the prompts: the same size as what runs under "hard"
        random  k is a checksum of the image's pixels: fixed for an image, blind to rain

    Only "hard" and "soft" have a `perception`; the others need no CLIP weights.

    A label depends on how wide streaks look to CLIP, and a crop is enlarged more than the whole
    image. So in training `route` should be given: `perceive` of the whole image, once.

    Stated in the paper: routing by CLIP's matching, masks at several scales with MGCA, "DLS"
    (see `schedules.py`). Second-hand: ViT-B/32 and the argmax. Not stated in the paper: prompts
    and their number, the sub-networks, what masks are trained on, every size.
    `docs/clip_rpn.md` sets what is stated beside what is inferred.

    Source: Guan & Yoshie, "CLIP-driven rain perception: Adaptive deraining with pattern-aware
    network routing and mask-guided cross-attention", arXiv 2506.01366.

    Raises ValueError for options that do not fit together, and what `RainPerception` raises.
    """

    stride = 16
    """Height and width of an image must be multiples of this."""

    frozen: tuple[str, ...] = ("perception",)
    """Sub-modules that never change. Empty where `routing` needs no perception."""

    auxiliary: dict[str, float]
    """The network's own loss terms, which `forward(x, clean=clean)` returns, and their weights."""

    def __init__(
        self,
        *,
        encoder_weights: str = "openai",
        encoder_dim: int = 512,
        encoder_width: int = 768,
        encoder_layers: int = 12,
        encoder_text_width: int = 512,
        encoder_text_layers: int = 12,
        encoder_seed: int = 0,
        prompts: Sequence[str] = PROMPTS["intensity3"],
        similarity: Similarity = "cosine",
        temperature: float = 100.0,
        routing: Routing = "hard",
        widths: Sequence[int] = (32, 64, 128, 256),
        depths: Sequence[int] = (2, 4, 4, 6),
        heads: Sequence[int] = (1, 2, 4, 8),
        block: Block = "transformer",
        ffn_expansion: float = 2.66,
        mgca: Sequence[MGCAKind] = ("window", "window", "window"),
        mgca_window: int = 8,
        mgca_bidirectional: bool = False,
        mask_threshold: float = 0.03,
        mask_weight: float = 0.1,
    ) -> None:
        """
        encoder_*, prompts, similarity, temperature: see `RainPerception`; one expert a prompt.
        routing: see above.
        widths, depths, heads: channels, blocks and attention heads of an expert at H, H/2, ...;
            depths count for the encoder and again for the decoder.
        block: "transformer" (as Restormer's) or "naf" (as NAFNet's: faster, and ignores
            heads and ffn_expansion outside MGCA).
        mgca: "window", "channel" or "none" at scales 1, 1/2, ...; see `CrossAttention`.
        mgca_window: pixels a side. mgca_bidirectional: background asks rain too.
        mask_threshold: a pixel is rain where a channel differs by more, of 1; 0.02 to 0.05 suits
            streaks, 30/255 drops. mask_weight: of `mask_loss`; 0 trains masks without it.
        """
        super().__init__()
        if routing not in ROUTINGS:
            raise ValueError(f"routing is one of {', '.join(ROUTINGS)}, got {routing!r}")
        self.routing = routing
        self.mask_threshold = mask_threshold
        self.auxiliary = {"mask": mask_weight} if mask_weight and set(mgca) - {"none"} else {}
        perceives = routing in ("hard", "soft")
        self.frozen = ("perception",) if perceives else ()
        self.perception = None
        if perceives:
            self.perception = RainPerception(
                encoder_weights,
                prompts,
                similarity=similarity,
                temperature=temperature,
                dim=encoder_dim,
                width=encoder_width,
                layers=encoder_layers,
                text_width=encoder_text_width,
                text_layers=encoder_text_layers,
                seed=encoder_seed,
            )
        self.experts = nn.ModuleList(
            Expert(
                widths=widths,
                depths=depths,
                heads=heads,
                block=block,
                expansion=ffn_expansion,
                mgca=mgca,
                window=mgca_window,
                bidirectional=mgca_bidirectional,
            )
            for _ in range(1 if routing == "single" else len(prompts))
        )
        if len(self.experts) > 1:  # here and not above `grouped`: it imports torch's compiler
            self._grouped = torch.compiler.disable(grouped, recursive=False)

    def forward(
        self,
        x: Float[Tensor, "batch 3 height width"],
        route: Int64[Tensor, " batch"] | None = None,
        clean: Float[Tensor, "batch 3 height width"] | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Rainy -> clean, NCHW RGB in [0, 1] (the output not clamped).

        `route` holds the number of an expert for each image; None decides by `routing` on x
        itself. With `clean` the terms named in `auxiliary` come back beside the image, scalars,
        not weighted, each a mean over the batch.

        Raises ValueError unless height and width are multiples of `stride`, for a route that does
        not exist, and with routing="oracle" for None.
        """
        image, *logits = self._restore(x, route)
        if clean is None:
            return image
        return image, {
            name: mask_loss(logits, x, clean, self.mask_threshold) for name in self.auxiliary
        }

    def perceive(self, x: Float[Tensor, "batch 3 height width"]) -> Int64[Tensor, " batch"]:
        """The route of whole images of any size, NCHW RGB in [0, 1]: what `route` should be.

        A function of the image, the frozen perception and `routing` alone. Under "soft" it is
        the prompt with the highest score.

        Raises ValueError with routing="oracle", which cannot see.
        """
        if self.perception is not None:
            return self.perception(x).argmax(dim=-1)
        if self.routing == "single":
            return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        if self.routing == "random":
            levels = (x * 255).round().to(torch.int64)
            return levels.sum((1, 2, 3)) % len(self.experts)
        raise ValueError("routing=oracle needs a route for every image, got None")

    @property
    def route_key(self) -> str | None:
        """All that `perceive` depends on beside the image, as a digest; None where `route` is not
        to be given: one expert, a mixture of all, or routes from elsewhere."""
        if self.routing == "random":
            return f"random {len(self.experts)}"
        if self.perception is None or self.routing != "hard":
            return None
        return fingerprint(self.perception)

    def masks(
        self,
        x: Float[Tensor, "batch 3 height width"],
        route: Int64[Tensor, " batch"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Probabilities of rain, NCHW with one channel, the finest scale first.

        Raises ValueError as `forward` does.
        """
        _, *logits = self._restore(x, route)
        return tuple(torch.sigmoid(logit.float()) for logit in logits)

    def for_every_expert(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of one expert (routing="single"), by name, as those of all experts here.

        The weights of several experts come back as they are.
        """
        one, *others = (f"experts.{k}." for k in range(len(self.experts)))
        if not all(name.startswith(one) for name in weights):
            return dict(weights)
        return {name.replace(one, to, 1): w for to in (one, *others) for name, w in weights.items()}

    def _restore(self, x: Tensor, route: Tensor | None) -> tuple[Tensor, ...]:
        check_sides("CLIPRPN", x, self.stride)
        if self.routing == "soft" and route is None and self.perception is not None:
            return mixed(self.experts, x, self.perception(x))
        route = self.perceive(x) if route is None else route
        if len(self.experts) == 1:
            return self.experts[0](x)
        if torch.compiler.is_exporting():  # a graph has fixed shapes: all experts, one counts
            return mixed(self.experts, x, F.one_hot(route, len(self.experts)).to(x.dtype))
        return self._grouped(self.experts, x, route)
