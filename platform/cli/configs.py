"""Commands about configs: init, config."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from derain.cli import complete
from derain.cli.options import Json, Profile, Set
from derain.cli.printed.results import Results
from derain.errors import UsageError


def init(
    name: Annotated[
        str,
        typer.Argument(
            help="A network such as restormer, another shipped config such as ldfps, or "
            "module:Class for a network of your own.",
            autocompletion=complete.configs,
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    as_json: Json = False,
) -> None:
    """Write a commented config to start from."""
    results = Results(as_json)
    from derain.config import load_config
    from derain.pipelines.starter import write_starter

    path, *others = write_starter(name, folder)
    verb = "sweep" if load_config(path).sweep else "train"
    train, show = f"derainctl {verb} {path} --profile smoke", f"derainctl config {path}"
    lines = [
        f"wrote {path} ({', '.join(item.name for item in others)} beside it)",
        f"Next: {train}   # ten steps on rendered rain",
        f"      {show:{len(train)}}   # every value and where it comes from",
    ]
    results.show({"config": str(path), "written": [str(path), *map(str, others)]}, "\n".join(lines))


def config(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY | CONFIG | diff A B]",
            help="A key such as train.lr, to explain it and those below; a config, to resolve it; "
            "or two to compare: configs, runs, checkpoints, model versions. Default: all keys.",
        ),
    ] = None,
    profile: Profile = None,
    overrides: Set = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of config files, for editors.")
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference of all keys as Markdown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Explain config keys, or show where the values of a config come from."""
    results = Results(as_json)
    from derain.config import reference

    if schema:
        results.show(reference.file_schema(), json.dumps(reference.file_schema(), indent=2))
    elif markdown:
        results.show({"markdown": reference.markdown()}, reference.markdown().rstrip())
    elif what and what[0] == "diff":
        _show_differences(results, what[1:])
    elif what and len(what) > 1:
        raise UsageError(f"Expected one key or one config, found {' '.join(what)}.")
    elif what and not _is_key(what[0]):
        _show_resolved(results, what[0], profile, overrides or ())
    else:
        _explain(results, what[0] if what else "")


def _is_key(text: str) -> bool:
    from derain.config import reference

    heads = {key.name.split(".")[0] for key in reference.all_keys()}
    return text.split(".")[0] in heads and not text.endswith((".yaml", ".yml"))


def _explain(results: Results, name: str) -> None:
    from derain.config import reference

    found = [
        key for key in reference.all_keys() if key.name.startswith(f"{name}.") or key.name == name
    ]
    if not name:
        found = reference.all_keys()
    if not found:
        raise UsageError(
            f"There is no config key {name}.{reference.nearest(name)} `derainctl config` lists all."
        )
    results.show({"keys": [vars(key) for key in found]}, "\n".join(map(reference.text, found)))


def _show_resolved(results: Results, path: str, profile: str | None, overrides: Any) -> None:
    from derain.config.explain import explained, with_origins

    resolved, origins = explained(path, profile=profile, overrides=overrides)
    tree = {"config": resolved.model_dump(mode="json"), "origins": origins}
    results.show(tree, with_origins(resolved, origins).rstrip())


def _show_differences(results: Results, pair: list[str]) -> None:
    if len(pair) != 2:
        raise UsageError(f"`config diff` compares two, found {len(pair)}: {' '.join(pair)}.")
    from derain.config.explain import differences
    from derain.pipelines.named.config_of import config_of

    one, other = (config_of(item).model_dump(mode="json") for item in pair)
    found = differences(one, other)
    lines = [f"{key}: {json.dumps(a)} -> {json.dumps(b)}" for key, (a, b) in found.items()]
    changed = {key: {"a": a, "b": b} for key, (a, b) in found.items()}
    results.show(
        {"a": pair[0], "b": pair[1], "changed": changed}, "\n".join(lines) or "no difference"
    )
