"""A predictor accepts any size and leaves the network unchanged; model folders restore networks."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from derain import models
from derain.errors import DataError, DerainError, OccupiedError, WeightsError
from derain.inference.predictor import Predictor, _load_pyfunc, load_model_folder, save_model_folder
from tests.processes import room_for

SMALL = {
    "encoder_weights": "random",
    "encoder_layers": (1, 1, 1, 1),
    "encoder_width": 8,
    "decoder_widths": (16, 16, 8, 8, 8),
    "decoder_depths": (1, 1, 1, 1, 1),
}


class Brighter(nn.Module):
    """Adds a constant, but only in eval mode; refuses sides that are not multiples of 16."""

    stride = 16

    def __init__(self, amount: float = 0.0) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))
        self.frozen_part = nn.Dropout(0.5).eval()

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-2] % self.stride == 0
        assert x.shape[-1] % self.stride == 0
        return torch.zeros_like(x) if self.training else x + self.amount


class Tied(nn.Module):
    """A network with one weight under two names."""

    stride = 1

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "brighter", Brighter)
    monkeypatch.setitem(models.MODELS, "tied", Tied)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("tried to download something")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_route_is_that_of_the_image_without_its_mirrored_edge() -> None:
    """As in training, where routes are decided on whole images."""
    torch.manual_seed(0)
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (1, 1), "mgca": ("none",)}
    network = models.build("clip_rpn", routing="random", **sizes)
    predictor = Predictor(network)
    routes = []
    for seed in range(4):
        image = noise(20, 24, seed)
        rainy = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
        mirrored = nn.functional.pad(rainy, (0, 8, 0, 12), mode="reflect")
        routes.append([int(network.perceive(x)) for x in (rainy, mirrored)])
        with torch.no_grad():
            expected, *_ = network.experts[routes[-1][0]](mirrored)
        found = torch.from_numpy(predictor.levels(image)).permute(2, 0, 1)
        torch.testing.assert_close(found / 255, expected[0, :, :20, :24].clamp(0, 1))
    assert any(whole != padded for whole, padded in routes)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 50), width=st.integers(1, 50))
def test_the_identity_returns_any_image_exactly(height: int, width: int) -> None:
    image = noise(height, width)
    derained = Predictor(Brighter()).derain(image)
    assert derained.dtype == np.uint8
    np.testing.assert_array_equal(derained, image)


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (15, 33), (32, 16)])
def test_the_network_gets_the_image_mirrored_at_its_right_and_lower_edge(
    size: tuple[int, int],
) -> None:
    seen = []

    class Spy(Brighter):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.clone())
            return super().forward(x)

    image = noise(*size)
    Predictor(Spy()).derain(image)
    levels = (seen[0][0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    height, width = size

    def mirrored(at: int, side: int) -> int:
        period = max(1, 2 * (side - 1))
        return min(at % period, (period - at) % period) if side > 1 else 0

    assert levels.shape == (-(-height // 16) * 16, -(-width // 16) * 16, 3)
    for row in range(levels.shape[0]):
        for column in range(0, levels.shape[1], 3):
            expected = image[mirrored(row, height), mirrored(column, width)]
            assert (levels[row, column] == expected).all()


def test_the_output_is_clamped_and_rounded_to_the_nearest_level() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    assert (Predictor(Brighter(0.6 / 255)).derain(image) == 101).all()
    assert (Predictor(Brighter(0.4 / 255)).derain(image) == 100).all()
    assert (Predictor(Brighter(+9.0)).derain(image) == 255).all()
    assert (Predictor(Brighter(-9.0)).derain(image) == 0).all()


def test_the_modes_of_all_parts_are_restored() -> None:
    network = Brighter().train()
    network.frozen_part.eval()
    image = noise(8, 8)
    np.testing.assert_array_equal(Predictor(network).derain(image), image)
    assert network.training
    assert not network.frozen_part.training
    network.eval()
    Predictor(network).derain(image)
    assert not network.training


def test_the_modes_are_restored_after_a_failure_too() -> None:
    class Failing(Brighter):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no kernel for {tuple(x.shape)}")

    network = Failing().train()
    with pytest.raises(DerainError, match=r"Failing fails on an image of 8x8 px.*no kernel"):
        Predictor(network).derain(noise(8, 8))
    assert network.training


def test_a_diverged_network_is_an_error_and_not_a_black_image() -> None:
    with pytest.raises(DerainError, match="NaN or infinity"):
        Predictor(Brighter(float("nan"))).derain(noise(8, 8))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_other_arrays_than_images_are_refused(image: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"\(height, width, 3\)"):
        Predictor(Brighter()).derain(image)


def test_a_model_folder_gives_the_same_images(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.build("fclip_unet", **SMALL, output="residual")
    image = noise(37, 21)
    expected = Predictor(network).derain(image)
    save_model_folder(network, tmp_path, "fclip_unet", {**SMALL, "output": "residual"})
    torch.manual_seed(1)
    loaded = load_model_folder(tmp_path)
    assert not loaded.training
    np.testing.assert_array_equal(Predictor(loaded).derain(image), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "network.json"]


@pytest.mark.usefixtures("no_network")
def test_the_frozen_encoder_comes_from_the_folder(tmp_path: Path) -> None:
    """Saved as trained with CLIP's weights, which are loaded from the folder and nowhere else."""
    network = models.build("fclip_unet", **SMALL)
    nn.init.constant_(next(network.encoder.parameters()), 0.25)
    named, unnamed = SMALL | {"encoder_weights": "openai"}, _without(SMALL, "encoder_weights")
    for options, weights in ((named, "openai"), (unnamed, "published")):
        folder = tmp_path / weights
        save_model_folder(network, folder, "fclip_unet", options)
        description = json.loads((folder / "network.json").read_text())
        assert description["trained_with"] == {"encoder_weights": weights}
        loaded = load_model_folder(folder)
        assert (next(loaded.encoder.parameters()) == 0.25).all()


