"""CLIP-RPN: CLIP recognises the kind of rain, and a sub-network for that kind removes it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.encoders.rain_perception import PROMPTS, RainPerception, Similarity
from derain.models.fingerprints import fingerprint
from derain.models.layers.mgca import MGCAKind
from derain.models.layers.rain_masks import mask_loss
from derain.models.layers.routing import dispatch_to_experts, mix_experts
from derain.models.networks.clip_rpn_expert import Block, Expert
from derain.models.shapes import ImageBatch, check_image_size

Routing = Literal["hard", "soft", "oracle", "single", "random"]
ROUTINGS: tuple[str, ...] = Routing.__args__  # type: ignore[attr-defined]


class CLIPRPN(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1], H and W multiples of 16.

        s      = perception(x)        scores of the prompts, see `RainPerception`
        k      = argmax_i s_i         one route per image
        output = expert_k(x)          see `Expert`; for batches, see `dispatch_to_experts`

    `routing`:

        hard    k as above; no gradient passes through it
        soft    sum_i s_i expert_i(x), one forward pass per prompt
        oracle  k is passed as `route`, the index of the prompt for the true density
        single  one expert, whatever the prompts: the size of what runs per image under "hard"
        random  k is a checksum of the image's pixels: fixed per image, independent of the rain

    Only "hard" and "soft" have a `perception`; the others need no CLIP weights.

    The route depends on how wide streaks look to CLIP, and a crop is enlarged more than the whole
    image. In training, therefore, compute the route once from the whole image (`perceive`) and
    pass it as `route`.

    Stated in the paper: routing by CLIP's matching, masks at several scales with MGCA, "DLS"
    (see `LossSchedule`). From a second-hand summary: ViT-B/32 and the argmax. Not stated in the
    paper: the prompts and their number, the sub-networks, the ground truth of the masks, all
    sizes. `docs/explanation/clip_rpn.md` lists what is stated and what is inferred.

    Source: Guan & Yoshie, "CLIP-driven rain perception: Adaptive deraining with pattern-aware
    network routing and mask-guided cross-attention", arXiv 2506.01366.

    Raises ValueError for options that do not fit together, and what `RainPerception` raises.
    """

    stride = 16
    """Height and width of an image must be multiples of this."""

    frozen: tuple[str, ...] = ("perception",)
    """Sub-modules that never change. Empty if `routing` needs no perception."""

    prompts: tuple[str, ...]
    """What each route stands for."""

    auxiliary: dict[str, float]
    """Weights of the network's own loss terms, which `forward(x, clean=clean)` returns."""

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
        encoder_*, prompts, similarity, temperature: see `RainPerception`; one expert per prompt.
        routing: see above.
        widths, depths, heads: channels, blocks and attention heads of an expert at H, H/2, ...;
            encoder and decoder have the same depths.
        block: "transformer" (as in Restormer) or "naf" (as in NAFNet: faster; heads and
            ffn_expansion then apply to MGCA only).
        ffn_expansion: hidden channels of the feed-forward layers, as a multiple of their input.
        mgca: "window", "channel" or "none" at scales 1, 1/2, ...; see `CrossAttention`.
        mgca_window: pixels per side of a window.
        mgca_bidirectional: background attends to rain too.
        mask_threshold: a pixel counts as rain if a channel differs by more than this, of 1; 0.02
            to 0.05 suits streaks, 30/255 drops.
        mask_weight: weight of `mask_loss`; 0 trains the masks without it.
        """
        super().__init__()
        if routing not in ROUTINGS:
            raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, got {routing!r}")
        self.routing = routing
        self.prompts = tuple(prompts)
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
        if len(self.experts) > 1:  # not a decorator, which would import torch's compiler always
            self._dispatch = torch.compiler.disable(dispatch_to_experts, recursive=False)

    def forward(
        self,
        x: ImageBatch,
        route: Int64[Tensor, " batch"] | None = None,
        clean: ImageBatch | None = None,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped).

        `route` holds the index of an expert per image; None routes x itself according to
        `routing`. With `clean`, returns (image, terms): the terms that `auxiliary` names, scalars,
        unweighted, each a mean over the batch.

        Raises ValueError unless height and width are multiples of `stride`, for an invalid route,
        and for route=None with routing="oracle".
        """
        image, *logits = self._restore(x, route)
        if clean is None:
            return image
        return image, {
            name: mask_loss(logits, x, clean, self.mask_threshold) for name in self.auxiliary
        }

    def perceive(self, x: ImageBatch) -> Int64[Tensor, " batch"]:
        """Return the route of whole images of any size, NCHW RGB in [0, 1].

        It depends on the image, the frozen perception and `routing` alone. Under "soft" it is
        the prompt with the highest score.

        Raises ValueError with routing="oracle", whose routes come from the caller.
        """
        if self.perception is not None:
            return self.perception(x).argmax(dim=-1)
        if self.routing == "single":
            return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        if self.routing == "random":
            levels = (x * 255).round().to(torch.int64)
            return levels.sum((1, 2, 3)) % len(self.experts)
        raise ValueError("routing=oracle needs a route per image, got None")

    @property
    def route_key(self) -> str | None:
        """A digest of everything but the image that `perceive` depends on.

        None if training should not pass `perceive`'s result as `route`: with a single expert, a
        mixture of all experts, or routes from the caller.
        """
        if self.routing == "random":
            return f"random {len(self.experts)}"
        if self.perception is None or self.routing != "hard":
            return None
        return fingerprint(self.perception)

    def masks(
        self, x: ImageBatch, route: Int64[Tensor, " batch"] | None = None
    ) -> tuple[Tensor, ...]:
        """Probabilities of rain in [0, 1], NCHW with one channel, finest scale first.

        Raises ValueError as `forward` does.
        """
        _, *logits = self._restore(x, route)
        return tuple(torch.sigmoid(logit.float()) for logit in logits)

    def for_every_expert(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copy the weights of one expert (routing="single") to the names of all experts here.

        `weights`: tensors by state-dict name. Weights of several experts are returned unchanged.
        """
        prefixes = [f"experts.{k}." for k in range(len(self.experts))]
        first = prefixes[0]
        if not all(name.startswith(first) for name in weights):
            return dict(weights)
        return {
            name.replace(first, prefix, 1): weight
            for prefix in prefixes
            for name, weight in weights.items()
        }

    def _restore(self, x: Tensor, route: Tensor | None) -> tuple[Tensor, ...]:
        check_image_size("CLIPRPN", x, self.stride)
        if self.routing == "soft" and route is None and self.perception is not None:
            return mix_experts(self.experts, x, self.perception(x))
        route = self.perceive(x) if route is None else route
        if len(self.experts) == 1:
            return self.experts[0](x)
        if torch.compiler.is_exporting():  # a graph has fixed shapes: all experts, one weighs 1
            return mix_experts(self.experts, x, F.one_hot(route, len(self.experts)).to(x.dtype))
        return self._dispatch(self.experts, x, route)
