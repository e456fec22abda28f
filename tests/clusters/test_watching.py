"""clusters/watching: both files have what Prometheus and Grafana expect; soak_watching runs one."""

import json
import re

from tests.clusters.checks import CLUSTERS, load
from tests.repository import ROOT

BOARD = json.loads((CLUSTERS / "watching/dashboard.json").read_text(encoding="utf-8"))


def test_prometheus_reads_the_list_that_ray_writes() -> None:
    ray, serve = load("watching/prometheus.yaml")["scrape_configs"]
    (files,) = ray["file_sd_configs"]
    assert files["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    assert serve["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]


def test_every_panel_asks_the_source_that_the_user_chooses() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    assert variables == {"source", "folder"}
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${source}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables


def test_panels_do_not_overlap() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["gridPos"]["w"] for panel in BOARD["panels"]} == {12}


def test_the_page_names_the_folder() -> None:
    assert "clusters/watching/" in (ROOT / "docs/guides/cluster.md").read_text(encoding="utf-8")
