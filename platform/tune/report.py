"""The report of a sweep: ranking beside the published table, curves, importance, gallery.

<sweep>/report/report.md     with the pictures beside it
<sweep>/report/report.html   the same, pictures included
<sweep>/report/trials.csv    every trial, failed ones too, one row each
"""

import base64
import csv
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from derain import checkpoint
from derain.building import restore_network
from derain.config import Config
from derain.data.loader import open_all
from derain.data.manifest import open_prepared
from derain.data.pictures import encode_png
from derain.pipelines.evaluate import gallery
from derain.predictor import Predictor
from derain.tune import figures

FOLDER = "report"
MARKDOWN = f"{FOLDER}/report.md"
HTML = f"{FOLDER}/report.html"
CSV = f"{FOLDER}/trials.csv"
GALLERY_PICTURES = 4

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
.note { color: #555; }
"""

Row = Mapping[str, Any]
Table = list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its file beside the text, and what it shows."""

    file: str
    title: str


CURVES = Picture("curves.png", "Learning curves")
PARALLEL = Picture("parallel.png", "Parameters and figure of each trial, bright is better")
GALLERY = Picture("gallery.png", "Rainy, worst trial, best trial, clean")


def write(config: Config, ranking: Sequence[Row], result: Row, grid: np.ndarray) -> None:
    """Write the report of a sweep into its folder; `ranking` has the best trial first.

    `grid` is what `compared` made: uint8 HWC RGB.
    """
    folder = config.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _draw(config, ranking, folder)
    (folder / GALLERY.file).write_bytes(encode_png(grid))
    text = Text(config, table_of(config, ranking), tuple(_lines(config, ranking, result)), pictures)
    (config.folder / MARKDOWN).write_text(text.markdown(), encoding="utf-8")
    (config.folder / HTML).write_text(text.html(folder), encoding="utf-8")
    _write_csv(config, result["trials"])


def compared(config: Config, ranking: Sequence[Row]) -> np.ndarray:
    """A gallery of the worst trial against the best on the same held-out pictures."""
    ends = [ranking[-1], ranking[0]] if len(ranking) > 1 else [ranking[0]]
    networks = [
        Predictor(restore_network(checkpoint.load(trial["checkpoint"]), trust=True), "cpu").derain
        for trial in ends
    ]
    pixels = open_all([open_prepared(config.data.eval[0])], config.data)
    return gallery(networks, pixels[0], GALLERY_PICTURES)


def summary(report: str | Path) -> str:
    """What a written report says before its first picture, for a terminal."""
    text = Path(report).read_text(encoding="utf-8")
    return f"{text.partition('![')[0].rstrip()}\n\nReport: {report}"


def table_of(config: Config, ranking: Sequence[Row]) -> Table:
    """The ranking beside the published figures, header first."""
    assert config.sweep is not None
    reference = config.sweep.reference
    drawn = [key for key, values in config.sweep.space.items() if values.grid is None]
    header = ["trial", *drawn, "PSNR-Y (dB)", "SSIM-Y", "gain over input (dB)", "minutes"]
    published = ["published PSNR", "difference (dB)", "published SSIM"] if reference else []
    rows = [header + published]
    for trial in ranking:
        metrics, given = trial["metrics"], trial["input"]
        row = [
            trial["name"],
            *(_written(trial["params"].get(key)) for key in drawn),
            f"{metrics['psnr_y']:.3f}",
            f"{metrics['ssim_y']:.4f}",
            f"{metrics['psnr_y'] - given['psnr_y']:+.3f}",
            f"{trial['seconds'] / 60:.1f}",
        ]
        rows.append(row + (_published(config, trial) if reference else []))
    return rows


def _written(value: Any) -> str:
    """A drawn value, which has no name; nothing where its condition did not hold."""
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _published(config: Config, trial: Row) -> list[str]:
    """The published PSNR of a trial, ours less that, and the published SSIM."""
    assert config.sweep is not None
    assert config.sweep.reference is not None
    psnr = config.sweep.reference.psnr_y.get(trial["name"])
    ssim = config.sweep.reference.ssim_y.get(trial["name"])
    difference = "" if psnr is None else f"{trial['metrics']['psnr_y'] - psnr:+.2f}"
    return [
        "" if psnr is None else f"{psnr:.2f}",
        difference,
        "" if ssim is None else f"{ssim:.3f}",
    ]


def _lines(config: Config, ranking: Sequence[Row], result: Row) -> Iterator[str]:
    """What there is to say beside the table."""
    assert config.sweep is not None
    given = ranking[0]["input"]
    yield (
        f"Rainy input: {given['psnr_y']:.3f} dB PSNR-Y, {given['ssim_y']:.4f} SSIM-Y. "
        f"Protocol: {config.eval.protocol}. Each trial: {config.train.steps} steps of "
        f"{config.train.batch_size} crops of {config.train.crop_px} px, seed {config.seed}."
    )
    if config.sweep.reference:
        yield f"Published: {config.sweep.reference.source}."
        if config.profile != "paper":
            yield (
                f"Not comparable: profile {config.profile or 'none'} trains another size of "
                "network on other pictures; the published figures stand here as a reference only."
            )
    shares = figures.importance(ranking, config.sweep.metric)
    if shares:
        named = ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        yield f"Variance of {config.sweep.metric} that a parameter alone explains: {named}."
    for trial in result["trials"]:
        if trial["status"] == "failed":
            yield f"Failed: {trial['name']}: {trial['error']}"
    registered = result["registered"]
    if registered:
        yield (
            f"Registered: {registered['name']} version {registered['version']} as "
            f"{registered['alias']}, from trial {result['best']}."
        )


def _draw(config: Config, ranking: Sequence[Row], folder: Path) -> tuple[Picture, ...]:
    """Draw what there is to see of the ranking; returns the report's pictures in their order."""
    assert config.sweep is not None
    metric = config.sweep.metric
    figures.draw_curves(ranking, metric, folder / CURVES.file)
    if len(ranking[0]["params"]) == 1:
        return CURVES, GALLERY
    figures.draw_parallel(ranking, metric, folder / PARALLEL.file)
    return CURVES, PARALLEL, GALLERY


def _write_csv(config: Config, trials: Sequence[Row]) -> None:
    """One row a trial: its values, seed, figures, cost and error."""
    params = list(dict.fromkeys(key for trial in trials for key in trial["params"]))
    metrics = list(next(t["metrics"] for t in trials if t["metrics"] is not None))
    head = ["name", "status", "seed", *params, *metrics, *(f"input_{m}" for m in metrics)]
    with (config.folder / CSV).open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*head, "seconds", "error"])
        for trial in trials:
            measured, given = trial["metrics"] or {}, trial["input"] or {}
            rows.writerow(
                [trial["name"], trial["status"], trial["seed"]]
                + [json.dumps(trial["params"].get(key)) for key in params]
                + [measured.get(name) for name in metrics]
                + [given.get(name) for name in metrics]
                + [trial["seconds"], trial.get("error")]
            )


