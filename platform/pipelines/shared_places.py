"""Whether every node of the cluster sees the folders that its workers will read and write."""

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from derain import cluster
from derain.config import Config
from derain.data.prepared.manifest import MANIFEST
from derain.errors import UsageError
from derain.storage.files import is_remote, locate
from derain.tracking import store

STORE = "the MLflow store"


def check_shared_places(config: Config) -> None:
    """Raise UsageError if a node does not see `output_dir`, a sqlite store or a dataset.

    Without this check each node would make a `mlflow.db` and checkpoints of its own. One node needs
    no check. A file is left in each folder, and looked for on every node.
    """
    written = {"output_dir": Path(config.output_dir).absolute()}
    database = store.sqlite_file(store.tracking_uri())
    if database is not None:
        written[STORE] = database.parent
    folders = (*config.data.train, *config.data.validation, *config.data.test)
    places = ((f"the dataset {name}", locate(name)) for name in folders)
    read = [
        (what, place / MANIFEST)
        for what, place in places
        if not is_remote(place) and (place / MANIFEST).is_file()
    ]
    check_places(written, read)


def check_places(written: Mapping[str, Path], read: Iterable[tuple[str, Path]]) -> None:
    """Raise UsageError if a node does not see a folder that is written to, or a file that is read.

    Both come with what a message calls them. One node needs no check.
    """
    if cluster.node_count() == 1:
        return
    with contextlib.ExitStack() as tokens:
        tokened = ((what, tokens.enter_context(_token(place))) for what, place in written.items())
        places = [*tokened, *read]
        unseen = cluster.on_every_node(_unseen, [str(path) for _, path in places])
    for node, numbers in unseen.items():
        if numbers:
            raise UsageError(_message(node, [places[number] for number in numbers]))


@contextlib.contextmanager
def _token(folder: Path) -> Iterator[Path]:
    """A small file in a folder, for as long as the block takes."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".derain-{uuid.uuid4().hex}"
    token.write_bytes(b"")
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _unseen(paths: Sequence[str]) -> list[int]:
    """The positions of the files that this node does not see."""
    return [number for number, path in enumerate(paths) if not Path(path).is_file()]


def _message(node: str, unseen: Sequence[tuple[str, Path]]) -> str:
    what = "; ".join(f"{name} ({path.parent})" for name, path in unseen)
    remedy = "Use folders on a file system that all nodes mount at the same path"
    if any(name == STORE for name, _ in unseen):
        remedy += ", and for the store an MLflow server: MLFLOW_TRACKING_URI=http://HOST:5000"
    return f"The node {node} does not see {what}, which this machine has. {remedy}."
