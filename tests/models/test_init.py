"""The networks by name, their frozen parts, and fingerprints."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import derain.models as models


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="fclip_unet"):
        models.build("unet")


@pytest.mark.parametrize(
    ("name", "named"), [("nowhere.nets:Net", "imported"), ("subprocess:Popen", "no class of net")]
)
def test_a_name_that_leads_to_no_network_is_refused(name, named):
    with pytest.raises(ValueError, match=named):
        models.build(name, args="true")


def test_a_class_whose_stride_means_something_else_is_refused():
    with pytest.raises(ValueError, match=r"stride \(1, 1\); expected a whole number"):
        models.build("torch.nn:Conv2d", in_channels=3, out_channels=3, kernel_size=1)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_says_its_stride_and_its_frozen_parts(name):
    assert models.MODELS[name].stride >= 1
    assert isinstance(models.MODELS[name].frozen, tuple)


def test_frozen_and_trainable_parameters_are_apart_and_complete(tiny):
    network = tiny()
    frozen = {p for m in models.frozen_modules(network).values() for p in m.parameters()}
    trained = set(models.trained_parameters(network).values())
    assert frozen
    assert not frozen & trained
    assert frozen | trained == set(network.parameters())


def test_an_encoder_that_drifts_is_not_called_frozen(tiny):
    assert models.frozen_modules(tiny(encoder_bn_mode="clip_denoising")) == {}


def test_a_module_without_frozen_parts_has_none():
    assert models.frozen_modules(nn.Linear(2, 2)) == {}


def test_the_fingerprint_sees_one_bit_and_not_the_memory_format():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = models.fingerprint(module)
    assert models.fingerprint(module.to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        module[0].weight.view(torch.int32)[0, 0, 0, 0] ^= 1
    assert models.fingerprint(module) != before


def test_the_fingerprint_sees_names_dtypes_and_buffers():
    module = nn.Sequential(nn.BatchNorm2d(4))
    prints = {models.fingerprint(module), models.fingerprint(nn.Sequential(module))}
    module[0].running_mean[0] = 1
    prints.add(models.fingerprint(module))
    prints.add(models.fingerprint(module.bfloat16()))
    assert len(prints) == 4


def test_importing_the_models_imports_no_model_library():
    code = (
        "import sys, derain.models, derain.models.losses\n"
        "print([m for m in ('open_clip', 'torchvision', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
