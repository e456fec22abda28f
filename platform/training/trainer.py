"""The training step of one run, alone or as one of several ranks: losses, backward, update.

Independent of the loop, data files, Ray and MLflow.

`process.distributed` gathers and spreads the tensors of a checkpoint, because
torch.distributed.checkpoint.state_dict took 149 instead of 7 ms to gather 1.8 M parameters and
their optimiser state in one process (402 instead of 18 ms on two DDP ranks), identifies the
optimiser state by name and not by index, as optimizer.pt does, and does not cover the moving
average.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derain.config import Config
from derain.data.loading.loader import Batch
from derain.data.loading.order import mix64
from derain.inference.predictor import check_output
from derain.models import frozen_modules, is_user_defined, trained_parameters
from derain.models.losses.loss_schedule import RunningError
from derain.models.losses.total_loss import TotalLoss
from derain.models.shapes import with_dimensions
from derain.training import checkpoint
from derain.training.checkpoint import Checkpoint, State
from derain.training.factory import check_frozen, fingerprints
from derain.training.micro_batches import MicroBatches
from derain.training.optimisation.learning_rate import build_schedule, learning_rate
from derain.training.optimisation.optimizer import build_optimizer, load_state
from derain.training.process import distributed
from derain.training.process.device import make_deterministic, memory_format, seed_all
from derain.training.process.distributed import Rank

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of each weight, besides the number of steps."""


