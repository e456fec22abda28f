"""Conversion of decoded images, and the check of image sizes."""

import pytest
import torch

from derain.models.shapes import check_image_size, image_batch, with_dimensions


@pytest.mark.parametrize("memory", [torch.preserve_format, torch.channels_last])
def test_decoded_images_become_nchw_in_0_to_1(memory):
    images = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    batch = image_batch(images, memory)
    assert batch.dtype == torch.float32
    assert batch.shape == (2, 3, 4, 6)
    assert batch[1, 2, 3, 5] == images[1, 3, 5, 2].float() / 255
    assert image_batch(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8)).unique().tolist() == [1.0]


def test_height_and_width_must_be_multiples_of_the_stride():
    check_image_size("Any", torch.empty(1, 3, 16, 48), 16)
    for height, width in [(24, 16), (16, 24)]:
        with pytest.raises(ValueError, match=f"Any .* multiples of 16, got {height}x{width}"):
            check_image_size("Any", torch.empty(1, 3, height, width), 16)


def test_scalars_of_earlier_versions_get_their_dimension():
    state = {"alpha": torch.tensor(0.5), "step": torch.tensor(3.0), "weight": torch.ones(2)}
    reference = {"alpha": torch.zeros(1), "step": torch.tensor(0.0), "weight": torch.zeros(2)}
    found = with_dimensions(state, reference)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "alpha": (1,),
        "step": (),
        "weight": (2,),
    }
    assert float(found["alpha"]) == 0.5
