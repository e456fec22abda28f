"""Commands for runs as things: runs (show, compare, clean), watch, cache (clean)."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from derain.cli.options import Json
from derain.cli.printed import runs as output
from derain.cli.printed.results import Results
from derain.errors import UsageError

Dirs = Annotated[
    list[Path] | None,
    typer.Option("--dir", help="A folder with runs, an output_dir; repeatable. Default: runs."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option("--dir", help="The folder of caches. Default: DERAIN_CACHE_DIR, or the user's."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]
OnlyList = Annotated[bool, typer.Option("--dry-run", help="List what can go, and remove nothing.")]

LOOK_SHARE = 10.0
"""A look takes at most one part of so many of the time: thousands of trials take seconds."""

runs = typer.Typer(
    name="runs", invoke_without_command=True, help="List, show, compare and clean runs."
)
cache = typer.Typer(
    name="cache", invoke_without_command=True, help="List and clean the caches of pixels."
)


@runs.callback()
def list_runs(context: typer.Context, dirs: Dirs = None, as_json: Json = False) -> None:
    """List the runs and sweeps: state, step, best validation metric, time left."""
    context.obj = (dirs or [], as_json)
    if context.invoked_subcommand is not None:
        return
    results = Results(as_json)
    from derain.tune.runs.found import OUTPUT_FOLDER, check_places, list_all

    places = check_places(dirs or [])
    entries = list_all(places)
    if not entries:
        where = ", ".join(map(str, places)) or f"{OUTPUT_FOLDER}/ (no such folder here)"
        results.show({"runs": []}, f"no run in {where}; --dir names another folder")
        return
    results.show({"runs": [asdict(entry) for entry in entries]}, output.listed(entries))


@runs.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A run, a sweep or SWEEP/TRIAL; or its folder.")],
    dirs: Dirs = None,
    as_json: Json = False,
) -> None:
    """Show one run: config, commands, data, checkpoints, metrics, how to go on."""
    dirs, results = _common(context, dirs, as_json)
    from derain.tune.runs.found import check_places, find
    from derain.tune.runs.shown import show

    shown = show(*find(name, check_places(dirs)))
    results.show(shown, output.shown(shown))


@runs.command()
def compare(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(help="Two or more runs, sweeps or SWEEP/TRIAL.")],
    dirs: Dirs = None,
    as_json: Json = False,
) -> None:
    """Compare runs: what differs in their configs, curves, metrics."""
    dirs, results = _common(context, dirs, as_json)
    from derain.tune.runs.compare import compare
    from derain.tune.runs.found import check_places, find

    places = check_places(dirs)
    compared = compare([find(name, places) for name in names])
    results.show(compared, output.compared(compared))


@runs.command()
def clean(
    context: typer.Context,
    dirs: Dirs = None,
    yes: Yes = False,
    dry_run: OnlyList = False,
    as_json: Json = False,
) -> None:
    """Remove older checkpoints of finished runs, caches without a dataset, leftovers.

    The chosen, the best and the last checkpoint of a run stay. Exit code 1 if something cannot be
    removed.
    """
    dirs, results = _common(context, dirs, as_json)
    from derain.storage.node import cache_folder
    from derain.tune.runs.clean import removable
    from derain.tune.runs.found import check_places

    items = removable(check_places(dirs), cache_folder(None))
    _clean(results, items, yes=yes, dry_run=dry_run)


def watch(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Folders with runs. Default: runs."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between two looks.")] = 2.0,
    as_json: Json = False,
) -> None:
    """Show what runs and sweeps are doing, also those of other machines, until all have ended.

    Not on a terminal, and with --json, it looks once.
    """
    results = Results(as_json)
    from derain.tune.runs.found import check_places
    from derain.tune.runs.watch import look

    places = check_places(folders or [])
    now = look(places)
    if results.on_terminal and not as_json:
        with output.live() as show:
            while any(each.entry.state == "running" for each in now):
                began = time.monotonic()
                now = look(places)
                show(output.watched(now))
                time.sleep(max(every, LOOK_SHARE * (time.monotonic() - began)))
    results.show({"runs": [asdict(each) for each in now]}, output.watched(now))


@cache.callback()
def list_caches(context: typer.Context, folder: CacheDir = None, as_json: Json = False) -> None:
    """List the caches of decoded pixels: dataset, size, last use."""
    context.obj = (folder, as_json)
    if context.invoked_subcommand is not None:
        return
    results = Results(as_json)
    from derain.data.loading.caches import list_caches
    from derain.storage.node import cache_folder

    place = cache_folder(folder)
    found = list_caches(place)
    tree = {"folder": str(place), "caches": [asdict(item) for item in found]}
    results.show(tree, output.caches(place, found))


@cache.command("clean")
def clean_cache(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="All caches that no process uses; they are built again.")
    ] = False,
    folder: CacheDir = None,
    yes: Yes = False,
    dry_run: OnlyList = False,
    as_json: Json = False,
) -> None:
    """Remove caches whose dataset no longer exists, and what killed builders left.

    Exit code 1 if something cannot be removed.
    """
    above, above_json = context.obj
    results = Results(as_json or above_json)
    from derain.storage.node import cache_folder
    from derain.tune.runs.clean import removable_caches

    items = removable_caches(cache_folder(folder or above), everything=everything)
    _clean(results, items, yes=yes, dry_run=dry_run)


def _common(
    context: typer.Context, dirs: Sequence[Path] | None, as_json: bool
) -> tuple[list[Path], Results]:
    """The options of `runs` itself hold for its commands, too."""
    above_dirs, above_json = context.obj
    return [*(dirs or above_dirs)], Results(as_json or above_json)


def _clean(results: Results, items: Sequence[Any], *, yes: bool, dry_run: bool) -> None:
    """List what can go, ask, and remove it; exit code 1 if anything of it stays."""
    from derain.tune.runs.clean import remove

    listed: RenderableType = output.removable(items) if items else "nothing can go"
    gone: list[Any] = []
    if items and not dry_run and _agreed(listed, yes=yes):
        gone = remove(items)
        listed = output.removed(items, gone)
    elif items and not dry_run:
        listed = "nothing removed"
    freed = sum(item.bytes for item in gone)
    tree = {"items": [asdict(item) for item in items], "removed": [str(i.path) for i in gone]}
    results.show({**tree, "freed_bytes": freed}, listed)
    if gone and len(gone) < len(items):
        raise typer.Exit(1)


def _agreed(listed: RenderableType, *, yes: bool) -> bool:
    """Whether the user wants all this removed. Raises UsageError if nobody can be asked."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            "Nobody can be asked here, as stdin is no terminal: give --yes to remove, or --dry-run "
            "to list what can go."
        )
    output.to_stderr(listed)
    return typer.confirm("Remove all this?", err=True)
