"""`density`: matches are counted by label, and only with trained weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from derain.config import Config
from derain.data.loading.cache import TarPixels
from derain.data.prepared.manifest import open_prepared
from derain.errors import DataError, UsageError, WeightsError
from derain.models.encoders.rain_perception import RainPerception
from derain.pipelines.density import density

SIZES = {
    "encoder_dim": 16,
    "encoder_width": 32,
    "encoder_layers": 1,
    "encoder_text_width": 32,
    "encoder_text_layers": 1,
}
WORDS = ["light rain", "moderate rain", "heavy rain"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a complete but small CLIP, as open_clip saves them."""
    from open_clip.model import CLIP

    torch.manual_seed(3)
    vision = {"image_size": 224, "patch_size": 32, "width": 32, "head_width": 32, "layers": 1}
    clip = CLIP(16, vision, {"width": 32, "heads": 1, "layers": 1}, quick_gelu=True)
    path = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, path)
    return path


def config(folder: Path, **model: Any) -> Config:
    tree = {
        "name": "density",
        "model": {"name": "clip_rpn", "prompts": WORDS, **SIZES, **model},
        "train": {"steps": 1, "device": "cpu"},
        "data": {"cache_dir": str(folder)},
    }
    return Config.model_validate(tree)


def test_counts_equal_those_of_single_images(
    rain_datasets: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    found = density(config(tmp_path, encoder_weights=str(weights)), str(rain_datasets[0]))
    prepared = open_prepared(rain_datasets[0])
    sizes = {key.removeprefix("encoder_"): value for key, value in SIZES.items()}
    perception = RainPerception(str(weights), WORDS, **sizes)
    expected: dict[str, list[int]] = {}
    for text, (rain, _) in zip(prepared.column("labels"), TarPixels(prepared), strict=True):
        (truth,) = (name for name in ("light", "moderate", "heavy") if name in text)
        image = torch.from_numpy(rain).permute(2, 0, 1)[None] / 255
        row = expected.setdefault(truth, [0, 0, 0])
        row[perception(image).argmax()] += 1
    assert found["counts"] == expected
    assert list(found["counts"]) == [n for n in ("light", "moderate", "heavy") if n in expected]
    assert found["pictures"] == len(prepared)
    assert sum(map(sum, found["published"].values())) == 1200


def test_random_weights_are_refused(rain_datasets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="untrained CLIP mean nothing"):
        density(config(tmp_path, encoder_weights="random"), str(rain_datasets[0]))


def test_missing_labels_weights_and_prompts_are_named(
    rain_datasets: tuple[Path, Path], weights: Path, tmp_path: Path
) -> None:
    given = config(tmp_path, encoder_weights=str(weights))
    with pytest.raises(DataError, match="have no label `wind`"):
        density(given, str(rain_datasets[0]), label="wind")
    gone = config(tmp_path, encoder_weights="/nowhere/clip.safetensors")
    with pytest.raises(WeightsError, match="nothing"):
        density(gone, str(rain_datasets[0]))
    other = given.replaced({"model": {"name": "prenet"}}, "test")
    with pytest.raises(UsageError, match="clip_rpn"):
        density(other, str(rain_datasets[0]))
