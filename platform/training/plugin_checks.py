"""The plug-ins of a run before its first step: each is built and called once with small inputs.

What would otherwise fail in the first step of a worker fails here, with a message that names the
plug-in, what was expected and what was found. Networks are rehearsed in `rehearsal`.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derain.config import Config
from derain.config.training import TrainConfig
from derain.data.loading.augment import build_augmentation, check_augmentation
from derain.errors import ConfigError, DerainError
from derain.models.losses.loss_schedule import OwnSchedule
from derain.plugins.options import resolve_plugin
from derain.plugins.resolve import is_plugin
from derain.training.factory import own_terms, schedule_of
from derain.training.optimisation import learning_rate
from derain.training.optimisation.optimizer import build_optimizer

SIDE_PX = 64
"""Side of the images that a loss term is called with, or the crop's if that is smaller."""
GUIDE = "See docs/guides/plugins.md."


def check_plugins(config: Config) -> None:
    """Build and call every plug-in of a config but its network.

    Raises ConfigError for one that is missing, does not take its options, fails, or does not
    return what is expected.
    """
    for key, name in config.plugins.items():
        resolve_plugin(name, f"class of `{key}`,")
    _check_terms(config)
    _check_loss_schedule(config)
    _check_lr_schedule(config.train)
    _check_optimizer(config.train)
    _check_augmentation(config)


def _check_terms(config: Config) -> None:
    side = min(SIDE_PX, *(stage.crop_px for stage in config.train.stages))
    for name, (_, term) in own_terms(config.loss).items():
        images = torch.rand(3, 1, 3, side, side, generator=torch.Generator().manual_seed(0))
        output = images[0].requires_grad_()
        expected = "(output, clean, rain) -> a scalar tensor with a gradient for output"
        with _explained(f"The loss term {name}", expected):
            found = term(output, images[1], images[2])
            if not isinstance(found, Tensor) or found.shape or not found.is_floating_point():
                raise _UnexpectedError(_shown(found))
            if not math.isfinite(found.item()):
                raise _UnexpectedError(str(found.item()))
            if not found.requires_grad:
                raise _UnexpectedError("a scalar without a gradient")
            found.backward()
            if output.grad is None:
                raise _UnexpectedError("a scalar without a gradient for output")


def _check_loss_schedule(config: Config) -> None:
    schedule = schedule_of(config.loss)
    if not isinstance(schedule, OwnSchedule):
        return
    expected = "(progress) -> [(weight, exponent), ...], finite, exponents above 0, always the same"
    with _explained(f"The loss schedule {config.plugins['loss.schedule']}", expected):
        for progress in (0.0, 0.5, 1 - 1e-6):
            found = [list(map(tuple, schedule.powers(progress))) for _ in range(2)]
            usable = all(
                len(power) == 2 and math.isfinite(sum(power)) and power[1] > 0 for power in found[0]
            )
            if not found[0] or not usable or found[0] != found[1]:
                raise _UnexpectedError(f"{found[0]} and then {found[1]} at progress {progress:g}")


def _check_lr_schedule(train: TrainConfig) -> None:
    schedule = learning_rate.build_schedule(train)
    if schedule is None:
        return
    expected = "(step, steps) -> a finite factor of train.lr, 0 or more, always the same"
    with _explained(f"The {learning_rate.KIND} {train.lr_schedule.name}", expected):
        for step in range(train.warmup_steps, train.steps, max(1, train.steps // 100)):
            found = [schedule(step, train.steps) for _ in range(2)]
            for factor in found:
                is_number = isinstance(factor, int | float | np.number)
                if not is_number or not math.isfinite(factor) or factor < 0:
                    raise _UnexpectedError(f"{factor!r} at step {step}")
            if found[0] != found[1]:
                raise _UnexpectedError(f"{found[0]} and {found[1]} at step {step}")


def _check_optimizer(train: TrainConfig) -> None:
    """Take two steps with small weights, one of them after saving and restoring the state."""
    name = train.optimizer.name
    if not is_plugin(name):
        return
    expected = (
        "a torch.optim.Optimizer whose state_dict has tensors and plain numbers only, from which "
        "another one goes on with the same bits"
    )
    with _explained(f"The optimiser {name}", expected):
        weights, copies = (_small_weights() for _ in range(2))
        optimizer, other = (build_optimizer(train, each) for each in (weights, copies))
        _step(optimizer, weights, 0)
        state = _through_a_file(optimizer.state_dict())
        _check_shapes(train, state, weights)
        with torch.no_grad():
            for copy, weight in zip(copies, weights, strict=True):
                copy.copy_(weight)
        other.load_state_dict(state)
        _step(optimizer, weights, 1)
        _step(other, copies, 1)
        if not all(map(torch.equal, weights, copies)):
            raise _UnexpectedError("other weights after a resume")


def _small_weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.linspace(-1, 1, 36).view(4, 1, 3, 3)), nn.Parameter(torch.ones(4))]


def _step(optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], number: int) -> None:
    for weight in weights:
        weight.grad = torch.linspace(0.1, 1 + number, weight.numel()).view(weight.shape)
    optimizer.step()


def _through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as a checkpoint keeps it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise _UnexpectedError(f"a state that a checkpoint cannot hold ({reason})") from None


def _check_shapes(
    train: TrainConfig, state: dict[str, Any], weights: Sequence[nn.Parameter]
) -> None:
    """With fsdp2 a worker gets its part of a weight, and of each tensor of the same shape."""
    if train.parallel != "fsdp2" or train.max_workers == 1:
        return
    for index, slot in state["state"].items():
        for key, value in slot.items():
            if isinstance(value, Tensor) and value.shape not in ((), weights[index].shape):
                raise _UnexpectedError(
                    f"{key} of the shape {tuple(value.shape)} for a weight of the shape "
                    f"{tuple(weights[index].shape)}, which train.parallel=fsdp2 cannot spread"
                )


def _check_augmentation(config: Config) -> None:
    chosen = config.data.augment
    own = build_augmentation(chosen)
    if own is None:
        return
    side = min(stage.crop_px for stage in config.train.stages)
    expected = (
        f"(pair, number) -> uint8 of the pair's shape, (2, {side}, {side}, 3), the same for the "
        "same arguments"
    )
    with _explained(f"The augmentation {chosen.name}", expected):
        if problem := check_augmentation(own, side):
            raise _UnexpectedError(problem)


class _UnexpectedError(Exception):
    """What a plug-in returned instead of what was expected."""


@contextmanager
def _explained(plugin: str, expected: str) -> Iterator[None]:
    """An error of a plug-in, or an unexpected result, as one message."""
    try:
        yield
    except DerainError:
        raise
    except _UnexpectedError as found:
        raise ConfigError(f"{plugin}: expected {expected}; found {found}. {GUIDE}") from None
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"{plugin} fails: {type(error).__name__}: {reason}. Expected {expected}. {GUIDE} "
            "`derainctl --debug` shows where."
        ) from error


def _shown(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a {found.dtype} tensor of the shape {tuple(found.shape)}"
    return f"a {type(found).__name__}"
