"""Why a process ended, from the texts that Ray 2.60 gives."""

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, OutOfMemoryError

from derain.pipelines.deaths import out_of_memory, reason_of

OUT_OF_MEMORY = """\
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, \
ID: bdc6d2c7) was 30.46GB used / 32.00GB limit (0.951875)
OOM kill reason: Memory usage 32706174812B exceeded threshold of 32641751449B (95.0% of 34359738368B \
limit)
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
(Actor(11aa): job ID=01000000, task name=Worker.__init__, pid=4710, actual memory used=1.10GB)
Selected to kill: (Actor(27f8): job ID=01000000, lease ID=0000, task name=Worker.__init__, required \
resources={}, pid=4711, actual memory used=3.25GB, worker ID=cb60)
]
To see more information about memory usage on this node, use `ray logs raylet.out -ip 10.0.0.7`
"""  # noqa: E501


@pytest.mark.parametrize("error", [OutOfMemoryError(OUT_OF_MEMORY), None])
def test_the_guard_of_the_memory_is_named_with_what_to_lower(error: Exception | None) -> None:
    reason = reason_of(error, OUT_OF_MEMORY)
    for part in ("10.0.0.7 ran out of memory", "30.46GB of 32.00GB", "3.25GB by this process"):
        assert part in reason
    assert "Lower train.batch_size" in reason
    assert "\n" not in reason
    assert out_of_memory(f"Training failed on a worker:\n{OUT_OF_MEMORY}") == reason
    assert out_of_memory("CUDA out of memory") is None


def test_a_lost_machine_and_a_killed_process_are_told_apart() -> None:
    node = "The actor died because its node has died. Node Id: 1f0c"
    assert "with its machine" in reason_of(NodeDiedError(node), node)
    assert "with its machine" in reason_of(ActorDiedError(), f"ActorDiedError: {node}")
    assert "was killed" in reason_of(ActorDiedError(), "The actor died unexpectedly.\nLast line")
    silent = ActorUnavailableError("RPC error: keepalive watchdog timeout rpc_code: 14", None)
    assert "no longer answers" in reason_of(silent, str(silent))


def test_other_errors_are_their_last_line() -> None:
    assert reason_of(None, "Traceback:\n  ...\nValueError: no\n") == "ValueError: no"
    assert reason_of(None, "") == "its process died"
