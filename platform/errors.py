"""The errors that a user may run into, each with its exit code.

    DerainError             the work failed                                         exit 1
    ├── StorageError        a store (object storage, MLflow) or a disk failed
    ├── StoppedError        asked to stop: everything is saved and can be resumed   exit 143
    └── UsageError          invalid input                                           exit 2
        ├── ConfigError     an invalid config file or --set value
        ├── DataError       an invalid image, source folder or prepared dataset
        ├── OccupiedError   an output folder that already holds other files
        └── WeightsError    missing or unexpected weights

A message says what was expected, what was found and what to do. `cli/app.py` prints it without a
traceback. Any other exception is a bug in derain-platform and keeps its traceback.
"""


class DerainError(Exception):
    """The work failed for a reason that the message explains."""

    exit_code = 1


class StorageError(DerainError):
    """A store or a disk failed: it does not answer, refuses the data, or is full."""


class StoppedError(DerainError):
    """The work was asked to stop (SIGTERM); everything is saved and can be resumed."""

    exit_code = 143


class UsageError(DerainError):
    """Invalid input; nothing was changed."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or a --set value is invalid."""


class DataError(UsageError):
    """An image, a source folder or a prepared dataset is missing or damaged."""


class OccupiedError(UsageError):
    """An output folder holds files that would be overwritten."""


class WeightsError(UsageError):
    """Weights are missing, or are not the expected ones."""