@dataclass(frozen=True)
class Text:
    """What the report says, in Markdown and as a page of its own."""

    config: Config
    table: Table
    lines: tuple[str, ...]
    pictures: tuple[Picture, ...]

    @property
    def title(self) -> str:
        """Which sweep this is."""
        return f"Sweep {self.config.name}, profile {self.config.profile or 'none'}"

    def markdown(self) -> str:
        """The text with links to the pictures beside it."""
        rows = ["| " + " | ".join(row) + " |" for row in self.table]
        rows.insert(1, "| --- |" + " ---: |" * (len(self.table[0]) - 1))
        parts = [f"# {self.title}", "\n".join(rows), "\n".join(f"- {line}" for line in self.lines)]
        for picture in self.pictures:
            parts += [f"![{picture.title}]({picture.file})", f"{picture.title}."]
        parts += ["## Search space", f"```yaml\n{self._space()}\n```"]
        return "\n\n".join(parts) + "\n"

    def html(self, folder: Path) -> str:
        """The page with the pictures of `folder` inside."""
        title = html.escape(self.title)
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in self.lines)
        parts = [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{title}</title>",
            f"<style>{_STYLE}</style><h1>{title}</h1>",
            f"<table>{self._rows()}</table><ul class='note'>{lines}</ul>",
            *(_embedded(folder, picture) for picture in self.pictures),
            f"<h2>Search space</h2><pre>{html.escape(self._space())}</pre></html>",
        ]
        return "\n".join(parts) + "\n"

    def _rows(self) -> str:
        head, *body = (
            "".join(f"<CELL>{html.escape(cell)}</CELL>" for cell in row) for row in self.table
        )
        rows = [head.replace("CELL", "th"), *(row.replace("CELL", "td") for row in body)]
        return "".join(f"<tr>{row}</tr>" for row in rows)

    def _space(self) -> str:
        assert self.config.sweep is not None
        tree = self.config.sweep.model_dump(mode="json", exclude_none=True)["space"]
        return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).rstrip()


def _embedded(folder: Path, picture: Picture) -> str:
    data = base64.b64encode((folder / picture.file).read_bytes()).decode()
    title = html.escape(picture.title)
    return f"<h2>{title}</h2><img alt='{title}' src='data:image/png;base64,{data}'>"
