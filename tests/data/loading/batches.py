"""Batches of a small dataset, for the tests of the loader and of its processes."""

from typing import Any

from derain.config.training import Stage
from derain.data.loading.cache import TarPixels
from derain.data.loading.loader import Batch, Loader, Position
from derain.data.loading.order import Recipe
from derain.data.loading.prefetch import BatchAt
from derain.data.prepared.manifest import Prepared

FOURS = (Stage(from_step=0, crop_px=16, batch_size=4),)


def loader(
    dataset: Prepared, *stages: Stage, rank: int = 0, world: int = 1, **options: Any
) -> Loader:
    """Of the dataset, listed twice; four crops of 16 px per step, unless `stages` are given."""
    pixels = [TarPixels(dataset), TarPixels(dataset)]
    recipe = Recipe((len(dataset), len(dataset)), 3, **options)
    return Loader(pixels, recipe, stages or FOURS, rank=rank, world=world)


def take(batch_at: BatchAt, at: Position, count: int) -> list[Batch]:
    """`count` batches, the first one at `at`."""
    batches = []
    for _ in range(count):
        batches.append(batch_at(at))
        at = batches[-1].following
    return batches


def epoch(loader: Loader, at: Position) -> list[Batch]:
    """The batches from `at` to the end of its epoch."""
    batches = []
    number = at.epoch
    while at.epoch == number:
        batches.append(loader.batch(at))
        at = batches[-1].following
    return batches
