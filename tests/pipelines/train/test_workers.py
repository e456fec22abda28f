"""Workers: a run that Ray can never start is refused."""

from typing import Any

import pytest

from derain import cluster
from derain.errors import UsageError
from derain.pipelines.train.workers import check_resources


def test_more_workers_than_cores_or_gpus_are_refused(trained: Any) -> None:
    with pytest.raises(UsageError, match=r"num_workers=4000.*CPU cores"):
        check_resources(
            trained.config.replaced({"train.num_workers": 4000, "train.batch_size": 4000}, "test")
        )
    if not cluster.gpus():
        with pytest.raises(UsageError, match=r"GPUs.*train\.device=cpu"):
            check_resources(trained.config.replaced({"train.device": "cuda"}, "test"))
