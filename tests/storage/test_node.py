"""What belongs to one node: its folder of caches."""

import os
from pathlib import Path

import pytest

from derain.errors import UsageError
from derain.storage import node


def test_cache_folder_follows_option_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node.cache_folder(tmp_path) == tmp_path
    assert node.cache_folder(None) == Path(os.environ["DERAIN_CACHE_DIR"])
    monkeypatch.delenv("DERAIN_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert node.cache_folder(None) == tmp_path / "xdg" / "derain"


def test_without_a_home_folder_the_message_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "DERAIN_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)

    with pytest.raises(UsageError, match=r"DERAIN_CACHE_DIR or data\.cache_dir"):
        node.cache_folder(None)
