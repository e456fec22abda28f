"""Validation during a run scores as `derainctl evaluate` does afterwards."""

from typing import Any

import pytest

from derain import checkpoint
from derain.building import restore_network
from derain.metrics import PROTOCOLS
from derain.parallel import Rank
from derain.pipelines.evaluate import evaluate
from derain.pipelines.validation import Validation


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_validation_is_the_evaluation_of_its_checkpoint(trained: Any, protocol: str) -> None:
    """Under "prenet" too, which cuts off where the others round."""
    path = trained.result["checkpoint"]
    config = trained.config.replaced({"eval.protocol": protocol}, "test")
    found = Validation(config, Rank())(restore_network(checkpoint.load(path)))
    (dataset,) = evaluate(path, config.data.eval, protocols=[protocol])["datasets"]
    assert found == pytest.approx({name: dataset["metrics"][name] for name in found}, rel=1e-12)
