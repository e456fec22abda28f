"""The encoder against open_clip's own, where its weights come from, and that it never changes."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from derain.models import fingerprint
from derain.models.encoders.clip import CLIP_MEAN, CLIP_STD, CLIPResNetEncoder

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
    """The outputs of open_clip's stages, recorded by hooks while it runs itself."""
    found = {}
    names = ("act3", "layer1", "layer2", "layer3")
    hooks = [
        getattr(tower, name).register_forward_hook(
            lambda _module, _args, output, name=name: found.update({name: output.clone()})
        )
        for name in names
    ]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    with torch.no_grad():
        tower((x - mean) / std)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


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


def test_so_are_those_of_the_published_size(tmp_path):
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


@pytest.mark.parametrize("layers", [(1, 1, 1), (3, 4, 6, 3)])
def test_random_features_neither_vanish_nor_explode(layers):
    ours = CLIPResNetEncoder("random", layers, width=16)
    smooth = nn.functional.interpolate(torch.rand(4, 3, 12, 12), size=96, mode="bicubic")
    for tap in ours(smooth.clamp(0, 1)):
        assert 0.1 < tap.std() < 3.0


def test_random_is_a_function_of_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fingerprint(encoder("random", seed=5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert fingerprint(encoder("random", seed=5)) == first
    assert fingerprint(encoder("random", seed=6)) != first


def test_frozen_parts_are_the_same_on_a_cpu_of_another_kind():
    """Prompts are encoded on the CPU at hand, whose last bit is not to bind a checkpoint to it."""
    program = (
        "from derain.models import fingerprint;"
        "from derain.models.clip import CLIPResNetEncoder;"
        "from derain.models.perception import RainPerception;"
        "sizes = dict(dim=8, width=16, layers=1, text_width=16, text_layers=1);"
        "made = RainPerception('random', ['light rain', 'rain'], **sizes);"
        "print(fingerprint(made), fingerprint(CLIPResNetEncoder('random', (1, 1, 1, 1), 8)));"
        "print(made.text.double().sum().item())"
    )
    kinds = [{}, {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}]
    prints, sums = zip(
        *(
            subprocess.check_output(
                [sys.executable, "-c", program], env=os.environ | kind, text=True
            ).splitlines()
            for kind in kinds
        ),
        strict=True,
    )
    assert prints[0] == prints[1]
    assert sums[0] != sums[1]


def test_train_leaves_it_in_evaluation_mode_and_without_a_graph():
    ours = encoder("random").train()
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    before = fingerprint(ours)
    assert not any(tap.requires_grad for tap in ours(x))
    assert not any(module.training for module in ours.modules())
    assert fingerprint(ours) == before


def test_features_give_a_gradient_to_the_image_only():
    ours = encoder("random")
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    ours.features(x)[3].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in ours.parameters())


def test_clip_denoising_mode_drifts_as_its_ancestor_does():
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


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_file_that_holds_something_else_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"<html>404 not found</html>")
    with pytest.raises(ValueError, match="found something else"):
        encoder(str(tmp_path / name))


def test_a_pickled_object_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="weights_only"):
        encoder(str(tmp_path / "w.pt"))


def test_a_state_dict_with_other_things_in_it_is_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": "text"}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="dict of tensors"):
        encoder(str(tmp_path / "w.pt"))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_archive_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "RN50.pt"))
    with pytest.raises(ValueError, match=r"TorchScript.*torch\.jit\.load"):
        encoder(str(tmp_path / "RN50.pt"))


def test_a_missing_file_says_what_could_have_been_given(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'random'.*openai.*nothing"):
        encoder(str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("tag", ["openai", "cc12m"])
def test_a_tag_without_a_network_says_what_to_put_where(monkeypatch, tmp_path, tag):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"'{tag}'.*encoder_weights=/path/to"):
        CLIPResNetEncoder(tag)


@pytest.mark.parametrize("options", [{"layers": (1, 1)}, {"width": 9}, {"bn_mode": "eval"}])
@pytest.mark.usefixtures("unchecked")
def test_unfitting_options_are_refused(options):
    with pytest.raises(ValueError, match=r"layers|bn_mode"):
        CLIPResNetEncoder("random", **{"layers": (1, 1, 1), "width": 8, **options})
