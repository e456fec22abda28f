"""PReNet, MPRNet, Restormer and NAFNet: their published sizes, names and formulas, and that each
can be trained, saved, compiled and exported. Published weights are scored by hand, with the
figures in docs/baselines.md: the weights files are not part of the project."""

import inspect

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import derain.models as models
from derain.config import networks
from derain.models import published
from derain.models.losses.ssim import ssim
from derain.models.networks.nafnet import NAFBlock
from derain.models.networks.restormer import Attention

TINY = {
    "prenet": {"width": 8, "recursions": 2},
    "mprnet": {"width": 4, "unet_growth": 2, "full_growth": 2, "blocks": 1, "reduction": 1},
    "restormer": {
        "width": 4,
        "blocks": (1, 1, 1, 1),
        "refinement_blocks": 1,
        "heads": (1, 1, 2, 2),
    },
    "nafnet": {"width": 4, "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)},
}
NAMES = list(TINY)


def tiny(name, **options):
    return models.build(name, **{**TINY[name], **options})


def started(name):
    """A network whose every parameter counts; some of NAFNet's start at exactly 0."""
    network = tiny(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def batch(size=2, height=16, width=24):
    return torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(4))


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
    """Published figures to their last digit, counted on the meta device."""
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
    """From the published code, written down by hand; PReNet's also load a real file, see docs."""
    with torch.device("meta"):
        state = models.build(name).state_dict()
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_is_kept(name):
    network = tiny(name)
    for shape in [(1, 8, 8), (2, 16, 24)]:
        assert network(batch(*shape)).shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize("name", ["mprnet", "restormer", "nafnet"])
def test_a_size_that_is_no_multiple_of_the_stride_is_refused(name):
    network = tiny(name)
    side = network.stride + 2
    with pytest.raises(ValueError, match=f"multiples of {network.stride}, got {side}x16"):
        network(batch(1, side, 16))


def test_prenet_takes_every_size():
    assert tiny("prenet")(batch(1, 13, 7)).shape == (1, 3, 13, 7)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_every_parameter(name):
    """In one of eight draws: a tiny channel attention may have all of its ReLUs closed."""
    dead = {n for n, _ in tiny(name).named_parameters()}
    for _ in range(8):
        network = started(name).train()
        (network(batch()) - batch()).abs().mean().backward()
        moved = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
        dead -= moved
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
    network, other = started(name).eval(), tiny(name).eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert not torch.equal(network(batch()), other(batch()))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(network(batch()), other(batch()))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_autocast_gives_a_float32_image_near_the_float32_one(name):
    network, x = started(name).train(), batch()
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
    network, x = started(name).eval(), batch(1)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_compile_gives_the_same_output(name):
    network, x = started(name).eval(), batch(1, 8, 8)
    with torch.no_grad():
        found = torch.compile(network, backend="aot_eager")(x)
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_it_overfits_one_batch(name):
    """Streaks on a smooth image: 1 - SSIM falls to a fifth in 40 steps."""
    clean = F.interpolate(batch(2, 4, 4), size=16, mode="bilinear")
    streaks = (torch.rand(2, 1, 1, 16, generator=torch.Generator().manual_seed(2)) > 0.8) * 0.4
    rainy, network = (clean + streaks).clamp(0, 1), tiny(name).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss = 1 - ssim(network(rainy), clean)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * (1 - ssim(rainy, clean).item())


def test_prenet_is_its_formula():
    """The recursion with a convolution for every gate, one after the other."""
    network, x = started("prenet").eval(), batch(1)
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
    shared, apart = tiny("prenet", shared_blocks=True), tiny("prenet")
    state = shared.state_dict()
    for key in apart.state_dict():
        if key.startswith("res_conv"):
            state[key] = state["res_conv1" + key[len("res_conv1") :]]
    apart.load_state_dict(state)
    torch.testing.assert_close(apart(batch()), shared(batch()))


def test_restormers_attention_matches_numpy():
    """Without the two convolutions in front: q, k and v are given."""
    layer = Attention(4, 2)
    qkv = torch.randn(1, 12, 3, 5)
    layer.qkv, layer.qkv_dwconv, layer.project_out = (torch.nn.Identity() for _ in range(3))
    with torch.no_grad():
        layer.temperature.copy_(torch.tensor([0.5, 2.0]).view(2, 1, 1))
    q, k, v = qkv.double().numpy().reshape(3, 2, 2, 15)
    expected = np.empty((2, 2, 15))
    for head, temperature in enumerate((0.5, 2.0)):
        a = q[head] / np.linalg.norm(q[head], axis=1, keepdims=True)
        b = k[head] / np.linalg.norm(k[head], axis=1, keepdims=True)
        logits = np.exp(temperature * a @ b.T)
        expected[head] = logits / logits.sum(1, keepdims=True) @ v[head]
    torch.manual_seed(0)
    found = _attend(layer, qkv)
    np.testing.assert_allclose(found.reshape(2, 2, 15), expected, rtol=1e-4, atol=1e-5)


def _attend(layer, qkv):
    """`Attention.forward` takes as many channels as it returns; qkv has three times as many."""

    class Threefold(torch.nn.Module):
        def forward(self, x):
            return qkv if x.shape[1] == 4 else x

    layer.qkv = Threefold()
    return layer(torch.zeros(1, 4, 3, 5)).detach().numpy()


def test_nafnets_block_starts_as_the_identity():
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(NAFBlock(4)(x), x)


def test_mprnet_gives_the_images_of_its_three_stages():
    network, x = started("mprnet").eval(), batch()
    stages = network.stages(x)
    assert [image.shape for image in stages] == [x.shape] * 3
    assert torch.equal(stages[2], network(x))
    assert not torch.equal(stages[0], stages[1])


def test_mprnets_first_stage_encodes_quarters_apart_and_decodes_halves():
    """Rain in the lower right corner changes the lower half of stage 1's image and no other."""
    network, x = started("mprnet").eval(), batch(1, 16, 16)
    other = x.clone()
    other[:, :, 12:, 12:] = 0
    change = (network.stages(other)[0] - network.stages(x)[0]).abs().sum(1)[0]
    assert change[:8].max() == 0
    assert change[8:, :8].max() > 0


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
def test_unfitting_options_are_refused(name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tiny(name, **options)


def test_weights_that_nobody_published_are_refused_with_their_digest(tmp_path):
    tensors = tiny("prenet").state_dict()
    save_file(tensors, tmp_path / "mine.safetensors")
    with pytest.raises(ValueError, match=published.tensors_sha256(tensors)):
        published.load_published(tmp_path / "mine.safetensors")


def test_published_weights_are_recognised_in_both_containers(tmp_path, monkeypatch):
    """A network of ours stands in for the authors' file, which is not part of the project."""
    network = tiny("prenet", shared_blocks=True)
    entry = published.Published(
        "prenet", "nothing", "here", {**TINY["prenet"], "shared_blocks": True}
    )
    digest = published.tensors_sha256(network.state_dict())
    monkeypatch.setitem(published.PUBLISHED, digest, entry)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    torch.save(network.state_dict(), tmp_path / "a.pth")
    for name in ("a.safetensors", "a.pth"):
        loaded, found = published.load_published(tmp_path / name)
        assert found is entry
        assert torch.equal(loaded(batch()), network(batch()))


@pytest.mark.parametrize("entry", published.PUBLISHED.values(), ids=lambda entry: entry.source)
def test_every_published_entry_builds(entry):
    with torch.device("meta"):
        assert models.build(entry.network, **entry.options).stride >= 1
