"""The page at `/`: one HTML text that fetches nothing but answers of this server."""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files

from derain.pipelines.serve.limits import Limits


@functools.cache
def _parts() -> tuple[str, str]:
    """The page, and its policy: this script and style, and no other."""
    folder = files("derain.pipelines.serve") / "assets"
    style, script = (
        (folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js")
    )
    html = (folder / "page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src blob: data:; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html.replace("/*style*/", style).replace("/*script*/", script), policy


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def page(limits: Limits, models: Sequence[str], needs_key: bool) -> tuple[str, str]:
    """The page, and the Content-Security-Policy it is sent with."""
    html, policy = _parts()
    facts = {"maxBytes": limits.max_bytes, "models": list(models), "needsKey": needs_key}
    told = json.dumps(facts).replace("<", "\\u003c")
    return html.replace("{facts}", told), policy
