"""The encoders of Table 6 by name: sizes, gradients, and FCLIP-UNet on each of them."""

import pytest
import torch

import derain.models as models
from derain.models.encoders.build import build_encoder

SMALL = {
    "clip_rn50": {"encoder_layers": (1, 1, 1), "encoder_width": 8},
    "imagenet_resnet50": {"encoder_layers": (1, 1, 1), "encoder_width": 64},
    "clip_vit_b32": {"encoder_layers": (4,), "encoder_width": 64},
    "clip_vit_b16": {"encoder_layers": (4,), "encoder_width": 64},
}
STRIDES = {"clip_rn50": 16, "imagenet_resnet50": 16, "clip_vit_b32": 32, "clip_vit_b16": 16}


@pytest.mark.parametrize("name", SMALL)
def test_it_never_changes_and_only_the_image_gets_a_gradient(name):
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


def test_a_vit_with_patches_of_32_refuses_multiples_of_16(tiny):
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


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("resnet", {}, "encoder must be one of"),
        ("clip_vit_b16", {"bn_mode": "clip_denoising"}, "clip_rn50 only"),
        ("imagenet_resnet50", {"width": 32}, "must be 64"),
        ("clip_vit_b32", {"layers": (3,)}, "multiple of 4"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(name, options, named):
    with pytest.raises(ValueError, match=named):
        build_encoder(name, "random", **options)
