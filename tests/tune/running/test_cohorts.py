"""Which trials may share batches and encoder in a cohort, and the size of a cohort."""

from typing import Any

import pytest

from derain.config import Config
from derain.tune.running.cohorts import LARGEST, LEAST_GAIN, cohort_key, gain, size_of

TREE: dict[str, Any] = {
    "name": "sweep",
    "model": {"name": "fclip_unet", "encoder_weights": "random"},
    "data": {"train": ["a"], "validation": ["b"]},
    "train": {"steps": 10},
    "loss": {"perceptual": "none"},
    "sweep": {"space": {"train.lr": {"grid": [1e-3]}}},
}


def config(**values: Any) -> Config:
    dotted = {key.replace("__", "."): value for key, value in values.items()}
    return Config.model_validate(TREE).replaced(dotted, "test")


@pytest.mark.parametrize(
    "values",
    [
        {"name": "other"},
        {"model__ldfps_sigma": [0.1, 0.1, 0.1, 0.1]},
        {"model__ldfps_sigma": None},
        {"model__ldfps_kind": "additive"},
        {"model__up": "bilinear"},
        {"train__lr": 1e-5, "train__betas": [0.9, 0.99], "train__ema_decay": 0.9},
        {"loss__pixel": "power", "loss__schedule": {"kind": "power_anneal", "start": 1.5}},
        {"loss__perceptual": "vgg19", "loss__lambda_p": 0.1},
        {"seed": 1, "data__seed": 0},
    ],
)
def test_trials_with_these_differences_share_a_cohort(values: dict[str, Any]) -> None:
    assert cohort_key(config(**values)) == cohort_key(config())


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1},
        {"data__seed": 1},
        {"data__augment": "none"},
        {"data__train": ["c"]},
        {"data__validation": ["c"]},
        {"train__batch_size": 8},
        {"train__crop_px": 64},
        {"train__progressive": [{"from_step": 5, "crop_px": 32, "batch_size": 4}]},
        {"train__precision": "bf16"},
        {"train__channels_last": False},
        {"model__encoder_seed": 1},
        {"model__encoder_width": 32},
        {"model__decoder_widths": [8, 8, 8, 8, 8]},
        {"eval__protocol": "five_set"},
    ],
)
def test_trials_with_these_differences_train_separately(values: dict[str, Any]) -> None:
    assert cohort_key(config(**values)) != cohort_key(config())


def test_another_network_trains_separately() -> None:
    other = Config.model_validate({**TREE, "model": {"name": "prenet"}})
    assert cohort_key(other) != cohort_key(config())


@pytest.mark.parametrize(
    ("trials", "at_once", "size"),
    [(4, 2, 2), (5, 2, 3), (12, 2, 3), (20, 2, 4), (4, 1, 4), (5, 1, 3), (2, 4, 1), (1, 1, 1)],
)
def test_every_process_gets_an_equal_share(trials: int, at_once: int, size: int) -> None:
    assert size_of(config(sweep__cohort="auto"), trials, at_once, 0.9) == size <= LARGEST


def test_the_size_can_be_set_and_cohorts_switched_off() -> None:
    assert size_of(config(sweep__cohort=7), 4, 2, 0.0) == 7
    assert size_of(config(sweep__cohort="off"), 4, 1, 0.9) == 1
    assert size_of(config(sweep__cohort=7, train__num_workers=2), 4, 1, 0.9) == 1
    assert size_of(config(sweep__cohort=7, train__compile=True), 4, 1, 0.9) == 1


@pytest.mark.parametrize("trials", [2, 4, 12])
def test_cohorts_are_for_sweeps_that_they_make_faster(trials: int) -> None:
    planned = config(sweep__cohort="auto")
    sizes = [size_of(planned, trials, 1, share) for share in (0.0, 0.02, 0.5, 0.9)]
    assert sizes[:2] == [1, 1]
    assert sizes[2] == sizes[3] > 1
    assert gain(sizes[2], 0.5) >= LEAST_GAIN


def test_the_gain_is_what_members_do_not_compute_again() -> None:
    assert gain(1, 0.5) == gain(4, 0.0) == 1
    assert gain(4, 1.0) == 4
    assert gain(2, 0.5) == pytest.approx(4 / 3)
