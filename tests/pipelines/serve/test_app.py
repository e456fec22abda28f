"""The HTTP interface in this process: answers equal those of `predict`, refusals are clear."""

import asyncio
import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient

from derain.data.images.convert import read_odd
from derain.inference.predictor import Predictor
from derain.pipelines.serve.answers import Derained, RefusedError
from derain.pipelines.serve.app import Served, Service, _answer, make_app
from tests.data.images.odd_images import (
    DEEP,
    NOISE,
    SIGNATURE,
    chunk,
    deep_tiff,
    encoded,
    png_with,
    profile,
)

ALPHA = Image.fromarray(np.dstack((np.asarray(NOISE), np.asarray(NOISE)[..., 0])))
EXACT = {
    "PNG": encoded(NOISE),
    "PNG of 16 bits": imagecodecs.png_encode(DEEP),
    "PNG with alpha": encoded(ALPHA),
    "grey PNG": encoded(NOISE.convert("L")),
    "PNG in Display P3": encoded(NOISE, icc_profile=profile()),
    "TIFF": encoded(NOISE, "TIFF"),
    "TIFF of 16 bits": deep_tiff(),
    "grey TIFF of 16 bits": deep_tiff(DEEP[..., 0]),
    "TIFF with alpha": encoded(ALPHA, "TIFF"),
    "TIFF in Display P3": encoded(NOISE, "TIFF", icc_profile=profile()),
    "BMP": encoded(NOISE, "BMP"),
    "WebP without losses": encoded(NOISE, "WEBP", lossless=True),
    "WebP with alpha": encoded(ALPHA, "WEBP", lossless=True, exact=True),
    "WebP in Display P3": encoded(NOISE, "WEBP", lossless=True, icc_profile=profile()),
}
LOSSY = {"JPEG": encoded(NOISE, "JPEG"), "WebP": encoded(NOISE, "WEBP", quality=90)}


def predicted(predictor: Predictor, data: bytes) -> bytes:
    """What `predict` writes."""
    image = read_odd(data, "it")
    return image.encode_result(predictor.derain(image.srgb))


def error_of(response: object) -> str:
    told = response.json()["error"]
    assert told["message"].endswith((".", ".)")), told
    return f"{response.status_code} {told['kind']}"


@pytest.mark.parametrize("kind", EXACT)
def test_an_answer_has_the_format_and_the_pixels_of_predict(
    client: TestClient, predictor: Predictor, kind: str
) -> None:
    answer = client.post("/v1/derain", content=EXACT[kind])
    assert answer.status_code == 200, answer.text
    found, given = read_odd(answer.content, "found"), read_odd(EXACT[kind], "given")
    expected = read_odd(predicted(predictor, EXACT[kind]), "expected")
    assert found.header.format == given.header.format
    assert found.header.profile == given.header.profile
    np.testing.assert_array_equal(found.levels, expected.levels)
    assert (found.alpha is None) == (expected.alpha is None)
    if found.alpha is not None:
        np.testing.assert_array_equal(found.alpha, expected.alpha)
    assert not np.array_equal(found.levels, given.levels)


@pytest.mark.parametrize("kind", LOSSY)
def test_a_lossy_answer_is_near_to_predict(
    client: TestClient, predictor: Predictor, kind: str
) -> None:
    answer = client.post("/v1/derain", content=LOSSY[kind])
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    found = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.float32)
    expected = np.asarray(Image.open(io.BytesIO(predicted(predictor, LOSSY[kind]))), np.float32)
    away = np.abs(found - np.asarray(NOISE, np.float32)).mean()
    assert np.abs(found - expected).mean() < min(away, 20)


def test_a_form_a_chunked_body_and_json(client: TestClient, png: bytes) -> None:
    plain = client.post("/v1/derain", content=png)
    form = client.post("/v1/derain", files={"image": ("a.png", png, "image/png")})
    chunked = client.post("/v1/derain", content=iter([png[:100], png[100:]]))
    assert plain.content == form.content == chunked.content
    assert "forward;dur=" in plain.headers["server-timing"]
    told = client.post("/v1/derain", content=png, headers={"Accept": "application/json"}).json()
    assert (told["width"], told["height"], told["format"]) == (47, 33, "PNG")
    assert set(told["milliseconds"]) == {"decode", "queue", "forward", "encode"}


