"""Why a process ended, from the texts that Ray 2.60 gives."""

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError

from derain.tune.running.deaths import reason_of

OUT_OF_MEMORY = (
    "Memory on the node (IP: 10.0.0.7, ID: 1f0c) where the task (actor ID: 5a, name=Worker.__init__"
    ", pid=4711, memory used=3.25GB) was running was 30.46GB / 32.00GB (0.951875), which exceeds "
    "the memory usage threshold of 0.95. Ray killed this worker (ID: 9e) because it was the most "
    "recently scheduled task; to see more information about memory usage on this node, use `ray "
    "logs raylet.out -ip 10.0.0.7`.\nTo adjust the kill threshold, set the environment variable "
    "`RAY_memory_usage_threshold` when starting Ray.\n"
)


@pytest.mark.parametrize("error", [OutOfMemoryError(OUT_OF_MEMORY), None])
def test_the_guard_of_the_memory_is_named_with_what_to_lower(error: Exception | None) -> None:
    reason = reason_of(error, OUT_OF_MEMORY)
    for part in ("10.0.0.7 ran out of memory", "30.46GB of 32.00GB", "3.25GB by this process"):
        assert part in reason
    assert "Lower sweep.concurrent" in reason
    assert "\n" not in reason


def test_a_lost_machine_and_a_killed_process_are_told_apart() -> None:
    node = "The actor died because its node has died. Node Id: 1f0c"
    assert "with its machine" in reason_of(NodeDiedError(node), node)
    assert "with its machine" in reason_of(ActorDiedError(), f"ActorDiedError: {node}")
    assert "was killed" in reason_of(ActorDiedError(), "The actor died unexpectedly.\nLast line")


def test_other_errors_are_their_last_line() -> None:
    assert reason_of(None, "Traceback:\n  ...\nValueError: no\n") == "ValueError: no"
    assert reason_of(None, "") == "its process died"
