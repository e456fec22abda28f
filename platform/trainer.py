"""The step and the loop of one run, on one device or as one rank of several.

Knows nothing of Ray or MLflow: it reports through a callback, and the process group, where there
is one, has been made by the caller.
"""

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from derain import checkpoint
from derain.checkpoint import Checkpoint, State
from derain.config import Config, TrainConfig
from derain.data.loader import Batch, Loader, Position
from derain.data.order import mix64
from derain.errors import DerainError, UsageError, WeightsError
from derain.models import build, fingerprint, frozen_modules
from derain.models.losses import DerainLoss

log = logging.getLogger(__name__)

LEDGER = "ledger.jsonl"
Report = Callable[[int, Mapping[str, float]], None]
"""Called on rank 0 with the number of steps that are done and the figures of the last one."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run leaves."""

    steps: int
    resumed_from_step: int
    loss_first: float
    loss_last: float
    checkpoint: Path
    weights_sha256: str
    seconds: float


@dataclass(frozen=True)
class Rank:
    """This process among those that train together."""

    number: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Rank 0 reports and writes the checkpoints."""
        return self.number == 0

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            dist.barrier()

    def mean(self, values: Tensor, share: float) -> Tensor:
        """The mean over the global batch of figures that each rank has for its own share."""
        values = values * share
        if self.world > 1:
            dist.all_reduce(values)
        return values


def pick_device(train: TrainConfig) -> torch.device:
    """The device that the config asks for; never another one in its place."""
    if train.device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "train.device is cuda, but torch finds no CUDA device here. "
            "Run on a GPU machine, or give --set train.device=cpu."
        )
    wants_cuda = train.device == "cuda" or (train.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if wants_cuda else "cpu")


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


def restore_network(saved: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its trained weights: the average where there is one.

    Raises WeightsError when the frozen parts are not those that it was trained with.
    """
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
    ) -> None:
        self._config = config
        self._rank = rank
        self._device = device
        self._loss = loss.to(device)
        self._format = (
            torch.channels_last if config.train.channels_last else torch.contiguous_format
        )
        self.network = network.to(device).to(memory_format=self._format).train()
        self._parallel = _parallel(self.network, device, rank)
        self._trained = {
            name: parameter
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        train = config.train
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=train.lr, betas=train.betas, weight_decay=train.weight_decay
        )
        self._ema = _copies(self._trained) if train.ema_decay is not None else None
        self._frozen = tuple(f"{name}." for name in frozen_modules(network))

    def step(self, number: int, batch: Batch) -> Tensor:
        """Train on one rank's part of a batch; returns total loss and its terms, not yet averaged
        over the ranks (see `figures`)."""
        train = self._config.train
        self._seed(number)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(train, number)
        with self._autocast():
            total, terms = self._losses(batch, progress=number / train.steps)
        self._optimizer.zero_grad(set_to_none=True)
        # Ranks may hold unequal parts of the batch: DDP's mean becomes the mean over samples.
        (total * (batch.share * self._rank.world)).backward()
        if train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained.values(), train.clip_norm)
        self._optimizer.step()
        self._update_ema(train.ema_decay)
        self.term_names = ("loss", *terms)
        return torch.stack([total.detach(), *(term.detach() for term in terms.values())])

    def state_dict(self) -> dict[str, Tensor]:
        """The network's tensors without those of frozen modules."""
        return self._without_frozen(self.network.state_dict())

    def save(self, folder: Path, state: State) -> Path:
        """Write a checkpoint of this moment."""
        ema = self._ema and {**self.state_dict(), **self._ema}
        return checkpoint.save(
            folder,
            self._config,
            state,
            model=self.state_dict(),
            ema=ema,
            optimizer=self._optimizer.state_dict(),
        )

    def restore(self, saved: Checkpoint) -> None:
        """Continue from a checkpoint of an equal network."""
        _check_frozen(self.network, saved)
        self.network.load_state_dict({**self.network.state_dict(), **saved.model()})
        self._optimizer.load_state_dict(saved.optimizer())
        average = saved.ema()
        if self._ema is not None and average is not None:
            self._ema = {name: average[name].to(self._device) for name in self._ema}

    def _seed(self, number: int) -> None:
        """Make all chance of this step a function of (seed, step, rank): nothing to save."""
        seed = mix64(self._config.seed, 3, number, self._rank.number)
        torch.manual_seed(int(seed >> np.uint64(1)))

    def _losses(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss and its terms, with those that the network itself adds."""
        rain, clean = self._tensor(batch.rain), self._tensor(batch.clean)
        weights: Mapping[str, float] = getattr(self.network, "auxiliary", {})
        if not weights:
            return self._loss(self._parallel(rain), clean, progress)
        output, extra = self._parallel(rain, clean=clean)
        total, terms = self._loss(output, clean, progress)
        total = total + sum(weight * extra[name] for name, weight in weights.items())
        return total, {**terms, **extra}

    def _tensor(self, pictures: np.ndarray) -> Tensor:
        """uint8 NHWC in 0..255 -> float32 NCHW in [0, 1] on the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(pictures))
        tensor = tensor.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        return tensor.to(torch.float32, memory_format=self._format).div_(255)

    def _autocast(self) -> contextlib.AbstractContextManager:
        wanted = self._config.train.precision == "bf16"
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=wanted)

    @torch.no_grad()
    def _update_ema(self, decay: float | None) -> None:
        if self._ema is not None and decay is not None:
            averages: list[Tensor] = list(self._ema.values())
            values: list[Tensor] = list(self._trained.values())
            torch._foreach_lerp_(averages, values, 1 - decay)

    def _without_frozen(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor for name, tensor in tensors.items() if not name.startswith(self._frozen)
        }


