"""What a worker reserves."""

from derain.pipelines.workers.plan import Workers


def test_a_worker_on_a_gpu_keeps_one_core_for_the_network() -> None:
    assert Workers(count=1, cpus=8.0, gpus=1.0).threads == 7
    assert Workers(count=2, cpus=1.0, gpus=0.0).threads == 1
