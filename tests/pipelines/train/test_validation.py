"""Validation during a run gives the same metrics as `derainctl evaluate` afterwards."""

from typing import Any

import pytest

from derain.evaluation.protocols import PROTOCOLS
from derain.pipelines.evaluate.verb import evaluate
from derain.pipelines.train.validation import Validation
from derain.training import checkpoint
from derain.training.factory import restore_network
from derain.training.process.distributed import Rank


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_validation_equals_the_evaluation_of_the_checkpoint(trained: Any, protocol: str) -> None:
    """Also under "prenet", which truncates values instead of rounding them."""
    path = trained.result["checkpoint"]
    config = trained.config.replaced({"eval.protocol": protocol}, "test")
    found = Validation(config, Rank())(restore_network(checkpoint.load(path)))
    (dataset,) = evaluate(path, config.data.validation, protocols=[protocol])["datasets"]
    assert found == pytest.approx({name: dataset["metrics"][name] for name in found}, rel=1e-12)
