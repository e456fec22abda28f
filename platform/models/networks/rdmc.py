"""RDMC: a dynamic multi-scale network, applied recursively to its own output."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from derain.models.layers.output import float32_output, start_near_zero
from derain.models.shapes import FeatureMap, ImageBatch, check_image_size

Gate = Literal["learned", "dynamic"]
Norm = Literal["batch", "group", "none"]
Up = Literal["mixed", "bilinear"]

GROUP_CHANNELS = 8
"""Channels per group with norm="group"; a width that is not a multiple of it is one group."""
BILINEAR = (0.0, 0.0, 0.25, 0.75, 0.75, 0.25, 0.0, 0.0)
BICUBIC = tuple(n / 256 for n in (-9, -27, 67.0, 225, 225, 67.0, -27, -9))
"""Contributions of a pixel to the eight nearest pixels of a row that is twice as long."""
INITIAL_ALPHA = 0.01
"""Initial weight of a path: small, but not 0, which would block the gradient of its weights."""


class RDMC(nn.Module):
    """Rainy image -> clean image, NCHW RGB, float32 in [0, 1].

    With O the rainy image, x_0 = O and the same network U for k = 1..recursions:

        x_k = O + U([O, x_{k-1}])

    U has a stream of encoders per dilation d, with L levels of widths w_0..w_{L-1} and a 2x2
    max-pool between levels; E_i is the concatenation of the level-i features of all streams:

        e_i^d = block_d(pool(e_{i-1}^d)),   block_d = conv3x3, norm, relu, conv3x3 dilated by d,
                                                      norm, relu
        D_i   = block_1([E_i, up(D_{i+1})]) + sum over paths p that end here of a_p R_p(source_p)
        U     = conv1x1(D_0) + a R(E_0)

    for i = L-2..0, starting with D_{L-1} = E_{L-1}; D_i has half the channels of E_i. up doubles
    height and width: b bilinear + (1 - b) bicubic, b learned and shared by all levels.

    Paths carry features across levels (cross-level recruitment). In the paper's numbering, enc0 is
    the input of U, enc{i+1} = E_i, dec{i+1} = D_i and dec0 is the output of U:

        enc{i}_dec{i+1}   from shallow to deep: strided conv3x3 (conv1x1 from the input)
        enc{i+1}_dec{i}   from deep to shallow: bilinear x2, block_1 (block_1 alone for dec0)

    The weight a_p of a path is a learned number with gate="learned". With gate="dynamic" it is
    sigmoid(MLP(mean over pixels of [source, target])), computed per image.

    With the defaults, the structure is that of the public code of DRNet, the journal version:
    19.810 M parameters, 15.884 M with paths=(). Differs from that code: a_p and b are trained with
    the other parameters and saved (there they are plain tensors, random at test time, and all
    paths are off until a search switches some on); upsampling uses align_corners=False (there
    True; with that and the same weights, the outputs are equal); the last convolution starts with
    its usual weights divided by 100; norm, up and gate="dynamic" are our additions, the last
    because the paper calls the recruitment dynamic.
    `docs/explanation/rdmc.md` lists what is known and what is inferred.

    Source: Jiang et al., "RDMC", arXiv 2305.18092; "DRNet: Learning a dynamic recursion network
    for chaotic rain streak removal", Pattern Recognition 158 (2025) 111004.

    Raises ValueError for options that do not fit together.
    """

    stride = 16
    """Height and width of an image must be multiples of this: 2^(levels - 1), 16 by default."""

    frozen: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        recursions: int = 3,
        widths: Sequence[int] = (32, 64, 128, 256, 256),
        dilations: Sequence[int] = (1, 2, 3),
        paths: Literal["all"] | Sequence[str] = "all",
        gate: Gate = "learned",
        norm: Norm = "batch",
        up: Up = "mixed",
    ) -> None:
        """
        recursions: how many times U is applied; its parameters are shared, time and memory grow.
        widths: channels of a stream at H, H/2, H/4, ..., one number per level.
        dilations: one number per stream of encoders.
        paths: names as above, "all", or () for no paths.
        gate: "learned" or "dynamic" weights of the paths, see above.
        norm: "batch", or "group" (GroupNorm) or "none" to make an image independent of its batch.
            In training, "batch" needs more than one pixel at the coarsest level, that is more
            than one crop of 16 px; PyTorch raises an error otherwise.
        up: "mixed" as above; "bilinear" saves a sixth of a training step on a CPU.
        """
        super().__init__()
        _check_options(recursions, widths, dilations, gate, norm, up)
        self.recursions = recursions
        self.stride = 2 ** (len(widths) - 1)
        joined = [width * len(dilations) for width in widths]
        decoded = [max(1, channels // 2) for channels in joined[:-1]]
        self.streams = nn.ModuleList(_encoders(widths, d, norm) for d in dilations)
        self.up = MixedUp() if up == "mixed" else _bilinear()
        below = [*decoded[1:], joined[-1]]
        self.decoders = nn.ModuleList(
            _block(skip + deeper, out, 1, norm, bias=True)
            for skip, deeper, out in zip(joined[:-1], below, decoded, strict=True)
        )
        self.out = start_near_zero(nn.Conv2d(decoded[0], 3, 1))
        self.paths = _paths(paths, joined, decoded, gate, norm)

    def forward(self, x: ImageBatch) -> ImageBatch:
        """Rainy -> clean, NCHW RGB, float32 in [0, 1] (the output is not clamped).

        Raises ValueError unless height and width are multiples of `stride`.
        """
        check_image_size("RDMC", x, self.stride)
        output = x
        for _ in range(self.recursions):
            output = x + self._residue(torch.cat((x, output), dim=1))
        return output

    def _residue(self, images: Float[Tensor, "batch 6 height width"]) -> ImageBatch:
        """U: the rainy image and the last output -> the residue to add to the rainy image."""
        features = self._encode(images)
        y = features[-1]
        for level in range(len(self.decoders) - 1, -1, -1):
            y = self.decoders[level](torch.cat((features[level], self.up(y)), dim=1))
            y = self._recruit(level + 1, y, [images, *features])
        y = float32_output(self.out, y)
        return self._recruit(0, y, [images, *features])

    def _encode(self, images: Float[Tensor, "batch 6 height width"]) -> list[Tensor]:
        """E_0, E_1, ...: the features of all streams, level by level."""
        by_stream = []
        streams: Any = self.streams  # an nn.ModuleList does not type its items: lists of blocks
        for stream in streams:
            y, levels = images, []
            for level, block in enumerate(stream):
                y = block(F.max_pool2d(y, 2) if level else y)
                levels.append(y)
            by_stream.append(levels)
        return [torch.cat(level, dim=1) for level in zip(*by_stream, strict=True)]

    def _recruit(self, end: int, y: FeatureMap, sources: list[Tensor]) -> FeatureMap:
        """Add to y, the features of dec{end}, the outputs of the paths that end there."""
        names = {start: f"enc{start}_dec{end}" for start in (end - 1, end + 1)}
        outputs = [
            self.paths[name](sources[start], y)
            for start, name in names.items()
            if name in self.paths
        ]
        for output in outputs:
            y = y + output
        return y


class Path(nn.Module):
    """a R(source): features of another level, brought to the shape of the target and weighted.

    R is `operator`. a is a learned number with gate="learned"; with gate="dynamic" it is
    sigmoid(W2 relu(W1 s)) per image, s the means of source and target over their pixels.
    """

    def __init__(self, operator: nn.Module, source: int, target: int, gate: Gate) -> None:
        super().__init__()
        self.operator = operator
        learned = gate == "learned"
        # One element, not a scalar: FSDP2 shards every parameter.
        self.alpha = nn.Parameter(torch.full((1,), INITIAL_ALPHA)) if learned else None
        self.gate = None if learned else _gate(source + target)

    def forward(
        self,
        source: Float[Tensor, "batch source_channels source_height source_width"],
        target: FeatureMap,
    ) -> FeatureMap:
        """NCHW -> NCHW, the addition to `target`."""
        features = self.operator(source)
        if self.alpha is not None:
            return self.alpha * features
        assert self.gate is not None
        means = torch.cat((source.mean((2, 3)), target.mean((2, 3))), dim=1)
        return self.gate(means)[:, :, None, None] * features


class MixedUp(nn.Module):
    """b bilinear(x) + (1 - b) bicubic(x), doubling height and width; [b, 1 - b] = softmax(logits).

    Both interpolations are the same transposed convolution with different weights, and so is their
    mixture: a single pass over the image, eight times as fast on a CPU as two calls of
    `F.interpolate` (96 channels, 128x128).
    """

    kernels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))
        rows = torch.tensor((BILINEAR, BICUBIC))
        self.register_buffer("kernels", torch.einsum("ka,kb->kab", rows, rows), persistent=False)

    def forward(self, x: FeatureMap) -> Float[Tensor, "batch channels 2*height 2*width"]:
        """NCHW -> NCHW, align_corners=False."""
        kernel = torch.einsum("k,kab->ab", self.logits.softmax(0), self.kernels)
        channels = x.shape[1]
        x = F.pad(x, (2, 2, 2, 2), mode="replicate")
        weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv_transpose2d(x, weight, stride=2, padding=7, groups=channels)


def _paths(
    chosen: Literal["all"] | Sequence[str],
    joined: Sequence[int],
    decoded: Sequence[int],
    gate: Gate,
    norm: Norm,
) -> nn.ModuleDict:
    """The chosen paths by name; `joined` and `decoded` are the channels of E_i and of D_i."""
    sources, targets = (6, *joined), (3, *decoded)
    levels = range(len(decoded))
    ends = [(i, i + 1) for i in levels] + [(i + 1, i) for i in levels]
    known = {f"enc{start}_dec{end}": (start, end) for start, end in ends}
    names = list(known) if chosen == "all" else list(chosen)
    if (isinstance(chosen, str) and chosen != "all") or set(names) - set(known):
        raise ValueError(f"paths must be all, or some of {', '.join(known)}; got {chosen!r}")
    paths = nn.ModuleDict()
    for name in names:
        start, end = known[name]
        source, target = sources[start], targets[end]
        paths[name] = Path(_operator(start, end, source, target, norm), source, target, gate)
    return paths


def _operator(start: int, end: int, source: int, target: int, norm: Norm) -> nn.Module:
    """R of a path: converts its source to the size and channels of its target."""
    if end > start:
        kernel, stride = (3, 2) if start else (1, 1)
        conv = nn.Conv2d(
            source, target, kernel, stride, padding=kernel // 2, padding_mode="reflect"
        )
        return nn.Sequential(conv, _norm(norm, target), nn.LeakyReLU(0.2, inplace=True))
    block = _block(source, target, 1, norm, bias=True)
    if end == 0:
        return block
    return nn.Sequential(_bilinear(), block)


def _bilinear() -> nn.Upsample:
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def _gate(channels: int) -> nn.Sequential:
    hidden = max(4, channels // 16)
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1), nn.Sigmoid()
    )


def _encoders(widths: Sequence[int], dilation: int, norm: Norm) -> nn.ModuleList:
    """One block per level; the first takes the rainy image and the last output, 6 channels."""
    inputs = (6, *widths[:-1])
    return nn.ModuleList(
        _block(channels, width, dilation, norm, bias=norm == "none")
        for channels, width in zip(inputs, widths, strict=True)
    )


def _block(
    in_channels: int, out_channels: int, dilation: int, norm: Norm, bias: bool
) -> nn.Sequential:
    """Two 3x3 convolutions, each with norm and ReLU; `dilation` and `bias` apply to the second."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        _norm(norm, out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, 1, dilation, dilation, bias=bias),
        _norm(norm, out_channels),
        nn.ReLU(inplace=True),
    )


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        groups = channels // GROUP_CHANNELS if channels % GROUP_CHANNELS == 0 else 1
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def _check_options(
    recursions: int,
    widths: Sequence[int],
    dilations: Sequence[int],
    gate: str,
    norm: str,
    up: str,
) -> None:
    if recursions < 1:
        raise ValueError(f"recursions must be at least 1, got {recursions}")
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"widths must be at least two positive numbers, got {tuple(widths)}")
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations must be at least one positive number, got {tuple(dilations)}")
    if gate not in ("learned", "dynamic"):
        raise ValueError(f"gate must be learned or dynamic, got {gate!r}")
    if norm not in ("batch", "group", "none"):
        raise ValueError(f"norm must be batch, group or none, got {norm!r}")
    if up not in ("mixed", "bilinear"):
        raise ValueError(f"up must be mixed or bilinear, got {up!r}")
