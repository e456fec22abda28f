"""Scores compared with open_clip's; fingerprints; and where the weights come from."""

import pytest
import torch
from safetensors.torch import save_file

from derain.models import fingerprint
from derain.models.encoders.rain_perception import (
    PROMPTS,
    RainPerception,
    clip_square,
    zero_shot_counts,
)

SIZES = {"dim": 16, "width": 32, "layers": 1, "text_width": 32, "text_layers": 1}
WORDS = ("light rain", "heavy rain")


@pytest.fixture(scope="module")
def original():
    """open_clip's whole CLIP, small."""
    from open_clip.model import CLIP

    torch.manual_seed(3)
    vision = {"image_size": 224, "patch_size": 32, "width": 32, "head_width": 32, "layers": 1}
    text = {"width": 32, "heads": 1, "layers": 1}
    clip = CLIP(16, vision, text, quick_gelu=True).eval()
    with torch.no_grad():
        clip.visual.proj.mul_(5)  # so that images differ beyond rounding
    return clip


@pytest.fixture(scope="module")
def weights(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors"
    save_file({k: v.contiguous() for k, v in original.state_dict().items()}, path)
    return path


def images(count=3, height=48, width=64):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def reference(original, x, prompts, temperature, cosine):
    """open_clip's own functions, after its own square of 224 px."""
    from open_clip.tokenizer import SimpleTokenizer

    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        v = original.encode_image((clip_square(x) - mean) / std, normalize=cosine)
        t = original.encode_text(SimpleTokenizer()(list(prompts)), normalize=cosine)
    return torch.softmax(temperature * v @ t.T, dim=1)


@pytest.mark.parametrize(
    ("similarity", "temperature"), [("cosine", 100.0), ("cosine", 1.0), ("dot", 1.0)]
)
def test_scores_equal_open_clips(original, weights, similarity, temperature):
    ours = RainPerception(
        str(weights), WORDS, similarity=similarity, temperature=temperature, **SIZES
    )
    expected = reference(original, images(), WORDS, temperature, similarity == "cosine")
    torch.testing.assert_close(ours(images()), expected, rtol=1e-4, atol=1e-6)


def test_openais_own_state_dict_is_accepted(original, weights, tmp_path):
    sizes = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    tensors = {k: v.half() for k, v in original.state_dict().items()}
    torch.save({**tensors, **{k: torch.tensor(v) for k, v in sizes.items()}}, tmp_path / "w.pt")
    half = RainPerception(str(tmp_path / "w.pt"), WORDS, **SIZES)
    assert {p.dtype for p in half.parameters()} == {torch.float32}
    whole = RainPerception(str(weights), WORDS, **SIZES)
    torch.testing.assert_close(half(images()), whole(images()), rtol=0.05, atol=0.01)


@pytest.mark.parametrize(("height", "width"), [(321, 481), (481, 321), (90, 60), (224, 224)])
def test_the_square_is_clips_own_preprocessing(height, width):
    """Compared with open_clip's transform, whose bicubic by PIL rounds to 8 bits twice."""
    import numpy as np
    from open_clip.transform import image_transform
    from PIL import Image

    smooth = torch.nn.functional.interpolate(images(1, 9, 13), (height, width), mode="bicubic")
    levels = (smooth.clamp(0, 1) * 255).round().to(torch.uint8)
    transform = image_transform(224, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = transform(Image.fromarray(np.ascontiguousarray(levels[0].permute(1, 2, 0))))
    found = clip_square(levels.float() / 255)[0]
    assert (found - expected).abs().max() < 2 / 255


def test_scores_do_not_depend_on_autocast_mode_or_batch():
    perception = RainPerception("random", WORDS, **SIZES)
    alone = torch.cat([perception(x[None]) for x in images()])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        together = perception.train()(images())
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert not perception.training


def test_the_image_tower_runs_without_tf32_and_restores_the_setting():
    """With TF32, the 3,072 products of a patch are rounded to 10 bits: a label could change."""
    perception, seen = RainPerception("random", WORDS, **SIZES), []
    operations = torch.backends.cudnn.conv, torch.backends.cuda.matmul

    def precisions() -> list[str]:
        return [each.fp32_precision for each in operations]

    before = precisions()
    perception.visual.conv1.register_forward_hook(lambda *_: seen.append(precisions()))
    assert before[0] == "tf32"
    perception(images())
    with pytest.raises(RuntimeError):
        perception(images()[:0])
    assert seen[0] == ["ieee", "ieee"]
    assert precisions() == before


def test_nothing_is_trained():
    perception = RainPerception("random", WORDS, **SIZES)
    assert not any(p.requires_grad for p in perception.parameters())
    x = images().requires_grad_()
    assert not perception(x).requires_grad


def test_the_fingerprint_depends_on_prompts_and_weights():
    made = [
        RainPerception("random", prompts, seed=seed, **SIZES)
        for prompts, seed in [(WORDS, 0), (WORDS, 1), (WORDS[::-1], 0), (WORDS, 0)]
    ]
    prints = [fingerprint(perception) for perception in made]
    assert len(set(prints)) == 3
    assert prints[0] == prints[3]


@pytest.mark.parametrize("other", [{"similarity": "dot"}, {"temperature": 1.0}])
def test_the_fingerprint_depends_on_the_options_of_the_scores(other):
    """They change the scores that a run was trained with."""
    usual, changed = (RainPerception("random", WORDS, **SIZES, **o) for o in ({}, other))
    assert not torch.allclose(usual(images()), changed(images()))
    assert fingerprint(usual) != fingerprint(changed)


def test_random_weights_leave_the_random_state_alone():
    state = torch.get_rng_state()
    RainPerception("random", WORDS, **SIZES)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_the_image_tower_is_kept():
    names = RainPerception("random", WORDS, **SIZES).state_dict()
    assert {name.split(".")[0] for name in names} == {"visual", "text", "told", "reading"}


def test_the_rows_of_the_counts_are_true_classes(weights):
    perception = RainPerception(str(weights), WORDS, **SIZES)
    found = perception(images(6)).argmax(1)
    truth = torch.tensor([0, 2, 2, 1, 0, 2])
    batches = [(images(6)[:4], truth[:4]), (images(6)[4:], truth[4:])]
    counts = zero_shot_counts(perception, batches, classes=3)
    expected = torch.zeros(3, 2, dtype=torch.int64)
    for row, column in zip(truth, found, strict=True):
        expected[row, column] += 1
    assert torch.equal(counts, expected)


def test_the_error_for_a_missing_file_lists_the_tags(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"encoder_weights=.*openai"):
        RainPerception(str(tmp_path / "clip.safetensors"), **SIZES)


def test_without_internet_the_error_says_where_to_put_the_file(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"open_clip_model\.safetensors"):
        RainPerception("openai", **SIZES)


def test_weights_of_another_size_are_refused(weights):
    with pytest.raises(ValueError, match=r"open_clip_model\.safetensors"):
        RainPerception(str(weights), WORDS, **{**SIZES, "layers": 2})


@pytest.mark.parametrize("options", [{"similarity": "l2"}, {"prompts": ()}, {"temperature": 0.0}])
@pytest.mark.usefixtures("unchecked")
def test_invalid_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        RainPerception("random", **{**SIZES, **options})


def test_the_prompts_of_a_set_have_different_vectors():
    for prompts in PROMPTS.values():
        text = RainPerception("random", prompts, **SIZES).text
        distances = torch.cdist(text, text) + torch.eye(len(prompts))
        assert distances.min() > 0.01
