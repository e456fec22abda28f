"""What `models` prints."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from derain.cli.printed.tables import new_table
from derain.evaluation.metric_names import title


def versions(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The registered model versions, a row for each."""
    table = new_table("model", "version", "aliases", "PSNR", "trained with")
    for row in rows:
        tags = row["tags"]
        table.add_row(
            row["name"],
            str(row["version"]),
            ", ".join(row["aliases"]),
            next((tags[key] for key in ("psnr_y", "psnr_rgb") if key in tags), "")[:6],
            tags.get("profile", ""),
        )
    return table


def version(found: Mapping[str, Any]) -> RenderableType:
    """All that the registry has of one version."""
    table = new_table("", "")
    table.show_header = False
    made = datetime.fromtimestamp(found["created_ms"] / 1000).isoformat(" ", "minutes")
    facts = {
        "aliases": ", ".join(found["aliases"]), "registered": made, "MLflow run": found["run_id"],
        **{f"{role} images": names for role, names in found["datasets"].items()},
    }  # fmt: skip
    for head, text in {**facts, **dict(sorted(found["tags"].items(), key=_digests_last))}.items():
        table.add_row(head, text or "")
    return Group(f"{found['name']} version {found['version']}", table)


def _digests_last(tag: tuple[str, str]) -> tuple[bool, str]:
    name, _ = tag
    return name.endswith("sha256") or name in ("git_commit", "logged_model_id"), name


def versions_compared(compared: Mapping[str, Any]) -> RenderableType:
    """Two versions side by side: metrics that can be compared, data, config."""
    heads = [f"{item['name']}/{item['version']}" for item in compared["versions"]]
    table = new_table("", *heads)
    notes = []
    for role in ("metrics", "test"):
        name = "validation" if role == "metrics" else role
        if compared[role] is None:
            notes.append(
                f"{name}: not compared, as the images or the protocol differ or are unknown"
            )
        for key, values in (compared[role] or {}).items():
            table.add_row(f"{title(key)}, {name}", *map(_four_digits, values))
    for key, values in {**compared["data"], **(compared["config"] or {})}.items():
        table.add_row(key, *("-" if value is None else str(value) for value in values))
    if compared["config"] is None:
        notes.append("config: not compared, as one version has none")
    return Group(table, *notes)


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
