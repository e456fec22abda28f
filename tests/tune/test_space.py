"""The plan of a sweep: every point once per repeat, named, validated, paired by seed."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from derain.config import Config
from derain.config.sweep import Dimension
from derain.errors import ConfigError
from derain.tune.space import draw_value, plan

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


def searched(space: dict[str, Any], **sweep: Any) -> Config:
    """A config whose space is given as in a file."""
    base = config({"train.lr": RATES})
    values = {"search": "random", "samples": 3, **sweep, "space": space}
    return base.replaced({"sweep": values}, "test")


def test_the_grid_is_every_combination_in_order() -> None:
    trials = plan(config({"train.lr": RATES, "train.batch_size": [2, 4]}))
    assert [trial.name for trial in trials] == ["slow,2", "slow,4", "fast,2", "fast,4"]
    values = [(trial.config.train.lr, trial.config.train.batch_size) for trial in trials]
    assert values == [(1e-4, 2), (1e-4, 4), (1e-2, 2), (1e-2, 4)]
    assert trials[1].params == {"train.lr": 1e-4, "train.batch_size": 4}


def test_a_loss_schedule_is_one_value() -> None:
    anneal, adaptive = {"kind": "power_anneal", "end": 0.8}, {"kind": "progress_adaptive"}
    grid = {"anneal": anneal, "adaptive": adaptive}
    trials = plan(config({"loss.schedule": grid, "loss.pixel": ["power"]}))
    found = [trial.config.loss.schedule for trial in trials]
    assert [(schedule.kind, schedule.end) for schedule in found if schedule] == [
        ("power_anneal", 0.8),
        ("progress_adaptive", 1.0),
    ]


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


def test_values_without_a_name_are_named_by_their_json() -> None:
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
def test_an_invalid_point_is_reported_before_anything_runs(
    space: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        plan(config(space))


def test_two_trials_with_the_same_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="a-b"):
        plan(config({"train.lr": {"a b": 0.1, "a/b": 0.2}}))


def test_a_config_without_a_sweep_is_refused() -> None:
    single = config({"train.lr": RATES}).replaced({"sweep": None}, "test")
    with pytest.raises(ConfigError, match="no `sweep` section"):
        plan(single)


MIXED = {
    "model.ldfps_sigma": {"grid": {"flat": [0.05] * 4, "rising": [0.01, 0.03, 0.06, 0.1]}},
    "train.lr": {"loguniform": [1e-4, 1e-2]},
    "train.batch_size": {"integers": [2, 4]},
    "loss.pixel": {"choice": ["l1", "mse"]},
}


def test_drawn_values_are_crossed_with_the_grid() -> None:
    trials = plan(searched(MIXED))
    assert [trial.name for trial in trials] == [
        "flat,s000", "rising,s000", "flat,s001", "rising,s001", "flat,s002", "rising,s002",
    ]  # fmt: skip
    for first, second in zip(trials[::2], trials[1::2], strict=True):
        others = {key: value for key, value in first.params.items() if "sigma" not in key}
        assert others.items() <= second.params.items()
        assert 1e-4 <= first.config.train.lr <= 1e-2
        assert first.config.train.batch_size in (2, 3, 4)
    assert len({trial.config.train.lr for trial in trials}) == 3


def test_more_samples_do_not_change_the_earlier_ones() -> None:
    few, many = (plan(searched(MIXED, samples=count)) for count in (2, 5))
    assert [(t.name, t.params) for t in many[:4]] == [(t.name, t.params) for t in few]
    other = searched(MIXED).replaced({"seed": 6}, "test")
    assert plan(other)[0].params["train.lr"] != few[0].params["train.lr"]


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ({"uniform": [2.0, 6.0]}, stats.uniform(2, 4).cdf),
        ({"loguniform": [1e-4, 1e-1]}, stats.loguniform(1e-4, 1e-1).cdf),
    ],
)
def test_values_follow_the_named_distribution(dimension: dict, expected: Any) -> None:
    rng = np.random.default_rng(1)
    values = [draw_value(Dimension(**dimension), rng)[1] for _ in range(500)]
    assert stats.kstest(values, expected).pvalue > 0.01


def test_a_range_may_start_at_0_next_to_a_logarithmic_one() -> None:
    space = {"train.lr": {"loguniform": [1e-4, 1e-2]}, "loss.lambda_c": {"uniform": [0, 1]}}
    space |= {"train.warmup_steps": {"integers": [0, 2]}}
    for trial in plan(searched(space)):
        assert 0 <= trial.config.loss.lambda_c <= 1
        assert trial.config.train.warmup_steps in (0, 1, 2)


def test_both_ends_of_integers_are_drawn() -> None:
    rng = np.random.default_rng(1)
    values = [draw_value(Dimension(integers=(2, 4)), rng)[1] for _ in range(300)]
    assert sorted(set(values)) == [2, 3, 4]
    assert min(values.count(each) for each in (2, 3, 4)) > 70


SCHEDULES = {
    "loss.pixel": {"grid": ["mse", "power"]},
    "loss.schedule": {
        "grid": {"anneal": {"kind": "power_anneal"}},
        "when": {"loss.pixel": "power"},
    },
    "loss.schedule.end": {"grid": [1.0, 0.5], "when": {"loss.schedule": "anneal"}},
}


def test_a_key_is_active_only_if_its_condition_holds() -> None:
    trials = plan(searched(SCHEDULES, search="grid", samples=None))
    assert [trial.name for trial in trials] == ["mse", "power,anneal,1.0", "power,anneal,0.5"]
    assert trials[0].config.loss.schedule is None
    assert [t.config.loss.schedule.end for t in trials[1:]] == [1.0, 0.5]


def test_a_condition_may_name_several_values_and_values_that_are_lists() -> None:
    levels = [[0.1] * 4, [0.2] * 4]
    space = {
        "model.ldfps_sigma": {"grid": [None, *levels]},
        "train.lr": {"grid": [1e-3, 1e-2], "when": {"model.ldfps_sigma": levels}},
        "train.batch_size": {"grid": [2, 4], "when": {"model.ldfps_sigma": levels[0]}},
    }
    trials = plan(searched(space, search="grid", samples=None))
    assert [len(trial.params) for trial in trials] == [1, 3, 3, 3, 3, 2, 2]


def test_one_level_of_a_list_can_vary() -> None:
    space = {"model.ldfps_sigma.3": {"uniform": [0.05, 0.15]}}
    for trial in plan(searched(space)):
        *others, last = trial.config.model.ldfps_sigma
        assert others == [0.01, 0.03, 0.06]
        assert last == trial.params["model.ldfps_sigma.3"]


@pytest.mark.parametrize(
    ("space", "named"),
    [
        ({"train.lrr": {"uniform": [0.1, 0.2]}}, r"train\.lrr at 0\.1.*nearest.*`train\.lr`"),
        ({"train.lr": {"uniform": [-0.1, 0.2]}}, r"train\.lr at -0\.1.*greater than 0"),
        ({"train.batch_size": {"uniform": [1.5, 4]}}, r"batch_size at 1\.5.*integer"),
        ({"train.lr": {"uniform": [0.2, 0.1]}}, "expected low < high"),
        ({"train.lr": {"loguniform": [0, 0.1]}}, "above 0"),
        ({"train.lr": {"uniform": [0.1, 0.2], "choice": [1]}}, "expected one of grid"),
        ({"train.lr": {}}, "expected one of grid"),
        ({"train.lr": {"unifrm": [0.1, 0.2]}}, "unknown key `sweep.space.train.lr.unifrm`"),
        ({"train.lr": {"choice": []}}, "expected a list of values"),
        ({"train.lr": {"choice": [1e-3, 1e-2, 1e-3]}}, "choice lists a value twice: .0.001, 0.01"),
        ({"loss.pixel": {"choice": ["l1", "mse", "l3"]}}, "loss.pixel at \"l3\".*'l3'"),
        (
            {
                "loss.pixel": {"choice": ["l1", "power"]},
                "loss.schedule.kind": {
                    "choice": {"right": "constant", "wrong": "nonsense"},
                    "when": {"loss.pixel": "power"},
                },
            },
            "loss.schedule.kind at wrong.*nonsense",
        ),
        ({}, "at least 1"),
        ({"seed": {"choice": [1, 2]}}, "is the same for all trials"),
        ({"data.synthetic.density": {"choice": ["light"]}}, "is the same for all trials"),
        ({"model.ldfps_sigma.7": {"uniform": [0.1, 0.2]}}, "index from 0 to 3"),
        ({"train.lr.deep": {"uniform": [0.1, 0.2]}}, "train.lr`: expected a valid number"),
        (
            {
                "loss.pixel": {"choice": ["l1", "mse"]},
                "train.lr": {"uniform": [0.1, 0.2], "when": {"loss.pxel": "l1"}},
            },
            "`loss.pxel` is not a key of the space.*Did you mean `loss.pixel`",
        ),
        (
            {
                "loss.pixel": {"choice": ["l1", "mse"]},
                "train.lr": {"uniform": [0.1, 0.2], "when": {"loss.pixel": "l2"}},
            },
            "is never 'l2'.*l1.*mse",
        ),
        (
            {
                "loss.pixel": {"choice": ["l1", "mse"], "when": {"loss.lambda_p": 0.0}},
                "loss.lambda_p": {"choice": [0.0, 1.0], "when": {"loss.pixel": "l1"}},
            },
            "circular",
        ),
    ],
)
def test_an_invalid_space_is_one_message(space: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as raised:
        plan(searched(space))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("sweep", "named"),
    [
        ({"search": "grid"}, "grid draws nothing"),
        ({"samples": None}, "give sweep.samples"),
        (
            {"search": "tpe", "space": {"train.lr": {"grid": [1, 2]}}},
            "make space.train.lr a choice",
        ),
        (
            {"search": "asha", "space": {"train.lr": {"grid": [1, 2]}}},
            "needs a key whose values are drawn",
        ),
        ({"search": "pbt", "repeats": 2}, "no repeats"),
    ],
)
def test_a_search_algorithm_that_does_not_fit_the_space_is_refused(
    sweep: dict[str, Any], named: str
) -> None:
    space = sweep.pop("space", {"train.lr": {"uniform": [0.1, 0.2]}})
    with pytest.raises(ConfigError, match=named):
        searched(space, **sweep)


def test_the_ends_of_a_range_are_in_it() -> None:
    edge = math.nextafter(1e-3, 1)
    rng = np.random.default_rng(0)
    values = [draw_value(Dimension(loguniform=(1e-3, edge)), rng)[1] for _ in range(50)]
    assert set(values) <= {1e-3, edge}
