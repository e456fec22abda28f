"""The step of one run, on one device or as one rank of several: losses, backward, update.

Knows nothing of loops, files of data, Ray or MLflow.
"""

import bisect
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derain import checkpoint, parallel
from derain.checkpoint import Checkpoint, State
from derain.config import Config
from derain.config.training import TrainConfig
from derain.data.loader import Batch
from derain.data.order import mix64
from derain.errors import DerainError, UsageError, WeightsError
from derain.models import build, fingerprint, frozen_modules, trained_parameters
from derain.models.cost import cost
from derain.models.losses import DerainLoss, build_loss
from derain.models.schedules import RunningError, Schedule
from derain.parallel import Rank
from derain.predictor import check_trust

log = logging.getLogger(__name__)


def pick_device(train: TrainConfig) -> torch.device:
    """The device that the config asks for; never another one in its place."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "train.device is cuda, but torch finds no CUDA device here. "
            "Run on a GPU machine, or give --set train.device=cpu."
        )
    wants_cuda = train.device == "cuda" or (train.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if wants_cuda else "cpu")


def place(batch: Batch[np.ndarray], train: TrainConfig) -> Batch[Tensor]:
    """The batch on a run's device, NCHW, float32 in [0, 1]."""
    device, layout = pick_device(train), _layout(train)

    def tensor(pictures: np.ndarray) -> Tensor:
        host = torch.from_numpy(np.ascontiguousarray(pictures))
        if device.type == "cuda":
            host = (
                host.pin_memory()
            )  # torch keeps it until the copy, which nobody waits for, is done
        nchw = host.to(device, non_blocking=True).permute(0, 3, 1, 2)
        return nchw.to(torch.float32, memory_format=layout).div_(255)

    rain, clean = tensor(batch.rain), tensor(batch.clean)
    return Batch(rain, clean, ids=batch.ids, share=batch.share, following=batch.following)


def learning_rate(train: TrainConfig, step: int) -> float:
    """Rate of step number `step` (from 0): linear warm-up, then a cosine from lr to lr_min."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    progress = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    floor = min(train.lr_min, train.lr)
    return floor + (train.lr - floor) * (1 + math.cos(math.pi * progress)) / 2


def build_network(config: Config) -> nn.Module:
    """The network of a config with its first weights, which the seed decides.

    Raises WeightsError where pretrained weights are missing or do not fit.
    """
    torch.manual_seed(config.seed)
    options = config.model.model_dump(exclude={"name"})
    try:
        return build(config.model.name, **options)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def loss_of(config: Config, network: nn.Module) -> DerainLoss:
    """The loss of a config. Raises WeightsError where the perceptual network's are missing."""
    options = config.loss.model_dump(exclude={"schedule", "perceptual_weights"})
    schedule, weights = config.loss.schedule, config.loss.perceptual_weights
    try:
        made = Schedule(**schedule.model_dump()) if schedule else None
        return build_loss(network, **options, schedule=made, vgg_weights=weights)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(str(error)) from error


def without_weights(config: Config) -> Config:
    """The config with random weights for all that is pretrained: for what needs sizes alone."""
    values: dict[str, object] = {}
    if hasattr(config.model, "encoder_weights"):
        values["model.encoder_weights"] = "random"
    if {config.loss.perceptual, config.loss.contrastive} & {"vgg16", "vgg19"}:
        values["loss.perceptual_weights"] = "random"
    return config.replaced(values, "without weights")


def describe(config: Config) -> dict[str, Any]:
    """What `derainctl train --dry-run --json` prints; no pretrained weights are loaded for it."""
    network = build_network(without_weights(config))
    return {"network": asdict(cost(network)), "config": config.model_dump(mode="json")}


