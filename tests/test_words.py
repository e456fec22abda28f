"""What the repository says: docstrings, the field's words, and a README that a newcomer can use."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repository import MODULES, PLATFORM, ROOT, parse, sources

OLD_WORDS = re.compile(r"\w*(?:picture|chance)\w*", re.IGNORECASE)
"""The field says image, and random state, randomness or probability."""
OLD_KEYS = {
    "pictures",
    "per_picture",
    "train_pictures",
    "test_pictures",
    "leaked_test_pictures",
    "redrawn_chance",
}
"""Keys that `--json` prints or a config has: they keep their names."""
STORED = {PLATFORM / "data/sources/pairs.py": {'"picture"'}}
"""Keys in files on disk, as the module that writes them quotes them."""
DEEPEST = 8
"""Largest indentation of a path in the README's tree; a line further in continues a description."""


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_and_public_names_have_docstrings(module: Path) -> None:
    parsed = parse(PLATFORM / module)
    assert ast.get_docstring(parsed), f"{module} has no docstring"
    bare = [
        node.name
        for node in parsed.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert not bare, f"{module}: without a docstring: {', '.join(bare)}"


def old_words(text: str, quoted: set[str]) -> Iterator[tuple[int, str]]:
    """Line and word of what is neither a key in code or quotes nor one of the `quoted` strings."""
    for number, line in enumerate(text.splitlines(), 1):
        for match in OLD_WORDS.finditer(line):
            word = match[0]
            around = line[max(match.start() - 1, 0) : match.end() + 1]
            as_code = around[:1] in "\"'`." or around[-1:] in "=:" or "_" in word
            if not (word in OLD_KEYS and as_code) and around not in quoted:
                yield number, word


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"pictures": 3}, item["per_picture"], pictures: int, found.pictures', []),
        ("redrawn_chance: float", []),
        ("`pictures` counts them", []),
        ("The pictures of a set.", ["pictures"]),
        ("def read_picture(): ...", ["read_picture"]),
        ('NAMELESS = "picture"', ["picture"]),
        ("Chance that a value is redrawn", ["Chance"]),
    ],
)
def test_old_words_are_recognised(text: str, words: list[str]) -> None:
    assert [word for _, word in old_words(text, set())] == words


def test_no_text_says_picture_or_chance() -> None:
    files = [*sources("platform"), *sorted((ROOT / "docs").rglob("*.md"))]
    assert len(files) > len(MODULES)
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in files
        for line, word in old_words(path.read_text(encoding="utf-8"), STORED.get(path, set()))
    ]
    found += [str(path) for path in files if OLD_WORDS.search(str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def file_tree(readme: str) -> list[str]:
    """The lines of the file tree in the README."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (tree,) = (block for block in blocks if re.search(r"^platform/", block, re.MULTILINE))
    return tree.splitlines()


def nested_paths(tree: list[str]) -> Iterator[Path]:
    """The path that each line begins with; it is below the less indented folder above it."""
    parents: list[tuple[int, Path]] = []
    for line in tree:
        indent = len(line) - len(line.lstrip())
        if indent > DEEPEST:  # a description continues
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        folder = parents[-1][1] if parents else Path()
        parents.append((indent, folder / line.split()[0]))
        yield parents[-1][1]


def names_in(tree: list[str]) -> set[str]:
    """All file names and folders in the tree, descriptions included: `order.py`, `cli/`."""
    return {name for line in tree for name in re.findall(r"\b[\w/]*\w(?:\.py\b|/(?![\w/]))", line)}


def test_a_file_tree_is_read() -> None:
    tree = file_tree(
        "```\nmake\n```\n```\nplatform/   one, or s3://\n  data/   two\n    order.py a/b, c/\n"
        "              more.py\n  storage/ three\ntests/\n```\n"
    )
    assert [str(path) for path in nested_paths(tree)] == [
        "platform",
        "platform/data",
        "platform/data/order.py",
        "platform/storage",
        "tests",
    ]
    assert names_in(tree) == {
        "platform/", "data/", "order.py", "c/", "more.py", "storage/", "tests/",
    }  # fmt: skip


def test_the_readmes_tree_names_only_what_exists() -> None:
    tree = file_tree((ROOT / "README.md").read_text())
    missing = {str(path) for path in nested_paths(tree) if not (ROOT / path).exists()}
    places = [ROOT / name for name in ("platform", "tests", "configs", "benchmarks", "docs")]
    paths = {f"/{p.relative_to(ROOT)}/" for place in places for p in (place, *place.rglob("*"))}
    paths |= {f"/{path.name}/" for path in ROOT.iterdir()}
    for name in names_in(tree):
        if not any(path.endswith(f"/{name.rstrip('/')}/") for path in paths):
            missing.add(name)
    assert len(tree) > 20
    assert not missing
