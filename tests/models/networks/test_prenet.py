"""PReNet: its formula, and the relation of PReNet and PReNet_r."""

import torch

from derain.models.networks.prenet import PReNet
from tests.models.networks.small_baselines import batch, build_small, perturbed


def test_it_accepts_every_image_size():
    assert build_small("prenet")(batch(1, 13, 7)).shape == (1, 3, 13, 7)


def test_it_is_the_formula():
    """The recursion with a separate convolution for each gate."""
    network, x = perturbed("prenet").eval(), batch(1)
    conv = lambda name, y: network.get_submodule(f"{name}.0")(y)  # noqa: E731
    output, hidden, cell = x, torch.zeros(1, 8, 16, 24), torch.zeros(1, 8, 16, 24)
    for _ in range(2):
        both = torch.cat((conv("conv0", torch.cat((x, output), 1)).relu(), hidden), 1)
        cell = conv("conv_f", both).sigmoid() * cell
        cell = cell + conv("conv_i", both).sigmoid() * conv("conv_g", both).tanh()
        y = hidden = conv("conv_o", both).sigmoid() * cell.tanh()
        for number in range(1, 6):
            block = network.get_submodule(f"res_conv{number}")
            y = (y + block[2](block[0](y).relu()).relu()).relu()
        output = x + conv("conv", y)
    torch.testing.assert_close(network(x), output, atol=1e-6, rtol=0)


def test_prenet_r_is_prenet_with_five_equal_blocks():
    shared, apart = build_small("prenet", shared_blocks=True), build_small("prenet")
    state = shared.state_dict()
    for key in apart.state_dict():
        if key.startswith("res_conv"):
            state[key] = state["res_conv1" + key[len("res_conv1") :]]
    apart.load_state_dict(state)
    torch.testing.assert_close(apart(batch()), shared(batch()))


def test_other_numbers_of_recursions_share_the_parameters():
    one, six = PReNet(recursions=1, width=4), PReNet(recursions=6, width=4)
    six.load_state_dict(one.state_dict())
    assert not torch.equal(one(batch()), six(batch()))
