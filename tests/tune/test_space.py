"""The plan of a sweep: every point of the grid once a repeat, named, checked, paired by seed."""

from typing import Any

import pytest

from derain.config import Config
from derain.errors import ConfigError
from derain.tune.space import plan

RATES = {"slow": 1e-4, "fast": 1e-2}


def config(space: dict[str, Any], **sweep: Any) -> Config:
    tree = {
        "name": "search",
        "seed": 5,
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "train": {"steps": 3},
        "sweep": {"space": {key: {"grid": grid} for key, grid in space.items()}, **sweep},
    }
    return Config.model_validate(tree)


def test_the_grid_is_every_combination_in_order() -> None:
    trials = plan(config({"train.lr": RATES, "train.batch_size": [2, 4]}))
    assert [trial.name for trial in trials] == ["slow,2", "slow,4", "fast,2", "fast,4"]
    values = [(trial.config.train.lr, trial.config.train.batch_size) for trial in trials]
    assert values == [(1e-4, 2), (1e-4, 4), (1e-2, 2), (1e-2, 4)]
    assert trials[1].params == {"train.lr": 1e-4, "train.batch_size": 4}


def test_a_trial_is_a_run_below_the_sweep() -> None:
    (trial, _) = plan(config({"train.lr": RATES}))
    assert trial.config.sweep is None
    assert trial.config.name == "search/slow"
    assert trial.config.folder.parent.name == "search"
    assert trial.config.seed == 5


def test_repeats_of_all_trials_share_their_seeds() -> None:
    trials = plan(config({"train.lr": RATES}, repeats=3))
    seeds = {point: [t.config.seed for t in trials if t.point == point] for point in RATES}
    assert seeds == {"slow": [5, 6, 7], "fast": [5, 6, 7]}
    assert len({trial.config.folder for trial in trials}) == 6
    assert trials[0].name == "slow,seed=5"


def test_values_without_a_name_are_named_by_how_they_are_written() -> None:
    trials = plan(config({"model.ldfps_sigma": [[0.1, 0.1, 0.1, 0.1], None]}))
    assert [trial.name for trial in trials] == ["0.1--0.1--0.1--0.1", "null"]
    assert trials[1].config.model.ldfps_sigma is None


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"train.learning": [1]}, r"trial 1.*unknown key `train.learning`.*train\.lr"),
        ({"train.lr": {"good": 0.1, "bad": "fast"}}, r"trial bad.*`train\.lr`.*'fast'"),
        ({"train.lr": {"negative": -1}}, r"trial negative.*greater than 0"),
    ],
)
def test_a_wrong_point_is_named_before_anything_runs(space: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        plan(config(space))


def test_two_trials_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="a-b"):
        plan(config({"train.lr": {"a b": 0.1, "a/b": 0.2}}))


def test_a_config_without_a_sweep_is_refused() -> None:
    single = config({"train.lr": RATES}).replaced({"sweep": None}, "test")
    with pytest.raises(ConfigError, match="no `sweep` section"):
        plan(single)
