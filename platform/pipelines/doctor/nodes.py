"""Whether the nodes of a running cluster have the same software, the same time and our folders."""

import contextlib
import hashlib
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray

from derain import cluster
from derain.pipelines.doctor.check import Check
from derain.storage.amounts import counted

ANSWER_S = 60.0
"""A node's first process imports this package, which takes seconds on a busy machine."""
SKEW_S = 2.0


def checks(folders: Mapping[str, Path]) -> list[Check]:
    """Connect to RAY_ADDRESS and look at every node; `folders` are local ones that all must see.

    Raises DerainError if no cluster answers there.
    """
    with cluster.connected(), _tokens(folders) as tokens:
        answers, silent = _ask(facts, [str(token) for token in tokens])
        found = [*_silent(silent)]
        if answers:
            found += [*_versions(answers), _clocks(answers), *_folders(answers, folders, tokens)]
        return found


def code_digest() -> str:
    """SHA-256 over names and bytes of this package's modules, the same for wheel and checkout."""
    digest = hashlib.sha256()
    rooms = Path(cluster.__file__).parent
    for path in sorted(rooms.rglob("*.py")):
        digest.update(f"{path.relative_to(rooms).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def facts(tokens: list[str]) -> dict[str, Any]:
    """What a node has; runs there."""
    return {
        "time": time.time(),
        "ray": ray.__version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "derain": f"{version('derain-platform')} (code {code_digest()[:12]})",
        "unseen": [token for token in tokens if not Path(token).is_file()],
        "unwritable": [token for token in tokens if not _writes(Path(token).parent)],
    }


def _writes(folder: Path) -> bool:
    probe = folder / f".derain-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError:
        return False
    return True


def _ask(work: Callable[..., Any], *arguments: object) -> tuple[dict[str, Any], dict[str, str]]:
    """The answers by node, with the time of asking and of answering; and who gave none, and why."""
    asked = time.time()
    calls = cluster.calls_on_every_node(work, *arguments)
    ray.wait(list(calls.values()), num_returns=len(calls), timeout=ANSWER_S)
    answers, silent = {}, {}
    for node, call in calls.items():
        try:
            answers[node] = {**ray.get(call, timeout=0.1), "asked": asked, "answered": time.time()}
        except ray.exceptions.GetTimeoutError:
            silent[node] = f"no answer within {ANSWER_S:g} s"
        except ray.exceptions.RayError as error:
            silent[node] = str(error).strip().splitlines()[-1]
    return answers, silent


def _silent(silent: Mapping[str, str]) -> Iterator[Check]:
    remedy = "Install this package's wheel there and start Ray from the same environment; "
    remedy += "`ray status` shows whether the node is alive."
    for node, reason in silent.items():
        yield Check(f"node {node}", "fail", reason, remedy)


def _versions(answers: Mapping[str, Any]) -> Iterator[Check]:
    """One check for each of Ray, Python and this package: the same on every node and here."""
    here = facts([])
    for name in ("ray", "python", "derain"):
        nodes = defaultdict(list)
        for node, answer in answers.items():
            nodes[answer[name]].append(node)
        if set(nodes) == {here[name]}:
            found = f"{here[name]} on {counted(len(answers), 'node')}: {', '.join(answers)}"
            yield Check(f"{name} on the nodes", "ok", found)
        else:
            listed = "; ".join(f"{number} on {', '.join(at)}" for number, at in nodes.items())
            found = f"{here[name]} here; {listed}"
            remedy = f"Install the same version of {name} everywhere, and start Ray again there."
            yield Check(f"{name} on the nodes", "fail", found, remedy)


def _clocks(answers: Mapping[str, Any]) -> Check:
    """How far the clocks are from this machine's at least: an answer was given between the
    question and its arrival."""
    off = {
        node: max(0.0, answer["asked"] - answer["time"], answer["time"] - answer["answered"])
        for node, answer in answers.items()
    }
    node = max(off, key=lambda name: off[name])
    if off[node] <= SKEW_S:
        return Check("clocks of the nodes", "ok", f"none is more than {SKEW_S:g} s off")
    remedy = "Have all machines follow one time server (`timedatectl set-ntp true`)."
    return Check("clocks of the nodes", "warn", f"{node} is {off[node]:.1f} s off", remedy)


def _folders(
    answers: Mapping[str, Any], folders: Mapping[str, Path], tokens: list[Path]
) -> Iterator[Check]:
    for (name, folder), token in zip(folders.items(), tokens, strict=True):
        wrong = [
            f"{node} {'does not see' if str(token) in answer['unseen'] else 'may not write to'} it"
            for node, answer in answers.items()
            if str(token) in answer["unseen"] + answer["unwritable"]
        ]
        remedy = "Use a folder that all nodes mount at the same path and may write to."
        found = f"{folder}: {'; '.join(wrong) if wrong else 'seen and writable on every node'}"
        yield Check(name, "fail" if wrong else "ok", found, remedy if wrong else "")


@contextlib.contextmanager
def _tokens(folders: Mapping[str, Path]) -> Iterator[list[Path]]:
    """A small file in each folder, for as long as the block takes; no new folder stays."""
    new = [folder for folder in folders.values() if not folder.exists()]
    tokens = [folder / f".derain-{uuid.uuid4().hex}" for folder in folders.values()]
    try:
        for token in tokens:
            token.parent.mkdir(parents=True, exist_ok=True)
            token.write_bytes(b"")
        yield tokens
    finally:
        for token in tokens:
            token.unlink(missing_ok=True)
        for folder in new:
            with contextlib.suppress(OSError):  # somebody has put something there meanwhile
                folder.rmdir()
