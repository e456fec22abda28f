"""The page of a gallery without a browser: its structure, its size, and hostile names."""

import base64
import hashlib
import json
import re
import tracemalloc
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from derain.evaluation.gallery import GalleryImage, write_gallery

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028&amp;\"'"


class Page(HTMLParser):
    """The start tags of a page, and the text of each of its script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, _tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data

    def of_type(self, kind: str) -> list[str]:
        """The texts of the script elements of one type."""
        scripts = [attrs for tag, attrs in self.tags if tag == "script"]
        return [
            text
            for text, attrs in zip(self.scripts, scripts, strict=True)
            if attrs.get("type") == kind
        ]

    @property
    def images(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.of_type("application/json")]


def some(count: int, key: str = "image", side: int = 24) -> Iterator[GalleryImage]:
    for number in range(count):
        random = np.random.default_rng(number)
        rain, clean, derained = random.integers(0, 256, (3, side, side + 1, 3), dtype=np.uint8)
        metrics = {"net": {"psnr_y": 30.0 + number, "lpips": 0.2}, "rainy": {"psnr_y": 25.0}}
        yield GalleryImage("set", f"{key} {number}", rain, clean, {"net": derained}, metrics)


def test_a_page_has_each_image_with_its_metrics_and_its_files(tmp_path: Path) -> None:
    file = tmp_path / "gallery.html"
    assert write_gallery(file, "A title", some(3), notes=["Protocol: rain13k."]) == 3
    page = Page(file.read_text())
    first = page.images[0]
    assert [image["key"] for image in page.images] == ["image 0", "image 1", "image 2"]
    assert list(first["metrics"].items()) == [
        ("rainy", {"PSNR-Y (dB)": 25.0}),
        ("net", {"PSNR-Y (dB)": 30.0, "lpips": 0.2}),
    ]
    assert (first["width"], first["height"], first["coding"]) == (25, 24, "exact pixels")
    names = ["error of " * panel["error"] + panel["name"] for panel in first["panels"]]
    assert names == ["rainy", "net", "clean", "error of rainy", "error of net"]
    blocks = {attrs["id"] for tag, attrs in page.tags if tag == "script" and "id" in attrs}
    assert {panel["block"] for panel in first["panels"]} | {first["thumbnail"]} <= blocks
    assert "<p>Protocol: rain13k.</p>" in file.read_text()


def test_nothing_is_fetched_and_the_policy_allows_only_the_pages_own_code(tmp_path: Path) -> None:
    file = tmp_path / "gallery.html"
    write_gallery(file, "A title", some(1))
    text = file.read_text()
    page = Page(text)
    assert not re.search(r"https?:|url\(|@import|\bimport\b|fetch\(|\son\w+=", text)
    links = [attrs.get("href") or attrs.get("src") for _, attrs in page.tags]
    assert set(links) == {None, "data:,"}
    (policy,) = (a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    (script,) = page.of_type("module")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    for part, kind in ((script, "script-src"), (style, "style-src")):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    plain, hostile = tmp_path / "plain.html", tmp_path / "hostile.html"
    (image,) = some(1)
    write_gallery(plain, "title", [image], notes=["note"])
    bad = GalleryImage(
        HOSTILE, HOSTILE, image.rain, image.clean, {HOSTILE: image.outputs["net"]},
        {HOSTILE: {HOSTILE: 1.0, "psnr_y": float("nan")}},
    )  # fmt: skip
    write_gallery(hostile, HOSTILE, [bad], notes=[HOSTILE])
    page = Page(hostile.read_text())
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(plain.read_text()).tags]
    (found,) = page.images
    assert {found["key"], found["dataset"], found["panels"][1]["name"]} == {HOSTILE}
    assert found["metrics"] == {HOSTILE: {HOSTILE: 1.0, "PSNR-Y (dB)": None}}


def test_the_images_keep_to_the_limit_and_memory_to_one_image(tmp_path: Path) -> None:
    file = tmp_path / "gallery.html"
    tracemalloc.start()
    write_gallery(file, "title", some(20, side=96), count=20, limit_bytes=500_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 250_000 < file.stat().st_size < 600_000
    assert peak < 500_000


def test_a_page_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def broken() -> Iterator[GalleryImage]:
        yield from some(1)
        raise ValueError("the network fails")

    try:
        write_gallery(tmp_path / "gallery.html", "title", broken())
    except ValueError:
        assert list(tmp_path.iterdir()) == []
    else:
        raise AssertionError("the error was swallowed")
