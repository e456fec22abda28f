"""How well a detector or a segmenter agrees with itself on the clean images.

A detector finds less in rain; RDMC's paper judges deraining by how much of it comes back. Nobody
has to label anything: what is found on the clean image is the truth for the rainy and the derained
one. That is a measure of deraining, not of the detector.
"""

from derain.evaluation.downstream.found import SIDES, Boxes, Found, found_in, name_of
from derain.evaluation.downstream.summary import agreement

__all__ = ["SIDES", "Boxes", "Found", "agreement", "found_in", "name_of"]
