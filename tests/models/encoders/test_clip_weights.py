"""CLIP weights: where they are looked for, and which part of them is used."""

import pytest
import torch

from derain.models.encoders.clip_weights import image_tower, read_clip


@pytest.mark.parametrize("prefix", ["", "visual."])
def test_the_image_tower_is_taken_out_of_a_complete_clip(prefix):
    names = {f"{prefix}conv1.weight", f"{prefix}attnpool.weight"}
    text = {"logit_scale"} if prefix else set()
    tensors = {name: torch.ones(1) for name in names | text}
    assert image_tower(tensors, ("attnpool.",)).keys() == {"conv1.weight"}


def test_the_error_for_a_missing_file_lists_the_tags(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'random'.*openai.*nothing"):
        read_clip("RN50", str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("tag", ["openai", "cc12m"])
def test_without_internet_the_error_says_where_to_put_the_file(monkeypatch, tmp_path, tag):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"'{tag}'.*encoder_weights=/path/to"):
        read_clip("RN50", tag)
