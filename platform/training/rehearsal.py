"""A run's network before its first step: one pass at an odd size, of noise.

A user-defined network also takes a training step; those of the platform have tests for that.

What would otherwise fail in the first step of a worker, or in the scoring after the last one, fails
here, in the command's own process and on its CPU. Knows nothing of data, Ray and MLflow.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import Batch, Position
from derain.errors import ConfigError, DerainError, UsageError
from derain.inference.predictor import Predictor
from derain.models import is_user_defined, trained_parameters
from derain.models.losses.total_loss import TotalLoss
from derain.training import checkpoint
from derain.training.factory import build_network, loss_of, start_from
from derain.training.optimisation.optimizer import build_optimizer
from derain.training.plugin_checks import check_plugins
from derain.training.process.device import to_device
from derain.training.process.distributed import Rank
from derain.training.routes import takes_routes
from derain.training.trainer import Trainer

log = logging.getLogger(__name__)

LEAST_SIDE_PX = 33
"""Images of the pass have about this size: large enough for most networks, and fast."""
CROP_PX = 64
"""Crops of the training step are at most this large, or one stride."""


def rehearse(config: Config, smallest: tuple[int, int] | None = None) -> None:
    """Build the network and the loss of a run with their weights, and let the network derain.

    `smallest` is the (height, width) of the smallest held-out image; the network must derain it.

    Raises WeightsError for weights that are missing or do not fit, ConfigError for options or crops
    that do not fit the network, UsageError if the network fails or returns anything but an image.
    """
    for problem in find_problems(config, smallest):
        raise problem


def find_problems(config: Config, smallest: tuple[int, int] | None = None) -> Iterator[UsageError]:
    """All that `rehearse` would raise, one after the other: what depends on a part that fails is
    not tried."""
    try:
        check_plugins(config)
    except UsageError as error:
        yield error
        return
    torch.manual_seed(config.seed)
    try:
        network = build_network(config)
    except UsageError as error:
        yield error
        return
    stride: int = network.stride  # type: ignore[assignment]
    fits = True
    for check in (check_crops, _start_from):
        try:
            check(config, network)
        except UsageError as error:
            fits = False
            yield error
    try:
        with _explained(config):
            _derain(network, odd_size(stride))
            if smallest is not None and min(smallest) < LEAST_SIDE_PX:
                _derain(network, smallest)
            loss = loss_of(config, network)
            if config.train.optimizer.name != "adamw":
                build_optimizer(config.train, trained_parameters(network).values())
            if is_user_defined(config.model.name) and fits:
                _take_step(config, network, loss, stride)
    except UsageError as error:
        yield error


def _start_from(config: Config, network: nn.Module) -> None:
    if config.train.start_from is not None and checkpoint.newest(config.folder) is None:
        start_from(checkpoint.load(config.train.start_from), network)


def check_crops(config: Config, network: nn.Module) -> None:
    """Raise ConfigError if a stage's crops are no multiples of the network's stride."""
    stride: int = network.stride  # type: ignore[assignment]
    for number, stage in enumerate(config.train.stages):
        if stage.crop_px % stride:
            key = "train.crop_px" if number == 0 else f"train.progressive.{number - 1}.crop_px"
            below = stage.crop_px // stride * stride
            near = [size for size in (below, below + stride) if size >= 16]
            raise ConfigError(
                f"`{key}`: expected a multiple of {stride}, the stride of {config.model.name}, "
                f"found {stage.crop_px}; the nearest are {' and '.join(map(str, near))}."
            )


def odd_size(stride: int) -> tuple[int, int]:
    """Height and width of an image that is padded to two different odd multiples of the stride.

    They have no common divisor but the stride, so a network that needs a larger one fails.
    """
    multiple = -(-LEAST_SIDE_PX // stride)
    multiple = max(3, multiple + 1 - multiple % 2)
    odd_side = 1 - stride % 2  # an even stride divides no odd side
    return stride * multiple - odd_side, stride * (multiple + 2) - odd_side


def _derain(network: nn.Module, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Predictor(network, "cpu").levels(image)


def _take_step(config: Config, network: nn.Module, loss: TotalLoss, stride: int) -> None:
    """Forward and backward pass of one crop; logs which parameters get no gradient."""
    values = {"train.compile": False, "train.device": "cpu", "train.ema_decay": None}
    config = config.replaced(values, "rehearsal")
    routes = np.zeros(1, np.int64) if takes_routes(network) else None
    device = torch.device("cpu")
    trainer = Trainer(config, network, loss, device=device, rank=Rank(), routes=routes)
    trainer.begin_step(0)
    total, _ = trainer.losses(to_device(_noise(config, stride), config.train), 0.0)
    trainer.backward(total, 1.0)
    _warn_of_unused(config, network)


def _noise(config: Config, stride: int) -> Batch[np.ndarray]:
    smallest = min(stage.crop_px for stage in config.train.stages)
    side = min(smallest, max(CROP_PX // stride, 1) * stride)
    shape = (2, 1, side, side, 3)
    rain, clean = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Batch(rain, clean, np.zeros(1, np.int64), share=1.0, following=Position())


def _warn_of_unused(config: Config, network: nn.Module) -> None:
    trained = trained_parameters(network)
    unused = [name for name, parameter in trained.items() if parameter.grad is None]
    if unused:
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        log.warning(
            "train: %d of the %d parameters of %s get no gradient in a step and keep their values: "
            "%s%s. Remove them, or set requires_grad to False, if that is not meant.",
            len(unused), len(trained), config.model.name, ", ".join(unused[:5]), more,
        )  # fmt: skip


@contextmanager
def _explained(config: Config) -> Iterator[None]:
    """An error of a network's own code, as a message that names the network."""
    try:
        yield
    except UsageError:
        raise
    except DerainError as error:
        raise UsageError(f"`model.name`: {config.model.name}: {error}") from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(
            f"`model.name`: {config.model.name} fails in its first training step: "
            f"{type(error).__name__}: {reason}. `derainctl --debug` shows where."
        ) from error
