"""The tables as readers see them: compiled by LaTeX, laid out by a browser. Slow, so soak tests."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from derain.evaluation.tables.files import write_tables
from tests.evaluation.tables.measured import RAIN13K, five_sets, item, result

LATEX = shutil.which("pdflatex")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MEASURE = (
    "<script>document.title = [document.documentElement.scrollWidth, innerWidth, "
    "getComputedStyle(document.body).backgroundColor].join(' ')</script></body>"
)
NAMES = (r"50% <b>_x_ & {y} #1 \z ~^ | `q` 'p' \"r\"", "雨🌧 naïve — Łódź", "x" * 80, "a\nb")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All tables, with twelve datasets and methods of every kind of name."""
    many = [item(f"set_{number}", "test", 20.0 + number) for number in range(12)]
    others = [{"name": name, "datasets": five_sets(), "trained_on": RAIN13K} for name in NAMES]
    published = [item(name, "test", 33.0) for name in ("rain100l", "spa-data", "nturain-r")]
    write_tables(result(*many, *published, results=others), tmp_path)
    return tmp_path


@pytest.mark.soak
@pytest.mark.skipif(LATEX is None, reason="needs pdflatex (texlive-latex-recommended)")
def test_the_document_compiles_and_nothing_is_wider_than_the_page(folder: Path) -> None:
    command = [str(LATEX), "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Overfull \\hbox" not in log
    assert "(4 pages" in log
    assert (folder / "tables.pdf").stat().st_size > 10_000


def measured_by_browser(page: Path, width: int, *options: str) -> tuple[int, int, str]:
    """Width of the content and of the window in px, and the colour behind it."""
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", MEASURE), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options]
    done = subprocess.run(
        [*command, f"--window-size={width},900", probe.as_uri()], capture_output=True, check=True
    )
    title = re.search(r"<title>(\d+) (\d+) (.*)</title>", done.stdout.decode())
    assert title
    return int(title[1]), int(title[2]), title[3]


@pytest.mark.soak
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [500, 1300])
def test_the_page_fits_any_window_and_follows_the_colour_scheme(folder: Path, width: int) -> None:
    page = folder / "tables.html"
    content, window, light = measured_by_browser(page, width)
    assert content <= window  # wide tables scroll within themselves
    *_, dark = measured_by_browser(page, width, "--blink-settings=preferredColorScheme=0")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(20, 23, 26)")
