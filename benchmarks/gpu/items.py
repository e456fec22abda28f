"""Items of a stage, their results on disk, and the networks that they are about."""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from derain.config import Config, load_config
from derain.data.loading.loader import Batch, Position
from derain.training.cohort import SharedModules
from derain.training.factory import build_network, loss_of, without_pretrained
from derain.training.process.device import breaks_process, memory_format
from derain.training.process.distributed import Rank
from derain.training.trainer import Trainer

RESULTS = "results.jsonl"

Work = Callable[[], Mapping[str, Any]]
"""Does an item; returns its values. `ok: False` among them says that a check failed."""


@dataclass
class Bench:
    """The options of a call, and what has become of its items."""

    out: Path
    device: torch.device
    small: bool = False
    train: str | None = None
    only: tuple[str, ...] = ()
    deadline: float = float("inf")
    """Time of `time.monotonic` after which no item begins."""
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def run(self, stage: str, items: Iterable[tuple[str, Work]]) -> None:
        """Run the items of a stage that have no result yet."""
        self.out.mkdir(parents=True, exist_ok=True)
        done = {(row["stage"], row["item"]) for row in self.results()}
        for name, work in items:
            if (stage, name) in done or not self._is_wanted(name):
                continue
            if time.monotonic() > self.deadline:
                self.left.append(f"{stage} {name}")
                continue
            self._run(stage, name, work)

    def results(self) -> list[dict[str, Any]]:
        """The results so far, those of earlier calls too."""
        path = self.out / RESULTS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    def note_machine(self) -> None:
        """Print what the figures are of."""
        if self.device.type == "cuda":
            about = torch.cuda.get_device_properties(self.device)
            print(f"{about.name}, {about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")
        print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)

    def _is_wanted(self, name: str) -> bool:
        return not self.only or any(part in name for part in self.only)

    def _run(self, stage: str, name: str, work: Work) -> None:
        began = time.perf_counter()
        broken = False
        try:
            values = dict(work())
        except Exception as error:
            traceback.print_exc()
            broken = breaks_process(error)
            values = {"ok": False, "error": f"{type(error).__name__}: {error}"[:600]}
        seconds = round(time.perf_counter() - began, 2)
        row = {"stage": stage, "item": name, **values, "seconds": seconds}
        if not values.get("ok", True):
            self.failed.append(f"{stage} {name}")
        with (self.out / RESULTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(_line(row), flush=True)
        if self.device.type == "cuda" and not broken:
            torch.cuda.empty_cache()
        if broken:
            raise SystemExit("The GPU cannot be used by this process any more: run again.")


NETWORKS = ("fclip_unet", "clip_rpn", "rdmc", "prenet", "nafnet", "restormer", "mprnet")
THREE = NETWORKS[:3]
"""Those of the three papers."""
_WITHOUT_CLIP: dict[str, dict[str, Any]] = {"clip_rpn": {"model.routing": "single"}}
"""An image passes one sub-network anyway; CLIP's weights are not needed to choose it."""


def paper(bench: Bench, name: str, **changes: object) -> Config:
    """The config of a network at the paper's size with random weights; with `small`, the demo's."""
    config = load_config(f"configs/{name}.yaml", profile="smoke" if bench.small else "paper")
    values: dict[str, object] = {
        "name": "run",
        "output_dir": str(bench.out / "runs"),
        "train.device": bench.device.type,
        "train.steps": 1000,
        "train.num_workers": 1,
        "train.progressive": (),
        **_WITHOUT_CLIP.get(name, {}),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return without_pretrained(config.replaced(values, "benchmark"))


def trainer_of(
    config: Config, device: torch.device, shared: SharedModules | None = None
) -> Trainer:
    """A trainer of a new network; of a member of a cohort with `shared`."""
    network = build_network(config)
    if shared:
        shared.share_frozen(network)
    loss = loss_of(config, network)  # after sharing: it may use the network's encoder
    if shared:
        shared.share_frozen(loss)
    return Trainer(config, network, loss, device=device, rank=Rank())


def random_batch(config: Config, device: torch.device, count: int, side_px: int) -> Batch[Tensor]:
    """Noise as a batch on a device: rain and clean NCHW float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(1)
    layout = memory_format(config.train)
    rain, clean = (
        torch.rand(count, 3, side_px, side_px, generator=generator)
        .to(device)
        .to(memory_format=layout)
        for _ in range(2)
    )
    return Batch(rain, clean, ids=np.arange(count), share=1.0, following=Position())


def _line(row: Mapping[str, Any]) -> str:
    values = {k: v for k, v in row.items() if k not in ("stage", "item", "seconds")}
    shown = "  ".join(f"{key} {_number(value)}" for key, value in values.items())
    return f"{row['stage']:12s} {row['item']:40s} {shown}  ({row['seconds']} s)"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
