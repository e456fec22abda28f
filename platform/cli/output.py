"""What commands print: results to the real stdout, as text or as one JSON document."""

import dataclasses
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate, groupby
from textwrap import wrap
from typing import Any, ClassVar, NoReturn

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Column, Table

from derain.cli.runs_output import duration
from derain.evaluation.metric_names import psnr_name, ssim_name, title
from derain.storage.amounts import counted, size

PLAIN_WIDTH = 10_000
"""Width in characters of tables for files and pipes, so large that no row wraps."""
GAP = 2
"""Spaces between two columns."""


class Results:
    """The real stdout, kept for results: from now on all other prints go to stderr."""

    of_command: ClassVar["Results | None"] = None
    """Those of the running command, once it has got that far."""

    def __init__(self, as_json: bool) -> None:
        Results.of_command = self
        self._as_json = as_json
        self._shown = False
        if sys.stdout is not None:  # the caller did not close it
            sys.stdout.flush()
        # Names of files may be any bytes, which a reader gets back unchanged.
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogateescape")
        os.dup2(2, 1)
        self.on_terminal = self._stream.isatty()

    def show(self, value: Any, text: RenderableType) -> None:
        """Print `value` as one JSON document if --json was given, otherwise `text`.

        A table is fitted to the terminal; in a file or a pipe each row is one line.
        """
        self._shown = True
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = dataclasses.asdict(value)
        if self._as_json:
            text = json.dumps(value, indent=2, default=os.fspath)
        if not isinstance(text, str) and not self.on_terminal:
            text = plain(text)
        try:
            if isinstance(text, str):
                print(text.rstrip("\n"), file=self._stream)
            else:
                console = Console(file=self._stream, markup=False, highlight=False)
                console.print(text, crop=False)
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def show_bytes(self, data: bytes) -> None:
        """Write a file to stdout. Raises OSError if it is closed: the file would be lost."""
        self._shown = True
        if sys.stdout is None:
            raise OSError(errno.EBADF, "closed", "standard output")
        try:
            self._stream.buffer.write(data)
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def show_line(self, line: str) -> None:
        """Write a line of another command's results to stdout."""
        self.show_bytes(line.encode("utf-8", "surrogateescape"))

    def show_failure(self, failure: Mapping[str, Any]) -> None:
        """Print a failure as the JSON document, unless the command has printed its own."""
        if self._as_json and not self._shown:
            self.show({"error": failure}, "")

    def _give_up(self, error: OSError) -> NoReturn:
        """End silently, as Unix tools do, if the reader has gone; otherwise name what refused."""
        # Python would try to write the rest once more at its end, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(128 + signal.SIGPIPE)
        raise OSError(error.errno, error.strerror, "standard output") from error


def plain(table: RenderableType, width: int = PLAIN_WIDTH) -> str:
    """A table as text without colours: one line per row, nothing truncated."""
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    with console.capture() as printed:
        console.print(table, highlight=False)
    return "\n".join(line.rstrip() for line in printed.get().splitlines())


def dataset_table(
    rows: Sequence[Mapping[str, Any]], *, with_found: bool, on_terminal: bool
) -> RenderableType:
    """The catalogue; on a terminal with one split per line, where rows may have several lines."""
    between = "\n" if on_terminal else ", "
    table = _table("dataset", "what", "pairs", "licence", *(["found"] if with_found else []))
    for row in rows:
        cells = [row["name"], row["about"], between.join(_pairs_of(row)), row["terms"]]
        if with_found:
            cells.append(between.join(_found_lines(row)) or "-")
        table.add_row(*cells)
    return Group(table, "Layout and source of a dataset: derainctl datasets NAME")


def dataset_entry(row: Mapping[str, Any]) -> str:
    """One dataset as text: a description, then its folders."""
    lines = [f"{row['name']}: {row['title']}. {row['about']}"]
    lines += [f"other names: {', '.join(row['aliases'])}"] if row["aliases"] else []
    lines += [f"pairs: {', '.join(_pairs_of(row))}"]
    lines += [f"not checked: {row['unchecked']}"] if row["unchecked"] else []
    lines += [f"from: {row['where']}", f"licence: {row['terms']}"]
    lines += [f"found: {line}" for line in _found_lines(row)]
    return "\n".join([*lines, *(f"  {line}" for line in row["layout"].splitlines())])


