"""What a plug-in of each kind is: a class whose constructor takes the options of its section.

Any class with these methods serves; none has to inherit from anything. Each kind is checked before
a run starts by one call with small inputs. An object keeps nothing between two calls: checkpoints
hold the weights of the network and the state of the optimiser, and nothing else of a plug-in.
Examples: docs/guides/plugins.md.

A network is a subclass of torch.nn.Module, see `derain.models.MODELS`. An optimiser is a subclass
of torch.optim.Optimizer: its constructor is given the parameters and `lr`, and `weight_decay` and
`betas` if it has them; its state consists of tensors and plain numbers.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class LossTerm(Protocol):
    """A term of the loss, `loss.terms`; an nn.Module is moved to the device of the run."""

    def __call__(self, output: "Tensor", clean: "Tensor", rain: "Tensor") -> "Tensor":
        """NCHW, RGB, float32 in about [0, 1] -> a scalar with a gradient for `output`."""
        ...


class LossSchedule(Protocol):
    """The powers of the error during training, `loss.schedule`, for `loss.pixel: power`."""

    def __call__(self, progress: float) -> Sequence[tuple[float, float]]:
        """(weight, exponent) of each power at the completed share of the steps, in [0, 1)."""
        ...


class LearningRateSchedule(Protocol):
    """The learning rate after the warm-up, `train.lr_schedule`; a pure function."""

    def __call__(self, step: int, steps: int) -> float:
        """The factor, 0 or more, of `train.lr` in step `step` (from 0) of `steps`."""
        ...


class Augmentation(Protocol):
    """What is done to each crop, `data.augment`; a pure function of its arguments."""

    def __call__(self, pair: "np.ndarray", number: int) -> "np.ndarray":
        """uint8 (2, side, side, 3), the rainy crop first -> the same shape and type.

        `number`, in 0..2**64 - 1, is random and belongs to this use of the sample: take all
        randomness from it, for example by `numpy.random.default_rng(number)`.
        """
        ...


class Metric(Protocol):
    """A metric of `evaluate --metric`; its name in results is that of the class."""

    def __call__(self, derained: "np.ndarray", clean: "np.ndarray") -> float:
        """Two images, uint8, HWC, RGB, of equal size -> a finite number."""
        ...


class DatasetLayout(Protocol):
    """The pairs of a dataset, `prepare module:Name ROOT OUT`; `splits` are the names of its splits,
    of which the first is the default."""

    splits: Sequence[str]

    def pairs(self, names: Sequence[str], split: str) -> Iterable[tuple[str, str | None]]:
        """The (rainy, clean) names of each pair, clean None without a clean image.

        `names` are the images below the root, relative to it and sorted.
        """
        ...
