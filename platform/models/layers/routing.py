"""A batch through several experts, each image through its own."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]


def grouped(
    experts: nn.ModuleList,
    x: Float[Tensor, "batch 3 height width"],
    route: Int64[Tensor, " batch"],
) -> Outputs:
    """experts[route[i]](x[i]) for all i, one forward for each expert that is present.

    Images are sorted by route, cut, and put back in order: nothing is padded and no image is
    computed twice. Every expert returns the same number of tensors, batch first. One copy of the
    counts to the host is all that waits for the device. Sizes depend on values: torch.compile must
    leave this function out and take the experts alone.

    Raises ValueError for a route outside [0, len(experts)).
    """
    counts = _counts(route, len(experts))
    present = [number for number, count in enumerate(counts) if count]
    if len(present) == 1:
        outputs = experts[present[0]](x)
    else:
        order = torch.argsort(route, stable=True)
        parts = _take(x, order).split([counts[number] for number in present])
        pieces = [experts[number](part) for number, part in zip(present, parts, strict=True)]
        back = torch.argsort(order)
        outputs = tuple(_take(torch.cat(same), back) for same in zip(*pieces, strict=True))
    idle = [expert for expert, count in zip(experts, counts, strict=True) if not count]
    return _tied(outputs, idle)


def mixed(
    experts: nn.ModuleList,
    x: Float[Tensor, "batch 3 height width"],
    weights: Float[Tensor, "batch experts"],
) -> Outputs:
    """sum_k weights[i, k] experts[k](x[i]) for all i: every expert sees every image."""
    total: list[Tensor] = []
    for expert, share in zip(experts, weights.unbind(1), strict=True):
        scaled = [y * share.view(-1, 1, 1, 1) for y in expert(x)]
        total = [a + b for a, b in zip(total, scaled, strict=True)] if total else scaled
    return tuple(total)


def _counts(route: Tensor, experts: int) -> list[int]:
    outside = route.new_full((), experts)
    known = torch.where((route >= 0) & (route < experts), route, outside)
    *counts, wrong = torch.bincount(known, minlength=experts + 1).tolist()
    if wrong:
        raise ValueError(f"Routes are in 0..{experts - 1}, got {route.tolist()}")
    return counts


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x[index]; a channels_last tensor stays one, which plain indexing forgets."""
    last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    taken = x.index_select(0, index)
    return taken.contiguous(memory_format=torch.channels_last) if last else taken


def _tied(outputs: Outputs, idle: list[nn.Module]) -> Outputs:
    """The same values, with a gradient of 0 for the experts that no image went to.

    So every parameter is in every graph: data-parallel training needs no search for unused ones,
    and a step is the same however the batch is spread over processes.
    """
    if not idle or not torch.is_grad_enabled():
        return outputs
    zero = sum((p.sum() for expert in idle for p in expert.parameters()), outputs[0].new_zeros(()))
    return (outputs[0] + 0.0 * zero, *outputs[1:])
