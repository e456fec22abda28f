"""Values for the tests of runs and of the model registry."""

import hashlib

import numpy as np

from benchmarks import _small

PROCESSES = 8
POINTS = 1200
EVALUATION = hashlib.sha256(b"evaluation images").hexdigest()
TRAIN = hashlib.sha256(b"training images").hexdigest()
TAGS = {
    "train_manifest_sha256": TRAIN,
    "config_sha256": hashlib.sha256(b"config").hexdigest(),
    "protocol": "rain13k",
}
NETWORK = {key: value for key, value in _small.NETWORK.items() if key != "name"}
BATCH = np.random.default_rng(0).integers(0, 256, (2, 21, 18, 3), dtype=np.uint8)