@dataclass
class Run:
    """The loop: positions in, steps, figures, ledger and checkpoints out."""

    config: Config
    trainer: Trainer
    loader: Loader
    folder: Path
    report: Report
    manifests: Sequence[str]
    rank: Rank = Rank()
    resume: Checkpoint | None = None

    def __call__(self) -> Outcome:
        """Train until `train.steps` are done.

        Raises DerainError when the loss is no longer finite; the checkpoints stay as they were.
        """
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        first, position = self._beginning()
        saved: Path | None = None
        with self._ledger(first) as ledger:
            for step in range(first, self.config.train.steps):
                batch = self.loader.batch(position)
                values = self.trainer.step(step, batch)
                ledger(step, position.epoch, batch.ids)
                position = batch.following
                done = step + 1
                saves = self._due(done, self.config.train.checkpoint_every_steps)
                if saves or step == first or self._due(done, self.config.train.log_every_steps):
                    self._figures(done, values, batch.share, began, done - first)
                if saves:
                    saved = self._save(done, position)
        if saved is None:  # resumed when all was done
            assert self.resume is not None
            saved = self.resume.folder
        return Outcome(
            steps=self.config.train.steps,
            resumed_from_step=first,
            loss_first=self._loss_first,
            loss_last=self._loss_last,
            checkpoint=saved,
            weights_sha256=checkpoint.load(saved).weights_sha256() if self.rank.leads else "",
            seconds=time.monotonic() - began,
        )

    def _beginning(self) -> tuple[int, Position]:
        """Steps that are done and the position of the next one."""
        self._loss_first = self._loss_last = math.nan
        if self.resume is None:
            return 0, Position()
        state = self.resume.state
        if tuple(self.manifests) != tuple(state.manifests):
            raise UsageError(
                f"{self.resume.folder}: was trained on {', '.join(state.manifests)}, data.train is "
                f"now {', '.join(self.manifests)}. Resume on the same prepared datasets."
            )
        self.trainer.restore(self.resume)
        self._loss_first, self._loss_last = state.loss["first"], state.loss["last"]
        return state.step, Position(state.epoch, state.offset)

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.config.train.steps

    def _figures(self, done: int, values: Tensor, share: float, began: float, steps: int) -> None:
        """Report the figures of a step, averaged over the ranks."""
        means = self.rank.mean(values.float(), share).tolist()
        figures = dict(zip(self.trainer.term_names, means, strict=True))
        if not all(math.isfinite(value) for value in means):
            raise DerainError(
                f"The loss of step {done} is not finite ({figures}). Earlier checkpoints are "
                "whole; try a smaller train.lr or a train.clip_norm."
            )
        self._loss_last = means[0]
        if math.isnan(self._loss_first):
            self._loss_first = means[0]
        figures["lr"] = learning_rate(self.config.train, done - 1)
        figures["steps_per_s"] = steps / (time.monotonic() - began)
        if self.rank.leads:
            self.report(done, figures)

    def _save(self, done: int, position: Position) -> Path:
        state = State(
            step=done,
            epoch=position.epoch,
            offset=position.offset,
            seed=self.config.seed,
            config_sha256=self.config.digest(),
            manifests=tuple(self.manifests),
            frozen=_fingerprints(self.trainer.network),
            loss={"first": self._loss_first, "last": self._loss_last},
        )
        path = self.folder / "checkpoints" / f"step-{done:08d}"
        if self.rank.leads:
            path = self.trainer.save(self.folder, state)
            checkpoint.prune(self.folder, self.config.train.keep_checkpoints)
        self.rank.barrier()
        return path

    @contextlib.contextmanager
    def _ledger(self, first: int) -> Iterator[Callable[[int, int, np.ndarray], None]]:
        """Writes which samples each step consumed; a resumed run drops what it does again."""
        if not self.config.train.ledger:
            yield _no_ledger
            return
        path = self.folder / LEDGER
        if self.rank.leads:
            _truncate_ledger(path, first)
        self.rank.barrier()
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

        def write(step: int, epoch: int, ids: np.ndarray) -> None:
            line = {"step": step, "epoch": epoch, "rank": self.rank.number, "ids": ids.tolist()}
            os.write(handle, (json.dumps(line) + "\n").encode())

        try:
            yield write
        finally:
            os.close(handle)


def _fingerprints(network: nn.Module) -> dict[str, str]:
    return {name: fingerprint(part) for name, part in frozen_modules(network).items()}


def _check_frozen(network: nn.Module, saved: Checkpoint) -> None:
    here, there = _fingerprints(network), dict(saved.state.frozen)
    if here != there:
        raise WeightsError(
            f"{saved.folder}: its frozen parts were {there}, the ones here are {here}. "
            "Use the pretrained weights that the run began with."
        )


def _parallel(network: nn.Module, device: torch.device, rank: Rank) -> nn.Module:
    if rank.world == 1:
        return network
    ids = [device.index or 0] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _no_ledger(step: int, epoch: int, ids: np.ndarray) -> None:
    """Where no ledger is asked for."""


def _truncate_ledger(path: Path, first: int) -> None:
    """Keep the lines of the steps before `first`, so that the file tells the surviving lineage."""
    kept = ""
    if first and path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = (line for line in lines if line.endswith("\n"))
        kept = "".join(line for line in whole if json.loads(line)["step"] < first)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(kept, encoding="utf-8")
    temporary.replace(path)
