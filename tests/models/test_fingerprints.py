"""Fingerprints: what they depend on, and what not."""

import torch
from torch import nn

from derain.models import fingerprint


class Doubled(nn.Module):
    """A buffer that is computed from a parameter."""

    computed = ("twice",)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("twice", 2 * self.weight.detach())


def test_one_bit_changes_it_and_the_memory_format_does_not():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = fingerprint(module)
    assert fingerprint(module.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        module[0].weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    assert fingerprint(module) != before


def test_names_dtypes_and_buffers_change_it():
    module = nn.Sequential(nn.BatchNorm2d(4))
    prints = {fingerprint(module), fingerprint(nn.Sequential(module))}
    module[0].running_mean[0] = 1
    prints.add(fingerprint(module))
    prints.add(fingerprint(module.bfloat16()))
    assert len(prints) == 4


def test_computed_tensors_do_not_change_it():
    module = nn.Sequential(Doubled())
    before = fingerprint(module)
    module[0].twice += 1
    assert fingerprint(module) == before
    with torch.no_grad():
        module[0].weight += 1
    assert fingerprint(module) != before
