"""Rain masks and their loss, compared with the formulas in numpy."""

import numpy as np
import pytest
import torch

from derain.models.layers.rain_masks import MaskHead, mask_loss, rain_mask


def test_the_head_predicts_one_channel():
    assert MaskHead(1)(torch.rand(2, 1, 5, 7)).shape == (2, 1, 5, 7)
    assert MaskHead(8)(torch.rand(2, 8, 5, 7)).shape == (2, 1, 5, 7)


def test_the_rain_mask_is_any_channel_beyond_the_threshold():
    clean = torch.zeros(1, 3, 1, 4)
    rainy = clean.clone()
    rainy[0, 1, 0, 1], rainy[0, 2, 0, 2], rainy[0, 0, 0, 3] = 0.04, 0.02, -0.5
    assert rain_mask(rainy, clean, 0.03).flatten().tolist() == [0.0, 1.0, 0.0, 1.0]


def test_the_mask_loss_is_the_formula():
    generator = torch.Generator().manual_seed(5)
    clean = torch.rand(3, 3, 8, 16, generator=generator)
    rain = (torch.rand(3, 1, 8, 16, generator=generator) > torch.tensor([0.95, 0.6, 2.0]).view(
        3, 1, 1, 1
    )) * 0.5  # fmt: skip
    logits = [torch.randn(3, 1, 8 // s, 16 // s, generator=generator) for s in (1, 2)]
    expected = 0.0
    for s, logit in zip((1, 2), logits, strict=True):
        terms = []
        for n in range(3):
            g = (rain[n, 0] > 0).numpy().reshape(8 // s, s, 16 // s, s).max((1, 3))
            w = min(10.0, max(1.0, (~g).sum() / max(1, g.sum())))
            m = 1 / (1 + np.exp(-logit[n, 0].double().numpy()))
            terms.append(-(w * g * np.log(m) + ~g * np.log(1 - m)).mean())
        expected += np.mean(terms)
    found = mask_loss(logits, clean + rain, clean, 0.03)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_the_mask_loss_of_a_batch_is_the_mean_of_its_images():
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    clean, logits = x * 0.96, [torch.randn(4, 1, 8, 8)]
    whole = mask_loss(logits, x, clean, 0.03)
    parts = [
        mask_loss([logits[0][i : i + 1]], x[i : i + 1], clean[i : i + 1], 0.03) for i in range(4)
    ]
    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)
