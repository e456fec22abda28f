"""What cannot go together in a sweep is refused by the plan, so by the dry run as well."""

from typing import Any

import pytest

from derain.config import Config
from derain.errors import ConfigError
from derain.tune.running.cohorts import size_of
from derain.tune.space import plan


def config(space: dict[str, Any], train: dict[str, Any] | None = None, **sweep: Any) -> Config:
    tree = {
        "name": "search",
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "train": {"steps": 100, **(train or {})},
        "sweep": {"space": space, **sweep},
    }
    return Config.model_validate(tree)


LR = {"train.lr": {"grid": [1e-4, 1e-3]}}
DRAWN = {"train.lr": {"loguniform": [1e-4, 1e-3]}}


@pytest.mark.parametrize(
    ("key", "values", "sweep"),
    [
        ("train.steps", {"grid": [50, 100]}, {"search": "asha"}),
        ("train.steps", {"choice": [50, 100]}, {"search": "pbt", "samples": 2}),
        ("train.checkpoint_every_steps", {"choice": [5, 6]}, {"search": "pbt", "samples": 2}),
        ("train.optimizer", {"choice": ["adamw", "sgd"]}, {"search": "pbt", "samples": 2}),
        ("train.num_workers", {"grid": [1, 2]}, {}),
        ("train.device", {"grid": ["cpu", "cuda"]}, {}),
    ],
)
def test_keys_that_trials_must_share_cannot_vary(
    key: str, values: dict[str, Any], sweep: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"`{key}` cannot vary"):
        plan(config({key: values}, **sweep))


def test_a_whole_section_that_changes_such_a_key_is_refused() -> None:
    sections = {"train": {"grid": {"short": {"steps": 50}, "long": {"steps": 100}}}}
    with pytest.raises(ConfigError, match=r"`train\.steps` cannot vary with search: asha"):
        plan(config(sections, search="asha"))
    assert len(plan(config(sections))) == 2


def test_workers_of_one_trial_cannot_share_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"gpu_fraction=0\.5.*num_workers=2"):
        plan(config(LR, {"num_workers": 2}, gpu_fraction=0.5))
    assert len(plan(config(LR, {"num_workers": 2}))) == 2


def test_trials_that_measure_memory_do_not_share_a_process() -> None:
    with pytest.raises(ConfigError, match=r"cohort=2.*micro_batch_size=auto"):
        plan(config(LR, {"micro_batch_size": "auto"}, cohort=2))
    each, measured = config(LR), config(LR, {"micro_batch_size": "auto"})
    assert (size_of(each, 2, 1, 0.9), size_of(measured, 2, 1, 0.9)) == (2, 1)


def test_names_of_long_values_fit_into_a_folder_and_stay_apart() -> None:
    stages = [
        [{"from_step": 9 + step, "crop_px": 64, "batch_size": 8} for step in range(count)]
        for count in (8, 9)
    ]
    trials = plan(config({"train.progressive": {"grid": stages}}, repeats=2))
    names = [trial.name for trial in trials]
    assert len(set(names)) == 4
    assert max(len(name.encode()) for name in names) <= 255
    assert [trial.params["train.progressive"] for trial in trials[::2]] == stages
    assert trials[0].config.folder.name == names[0]