def _without(options: dict, key: str) -> dict:
    return {name: value for name, value in options.items() if name != key}


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    network = Tied()
    save_model_folder(network, tmp_path, "tied", {})
    loaded = load_model_folder(tmp_path)
    assert torch.equal(loaded.second.weight, network.first.weight)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OccupiedError):
        save_model_folder(Brighter(), tmp_path, "brighter", {})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_on_a_full_disk_can_be_written_again(tmp_path: Path) -> None:
    with room_for(10), pytest.raises(OSError, match="large"):
        save_model_folder(Brighter(), tmp_path, "brighter", {})
    assert not list(tmp_path.iterdir())
    save_model_folder(Brighter(), tmp_path, "brighter", {})


def _drop_amount(folder: Path) -> None:
    save_file({"amonut": torch.zeros(())}, folder / "model.safetensors")


def _retype_amount(folder: Path) -> None:
    save_file({"amount": torch.tensor(1, dtype=torch.int32)}, folder / "model.safetensors")


def _reshape_amount(folder: Path) -> None:
    save_file({"amount": torch.zeros(2)}, folder / "model.safetensors")


def _truncate_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-2])


def _replace_weights_by_text(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def _describe(**changes: object) -> object:
    def change(folder: Path) -> None:
        path = folder / "network.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_drop_amount, r"missing: amount; unexpected: amonut"),
        (_retype_amount, r"wrong type: amount is torch.int32, expected torch.float32"),
        (_reshape_amount, r"amount is \(2,\), expected \(\)"),
        (_truncate_weights, r"model.safetensors is damaged"),
        (_replace_weights_by_text, r"model.safetensors is damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model.safetensors is missing"),
        (lambda folder: (folder / "network.json").unlink(), r"network.json is missing"),
        (lambda folder: (folder / "network.json").write_text("{"), r"not JSON"),
        (lambda folder: (folder / "network.json").write_text("[" * 100_000), r"not JSON"),
        (_describe(format=2), r"format 1, found 2"),
        (_describe(name="brigther"), r"'brigther'; choose from: .*brighter"),
        (_describe(options={"amuont": 1.0}), r"cannot build brighter with .*amuont"),
        (_describe(options=None), r"name of a network and its options"),
    ],
)
def test_damage_to_a_model_folder_is_named(tmp_path: Path, damage: object, named: str) -> None:
    save_model_folder(Brighter(0.1), tmp_path, "brighter", {"amount": 0.1})
    assert load_file(tmp_path / "model.safetensors")["amount"] == pytest.approx(0.1)
    damage(tmp_path)
    with pytest.raises(WeightsError, match=named):
        load_model_folder(tmp_path)


def test_pyfunc_accepts_batches_only(tmp_path: Path) -> None:
    save_model_folder(Brighter(3 / 255), tmp_path, "brighter", {})
    model = _load_pyfunc(str(tmp_path))
    batch = np.stack([noise(9, 12, seed) for seed in range(3)])
    expected = np.minimum(batch.astype(int) + 3, 255)
    np.testing.assert_array_equal(model.predict(batch), expected)
    with pytest.raises(DataError, match=r"\(batch, height, width, 3\)"):
        model.predict(batch[0])
    with pytest.raises(DataError, match="found list"):
        model.predict(batch.tolist())
    with pytest.raises(DataError, match="tile"):
        model.predict(batch, params={"tile": 4})


def test_weights_of_rdmc_saved_with_scalars_still_load(tmp_path: Path) -> None:
    options = {"widths": (4, 8), "dilations": (1,), "recursions": 1, "gate": "learned"}
    network = models.build("rdmc", **options)
    folder = save_model_folder(network, tmp_path / "model", "rdmc", options)
    state = load_file(folder / "model.safetensors")
    gates = [name for name in state if name.endswith("alpha")]
    assert gates
    old = {name: it.reshape(()) if name in gates else it for name, it in state.items()}
    save_file(old, folder / "model.safetensors")
    loaded = load_model_folder(folder).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_one_size_in_one_pass_are_those_of_single_passes(dtype: type) -> None:
    torch.manual_seed(0)
    sizes = {"widths": (8, 16), "depths": (1, 1), "heads": (1, 1), "mgca": ("none",)}
    network = models.build("clip_rpn", routing="random", **sizes)
    predictor, seen = Predictor(network), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    top = np.iinfo(dtype).max
    images = [
        np.random.default_rng(seed).integers(0, top, (20, 24, 3), dtype=dtype) for seed in range(5)
    ]
    routes = [predictor.route(image) for image in images]
    assert len(set(routes)) > 1
    found = predictor.derain_alike(images, routes)
    assert seen == [5]
    for image, one in zip(images, found, strict=True):
        expected = predictor.derain(image)
        assert one.dtype == dtype
        assert np.abs(one.astype(int) - expected).max() <= 1


def test_images_that_are_cut_into_tiles_go_one_by_one() -> None:
    predictor = Predictor(Brighter(), tile=128)
    images = [noise(150, 140, seed) for seed in range(2)]
    for image, one in zip(images, predictor.derain_alike(images, [None, None]), strict=True):
        np.testing.assert_array_equal(one, predictor.derain(image))
