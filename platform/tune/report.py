"""The report of a sweep: ranking beside the published table, curves and gallery.

<sweep>/report/report.md     with curves.png and gallery.png beside it
<sweep>/report/report.html   the same, pictures included
"""

import base64
import html
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from derain.config import Config
from derain.pipelines.progress import read_figures
from derain.pipelines.train import GALLERY

FOLDER = "report"
MARKDOWN = f"{FOLDER}/report.md"
HTML = f"{FOLDER}/report.html"
CURVES = "curves.png"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
.note { color: #555; }
"""

Table = list[list[str]]


def write(config: Config, ranking: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> None:
    """Write the report of a sweep into its folder; `ranking` has the best trial first."""
    folder = config.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _draw_curves(ranking, folder / CURVES)
    shutil.copyfile(Path(ranking[0]["folder"]) / GALLERY, folder / GALLERY)
    table, lines = table_of(config, ranking), _lines(config, ranking, result)
    (config.folder / MARKDOWN).write_text(_markdown(config, table, lines), encoding="utf-8")
    (config.folder / HTML).write_text(_html(config, table, lines, folder), encoding="utf-8")


def summary(report: str | Path) -> str:
    """What a written report says before its first picture, for a terminal."""
    text = Path(report).read_text(encoding="utf-8")
    return f"{text.partition('![')[0].rstrip()}\n\nReport: {report}"


def table_of(config: Config, ranking: Sequence[Mapping[str, Any]]) -> Table:
    """The ranking beside the published figures, header first."""
    assert config.sweep is not None
    reference = config.sweep.reference
    header = ["trial", "PSNR-Y (dB)", "SSIM-Y", "gain over input (dB)", "minutes"]
    rows = [header + (["published PSNR", "published SSIM"] if reference else [])]
    for trial in ranking:
        metrics, given = trial["metrics"], trial["input"]
        row = [
            trial["name"],
            f"{metrics['psnr_y']:.3f}",
            f"{metrics['ssim_y']:.4f}",
            f"{metrics['psnr_y'] - given['psnr_y']:+.3f}",
            f"{trial['seconds'] / 60:.1f}",
        ]
        if reference:
            row += [
                f"{published[trial['name']]:{digits}}" if trial["name"] in published else ""
                for published, digits in ((reference.psnr_y, ".2f"), (reference.ssim_y, ".3f"))
            ]
        rows.append(row)
    return rows


def _lines(
    config: Config, ranking: Sequence[Mapping[str, Any]], result: Mapping[str, Any]
) -> list[str]:
    """What there is to say beside the table."""
    assert config.sweep is not None
    given = ranking[0]["input"]
    lines = [
        f"Rainy input: {given['psnr_y']:.3f} dB PSNR-Y, {given['ssim_y']:.4f} SSIM-Y. "
        f"Protocol: {config.eval.protocol}. Each trial: {config.train.steps} steps of "
        f"{config.train.batch_size} crops of {config.train.crop_px} px, seed {config.seed}.",
    ]
    if config.sweep.reference:
        lines.append(f"Published: {config.sweep.reference.source}.")
        if config.profile != "paper":
            lines.append(
                f"Not comparable: profile {config.profile or 'none'} trains another size of "
                "network on other pictures; the published figures stand here as a reference only."
            )
    lines += [
        f"Failed: {trial['name']}: {trial['error']}"
        for trial in result["trials"]
        if trial["status"] == "failed"
    ]
    registered = result["registered"]
    if registered:
        lines.append(
            f"Registered: {registered['name']} version {registered['version']} as "
            f"{registered['alias']}, from trial {result['best']}."
        )
    return lines


def _draw_curves(ranking: Iterable[Mapping[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    for trial in ranking:
        figures = read_figures(Path(trial["folder"]))
        steps = sorted(figures)
        losses = np.array([figures[step]["loss"] for step in steps])
        window = max(1, len(losses) // 10)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], smooth, label=trial["name"], lw=1.2)
    axes.set(xlabel="step", ylabel="training loss, mean over a tenth of the run", yscale="log")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path)
    plt.close(figure)


def _markdown(config: Config, table: Table, lines: Sequence[str]) -> str:
    rows = ["| " + " | ".join(row) + " |" for row in table]
    rows.insert(1, "| --- |" + " ---: |" * (len(table[0]) - 1))
    parts = [
        f"# Sweep {config.name}, profile {config.profile or 'none'}",
        "\n".join(rows),
        "\n".join(f"- {line}" for line in lines),
        f"![training loss of each trial]({CURVES})",
        "Rainy, derained by the best trial, clean:",
        f"![rainy, derained, clean]({GALLERY})",
        "## Search space",
        f"```json\n{_space(config)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _html(config: Config, table: Table, lines: Sequence[str], folder: Path) -> str:
    title = html.escape(f"Sweep {config.name}, profile {config.profile or 'none'}")
    head, *body = ["".join(f"<CELL>{html.escape(cell)}</CELL>" for cell in row) for row in table]
    rows = [head.replace("CELL", "th"), *(row.replace("CELL", "td") for row in body)]
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>",
        "<ul class='note'>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>",
        "<h2>Training loss</h2>" + _embedded(folder / CURVES, "training loss of each trial"),
        "<h2>Rainy, derained by the best trial, clean</h2>",
        _embedded(folder / GALLERY, "rainy, derained, clean"),
        f"<h2>Search space</h2><pre>{html.escape(_space(config))}</pre></html>",
    ]
    return "\n".join(parts) + "\n"


def _embedded(picture: Path, alt: str) -> str:
    data = base64.b64encode(picture.read_bytes()).decode()
    return f"<img alt='{alt}' src='data:image/png;base64,{data}'>"


def _space(config: Config) -> str:
    assert config.sweep is not None
    tree = {key: grid.grid for key, grid in config.sweep.space.items()}
    return json.dumps(tree, indent=2)