def _pairs_of(row: Mapping[str, Any]) -> list[str]:
    """For each split its published numbers of pairs: more than one if sources disagree."""
    splits = row["splits"].items()
    return [f"{split} {' or '.join(map(str, counts)) or '?'}" for split, counts in splits]


def _found_lines(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{folder}: {', '.join(f'{split} {count}' for split, count in counts.items())}"
        for folder, counts in row["found"].items()
    ]


def scores(result: Mapping[str, Any]) -> RenderableType:
    """The scores of an evaluation, a row for each method, dataset and protocol, and what was left
    out. The column of methods is only there if there are several."""
    others = result.get("results", ())
    methods = [(result.get("name"), result), *((item["name"], item) for item in others)]
    heads = ("dataset", "images", "protocol", "PSNR", "SSIM", "input PSNR", "input SSIM")
    table = _table(*(["method"] if others else []), *heads)
    lines = []
    for method, scored in methods:
        named = [str(method)] if others else []
        for item in scored["datasets"]:
            place = ", ".join([*named, item["name"]])
            for name, found in item["by_protocol"].items():
                if ":" in name:
                    lines.append(_own_metric(place, name, found, item["pictures"]))
                    continue
                if name in found["metrics"]:  # NIQE and its like have one value
                    lines.append(_without_reference(place, name, found, item["pictures"]))
                    continue
                measured = (*_psnr_ssim(found["metrics"]), *_psnr_ssim(found["input"]))
                table.add_row(*named, item["name"], str(item["pictures"]), name, *measured)
            if item.get("downstream"):
                lines.append(f"{place}: {_agreement(item['downstream'])}")
        lines += [_left_out([*named, item["dataset"]], item) for item in scored["left_out"]]
        for dataset, extra in scored.get("extra", {}).items():
            found = counted(len(extra), "image")
            lines.append(f"{method}, {dataset}: {found} of no pair, such as {extra[0]}")
    files = [result.get("report"), *result.get("tables", ()), result.get("gallery")]
    files.append(result.get("out"))
    wrote = [f"wrote {path}" for path in filter(None, files)]
    if result.get("run_id"):
        wrote.append(f"MLflow run {result['run_id']}")
    return Group(*([table] if table.rows else []), *lines, _cost(result["cost"]), *wrote)


def _without_reference(place: str, name: str, found: Mapping[str, Any], images: int) -> str:
    value, given = found["metrics"][name], found["input"][name]
    shown = f"rainy input {given:.3f} ({counted(images, 'image')}; less is better)"
    return f"{place}: {name} {value:.3f}, {shown}"


def _own_metric(place: str, name: str, found: Mapping[str, Any], images: int) -> str:
    """A metric of the user's; which direction is better is not known."""
    (value,), (given,) = found["metrics"].values(), found["input"].values()
    return f"{place}: {name} {value:.4f}, rainy input {given:.4f} ({counted(images, 'image')})"


def _agreement(found: Mapping[str, Any]) -> str:
    """How well a detector or segmenter agrees with what it finds on the clean images."""
    if found["kind"] == "segmentation":
        derained, rainy = found["derained"]["miou"], found["rainy"]["miou"]
        return f"mIoU with the classes of the clean images: {derained:.4f}, rainy {rainy:.4f}"
    if found["derained"]["map"] is None:
        return "nothing is detected on the clean images"
    values = [f"{found[side]['map']:.4f}" for side in ("derained", "rainy")]
    count = counted(found["clean"]["detections"], "detection")
    return f"mAP with {count} on the clean images: {values[0]}, rainy {values[1]}"


def _left_out(place: Sequence[str], item: Mapping[str, Any]) -> str:
    key = [item["key"]] if item["key"] else []
    return f"left out, and in no mean: {', '.join([*place, *key])}: {item['reason']}"


def _cost(cost: Mapping[str, Any]) -> str:
    """What an evaluation took, in one line."""
    if not cost["images"]:
        return "all images were scored before"
    processes = f"{cost['workers']} process{'es' if cost['workers'] > 1 else ''}"
    return (
        f"{counted(cost['images'], 'image')} in {cost['seconds']:.1f} s, "
        f"{cost['images_per_s']:.3g} images/s; {processes}, "
        f"{cost['peak_memory_bytes'] / 2**30:.2f} GiB in the largest"
    )


