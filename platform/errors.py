"""The errors that a user can expect, each with its exit code.

    DerainError             the work failed                                   exit 1
    ├── StorageError        a store (objects, MLflow) that does not answer, a full disk
    ├── StoppedError        asked to stop: all is saved and can go on         exit 143
    └── UsageError          what was given cannot be worked with              exit 2
        ├── ConfigError     a config file or a --set value
        ├── DataError       an image, a source folder, a prepared dataset
        ├── OccupiedError   an output folder that holds something else
        └── WeightsError    weights that are missing or not what was expected

A message says what was expected, what was found, and what to do. `cli.py` prints it without a
traceback; everything that is not a DerainError is a defect of ours and keeps its traceback.
"""


class DerainError(Exception):
    """The work failed for a reason that the message explains."""

    exit_code = 1


class StorageError(DerainError):
    """A store or a disk did not do as it should, however often it was asked."""


class StoppedError(DerainError):
    """The work was asked to stop (SIGTERM); it is saved and can be continued."""

    exit_code = 143


class UsageError(DerainError):
    """What was given cannot be worked with; nothing was changed."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or a --set value is wrong."""


class DataError(UsageError):
    """An image, a source folder or a prepared dataset is missing or damaged."""


class OccupiedError(UsageError):
    """An output folder holds something that would be overwritten."""


class WeightsError(UsageError):
    """Weights are missing, or not the ones that were expected."""
