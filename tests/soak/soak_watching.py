"""clusters/watching: a real Prometheus follows two nodes that train, and answers the dashboard."""

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.processes import answers, free_port, kill_group, wait_for
from tests.repository import ROOT
from tests.soak.stack import needs_root, step_of, tree_of
from tests.soak.two_nodes import NAME, two_nodes

FILES = ROOT / "clusters" / "watching"
ELSEWHERE = ("gpu", "derain_requests")
"""Of queries that need a GPU or a server."""


def queries() -> dict[str, str]:
    """The query of each panel, for all runs, by its title."""
    board = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
    return {
        panel["title"]: panel["targets"][0]["expr"].replace("$folder", ".*")
        for panel in board["panels"]
    }


class Prometheus:
    """A server of its own, with the file of clusters/watching."""

    def __init__(self, folder: Path, nodes: Path) -> None:
        text = (FILES / "prometheus.yaml").read_text(encoding="utf-8")
        assert text.count("/tmp/ray/") == 1
        config = folder / "prometheus.yaml"
        config.write_text(text.replace("/tmp/ray/", f"{nodes}/"))
        subprocess.run(["promtool", "check", "config", config], check=True)
        self.address = f"127.0.0.1:{free_port()}"
        own = [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={self.address}"]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", *own],
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_for(lambda: answers(f"http://{self.address}/-/ready"), process=self.process)

    def ask(self, query: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": query})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{self.address}/api/v1/query?{words}", timeout=20) as answer:
            return json.load(answer)["data"]["result"]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.fail(f"{program}: not found; Debian's package prometheus has it")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    started = Prometheus(folder, Path(f"/tmp/{NAME}/1"))
    yield started
    kill_group(started.process)


def test_prometheus_answers_every_query(tmp_path: Path, prometheus: Prometheus) -> None:
    needs_root("creating network namespaces")
    run = tmp_path / "work"
    run.mkdir()
    tree = tree_of(run, steps=10**6, num_workers=2, eval_every_steps=200, log_every_steps=10)
    (run / "config.yaml").write_text(yaml.safe_dump(tree))
    with two_nodes(tmp_path) as cluster:
        job = cluster.submit(run, "train", "config.yaml", "--json")
        wait_for(lambda: step_of(run / "runs/run") >= 200, 300, process=job.process)
        wait_for(lambda: len(prometheus.ask("up{job='ray'} == 1")) >= 2, 120)
        wanted = {
            title: query
            for title, query in queries().items()
            if not any(word in query for word in ELSEWHERE)
        }
        assert len(wanted) >= 8
        for title, query in wanted.items():
            wait_for(lambda query=query: prometheus.ask(query), 120)
            print(f"{title}: {[item['value'][1] for item in prometheus.ask(query)]}")
        (step,) = prometheus.ask("ray_derain_step")
        assert step["metric"]["folder"] == str(run / "runs/run")
        assert len(prometheus.ask("ray_node_cpu_utilization")) == 2
        cluster.stop(job)
        assert job.process.wait(120) == 143
