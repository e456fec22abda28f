"""`module:Name` -> the class that it names.

Imports nothing of ours: registered models carry a copy of it, for networks that are plug-ins.
"""

import importlib
from typing import Any

REMEDY = "Install its package, or add its folder to PYTHONPATH, here and on every worker."


def is_plugin(name: str) -> bool:
    """Whether a name refers to a plug-in, `module:Name`, and not to something of the platform's."""
    return ":" in name


def resolve(name: str) -> Any:
    """The class or function `module:Name`; its module is imported, which runs its code.

    Raises ValueError if it cannot be imported, with the same words for every kind of plug-in:
    several checks find the same fault, which is then listed once.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs the module's own code
        raise ValueError(
            f"{name} cannot be imported ({type(error).__name__}: {error}). {REMEDY}"
        ) from error
