"""Runs that train side by side in one process, on one stream of batches and one frozen encoder.

    every run names the position of the batch that its next step needs
    the earliest of these batches is cut once and put on the device once
    the runs at that position take their step with it, one after another

Each member keeps its own network, optimiser, random state and folder. Only functions of the step's
images that never change are shared, so losses and weights are those of the same run alone: to the
bit where the arithmetic is deterministic.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.data.loading.prefetch import BatchAt
from derain.errors import DerainError, StoppedError
from derain.models import fingerprint, frozen_modules
from derain.training.loop import Run
from derain.training.process.device import breaks_process, to_device

log = logging.getLogger(__name__)


class MemberError(Exception):
    """An error of a member that is none of ours, after which nothing in the process can be relied
    on: a CUDA error, for example, leaves a context in which every later call fails."""

    def __init__(self, name: str, failed: Mapping[str, Exception]) -> None:
        """`failed` has the errors of all members that failed, this one's included."""
        super().__init__(name, failed)
        self.name, self.failed = name, failed


class SharedModules:
    """The frozen modules of a cohort, and their outputs for the images of the current step.

    A frozen module is evaluated once per step for each image. Calls with any other input (the
    output of a network, a validation image) are not cached.
    """

    def __init__(self) -> None:
        self._modules: dict[Hashable, nn.Module] = {}
        self._image_storages: set[int] = set()
        self._outputs: dict[Hashable, Any] = {}
        self._versions: list[tuple[Tensor, int]] = []

    def share_frozen(self, owner: nn.Module) -> None:
        """Replace the frozen modules of a network or loss by equal ones of earlier members."""
        for name, module in frozen_modules(owner).items():
            owner.set_submodule(name, self._shared_instance(module))

    def begin(self, batch: Batch[Tensor]) -> None:
        """Forget the previous step; from now on, the images of this batch are cached."""
        self._outputs.clear()
        self._versions.clear()
        self._note_versions((batch.rain, batch.clean))
        self._image_storages = {_storage(image) for image, _ in self._versions}

    def check(self) -> None:
        """Raise DerainError if a shared tensor was modified in place."""
        if any(tensor._version != version for tensor, version in self._versions):
            raise DerainError(
                "A network of the cohort modified the batch or its encoder's features in place, "
                "so the other members would train on wrong data. Copy the tensors first, or train "
                "the trials separately with sweep.cohort=off."
            )

    def _shared_instance(self, module: nn.Module) -> nn.Module:
        """The first module that equals this one; its `forward` caches."""
        key = type(module), fingerprint(module)
        if key not in self._modules:
            module.forward = self._cached(module.forward)
            self._modules[key] = module
        return self._modules[key]

    def _cached(self, function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        @functools.wraps(function)
        def cached(x: Tensor) -> Any:
            if _storage(x) not in self._image_storages:
                return function(x)
            # Micro-batches are views of the batch: an equal view has the same place in memory.
            key = cached, x.data_ptr(), x.shape, x.stride(), x.dtype
            if key not in self._outputs:
                self._outputs[key] = function(x)
                self._note_versions(self._outputs[key])
            return self._outputs[key]

        return cached

    def _note_versions(self, value: Any) -> None:
        self._versions += [(tensor, tensor._version) for tensor in _tensors(value)]


@contextlib.contextmanager
def timing_shared(owners: Iterable[nn.Module], batch: Batch[Tensor]) -> Iterator[list[float]]:
    """Collects the seconds of the calls within the block that a cohort would make once for all its
    members: of the owners' frozen modules on the images of this batch."""
    images, seconds = {_storage(batch.rain), _storage(batch.clean)}, list[float]()
    begun: list[float] = []

    def now() -> float:
        if batch.rain.is_cuda:
            torch.cuda.synchronize(batch.rain.device)
        return time.perf_counter()

    def begin(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if _storage(inputs[0]) in images:
            begun.append(now())

    def end(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        if _storage(inputs[0]) in images:
            seconds.append(now() - begun.pop())

    with contextlib.ExitStack() as hooks:
        for owner in owners:
            for module in frozen_modules(owner).values():
                hooks.callback(module.register_forward_pre_hook(begin).remove)
                hooks.callback(module.register_forward_hook(end).remove)
        yield seconds


@dataclass
class Cohort:
    """Several runs, by name, that train on the same batches.

    `members` open and close their runs, as `loop.drive` takes one. `failed` has the errors of the
    runs that did not reach their end.
    """

    members: Mapping[str, AbstractContextManager[Run]]
    shared: SharedModules
    failed: dict[str, Exception] = field(default_factory=dict)
    _open: dict[str, Run] = field(init=False, default_factory=dict)

    def drive(self, batch_at: BatchAt, train: TrainConfig) -> None:
        """Train all members to their ends.

        A member that fails with an error of ours leaves, and the others continue. Members that are
        behind (resumed from an older checkpoint, or rolled back) go first until all are at the same
        position. Anything that is not an Exception, such as Ctrl-C, reaches all members and is
        raised; after any other error the members are stopped, and MemberError says whose it was.
        """
        try:
            for name in self.members:
                self._start(name)
            while self._open:
                positions = [run.position for run in self._open.values()]
                position = min(positions, key=lambda p: (p.epoch, p.offset))
                batch = to_device(batch_at(position), train)
                self.shared.begin(batch)
                for name in [n for n, run in self._open.items() if run.position == position]:
                    self._step(name, batch)
                    self.shared.check()
        except MemberError as error:
            self._close_all(StoppedError(f"Stopped, as {error.name} ended the process."))
            raise
        except BaseException as error:
            self._close_all(error)
            raise

    def _start(self, name: str) -> None:
        with self._recording_failure(name), contextlib.ExitStack() as stack:
            self._open[name] = stack.enter_context(self.members[name])
            self._close_if_ended(name, stack)

    def _step(self, name: str, batch: Batch[Tensor]) -> None:
        with self._recording_failure(name), contextlib.ExitStack() as stack:
            stack.push(self.members[name])  # an error passes through it, as in a `with` block
            self._open[name].step(batch)
            self._close_if_ended(name, stack)

    def _close_if_ended(self, name: str, stack: contextlib.ExitStack) -> None:
        """Leave the member to the stack, which closes it, or take it back until its next step."""
        if self._open[name].ended:
            del self._open[name]
        else:
            stack.pop_all()

    @contextlib.contextmanager
    def _recording_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._open.pop(name, None)
            if not isinstance(error, Exception):
                raise
            log.error("%s failed and leaves the cohort: %s", name, error)
            self.failed[name] = error
            if not isinstance(error, DerainError) or breaks_process(error):
                raise MemberError(name, self.failed) from error

    def _close_all(self, error: BaseException) -> None:
        """Close the remaining members with the error, so that each can finish its record."""
        for name in self._open:
            with contextlib.suppress(BaseException), contextlib.ExitStack() as stack:
                stack.push(self.members[name])
                raise error


def _tensors(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
