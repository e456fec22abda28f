"""The blocks of CLIP-RPN's sub-networks, compared with independently written formulas."""

import pytest
import torch

from derain.models.networks.clip_rpn_expert import BLOCKS
from tests.models.formulas import naf_block, randomised, state_of, transformer_block


@pytest.mark.parametrize(
    ("name", "formula"), [("transformer", transformer_block), ("naf", naf_block)]
)
def test_a_block_is_the_formula(name, formula):
    block = randomised(BLOCKS[name](12, 3, 1.5))
    x = torch.randn(2, 12, 9, 14)
    found = block(x).detach().double()
    torch.testing.assert_close(found, formula(x.double(), state_of(block)), rtol=1e-4, atol=1e-4)
