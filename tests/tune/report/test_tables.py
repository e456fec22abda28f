"""The tables of a report: published values beside ours, spread over seeds, and the CSV files."""

import csv
from pathlib import Path
from typing import Any

import pytest

from derain.config import Config
from derain.tune.report import compare
from derain.tune.report.published import Published
from derain.tune.report.tables import (
    BY_IMAGE,
    Difference,
    point_table,
    trial_table,
    write_points,
    write_trials,
)

PUBLISHED = {
    "source": "Table 8",
    "psnr_y": {"plain": 30.63, "ldfps": 30.5},
    "ssim_y": {"plain": 0.892},
}
SIGMA = {"grid": {"plain": None, "ldfps": [0.1, 0.1, 0.1, 0.1]}}


def config(**values: Any) -> Config:
    tree = {
        "name": "search",
        "model": {"name": "fclip_unet", "encoder_weights": "random"},
        "train": {"steps": 3},
        "sweep": {"space": {"model.ldfps_sigma": SIGMA}, "reference": PUBLISHED},
    }
    return Config.model_validate(tree).replaced(values, "test")


def trial(point: str, psnr: float, seed: int = 0, **values: Any) -> dict[str, Any]:
    return {
        "name": f"{point},seed={seed}",
        "point": point,
        "status": "finished",
        "params": {},
        "seed": seed,
        "steps": 3,
        "metrics": {"psnr_y": psnr, "ssim_y": 0.91},
        "input": {"psnr_y": 30.0, "ssim_y": 0.9},
        "costs": {},
        "seconds": 90.0,
        **values,
    }


def published(metric: str = "psnr_y", *, comparable: bool = True) -> Published:
    reference = config().sweep.reference  # type: ignore[union-attr]
    assert reference is not None
    return Published(reference, metric, ("plain", "ldfps"), comparable)


def test_every_repeat_has_the_published_values() -> None:
    rows = [trial("plain", 31.23456), trial("plain", 31.0, 1), trial("ldfps", 29.0)]
    header, first, again, last = trial_table(config(), rows, [], {}, published())
    assert header[-3:] == ["published PSNR (dB)", "difference (dB)", "published SSIM"]
    name = "plain,seed=0"
    assert first == [name, "31.235", "0.9100", "+1.235", "1.5", "30.63", "+0.60", "0.892"]
    assert again[-3:] == ["30.63", "+0.37", "0.892"]
    assert last[-3:] == ["30.50", "-1.50", ""]


def test_what_is_not_comparable_is_not_subtracted() -> None:
    """The best of three that finished has no published value; ours are the reverse of the table."""
    rows = [trial("new", 33.0), trial("ldfps", 31.0), trial("plain", 29.0)]
    order = Published(published().reference, "psnr_y", ("new", "ldfps", "plain"), False)
    header, *cells = trial_table(config(), rows, [], {}, order)
    assert header[-4:] == ["our rank", "published rank", "published PSNR (dB)", "published SSIM"]
    assert [row[-4:] for row in cells] == [
        ["", "", "", ""],
        ["1", "2", "30.50", ""],
        ["2", "1", "30.63", "0.892"],
    ]


def test_a_trial_is_compared_with_the_best_image_by_image() -> None:
    rows = [trial("plain", 31.0), trial("ldfps", 29.0)]
    found = {"ldfps,seed=0": Difference(2.0, 1.5, 2.5)}
    header, first, second = trial_table(config(), rows, [], found, None)
    assert header[-1] == BY_IMAGE
    assert (first[-1], second[-1]) == ("", "+2.000 [+1.500, +2.500]")


def test_without_a_reference_there_are_no_published_columns() -> None:
    table = trial_table(config(), [trial("plain", 30.0)], [], {}, None)
    assert {len(row) for row in table} == {5}


def test_drawn_values_are_in_the_table_by_name() -> None:
    space = {
        "train.lr": {"uniform": [0.1, 0.5]},
        "loss.schedule": {"choice": {"mix": {"kind": "convex_mix", "start": 3.0}}},
        "loss.lambda_p": {"integers": [1, 3], "when": {"loss.schedule": "mix"}},
    }
    planned = config(**{"sweep.space": space, "sweep.search": "random", "sweep.samples": 2})
    params = {"train.lr": 0.31234, "loss.schedule": {"kind": "convex_mix", "start": 3.0}}
    header, first = trial_table(planned, [trial("s000", 30.0, params=params)], [], {}, None)
    assert header[1:4] == ["train.lr", "loss.schedule", "loss.lambda_p"]
    assert first[1:4] == ["0.312", "mix", ""]


