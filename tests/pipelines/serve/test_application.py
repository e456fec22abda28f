"""The application for a Ray Serve that others start: its proxy, our routes and limits."""

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from benchmarks._small import NETWORK
from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor, save_model_folder
from derain.models import build as build_network
from derain.pipelines.serve import KEY_VARIABLE, application
from derain.pipelines.serve.application import Arguments, build, service_of

OPTIONS = {key: value for key, value in NETWORK.items() if key != "name"}


def post(url: str, data: bytes) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return answer.read()


@pytest.mark.usefixtures("ray_cluster")
def test_rays_own_proxy_answers_with_our_routes_and_limits(tmp_path: Path, png: bytes) -> None:
    from ray import serve
    from ray.serve.config import HTTPOptions

    torch.manual_seed(0)
    network = build_network("fclip_unet", **OPTIONS)
    model = str(save_model_folder(network, tmp_path / "model", "fclip_unet", OPTIONS))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        arguments = Arguments(model=model, device="cpu", max_bytes=10_000)
        serve.run(build(arguments), name="derain", route_prefix="/")
        url = f"http://127.0.0.1:{port}"
        found = read_odd(post(f"{url}/v1/derain", png), "found").levels
        with urllib.request.urlopen(f"{url}/readyz", timeout=60) as ready:
            assert json.load(ready) == {"ready": True, "models": {"default": model}}
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(f"{url}/v1/derain", bytes(20_000))
    finally:
        serve.shutdown()
    assert refused.value.code == 413
    np.testing.assert_array_equal(found, Predictor(network).derain(read_odd(png, "it").srgb))


def test_the_key_is_that_of_the_process_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application.serve, "get_deployment_handle", lambda _: None)
    monkeypatch.setattr(application, "backend_of", lambda _: None)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    arguments = Arguments(model="models:/net/1", queue=3, time_limit=5)
    assert service_of(arguments, "models:/net/1").key is None
    monkeypatch.setitem(os.environ, KEY_VARIABLE, "secret")
    service = service_of(arguments, "models:/net/1")
    assert (service.key, service.limits.queue, service.limits.answer_s) == ("secret", 3, 5)


@pytest.mark.parametrize("wrong", [{}, {"model": ""}, {"model": "m", "max_byte": 1}])
def test_arguments_that_are_not_known_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Arguments.model_validate(wrong)
