"""clusters/kuberay: KubeRay's schemas, closed; the commands in it; and what must not be open."""

import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from derain.config import load_config
from tests.clusters.checks import CLUSTERS, load, mappings, pin, problems, schema, with_misspelt
from tests.repository import ROOT

FILES = sorted(path.name for path in (CLUSTERS / "kuberay").glob("*.yaml"))
RAY = ["cluster.yaml", "sweep.yaml", "serve.yaml"]
SPOT = ["cluster.yaml", "sweep.yaml"]
PASSWORDS = "derain-passwords"
"""The Secret that the README makes."""
SECRET = re.compile(r"PASSWORD|USERNAME|KEY|TOKEN|SECRET")


def kuberay(name: str) -> dict[str, Any]:
    return load(f"kuberay/{name}")


def refused(resource: dict[str, Any]) -> list[str]:
    whole = schema("kuberay")
    kind = whole["properties"][resource["kind"]]
    return problems(resource, {**kind, "definitions": whole["definitions"]})


def ray_cluster(resource: dict[str, Any]) -> dict[str, Any]:
    """The spec of the RayCluster in a resource."""
    spec = resource["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods(resource: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The specs of all pods."""
    cluster = ray_cluster(resource)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]
    if submitter := resource["spec"].get("submitterPodTemplate"):
        yield submitter["spec"]


def test_the_files_are_those_that_are_checked() -> None:
    assert set(FILES) == {*RAY, "storage.yaml"}


@pytest.mark.parametrize("name", FILES)
def test_kuberay_accepts_the_file(name: str) -> None:
    assert not refused(kuberay(name))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("storage.yaml", ("spec", "accessModes")),
        ("cluster.yaml", ("spec", "authOptions", "mode")),
        ("cluster.yaml", ("spec", "workerGroupSpecs", 1, "maxReplicas")),
        ("cluster.yaml", ("spec", "headGroupSpec", "template", "spec", "securityContext")),
        ("sweep.yaml", ("spec", "backoffLimit")),
        ("sweep.yaml", ("spec", "submitterPodTemplate", "spec", "containers", 0, "image")),
        ("serve.yaml", ("spec", "serveConfigV2")),
        ("serve.yaml", ("spec", "rayClusterConfig", "rayVersion")),
        ("serve.yaml", ("metadata", "name")),
    ],
)
def test_a_misspelt_key_is_refused(name: str, path: tuple[str | int, ...]) -> None:
    assert refused(with_misspelt(kuberay(name), path))


@pytest.mark.parametrize("name", RAY)
def test_ray_asks_for_a_token_and_is_reached_from_within_only(name: str) -> None:
    cluster = ray_cluster(kuberay(name))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not cluster["headGroupSpec"].get("enableIngress")
    assert cluster["rayVersion"] == pin("ray")


@pytest.mark.parametrize("name", RAY)
def test_no_container_is_root_or_may_become_it(name: str) -> None:
    """What the Pod Security Standard `restricted` asks."""
    resource = kuberay(name)
    images = set()
    for pod in pods(resource):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            images.add(container["image"])
    assert len(images) == 1
    scaler = ray_cluster(resource).get("autoscalerOptions")
    assert (scaler is None) == (name == "serve.yaml")
    if scaler:
        assert scaler["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("name", RAY)
def test_secrets_are_only_referred_to(name: str) -> None:
    variables = [
        found
        for found in mappings(kuberay(name))
        if "name" in found and ("value" in found or "valueFrom" in found)
    ]
    assert {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"} <= {v["name"] for v in variables}
    for variable in variables:
        if SECRET.search(variable["name"]):
            assert variable["valueFrom"]["secretKeyRef"]["name"] == PASSWORDS
            assert "value" not in variable


def test_the_secret_is_not_the_one_that_kuberay_makes() -> None:
    """It makes one with the cluster's name for the token, unless there is one of that name."""
    assert PASSWORDS not in {kuberay(name)["metadata"]["name"] for name in RAY}
    readme = (CLUSTERS / "kuberay/README.md").read_text(encoding="utf-8")
    assert f"kubectl create secret generic {PASSWORDS} " in readme


@pytest.mark.parametrize("name", RAY)
def test_all_nodes_share_one_volume(name: str) -> None:
    storage = kuberay("storage.yaml")
    assert storage["spec"]["accessModes"] == ["ReadWriteMany"]
    claim = {"claimName": storage["metadata"]["name"]}
    nodes = [pod for pod in pods(kuberay(name)) if "volumes" in pod]
    assert len(nodes) == 1 + len(ray_cluster(kuberay(name))["workerGroupSpecs"])
    for pod in nodes:
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"] == claim
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts == {"shared": "/shared", "cache": "/cache"}


@pytest.mark.parametrize("name", SPOT)
def test_gpus_are_spot_nodes_that_start_when_work_waits(name: str) -> None:
    cluster = ray_cluster(kuberay(name))
    assert cluster["enableInTreeAutoscaling"]
    (group,) = (g for g in cluster["workerGroupSpecs"] if g["groupName"] == "gpu-spot")
    assert group["minReplicas"] == 0 < group["maxReplicas"]
    pod = group["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    tolerated = {toleration["key"] for toleration in pod["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= tolerated


def test_the_sweep_is_one_that_a_retry_goes_on_with() -> None:
    spec = kuberay("sweep.yaml")["spec"]
    assert spec["backoffLimit"] > 0
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    program, verb, config, *options = shlex.split(spec["entrypoint"])
    assert (program, verb) == ("derainctl", "sweep")
    given = [*zip(options[::2], options[1::2], strict=True)]
    assert {option for option, _ in given} == {"--profile", "--resume", "--set"}
    overrides = [value for option, value in given if option == "--set"]
    named = dict(given)
    path = ROOT / f"configs/{config}.yaml"
    loaded = load_config(path, profile=named["--profile"], overrides=overrides)
    assert loaded.name == named["--resume"]
    assert loaded.output_dir.startswith("/shared/")
    assert loaded.sweep is not None
    assert loaded.sweep.retries > 1
    (workers,) = ray_cluster(kuberay("sweep.yaml"))["workerGroupSpecs"]
    assert loaded.sweep.concurrent == workers["maxReplicas"]


def test_ray_serve_accepts_the_application() -> None:
    from ray.serve.schema import ServeDeploySchema

    from derain.pipelines.serve.application import Arguments, build
    from derain.pipelines.serve.deployment import REPLICA

    resource = kuberay("serve.yaml")
    config = ServeDeploySchema.model_validate(yaml.safe_load(resource["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, function = application.import_path.partition(":")
    assert getattr(importlib.import_module(module), function) is build
    arguments = Arguments.model_validate(application.args)
    http = build(arguments)._bound_deployment
    (replica,) = http.init_args
    names = {http.name, replica._bound_deployment.name}
    assert names == {deployment.name for deployment in application.deployments}
    needed = {d.name: d.ray_actor_options for d in application.deployments}[REPLICA.name]
    (group,) = ray_cluster(resource)["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert needed.num_gpus == limits["nvidia.com/gpu"]
    keys = [v["valueFrom"] for v in mappings(resource) if v.get("name") == "DERAIN_API_KEY"]
    assert all(value["secretKeyRef"]["key"] == "api-key" for value in keys)
    assert keys
