"""Who is champion: promoting a version and taking it back, with the record of each change."""

import contextlib
import getpass
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from derain.errors import UsageError
from derain.tracking.address import hidden
from derain.tracking.store import (
    mlflow,
    reader_of,
    storage_errors,
    tracking_uri,
    without_password,
    write_lock,
)

log = logging.getLogger(__name__)

CHAMPION = "champion"
CHALLENGER = "challenger"
HISTORY = "derain.champions"
"""The tag of a registered model that has its changes of champion, the newest last."""
TAG_LENGTH = 5000
"""MLflow's limit for it: the oldest changes go."""


@dataclass(frozen=True)
class Change:
    """A change of the champion, as `--json` prints it."""

    name: str
    version: int
    """The champion from now on."""
    before: int | None
    """The champion until now."""
    by: str
    """USER@HOST."""
    at: str
    """Time in UTC, ISO 8601."""
    reason: str
    back: bool
    """Whether the version was champion before and got the alias back."""


def promote(
    name: str, version: int, *, reason: str = "", dry_run: bool = False, uri: str | None = None
) -> Change:
    """Make a version the champion, whatever its metrics; `dry_run` changes nothing.

    Raises UsageError if there is no such model or version, StorageError if the store does not
    answer.
    """
    uri = uri or tracking_uri()
    client = reader_of(uri)
    with _known(name, uri), storage_errors(uri), write_lock(uri):
        client.get_model_version(name, str(version))
        change = _change(name, version, _aliases(client, name).get(CHAMPION), reason)
        if not dry_run:
            _apply(client, change)
    return change


def demote(name: str, *, reason: str = "", dry_run: bool = False, uri: str | None = None) -> Change:
    """Give the alias back to the version that was champion before; `dry_run` changes nothing.

    The version that loses it becomes the challenger. Raises UsageError if there is no champion, or
    if no earlier one is known or left.
    """
    uri = uri or tracking_uri()
    client = reader_of(uri)
    with _known(name, uri), storage_errors(uri), write_lock(uri):
        present = _aliases(client, name).get(CHAMPION)
        if present is None:
            raise UsageError(
                f"{name} has no champion. `derainctl promote {name} VERSION` makes one."
            )
        before = _earlier(client, name, present)
        change = _change(name, before, present, reason, back=True)
        if not dry_run:
            _apply(client, change)
            client.set_registered_model_alias(name, CHALLENGER, str(present))
    return change


def note(client: Any, name: str, version: int, reason: str) -> None:
    """Make a new version the champion; `registry.register` holds the lock."""
    _apply(client, _change(name, version, _aliases(client, name).get(CHAMPION), reason))


def history(client: Any, name: str) -> list[dict[str, Any]]:
    """The recorded changes of a model's champion, the oldest first."""
    text = client.get_registered_model(name).tags.get(HISTORY, "[]")
    try:
        changes = json.loads(text)
        for change in changes:
            int(change["version"]), bool(change["back"])
    except (ValueError, KeyError, TypeError, RecursionError):  # anybody can edit a tag
        log.warning("%s: its tag %s is damaged, so earlier champions are not known", name, HISTORY)
        return []
    return changes


@contextlib.contextmanager
def _known(name: str, uri: str) -> Iterator[None]:
    """Turns MLflow's errors about a model or version into one message."""
    try:
        yield
    except mlflow().exceptions.MlflowException as error:
        raise UsageError(
            f"{name}: {hidden(error, uri)}, in {without_password(uri)}. `derainctl models` "
            "lists the registered versions."
        ) from error


def _aliases(client: Any, name: str) -> dict[str, int]:
    return {alias: int(at) for alias, at in client.get_registered_model(name).aliases.items()}


def _earlier(client: Any, name: str, present: int) -> int:
    """The champion before the present one, if that version still exists."""
    existing = {int(found.version) for found in client.search_model_versions(f"name = '{name}'")}
    champions: list[int] = []
    for change in history(client, name):
        if change["back"]:
            champions = champions[:-1]
        else:
            champions.append(change["version"])
    if earlier := [version for version in champions if version in existing - {present}]:
        return earlier[-1]
    raise UsageError(
        f"No champion of {name} before version {present} is recorded, or it was deleted. "
        f"`derainctl promote {name} VERSION` makes another version the champion."
    )


def _change(
    name: str, version: int, before: int | None, reason: str, *, back: bool = False
) -> Change:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    by = f"{_user()}@{socket.gethostname()}"
    return Change(name, version, before, by, at, reason, back)


def _user() -> str:
    """The name of the user, or the number of one without a name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _apply(client: Any, change: Change) -> None:
    recorded: Mapping[str, Any] = {
        "version": change.version,
        "before": change.before,
        "by": change.by,
        "at": change.at,
        "reason": _shortened(change.reason),
        "back": change.back,
    }
    changes = [*history(client, change.name), recorded]
    while len(text := json.dumps(changes)) > TAG_LENGTH:
        changes = changes[1:]
    client.set_registered_model_alias(change.name, CHAMPION, str(change.version))
    if _aliases(client, change.name).get(CHALLENGER) == change.version:
        client.delete_registered_model_alias(change.name, CHALLENGER)
    client.set_registered_model_tag(change.name, HISTORY, text)


def _shortened(reason: str) -> str:
    """The beginning of a reason that takes a quarter of the tag at most, as JSON: there a letter
    that is not ASCII has six characters."""
    reason = reason[: TAG_LENGTH // 4]
    while len(json.dumps(reason)) > TAG_LENGTH // 4:
        reason = reason[:-1]
    return reason
