"""Commands that train: train, sweep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli import complete, output
from derain.cli.options import ConfigFile, DryRun, Json, Profile, Resume, Set
from derain.cli.output import Results
from derain.errors import ConfigError, UsageError


def train(
    config: ConfigFile,
    profile: Profile = None,
    overrides: Set = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train one network."""
    results = Results(as_json)
    from derain.config import load_config, parse_overrides

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    if resume is not None:
        from derain.pipelines.train.resume import config_to_resume

        loaded = config_to_resume(loaded, resume, parse_overrides(overrides or ()))
    if dry_run:
        from derain.pipelines.train.checks import describe_checked

        planned = describe_checked(loaded)
        results.show(planned, output.network_summary(planned["network"]) + loaded.to_yaml())
        return
    from derain.pipelines.train import verb as train

    result = train.train(loaded) if resume is None else train.resume(loaded)
    results.show(result, output.run_summary(result) + _page(result))


def sweep(
    config: Annotated[
        Path | None,
        typer.Argument(
            help="A YAML file, or the name of a shipped config; optional with --resume.",
            autocompletion=complete.configs,
        ),
    ] = None,
    profile: Profile = None,
    overrides: Set = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train all trials of a search space, rank them and register the best."""
    results = Results(as_json)
    from derain.config import Config, load_config, parse_overrides

    loaded = load_config(config, profile=profile, overrides=overrides or ()) if config else None
    if loaded and loaded.sweep is None:
        raise ConfigError(
            f"{config}: there is no `sweep` section. Add one, or use `derainctl train`."
        )
    from derain.tune import sweep
    from derain.tune.dry_run import describe, describe_resumed
    from derain.tune.report import report

    if resume is not None:
        if profile and loaded is None:
            raise UsageError(
                "--profile selects a profile of a config file; give that file as well."
            )
        values = parse_overrides(overrides or ())
        output_dir = loaded.output_dir if loaded else values.get("output_dir", "runs")
        resume_sweep = describe_resumed if dry_run else sweep.resume
        result = resume_sweep(resume, loaded, output_dir, values)
    elif loaded is None:
        raise UsageError("Give a config file such as configs/ldfps.yaml, or --resume NAME.")
    else:
        result = describe(loaded) if dry_run else sweep.sweep(loaded)
    if dry_run:
        resolved = Config.model_validate(result["config"]).to_yaml()
        results.show(result, output.plan_summary(result, resolved))
        return
    results.show(
        result, report.summary(result["report"]) + _page(result) + output.next_steps(result)
    )


def _page(result: Mapping[str, Any]) -> str:
    """The line that names the page of a run or a sweep in MLflow; "" if the store is away."""
    from derain.tracking.ui import page_of

    page = page_of(result["mlflow_run_id"])
    return f"\nMLflow: {page}" if page else ""
