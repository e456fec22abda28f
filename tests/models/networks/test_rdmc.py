"""RDMC: size, recursion and paths, and that it can be trained, saved and exported."""

import inspect
import itertools

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

import derain.models as models
from derain.config.networks import RDMCConfig
from derain.models.networks.rdmc import RDMC, MixedUp
from tests.models.formulas import convolved, part, randomised, state_of
from tests.models.networks.overfit import assert_overfits

TINY = {"widths": (4, 6, 6), "dilations": (1, 2), "recursions": 2}
PATHS = ("enc0_dec1", "enc1_dec2", "enc1_dec0", "enc2_dec1")


def tiny(**options):
    return models.build("rdmc", **{**TINY, **options})


def batch(size=2, height=16, width=24):
    return torch.rand(size, 3, height, width, generator=torch.Generator().manual_seed(4))


def block(x, state, dilation, training):
    """conv3x3, norm, relu, twice; the second convolution is dilated."""
    for first, d in ((0, 1), (3, dilation)):
        x = convolved(x, part(state, str(first)), dilation=d)
        x = F.relu(batch_norm(x, part(state, str(first + 1)), training))
    return x


def batch_norm(x, state, training):
    mean, variance = state["running_mean"], state["running_var"]
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    mean, variance, scale, shift = (
        t[:, None, None] for t in (mean, variance, state["weight"], state["bias"])
    )
    return scale * (x - mean) / torch.sqrt(variance + 1e-5) + shift


def doubled(x, mode="bilinear"):
    return F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)


def deeper(x, state, training):
    """One level down: 3x3, stride 2, the border reflected; 1x1 from the input of U."""
    conv, norm = part(state, "operator.0"), part(state, "operator.1")
    if conv["weight"].shape[-1] == 1:
        y = convolved(x, conv)
    else:
        y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), conv["weight"], conv["bias"], stride=2)
    return F.leaky_relu(batch_norm(y, norm, training), 0.2)


def share(state, source, target):
    """The weight of a path: learned, or computed from the means of source and target."""
    if "alpha" in state:
        return state["alpha"]
    means = torch.cat([t.mean((2, 3)) for t in (source, target)], dim=1)
    hidden = F.relu(means @ state["gate.0.weight"].T + state["gate.0.bias"])
    return torch.sigmoid(hidden @ state["gate.2.weight"].T + state["gate.2.bias"])[..., None, None]


def residue(x, state, training):
    """U of `TINY`, three levels and all four paths, as its formula says."""
    streams = []
    for stream, dilation in enumerate(TINY["dilations"]):
        maps = [block(x, part(state, f"streams.{stream}.0"), dilation, training)]
        for level in (1, 2):
            pooled = maps[-1].unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
            maps.append(block(pooled, part(state, f"streams.{stream}.{level}"), dilation, training))
        streams.append(maps)
    e0, e1, e2 = (torch.cat(level, dim=1) for level in zip(*streams, strict=True))
    b = state["up.logits"].exp() / state["up.logits"].exp().sum()

    def decoded(level, skip, y):
        y = b[0] * doubled(y) + b[1] * doubled(y, "bicubic")
        return block(torch.cat((skip, y), 1), part(state, f"decoders.{level}"), 1, training)

    down0, down1, up0, up1 = (part(state, f"paths.{name}") for name in PATHS)
    y = decoded(1, e1, e2)
    d1 = y + share(down1, e0, y) * deeper(e0, down1, training)
    y = decoded(0, e0, d1)
    shallower = block(doubled(e1), part(up1, "operator.1"), 1, training)
    d0 = y + share(down0, x, y) * deeper(x, down0, training) + share(up1, e1, y) * shallower
    y = convolved(d0, part(state, "out"))
    return y + share(up0, e0, y) * block(e0, part(up0, "operator"), 1, training)


def millions(**options):
    with torch.device("meta"):
        network = RDMC(**options)
    return sum(p.numel() for p in network.parameters()) / 1e6


def test_the_size_is_that_of_the_public_code():
    """19.810 M with all eight paths and 15.884 M without, counted in DRNet's code."""
    assert round(millions(), 3) == 19.810
    assert round(millions(paths=()), 3) == 15.884


def test_recursions_share_their_weights():
    assert millions(recursions=6) == millions(recursions=1)


@pytest.mark.parametrize("gate", ["learned", "dynamic"])
@pytest.mark.parametrize("training", [False, True])
def test_it_is_the_formula(training, gate):
    network, rainy = randomised(tiny(gate=gate)).train(training), batch().double()
    state = state_of(network)
    expected = rainy
    for _ in range(TINY["recursions"]):
        expected = rainy + residue(torch.cat((rainy, expected), dim=1), state, training)
    found = network(batch()).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"paths": ()}, {"gate": "dynamic"}, {"norm": "group"}, {"up": "bilinear"}]
)
def test_the_shape_is_kept(options):
    network = tiny(**options).eval()
    for shape in [(1, 8, 8), (2, 16, 24)]:
        assert network(batch(*shape)).shape == (shape[0], 3, *shape[1:])


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 19)])
def test_a_size_that_is_not_a_multiple_of_the_stride_is_refused(height, width):
    with pytest.raises(ValueError, match=f"multiples of 4, got {height}x{width}"):
        tiny()(batch(1, height, width))


def test_the_default_stride_is_16():
    with torch.device("meta"):
        assert RDMC().stride == RDMC.stride == 16


def test_it_adds_to_the_rainy_image_and_not_to_the_last_output():
    """With a constant last layer, each recursion returns the rainy image plus that constant."""
    network, x = tiny(paths=(), recursions=3), batch()
    torch.nn.init.zeros_(network.out.weight)
    torch.nn.init.constant_(network.out.bias, 0.25)
    torch.testing.assert_close(network.eval()(x), x + 0.25)


def test_each_recursion_gets_the_output_of_the_previous_one():
    network, x = tiny(recursions=1).eval(), batch()
    one = network(x)
    network.recursions = 2
    expected = x + network._residue(torch.cat((x, one), dim=1))
    assert torch.equal(network(x), expected)
    assert not torch.equal(expected, one)


def test_a_batch_of_one_gives_the_same_as_a_larger_batch():
    network, x = tiny(gate="dynamic").eval(), batch()
    torch.testing.assert_close(network(x)[:1], network(x[:1]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("gate", ["learned", "dynamic"])
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_gradient_reaches_every_parameter(gate, norm):
    """Except a bias before BatchNorm, which has no effect: its gradient is rounding error."""
    network = tiny(gate=gate, norm=norm)
    silent = {f"{name}.bias" for name in _before_a_norm(network)}
    dead = {name for name, _ in network.named_parameters()} - silent
    for _ in range(8):  # in a single draw all of a few ReLUs may be inactive
        network = tiny(gate=gate, norm=norm).train()
        (network(batch()) - batch()).abs().mean().backward()
        dead -= {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    assert dead == set()


def _before_a_norm(network):
    """The names of the layers followed by a BatchNorm."""
    layers = list(network.named_modules())
    for (name, _), (_, following) in itertools.pairwise(layers):
        if isinstance(following, torch.nn.BatchNorm2d):
            yield name


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


def test_a_dynamic_gate_weighs_each_image_separately():
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


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_image_is_float32_under_bfloat16_autocast(norm):
    network, x = tiny(norm=norm).train(), batch()
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
    network, x = tiny(recursions=1).eval(), batch(1)
    with torch.no_grad():
        found = torch.compile(network, backend="aot_eager")(x)
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=0)


def test_it_overfits_one_batch():
    assert_overfits(tiny(), steps=50)


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
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tiny(**options)