def restore_network(saved: Checkpoint, *, trust: bool = False) -> nn.Module:
    """The network of a checkpoint with its trained weights: the average where there is one.

    Raises WeightsError when the frozen parts are not those that it was trained with, UsageError for
    a class of somebody's, whose code would run, without `trust`.
    """
    check_trust(saved.config.model.name, saved.folder, trust)
    network = build_network(saved.config)
    _check_frozen(network, saved)
    trained = saved.ema() or saved.model()
    network.load_state_dict({**network.state_dict(), **trained})
    return network.eval()


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
        self._parallel = parallel.wrap(self.network, config.train.parallel, device, rank)
        self._forward = torch.compile(self._parallel) if config.train.compile else self._parallel
        # Named after wrapping: with fsdp2 the parameters are other ones.
        self._trained = trained_parameters(network)
        train = config.train
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=train.lr, betas=train.betas, weight_decay=train.weight_decay
        )
        adaptive = loss.schedule is not None and loss.schedule.kind == "progress_adaptive"
        self._error = RunningError() if adaptive else None
        self._ema = _copies(self._trained) if train.ema_decay is not None else None
        self._frozen = tuple(f"{name}." for name in frozen_modules(network))
        self._fitting: dict[int, int] = {}

    def step(self, number: int, batch: Batch[Tensor], lr_scale: float = 1.0) -> dict[str, Tensor]:
        """Train on one rank's part of a batch; returns total loss and its terms, not yet averaged
        over the ranks."""
        self.begin(number, lr_scale)
        progress = number / self._config.train.steps
        figures: dict[str, Tensor] = {}
        parts = self.parts(batch)
        for part in parts:
            with parallel.exchanging(self._parallel, wanted=part is parts[-1]):
                total, terms = self.losses(part, progress)
                self.backward(total, part.share)
            for name, value in {"loss": total, **terms}.items():
                weighed = value.detach() * (len(part.rain) / len(batch.rain))
                figures[name] = figures[name] + weighed if name in figures else weighed
        self.update()
        return figures

    def begin(self, number: int, lr_scale: float = 1.0) -> None:
        """Make step `number` what it is: its chance, its rate, no gradients yet.

        All chance is a function of (seed, step, rank), so there is none to save.
        """
        seed = mix64(self._config.seed, 3, number, self._rank.number)
        torch.manual_seed(int(seed >> np.uint64(1)))
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._config.train, number) * lr_scale
        self._optimizer.zero_grad(set_to_none=True)
        self._heard = torch.zeros((), device=self._device)

    def parts(self, batch: Batch[Tensor]) -> list[Batch[Tensor]]:
        """The batch in micro-batches, as `train.micro_batch_size` says; their shares add up."""
        size = self._micro_size(batch)
        count = len(batch.rain)
        return [_slice(batch, slice(at, at + size)) for at in range(0, count, size)]

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
        norms = torch.stack(torch._foreach_norm(parallel.own(self._trained.values())))
        return not bool(self._rank.total((~norms.isfinite()).any().float()))

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The network with its averaged weights, where the run keeps them, during the block."""
        if self._ema is None:
            yield self.network
            return
        trained = _copies(self._trained)
        _copy(self._ema, self._trained)
        try:
            yield self.network
        finally:
            _copy(trained, self._trained)

    def state_dict(self) -> dict[str, Tensor]:
        """The network's whole tensors without those of frozen modules; all ranks must ask."""
        tensors = self.network.state_dict()
        return {
            name: parallel.whole(tensor)
            for name, tensor in tensors.items()
            if not name.startswith(self._frozen)
        }

    def save(self, folder: Path, state: State) -> Path:
        """Write a checkpoint of this moment; all ranks must call it, rank 0 writes."""
        model, optimizer = self.state_dict(), self._optimizer_state()
        ema = self._ema and {**model, **{k: parallel.whole(v) for k, v in self._ema.items()}}
        if not self._rank.leads:
            return checkpoint.folder_of(folder, state.step)
        return checkpoint.save(
            folder, self._config, state, model=model, ema=ema, optimizer=optimizer
        )

    @property
    def running_error(self) -> dict[str, float] | None:
        """What an adaptive schedule goes by, for the checkpoint's state."""
        return None if self._error is None else asdict(self._error)

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint of an equal network, written by any number of ranks."""
        if self._error is not None and saved.state.running_error is not None:
            self._error = RunningError(**saved.state.running_error)
        _check_frozen(self.network, saved)
        present = self.network.state_dict()
        trained = saved.model()
        spread = {name: parallel.like(tensor, present[name]) for name, tensor in trained.items()}
        self.network.load_state_dict({**present, **spread})
        self._restore_optimizer(saved.optimizer())
        average = saved.ema()
        if self._ema is not None and average is not None:
            self._ema = {k: parallel.like(average[k], v) for k, v in self._ema.items()}

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
                    slot[key] = parallel.like(value, weights[index])
        self._optimizer.load_state_dict(state)

    def _placed(self, network: nn.Module) -> nn.Module:
        # fully_shard takes contiguous parameters only; the feature maps may still be NHWC.
        spread = self._config.train.parallel == "fsdp2" and self._rank.world > 1
        if spread:
            return network.to(self._device)
        return network.to(self._device).to(memory_format=_layout(self._config.train))

    def _micro_size(self, batch: Batch[Tensor]) -> int:
        wanted = self._config.train.micro_batch_size
        if wanted is None:
            return len(batch.rain)
        if wanted == "auto":
            crop_px = batch.rain.shape[-1]
            if crop_px not in self._fitting:
                self._fitting[crop_px] = self._largest_that_fits(batch)
            return self._fitting[crop_px]
        return wanted

    def _largest_that_fits(self, batch: Batch[Tensor]) -> int:
        """Crops in the fewest equal parts that fit in memory, forward and backward, on all ranks.

        Room for the optimiser's state is held meanwhile, as that is not there before the first
        step. Nothing is exchanged: a rank that fails must not leave the others waiting.
        """
        batch = self._filled_up(batch)
        room = [copy for _ in range(2) for copy in _copies(self._trained).values()]
        count = len(batch.rain)
        parts = _fewest_parts(
            count, lambda parts: self._fits(_slice(batch, slice(0, -(-count // parts))))
        )
        del room
        size = self._rank.least(-(-count // parts), self._device)
        log.info("micro-batches of %d of %d crops a rank", size, count)
        return size

    def _filled_up(self, batch: Batch[Tensor]) -> Batch[Tensor]:
        """The batch, repeated to the most pictures that this rank gets of its size: the one at hand
        may be the short last one of an epoch."""
        crop_px = batch.rain.shape[-1]
        stages = [stage for stage in self._config.train.stages if stage.crop_px == crop_px]
        count = -(-max(stage.batch_size for stage in stages) // self._rank.world)
        taken = torch.arange(count, device=self._device) % len(batch.rain)
        layout = _layout(self._config.train)
        rain, clean = (side[taken].to(memory_format=layout) for side in (batch.rain, batch.clean))
        return replace(batch, rain=rain, clean=clean, ids=np.resize(batch.ids, count))

    def _fits(self, batch: Batch[Tensor]) -> bool:
        try:
            with parallel.exchanging(self._parallel, wanted=False):
                total, _ = self.losses(batch, progress=0.0)
                total.backward()
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            return False
        finally:
            self._optimizer.zero_grad(set_to_none=True)
            self._heard.zero_()
        return True

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
        """The routes of a batch; a rank without samples has one picture, which counts nothing."""
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
            averages = parallel.own(self._ema.values())
            torch._foreach_lerp_(averages, parallel.own(self._trained.values()), 1 - decay)


def _fewest_parts(count: int, fits: Callable[[int], bool]) -> int:
    """Into how few parts `count` crops must be cut: doubled until they fit, then looked for between
    the last two, since each trial is the work of a step."""
    parts = 1
    while not fits(parts):
        if parts == count:
            raise DerainError(
                "Not even one crop fits in memory. Give a smaller train.crop_px or network."
            )
        parts = min(2 * parts, count)
    return bisect.bisect_left(range(parts), True, lo=parts // 2 + 1, key=fits)


def _layout(train: TrainConfig) -> torch.memory_format:
    return torch.channels_last if train.channels_last else torch.contiguous_format


def fingerprints(network: nn.Module) -> dict[str, str]:
    """What tells a network's frozen parts apart: name of the module to digest."""
    return {name: fingerprint(part) for name, part in frozen_modules(network).items()}


def _check_frozen(network: nn.Module, saved: Checkpoint) -> None:
    here, there = fingerprints(network), dict(saved.state.frozen)
    if here != there:
        raise WeightsError(
            f"{saved.folder}: its frozen parts were {there}, the ones here are {here}. "
            "Use the pretrained weights that the run began with."
        )


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    torch._foreach_copy_(parallel.own(target.values()), parallel.own(source.values()))


def _whole_or_plain(value: Any) -> Any:
    return parallel.whole(value) if isinstance(value, Tensor) else value


def _slice(batch: Batch[Tensor], part: slice) -> Batch[Tensor]:
    """Some pictures of a batch, with their share of the global batch."""
    rain = batch.rain[part]
    share = batch.share * len(rain) / len(batch.rain)
    return replace(batch, rain=rain, clean=batch.clean[part], ids=batch.ids[part], share=share)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
