"""How many trials run at once, and with how many threads."""

from typing import Any

import pytest

from derain import cluster
from derain.config import Config
from derain.tune.running.capacity import trials_at_once, with_cpu_threads

pytestmark = pytest.mark.usefixtures("ray_cluster")


def planned(tiny: dict[str, Any], **values: Any) -> Config:
    tree = {**tiny, "sweep": {"space": {"train.lr": {"grid": [1e-3]}}}}
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return Config.model_validate(tree).replaced({"train.device": "cpu", **dotted}, "test")


@pytest.mark.parametrize("threads", [1, 2])
def test_by_default_trials_fill_the_cores(tiny: dict[str, Any], threads: int) -> None:
    config = planned(tiny, train__cpu_threads=threads, train__num_workers=1)
    assert trials_at_once(config) == max(1, cluster.cpus() // threads)


def test_the_workers_of_a_trial_take_a_core_each(tiny: dict[str, Any]) -> None:
    workers = cluster.cpus()
    values = {"train__num_workers": workers, "train__batch_size": workers}
    assert trials_at_once(planned(tiny, train__cpu_threads=1, **values)) == 1


def test_the_number_of_trials_can_be_set_and_shares_the_cores(tiny: dict[str, Any]) -> None:
    config = planned(tiny, sweep__concurrent=1, train__cpu_threads=None, train__num_workers=1)
    assert trials_at_once(config) == 1
    assert with_cpu_threads(config).train.cpu_threads == cluster.cpus()
    many = planned(tiny, sweep__concurrent=100 * cluster.cpus(), train__cpu_threads=None)
    assert with_cpu_threads(many).train.cpu_threads == 1


def test_threads_that_are_set_are_kept(tiny: dict[str, Any]) -> None:
    assert with_cpu_threads(planned(tiny, train__cpu_threads=3)).train.cpu_threads == 3
