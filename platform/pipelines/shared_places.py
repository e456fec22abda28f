"""Whether every node of the cluster sees the folders that its workers will read and write."""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from derain import cluster
from derain.config import Config
from derain.data.prepared.manifest import MANIFEST
from derain.errors import UsageError
from derain.storage.files import is_remote, locate
from derain.tracking import store


def check_shared_places(config: Config) -> None:
    """Raise UsageError if a node does not see `output_dir`, a sqlite store or a dataset.

    Without this check each node would make a `mlflow.db` and checkpoints of its own. One node needs
    no check. A file is left in each folder, and looked for on every node.
    """
    if cluster.node_count() == 1:
        return
    with contextlib.ExitStack() as tokens:
        places = {"output_dir": tokens.enter_context(_token(Path(config.output_dir).absolute()))}
        database = store.sqlite_file(store.tracking_uri())
        if database is not None:
            places["the MLflow store"] = tokens.enter_context(_token(database.parent))
        for folder in (*config.data.train, *config.data.validation, *config.data.test):
            place = locate(folder)
            if not is_remote(place) and (place / MANIFEST).is_file():
                places[f"the dataset {folder}"] = place / MANIFEST
        unseen = cluster.on_every_node(_unseen, [str(path) for path in places.values()])
    for node, numbers in unseen.items():
        if numbers:
            raise UsageError(_message(node, [list(places.items())[number] for number in numbers]))


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
    if any(name == "the MLflow store" for name, _ in unseen):
        remedy += ", and for the store an MLflow server: MLFLOW_TRACKING_URI=http://HOST:5000"
    return f"The node {node} does not see {what}, which this machine has. {remedy}."
