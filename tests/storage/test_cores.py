"""The cores that this process may use: by its affinity, and by the quotas of its cgroups."""

import os
from pathlib import Path

import pytest

from derain.storage import cores


def test_an_affinity_limits_the_cores() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cores.available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("own", "files", "quotas"),
    [
        ("0::/job/step\n", {"job/cpu.max": "250000 100000"}, [2.5]),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000"}, []),
        ("0::/../outer\n", {"cpu.max": "100000 100000"}, [1.0]),
        (
            "4:cpuset:/x\n3:cpu,cpuacct:/job\n",
            {"cpu/job/cpu.cfs_quota_us": "400000", "cpu/job/cpu.cfs_period_us": "100000"},
            [4.0],
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("0::/\n", {}, []),
    ],
)
def test_quotas_of_the_cgroup_and_those_above_it(
    tmp_path: Path, own: str, files: dict[str, str], quotas: list[float]
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(f"{text}\n")
    assert list(cores._quotas(tmp_path / "root", tmp_path / "own")) == quotas


def test_a_quota_below_one_core_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").write_text("0::/\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN_GROUPS", tmp_path / "own")
    assert cores.available_cores() == 1
