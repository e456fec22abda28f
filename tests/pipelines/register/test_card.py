"""The card of a version: readable text, and front matter that other programs read."""

import yaml

from derain.pipelines.register.card import card

TAGS = {
    "protocol": "rain13k v1", "psnr_y": "30.5", "ssim_y": "0.91", "input_psnr_y": "25.0",
    "input_ssim_y": "0.8", "test_psnr_y": "29.25", "test_ssim_y": "0.9",
    "test_input_psnr_y": "24.0", "test_input_ssim_y": "0.79", "trained_parameters": "1234567",
    "frozen_parameters": "0",
    "macs": "2500000000", "train_seconds": "90.0", "profile": "demo",
    "train_manifest_sha256": "a" * 64, "eval_manifest_sha256": "b" * 64, "test_sha256": "c" * 64,
    "chosen_on_test": "false",
}  # fmt: skip
DATASETS = {"train": "rain13k", "validation": "rain13k (20 of 200 pairs)", "test": "rain100l"}


def test_the_card_says_what_was_measured_on_which_images() -> None:
    text = card("net", "fclip_unet", TAGS, DATASETS)
    assert "| test (rain100l) | PSNR-Y | 29.250 | 24.000 |" in text
    assert "| validation (rain13k (20 of 200 pairs)) | SSIM-Y | 0.9100 | 0.8000 |" in text
    assert "1,234,567 trained parameters, 2.5 G multiply-adds" in text
    assert "Protocol: rain13k v1. The validation images chose the checkpoint" in text
    assert "- test: rain100l (manifest cccccccccccc...)" in text
    on_test = card("net", "fclip_unet", {**TAGS, "chosen_on_test": "true"}, DATASETS)
    assert "these results are too good" in on_test
    assert "random weights" not in text
    assert "random weights" in card("net", "fclip_unet", {**TAGS, "encoder_weights": "random"}, {})


def test_the_front_matter_is_a_model_index_of_the_test_images() -> None:
    _, front, _ = card("net", "fclip_unet", TAGS, DATASETS).split("---\n", 2)
    (result,) = yaml.safe_load(front)["model-index"][0]["results"]
    assert result["dataset"] == {"name": "rain100l", "type": "rain100l", "split": "test"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == {"PSNR-Y": 29.25, "SSIM-Y": 0.9}


def test_imported_weights_have_a_card_without_training_data() -> None:
    tags = {key: value for key, value in TAGS.items() if "sha256" not in key and "test" not in key}
    text = card("net", "prenet", tags, {"validation": "rain100l"})
    assert "Not recorded: these weights were imported." in text
    assert "| test (" not in text
