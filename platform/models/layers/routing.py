"""Run a batch through several experts: each image through one of them, or through all, weighted."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from derain.models.shapes import ImageBatch

Outputs = tuple[Tensor, ...]
"""What an expert returns: tensors with the batch as their first dimension."""


def dispatch_to_experts(
    experts: nn.ModuleList, x: ImageBatch, route: Int64[Tensor, " batch"]
) -> Outputs:
    """Return experts[route[i]](x[i]) for all i, with one forward pass per expert in use.

    Images are sorted by route, split, and put back in order: nothing is padded and no image is
    computed twice. All experts must return the same number of tensors, batch first. The only wait
    for the device is a copy of the counts to the host. Tensor sizes depend on the routes, so
    torch.compile must skip this function and compile the experts alone.

    Raises ValueError for a route outside [0, len(experts)).
    """
    counts = _images_per_expert(route, len(experts))
    used = [number for number, count in enumerate(counts) if count]
    if len(used) == 1:
        outputs = experts[used[0]](x)
    else:
        order = torch.argsort(route, stable=True)
        parts = _take(x, order).split([counts[number] for number in used])
        pieces = [experts[number](part) for number, part in zip(used, parts, strict=True)]
        inverse = torch.argsort(order)
        outputs = tuple(_take(torch.cat(same), inverse) for same in zip(*pieces, strict=True))
    unused = [expert for expert, count in zip(experts, counts, strict=True) if not count]
    return _with_zero_gradients(outputs, unused)


def mix_experts(
    experts: nn.ModuleList, x: ImageBatch, weights: Float[Tensor, "batch experts"]
) -> Outputs:
    """Return sum_k weights[i, k] experts[k](x[i]) for all i: every expert runs on every image."""
    total: list[Tensor] = []
    for expert, share in zip(experts, weights.unbind(1), strict=True):
        scaled = [y * share.view(-1, 1, 1, 1) for y in expert(x)]
        total = [a + b for a, b in zip(total, scaled, strict=True)] if total else scaled
    return tuple(total)


def _images_per_expert(route: Tensor, experts: int) -> list[int]:
    invalid = route.new_full((), experts)
    checked = torch.where((route >= 0) & (route < experts), route, invalid)
    *counts, invalid_count = torch.bincount(checked, minlength=experts + 1).tolist()
    if invalid_count:
        raise ValueError(f"Routes must be in 0..{experts - 1}, got {route.tolist()}")
    return counts


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x[index], but a channels_last tensor keeps its memory format, which indexing would lose."""
    channels_last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    taken = x.index_select(0, index)
    return taken.contiguous(memory_format=torch.channels_last) if channels_last else taken


def _with_zero_gradients(outputs: Outputs, unused: list[nn.Module]) -> Outputs:
    """Return the same values, with a gradient of 0 for the experts that got no image.

    Every parameter is then part of every graph: data-parallel training needs no search for unused
    parameters, and a step does not depend on how the batch is split over processes.
    """
    if not unused or not torch.is_grad_enabled():
        return outputs
    start = outputs[0].new_zeros(())
    zero = sum((p.sum() for expert in unused for p in expert.parameters()), start)
    return (outputs[0] + 0.0 * zero, *outputs[1:])