def matches(found: Mapping[str, Any], label: str) -> Table:
    """For each true rain density, how many of its images CLIP matched to each prompt."""
    table = _table(label, *found["prompts"])
    for truth, counts in found["counts"].items():
        table.add_row(truth, *map(str, counts))
    return table


def versions(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The registered model versions, a row for each."""
    table = _table("model", "version", "aliases", "PSNR", "trained with")
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
    table = _table("", "")
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
    table = _table("", *heads)
    notes = []
    for role in ("metrics", "test"):
        name = "validation" if role == "metrics" else role
        if compared[role] is None:
            notes.append(
                f"{name}: not compared, as the images or the protocol differ or are unknown"
            )
        for key, values in (compared[role] or {}).items():
            table.add_row(f"{title(key)}, {name}", *(_four_digits(value) for value in values))
    for key, values in {**compared["data"], **(compared["config"] or {})}.items():
        table.add_row(key, *("-" if value is None else str(value) for value in values))
    if compared["config"] is None:
        notes.append("config: not compared, as one version has none")
    return Group(table, *notes)


def leaderboard(board: Mapping[str, Any]) -> RenderableType:
    """The groups of a leaderboard, a table for each, and versions without metrics."""
    from derain.pipelines.leaderboard.cells import HEADS, cells, heading, unchecked

    shown: list[RenderableType] = []
    for group in board["groups"]:
        table = Fitted(HEADS, [*map(cells, group["rows"])], "with --csv, --html and --json")
        shown += [heading(group), table, *unchecked(group), ""]
    for item in board["unmeasured"]:
        shown.append(f"{item['name']}/{item['version']} has no metrics")
    return Group(*shown) if shown else f"no registered model in {board['store']}"


def _table(*titles: str) -> Table:
    """A table without lines, its columns two spaces apart; long words continue on a new line."""
    columns = (Column(title, overflow="fold") for title in titles)
    return Table(*columns, box=None, pad_edge=False, padding=(0, GAP, 0, 0))


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A table of which a terminal has the first columns, as many as fit, and names the others."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    elsewhere: str
    """Where the other columns are."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width + GAP
        widths = self._widths(len)
        if sum(widths) > room:
            widths = self._widths(_head_width)
        fit = max(sum(end <= room for end in accumulate(widths)), 1)
        table = _table(*self.heads[:fit])
        for column, wide in zip(table.columns, widths, strict=False):
            column.width = wide - GAP
        for row in self.rows:
            table.add_row(*row[:fit])
        yield table
        if others := self.heads[fit:]:
            yield f"({self.elsewhere}: {', '.join(others)})"

    def _widths(self, of_head: Callable[[str], int]) -> list[int]:
        """Of each column, with the gap behind it."""
        columns = zip(self.heads, *self.rows, strict=True)
        return [max(of_head(head), *map(len, cells)) + GAP for head, *cells in columns]


def aligned(markdown: str) -> RenderableType:
    """Markdown of a report for a terminal: its tables with aligned columns that fit."""
    parts: list[RenderableType] = []
    for is_table, lines in groupby(markdown.splitlines(), lambda line: line.startswith("|")):
        if is_table:
            heads, _, *rows = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in lines)
            parts.append(Fitted(heads, rows, "in the report"))
        else:
            parts.append("\n".join(lines))
    return Group(*parts)


def _head_width(head: str) -> int:
    """The least width at which a head takes two lines, broken between words."""
    longest = max(map(len, head.split()), default=0)
    return next(wide for wide in range(longest, len(head) + 1) if len(wrap(head, wide or 1)) <= 2)


def run_summary(result: Mapping[str, Any]) -> str:
    """A run in a few lines: its metrics, those of the rainy input, its checkpoint."""
    test = result["test"]
    parts = [f"validation {_measured(result)}"]
    if test is not None:
        chosen = ", which has chosen" if test["chosen_on_test"] else ""
        parts.append(f"test {_measured(test)}{chosen}")
    if done := result.get("registered"):
        alias = f" ({done['alias']})" if done["alias"] else ""
        parts.append(f"registered as {done['name']} version {done['version']}{alias}")
    return "\n  ".join(
        [f"{result['run']}: {parts[0]}", *parts[1:], f"checkpoint {result['checkpoint']}"]
    )


