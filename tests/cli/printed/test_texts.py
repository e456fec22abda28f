"""The texts and tables that commands print."""

from derain.cli.printed.plans import plan_summary, run_summary
from derain.cli.printed.results import plain
from derain.cli.printed.scores import matches, scores
from derain.cli.printed.tables import aligned
from derain.cli.printed.versions import versions


def test_columns_are_aligned_and_lines_have_no_trailing_spaces() -> None:
    rows = [
        {"name": "a", "version": 10, "aliases": ("champion",), "tags": {"psnr_y": "31.234567"}},
        {"name": "longer", "version": 2, "aliases": (), "tags": {"profile": "demo"}},
    ]
    assert plain(versions(rows)).splitlines() == [
        "model   version  aliases   PSNR    trained with",
        "a       10       champion  31.234",
        "longer  2                          demo",
    ]


def test_counts_are_under_their_prompts() -> None:
    found = {"prompts": ["light rain", "heavy rain"], "counts": {"light": [3, 1], "heavy": [0, 4]}}
    assert plain(matches(found, "density")).splitlines() == [
        "density  light rain  heavy rain",
        "light    3           1",
        "heavy    0           4",
    ]


def test_a_plan_lists_obstacles_and_finished_trials() -> None:
    trials = [("low", {"lr": 1}, "finished"), ("high", None, "planned")]
    planned = {
        "name": "search",
        "profile": "demo",
        "estimate": {
            "seconds": 90.0,
            "steps": 4000,
            "gpu_hours": 0.5,
            "disk_bytes": 2**30,
            "cost": 1.5,
            "memory_bytes": 2**31,
            "cache_bytes": 2**29,
            "free_bytes": 40 * 2**30,
        },
        "trials": [dict(zip(("name", "params", "state"), trial, strict=True)) for trial in trials],
        "warnings": ["no data"],
    }
    assert plan_summary(planned, "config").splitlines() == [
        "search, profile demo: 2 trials, 4,000 steps, about 2 min, 0.5 GPU-hours, cost 1.50",
        "2.0 GiB of memory in each process, 1.0 GiB of checkpoints, 512.0 MiB of pixel caches to "
        "build, 40.0 GiB free on the disk",
        "Would stop: no data",
        "  low: {'lr': 1} (finished)",
        "  high: depends on the results of earlier trials",
        "",
        "config",
    ]


def test_what_an_evaluation_left_out_is_below_its_table() -> None:
    means = {"metrics": {"psnr_y": 30.0, "ssim_y": 0.9}, "input": {"psnr_y": 20.0, "ssim_y": 0.8}}
    item = {"name": "a/test", "pictures": 3, "by_protocol": {"rain13k": means}}
    left_out = [
        {"dataset": "a/test", "key": "strip", "reason": "48x10 px"},
        {"dataset": "b/test", "key": None, "reason": "damaged"},
    ]
    cost = {"images": 3, "seconds": 2.0, "images_per_s": 1.5, "workers": 1}
    result = {"datasets": [item], "cost": {**cost, "peak_memory_bytes": 2**30}}
    lines = plain(scores({**result, "left_out": left_out})).splitlines()
    assert lines[1].split() == ["a/test", "3", "rain13k", "30.000", "0.9000", "20.000", "0.8000"]
    assert lines[2:] == [
        "left out, and in no mean: a/test, strip: 48x10 px",
        "left out, and in no mean: b/test: damaged",
        "3 images in 2.0 s, 1.5 images/s; 1 process, 1.00 GiB in the largest",
    ]
    assert "left out" not in plain(scores({**result, "left_out": []}))
    done_before = {**result, "left_out": [], "cost": {**result["cost"], "images": 0}}
    assert plain(scores(done_before)).endswith("all images were scored before")


def test_a_run_is_summarised_in_lines_that_fit_a_terminal() -> None:
    sides = {"metrics": {"psnr_y": 30.0, "ssim_y": 0.9}, "input": {"psnr_y": 20.0, "ssim_y": 0.8}}
    registered = {"name": "net", "version": 1, "alias": "champion"}
    test = {**sides, "chosen_on_test": False}
    run = {"run": "net", "test": test, "registered": registered, "checkpoint": "runs/net/step-4"}
    assert run_summary({**sides, **run}).splitlines() == [
        "net: validation PSNR-Y 30.000 dB (rainy input 20.000 dB), SSIM-Y 0.9000",
        "  test PSNR-Y 30.000 dB (rainy input 20.000 dB), SSIM-Y 0.9000",
        "  registered as net version 1 (champion)",
        "  checkpoint runs/net/step-4",
    ]


def test_a_reports_table_has_the_columns_that_fit_a_terminal_and_names_the_others() -> None:
    report = "# Sweep\n\n| trial | gain over input (dB) | rank |\n| --- | ---: | ---: |\n"
    report += "| high | +1.5 [-0.1, +0.2] | 1 |\n\n- A note."
    assert plain(aligned(report), 24).splitlines() == [
        "# Sweep",
        "",
        "       gain over input",
        "trial  (dB)",
        "high   +1.5 [-0.1, +0.2]",
        "(in the report: rank)",
        "",
        "- A note.",
    ]
    wide = plain(aligned(report), 80).splitlines()
    assert wide[2:4] == ["trial  gain over input (dB)  rank", "high   +1.5 [-0.1, +0.2]     1"]
