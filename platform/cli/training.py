"""Commands that train: train, sweep."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli import complete
from derain.cli.options import ConfigFile, DryRun, Json, Price, Profile, Resume, Set
from derain.cli.printed import plans as output
from derain.cli.printed.results import Results
from derain.cli.printed.tables import aligned
from derain.errors import ConfigError, UsageError

log = logging.getLogger(__name__)


def train(
    config: ConfigFile,
    profile: Profile = None,
    overrides: Set = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    price: Price = None,
    as_json: Json = False,
) -> None:
    """Train one network."""
    results = Results(as_json)
    _check_price(price, dry_run)
    from derain.config import load_config, parse_overrides

    loaded = load_config(config, profile=profile, overrides=overrides or ())
    if resume is not None:
        from derain.pipelines.train.resume import config_to_resume

        loaded = config_to_resume(loaded, resume, parse_overrides(overrides or ()))
    if loaded.sweep is not None:
        log.warning(
            "train: the `sweep` section is ignored; one run is trained, with the values outside "
            "it. For the trials, type: %s", _as_sweep(config, profile, overrides or ()),
        )  # fmt: skip
    if dry_run:
        from derain.tune.dry_run import describe_run

        planned = describe_run(loaded, resumed=resume is not None, price_per_hour=price)
        _show_plan(results, planned, output.run_plan(planned, loaded.to_yaml()))
        return
    from derain.pipelines.register.after_training import with_registration
    from derain.pipelines.train import verb as train

    result = train.train(loaded) if resume is None else train.resume(loaded)
    result = with_registration(loaded, result)
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
    price: Price = None,
    as_json: Json = False,
) -> None:
    """Train all trials of a search space, rank them and register the best."""
    results = Results(as_json)
    _check_price(price, dry_run)
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
        if dry_run:
            result = describe_resumed(resume, loaded, output_dir, values, price)
        else:
            result = sweep.resume(resume, loaded, output_dir, values)
    elif loaded is None:
        raise UsageError("Give a config file such as configs/ldfps.yaml, or --resume NAME.")
    else:
        result = describe(loaded, price) if dry_run else sweep.sweep(loaded)
    if dry_run:
        resolved = Config.model_validate(result["config"]).to_yaml()
        _show_plan(results, result, output.plan_summary(result, resolved))
        return
    text = report.summary(result["report"]) + _page(result) + output.next_steps(result)
    results.show(result, aligned(text) if results.on_terminal else text)


def _page(result: Mapping[str, Any]) -> str:
    """The line that names the page of a run or a sweep in MLflow; "" if the store is away."""
    from derain.tracking.ui import page_of

    page = page_of(result["mlflow_run_id"])
    return f"\nMLflow: {page}" if page else ""


def _as_sweep(config: Path, profile: str | None, overrides: Sequence[str]) -> str:
    """The command that trains the trials of a config."""
    words = ["derainctl", "sweep", str(config), *(("--profile", profile) if profile else ())]
    return shlex.join([*words, *(word for value in overrides for word in ("--set", value))])


def _show_plan(results: Results, planned: Mapping[str, Any], text: str) -> None:
    """Print a plan; exit code 2 if anything would stop it."""
    results.show(planned, text)
    if planned["warnings"]:
        raise typer.Exit(UsageError.exit_code)


def _check_price(price: float | None, dry_run: bool) -> None:
    if price is not None and not dry_run:
        raise UsageError("--price-per-hour is for the plan: give it together with --dry-run.")
