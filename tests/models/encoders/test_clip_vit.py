"""The ViT encoders, compared with open_clip's image tower."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from derain.models.encoders.clip_vit import CLIPViTEncoder
from derain.models.encoders.clip_weights import CLIP_MEAN, CLIP_STD
from tests.models.encoders.stages import normalised, recorded


@pytest.fixture(scope="module")
def tower():
    """The image tower of open_clip's CLIP with patches of 32 px, small."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    torch.manual_seed(3)
    return VisionTransformer(224, 32, 64, 8, 2, 4.0, act_layer=QuickGELU, output_dim=16).eval()


@pytest.mark.parametrize("prefix", ["", "visual."])
def test_feature_maps_are_open_clips_tokens_after_each_quarter(tower, tmp_path, prefix):
    state = {prefix + name: value.contiguous() for name, value in tower.state_dict().items()}
    save_file(state, tmp_path / "vit.safetensors")
    ours = CLIPViTEncoder(str(tmp_path / "vit.safetensors"), 32, (8,), width=64)
    # one head here, two in the tower; heads are not in the file, so make them equal
    for block in ours.vit.transformer.resblocks:
        block.attn.num_heads, block.attn.head_dim = 2, 32
    x = torch.rand(2, 3, 224, 224)
    names = [f"transformer.resblocks.{number}" for number in (1, 3, 5, 7)]
    expected = recorded(tower, names, normalised(x, CLIP_MEAN, CLIP_STD))
    for tap, tokens in zip(ours(x), expected, strict=True):
        grid = tokens[:, 1:].reshape(2, 7, 7, 64).permute(0, 3, 1, 2)
        torch.testing.assert_close(tap, grid, rtol=1e-5, atol=1e-5)


def test_positions_are_resampled_to_a_larger_grid():
    """For a uniform image, patches differ by position only: by the resampled embedding."""
    ours = CLIPViTEncoder("random", 32, (4,), width=64)
    net = ours.vit
    grey = torch.full((1, 3, 256, 320), 0.5)
    positions = net.positional_embedding[1:].reshape(1, 7, 7, 64).permute(0, 3, 1, 2)
    resized = F.interpolate(positions, (8, 10), mode="bicubic", align_corners=False)
    patch = net.conv1(ours.normalise(grey))[:, :, :1, :1]
    inputs = []
    net.ln_pre.register_forward_hook(lambda _module, args, _output: inputs.append(args[0]))
    ours(grey)
    expected = (patch + resized).flatten(2).transpose(1, 2)
    torch.testing.assert_close(inputs[0][:, 1:], expected, rtol=1e-5, atol=1e-5)


def test_weights_of_another_patch_are_refused(tower, tmp_path):
    save_file(tower.state_dict(), tmp_path / "b32.safetensors")
    with pytest.raises(ValueError, match=r"(?s)b32.*conv1"):
        CLIPViTEncoder(str(tmp_path / "b32.safetensors"), 16, (8,), width=64)
