"""The leaderboard: who shares a table, in which order, and whose training images leak."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from derain.cli.printed import scores as output
from derain.cli.printed.results import plain
from derain.errors import UsageError
from derain.pipelines.leaderboard import files, leak_check
from derain.pipelines.leaderboard.entries import entries_of
from derain.pipelines.leaderboard.verb import leaderboard
from derain.tracking.lineage import Lineage
from derain.tracking.registry import ModelVersion
from tests.pipelines.leaderboard.conftest import Board


@pytest.fixture(autouse=True)
def _kept_leaks(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests here share one folder of caches."""
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(board.train.folder.parent / "cache"))


def group(found: dict[str, Any], protocol: str, sha256: str) -> dict[str, Any]:
    (one,) = [it for it in found["groups"] if (it["protocol"], it["sha256"]) == (protocol, sha256)]
    return one


def test_only_the_same_images_and_the_same_protocol_share_a_table(board: Board) -> None:
    found = leaderboard(uri=board.uri)
    places = {(it["protocol"], it["sha256"][:1]): len(it["rows"]) for it in found["groups"]}
    test = board.test.sha256()[0]
    assert places == {
        ("rain13k v1", test): 4,
        ("rain13k v1", "e"): 3,
        ("five_set v1", test): 1,
        ("five_set v1", "e"): 1,
    }
    ranked = group(found, "rain13k v1", board.test.sha256())
    assert ranked["datasets"] == ["test"]
    assert [(it["rank"], it["name"], it["version"], it["role"]) for it in ranked["rows"]] == [
        (1, "leaky", 1, "test"),
        (2, "clean", 2, "test"),
        (3, "clean", 1, "test"),
        (4, "forgotten", 1, "test, chosen on it"),
    ]
    first = ranked["rows"][0]
    assert first["metrics"] == {"psnr_y": 30.0, "ssim_y": 0.9}
    assert (first["trained_parameters"], first["macs"]) == (1_500_000, 2_500_000_000)
    assert first["train_seconds"] == 3900.5
    assert first["trained_on"] == ["leaky"]
    assert first["train_manifest_sha256"] == [board.leaky.sha256()]
    validated = group(found, "rain13k v1", "e" * 64)["rows"]
    assert [it["name"] for it in validated] == ["leaky", "clean", "clean"]
    assert {it["role"] for it in validated} == {"validation"}
    json.dumps(found)


def test_shared_clean_images_are_counted_and_kept_by_the_digests(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaks() -> dict[str, Any]:
        rows = group(leaderboard(uri=board.uri), "rain13k v1", board.test.sha256())["rows"]
        return {f"{it['name']}/{it['version']}": it["leaks"] for it in rows}

    found = leaks()
    assert found["leaky/1"] == {"leaked": 2, "images": 4, "reason": None}
    assert found["clean/2"] == {"leaked": 0, "images": 4, "reason": None}
    assert found["forgotten/1"]["leaked"] is None
    assert "recorded no datasets" in found["forgotten/1"]["reason"]
    monkeypatch.setattr(leak_check, "hash_dataset", None)  # nothing is hashed again
    assert leaks() == found


def test_datasets_that_moved_or_changed_are_not_checked(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERAIN_CACHE_DIR", str(tmp_path))
    moved = board.test.folder.rename(board.test.folder.with_name("moved"))
    try:
        rows = leaderboard(uri=board.uri)["groups"][0]["rows"]
        assert "no such prepared dataset" in rows[0]["leaks"]["reason"]
        board.train.folder.rename(board.test.folder)
        try:
            rows = leaderboard(uri=board.uri)["groups"][0]["rows"]
            assert "is another dataset now" in rows[0]["leaks"]["reason"]
        finally:
            board.test.folder.rename(board.train.folder)
    finally:
        moved.rename(board.test.folder)
    rows = leaderboard(check_leaks=False, uri=board.uri)["groups"][0]["rows"]
    assert {it["leaks"]["reason"] for it in rows} == {"--no-leaks"}


def test_csv_page_and_terminal_show_every_entry(board: Board, tmp_path: Path) -> None:
    found = leaderboard(uri=board.uri)
    files.check_files([tmp_path / "board.csv", None])
    files.write_csv(found, tmp_path / "board.csv")
    with (tmp_path / "board.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(it["rows"]) for it in found["groups"]) == 9
    (leaky,) = [it for it in rows if it["name"] == "leaky" and it["role"] == "test"]
    assert (leaky["psnr_y"], leaky["leaks"]) == ("30.0", "2 of 4 images")
    assert leaky["sha256"] == board.test.sha256()
    files.write_html(found, tmp_path / "board.html")
    page = (tmp_path / "board.html").read_text(encoding="utf-8")
    assert page.count("<table>") == 4
    assert "<td>30.000</td><td>0.9000</td>" in page
    assert 'src="' not in page
    printed = plain(output.leaderboard(found)).splitlines()
    digest = board.test.sha256()[:8]
    assert printed[0] == f"test ({digest}), protocol rain13k v1"
    trained = f"leaky ({board.leaky.sha256()[:8]})"
    assert (
        printed[2].split()
        == (
            f"1 leaky/1 champion test 30.000 0.9000 2.000 M 2.50 G 1:05 h {trained} 2 of 4 images"
        ).split()
    )
    assert any(line.startswith("leaks not checked of forgotten/1: ") for line in printed)
    with pytest.raises(UsageError):
        files.check_files([tmp_path])


def test_an_empty_store_has_no_groups(tmp_path: Path) -> None:
    found = leaderboard(uri=f"sqlite:///{tmp_path}/none.db")
    assert found["groups"] == []
    assert "no registered model" in str(output.leaderboard(found))


def test_a_damaged_comparison_is_made_again(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    def leaks() -> list[Any]:
        rows = group(leaderboard(uri=board.uri), "rain13k v1", board.test.sha256())["rows"]
        return [it["leaks"] for it in rows]

    before = leaks()
    kept = sorted((board.train.folder.parent / "cache" / leak_check.FOLDER).iterdir())
    for path, text in zip(kept, ("{", "[]", '{"leaked": 5}', "[" * 100_000), strict=False):
        path.write_text(text)
    assert leaks() == before
    assert "is damaged; the datasets are compared again" in caplog.text


def test_files_are_written_into_new_folders(board: Board, tmp_path: Path) -> None:
    found = leaderboard(uri=board.uri, check_leaks=False)
    files.check_files([tmp_path / "new/board.csv"])
    files.write_csv(found, tmp_path / "new/board.csv")
    files.write_html(found, tmp_path / "pages/of/board.html")
    assert len(list(tmp_path.rglob("board.*"))) == 2


def test_tags_that_are_no_numbers_are_unknown() -> None:
    tags = {"psnr_y": "30.5", "ssim_y": "good", "test_psnr_y": "high", "protocol": "rain13k v1"}
    version = ModelVersion("net", 1, (), None, 0, tags)
    (entry,) = entries_of(Lineage(version, (), None))
    assert (entry.role, entry.metrics) == ("validation", {"psnr_y": 30.5})