class Trainer:
    """One network with its loss and optimiser: takes steps, saves and restores."""

    def __init__(
        self,
        config: Config,
        network: nn.Module,
        loss: TotalLoss,
        *,
        device: torch.device,
        rank: Rank,
        routes: np.ndarray | None = None,
    ) -> None:
        """`routes`: the expert of every sample, by sample id, for a network that takes routes."""
        self._config = config
        self._routes = routes
        self._rank = rank
        self._device = device
        make_deterministic(device, config.train.deterministic)
        self._loss = loss.to(device)
        self.network = self._to_device(network).train()
        # Not known of other people's networks; the platform's own use all parameters in every step.
        may_skip = is_user_defined(config.model.name)
        self._parallel = distributed.wrap(
            self.network, config.train.parallel, device, rank, may_skip_parameters=may_skip
        )
        self._forward = self._compiled() if config.train.compile else self._parallel
        # Collected after wrapping: fsdp2 replaces the parameters.
        self._trained = trained_parameters(network)
        train = config.train
        self._optimizer = build_optimizer(train, self._trained.values())
        self._lr_schedule = build_schedule(train)
        adaptive = loss.schedule is not None and loss.schedule.kind == "progress_adaptive"
        self._running_error = RunningError() if adaptive else None
        self._batch_error = torch.zeros((), device=device)
        """This rank's share of the step's mean error, for an adaptive schedule."""
        self._ema = _copies(self._trained) if train.ema_decay is not None else None
        self._frozen = tuple(f"{name}." for name in frozen_modules(network))
        self._micro_batches = MicroBatches(train, rank, self._probe)

    def step(self, number: int, batch: Batch[Tensor], lr_scale: float = 1.0) -> dict[str, Tensor]:
        """Train on one rank's part of a batch; returns the total loss, its terms and the errors of
        `_compare`, not yet averaged over the ranks."""
        parts = self._micro_batches.parts(batch)  # may probe, which draws random numbers
        self.begin_step(number, lr_scale)
        progress = number / self._config.train.steps
        metrics: dict[str, Tensor] = {}
        for part in parts:
            with distributed.gradient_sync(self._parallel, enabled=part is parts[-1]):
                if part is parts[0] and self._device.type != "cpu":
                    self._drop_gradients()
                total, terms = self.losses(part, progress)
                if part is parts[0] and self._device.type == "cpu":
                    self._drop_gradients()
                self.backward(total, part.share)
            for name, value in {"loss": total, **terms}.items():
                weighted = value.detach() * (len(part.rain) / len(batch.rain))
                metrics[name] = metrics[name] + weighted if name in metrics else weighted
        self.update()
        return metrics

    def begin_step(self, number: int, lr_scale: float = 1.0) -> None:
        """Seed the random generators for step `number` and set its learning rate.

        All randomness is a function of (seed, step, rank), so a checkpoint has no random state.
        """
        seed = mix64(self._config.seed, 3, number, self._rank.number)
        seed_all(self._device, int(seed >> np.uint64(1)))
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate(number) * lr_scale
        self._batch_error = torch.zeros((), device=self._device)

    def learning_rate(self, number: int) -> float:
        """The rate of step `number`, from 0."""
        return learning_rate(self._config.train, number, self._lr_schedule)

    def losses(self, batch: Batch[Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss of a batch and its terms; `progress` is that of the run, in [0, 1)."""
        with self._autocast():
            return self._losses(batch, progress)

    def backward(self, total: Tensor, share: float) -> None:
        """Add the gradients of the loss of a `share` of the global batch."""
        # Ranks may hold unequal parts of the batch: this turns DDP's mean into one over samples.
        (total * (share * self._rank.world)).backward()

    def update(self) -> None:
        """Apply the gradients: clip them, step the optimiser, update the moving average."""
        train = self._config.train
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained.values(), train.clip_norm)
        self._optimizer.step()
        self._update_ema(train.ema_decay)
        if self._running_error is not None:
            self._running_error.update(self._rank.sum(self._batch_error).item())

    def is_finite(self) -> bool:
        """False if any weight on any rank is NaN or infinite."""
        norms = torch.stack(torch._foreach_norm(distributed.local_tensors(self._trained.values())))
        return not bool(self._rank.sum((~norms.isfinite()).any().float()))

    @contextlib.contextmanager
    def validation_network(self) -> Iterator[nn.Module]:
        """During the block, the network as a checkpoint stores it, on all ranks: with the moving
        average of its weights, if the run keeps one.

        BatchNorm's statistics differ between ranks, and rank 0 saves its own. So all ranks take
        those of rank 0 and keep them after the block; training does not depend on them.
        """
        statistics = (buffer for buffer in self.network.buffers() if buffer.is_floating_point())
        self._rank.broadcast(statistics)
        if self._ema is None:
            yield self.network
            return
        trained = _copies(self._trained)
        self._set_trained(self._ema)
        try:
            yield self.network
        finally:
            self._set_trained(trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The network's whole tensors without those of frozen modules; all ranks must call it."""
        tensors = self.network.state_dict()
        return {
            name: distributed.full_tensor(tensor)
            for name, tensor in tensors.items()
            if not name.startswith(self._frozen)
        }

    def save(self, folder: Path, state: State) -> Path:
        """Write a checkpoint of the present state; all ranks must call it, rank 0 writes."""
        model, optimizer = self.state_dict(), self._optimizer_state()
        ema = self._ema and {
            **model,
            **{k: distributed.full_tensor(v) for k, v in self._ema.items()},
        }
        if not self._rank.leads:
            return checkpoint.folder_of(folder, state.step)
        return checkpoint.save(
            folder, self._config, state, model=model, ema=ema, optimizer=optimizer
        )

    @property
    def frozen(self) -> dict[str, str]:
        """Fingerprints of the frozen modules of network and loss, which no checkpoint holds."""
        return fingerprints(self.network, self._loss)

    @property
    def running_error(self) -> dict[str, float] | None:
        """The state of an adaptive loss schedule, for the checkpoint; None without one."""
        return None if self._running_error is None else asdict(self._running_error)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint of the same network, written by any number of ranks."""
        if self._running_error is not None and saved.state.running_error is not None:
            self._running_error = RunningError(**saved.state.running_error)
        check_frozen(saved, self.network, self._loss)
        present = self.network.state_dict()
        trained = with_dimensions(saved.model(), present)
        spread = {
            name: distributed.distributed_like(tensor, present[name])
            for name, tensor in trained.items()
        }
        self.network.load_state_dict({**present, **spread})
        distributed.reshard(self.network)
        self._restore_optimizer(saved.optimizer())
        average = saved.ema()
        if self._ema is not None and average is not None:
            average = with_dimensions(average, self._ema)
            self._ema = {
                k: distributed.distributed_like(average[k], v) for k, v in self._ema.items()
            }

    def _compiled(self) -> Callable[..., Any]:
        """The network under torch.compile.

        One GPU replays its kernels as CUDA graphs: at the papers' sizes the GPU is faster than
        Python can name its kernels. Not with micro-batches, whose gradients add up in memory that
        a replay would overwrite, and not under DDP, which has not been tried.
        """
        replays = (
            self._device.type == "cuda"
            and self._rank.world == 1
            and self._config.train.micro_batch_size is None
        )
        return torch.compile(self._parallel, mode="reduce-overhead" if replays else None)

    def _set_trained(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite the trained weights."""
        _copy(weights, self._trained)
        distributed.reshard(self.network)

    def _drop_gradients(self) -> None:
        """Free the gradients of the previous step; on a CPU after the forward pass has taken its
        memory.

        Before the forward pass they are the last allocations on malloc's heap: freeing them would
        return the heap to the system, and every page would be fetched and cleared again, which
        takes 2 to 3 ms per step. On a GPU the replayed kernels of a compiled network write the new
        gradients where the old ones were.
        """
        self._optimizer.zero_grad(set_to_none=True)

    def _probe(self, batch: Batch[Tensor]) -> None:
        """Allocate the memory that a step on a batch needs, and free it; nothing else changes.

        Besides its passes, a step holds the gradients of the previous step, and the optimiser two
        numbers per weight, which do not exist before the first step.
        """
        self._drop_gradients()
        buffers = _copies(dict(self.network.named_buffers()))
        copies = 1 if self._optimizer.state else 3
        reserve = [copy for _ in range(copies) for copy in _copies(self._trained).values()]
        try:
            with distributed.gradient_sync(self._parallel, enabled=False):
                total, _ = self.losses(batch, progress=0.0)
                total.backward()
        finally:
            del reserve
            self._drop_gradients()
            _copy(buffers, dict(self.network.named_buffers()))

    def _optimizer_state(self) -> dict[str, Any]:
        state = self._optimizer.state_dict()
        slots = {
            index: {key: _full_or_plain(value) for key, value in slot.items()}
            for index, slot in state["state"].items()
        }
        return {**state, "state": slots}

    def _restore_optimizer(self, state: dict[str, Any]) -> None:
        weights = list(self._trained.values())
        for index, slot in state["state"].items():
            for key, value in slot.items():
                if not isinstance(value, Tensor):
                    continue
                if key in MOMENTS and value.dim() == 0:  # a scalar of an earlier version
                    value = value.reshape(weights[index].shape)
                if value.shape == weights[index].shape:  # moments; the step counters are scalars
                    slot[key] = distributed.distributed_like(value, weights[index])
        load_state(self._optimizer, state, self._config.train)

    def _to_device(self, network: nn.Module) -> nn.Module:
        # fully_shard takes contiguous parameters only; the feature maps may still be NHWC.
        if self._config.train.parallel == "fsdp2" and self._rank.world > 1:
            return network.to(self._device)
        layout = memory_format(self._config.train)
        network = network.to(self._device).to(memory_format=layout)
        # A 1 x 1 weight is the same in NHWC and NCHW, but its gradient comes with NCHW's strides;
        # DDP's exchange warns if the two differ.
        for weight in network.parameters():
            if weight.shape[2:] == (1, 1):
                weight.data = weight.data.flatten(1).unflatten(1, weight.shape[1:])
        return network

    def _losses(self, batch: Batch[Tensor], progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss and its terms, including the auxiliary losses of the network itself."""
        weights: Mapping[str, float] = getattr(self.network, "auxiliary", {})
        route = self._route_argument(batch)
        if not weights:
            output = self._forward(batch.rain, **route)
            check_output(self.network, output, batch.rain)
            return self._compare(output, batch, progress)
        output, extra = self._forward(batch.rain, clean=batch.clean, **route)
        check_output(self.network, output, batch.rain)
        total, terms = self._compare(output, batch, progress)
        total = total + sum(weight * extra[name] for name, weight in weights.items())
        return total, {**terms, **extra}

    def _route_argument(self, batch: Batch[Tensor]) -> dict[str, Tensor]:
        """The routes of a batch. A rank without samples gets one image whose share is 0."""
        if self._routes is None:
            return {}
        routes = self._routes[batch.ids] if len(batch.ids) else np.zeros(1, np.int64)
        return {"route": torch.from_numpy(routes).to(self._device)}

    def _compare(
        self, output: Tensor, batch: Batch[Tensor], progress: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of an output and its terms, and `train_mae` and `train_mse`, its error in
        [0, 1]: one quantity in all steps and runs, as the loss of a schedule or of another run
        is not.
        """
        difference = output.detach().float() - batch.clean
        errors = {"train_mae": difference.abs().mean(), "train_mse": difference.square().mean()}
        statistics = None
        if self._running_error is not None:
            statistics = self._running_error.statistics
            self._batch_error = self._batch_error + errors["train_mae"] * batch.share
        total, terms = self._loss(
            output, batch.clean, rain=batch.rain, progress=progress, statistics=statistics
        )
        return total, {**terms, **errors}

    def _autocast(self) -> contextlib.AbstractContextManager:
        enabled = self._config.train.precision == "bf16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def _update_ema(self, decay: float | None) -> None:
        if self._ema is not None and decay is not None:
            averages = distributed.local_tensors(self._ema.values())
            torch._foreach_lerp_(
                averages, distributed.local_tensors(self._trained.values()), 1 - decay
            )


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    if not target:  # the buffers of most networks; torch refuses an empty list
        return
    torch._foreach_copy_(
        distributed.local_tensors(target.values()), distributed.local_tensors(source.values())
    )


def _full_or_plain(value: Any) -> Any:
    return distributed.full_tensor(value) if isinstance(value, Tensor) else value
