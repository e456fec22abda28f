"""The encoders of Table 6 against the libraries that their weights come from."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import derain.models as models
from derain.models.encoders.by_name import IMAGENET_MEAN, IMAGENET_STD, build_encoder
from derain.models.encoders.clip import CLIP_MEAN, CLIP_STD

SMALL = {
    "clip_rn50": {"encoder_layers": (1, 1, 1), "encoder_width": 8},
    "imagenet_resnet50": {"encoder_layers": (1, 1, 1), "encoder_width": 64},
    "clip_vit_b32": {"encoder_layers": (4,), "encoder_width": 64},
    "clip_vit_b16": {"encoder_layers": (4,), "encoder_width": 64},
}
STRIDES = {"clip_rn50": 16, "imagenet_resnet50": 16, "clip_vit_b32": 32, "clip_vit_b16": 16}


def normalised(x, mean, std):
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def recorded(module, names, x):
    """What the named sub-modules return while the module runs itself."""
    found = {}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: found.update({name: output.clone()})
        )
        for name in names
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet with BatchNorm statistics that are not trivial."""
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(3)
    net = ResNet(Bottleneck, [1, 2, 1, 1])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval()


@pytest.fixture(scope="module")
def tower():
    """The image tower of open_clip's CLIP with patches of 32 px, small."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    torch.manual_seed(3)
    return VisionTransformer(224, 32, 64, 8, 2, 4.0, act_layer=QuickGELU, output_dim=16).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_imagenets_taps_are_torchvisions_stage_outputs(resnet, tmp_path, suffix):
    path = tmp_path / f"resnet50{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(resnet.state_dict(), path)
    ours = build_encoder("imagenet_resnet50", str(path), layers=(1, 2, 1)).train()
    x = torch.rand(2, 3, 64, 48)
    names = ("relu", "layer1", "layer2", "layer3")
    expected = recorded(resnet, names, normalised(x, IMAGENET_MEAN, IMAGENET_STD))
    for tap, stage in zip(ours(x), expected, strict=True):
        torch.testing.assert_close(tap, stage, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "visual."])
def test_vit_taps_are_open_clips_tokens_after_each_quarter(tower, tmp_path, prefix):
    state = {prefix + name: value.contiguous() for name, value in tower.state_dict().items()}
    save_file(state, tmp_path / "vit.safetensors")
    ours = build_encoder("clip_vit_b32", str(tmp_path / "vit.safetensors"), (8,), width=64)
    # one head here, two in the tower: heads are no tensors, so the file fits; make them equal
    for block in ours.vit.transformer.resblocks:
        block.attn.num_heads, block.attn.head_dim = 2, 32
    x = torch.rand(2, 3, 224, 224)
    names = [f"transformer.resblocks.{number}" for number in (1, 3, 5, 7)]
    expected = recorded(tower, names, normalised(x, CLIP_MEAN, CLIP_STD))
    for tap, tokens in zip(ours(x), expected, strict=True):
        grid = tokens[:, 1:].reshape(2, 7, 7, 64).permute(0, 3, 1, 2)
        torch.testing.assert_close(tap, grid, rtol=1e-5, atol=1e-5)


def test_positions_follow_the_grid_of_another_size():
    """Where only positions tell patches apart, the map of a larger image is theirs, resampled."""
    ours = build_encoder("clip_vit_b32", "random", (4,), width=64)
    net = ours.vit
    grey = torch.full((1, 3, 256, 320), 0.5)
    positions = net.positional_embedding[1:].reshape(1, 7, 7, 64).permute(0, 3, 1, 2)
    resized = F.interpolate(positions, (8, 10), mode="bicubic", align_corners=False)
    patch = net.conv1(ours.normalise(grey))[:, :, :1, :1]
    seen = []
    net.ln_pre.register_forward_hook(lambda _module, args, _output: seen.append(args[0]))
    ours(grey)
    expected = (patch + resized).flatten(2).transpose(1, 2)
    torch.testing.assert_close(seen[0][:, 1:], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_it_never_changes_and_gives_a_gradient_to_the_image_only(name):
    sizes = {key.removeprefix("encoder_"): value for key, value in SMALL[name].items()}
    ours = build_encoder(name, "random", **sizes).train()
    before = models.fingerprint(ours)
    x = torch.rand(2, 3, 64, 64, requires_grad=True)
    assert not any(tap.requires_grad for tap in ours(x))
    sum(tap.mean() for tap in ours.features(x)).backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in ours.parameters())
    assert not any(module.training for module in ours.modules())
    assert models.fingerprint(ours) == before


@pytest.mark.parametrize("name", SMALL)
def test_fclip_unet_trains_its_decoder_on_every_encoder(tiny, name):
    network = tiny(encoder=name, **SMALL[name]).train()
    assert network.stride == STRIDES[name]
    x = torch.rand(2, 3, 2 * network.stride, 3 * network.stride)
    output = network(x)
    assert output.shape == x.shape
    output.square().mean().backward()
    wrong = [
        name
        for name, p in network.named_parameters()
        if (p.grad is not None and bool(p.grad.abs().sum() > 0)) == name.startswith("encoder.")
    ]
    assert wrong == []


def test_a_vit_of_patch_32_refuses_multiples_of_16(tiny):
    network = tiny(encoder="clip_vit_b32", **SMALL["clip_vit_b32"])
    with pytest.raises(ValueError, match="multiples of 32, got 48x64"):
        network(torch.rand(1, 3, 48, 64))


def test_the_published_sizes_are_the_defaults():
    """Counted from the papers' tables: ViT-B has 12 blocks of 12 d^2 + 13 d, d = 768."""
    d = 768
    blocks = 12 * (12 * d * d + 13 * d)
    for name, patch, tokens in (("clip_vit_b32", 32, 50), ("clip_vit_b16", 16, 197)):
        ours = build_encoder(name, "random")
        expected = blocks + 3 * patch**2 * d + d + tokens * d + 2 * d
        assert sum(p.numel() for p in ours.parameters()) == expected
    imagenet = build_encoder("imagenet_resnet50", "random")
    assert sum(p.numel() for p in imagenet.parameters()) == 25_557_032 - 2_049_000 - 14_964_736


def test_weights_of_another_patch_are_refused(tower, tmp_path):
    save_file(tower.state_dict(), tmp_path / "b32.safetensors")
    with pytest.raises(ValueError, match=r"(?s)b32.*conv1"):
        build_encoder("clip_vit_b16", str(tmp_path / "b32.safetensors"), (8,), width=64)


def test_imagenet_without_a_network_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # the discard port: nobody answers
    with pytest.raises(FileNotFoundError, match=r"resnet50.*encoder_weights=/path/to"):
        build_encoder("imagenet_resnet50")


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("resnet", {}, "encoder is one of"),
        ("clip_vit_b16", {"bn_mode": "clip_denoising"}, "clip_rn50 alone"),
        ("imagenet_resnet50", {"width": 32}, "width 64"),
        ("clip_vit_b32", {"layers": (3,)}, "multiple of 4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_unfitting_options_are_refused(name, options, named):
    with pytest.raises(ValueError, match=named):
        build_encoder(name, "random", **options)
