"""The card of a model version: what it is, from what, how good, how to use it; in Markdown.

Its front matter is that of Hugging Face's model cards, with the results as `model-index`, so that
the folder of a version can be published as it is.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from derain.evaluation.metric_names import title

MARK = "---\n"
_METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
_TEST = "test_"
_LIMITS = (
    "It removes rain streaks of the kinds that its training images have; it was not measured on "
    "other weather, on video or on images of other cameras. Derained pixels are estimates: do not "
    "use them as evidence."
)


def card(name: str, network: str, tags: Mapping[str, str], datasets: Mapping[str, str]) -> str:
    """The card of a version of `name` from what is known when it is registered.

    `network` is its architecture, `tags` are those of the version (`registry.register`), and
    `datasets` has the names of the datasets of each role: train, validation, test.
    """
    lines = [f"# {name}", "", _summary(network, tags), ""]
    lines += ["## Results", "", *_results(tags, datasets), ""]
    lines += ["## Training data", "", *_data(tags, datasets), ""]
    lines += ["## Use", "", *_use(name), ""]
    lines += ["## Limits and licence", "", _LIMITS, "", _licence()]
    front = yaml.safe_dump(_front_matter(name, network, tags, datasets), sort_keys=False)
    return f"{MARK}{front}{MARK}\n" + "\n".join(lines) + "\n"


def _summary(network: str, tags: Mapping[str, str]) -> str:
    cost = []
    if "trained_parameters" in tags:
        cost.append(f"{int(tags['trained_parameters']):,} trained parameters")
        if int(tags.get("frozen_parameters", "0")):
            cost.append(f"{int(tags['frozen_parameters']):,} frozen ones")
    if "macs" in tags:
        cost.append(f"{int(tags['macs']) / 1e9:.3g} G multiply-adds for an image of 256x256 px")
    if "train_seconds" in tags:
        cost.append(f"{float(tags['train_seconds']) / 60:.3g} minutes of training")
    profile = f", profile {tags['profile']}" if tags.get("profile") else ""
    sentences = [f"A network that removes rain from images: {network}{profile}."]
    sentences += [f"{', '.join(cost)}."] if cost else []
    if tags.get("encoder_weights") == "random":
        sentences.append("Its frozen encoder has random weights.")
    return " ".join(sentences)


def _results(tags: Mapping[str, str], datasets: Mapping[str, str]) -> list[str]:
    """A table: the validation images, which chose the checkpoint, and the test images."""
    lines = ["| images | metric | this model | rainy input |", "| --- | --- | ---: | ---: |"]
    for key in _METRICS:
        if key in tags:
            where = f"validation ({datasets.get('validation', 'unnamed')})"
            lines.append(_row(where, key, tags[key], tags.get(f"input_{key}")))
    for key in _METRICS:
        if f"{_TEST}{key}" in tags:
            where = f"test ({datasets.get('test', 'unnamed')})"
            rainy = tags.get(f"{_TEST}input_{key}")
            lines.append(_row(where, key, tags[f"{_TEST}{key}"], rainy))
    chosen = (
        "The test images also chose the checkpoint, so these results are too good."
        if tags.get("chosen_on_test") == "true"
        else "The validation images chose the checkpoint; test images are scored once, after it."
    )
    return [*lines, "", f"Protocol: {tags.get('protocol', 'unknown')}. {chosen}"]


def _row(where: str, key: str, value: str, rainy: str | None) -> str:
    digits = 3 if key.startswith("psnr") else 4
    before = "" if rainy is None else f"{float(rainy):.{digits}f}"
    return f"| {where} | {title(key)} | {float(value):.{digits}f} | {before} |"


def _data(tags: Mapping[str, str], datasets: Mapping[str, str]) -> list[str]:
    digests = {
        "train": tags.get("train_manifest_sha256", ""),
        "validation": tags.get("eval_manifest_sha256", ""),
        "test": tags.get("test_sha256", ""),
    }
    rows = [
        f"- {role}: {datasets.get(role, 'unnamed')} (manifest {digests[role][:12]}...)"
        for role in digests
        if digests[role]
    ]
    return rows or ["Not recorded: these weights were imported."]


def _use(name: str) -> list[str]:
    return [
        "```python",
        "import derain",
        "",
        f'derained = derain.load("models:/{name}@champion")(image)  # PIL, numpy or torch',
        "```",
        "",
        "Without this package: `mlflow.pyfunc.load_model(...)`, images as NHWC, RGB, uint8.",
    ]


def _licence() -> str:
    return (
        "The code is under Apache-2.0. What the weights may be used for follows from the licences "
        "of the training images and of the pretrained parts; say so before you publish them."
    )


def _front_matter(
    name: str, network: str, tags: Mapping[str, str], datasets: Mapping[str, str]
) -> dict[str, Any]:
    prefix, role = (_TEST, "test") if f"{_TEST}psnr_y" in tags else ("", "validation")
    metrics = [
        {"type": key.split("_")[0], "name": title(key), "value": float(tags[f"{prefix}{key}"])}
        for key in _METRICS
        if f"{prefix}{key}" in tags
    ]
    dataset = datasets.get(role, "unnamed")
    result = {
        "task": {"type": "image-to-image", "name": "Image deraining"},
        "dataset": {"name": dataset, "type": dataset, "split": role},
        "metrics": metrics,
    }
    return {
        "license": "other",
        "library_name": "derain-platform",
        "pipeline_tag": "image-to-image",
        "tags": ["image-deraining", network],
        "model-index": [{"name": name, "results": [result]}],
    }
