"""The networks by name, user-defined classes, and which parameters are trained."""

import subprocess
import sys

import pytest
from torch import nn

import derain.models as models


def test_an_unknown_name_is_refused_with_a_list_of_the_networks():
    with pytest.raises(ValueError, match="fclip_unet"):
        models.build("unet")


@pytest.mark.parametrize(
    ("name", "named"),
    [("nowhere.nets:Net", "imported"), ("subprocess:Popen", "not a subclass of torch")],
)
def test_a_user_defined_class_that_is_not_a_network_is_refused(name, named):
    with pytest.raises(ValueError, match=named):
        models.build(name, args="true")


def test_a_user_defined_class_whose_stride_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match=r"stride \(1, 1\); expected a whole number"):
        models.build("torch.nn:Conv2d", in_channels=3, out_channels=3, kernel_size=1)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_has_a_stride_and_names_its_frozen_parts(name):
    assert models.MODELS[name].stride >= 1
    assert isinstance(models.MODELS[name].frozen, tuple)


def test_frozen_and_trained_parameters_are_disjoint_and_complete(tiny):
    network = tiny()
    frozen = {p for m in models.frozen_modules(network).values() for p in m.parameters()}
    trained = set(models.trained_parameters(network).values())
    assert frozen
    assert not frozen & trained
    assert frozen | trained == set(network.parameters())


def test_an_encoder_that_drifts_is_not_frozen(tiny):
    assert models.frozen_modules(tiny(encoder_bn_mode="clip_denoising")) == {}


def test_a_module_without_frozen_parts_has_none():
    assert models.frozen_modules(nn.Linear(2, 2)) == {}


def test_importing_the_models_imports_no_model_library():
    code = (
        "import sys, derain.models, derain.models.losses.total_loss\n"
        "print([m for m in ('open_clip', 'torchvision', 'ray', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