def test_costs_and_the_steps_of_stopped_trials_have_columns() -> None:
    best = trial("plain", 31.0, costs={"parameters": 1e6})
    stopped = trial("ldfps", 30.0, status="stopped", steps=2, input=None, seconds=None)
    del stopped["costs"]
    header, first, second = trial_table(config(), [best], [stopped], {}, published())
    assert (header[1], first[1], second[1]) == ("steps", "3", "2")
    assert (header[6], first[6], second[6]) == ("parameters", "1,000,000", "")
    assert (first[-3], second[-3:]) == ("30.63", ["", "", ""])


@pytest.mark.parametrize(
    ("others", "verdict"),
    [((29.0, 30.9), ""), ((29.9, 30.1), "not significantly different (95 %)")],
)
def test_points_have_a_spread_and_a_paired_difference(
    others: tuple[float, float], verdict: str
) -> None:
    rows = [trial("plain", 30.0, 0), trial("plain", 32.0, 1)]
    rows += [trial("ldfps", psnr, seed) for seed, psnr in enumerate(others)]
    points = compare.standings(compare.ranked(rows, "psnr_y", {}), "psnr_y")
    header, best, other = point_table(config(), points, published())
    assert header[2] == "PSNR-Y (dB), mean ± sd"
    assert best == ["plain", "2", "31.000 ± 1.414", "", "best", "30.63", "+0.37", "0.892"]
    found = points[1]["difference"]
    assert other[3] == f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    assert other[4] == verdict


def test_a_point_of_one_repeat_has_neither_spread_nor_verdict() -> None:
    rows = [trial("plain", 30.0, 0), trial("plain", 32.0, 1), trial("ldfps", 29.0)]
    points = compare.standings(rows, "ssim_y")
    changed = config(**{"sweep.metric": "ssim_y"})
    header, _, other = point_table(changed, points, published("ssim_y"))
    assert header[-2:] == ["published SSIM", "difference"]
    assert other[:5] == ["ldfps", "1", "0.9100", "", "fewer than two shared seeds"]


def test_the_csv_has_every_trial_with_its_values_and_costs(tmp_path: Path) -> None:
    params = {"loss.pixel": "l1", "train.lr": 0.1, "model.ldfps_sigma": [0.1]}
    nothing = {"metrics": None, "input": None, "seconds": None, "error": "not finite"}
    broken = trial("broken", 0.0, status="failed", **nothing)
    del broken["costs"], broken["steps"]
    plain = trial("plain", 31.2, params=params, costs={"seconds": 7.5})
    rows = [{**plain, "mlflow_run_id": "run of plain"}, broken]
    write_trials(rows, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["psnr_y"], first["input_psnr_y"], first["cost_seconds"]) == (
        "31.2",
        "30.0",
        "7.5",
    )
    assert (first["loss.pixel"], first["train.lr"]) == ("l1", "0.1")
    assert (first["model.ldfps_sigma"], second["model.ldfps_sigma"]) == ("[0.1]", "")
    assert (second["status"], second["psnr_y"], second["cost_seconds"]) == ("failed", "", "")
    assert second["error"] == "not finite"
    assert (first["mlflow_run_id"], second["mlflow_run_id"]) == ("run of plain", "")


def test_the_csv_of_points_has_their_intervals(tmp_path: Path) -> None:
    rows = [trial("plain", psnr, seed) for seed, psnr in enumerate((30.0, 32.0))]
    rows += [trial("ldfps", psnr, seed) for seed, psnr in enumerate((29.0, 30.9))]
    points = compare.standings(rows, "psnr_y")
    write_points(points, tmp_path / "points.csv")
    with (tmp_path / "points.csv").open(newline="") as file:
        best, other = csv.DictReader(file)
    assert (best["mean"], best["difference"], best["told_apart"]) == ("31.0", "", "")
    assert float(other["low"]) == points[1]["difference"]["low"]
    assert other["told_apart"] == "True"
