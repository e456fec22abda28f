"""A report as Markdown and HTML: the same content, with headings if there are several tables."""

from pathlib import Path

from derain.tune.report.render import Page, Plot

ROWS = [["trial", "dB"], ["<low>", "31.2"]]


def test_several_tables_have_headings_and_one_has_none(tmp_path: Path) -> None:
    for tables, headings in (
        ({"Trials": ROWS}, 0),
        ({"Points": ROWS, "Trials": ROWS}, 2),
    ):
        page = Page("Sweep", tables, ["a note"], [], "train.lr: {grid: [1]}")
        assert page.markdown().count("\n## ") == headings + 1  # and the heading of the search space
        assert page.html(tmp_path).count("<h2>") == headings + 1
        assert page.markdown().count("| <low> | 31.2 |") == len(tables)


def test_the_html_file_is_complete_and_has_no_markup_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_bytes(b"\x89PNG")
    page = Page("<b>", {"<t>": ROWS}, ["<note>"], [Plot("curves.png", "<c>")], "<space>")
    written = page.html(tmp_path)
    assert "data:image/png;base64,iVBORw==" in written
    assert "![<c>](curves.png)" in page.markdown()
    assert not any(f"<{name}>" in written for name in ("b", "t", "low", "note", "c", "space"))
