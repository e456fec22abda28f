"""clusters/compose and the image: the Compose Specification, secrets, ports, and the Dockerfile."""

import re
import shlex
import subprocess
from typing import Any

import pytest
import yaml

from tests.clusters.checks import CLUSTERS, load, mappings, pin, problems, schema, with_misspelt
from tests.repository import ROOT

FOLDER = CLUSTERS / "compose"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
OURS = {"head", "worker", "mlflow", "buckets"}
"""Services of images that are built here."""
VARIABLE = re.compile(r"\$\{(\w+)(:[?-])([^}]*)\}")


def services() -> dict[str, dict[str, Any]]:
    return load("compose/compose.yaml")["services"]


def generated() -> dict[str, str]:
    """`.env` as the command in the README makes it from `.env.example`."""
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\(umask 077; (python3 -c .*) > \.env\)$", readme, re.M | re.S)
    done = subprocess.run(
        ["bash", "-c", command], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("name", FILES)
def test_the_compose_specification_accepts_the_file(name: str) -> None:
    assert FILES == ["compose.gpu.yaml", "compose.yaml"]
    assert not problems(load(f"compose/{name}"), schema("compose"))


@pytest.mark.parametrize(
    "path",
    [
        ("services",),
        ("services", "mlflow", "ports"),
        ("services", "head", "healthcheck", "test"),
        ("services", "worker", "depends_on", "head", "condition"),
        ("configs", "mlflow_auth", "content"),
        ("secrets", "ray_token", "environment"),
    ],
)
def test_a_misspelt_key_is_refused(path: tuple[str, ...]) -> None:
    assert problems(with_misspelt(load("compose/compose.yaml"), path), schema("compose"))


def test_every_name_that_is_referred_to_exists() -> None:
    whole = load("compose/compose.yaml")
    for service in whole["services"].values():
        assert set(service.get("depends_on", {})) <= set(whole["services"])
        assert {item["source"] for item in service.get("configs", [])} <= set(whole["configs"])
        assert set(service.get("secrets", [])) <= set(whole["secrets"])
        named = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(whole["volumes"])
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in whole["services"][other]
    assert set(load("compose/compose.gpu.yaml")["services"]) <= set(whole["services"])


def test_ports_are_open_on_loopback_only() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) >= 3
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert not [s for s in services().values() if "network_mode" in s or s.get("privileged")]


def test_without_a_password_nothing_starts() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    required = {name for name, kind, _ in VARIABLE.findall(text) if kind == ":?"}
    from_environment = {
        item["environment"] for item in load("compose/compose.yaml")["secrets"].values()
    }
    values = generated()
    assert set(values) == required | from_environment
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in values.values())
    assert len(set(values.values())) == len(values)
    example = (FOLDER / ".env.example").read_text(encoding="utf-8").splitlines()
    assert all(line.startswith("#") or line.endswith("=") for line in example)
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/clusters/compose/.env" in ignored


def test_no_password_is_in_the_file_or_on_a_command_line() -> None:
    for name, service in services().items():
        variables = service.get("environment", {})
        for key, value in variables.items():
            if re.search(r"PASSWORD|SECRET", key):
                assert VARIABLE.fullmatch(value), f"{name}: {key}"
        assert "PASSWORD" not in str(service.get("command", ""))
    configs = load("compose/compose.yaml")["configs"]
    assert "@" in configs["mlflow_auth"]["content"]
    assert not re.search(r":[^/@]+@", configs["mlflow_auth"]["content"])
    assert "${S3_SECRET_KEY:?" in configs["s3_keys"]["content"]
    assert "identities" in yaml.safe_load(VARIABLE.sub("x", configs["s3_keys"]["content"]))


def test_ray_asks_for_the_token_in_the_secret() -> None:
    for name in ("head", "worker"):
        node = services()[name]
        assert node["environment"]["RAY_AUTH_MODE"] == "token"
        assert node["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert node["secrets"] == ["ray_token"]


def test_mlflow_has_the_options_that_it_is_given() -> None:
    """Accounts, and only hosts that are named; an option that does not exist is refused."""
    from mlflow.cli import server

    program, verb, *arguments = shlex.split(services()["mlflow"]["command"])
    assert (program, verb) == ("mlflow", "server")
    given = server.make_context("server", arguments).params
    assert given["app_name"] == "basic-auth"
    hosts = given["allowed_hosts"].split(",")
    assert f"mlflow:{given['port']}" in hosts
    assert not [host for host in hosts if "*" in host]
    (port,) = services()["mlflow"]["ports"]
    assert port == f"127.0.0.1:{given['port']}:{given['port']}"


def test_only_the_server_that_asks_for_a_key_is_on_the_network_of_the_containers() -> None:
    """SeaweedFS starts three more, on the address of `-ip` unless it is told another."""
    options = shlex.split(services()["s3"]["command"])
    assert {"-ip=127.0.0.1", "-s3.ip.bind=0.0.0.0"} <= set(options)
    assert not [option for option in options if option.startswith("-ip.bind")]
    assert f"-s3.config={services()['s3']['configs'][0]['target']}" in options


def test_images_built_here_do_not_run_as_root() -> None:
    text = (CLUSTERS / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    names = [re.search(r" AS (\w+)$", stage.splitlines()[0], re.M)[1] for stage in stages]  # type: ignore[index]
    assert names == ["base", "mlflow", "node"]
    assert all("\nUSER derain\n" in stage for stage in stages[1:])
    assert all("--constraint /usr/local/share/derain/constraints.txt" in s for s in stages[1:])
    assert not re.search(r"(?i)password|secret|token=", text)
    assert all(pin(package) for package in ("mlflow", "flask-wtf", "psycopg2-binary", "boto3"))
    ignored = (CLUSTERS / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = re.findall(r"^COPY (\S+)", text, re.M)
    assert [*ignored] == ["*", *(f"!{path}" for path in copied)]
    builds = [found for found in mappings(services()) if "dockerfile" in found]
    assert {build["target"] for build in builds} == {"mlflow", "node"}
    for build in builds:
        assert (FOLDER / build["context"] / build["dockerfile"]).samefile(CLUSTERS / "Dockerfile")
    ours = {name for name, service in services().items() if service["image"].startswith("derain")}
    assert ours == OURS
    assert all(services()[name]["cap_drop"] == ["ALL"] for name in OURS)
