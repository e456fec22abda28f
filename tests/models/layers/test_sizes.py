"""Which sides are taken."""

import pytest
import torch

from derain.models.layers.sizes import check_sides


def test_both_sides_are_multiples_of_the_stride():
    check_sides("Any", torch.empty(1, 3, 16, 48), 16)
    for height, width in [(24, 16), (16, 24)]:
        with pytest.raises(ValueError, match=f"Any .* multiples of 16, got {height}x{width}"):
            check_sides("Any", torch.empty(1, 3, height, width), 16)
