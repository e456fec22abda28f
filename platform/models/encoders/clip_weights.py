"""CLIP weights: by open_clip tag or from a file, and the input statistics that go with them."""

import urllib.error

from torch import Tensor

from derain.models.weights import read_state_dict

TAGS = {
    "RN50": ("openai", "yfcc15m", "cc12m"),
    "ViT-B-32": ("openai", "laion400m_e32"),
    "ViT-B-16": ("openai",),
}
"""open_clip tags whose weights are known to fit the architectures built here."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of RGB in [0, 1] that CLIP normalises its input with (github openai/CLIP, clip.py)."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""The standard deviation that belongs to `CLIP_MEAN`."""


def read_clip(arch: str, weights: str) -> tuple[dict[str, Tensor], str]:
    """Return the state dict of a complete CLIP and the path of its file.

    weights: a tag in `TAGS[arch]` (downloaded by open_clip unless cached), or the path of a local
        file, see `read_state_dict`.

    Raises FileNotFoundError if the weights are not available, ValueError if the file is not a
    state dict.
    """
    path = _download(arch, weights) if weights in TAGS[arch] else weights
    try:
        return read_state_dict(path), path
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"encoder_weights={weights!r} is neither 'random' nor one of the tags "
            f"{', '.join(TAGS[arch])} nor an existing file. {error}"
        ) from None


def image_tower(tensors: dict[str, Tensor], unused: tuple[str, ...]) -> dict[str, Tensor]:
    """The image tower of a CLIP state dict, without the names that start with one of `unused`."""
    prefix = "visual." if any(name.startswith("visual.") for name in tensors) else ""
    tower = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v for k, v in tower.items() if not k.startswith(unused)}


def _download(arch: str, tag: str) -> str:
    """The local path of open_clip's weights; a copy in its cache needs no network."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    source = get_pretrained_cfg(arch, tag)
    try:
        return download_pretrained(source)
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        raise FileNotFoundError(
            f"The CLIP {arch} weights {tag!r} are not in the cache and could not be downloaded "
            f"from the Hugging Face repository {source['hf_hub'].rstrip('/')}: {error} Download "
            "open_clip_model.safetensors from there on a machine with internet access, copy it "
            "here and set encoder_weights=/path/to/open_clip_model.safetensors. "
            "(encoder_weights=random builds an untrained encoder, not CLIP.)"
        ) from error
