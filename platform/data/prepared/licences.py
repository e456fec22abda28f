"""Licences by their SPDX identifiers, and what the Hugging Face Hub calls them."""

import re
from typing import Any

_KNOWN = {
    **{
        name: name.lower()
        for name in (
            *("CC0-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0"),
            *("CC-BY-SA-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0"),
            *("CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0"),
            *("CC-BY-NC-SA-4.0", "CDLA-Sharing-1.0", "CDLA-Permissive-1.0"),
            *("CDLA-Permissive-2.0", "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause"),
            *("BSD-3-Clause-Clear", "AFL-3.0", "Artistic-2.0", "BSL-1.0", "ECL-2.0", "EPL-1.0"),
            *("EPL-2.0", "EUPL-1.1", "EUPL-1.2", "LPPL-1.3c", "MPL-2.0", "MS-PL", "OFL-1.1"),
            *("ISC", "NCSA", "PostgreSQL", "Unlicense", "WTFPL", "Zlib", "etalab-2.0"),
        )
    },
    **{
        f"{name}{end}": name.lower()
        for name in ("AGPL-3.0", "GPL-2.0", "GPL-3.0")
        for end in ("", "-only", "-or-later")
    },
    **{
        f"{name}{end}": name.lower()
        for name in ("LGPL-2.1", "LGPL-3.0")
        for end in ("", "-only", "-or-later")
    },
    "ODbL-1.0": "odbl",
    "ODC-By-1.0": "odc-by",
    "PDDL-1.0": "pddl",
    "C-UDA-1.0": "c-uda",
    "GFDL-1.3-or-later": "gfdl",
}
"""The Hub's name for each identifier."""

_SPELLED = {name.lower(): name for name in _KNOWN}


def spdx(licence: str) -> str | None:
    """The SPDX identifier of a licence in its own spelling; None if it is none that the Hub has."""
    return _SPELLED.get(licence.strip().lower())


def address(licence: str) -> str | None:
    """Where a licence can be read: of a known one, or the address that was given in its place."""
    if re.match(r"https?://", licence):
        return licence
    name = spdx(licence)
    return f"https://spdx.org/licenses/{name}" if name else None


def front_matter(licence: str, *, own: bool) -> dict[str, Any]:
    """The keys of a dataset card for a licence; `own` for one that the user named.

    Of a published dataset nothing but a known licence is stated.
    """
    if (name := spdx(licence)) is not None:
        return {"license": _KNOWN[name]}
    if not own:
        return {"license": "unknown"}
    link = address(licence)
    text = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "other"
    return {"license": "other", "license_name": text, **({"license_link": link} if link else {})}
