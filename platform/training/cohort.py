"""Runs that train side by side in one process, on one stream of batches and one frozen encoder.

    every loop asks for the batch at its position
    the earliest batch is cut once and put on the device once
    those that asked for it take their step with it, one after another

Each member keeps its own network, optimiser, chance and folder. What is shared are functions of the
step's images that never change, so losses and weights are those of the same run alone: to the bit
where the arithmetic is deterministic.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch, Position
from derain.data.loading.prefetch import BatchAt
from derain.errors import DerainError
from derain.models import fingerprint, frozen_modules
from derain.training.loop import Loop
from derain.training.process.device import to_device

log = logging.getLogger(__name__)


class Shared:
    """The frozen modules of a cohort, and what they make of the images of the step at hand.

    A frozen module is asked once a step for each image; a call with anything else (the output of
    a network, a held-out image) goes through to it.
    """

    def __init__(self) -> None:
        self._modules: dict[Hashable, nn.Module] = {}
        self._storages: set[int] = set()
        self._found: dict[Hashable, Any] = {}
        self._versions: list[tuple[Tensor, int]] = []

    def share_frozen(self, owner: nn.Module) -> None:
        """Put equal frozen modules of earlier members in the place of a network's or a loss's."""
        for name, module in frozen_modules(owner).items():
            owner.set_submodule(name, self._first(module))

    def begin(self, batch: Batch[Tensor]) -> None:
        """Forget the last step; from here on, the images are those of this batch."""
        self._found.clear()
        self._versions.clear()
        self._keep((batch.rain, batch.clean))
        self._storages = {_storage(image) for image, _ in self._versions}

    def check(self) -> None:
        """Raise DerainError when something that is shared was changed in its place."""
        if any(tensor._version != version for tensor, version in self._versions):
            raise DerainError(
                "A network of the cohort changed the batch or its encoder's features in their "
                "place, so the others would train on something else. Copy them first, or train "
                "its trials apart with sweep.cohort=off."
            )

    def _first(self, module: nn.Module) -> nn.Module:
        """The first module that was equal to this one; its `forward` remembers."""
        key = type(module), fingerprint(module)
        if key not in self._modules:
            module.forward = self._once(module.forward)
            self._modules[key] = module
        return self._modules[key]

    def _once(self, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        @functools.wraps(function)
        def remembered(x: Tensor) -> Any:
            if _storage(x) not in self._storages:
                return function(x)
            # Parts of the batch are views: the same part is the same place in the same memory.
            key = remembered, x.data_ptr(), x.shape, x.stride(), x.dtype
            if key not in self._found:
                self._found[key] = function(x)
                self._keep(self._found[key])
            return self._found[key]

        return remembered

    def _keep(self, value: Any) -> None:
        self._versions += [(tensor, tensor._version) for tensor in _tensors(value)]


@dataclass
class Cohort:
    """Several loops, by name, that are driven on the same batches.

    `failed` has the errors of those that did not come to their end.
    """

    loops: Mapping[str, Loop[Any]]
    shared: Shared
    failed: dict[str, Exception] = field(default_factory=dict)

    def follow(self, batch_at: BatchAt, train: TrainConfig) -> None:
        """Drive all to their ends.

        One that fails leaves and the others go on. Those that are behind (resumed from an older
        checkpoint, or rolled back) go first, until all stand together. What is no Exception, such
        as Ctrl-C, goes to all of them and is raised.
        """
        self._waiting: dict[str, Position] = {}
        try:
            for name in self.loops:
                self._go_on(name)
            while self._waiting:
                at = min(self._waiting.values(), key=lambda p: (p.epoch, p.offset))
                batch = to_device(batch_at(at), train)
                self.shared.begin(batch)
                for name in [name for name, wanted in self._waiting.items() if wanted == at]:
                    self._go_on(name, batch)
                    self.shared.check()
        except BaseException as error:
            self._end_with(error)
            raise

    def _go_on(self, name: str, batch: Batch[Tensor] | None = None) -> None:
        loop = self.loops[name]
        try:
            self._waiting[name] = next(loop) if batch is None else loop.send(batch)
            return
        except StopIteration:
            pass
        except Exception as error:
            log.error("%s failed and leaves the cohort: %s", name, error)
            self.failed[name] = error
        self._waiting.pop(name, None)

    def _end_with(self, error: BaseException) -> None:
        """Give every loop that is under way the chance to end its record."""
        for loop in self.loops.values():
            with contextlib.suppress(BaseException):
                loop.throw(error)


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
