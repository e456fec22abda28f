"""FCLIP-UNet: shapes, trained and frozen parameters, size, and that it can learn."""

import inspect
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import derain.models as models
from derain.models.networks.fclip_unet import FCLIPUNet, TokenAdapter
from tests.models.formulas import convolved, normalised, part, randomised, state_of


def batch(size=2, height=32, width=48):
    generator = torch.Generator().manual_seed(4)
    return torch.rand(size, 3, height, width, generator=generator)


def train(network, rainy, clean, steps, lr=3e-3):
    """Adam on L1; returns the loss of each step."""
    optimizer = torch.optim.Adam(models.trained_parameters(network).values(), lr=lr)
    losses = []
    network.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.l1_loss(network(rainy), clean)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("up", ["updw", "bilinear"])
@pytest.mark.parametrize("output", ["direct", "residual"])
def test_the_shape_is_kept(tiny, up, output):
    network = tiny(up=up, output=output)
    for shape in [(1, 16, 16), (2, 32, 48)]:
        assert network(batch(*shape)).shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize(("height", "width"), [(33, 32), (32, 40), (481, 321)])
def test_a_size_that_is_not_a_multiple_of_the_stride_is_refused(tiny, height, width):
    with pytest.raises(ValueError, match=f"multiples of 16, got {height}x{width}"):
        tiny()(batch(1, height, width))


def test_the_default_size_is_the_specified_one():
    """9.78 M trained, 8,562,528 frozen: counted by hand from the table of the decoder."""
    network = FCLIPUNet(encoder_weights="random")
    widths, skips = (512, 256, 128, 64, 64), (1024, 512, 256, 64, 3)
    expected = 1024 * 512 + 512 + (64 * 3 * 9 + 3)
    for c in widths:
        expected += 3 * ((49 * c + c) + 2 * c + (4 * c * c + 4 * c) + (4 * c * c + c) + c)
    for c, d, skip in zip(widths, widths[1:], skips[1:], strict=False):
        expected += (9 * c + c) + 2 * (c * d + d) + (d + skip) * d + d
    trained = sum(p.numel() for p in models.trained_parameters(network).values())
    assert trained == expected
    assert round(trained / 1e6, 2) == 9.78
    assert sum(p.numel() for p in network.encoder.parameters()) == 8_562_528


def test_gradient_reaches_every_trained_parameter_and_no_frozen_one(tiny):
    network = tiny(output="residual").train()
    network(batch()).square().mean().backward()
    missing = [
        name
        for name, p in network.named_parameters()
        if (p.grad is not None and bool(p.grad.abs().sum() > 0)) == name.startswith("encoder.")
    ]
    assert missing == []


def test_the_token_adapter_is_the_formula():
    """Here the interpolation comes first, as a matrix each for rows and columns."""
    adapter, tokens = randomised(TokenAdapter(6, 4, scale=4)), torch.randn(2, 6, 3, 5)
    state = state_of(adapter)
    normed = normalised(tokens.double(), part(state, "norm"))
    rows, columns = (_bilinear(size, 4) for size in (3, 5))
    weight, bias = state["project.weight"][:, :, None, None], state["project.bias"]
    expected = convolved(rows @ normed @ columns.T, {"weight": weight, "bias": bias})
    torch.testing.assert_close(adapter(tokens).double(), expected, rtol=1e-4, atol=1e-4)


def _bilinear(size, scale):
    """Weights of the `size` pixels of a row for each of its size * scale resampled pixels."""
    matrix = torch.zeros(size * scale, size, dtype=torch.float64)
    for pixel in range(size * scale):
        at = min(max((pixel + 0.5) / scale - 0.5, 0), size - 1)
        left = min(int(at), size - 2)
        matrix[pixel, left], matrix[pixel, left + 1] = 1 - (at - left), at - left
    return matrix


@pytest.mark.parametrize("name", ["encoder_weights", "ldfps_sigma", "layer_scale", "output"])
def test_options_are_flat_keywords(name):
    parameters = inspect.signature(FCLIPUNet).parameters
    assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_the_encoder_is_bit_identical_after_training(tiny):
    network = tiny()
    before = models.fingerprint(network.encoder)
    decoder = models.fingerprint(network.levels)
    train(network, batch(), batch() * 0.5, steps=3)
    assert models.fingerprint(network.encoder) == before
    assert models.fingerprint(network.levels) != decoder


def test_decode_after_encode_is_forward(tiny):
    network = tiny().eval()
    x = batch()
    assert torch.equal(network.decode(x, network.encode(x)), network(x))


def test_two_decoders_can_share_one_encoder_pass(tiny):
    one, other = tiny().eval(), tiny(ldfps_sigma=None, up="bilinear").eval()
    x = batch()
    assert torch.equal(other.decode(x, one.encode(x)), other(x))


def test_noise_in_training_only(tiny):
    network, x = tiny(), batch()
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))
    quiet = tiny(ldfps_sigma=None).train()
    assert torch.equal(quiet(x), quiet(x))


def test_a_seeded_step_is_repeatable(tiny):
    network, x = tiny(drop_path=0.5).train(), batch()
    outputs = []
    for _ in range(2):
        torch.manual_seed(9)
        outputs.append(network(x))
    assert torch.equal(*outputs)


def test_a_residual_network_starts_near_the_identity(tiny):
    x = batch()
    assert (tiny(output="residual").eval()(x) - x).abs().max() < 0.05
    assert (tiny(output="direct").eval()(x) - x).abs().max() > 0.2


def test_the_image_is_float32_under_bfloat16_autocast(tiny):
    network = tiny(output="residual").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(batch())
        F.l1_loss(output, batch()).backward()
    assert output.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in models.trained_parameters(network).values())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        low = network.eval()(batch())
    assert 0 < (low - network(batch())).abs().max() < 0.05


def test_the_state_survives_safetensors(tiny, tmp_path):
    network, other = tiny(), tiny(encoder_seed=1)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(network.eval()(batch()), other.eval()(batch()))


def test_without_the_frozen_part_the_state_is_the_decoder(tiny):
    network = tiny()
    left = [k for k in network.state_dict() if k.split(".")[0] not in network.frozen]
    assert len(left) == len(models.trained_parameters(network))


def test_it_overfits_one_batch(tiny):
    """Streaks on a smooth image: L1 falls to a third in 120 steps."""
    clean = F.interpolate(batch(2, 4, 4), size=32, mode="bilinear")
    streaks = (torch.rand(2, 1, 1, 32, generator=torch.Generator().manual_seed(2)) > 0.8) * 0.4
    losses = train(tiny(output="residual"), (clean + streaks).clamp(0, 1), clean, steps=120)
    assert math.isfinite(losses[-1])
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize(
    "options",
    [
        {"up": "deconv"},
        {"output": "clamped"},
        {"ldfps_sigma": (0.1, 0.1)},
        {"decoder_widths": (8, 8, 8)},
        {"ldfps_kind": "gaussian"},
        {"drop_path": 1.5},
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(tiny, options):
    option = next(iter(options))
    with pytest.raises(ValueError, match=option.split("_")[-1]):
        tiny(**options)
