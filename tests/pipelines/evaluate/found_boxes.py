"""A detector of bright blobs and a segmenter of bright pixels, for `--downstream`."""

import numpy as np
from scipy import ndimage

BRIGHT = 200


class Blobs:
    """Boxes around connected bright areas; the score is their share of the box."""

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """See `Downstream`."""
        marked, _ = ndimage.label(image.min(axis=2) > BRIGHT)
        places = ndimage.find_objects(marked)
        boxes = [[x.start, y.start, x.stop, y.stop] for y, x in places]
        scores = [float(np.mean(marked[place] > 0)) for place in places]
        return {
            "boxes": np.array(boxes, float).reshape(-1, 4),
            "labels": np.ones(len(boxes), int),
            "scores": np.array(scores),
        }


class Bright:
    """Class 1 where it is bright."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `Downstream`."""
        return (image.min(axis=2) > BRIGHT).astype(int)
