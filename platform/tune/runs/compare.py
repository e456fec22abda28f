"""Several runs beside each other: their configs, curves and metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derain.config.explain import differences
from derain.errors import UsageError
from derain.pipelines.named.checkpoint_of import SWEEP
from derain.pipelines.train.metrics_file import read_metrics
from derain.pipelines.train.run_folder import RESULT
from derain.tune.runs.curves import CROPS, curves_of, thinned
from derain.tune.runs.run_state import config_or_none, read_or_none, read_run, steps_per_s
from derain.tune.runs.sweep_state import is_sweep, read_sweep

OF_NO_STEP = ("name", "output_dir", "profile", "sweep", "register")
"""Keys that say nothing about what a run trained; a trial has no `sweep`."""


def compare(runs: Sequence[tuple[Path, str]]) -> dict[str, Any]:
    """What `derainctl runs compare --json` prints for some runs, given by folder and name.

    `config`: the keys that differ, with one value for each run. `metrics`: one value for each run,
    None where it has none; `same_images`: whether those of a role can be compared. `curves` by
    quantity and run. A sweep stands for its best trial.
    """
    if len(runs) < 2:
        raise UsageError(f"Expected at least two runs to compare, found {len(runs)}.")
    chosen = [_run_of(folder, name) for folder, name in runs]
    names = [name for _, name in chosen]
    if len(set(names)) < len(names):
        names = [str(folder) for folder, _ in chosen]
    configs = [config_or_none(folder) for folder, _ in chosen]
    curves = [curves_of(folder) for folder, _ in chosen]
    trees = [{} if config is None else config.model_dump(mode="json") for config in configs]
    folders = [folder for folder, _ in chosen]
    same = {role: _same_images(folders, trees, role) for role in ("validation", "test")}
    notes = []
    if not same["validation"]:
        notes.append("Other validation images or another protocol: metrics cannot be compared.")
    shown = dict.fromkeys(key for each in curves for key in each)
    return {
        "runs": [
            {"name": name, "folder": folder, "state": read_run(folder, name).state}
            for (folder, _), name in zip(chosen, names, strict=True)
        ],
        "config": _config(trees),
        "metrics": _metrics(folders),
        "same_images": same,
        "curves": {
            key: {
                name: thinned(each[key])
                for name, each in zip(names, curves, strict=True)
                if key in each
            }
            for key in shown
        },
        "notes": notes,
    }


def _run_of(folder: Path, name: str) -> tuple[Path, str]:
    """The run itself; of a sweep the trial that it has chosen, or the best one so far."""
    if not is_sweep(folder):
        return folder, name
    entry, _ = read_sweep(folder, name)
    chosen = (read_or_none(folder / SWEEP) or {}).get("best")
    best = chosen or (entry.best or {}).get("trial")
    if best is None:
        raise UsageError(
            f"{name}: no trial of this sweep has been validated yet. Compare its trials by name, "
            f"such as {name}/TRIAL."
        )
    return folder / best, f"{name}/{best}"


def _config(trees: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The keys whose values differ between any two, each with its values in order."""
    first = {k: v for k, v in trees[0].items() if k not in OF_NO_STEP}
    pairs = [
        differences(first, {k: v for k, v in tree.items() if k not in OF_NO_STEP})
        for tree in trees[1:]
    ]
    keys = dict.fromkeys(key for pair in pairs for key in pair)
    return {
        key: [
            next(pair[key][0] for pair in pairs if key in pair),
            *(pair[key][1] if key in pair else _first_value(pairs, key) for pair in pairs),
        ]
        for key in keys
    }


def _first_value(pairs: Sequence[Mapping[str, tuple[Any, Any]]], key: str) -> Any:
    """The value of the first run, which one without a difference to it has too."""
    return next(pair[key][0] for pair in pairs if key in pair)


def _same_images(folders: Sequence[Path], trees: Sequence[Mapping[str, Any]], role: str) -> bool:
    """Whether the metrics of a role were measured on the same images by the same protocol.

    By the digests in the results; of runs without a result, by the values of their configs.
    """
    results = [read_or_none(folder / RESULT) for folder in folders]
    parts = [
        result and (result if role == "validation" else result.get("test")) for result in results
    ]
    if all(parts):
        return len({_measured_on(part) for part in parts if part}) == 1
    keys = ("train", "validation", "validation_share", "test", "choose_on_test")
    data = [tree.get("data") or {} for tree in trees]
    protocols = [tree.get("eval") for tree in trees]
    return all(
        protocol == protocols[0] and all(each.get(key) == data[0].get(key) for key in keys)
        for each, protocol in zip(data, protocols, strict=True)
    )


def _measured_on(part: Mapping[str, Any]) -> tuple[str, ...]:
    digests = (dataset["manifest_sha256"] for dataset in part["datasets"])
    return (part.get("protocol", ""), *digests)


def _metrics(folders: Sequence[Path]) -> dict[str, list[float | None]]:
    """Metrics by a label; those that no run has are left out."""
    columns = [_metrics_of(folder) for folder in folders]
    keys = dict.fromkeys(key for column in columns for key in column)
    return {key: [column.get(key) for column in columns] for key in keys}


def _metrics_of(folder: Path) -> dict[str, float]:
    """The metrics of a finished run from its result; of any other the latest that it has logged."""
    logged = read_metrics(folder)
    result = read_or_none(folder / RESULT)
    found: dict[str, float] = {}
    if result is not None:
        parts = {"validation": result["metrics"], "test": (result.get("test") or {}).get("metrics")}
        for role, metrics in parts.items():
            found |= {f"{role} {key}": value for key, value in (metrics or {}).items()}
    else:
        for step in sorted(logged):
            found |= {
                f"validation {key}": value
                for key, value in logged[step].items()
                if key.startswith(("psnr_", "ssim_"))
            }
    if logged:
        last = logged[max(logged)]
        found |= {CROPS: last[CROPS]} if CROPS in last else {}
        found |= {"steps": max(logged), "steps/s": steps_per_s(logged)}
    if result is not None and "seconds" in result:
        found["seconds"] = result["seconds"]
    return found
