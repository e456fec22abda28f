"""RDMC: its size, its recursion and paths, and that it can be trained, saved and exported."""

import inspect

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import derain.models as models
from derain.config.networks import RDMCConfig
from derain.models.rdmc import RDMC, MixedUp
from derain.models.ssim import ssim

TINY = {"widths": (4, 6, 6), "dilations": (1, 2), "recursions": 2}
PATHS = ("enc0_dec1", "enc1_dec2", "enc1_dec0", "enc2_dec1")


def tiny(**options):
    return models.build("rdmc", **{**TINY, **options})


def batch(size=2, height=16, width=24):
    return torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(4))


def millions(**options):
    with torch.device("meta"):
        network = RDMC(**options)
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_the_size_is_that_of_the_public_code():
    """19.810 M with all eight paths and 15.884 M without, counted in DRNet's code by others."""
    assert round(millions(), 3) == 19.810
    assert round(millions(paths=()), 3) == 15.884


def test_recursions_share_their_weights():
    assert millions(recursions=6) == millions(recursions=1)


@pytest.mark.parametrize(
    "options", [{}, {"paths": ()}, {"gate": "dynamic"}, {"norm": "group"}, {"up": "bilinear"}]
)
def test_the_shape_is_kept(options):
    network = tiny(**options).eval()
    for shape in [(1, 8, 8), (2, 16, 24)]:
        assert network(batch(*shape)).shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 19)])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(height, width):
    with pytest.raises(ValueError, match=f"multiples of 4, got {height}x{width}"):
        tiny()(batch(1, height, width))


def test_the_default_stride_is_16():
    with torch.device("meta"):
        assert RDMC().stride == RDMC.stride == 16


def test_it_adds_to_the_rainy_picture_and_not_to_the_last_output():
    """Without its last layer every recursion gives the rainy picture back."""
    network, x = tiny(paths=(), recursions=3), batch()
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.constant_(network.out.bias, 0.25)
    torch.testing.assert_close(network.eval()(x), x + 0.25)


def test_each_recursion_sees_the_output_of_the_one_before():
    network, x = tiny(recursions=1).eval(), batch()
    one = network(x)
    network.recursions = 2
    expected = x + network._residue(torch.cat((x, one), dim=1))
    assert torch.equal(network(x), expected)
    assert not torch.equal(expected, one)


def test_a_batch_of_one_is_treated_as_in_a_larger_batch():
    network, x = tiny(gate="dynamic").eval(), batch()
    torch.testing.assert_close(network(x)[:1], network(x[:1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gate", ["learned", "dynamic"])
def test_gradient_reaches_every_parameter(gate):
    """norm="none": a bias in front of BatchNorm or GroupNorm has no effect, here nor there."""
    dead = {n for n, _ in tiny(gate=gate, norm="none").named_parameters()}
    for _ in range(8):  # a ReLU of so few may be closed in any one draw
        network = tiny(gate=gate, norm="none").train()
        (network(batch()) - batch()).abs().mean().backward()
        dead -= {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert dead == set()


@pytest.mark.parametrize("path", PATHS)
def test_every_path_has_an_effect_and_only_the_chosen_ones_exist(path):
    network, x = tiny(paths=(path,)).eval(), batch()
    assert set(network.paths) == {path}
    before = network(x)
    with torch.no_grad():
        network.paths[path].alpha.add_(1)
    assert not torch.equal(network(x), before)


def test_all_paths_are_those_between_neighbouring_levels():
    assert set(tiny().paths) == set(PATHS)
    with torch.device("meta"):
        names = set(RDMC().paths)
    down = {"enc3_dec4", "enc2_dec3", "enc1_dec2", "enc0_dec1"}
    assert names == down | {"enc4_dec3", "enc3_dec2", "enc2_dec1", "enc1_dec0"}


def test_a_dynamic_gate_weighs_every_picture_by_itself():
    network = tiny(gate="dynamic", paths=("enc1_dec2",)).eval()
    seen = []
    network.paths["enc1_dec2"].gate.register_forward_hook(lambda *call: seen.append(call[2]))
    network(torch.stack((torch.zeros(3, 16, 16), torch.ones(3, 16, 16))))
    assert seen[0].shape == (2, 1)
    assert seen[0][0] != seen[0][1]
    assert ((seen[0] > 0) & (seen[0] < 1)).all()


def test_mixed_up_goes_from_bilinear_to_bicubic():
    up, x = MixedUp(), batch(1, 5, 6)
    bilinear, bicubic = (
        F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)
        for mode in ("bilinear", "bicubic")
    )
    torch.testing.assert_close(up(x), (bilinear + bicubic) / 2)
    with torch.no_grad():
        up.logits.copy_(torch.tensor([0.0, 100.0]))
    torch.testing.assert_close(up(x), bicubic)


def test_the_picture_is_float32_under_bfloat16_autocast():
    network, x = tiny(norm="group").train(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network(x)
        F.l1_loss(low, x).backward()
    assert low.dtype == torch.float32
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert 0 < (low - network(x)).abs().max() < 0.05


def test_the_state_survives_safetensors(tmp_path):
    network, other = tiny().train(), tiny()
    network(batch())  # moves BatchNorm's statistics
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(network.eval()(batch()), other.eval()(batch()))


@pytest.mark.usefixtures("unchecked")
def test_export_gives_the_same_output():
    """1e-5 in [0, 1]: far below half a level of 8 bits, 2e-3."""
    network, x = tiny(gate="dynamic").eval(), batch(1)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unchecked")
def test_compile_gives_the_same_output():
    network, x = tiny(recursions=1, norm="group").eval(), batch(1)
    with torch.no_grad():
        found = torch.compile(network, backend="aot_eager")(x)
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)


def test_it_overfits_one_batch():
    """Streaks on a smooth picture: 1 - SSIM falls to a fifth in 50 steps."""
    clean = F.interpolate(batch(2, 4, 4), size=16, mode="bilinear")
    streaks = (torch.rand(2, 1, 1, 16, generator=torch.Generator().manual_seed(2)) > 0.8) * 0.4
    rainy, network = (clean + streaks).clamp(0, 1), tiny().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        loss = 1 - ssim(network(rainy), clean)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * (1 - ssim(rainy, clean).item())


def test_every_option_is_in_the_config_with_the_same_default():
    values = RDMCConfig().model_dump()
    assert values.pop("name") == "rdmc"
    parameters = inspect.signature(RDMC).parameters
    assert values == {key: parameter.default for key, parameter in parameters.items()}


@pytest.mark.parametrize(
    "options",
    [
        {"recursions": 0},
        {"widths": (4,)},
        {"dilations": ()},
        {"paths": ("enc0_dec3",)},
        {"paths": "none"},
        {"gate": "searched"},
        {"norm": "layer"},
        {"up": "bicubic"},
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfitting_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tiny(**options)
