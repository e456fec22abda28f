"""What a job server answers -> one message."""

import pytest

from derain.errors import DerainError, UsageError
from derain.pipelines.jobs.client import about


def test_a_refusal_of_the_server_is_one_message() -> None:
    """The texts are those of Ray 2.60."""
    busy = "Request failed with status code 500: No available agent to submit job."
    with pytest.raises(DerainError, match=r"No available agent.*may need a minute"), about("mine"):
        raise RuntimeError(busy)
    unknown = "Request failed with status code 404: No job called mine"
    with pytest.raises(UsageError, match="mine: this cluster has no such job"), about("mine"):
        raise RuntimeError(unknown)
