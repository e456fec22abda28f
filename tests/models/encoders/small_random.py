"""Small encoders with random weights, for comparison with another process."""

from derain.models import fingerprint
from derain.models.encoders.clip_resnet import CLIPResNetEncoder
from derain.models.encoders.rain_perception import RainPerception

SIZES = {"dim": 8, "width": 16, "layers": 1, "text_width": 16, "text_layers": 1}


def described() -> tuple[str, str, float]:
    """The fingerprints of two encoders, and the sum of the encoded prompts, to its last bit."""
    made = RainPerception("random", ["light rain", "rain"], **SIZES)
    total = made.text.double().sum().item()
    return fingerprint(made), fingerprint(CLIPResNetEncoder("random", (1, 1, 1, 1), 8)), total
