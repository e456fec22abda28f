"""The step of one run, on one device or as one rank of several: losses, backward, update.

Knows nothing of loops, files of data, Ray or MLflow.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derain.config import Config
from derain.config.training import TrainConfig
from derain.data.loading.loader import Batch
from derain.data.loading.order import mix64
from derain.models import frozen_modules, trained_parameters
from derain.models.losses.derain_loss import DerainLoss
from derain.models.losses.schedules import RunningError
from derain.training import checkpoint
from derain.training.checkpoint import Checkpoint, State
from derain.training.factory import check_frozen, fingerprints
from derain.training.micro_batches import MicroBatches
from derain.training.process import distributed
from derain.training.process.device import layout, seed_all
from derain.training.process.distributed import Rank


def learning_rate(train: TrainConfig, step: int) -> float:
    """Rate of step number `step` (from 0): linear warm-up to lr, lr, then a cosine to lr_min."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    begin = max(train.warmup_steps, round(train.constant_share * train.steps))
    progress = max(0, step - begin) / max(1, train.steps - begin)
    floor = min(train.lr_min, train.lr)
    return floor + (train.lr - floor) * (1 + math.cos(math.pi * progress)) / 2


class Trainer:
    """One network, its loss and its optimiser: what a step changes, and how it is saved."""

    def __init__(
        self,
        config: Config,
        network: nn.Module,
        loss: DerainLoss,
        *,
        device: torch.device,
        rank: Rank,
        routes: np.ndarray | None = None,
    ) -> None:
        """`routes`: the expert of every sample by its id, for a network that takes them."""
        self._config = config
        self._routes = routes
        self._rank = rank
        self._device = device
        self._loss = loss.to(device)
        self.network = self._placed(network).train()
        self._parallel = distributed.wrap(self.network, config.train.parallel, device, rank)
        self._forward = torch.compile(self._parallel) if config.train.compile else self._parallel
        # Named after wrapping: with fsdp2 the parameters are other ones.
        self._trained = trained_parameters(network)
        train = config.train
        self._optimizer = torch.optim.AdamW(
            self._trained.values(),
            lr=train.lr,
            betas=train.betas,
            weight_decay=train.weight_decay,
            fused=True,
        )
        adaptive = loss.schedule is not None and loss.schedule.kind == "progress_adaptive"
        self._error = RunningError() if adaptive else None
        self._heard = torch.zeros((), device=device)
        """What the parts of a step tell an adaptive schedule."""
        self._ema = _copies(self._trained) if train.ema_decay is not None else None
        self._frozen = tuple(f"{name}." for name in frozen_modules(network))
        self._micro_batches = MicroBatches(train, rank, self._rehearse)

    def step(self, number: int, batch: Batch[Tensor], lr_scale: float = 1.0) -> dict[str, Tensor]:
        """Train on one rank's part of a batch; returns total loss and its terms, not yet averaged
        over the ranks."""
        parts = self._micro_batches.parts(batch)  # may rehearse, which draws from chance
        self.begin(number, lr_scale)
        progress = number / self._config.train.steps
        figures: dict[str, Tensor] = {}
        for part in parts:
            with distributed.exchanging(self._parallel, wanted=part is parts[-1]):
                total, terms = self.losses(part, progress)
                if part is parts[0]:
                    self._forget_gradients()
                self.backward(total, part.share)
            for name, value in {"loss": total, **terms}.items():
                weighed = value.detach() * (len(part.rain) / len(batch.rain))
                figures[name] = figures[name] + weighed if name in figures else weighed
        self.update()
        return figures

    def begin(self, number: int, lr_scale: float = 1.0) -> None:
        """Make step `number` what it is: its chance and its rate.

        All chance is a function of (seed, step, rank), so there is none to save.
        """
        seed = mix64(self._config.seed, 3, number, self._rank.number)
        seed_all(self._device, int(seed >> np.uint64(1)))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config.train, number) * lr_scale
        self._heard = torch.zeros((), device=self._device)

    def losses(self, batch: Batch[Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss of a batch and its terms; `progress` through the run is in [0, 1)."""
        with self._autocast():
            return self._losses(batch, progress)

    def backward(self, total: Tensor, share: float) -> None:
        """Add the gradients of a loss that stands for `share` of the global batch."""
        # Ranks may hold unequal parts of the batch: DDP's mean becomes the mean over samples.
        (total * (share * self._rank.world)).backward()

    def update(self) -> None:
        """Clip, step, average: what the gradients do to the weights."""
        train = self._config.train
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained.values(), train.clip_norm)
        self._optimizer.step()
        self._update_ema(train.ema_decay)
        if self._error is not None:
            self._error.update(self._rank.total(self._heard).item())

    def is_finite(self) -> bool:
        """False when a weight of any rank is not finite."""
        norms = torch.stack(torch._foreach_norm(distributed.own(self._trained.values())))
        return not bool(self._rank.total((~norms.isfinite()).any().float()))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network as a checkpoint has it, on all ranks, during the block: with its averaged
        weights, where the run keeps them.

        What BatchNorm has counted stays that of rank 0, which saves it; the others' counts differ,
        and nothing but this goes by them.
        """
        counted = (buffer for buffer in self.network.buffers() if buffer.is_floating_point())
        self._rank.follow_the_first(counted)
        if self._ema is None:
            yield self.network
            return
        trained = _copies(self._trained)
        self._take(self._ema)
        try:
            yield self.network
        finally:
            self._take(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The network's whole tensors without those of frozen modules; all ranks must ask."""
        tensors = self.network.state_dict()
        return {
            name: distributed.whole(tensor)
            for name, tensor in tensors.items()
            if not name.startswith(self._frozen)
        }

    def save(self, folder: Path, state: State) -> Path:
        """Write a checkpoint of this moment; all ranks must call it, rank 0 writes."""
        model, optimizer = self.state_dict(), self._optimizer_state()
        ema = self._ema and {**model, **{k: distributed.whole(v) for k, v in self._ema.items()}}
        if not self._rank.leads:
            return checkpoint.folder_of(folder, state.step)
        return checkpoint.save(
            folder, self._config, state, model=model, ema=ema, optimizer=optimizer
        )

    @property
    def frozen(self) -> dict[str, str]:
        """What identifies the parts of network and loss that no checkpoint holds."""
        return fingerprints(self.network, self._loss)

    @property
    def running_error(self) -> dict[str, float] | None:
        """What an adaptive schedule goes by, for the checkpoint's state."""
        return None if self._error is None else asdict(self._error)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint of an equal network, written by any number of ranks."""
        if self._error is not None and saved.state.running_error is not None:
            self._error = RunningError(**saved.state.running_error)
        check_frozen(saved, self.network, self._loss)
        present = self.network.state_dict()
        trained = saved.model()
        spread = {name: distributed.like(tensor, present[name]) for name, tensor in trained.items()}
        self.network.load_state_dict({**present, **spread})
        distributed.reshard(self.network)
        self._restore_optimizer(saved.optimizer())
        average = saved.ema()
        if self._ema is not None and average is not None:
            self._ema = {k: distributed.like(average[k], v) for k, v in self._ema.items()}

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        """Put others in the place of the trained weights."""
        _copy(weights, self._trained)
        distributed.reshard(self.network)

    def _forget_gradients(self) -> None:
        """Drop those of the step before, once the forward pass has taken its memory.

        Before it, they are the last things at the end of malloc's heap: without them it goes back
        to the system, and each of its pages is fetched and cleared anew, 2 to 3 ms a step.
        """
        self._optimizer.zero_grad(set_to_none=True)

    def _rehearse(self, batch: Batch[Tensor]) -> None:
        """Take the memory that a step on a batch takes, and give it back; nothing else changes.

        Besides the passes a step holds the gradients of the one before, and the optimiser two
        numbers a weight, which are not there before the first one.
        """
        self._forget_gradients()
        counted = _copies(dict(self.network.named_buffers()))
        copies = 1 if self._optimizer.state else 3
        room = [copy for _ in range(copies) for copy in _copies(self._trained).values()]
        try:
            with distributed.exchanging(self._parallel, wanted=False):
                total, _ = self.losses(batch, progress=0.0)
                total.backward()
        finally:
            del room
            self._forget_gradients()
            _copy(counted, dict(self.network.named_buffers()))

    def _optimizer_state(self) -> dict[str, Any]:
        state = self._optimizer.state_dict()
        slots = {
            index: {key: _whole_or_plain(value) for key, value in slot.items()}
            for index, slot in state["state"].items()
        }
        return {**state, "state": slots}

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        weights = list(self._trained.values())
        for index, slot in state["state"].items():
            for key, value in slot.items():
                if value.shape == weights[index].shape:  # the others are counters
                    slot[key] = distributed.like(value, weights[index])
        self._optimizer.load_state_dict(state)

    def _placed(self, network: nn.Module) -> nn.Module:
        # fully_shard takes contiguous parameters only; the feature maps may still be NHWC.
        spread = self._config.train.parallel == "fsdp2" and self._rank.world > 1
        if spread:
            return network.to(self._device)
        network = network.to(self._device).to(memory_format=layout(self._config.train))
        # NHWC and NCHW are one for a weight of 1 x 1, and its gradient comes with NCHW's strides:
        # where they differ, DDP's exchange warns of it.
        for weight in network.parameters():
            if weight.shape[2:] == (1, 1):
                weight.data = weight.data.flatten(1).unflatten(1, weight.shape[1:])
        return network

    def _losses(self, batch: Batch[Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss and its terms, with those that the network itself adds."""
        weights: Mapping[str, float] = getattr(self.network, "auxiliary", {})
        given = self._route(batch)
        if not weights:
            return self._compared(self._forward(batch.rain, **given), batch, progress)
        output, extra = self._forward(batch.rain, clean=batch.clean, **given)
        total, terms = self._compared(output, batch, progress)
        total = total + sum(weight * extra[name] for name, weight in weights.items())
        return total, {**terms, **extra}

    def _route(self, batch: Batch[Tensor]) -> dict[str, Tensor]:
        """The routes of a batch; a rank without samples has one image, which counts nothing."""
        if self._routes is None:
            return {}
        found = self._routes[batch.ids] if len(batch.ids) else np.zeros(1, np.int64)
        return {"route": torch.from_numpy(found).to(self._device)}

    def _compared(
        self, output: Tensor, batch: Batch[Tensor], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of an output and its terms; `update` tells an adaptive schedule the error."""
        if self._error is None:
            return self._loss(output, batch.clean, rain=batch.rain, progress=progress)
        statistics = self._error.statistics
        error = (output.detach().float() - batch.clean).abs().mean()
        self._heard = self._heard + error * batch.share
        return self._loss(output, batch.clean, rain=batch.rain, statistics=statistics)

    def _autocast(self) -> contextlib.AbstractContextManager:
        wanted = self._config.train.precision == "bf16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=wanted)

    @torch.no_grad()
    def _update_ema(self, decay: float | None) -> None:
        if self._ema is not None and decay is not None:
            averages = distributed.own(self._ema.values())
            torch._foreach_lerp_(averages, distributed.own(self._trained.values()), 1 - decay)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    torch._foreach_copy_(distributed.own(target.values()), distributed.own(source.values()))


def _whole_or_plain(value: Any) -> Any:
    return distributed.whole(value) if isinstance(value, Tensor) else value