def bomb(side: int) -> bytes:
    """A small PNG whose header promises `side` x `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(2**16)))
    return SIGNATURE + chunk(b"IHDR", header) + pixels + chunk(b"IEND")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "400 empty"),
        (b"hello", "415 not_an_image"),
        (encoded(NOISE, "GIF"), "415 not_an_image"),
        (encoded(NOISE)[:-40], "422 damaged"),
        (encoded(NOISE, "JPEG")[:-200], "422 damaged"),
        (encoded(NOISE, "TIFF")[:50], "422 damaged"),
        (bomb(1000), "413 too_many_pixels"),
        (bomb(100_000), "413 too_many_pixels"),
        (bytes(2**20 + 1), "413 too_large"),
        (png_with(chunk(b"acTL", struct.pack(">II", 2, 0))), "422 damaged"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_is_no_image_for_the_network_is_refused(
    client: TestClient, body: bytes, expected: str
) -> None:
    assert error_of(client.post("/v1/derain", content=body)) == expected
    if body:
        files = {"image": ("a", body, "image/png")}
        assert error_of(client.post("/v1/derain", files=files)) == expected
        assert error_of(client.post("/v1/derain", content=iter([body]))) == expected


def test_a_form_without_a_file_and_other_paths(client: TestClient, png: bytes) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    empty = client.post("/v1/derain", content=b"--x--\r\n", headers=form)
    assert error_of(empty) == "400 no_file"
    assert error_of(client.post("/v1/derain?model=other", content=png)) == "404 no_such_model"
    assert error_of(client.get("/..%2f..%2fetc/passwd")) == "404 no_such_route"
    assert error_of(client.get("/v1/derain")) == "405 no_such_route"


def test_a_key_is_needed_if_there_is_one(service: Service, png: bytes) -> None:
    service.key = "sesame"
    client = TestClient(make_app(service))
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Bearer"}):
        assert error_of(client.post("/v1/derain", content=png, headers=headers)) == "401 no_key"
        assert error_of(client.get("/metrics", headers=headers)) == "401 no_key"
    right = {"Authorization": "Bearer sesame"}
    assert client.post("/v1/derain", content=png, headers=right).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert "sesame" not in client.get("/").text


def test_a_lost_replica_and_a_late_answer(service: Service, png: bytes) -> None:
    async def lost(_: bytes) -> object:
        raise RefusedError(503, "replica_lost", "It ended.", 1)

    async def late(_: bytes) -> object:
        await asyncio.sleep(60)

    service.models |= {"lost": Served("lost", lost), "late": Served("late", late)}  # type: ignore[arg-type]
    object.__setattr__(service.limits, "answer_s", 0.1)
    client = TestClient(make_app(service))
    gone = client.post("/v1/derain?model=lost", content=png)
    assert error_of(gone) == "503 replica_lost"
    assert gone.headers["retry-after"] == "1"
    assert error_of(client.post("/v1/derain?model=late", content=png)) == "504 too_long"
    assert service.models["late"].in_hand == 0


def test_metrics_ready_and_openapi(client: TestClient, service: Service, png: bytes) -> None:
    client.post("/v1/derain", content=png)
    client.post("/v1/derain", content=b"hello")
    lines = client.get("/metrics").text.splitlines()
    assert 'derain_requests_total{status="200"} 1.0' in lines
    assert 'derain_requests_total{status="415"} 1.0' in lines
    assert "derain_request_seconds_count 2.0" in lines
    assert "derain_requests_in_hand 0.0" in lines
    assert client.get("/readyz").json() == {"ready": True, "models": {"net": "net"}}
    service.ready = False
    assert client.get("/readyz").status_code == 503
    assert "/v1/derain" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 404  # it would fetch scripts from the network


def test_the_page_fetches_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http:" not in answer.text
    assert "https:" not in answer.text
    assert '"maxBytes": 1048576' in answer.text


def test_a_version_is_in_hand_while_a_body_arrives(service: Service, png: bytes) -> None:
    """Its replicas stay until then, when a new version takes over."""
    in_hand = []

    async def receive() -> dict[str, object]:
        in_hand.append(service.models["net"].in_hand)
        return {"type": "http.request", "body": png, "more_body": False}

    scope = {"type": "http", "query_string": b"", "headers": []}
    answer = asyncio.run(_answer(service, Request(scope, receive)))
    assert isinstance(answer, Derained)
    assert (in_hand, service.models["net"].in_hand) == ([1], 0)
