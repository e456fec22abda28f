"""Validation during training: the images are divided among the ranks."""

from statistics import fmean

import torch
from torch import nn

from derain.config import Config
from derain.data.loading.loader import open_all_pixels
from derain.data.prepared.roles import open_validation
from derain.evaluation.protocols import metric_names, quantised, score
from derain.inference.predictor import Predictor
from derain.training.process.device import pick_device
from derain.training.process.distributed import Rank


class Validation:
    """Scores a network on the validation images under `eval.protocol`, as at the end of the run."""

    def __init__(self, config: Config, rank: Rank) -> None:
        self._protocol = config.eval.protocol
        self._metrics = metric_names(self._protocol)
        self._device = pick_device(config.train)
        self._rank = rank
        datasets = open_validation(config.data)
        self._pixels = open_all_pixels(datasets, config.data, at_once=True)

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """The mean of the datasets' means; all ranks must call it, all get the same."""
        predictor = Predictor(network, self._device)
        means = [self._mean(predictor, number) for number in range(len(self._pixels))]
        return {name: fmean(mean[name] for mean in means) for name in self._metrics}

    def _mean(self, predictor: Predictor, dataset: int) -> dict[str, float]:
        pixels = self._pixels[dataset]
        sums = torch.zeros(len(self._metrics) + 1, dtype=torch.float64)  # the last counts images
        # All ranks predict equally often: sharded weights are gathered for each image.
        for turn in range(-(-len(pixels) // self._rank.world)):
            image = turn * self._rank.world + self._rank.number
            rain, clean = pixels[image % len(pixels)]
            derained = quantised(predictor.levels(rain), self._protocol)
            scores = score(derained, clean, self._protocol)
            if image < len(pixels) and image not in pixels.left_out:
                sums += sums.new_tensor([*(scores[name] for name in self._metrics), 1])
        *totals, count = self._rank.sum(sums.to(self._device)).tolist()
        return {name: total / count for name, total in zip(self._metrics, totals, strict=True)}
