"""Images of a dataset beside what networks make of them: an HTML page, and a grid as one image."""

from derain.evaluation.gallery.grid import best_and_worst, gallery, grid
from derain.evaluation.gallery.images import (
    RAINY,
    GalleryImage,
    choose,
    error_map,
    metric_label,
)
from derain.evaluation.gallery.page import LIMIT_BYTES, SHOWN, write_gallery

__all__ = [
    "LIMIT_BYTES",
    "RAINY",
    "SHOWN",
    "GalleryImage",
    "best_and_worst",
    "choose",
    "error_map",
    "gallery",
    "grid",
    "metric_label",
    "write_gallery",
]
