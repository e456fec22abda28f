"""What `runs` and `cache` print: tables and lines that fit 80 columns."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from derain.cli.printed.tables import GAP, new_table
from derain.evaluation.metric_names import title
from derain.storage.amounts import counted, duration, size


def listed(entries: Sequence[Any]) -> RenderableType:
    """A row for each run and sweep, and why those that failed did."""
    heads = ("run", "state", Column("step", justify="right"), Column("best", justify="right"))
    table = new_table(*heads, Column("age", justify="right"), Column("left", justify="right"))
    for entry in entries:
        left = "" if entry.eta_s is None else duration(entry.eta_s)
        best = "" if entry.best is None else metric(entry.best)
        table.add_row(entry.name, entry.state, _step(entry), best, duration(entry.age_s), left)
    failures = [f"{entry.name}: {_first_sentence(entry.error)}" for entry in entries if entry.error]
    return Group(table, *failures)


def watched(now: Sequence[Any]) -> RenderableType:
    """A row for each run, sweep and running trial, with its speed."""
    if not now:
        return "no run here"
    right = [Column(head, justify="right") for head in ("step", "steps/s", "images/s", "best")]
    table = new_table("run", "state", *right, Column("left", justify="right"), "now")
    for each in now:
        entry = each.entry
        left = "" if entry.eta_s is None else duration(entry.eta_s)
        best = "" if entry.best is None else metric(entry.best)
        speeds = (
            "" if rate is None else f"{rate:.3g}" for rate in (each.steps_per_s, each.images_per_s)
        )
        table.add_row(entry.name, entry.state, _step(entry), *speeds, best, left, _latest(each))
    failures = [
        f"{each.entry.name}: {_first_sentence(each.entry.error)}"
        for each in now
        if each.entry.error
    ]
    return Group(table, *failures)


def _latest(now: Any) -> str:
    """The loss in dB of the latest batch, and the memory of the GPU."""
    parts = [] if now.train_psnr is None else [f"{now.train_psnr:.2f} dB on crops"]
    parts += [] if now.gpu_memory_gib is None else [f"{now.gpu_memory_gib:.1f} GiB of GPU"]
    return ", ".join(parts)


@contextlib.contextmanager
def live() -> Iterator[Callable[[RenderableType], None]]:
    """A place on the terminal whose content is replaced; it is gone after the block."""
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as display:
        yield lambda content: display.update(content, refresh=True)


def shown(run: Mapping[str, Any]) -> RenderableType:
    """All that is known of a run or a sweep, in lines with a head."""
    table = Table(Column(no_wrap=True), Column(overflow="fold"), box=None, show_header=False)
    table.padding, table.pad_edge = (0, GAP, 0, 0), False
    for head, text in _facts(run):
        table.add_row(head, text)
    below: list[RenderableType] = []
    if run["kind"] == "sweep" and run["runs"]:
        below = ["", _trials(run["runs"])]
    heads = ["Next: ", *["      "] * len(run["next"])]
    steps: list[RenderableType] = [
        Text(f"{head}{line}", no_wrap=True, overflow="ignore")  # a command stays one line to copy
        for head, line in zip(heads, run["next"], strict=False)
    ]
    return Group(_head(run), table, *below, *(("", *steps) if steps else ()))


def compared(found: Mapping[str, Any]) -> RenderableType:
    """Runs by letter: the differences of their configs, their metrics, their curves."""
    letters = [chr(ord("A") + number) for number in range(len(found["runs"]))]
    names = [run["name"] for run in found["runs"]]
    parts: list[RenderableType] = [
        f"{letter}  {run['name']} ({run['state']})"
        for letter, run in zip(letters, found["runs"], strict=True)
    ]
    if found["config"]:
        table = new_table("config", *letters)
        for key, values in found["config"].items():
            table.add_row(key, *(json.dumps(value) for value in values))
        parts += ["", table]
    else:
        parts += ["", "config: no difference"]
    parts += ["", _metrics_table(letters, found["metrics"], found["same_images"])]
    for quantity, curves in found["curves"].items():
        parts += ["", *_curve_lines(quantity, names, letters, curves)]
    return Group(*parts, *(["", *found["notes"]] if found["notes"] else []))


def caches(folder: object, found: Sequence[Any]) -> RenderableType:
    """A row for each cache of pixels."""
    if not found:
        return f"no cache in {folder}"
    table = new_table("dataset", Column("size", justify="right"), "last use", "state")
    for item in found:
        named = "\n".join(item.datasets) or f"unknown ({item.path.name[:12]}...)"
        table.add_row(named, size(item.bytes), f"{duration(item.age_s)} ago", item.state)
    total = sum(item.bytes for item in found)
    return Group(table, f"{counted(len(found), 'cache')}, {size(total)} in {folder}")


def removable(items: Sequence[Any]) -> RenderableType:
    """What can go, with its size and the reason."""
    table = new_table("what", Column("frees", justify="right"), "why")
    for item in items:
        table.add_row(str(item.path), size(item.bytes), item.why)
    total = sum(item.bytes for item in items)
    return Group(table, f"{counted(len(items), 'item')} can go, {size(total)} in all")


def removed(items: Sequence[Any], gone: Sequence[Any]) -> str:
    """What has gone, and how many of all stay."""
    text = f"removed {counted(len(gone), 'item')}, {size(sum(item.bytes for item in gone))}"
    stay = len(items) - len(gone)
    return text if not stay else f"{text}; {counted(stay, 'item')} could not be removed"


def to_stderr(text: RenderableType) -> None:
    """Show what a question is about."""
    Console(stderr=True, markup=False, highlight=False).print(text)


def metric(best: Mapping[str, Any]) -> str:
    """The best metric of a run in a few characters."""
    return f"{best['value']:.3f} dB"


def _step(entry: Any) -> str:
    if entry.trials is not None:
        done = entry.trials.get("finished", 0)
        return f"{done}/{counted(entry.trials['planned'], 'trial')}"
    return f"{entry.step:,}/{'?' if entry.steps is None else f'{entry.steps:,}'}"


def _first_sentence(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= 200 else f"{first[:200]}..."


def _head(run: Mapping[str, Any]) -> str:
    if run["kind"] == "sweep":
        states = {key: value for key, value in run["trials"].items() if key != "planned"}
        told = ", ".join(f"{count} {state}" for state, count in states.items()) or "none started"
        return (
            f"{run['name']}: {run['state']}, {counted(run['trials']['planned'], 'trial')} ({told})"
        )
    left = f", {duration(run['eta_s'])} left" if run["eta_s"] is not None else ""
    of = "" if run["steps"] is None else f" of {run['steps']:,}"
    return f"{run['name']}: {run['state']}, step {run['step']:,}{of}{left}"


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("  error", run["error"])] if run["error"] else []
    profile = f", profile {run['profile']}" if run["profile"] else ""
    facts += [("  config", f"{run['config']}{profile}")] if run["config"] else []
    facts += [("  network", run["network"])] if run["network"] else []
    for line in run["commands"]:
        typed = line["command"] or "from Python"
        facts.append(("  command", f"{typed}  ({_time(line['began'])} on {line['host']})"))
    facts.append(("  age", f"{duration(run['age_s'])} since it last wrote"))
    facts += [("  data", _dataset(item)) for item in run["data"]]
    if run["mlflow_run_id"]:
        facts.append(("  MLflow run", run["mlflow_run_id"]))
    if run["kind"] == "sweep":
        if run["best"]:
            facts.append(("  best", f"trial {run['best']['trial']}, {_titled(run['best'])}"))
        facts += [("  report", run["report"])] if run["report"] else []
        return facts
    return [*facts, *_facts_of_run(run)]


def _facts_of_run(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if run["metrics"]:
        facts.append(("  validation", _scores(run["metrics"], run["input"])))
    elif run["best"]:
        facts.append(("  best", f"{_titled(run['best'])} at step {run['best']['step']:,}"))
    if run["test"]:
        facts.append(("  test", _scores(run["test"]["metrics"], run["test"]["input"])))
    if run["seconds"] is not None:
        facts.append(("  took", duration(run["seconds"])))
    width = max((len(size(saved["bytes"])) for saved in run["checkpoints"]), default=0)
    for saved in run["checkpoints"]:
        uses = f"  {', '.join(saved['uses'])}" if saved["uses"] else ""
        text = f"step {saved['step']:>8,}  {size(saved['bytes']):>{width}}{uses}"
        facts.append(("  checkpoint", text))
    for quantity, curve in run["curves"].items():
        facts.append((f"  {name_of(quantity)}", _curve(curve)))
    return facts


def name_of(quantity: str) -> str:
    """A quantity as a head: `psnr_y` is PSNR-Y."""
    quantity = {"seconds": "took", "train_psnr": "PSNR of crops"}.get(quantity, quantity)
    return title(quantity) if quantity.startswith(("psnr_", "ssim_")) else quantity


def _time(iso: str) -> str:
    return f"{datetime.fromisoformat(iso).astimezone():%Y-%m-%d %H:%M}"


def _dataset(item: Mapping[str, Any]) -> str:
    if item["sha256"] is None:
        return f"{item['role']}: {item['name']}, which cannot be read now"
    pairs = counted(item["pairs"], "pair")
    return f"{item['role']}: {item['name']}, {pairs}, sha256 {item['sha256'][:12]}"


def _titled(best: Mapping[str, Any]) -> str:
    return f"{title(best['metric'])} {best['value']:.3f} dB"


def _scores(metrics: Mapping[str, float], rainy: Mapping[str, float] | None) -> str:
    told = ", ".join(f"{title(key)} {_value(key, value)}" for key, value in metrics.items())
    given = ", ".join(_value(key, value) for key, value in (rainy or {}).items())
    return f"{told} (rainy input: {given})" if given else told


def _value(key: str, value: float | None) -> str:
    kind = key.split(" ")[-1]
    if value is None:
        return "-"
    if kind.startswith("psnr_"):
        return f"{value:.3f} dB"
    if kind.startswith("ssim_"):
        return f"{value:.4f}"
    if kind == "steps":
        return f"{value:,.0f}"
    return duration(value) if kind == "seconds" else f"{value:.4g}"


def _trials(runs: Sequence[Mapping[str, Any]]) -> RenderableType:
    heads = ("trial", "state", Column("step", justify="right"), Column("best", justify="right"))
    table = new_table(*heads)
    for run in runs:
        of = "?" if run["steps"] is None else f"{run['steps']:,}"
        best = "" if run["best"] is None else metric(run["best"])
        table.add_row(run["name"].rpartition("/")[2], run["state"], f"{run['step']:,}/{of}", best)
    failures = [f"{run['name']}: {_first_sentence(run['error'])}" for run in runs if run["error"]]
    return Group(table, *failures)


def _metrics_table(
    letters: Sequence[str], metrics: Mapping[str, Sequence[Any]], same: Mapping[str, bool]
) -> Table:
    """Metrics, and the difference of each run to the first where the images are the same."""
    table = new_table("metric", *(Column(letter, justify="right") for letter in letters))
    for key, values in metrics.items():
        role, _, name = key.rpartition(" ")
        cells = [_value(key, value) for value in values]
        if same.get(role):
            cells[1:] = [
                f"{cells[n]}{_difference(key, values[0], values[n])}" for n in range(1, len(cells))
            ]
        table.add_row(f"{role} {name_of(name)}".strip(), *cells)
    return table


def _difference(key: str, first: float | None, value: float | None) -> str:
    if first is None or value is None:
        return ""
    digits = 3 if "psnr_" in key else 4
    return f" ({value - first:+.{digits}f})"


def _curve(curve: Mapping[str, Sequence[float]]) -> str:
    from derain.tune.runs.curves import drawn

    (line,) = drawn([curve])  # type: ignore[list-item]
    return f"{line}  {curve['values'][0]:.4g} -> {curve['values'][-1]:.4g}"


def _curve_lines(
    quantity: str, names: Sequence[str], letters: Sequence[str], curves: Mapping[str, Any]
) -> list[str]:
    from derain.tune.runs.curves import drawn

    there = [(name, letter) for name, letter in zip(names, letters, strict=True) if name in curves]
    lines = drawn([curves[name] for name, _ in there])
    last = max(curves[name]["steps"][-1] for name, _ in there)
    head = f"{name_of(quantity)}, to step {last:,}"
    return [
        head,
        *(
            f"{letter}  {line}  {curves[name]['values'][0]:.4g} -> {curves[name]['values'][-1]:.4g}"
            for (name, letter), line in zip(there, lines, strict=True)
        ),
    ]
