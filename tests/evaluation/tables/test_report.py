"""The Markdown report: tables, what was left out, galleries."""

from derain.evaluation.tables.report import GalleryImages, markdown
from tests.evaluation.tables.measured import item, result


def test_the_report_has_published_tables_for_datasets_that_have_any() -> None:
    text = markdown(result(item("rain100h", "test", 29.487), item("paired", "test", 31.234)))
    assert text.startswith("# net@champion\n")
    assert "| net@champion | **measured** | rain13k v1 | 29.49 | 0.295 | 31.23 | 0.312 |" in text
    assert "| FCLIP-UNet | quoted | not stated | **31.23** |" in text
    assert "images of rain100h/test, not of Rain13K's Rain100H" in text
    alone = markdown(result(item("paired", "test", 31.234)))
    assert "FCLIP-UNet" not in alone


def test_galleries_and_left_out_images_are_listed() -> None:
    dataset = item("paired", "test", 30.0)
    metrics = {"psnr_rgb": 30.0, "ssim_rgb": 0.9}
    dataset["per_picture"] = [{"key": "a|b", "metrics": metrics, "input": metrics}]
    left_out = [{"dataset": "paired", "key": None, "reason": "damaged"}]
    images = [GalleryImages("x images/00.png", (0,))]
    text = markdown(result(dataset, left_out=left_out), images)
    assert "- paired: damaged" in text
    assert r"| a\|b | 30.000 | 0.9000 | 30.000 | 0.9000 |" in text
    assert "](<x%20images/00.png>)" in text
