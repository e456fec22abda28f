"""What commands print: results to the real stdout, as text or as one JSON document."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class Results:
    """The real stdout, kept for results: whatever else prints there goes to stderr from now on."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def show(self, value: Any, text: str) -> None:
        """The value as one JSON document where that was asked for, else the text."""
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        document = json.dumps(value, indent=2, default=os.fspath) if self._as_json else text
        print(document.rstrip("\n"), file=self._stream, flush=True)

    def show_datasets(self, rows: Sequence[Mapping[str, Any]], *, with_found: bool) -> None:
        """The catalogue as a table that fits the terminal."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table("dataset", "what", "pairs", "licence", box=box.SIMPLE_HEAD)
        if with_found:
            table.add_column("found", overflow="fold")  # paths have no spaces
        for row in rows:
            pairs = _pairs_of(row).replace(", ", "\n")
            cells = [row["name"], row["about"], pairs, row["terms"]]
            found = ["\n".join(_found_lines(row)) or "-"] if with_found else []
            table.add_row(*cells, *found)
        Console(file=self._stream, markup=False).print(table)
        print("Layout and source of one: derainctl datasets NAME", file=self._stream, flush=True)


def dataset_entry(row: Mapping[str, Any]) -> str:
    """One dataset as text: what it is, then its folders."""
    lines = [f"{row['name']}: {row['title']}. {row['about']}", f"pairs: {_pairs_of(row)}"]
    lines += [f"from: {row['where']}", f"licence: {row['terms']}"]
    lines += [f"found: {line}" for line in _found_lines(row)]
    return "\n".join([*lines, *(f"  {line}" for line in row["layout"].splitlines())])


def scores(result: Mapping[str, Any]) -> str:
    """A line for each dataset and protocol of an evaluation."""
    rows = [["dataset", "images", "protocol", "PSNR-Y", "SSIM-Y", "input PSNR-Y", "input SSIM-Y"]]
    rows += [
        [
            item["name"],
            str(item["pictures"]),
            name,
            *_figures(found["metrics"]),
            *_figures(found["input"]),
        ]
        for item in result["datasets"]
        for name, found in item["by_protocol"].items()
    ]
    return _columns(rows)


def matches(found: Mapping[str, Any], label: str) -> str:
    """How many images of each truth CLIP matched to each prompt."""
    rows = [[label, *found["prompts"]]]
    rows += [[truth, *map(str, counts)] for truth, counts in found["counts"].items()]
    return _columns(rows)


def versions(rows: Sequence[Mapping[str, Any]]) -> str:
    """The registered versions, a line for each."""
    lines = [["model", "version", "aliases", "PSNR-Y", "trained with"]]
    lines += [
        [
            row["name"],
            str(row["version"]),
            ", ".join(row["aliases"]),
            row["tags"].get("psnr_y", "")[:6],
            row["tags"].get("profile", ""),
        ]
        for row in rows
    ]
    return _columns(lines)


def _pairs_of(row: Mapping[str, Any]) -> str:
    splits = row["splits"].items()
    return ", ".join(f"{split} {' or '.join(map(str, counts)) or '?'}" for split, counts in splits)


def _found_lines(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{folder}: {', '.join(f'{split} {count}' for split, count in counts.items())}"
        for folder, counts in row["found"].items()
    ]


def run_summary(result: Mapping[str, Any]) -> str:
    """A run in one line: its scores, the input's, where its checkpoint is."""
    psnr, ssim = _figures(result["metrics"])
    given = result["input"]["psnr_y"]
    return (
        f"{result['run']}: PSNR-Y {psnr} dB, SSIM-Y {ssim} (rainy input {given:.3f} dB), "
        f"checkpoint {result['checkpoint']}"
    )


def network_summary(network: Mapping[str, int]) -> str:
    """Size and cost of a network, as a comment above a YAML config."""
    trained, frozen = network["trained_parameters"] / 1e6, network["frozen_parameters"] / 1e6
    macs = network["macs"] / 1e9
    return (
        f"# {trained:.3f} M trained and {frozen:.3f} M frozen parameters, "
        f"{macs:.2f} G multiply-adds for an image of 256x256\n"
    )


def plan_summary(planned: Mapping[str, Any], resolved: str) -> str:
    """A sweep's plan: its cost, what would stop it, its trials, the resolved config."""
    names = [
        f"  {trial['name']}: {trial['params'] or 'depends on the results of earlier trials'}"
        + ("" if trial["state"] == "planned" else f" ({trial['state']})")
        for trial in planned["trials"]
    ]
    head = f"{planned['name']}, profile {planned['profile']}: {len(names)} trials"
    stops = [f"Would stop: {warning}" for warning in planned["warnings"]]
    lines = [f"{head}, {_size(planned['estimate'])}", *stops, *names]
    return "\n".join(lines) + f"\n\n{resolved}"


def _size(estimate: Mapping[str, Any]) -> str:
    """What is left to do: nothing, or steps, time and disk where they could be timed."""
    if estimate["seconds"] is None:
        return "not timed"
    if estimate["steps"] == 0:
        return "nothing is left to do"
    minutes, gpu_hours = estimate["seconds"] / 60, estimate["gpu_hours"]
    return (
        f"{estimate['steps']:,} steps, about {minutes:.0f} min, {gpu_hours:.1f} GPU-hours, "
        f"{estimate['disk_bytes'] / 2**30:.2f} GiB of checkpoints"
    )


def next_steps(result: Mapping[str, Any]) -> str:
    """What to do with a sweep that has ended."""
    registered = result["registered"]
    if not registered:
        return "\nNext: derainctl ui"
    model = f"models:/{registered['name']}@{registered['alias']}"
    return f"\nNext: derainctl ui, or derainctl predict {model} IMAGES --out FOLDER"


def _figures(metrics: Mapping[str, float]) -> list[str]:
    return [f"{metrics['psnr_y']:.3f}", f"{metrics['ssim_y']:.4f}"]


def _columns(rows: Sequence[Iterable[str]]) -> str:
    """Rows as aligned columns."""
    table = [list(row) for row in rows]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )
