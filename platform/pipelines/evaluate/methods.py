"""What is scored: whatever gives a derained image for a pair of a dataset."""

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from derain.inference.exported import is_exported
from derain.inference.predictor import Predictor
from derain.models import fingerprint
from derain.training.process.device import device_named


class Method(Protocol):
    """A network, or the images that another program wrote. Ray sends it to workers by pickling."""

    name: str

    @property
    def device(self) -> str:
        """`cpu` or `cuda`: where it computes in this process."""
        ...

    def identity(self, dataset: str) -> dict[str, Any]:
        """What its results on a dataset, given by its name in the evaluation, depend on."""
        ...

    def levels(self, dataset: str, key: str, rain: np.ndarray) -> np.ndarray:
        """The derained image of a pair: uint8, or float levels in [0, 255]; HWC RGB like `rain`.

        Raises DerainError if there is none.
        """
        ...


class ModelMethod:
    """A network: everything that `load_predictor` loads, and its arguments."""

    def __init__(
        self, model: str, device: str = "auto", *, trust: bool = False, stride: int | None = None
    ) -> None:
        from derain.pipelines.load_model import load_network, load_predictor

        self.name = model
        self._device, self._trust, self._stride = device, trust, stride
        if is_exported(model):
            self._predictor = load_predictor(model, device, trust=trust, stride=stride)
            file = hashlib.sha256(Path(model).read_bytes()).hexdigest()
            self._identity: dict[str, Any] = {"file": file, "stride": stride}
            return
        computes_on = device_named(device)
        loaded = load_network(model, trust=trust)
        self._predictor = Predictor(loaded.network, computes_on)
        self._identity = {
            "weights": fingerprint(loaded.network),
            "network": loaded.name,
            "options": loaded.options,
        }

    @property
    def device(self) -> str:
        """The type of the device on which it computes in this process."""
        return self._predictor.device.type

    def identity(self, dataset: str) -> dict[str, Any]:  # noqa: ARG002, one for all datasets
        """The digest of the weights or of the exported file, and what else it computes with."""
        return self._identity

    def levels(self, dataset: str, key: str, rain: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """See `Predictor.levels`."""
        return self._predictor.levels(rain)

    def derain(self, rain: np.ndarray) -> np.ndarray:
        """See `Predictor.derain`."""
        return self._predictor.derain(rain)

    def __getstate__(self) -> dict[str, Any]:
        """The network travels on the CPU; an exported file is loaded again from its path."""
        predictor = None if "file" in self._identity else self._predictor
        network = deepcopy(predictor.network).cpu() if predictor else None
        return {**self.__dict__, "_predictor": network}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On the device of the process that unpickles it."""
        self.__dict__.update(state)
        network = state["_predictor"]
        if network is not None:  # then a worker need not import MLflow, which takes seconds
            self._predictor = Predictor(network, device_named(self._device))
            return
        from derain.pipelines.load_model import load_predictor

        self._predictor = load_predictor(
            self.name, self._device, trust=self._trust, stride=self._stride
        )
