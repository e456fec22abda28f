"""The ResNet encoder, compared with open_clip's; its weights; and that it never changes."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from derain.models import fingerprint
from derain.models.encoders.clip_resnet import CLIPResNetEncoder
from derain.models.encoders.clip_weights import CLIP_MEAN, CLIP_STD
from tests.models.encoders.stages import normalised, recorded

LAYERS, WIDTH = (1, 2, 1, 1), 8


@pytest.fixture(scope="module")
def original():
    return image_tower(LAYERS, WIDTH)


def image_tower(layers, width):
    """open_clip's whole image tower, with BatchNorm statistics that are not trivial."""
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(3)
    tower = ModifiedResNet(list(layers), output_dim=8, heads=2, image_size=64, width=width)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return tower.eval()


def stages(tower, x):
    """The outputs of open_clip's stages."""
    names = ("act3", "layer1", "layer2", "layer3")
    return recorded(tower, names, normalised(x, CLIP_MEAN, CLIP_STD))


def write(tower, path, prefix="", dtype=torch.float32):
    tensors = {
        prefix + k: v.to(dtype) if v.is_floating_point() else v
        for k, v in tower.state_dict().items()
    }
    if prefix:
        tensors["logit_scale"] = torch.tensor(1.0)  # of the text side, as in a whole CLIP
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return str(path)


def encoder(weights, **options):
    return CLIPResNetEncoder(weights, layers=LAYERS, width=WIDTH, **options)


@pytest.mark.parametrize("prefix", ["", "visual."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_taps_are_the_stage_outputs_of_open_clip(original, tmp_path, prefix, suffix):
    ours = encoder(write(original, tmp_path / f"w{suffix}", prefix))
    x = torch.rand(2, 3, 64, 64)
    for tap, expected in zip(ours(x), stages(original, x), strict=True):
        torch.testing.assert_close(tap, expected, rtol=1e-5, atol=1e-5)


def test_taps_of_the_published_size_are_those_of_open_clip(tmp_path):
    tower, x = image_tower((3, 4, 6, 3), 64), torch.rand(1, 3, 64, 64)
    ours = CLIPResNetEncoder(write(tower, tmp_path / "w.safetensors"))
    for tap, expected in zip(ours(x), stages(tower, x), strict=True):
        torch.testing.assert_close(tap, expected, rtol=1e-5, atol=1e-5)


def test_half_precision_weights_become_float32(original, tmp_path):
    ours = encoder(write(original, tmp_path / "w.pt", "visual.", torch.float16))
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    weight = original.layer3[0].conv2.weight
    assert torch.equal(ours.resnet.layer3[0].conv2.weight, weight.half().float())


def test_a_checkpoint_of_open_clips_training_is_unwrapped(original, tmp_path):
    tensors = {f"module.visual.{k}": v for k, v in original.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "epoch_3.pt")
    plain = encoder(write(original, tmp_path / "w.pt"))
    assert fingerprint(encoder(str(tmp_path / "epoch_3.pt"))) == fingerprint(plain)


def test_shapes_channels_and_strides():
    ours = encoder("random")
    taps = ours(torch.rand(1, 3, 32, 48))
    assert [tuple(t.shape[1:]) for t in taps] == [
        (8, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)
    ]  # fmt: skip
    assert tuple(t.shape[1] for t in taps) == ours.channels


def test_train_leaves_it_in_evaluation_mode_and_without_gradient():
    ours = encoder("random").train()
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    before = fingerprint(ours)
    assert not any(tap.requires_grad for tap in ours(x))
    assert not any(module.training for module in ours.modules())
    assert fingerprint(ours) == before


def test_only_the_image_gets_a_gradient_from_the_features():
    ours = encoder("random")
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    ours.features(x)[3].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in ours.parameters())


def test_clip_denoising_mode_drifts_as_clip_denoising_does():
    ours = encoder("random", bn_mode="clip_denoising").train()
    before = fingerprint(ours)
    ours(torch.rand(2, 3, 32, 32))
    assert fingerprint(ours) != before
    assert all(not p.requires_grad for p in ours.parameters())


def test_weights_of_another_width_are_refused(original, tmp_path):
    path = write(original, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"(?s)w\.safetensors.*size mismatch"):
        CLIPResNetEncoder(path, layers=LAYERS, width=16)


def test_weights_with_a_missing_tensor_are_refused(original, tmp_path):
    tensors = original.state_dict()
    del tensors["layer2.0.conv1.weight"]
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"layer2\.0\.conv1\.weight"):
        encoder(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("options", [{"layers": (1, 1)}, {"width": 9}, {"bn_mode": "eval"}])
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=r"layers|bn_mode"):
        CLIPResNetEncoder("random", **{"layers": (1, 1, 1), "width": 8, **options})
