"""What `evaluate`, `density` and `leaderboard` print."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from derain.cli.printed.tables import Fitted, new_table
from derain.evaluation.metric_names import psnr_name, ssim_name
from derain.storage.amounts import counted


def scores(result: Mapping[str, Any]) -> RenderableType:
    """The scores of an evaluation, a row for each method, dataset and protocol, and what was left
    out. The column of methods is only there if there are several."""
    others = result.get("results", ())
    methods = [(result.get("name"), result), *((item["name"], item) for item in others)]
    heads = ("dataset", "images", "protocol", "PSNR", "SSIM", "input PSNR", "input SSIM")
    table = new_table(*(["method"] if others else []), *heads)
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
                measured = (*psnr_ssim(found["metrics"]), *psnr_ssim(found["input"]))
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
    table = new_table(label, *found["prompts"])
    for truth, counts in found["counts"].items():
        table.add_row(truth, *map(str, counts))
    return table


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


def psnr_ssim(metrics: Mapping[str, float]) -> tuple[str, str]:
    """PSNR in dB and SSIM as they are printed."""
    return f"{metrics[psnr_name(metrics)]:.3f}", f"{metrics[ssim_name(metrics)]:.4f}"
