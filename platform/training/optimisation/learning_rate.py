"""The learning rate of a step: warm-up, and then the cosine or a schedule of the user's."""

import math

from derain.config.training import TrainConfig
from derain.plugins.options import build_plugin
from derain.plugins.protocols import LearningRateSchedule
from derain.plugins.resolve import is_plugin

KEY = "train.lr_schedule"
KIND = "learning-rate schedule"


def build_schedule(train: TrainConfig) -> LearningRateSchedule | None:
    """The schedule of the user's that a config names; None for the cosine. Raises ConfigError."""
    chosen = train.lr_schedule
    if not is_plugin(chosen.name):
        return None
    schedule: LearningRateSchedule = build_plugin(chosen.name, chosen.options, what=KIND, key=KEY)
    return schedule


def learning_rate(
    train: TrainConfig, step: int, schedule: LearningRateSchedule | None = None
) -> float:
    """Rate of step `step` (from 0): linear warm-up to lr, then `schedule`, which is what
    `build_schedule` returns. Without one: constant lr, then a cosine to lr_min."""
    if step < train.warmup_steps:
        return train.lr * (step + 1) / train.warmup_steps
    if schedule is not None:
        return train.lr * float(schedule(step, train.steps))
    begin = max(train.warmup_steps, round(train.constant_share * train.steps))
    progress = max(0, step - begin) / max(1, train.steps - begin)
    floor = min(train.lr_min, train.lr)
    return floor + (train.lr - floor) * (1 + math.cos(math.pi * progress)) / 2
