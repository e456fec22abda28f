"""Published weights: recognised by their tensors, refused otherwise."""

import pytest
import torch
from safetensors.torch import save_file

import derain.models as models
from derain.models import published_weights

OPTIONS = {"width": 8, "recursions": 2, "shared_blocks": True}


def test_unknown_weights_are_refused_with_their_digest(tmp_path):
    tensors = models.build("prenet", **OPTIONS).state_dict()
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=published_weights.tensors_sha256(tensors)):
        published_weights.load_published(tmp_path / "other.safetensors")


def test_published_weights_are_recognised_in_both_file_formats(tmp_path, monkeypatch):
    """A network made here replaces the authors' file, which is not part of the project."""
    network = models.build("prenet", **OPTIONS)
    entry = published_weights.PublishedWeights("prenet", "nothing", "here", OPTIONS)
    digest = published_weights.tensors_sha256(network.state_dict())
    monkeypatch.setitem(published_weights.PUBLISHED, digest, entry)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    torch.save(network.state_dict(), tmp_path / "a.pth")
    images = torch.rand(1, 3, 8, 8)
    for name in ("a.safetensors", "a.pth"):
        loaded, recognised = published_weights.load_published(tmp_path / name)
        assert recognised is entry
        assert torch.equal(loaded(images), network(images))
    assert published_weights.published_in(tmp_path / "a.safetensors") is entry


@pytest.mark.parametrize(
    "entry", published_weights.PUBLISHED.values(), ids=lambda entry: entry.source
)
def test_every_published_entry_builds(entry):
    with torch.device("meta"):
        assert models.build(entry.network, **entry.options).stride >= 1
