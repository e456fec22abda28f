"""A network with random weights as a model folder, and prepared datasets made without Ray."""

import pytest
import torch

from benchmarks._small import write_dataset
from derain import models
from derain.inference.predictor import save_model_folder
from tests.folders import write_pairs

NETWORK = {"width": 4, "middle_blocks": 1, "encoder_blocks": [1], "decoder_blocks": [1]}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder of a small network."""
    torch.manual_seed(0)
    network = models.build("nafnet", **NETWORK)
    folder = tmp_path_factory.mktemp("model") / "net"
    return str(save_model_folder(network, folder, "nafnet", NETWORK))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A prepared dataset of 9 pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    return str(
        write_dataset(
            write_pairs(folder / "source", 9, width=41, height=33), folder / "nine"
        ).folder
    )