def _measured(scored: Mapping[str, Any]) -> str:
    """Metrics in a few words, with the PSNR of the rainy input."""
    metrics, rainy = scored["metrics"], scored["input"]
    psnr, ssim = _psnr_ssim(metrics)
    return (
        f"{title(psnr_name(metrics))} {psnr} dB (rainy input {_psnr_ssim(rainy)[0]} dB), "
        f"{title(ssim_name(metrics))} {ssim}"
    )


def _psnr_ssim(metrics: Mapping[str, float]) -> tuple[str, str]:
    return f"{metrics[psnr_name(metrics)]:.3f}", f"{metrics[ssim_name(metrics)]:.4f}"


def network_summary(network: Mapping[str, int]) -> str:
    """Size and cost of a network, as a comment above a YAML config."""
    trained, frozen = network["trained_parameters"] / 1e6, network["frozen_parameters"] / 1e6
    macs = network["macs"] / 1e9
    return (
        f"# {trained:.3f} M trained and {frozen:.3f} M frozen parameters, "
        f"{macs:.2f} G multiply-adds per image of 256x256 px\n"
    )


def run_plan(planned: Mapping[str, Any], resolved: str) -> str:
    """A run's plan as comments above its resolved config: steps, cost, what would stop it."""
    train, estimate = planned["config"]["train"], planned["estimate"]
    begins = planned["resumes_from_step"]
    steps = f"{train['steps']:,} steps" + (f", from step {begins:,} on" if begins else "")
    profile = f", profile {planned['profile']}" if planned["profile"] else ""
    lines = [
        f"{planned['name']}{profile}: {steps}, {train['batch_size']} crops of "
        f"{train['crop_px']} px per step",
        _remaining_cost(estimate).removeprefix(f"{estimate['steps'] or 0:,} steps, "),
        *_room(estimate),
        f"Results in {planned['folder']}"
        + (f"; registered as {planned['register']}" if planned["register"] else ""),
        *(f"Would stop: {warning}" for warning in planned["warnings"]),
    ]
    network = planned["network"]
    head = "".join(f"# {line}\n" for line in lines)
    return head + (network_summary(network) if network else "") + resolved


def plan_summary(planned: Mapping[str, Any], resolved: str) -> str:
    """A sweep's plan: its cost, what would stop it, its trials, the resolved config."""
    trials = [
        f"  {trial['name']}: {trial['params'] or 'depends on the results of earlier trials'}"
        + ("" if trial["state"] == "planned" else f" ({trial['state']})")
        for trial in planned["trials"]
    ]
    count = counted(len(trials), "trial")
    head = f"{planned['name']}, profile {planned['profile'] or 'none'}: {count}"
    obstacles = [f"Would stop: {warning}" for warning in planned["warnings"]]
    room = _room(planned["estimate"])
    lines = [f"{head}, {_remaining_cost(planned['estimate'])}", *room, *obstacles, *trials]
    return "\n".join(lines) + f"\n\n{resolved}"


def _remaining_cost(estimate: Mapping[str, Any]) -> str:
    """Steps, time, GPU-hours if there are any, and the price."""
    if estimate["seconds"] is None:
        return "not timed"
    if estimate["steps"] == 0:
        return "nothing left to do"
    parts = [f"{estimate['steps']:,} steps", f"about {duration(estimate['seconds'])}"]
    if estimate["gpu_hours"]:
        parts.append(f"{estimate['gpu_hours']:.1f} GPU-hours")
    if estimate.get("cost") is not None:
        parts.append(f"cost {estimate['cost']:.2f}")
    return ", ".join(parts)


def _room(estimate: Mapping[str, Any]) -> list[str]:
    """Memory and disk, in a line; none if nothing is known, or nothing is left to do."""
    if not estimate.get("memory_bytes"):
        return []
    parts = {
        "of memory in each process": estimate["memory_bytes"],
        "of checkpoints": estimate["disk_bytes"],
        "of pixel caches to build": estimate["cache_bytes"],
        "free on the disk": estimate["free_bytes"],
    }
    return [", ".join(f"{size(count)} {what}" for what, count in parts.items())]


def next_steps(result: Mapping[str, Any]) -> str:
    """What to do after a sweep."""
    registered = result["registered"]
    if not registered:
        return "\nNext: derainctl ui"
    model = f"models:/{registered['name']}@{registered['alias']}"
    return f"\nNext: derainctl ui, or derainctl predict {model} IMAGES --out FOLDER"


def _four_digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
