"""The wheel alone, outside of any checkout: each network from `init`, trained for ten steps."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

from tests.repository import ROOT

NETWORKS = ("fclip_unet", "clip_rpn", "rdmc", "prenet", "nafnet", "restormer", "mprnet")
RUN_ALL = """
import sys
import derain
from derain import cluster
from derain.cli.app import app

assert derain.__file__.startswith(sys.prefix), derain.__file__
with cluster.connected():  # one Ray for all of them
    for name in sys.argv[1:]:
        app(["init", name, name], standalone_mode=False)
        app(["train", f"{name}/{name}.yaml", "--profile", "smoke"], standalone_mode=False)
"""


def test_every_network_trains_from_its_starter_config(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True,
    )  # fmt: skip
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # Its dependencies are those of this environment, without what that knows of the checkout.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    work = tmp_path / "work"
    work.mkdir()
    subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", RUN_ALL, *NETWORKS],
        cwd=work, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, check=True,
    )  # fmt: skip
    for name in NETWORKS:
        assert list(work.glob(f"runs/{name.replace('_', '-')}/result.json")), name
