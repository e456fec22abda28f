"""What PReNet, MPRNet, Restormer and NAFNet share: published sizes and state-dict names, and that
each can be trained, saved, compiled and exported.

The scores of the published weights (docs/measurements/published_weights.md) are measured by hand:
the files are not part of the project.
"""

import inspect

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import derain.models as models
from derain.config import networks
from tests.models.networks.overfit import assert_overfits
from tests.models.networks.small_baselines import OPTIONS, batch, build_small, perturbed

NAMES = list(OPTIONS)


@pytest.mark.parametrize(
    ("name", "options", "millions"),
    [
        ("prenet", {}, 0.1690),
        ("prenet", {"shared_blocks": True}, 0.0950),
        ("mprnet", {}, 3.6372),
        ("restormer", {}, 26.1266),
        ("nafnet", {}, 17.11),
    ],
)
def test_the_size_is_the_published_one(name, options, millions):
    """Published values to their last digit, counted on the meta device."""
    with torch.device("meta"):
        network = models.build(name, **options)
    count = sum(p.numel() for p in network.parameters()) / 1e6
    digits = len(str(millions).split(".")[1]) if name != "prenet" else 4
    assert round(count, digits) == millions


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("prenet", {"conv0.0.weight": (32, 6, 3, 3), "conv_g.0.weight": (32, 64, 3, 3)}),
        ("prenet", {"res_conv5.2.bias": (32,), "conv.0.weight": (3, 32, 3, 3)}),
        ("mprnet", {"shallow_feat1.0.weight": (40, 3, 3, 3), "sam12.conv3.weight": (40, 3, 1, 1)}),
        ("mprnet", {"stage1_encoder.encoder_level2.0.CA.conv_du.0.weight": (15, 60, 1, 1)}),
        (
            "mprnet",
            {"stage1_decoder.up32.up.1.weight": (60, 80, 1, 1), "tail.weight": (3, 56, 3, 3)},
        ),
        ("mprnet", {"stage3_orsnet.up_dec2.0.up.1.weight": (60, 80, 1, 1)}),
        ("mprnet", {"stage3_orsnet.orb3.body.8.weight": (56, 56, 3, 3)}),
        ("restormer", {"patch_embed.proj.weight": (48, 3, 3, 3)}),
        ("restormer", {"latent.7.attn.temperature": (8, 1, 1)}),
        ("restormer", {"decoder_level1.3.ffn.dwconv.weight": (510, 1, 3, 3)}),
        ("restormer", {"encoder_level2.0.norm1.body.bias": (96,)}),
        ("restormer", {"up2_1.body.0.weight": (192, 96, 3, 3), "output.weight": (3, 96, 3, 3)}),
        ("nafnet", {"encoders.3.27.sca.1.weight": (256, 256, 1, 1)}),
        ("nafnet", {"ups.0.0.weight": (1024, 512, 1, 1), "middle_blks.0.beta": (1, 512, 1, 1)}),
    ],
)
def test_names_and_shapes_are_those_of_the_published_weights(name, shapes):
    """Copied from the published code."""
    with torch.device("meta"):
        state = models.build(name).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_is_kept(name):
    network = build_small(name)
    for shape in [(1, 8, 8), (2, 16, 24)]:
        assert network(batch(*shape)).shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize("name", ["mprnet", "restormer", "nafnet"])
def test_a_size_that_is_not_a_multiple_of_the_stride_is_refused(name):
    network = build_small(name)
    side = network.stride + 2
    with pytest.raises(ValueError, match=f"multiples of {network.stride}, got {side}x16"):
        network(batch(1, side, 16))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    """In at least one of eight draws: all ReLUs of a small channel attention may be inactive."""
    dead = {n for n, _ in build_small(name).named_parameters()}
    for _ in range(8):
        network = perturbed(name).train()
        (network(batch()) - batch()).abs().mean().backward()
        reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        dead -= reached
    assert dead == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_the_config_with_the_same_default(name):
    section = {"prenet": "PReNet", "mprnet": "MPRNet", "restormer": "Restormer", "nafnet": "NAFNet"}
    values = getattr(networks, f"{section[name]}Config")().model_dump()
    assert values.pop("name") == name
    parameters = inspect.signature(models.MODELS[name]).parameters
    assert values == {key: parameter.default for key, parameter in parameters.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_state_survives_safetensors(name, tmp_path):
    network, other = perturbed(name).eval(), build_small(name).eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert not torch.equal(network(batch()), other(batch()))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(network(batch()), other(batch()))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_gives_a_float32_image_near_the_float32_one(name):
    network, x = perturbed(name).train(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x)
        F.l1_loss(low, x).backward()
    assert low.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert 0 < (low - network(x)).abs().max() < 0.05


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_export_gives_the_same_output(name):
    """1e-5 in [0, 1]: far below half a level of 8 bits, 2e-3."""
    network, x = perturbed(name).eval(), batch(1)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.soak if name == "mprnet" else ()) for name in NAMES],
)
def test_compile_gives_the_same_output(name):
    network, x = perturbed(name).eval(), batch(1, 8, 8)
    with torch.no_grad():
        found = torch.compile(network, backend="aot_eager")(x)
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_it_overfits_one_batch(name):
    assert_overfits(build_small(name), steps=40)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prenet", {"recursions": 0}),
        ("mprnet", {"width": 2, "reduction": 4}),
        ("restormer", {"heads": (1, 2, 3, 8)}),
        ("restormer", {"blocks": (1, 1)}),
        ("nafnet", {"encoder_blocks": (1,)}),
    ],
)
def test_invalid_options_are_refused(name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        build_small(name, **options)
