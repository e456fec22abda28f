"""The harness of the benchmarks: rotation, medians, and ratios with one meaning for every unit."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import FOLDER, NAMES
from benchmarks.common import compare, installed, row, table, take_turns
from benchmarks.gpu import correctness, parcel, science, speed
from benchmarks.gpu.items import Bench
from derain.data.images.decode import read_image
from tests.folders import write_pairs


def test_contestants_rotate_and_the_warm_up_is_not_counted() -> None:
    seen: list[str] = []
    works = {who: lambda who=who: seen.append(who) or float(len(seen)) for who in "abc"}
    times = take_turns(works, 3)
    rounds = ["".join(seen[at : at + 3]) for at in range(0, len(seen), 3)]
    assert [sorted(order) for order in rounds] == [["a", "b", "c"]] * 4
    assert {order[0] for order in rounds[1:]} == {"a", "b", "c"}
    assert min(map(min, times.values())) > 3
    assert set(map(len, times.values())) == {3}


def test_a_rate_is_the_median_and_higher_is_better() -> None:
    times = iter([9.0, 1.0, 100.0, 2.0])
    done = compare(
        "read", "pairs/s", lambda: next(times), {"png": lambda: 4.0},
        amount=8, limit=lambda: 1.0, rounds=3,
    )  # fmt: skip
    assert (done.ours, done.peers, done.ratio) == (4.0, {"png": 2.0}, {"png": 2.0})
    assert (done.limit, done.share_of_limit) == (8.0, 0.5)


def test_fewer_seconds_are_better() -> None:
    done = compare("start", "s", lambda: 2.0, {"plain": lambda: 3.0}, limit=lambda: 1.0, rounds=1)
    assert (done.ours, done.ratio, done.share_of_limit) == (2.0, {"plain": 1.5}, 0.5)


def test_the_table_has_a_line_per_peer() -> None:
    text = table([row("read", "pairs/s", 1234.5, {"png": 10.0, "mds": 20.0}, limit=2469.0)])
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["read", "pairs/s", "1,234", "png", "10", "123.45x", "2,469", "50%"],
        ["read", "pairs/s", "1,234", "mds", "20", "61.73x", "2,469", "50%"],
    ]


def test_an_unknown_benchmark_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--json", "nothing"],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no such benchmark: nothing" in done.stderr


@pytest.mark.parametrize("module", ["benchmarks", *(f"benchmarks.{name}" for name in NAMES)])
def test_every_benchmark_has_help(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    assert "--json" in capsys.readouterr().out


def test_every_installed_peer_does_the_same_work(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.peers", str(tmp_path)],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {"png_pil", "png_cv2", "ShardWriter"} <= set(done.stdout.split())


def test_a_peer_that_is_not_installed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for module in ("no_such_peer", "no_such_peer.part"):
        assert not installed(module)
        assert f"{module} is not installed, so it is left out" in capsys.readouterr().err


GPU_ITEMS = (
    "nafnet: resume",
    "fclip_unet: cohort",
    "nafnet: equals the CPU",
    "clip_rpn: routes",
    "nafnet: predictor",
    "rdmc: micro-batches",
    "limits",
    "nafnet training fp32",
    "nafnet forward channels_last",
    "nafnet image",
    "nafnet kernels",
    "rdmc waits for 0",
)


def test_the_stages_for_a_gpu_run_on_a_cpu_and_go_on_where_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, torch.device("cpu"), small=True, only=GPU_ITEMS)
    bench.run("correctness", correctness.items(bench))
    bench.run("speed", speed.items(bench))
    assert (bench.failed, bench.left) == ([], [])
    done = {row["item"]: row for row in bench.results()}
    assert len(done) == len(GPU_ITEMS)
    assert done["nafnet: resume to the bit"]["equal_to_the_bit"]
    assert done["nafnet: equals the CPU"]["bf16_image"] > 0
    assert done["nafnet training fp32"]["images_s"] > 0
    assert len(capsys.readouterr().out.splitlines()) >= len(GPU_ITEMS)
    bench.run("speed", speed.items(bench))
    assert capsys.readouterr().out == "", "an item with a result ran again"


def test_an_item_that_fails_is_a_result_and_late_ones_are_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, torch.device("cpu"))
    bench.run("stage", [("division", lambda: {"x": 1 / 0})])
    bench.deadline = 0.0
    bench.run("stage", [("late", dict)])
    assert (bench.failed, bench.left) == (["stage division"], ["stage late"])
    assert "ZeroDivisionError" in bench.results()[0]["error"]


def test_a_parcel_is_exact_and_trains(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "source", 6, width=48, height=40)
    parcel.pack(source, tmp_path / "parcel.zip")
    parcel.unpack(tmp_path / "parcel.zip", tmp_path / "prepared")
    for name in ("rain", "clean"):
        packed = sorted((source / name).iterdir())
        unpacked = sorted((tmp_path / "prepared-source" / name).iterdir())
        assert len(packed) == len(unpacked) == 6
        for one, other in zip(packed, unpacked, strict=True):
            assert np.array_equal(read_image(one), read_image(other))
    bench = Bench(
        tmp_path, torch.device("cpu"), small=True, only=("rdmc",), train=str(tmp_path / "prepared")
    )
    bench.run("science", science.items(bench))
    assert not bench.failed
    (row,) = bench.results()
    assert row["steps"] == 60
    assert row["psnr_y"] > 0


def test_without_a_gpu_the_stages_say_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "speed", "--out", str(tmp_path)],
        cwd=FOLDER.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "torch finds no CUDA device" in done.stderr
