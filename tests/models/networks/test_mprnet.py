"""MPRNet: its three stages and the loss on the first two."""

import torch

from derain.models.losses.pixel import charbonnier_edge
from derain.models.networks.mprnet import MPRNet
from tests.models.networks.small_baselines import OPTIONS, batch, perturbed


def test_it_returns_the_image_of_its_third_stage():
    network, x = perturbed("mprnet").eval(), batch()
    stages = network.stages(x)
    assert [image.shape for image in stages] == [x.shape] * 3
    assert torch.equal(stages[2], network(x))
    assert not torch.equal(stages[0], stages[1])


def test_the_first_stage_encodes_quarters_separately_and_decodes_halves():
    """Rain in the lower right corner changes only the lower half of stage 1's image."""
    network, x = perturbed("mprnet").eval(), batch(1, 16, 16)
    other = x.clone()
    other[:, :, 12:, 12:] = 0
    change = (network.stages(other)[0] - network.stages(x)[0]).abs().sum(1)[0]
    assert change[:8].max() == 0
    assert change[8:, :8].max() > 0


def test_with_the_clean_image_it_returns_the_loss_of_the_earlier_stages():
    network, x, clean = perturbed("mprnet").eval(), batch(), batch() * 0.5
    image, terms = network(x, clean=clean)
    one, two, three = network.stages(x)
    assert torch.equal(image, three)
    expected = charbonnier_edge(one, clean) + charbonnier_edge(two, clean)
    torch.testing.assert_close(terms["stages"], expected)
    assert MPRNet(**OPTIONS["mprnet"], stage_weight=0.0).auxiliary == {}
