"""The gallery that evaluate writes: the images that were scored, by every method."""

import re
from pathlib import Path

import pytest

from derain.errors import UsageError
from derain.pipelines.evaluate.verb import evaluate


def test_the_page_has_the_images_of_all_methods_with_their_metrics(
    model: str, dataset: str, tmp_path: Path
) -> None:
    source = Path(dataset).parent / "source" / "clean"
    page = tmp_path / "gallery.html"
    result = evaluate(model, [dataset], results={"perfect": source}, gallery=page, workers=1)
    assert result["gallery"] == str(page)
    text = page.read_text()
    known = re.findall(r'<script type="application/json" class="image">(.*?)</script>', text)
    assert len(known) == 9
    for image in result["datasets"][0]["per_picture"]:
        (found,) = [each for each in known if f'"key": "{image["key"]}"' in each]
        assert str(image["metrics"]["psnr_y"]) in found
        assert '"perfect"' in found
    assert "rain13k v1" in text


def test_methods_of_one_name_are_told_apart(model: str, dataset: str, tmp_path: Path) -> None:
    source = Path(dataset).parent / "source" / "clean"
    page, name = tmp_path / "gallery.html", Path(model).name
    evaluate(model, [dataset], results={name: source}, gallery=page, workers=1)
    assert f"{model} and {name}" in page.read_text()
    with pytest.raises(UsageError, match="two methods"):
        evaluate([model, model], [dataset], workers=1)
