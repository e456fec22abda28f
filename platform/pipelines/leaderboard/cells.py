"""The leaderboard as texts for people: titles of its columns, the cells of a row, its groups."""

from collections.abc import Mapping
from typing import Any

HEADS = (
    *("rank", "model", "aliases", "role", "PSNR", "SSIM", "input PSNR", "params", "MACs"),
    *("training", "trained on", "leaks"),
)
DIGEST = 8
"""Characters of a digest that are shown."""


def heading(group: Mapping[str, Any]) -> str:
    """What the rows of a group have in common."""
    names = ", ".join(group["datasets"]) or "images that its runs no longer name"
    protocol = group["protocol"] or "not recorded"
    return f"{names} ({group['sha256'][:DIGEST] or 'no digest'}), protocol {protocol}"


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as texts under `HEADS`; empty where nothing was recorded."""
    psnr, ssim = _two(row["metrics"])
    return [
        str(row["rank"]),
        f"{row['name']}/{row['version']}",
        ", ".join(row["aliases"]),
        row["role"],
        psnr,
        ssim,
        _two(row["input"])[0],
        _parameters(row),
        "" if row["macs"] is None else f"{row['macs'] / 1e9:.2f} G",
        _training_time(row),
        _trained_on(row),
        leak_text(row["leaks"]),
    ]


def leak_text(leaks: Mapping[str, Any]) -> str:
    """`none`, `12 of 100 images`, or `not checked`."""
    if leaks["leaked"] is None:
        return "not checked"
    return f"{leaks['leaked']} of {leaks['images']} images" if leaks["leaked"] else "none"


def unchecked(group: Mapping[str, Any]) -> list[str]:
    """Why versions of a group were not checked for leaks, a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for row in group["rows"]:
        if row["leaks"]["leaked"] is None:
            named = f"{row['name']}/{row['version']}"
            by_reason.setdefault(row["leaks"]["reason"], []).append(named)
    return [
        f"leaks not checked of {', '.join(names)}: {reason}" for reason, names in by_reason.items()
    ]


def _two(metrics: Mapping[str, float]) -> tuple[str, str]:
    """PSNR and SSIM as texts."""
    values = {name.partition("_")[0]: value for name, value in metrics.items()}
    psnr, ssim = values.get("psnr"), values.get("ssim")
    return "" if psnr is None else f"{psnr:.3f}", "" if ssim is None else f"{ssim:.4f}"


def _parameters(row: Mapping[str, Any]) -> str:
    """All parameters, frozen ones too, in millions."""
    if row["trained_parameters"] is None:
        return ""
    return f"{(row['trained_parameters'] + row['frozen_parameters']) / 1e6:.3f} M"


def _training_time(row: Mapping[str, Any]) -> str:
    """Such as `1:05 h` or `3:20 min`."""
    if row["train_seconds"] is None:
        return ""
    seconds = round(row["train_seconds"])
    large, small, unit = (seconds // 3600, seconds % 3600 // 60, "h")
    if not large:
        large, small, unit = (seconds // 60, seconds % 60, "min")
    return f"{large}:{small:02d} {unit}"


def _trained_on(row: Mapping[str, Any]) -> str:
    names, digests = row["trained_on"], row["train_manifest_sha256"]
    shown = " ".join(digest[:DIGEST] for digest in digests)
    return f"{', '.join(names)} ({shown})" if names else shown
