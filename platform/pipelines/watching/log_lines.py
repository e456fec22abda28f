"""Log lines of a worker that say which run or trial and which rank they are from."""

import contextlib
import logging
from collections.abc import Iterator, Sequence

from derain.config import Config
from derain.training.process.distributed import Rank


@contextlib.contextmanager
def log_lines_of(configs: Sequence[Config], rank: Rank, *, trials: bool) -> Iterator[None]:
    """Print what our code logs in the block to stderr, which Ray keeps in a file per process."""
    names = ", ".join(f"{config.folder.parent.name}/{config.name}" for config in configs)
    who = f"trial {names}" if trials else f"run {configs[0].name}"
    handler, logger = logging.StreamHandler(), logging.getLogger("derain")
    handler.setFormatter(_Formatter(f"{who}, rank {rank.number} of {rank.world}"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


class _Formatter(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__("%(asctime)s %(levelname)s %(who)s: %(message)s", defaults={"who": who})
