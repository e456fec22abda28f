"""Names and values that MLflow accepts, for metrics, parameters, tags and runs."""

import hashlib
import json
import posixpath
import re
from typing import Any

NAME_LIMIT = 250
"""MLflow's limit of the characters of a name; databases other than sqlite enforce it."""
DIGEST_CHARACTERS = 8
PARAM_VALUE_LIMIT = 6000
"""MLflow's limit of the characters of a parameter's value."""


def accepted(name: str) -> str:
    """The name itself if MLflow accepts it as that of a metric, parameter or tag.

    Otherwise a similar one that ends with a digest, so that different names stay different: MLflow
    allows letters and digits of all languages, `_ - . : /` and spaces, at most `NAME_LIMIT`
    characters, and paths in normal form only.
    """
    kept = re.sub(r"[^/\w.\- :]", "_", name)
    if posixpath.normpath(kept) != kept or kept.startswith(("..", "/")) or kept == ".":
        kept = kept.replace("/", "_").replace("..", "__").strip(".") or "_"
    return shortened(kept if kept == name else f"{kept}-{_digest(name)}", name)


def shortened(text: str, name: str | None = None) -> str:
    """At most `NAME_LIMIT` characters; what is longer is cut and ends with a digest of `name`."""
    if len(text) <= NAME_LIMIT:
        return text
    end = f"-{_digest(name or text)}"
    return text[: NAME_LIMIT - len(end)] + end


def param_value(value: Any) -> str:
    """The value as text; what is longer than MLflow allows is cut and ends with its SHA-256."""
    text = json.dumps(value, default=str) if isinstance(value, list | tuple | dict) else str(value)
    if len(text) <= PARAM_VALUE_LIMIT:
        return text
    end = f"... sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    return text[: PARAM_VALUE_LIMIT - len(end)] + end


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:DIGEST_CHARACTERS]
