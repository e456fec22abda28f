"""`python -m benchmarks._litserve FOLDER PORT`: a model folder behind LitServe, for `serve`."""

import base64
import sys
from typing import Any

import litserve
import numpy as np

from derain.data.images.convert import OddImage, read_odd
from derain.inference.predictor import Predictor, load_model_folder


class Api(litserve.LitAPI):
    """JSON with an encoded image in base64, which LitServe hands to the process of the network."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._folder = folder

    def setup(self, device: str) -> None:
        """Load the network, in the process that computes."""
        self._predictor = Predictor(load_model_folder(self._folder), device)

    def decode_request(self, request: dict[str, str]) -> OddImage:
        """Decode with this package's code, as `serve` does."""
        return read_odd(base64.b64decode(request["image"]), "The image")

    def predict(self, image: OddImage) -> tuple[OddImage, np.ndarray]:
        """The image and its derained pixels."""
        return image, self._predictor.derain(image.srgb)

    def encode_response(self, output: tuple[OddImage, np.ndarray]) -> dict[str, str]:
        """Encode as `serve` does."""
        image, derained = output
        return {"image": base64.b64encode(image.encode_result(derained)).decode()}


if __name__ == "__main__":
    server: Any = litserve.LitServer(Api(sys.argv[1]), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
