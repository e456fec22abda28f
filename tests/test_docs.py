"""The documentation: one index, links that lead somewhere, pages that are what the code says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import derain
from tests.reference_pages import FOLDER, PAGES
from tests.repository import ROOT

DOCS = ROOT / "docs"
INDEX = DOCS / "README.md"
PAGES_OF_DOCS = sorted(DOCS.rglob("*.md"))
OTHERS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its fenced blocks and code."""
    return re.sub(r"`[^`]*`", "`code`", without_blocks(text))


def links(page: Path) -> list[tuple[str, str]]:
    """Text and target of every link of a page that leads to a file."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        found = LINK.findall("\n\n".join(map(prose, texts)))
    else:
        found = LINK.findall(prose(page.read_text(encoding="utf-8")))
    return [(text, target) for text, target in found if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code-hosting sites and the docs' site make them."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def flat(nav: list[Any]) -> list[tuple[str, str]]:
    """Title and page of each entry of mkdocs.yml's nav, in order, without the sections."""
    entries = [entry for item in nav for entry in item.items()]
    return [
        page
        for title, below in entries
        for page in (flat(below) if isinstance(below, list) else [(title, below)])
    ]


def test_the_site_lists_the_pages_of_the_index_in_its_order() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    first, *others = flat(nav)
    assert first == ("Documentation", "README.md")
    assert others == links(INDEX)
    sections = re.findall(r"^\*\*\[?(\w+)", INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert [title for item in nav[1:] for title in item] == sections


def test_every_page_is_in_the_index_once() -> None:
    listed = [(DOCS / target).resolve() for _, target in links(INDEX)]
    pages = [*PAGES_OF_DOCS, *sorted(DOCS.rglob("*.ipynb"))]
    assert sorted(listed) == sorted(page for page in pages if page != INDEX)


@pytest.mark.parametrize(
    "page",
    [*PAGES_OF_DOCS, *sorted(DOCS.rglob("*.ipynb")), *OTHERS],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    """Those of docs/ stay in docs/: the site has nothing else."""
    for _, target in links(page):
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.is_file(), target
        assert DOCS not in page.parents or DOCS in place.parents, f"{target} is outside of docs/"
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_in_lists_are_indented_by_four(page: Path) -> None:
    """Fewer are enough for code-hosting sites, but not for the docs' site."""
    text = without_blocks(page.read_text(encoding="utf-8"))
    assert re.findall(r"^ {1,3}[-*] .*", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_written_from_the_code_are_up_to_date(page: str) -> None:
    written = (FOLDER / page).read_text(encoding="utf-8")
    assert written == PAGES[page](), "python -m tests.reference_pages"


NAMED_TEST = re.compile(r"`((?:[\w]+/)*test_\w+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES_OF_DOCS, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """The log keeps the names of its day."""
    if page == DOCS / "log.md":
        return
    sources = {f"/{path.relative_to(ROOT)}": path for path in (ROOT / "tests").rglob("test_*.py")}
    for name, test in NAMED_TEST.findall(page.read_text(encoding="utf-8")):
        found = [path for place, path in sources.items() if place.endswith(f"/{name}")]
        assert found, name
        assert any(f"def {test}" in path.read_text(encoding="utf-8") for path in found), test


def test_the_public_names_are_explained() -> None:
    page = (FOLDER / "python.md").read_text(encoding="utf-8")
    assert [name for name in derain.__all__ if f"| `derain.{name}" not in page] == []
