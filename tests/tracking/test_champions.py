"""Champions: promoted, taken back, and each change recorded."""

import getpass
from datetime import UTC, datetime, timedelta

import pytest
from mlflow import MlflowClient

from derain.errors import UsageError
from derain.tracking import champions, registry
from tests.tracking.conftest import Register
from tests.users import OTHER


def aliases(client: MlflowClient, name: str) -> dict[str, int]:
    return {alias: int(at) for alias, at in client.get_registered_model(name).aliases.items()}


def test_promotion_moves_the_alias(register: Register, uri: str, client: MlflowClient) -> None:
    register("promoted", 30.0)
    register("promoted", 20.0)
    assert registry.pinned("models:/promoted@champion", uri) == "models:/promoted/1"
    assert champions.promote("promoted", 2, dry_run=True, uri=uri).before == 1
    assert aliases(client, "promoted") == {"champion": 1, "challenger": 2}
    change = champions.promote("promoted", 2, reason="looks better at night", uri=uri)
    assert registry.pinned("models:/promoted@champion", uri) == "models:/promoted/2"
    assert registry.pinned("models:/promoted/1", uri) == "models:/promoted/1"
    with pytest.raises(UsageError, match="is not in the store"):
        registry.pinned("models:/promoted@best", uri)
    assert aliases(client, "promoted") == {"champion": 2}
    first, second = champions.history(client, "promoted")
    assert (first["version"], first["before"], first["reason"]) == (
        1,
        None,
        "there was no champion.",
    )
    assert (second["version"], second["before"], second["reason"]) == (
        2, 1, "looks better at night",
    )  # fmt: skip
    assert change.by.startswith(f"{getpass.getuser()}@")
    age = datetime.now(UTC) - datetime.fromisoformat(second["at"])
    assert timedelta(0) <= age < timedelta(minutes=1)
    for name, version in (("promoted", 9), ("unheard-of", 1)):
        with pytest.raises(UsageError, match=f"{name}: .*`derainctl models` lists"):
            champions.promote(name, version, uri=uri)


def test_demotion_gives_the_alias_back_to_the_champion_before(
    register: Register, uri: str, client: MlflowClient
) -> None:
    for psnr_y in (30.0, 31.0, 32.0):
        register("demoted", psnr_y)
    champions.demote("demoted", dry_run=True, uri=uri)
    assert aliases(client, "demoted") == {"champion": 3}
    change = champions.demote("demoted", reason="artefacts", uri=uri)
    assert (change.version, change.before) == (2, 3)
    assert aliases(client, "demoted") == {"champion": 2, "challenger": 3}
    assert champions.demote("demoted", uri=uri).version == 1
    with pytest.raises(UsageError, match="No champion of demoted before version 1"):
        champions.demote("demoted", uri=uri)
    assert aliases(client, "demoted") == {"champion": 1, "challenger": 2}
    client.delete_registered_model_alias("demoted", "champion")
    with pytest.raises(UsageError, match="demoted has no champion"):
        champions.demote("demoted", uri=uri)


def test_a_deleted_version_is_no_champion_before(
    register: Register, uri: str, client: MlflowClient
) -> None:
    register("deleted", 30.0)
    register("deleted", 31.0)
    client.delete_model_version("deleted", "1")
    with pytest.raises(UsageError, match="or it was deleted"):
        champions.demote("deleted", uri=uri)


def test_the_oldest_changes_go_when_the_record_is_full(
    register: Register, uri: str, client: MlflowClient
) -> None:
    register("often", 30.0)
    for number in range(6):
        champions.promote("often", 1, reason=f"{number}" * 2000, uri=uri)
    kept = champions.history(client, "often")
    assert [change["reason"][0] for change in kept] == ["3", "4", "5"]


def test_a_long_reason_in_any_script_keeps_the_champions_before(
    register: Register, uri: str, client: MlflowClient
) -> None:
    for psnr_y in (30.0, 31.0):
        register("reasoned", psnr_y)
    champions.promote("reasoned", 1, reason="雨" * 2000, uri=uri)
    first, second, third = champions.history(client, "reasoned")
    assert (first["version"], second["version"], third["version"]) == (1, 2, 1)
    assert set(third["reason"]) == {"雨"}
    assert champions.demote("reasoned", uri=uri).version == 2


@pytest.mark.parametrize("text", ["x", "[5]", "{}x", '[{"version": "x"}]', "5"])
def test_a_record_that_somebody_has_edited_is_begun_anew(
    register: Register, uri: str, client: MlflowClient, text: str
) -> None:
    name = f"edited{abs(hash(text))}"
    register(name, 30.0)
    register(name, 31.0)
    client.set_registered_model_tag(name, champions.HISTORY, text)
    with pytest.raises(UsageError, match="is recorded, or it was deleted"):
        champions.demote(name, uri=uri)
    champions.promote(name, 1, uri=uri)
    assert [change["version"] for change in champions.history(client, name)] == [1]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: OTHER)
    assert champions._user() == str(OTHER)
